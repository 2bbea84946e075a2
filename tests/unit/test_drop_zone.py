"""The archive that a browser makes of loose files, read by Python; and what the page believes of its script."""

import io
import json
import subprocess
import tarfile

import pytest

from lungseg.config import CHECKOUT
from lungseg.ui import drop_zone
from lungseg.ui.drop_zone import Arrivals, drop_area
from tests.node import node

SCRIPT = """
import { tarOf } from "./lungseg/ui/drop_zone/tar.js";
const items = JSON.parse(process.argv[1]).map(([path, content]) => ({ path, file: new Blob([content]) }));
process.stdout.write(new Uint8Array(await tarOf(items).arrayBuffer()));
"""
HEADERS_OF_A_LARGE_FILE = """
import { tarOf } from "./lungseg/ui/drop_zone/tar.js";
globalThis.Blob = class { constructor(parts) { this.parts = parts; } };
const { parts } = tarOf([{ path: "large.bin", file: { size: Number(process.argv[1]) } }]);
for (const part of parts) if (part instanceof Uint8Array) process.stdout.write(part);
"""


def made(script, argument):
    command = [node(), "--input-type=module", "-e", script, argument]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, check=True, timeout=60).stdout


def test_archive_of_a_browser_is_read_by_tarfile():
    files = {
        "CT/IM1": "first slice",
        "CT/Müller 肺/IM2": "ü" * 700,
        f"CT/{'deep/' * 40}IM3": "",
        f"CT/{'n' * 97}": "a name of just 100 bytes",
        f"CT/{'n' * 98}": "and of 101",
        "CT/IM4": "x" * 512,
    }
    content = made(SCRIPT, json.dumps(list(files.items())))
    assert len(content) % 512 == 0
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = {member.name: archive.extractfile(member) for member in archive}
        assert all(member.isfile() and member.mode == 0o600 and member.uid == 0 for member in archive.getmembers())
        assert {name: stream.read().decode() for name, stream in members.items() if stream} == files


@pytest.mark.parametrize("size", [8**11 - 1, 8**11, 20 * 1024**3])
def test_archive_says_the_size_of_a_file_beyond_8_gib(size):
    content = made(HEADERS_OF_A_LARGE_FILE, str(size))
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        member = archive.next()
        assert member is not None
        assert (member.name, member.size) == ("large.bin", size)


@pytest.mark.parametrize(
    ("value", "groups"),
    [
        (None, ()),
        ("text", ()),
        ({"drop": 3, "groups": ["a"]}, ()),
        ({"drop": "d", "groups": "a"}, ()),
        ({"drop": "d", "groups": ["a", 7, None, "b"]}, ("a", "b")),
    ],
)
def test_page_believes_texts_alone(settings, monkeypatch, value, groups):
    def component(**arguments):
        assert arguments["data"]["taken"] == ["x", "y"]
        assert arguments["data"]["upload_bytes"] == settings.limits.upload_bytes
        return {"arrived": value}

    monkeypatch.setattr(drop_zone, "_component", component)
    assert drop_area(settings, {"y", "x"}) == Arrivals("d" if groups else "", groups)
