"""The documents name files, modules and tests that are there."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*(ROOT / "docs").glob("*.md"), ROOT / "README.md", ROOT / "CONTRIBUTING.md"])
HISTORY = {"experiments.md", "scores.md"}
"""What is measured once and kept may name what has gone since."""
CODE = re.compile(r"`([^`\n]+)`")
ROOMS = {path.name for path in (ROOT / "lungseg").iterdir() if path.is_dir() and path.name != "__pycache__"}
FILE = re.compile(r"[\w./*-]+\.(?:py|js|mjs|toml|html|css|npz|md|png)")
MODULE = re.compile(r"(?:lungseg\.)?(\w+(?:\.\w+)+)")


def _documents() -> list[Path]:
    return [path for path in DOCUMENTS if path.name not in HISTORY]


@pytest.mark.parametrize("document", _documents(), ids=lambda path: path.name)
def test_files_that_documents_name_are_there(document: Path) -> None:
    """A path stands from the root of the checkout, or from `lungseg/`."""
    names = [name for name in _codes(document) if "/" in name and FILE.fullmatch(name)]
    assert [name for name in names if not any(list(base.glob(name)) for base in (ROOT, ROOT / "lungseg"))] == []


@pytest.mark.parametrize("document", _documents(), ids=lambda path: path.name)
def test_modules_that_documents_name_are_there(document: Path) -> None:
    """`services.home.holdings` is a name that stands in `lungseg/services/home.py`."""
    matches = [match for name in _codes(document) if (match := MODULE.fullmatch(name.removesuffix("()")))]
    names = [match[1] for match in matches if match[1].split(".")[0] in ROOMS and not _is_text(match[1])]
    dotted = [name.split(".") for name in names]
    assert [".".join(parts) for parts in dotted if not _stands(parts)] == []


def test_links_between_documents_lead_somewhere() -> None:
    """Relative links of all documents."""
    links = [
        (path, link) for path in DOCUMENTS for link in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8"))
    ]
    local = [(path, link) for path, link in links if "://" not in link and not link.startswith("scores/")]
    assert len(local) > 20
    assert [(path.name, link) for path, link in local if not (path.parent / link).exists()] == []


@cache
def _source() -> str:
    return "".join(path.read_text(encoding="utf-8") for path in (ROOT / "lungseg").rglob("*.py"))


def _is_text(name: str) -> bool:
    """Codes of errors and names of files look like modules: they stand in the source between quotes."""
    return f'"{name}"' in _source()


def _codes(document: Path) -> list[str]:
    return CODE.findall(document.read_text(encoding="utf-8"))


def _stands(parts: list[str]) -> bool:
    folder = ROOT / "lungseg"
    for number, part in enumerate(parts):
        if (folder / part).is_dir():
            folder = folder / part
            continue
        module = folder / f"{part}.py"
        names = parts[number + 1 :] if module.exists() else parts[number:]
        text = (module if module.exists() else folder / "__init__.py").read_text(encoding="utf-8")
        return all(re.search(rf"\b{re.escape(name)}\b", text) for name in names)
    return True
