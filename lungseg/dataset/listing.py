"""`dataset.json`: which files it lists as scans and masks, and where they are."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

from lungseg.decoding import decode_file
from lungseg.errors import DataSetError
from lungseg.files.atomic import is_file, resolved

JSON_NAME = "dataset.json"
ENDINGS = (".nii.gz", ".nii")
CHANNEL = "_0000"
"""What nnU-Net appends to the name of the first (for CT the only) channel of a scan."""
DRIVE = re.compile(r"[A-Za-z]:/")
MOST_NAMES = 8
LONGEST_TEXT = 200
"""Characters of text from the data set that are shown or kept."""
Anything = cast("type[Any]", Any)


@dataclass(frozen=True, slots=True)
class ListedEntry:
    """An entry of `dataset.json`: its files, whether they exist or not, and its case where it names one."""

    scan: Path
    mask: Path | None
    case: str | None = None


@dataclass(frozen=True, slots=True)
class RefusedEntry:
    """An entry of `dataset.json` that names no files that may be read, and why."""

    entry: str
    reason: str


def read_dataset_json(path: Path) -> Mapping[str, Any]:
    """Read `dataset.json`; empty without one.

    Raises:
        DataSetError: it is damaged, of another shape, or about scans of several channels.
    """
    if not is_file(path):
        return {}
    remedy = "Repair dataset.json, or remove it to pair imagesTr and labelsTr by their names."
    card = decode_file(Anything, path, lambda reason: DataSetError(f"{path} can't be read ({reason}).", remedy))
    if not isinstance(card, dict) or not all(isinstance(card.get(key) or [], list) for key in ("training", "test")):
        raise DataSetError(f"{path} is no JSON object with lists of training and test scans.", remedy)
    channels = card.get("channel_names") or card.get("modality")
    if isinstance(channels, dict) and len(channels) > 1:
        names = ", ".join(map(str, islice(channels.values(), MOST_NAMES)))
        raise DataSetError(
            f"{path} announces {len(channels)} channels ({names[:LONGEST_TEXT]}).",
            "Use a data set of plain CT: one channel.",
        )
    return card


def lists_files(card: Mapping[str, Any]) -> bool:
    """Tell whether a `dataset.json` lists the files of its data set."""
    return bool(card.get("training") or _by_case(card))


def training_entries(folder: Path, card: Mapping[str, Any]) -> Iterator[ListedEntry | RefusedEntry]:
    """Yield the labelled scans that a `dataset.json` lists: `training` of the Decathlon, `dataset` of nnU-Net v2."""
    for entry in card.get("training") or ():
        yield _pair_of(folder, entry, ("image", "label"))
    for case, entry in () if card.get("training") else _by_case(card).items():
        yield _pair_of(folder, entry, ("images", "label"), case)


def test_entries(folder: Path, card: Mapping[str, Any]) -> Iterator[ListedEntry | RefusedEntry]:
    """Yield the scans without label that a `dataset.json` lists."""
    for entry in card.get("test") or ():
        yield _pair_of(folder, entry, ("image", None))


def case_name(file: Path) -> str:
    """Return a file's name without its ending."""
    for ending in ENDINGS:
        if file.name.lower().endswith(ending):
            return file.name[: -len(ending)]
    return file.name


def _by_case(card: Mapping[str, Any]) -> Mapping[str, Any]:
    entries = card.get("dataset")
    is_listing = isinstance(entries, dict) and all(isinstance(entry, dict) for entry in entries.values())
    return entries if is_listing and entries else {}


def _pair_of(
    folder: Path, entry: object, keys: tuple[str, str | None], case: str | None = None
) -> ListedEntry | RefusedEntry:
    paths: list[Path] = []
    for name in (_name_in(entry, key) for key in keys if key):
        path = _inside(folder, name) if isinstance(name, str) and Path(name).name else "it names no scan and mask"
        if isinstance(path, str):
            return RefusedEntry(json.dumps(entry if case is None else {case: entry})[:LONGEST_TEXT], path)
        paths.append(path)
    mask = _existing(paths[1], ("",)) if len(paths) > 1 else None
    return ListedEntry(_existing(paths[0], ("", CHANNEL)), mask, case)


def _name_in(entry: object, key: str) -> object:
    """Return the file that an entry names under a key; MONAI and nnU-Net write it as a list with one item."""
    name = entry.get(key, entry.get(key.rstrip("s"))) if isinstance(entry, dict) else entry
    return name[0] if isinstance(name, list) and len(name) == 1 else name


def _inside(folder: Path, name: str) -> Path | str:
    """Return the path of a listed file, links in the folder not followed; or why the file may not be read.

    Backslashes separate folders as on Windows, unless a file has this name.
    """
    plain = name if is_file(folder / name) else name.replace("\\", "/")
    if "\0" in plain:
        return "no file can have this name"
    path = Path(os.path.normpath(folder / plain))
    for candidate in (path, resolved(path.parent) / path.name):
        if candidate.is_relative_to(folder) and not DRIVE.match(plain):
            return candidate
    is_absolute = Path(plain).is_absolute() or DRIVE.match(plain)
    return "an absolute path outside the data set" if is_absolute else "a path that leads out of the data set"


def _existing(path: Path, channels: tuple[str, ...]) -> Path:
    """Find a listed file: `.nii` stands for `.nii.gz` and the other way round, a scan's name may lack its channel."""
    name = case_name(path)
    names = [name + channel for channel in channels]
    if CHANNEL in channels and name.endswith(CHANNEL):
        names.append(name.removesuffix(CHANNEL))
    others = [path.with_name(name + ending) for name in names for ending in ENDINGS]
    return next((file for file in (path, *others) if is_file(file)), path)
