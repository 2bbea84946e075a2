"""The front end's modules: their own tests under Node, and how the server sends them."""

import json
import re
import subprocess
import tomllib

import pytest

from lungseg.config import CHECKOUT
from lungseg.records.findings import ScanFinding, ScanSeverity
from lungseg.records.masks import Lesion
from lungseg.services.rethreshold import ThresholdOption, ThresholdState
from lungseg.ui.viewer import Layer, LayerMask, threshold_data, to_script
from lungseg.web.modules import FOLDER, PREFIX, entry_script, module_address, modules
from lungseg.web.routes import routes
from tests.node import node
from tests.web import ask

IMPORT = re.compile(r"""(?:from|import\(|new URL\()\s*["'](\.{1,2}/[^"']+)["']""")
NODE_S = 120


def test_modules_pass_their_tests_under_node():
    tests = sorted(map(str, (CHECKOUT / "tests" / "javascript").glob("*.test.js")))
    assert tests
    command = [node(), "--test", "--test-reporter=spec", *tests]
    ran = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, timeout=NODE_S, check=False)
    assert ran.returncode == 0, ran.stdout + ran.stderr


def test_every_module_that_one_imports_is_sent(settings):
    contents = modules().contents
    assert "viewer/viewer.js" in contents
    for name, content in contents.items():
        answer = ask(routes(settings), module_address(name))
        assert (answer.status, answer.body) == (200, content)
        assert answer.headers["content-type"].startswith("text/javascript")
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        for imported in IMPORT.findall(content.decode()):
            if imported.endswith("types.js"):
                continue  # only types, which no browser asks for
            assert (FOLDER / name).parent.joinpath(imported).resolve().is_relative_to(FOLDER)
            assert (FOLDER / name).parent.joinpath(imported).resolve().is_file(), f"{name} imports {imported}"


@pytest.mark.parametrize(
    "path",
    [
        f"{PREFIX}/0000000000000000/viewer/viewer.js",
        f"{PREFIX}/VERSION/viewer/viewer.html",
        f"{PREFIX}/VERSION/viewer/__init__.py",
        f"{PREFIX}/VERSION/viewer/types.d.ts",
        f"{PREFIX}/VERSION/viewer/../dom.js",
        f"{PREFIX}/VERSION/viewer/%2e%2e/dom.js",
        f"{PREFIX}/VERSION//etc/passwd",
        f"{PREFIX}/VERSION/",
    ],
)
def test_nothing_else_is_sent(settings, path):
    assert ask(routes(settings), path.replace("VERSION", modules().version)).status == 404


def test_known_modules_are_not_sent_again(settings):
    address = module_address("viewer/viewer.js")
    answer = ask(routes(settings), address, if_none_match=f'"{modules().version}"')
    assert (answer.status, answer.body) == (304, b"")


def test_another_content_has_another_address(monkeypatch, tmp_path):
    addresses = []
    for content in ("export const a = 1;", "export const a = 2;"):
        (tmp_path / "a.js").write_text(content)
        monkeypatch.setattr("lungseg.web.modules.FOLDER", tmp_path)
        modules.cache_clear()
        addresses.append(module_address("a.js"))
    monkeypatch.undo()
    modules.cache_clear()
    assert addresses[0] != addresses[1]
    assert "viewer/viewer.js" in modules().contents


def test_script_of_a_component_is_no_path_to_streamlit():
    script = entry_script("viewer/viewer.js")
    assert "\n" in script
    assert module_address("viewer/viewer.js").removeprefix("/") in script
    with pytest.raises(KeyError):
        entry_script("viewer/none.js")


def test_wheel_holds_the_modules():
    package_data = tomllib.loads((CHECKOUT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    assert "**/*.js" in package_data["lungseg"]


def test_lock_names_no_registry():
    lock = json.loads((CHECKOUT / "package-lock.json").read_text())
    packages = {name: package for name, package in lock["packages"].items() if name}
    assert packages
    assert [name for name, package in packages.items() if "resolved" in package] == []
    assert all(package["integrity"].startswith("sha512-") for package in packages.values())


def declared(interface: str) -> set[str]:
    """Names that `types.d.ts` gives an interface."""
    types = (FOLDER / "viewer" / "types.d.ts").read_text()
    (body,) = re.findall(rf"^export interface {interface} {{\n(.*?)^}}", types, re.MULTILINE | re.DOTALL)
    names = set(re.findall(r"^  (\w+)\??:", body, re.MULTILINE))
    assert names
    return names


LESION = Lesion(1, 2.5, (1.0, 2.0, 3.0), (4, 5, 6), (7.0, 8.0, 9.0), (5, 7), 0.5)
MASK = LayerMask("/mask", "0" * 64, 2.5, (0, 1), (LESION,))


@pytest.mark.parametrize(
    ("interface", "told"),
    [
        ("Lesion", to_script(LESION)),
        ("Mask", to_script(MASK)),
        ("Layer", to_script(Layer("edit", "Edit", "the edit", "Lesions: edit", (0, 1, 0), MASK))),
        ("Finding", to_script(ScanFinding("a.b", ScanSeverity.NOTE, "Text."))),
        ("Threshold", threshold_data(ThresholdState("m", 128, 128, (ThresholdOption(128, "Much."),), ""))),
    ],
)
def test_viewer_is_told_what_its_types_say(interface, told):
    assert declared(interface) <= set(told)
    json.dumps(told)


def test_threshold_is_told_by_its_place():
    options = tuple(ThresholdOption(level, "") for level in (51, 128, 204))
    told = threshold_data(ThresholdState("m", 204, 128, options, ""))
    assert (told["at"], told["defaultAt"]) == (2, 1)
    assert [choice["threshold"] for choice in told["choices"]] == ["0.20", "0.50", "0.80"]
