"""Which scan belongs to which mask: the layouts of data set folders. Names are read here, never voxels.

Three layouts are understood, with `.nii` and `.nii.gz` files:

- Medical Segmentation Decathlon: `dataset.json` lists pairs of `imagesTr/` and `labelsTr/`, and scans of `imagesTs/`;
- nnU-Net: `dataset.json` lists no files, and scans end in `_0000`, their masks do not; or its key `dataset` lists them;
- two folders without a JSON: `imagesTr` and `labelsTr`, or `images` and `labels` or `masks`.

Who is the patient of a case is told by `patients.csv` (columns `case`, `patient`); without it each case is a patient.
"""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lungseg.dataset import listing
from lungseg.dataset.findings import DataSetFinding, Severity
from lungseg.dataset.labels import Legend, choose_legend
from lungseg.dataset.listing import (
    CHANNEL,
    ENDINGS,
    HOW_TO_LIST,
    JSON_NAME,
    LONGEST_TEXT,
    MOST_NAMES,
    ListedEntry,
    RefusedEntry,
    case_name,
)
from lungseg.decoding import JsonObject
from lungseg.errors import DataSetError
from lungseg.files.atomic import is_file, is_folder, resolved

PATIENTS_NAME = "patients.csv"
IMAGE_FOLDERS = ("imagesTr", "images", "scans")
LABEL_FOLDERS = ("labelsTr", "labels", "masks")
TEST_FOLDER = "imagesTs"
OTHER_CHANNEL = re.compile(r"_000[1-9]$")
LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})
EXPECTED = (
    "Give the folder that holds dataset.json, imagesTr and labelsTr; or imagesTr and labelsTr (images and labels) with "
    "scans and masks of the same names."
)


@dataclass(frozen=True, slots=True)
class CaseFiles:
    """A scan and its mask.

    Attributes:
        case: its name, unique in the data set.
        patient: who it shows.
        scan: the scan's file.
        mask: the mask's file; None for scans without label.
        legend: what the mask's values stand for; None where nobody says: every value but 0 is tumour.
    """

    case: str
    patient: str
    scan: Path
    mask: Path | None
    legend: Legend | None = None


@dataclass(frozen=True, slots=True)
class DataSet:
    """What lies in a data set folder.

    Attributes:
        name: as `dataset.json` calls it, else the folder's name.
        root: the folder.
        labelled: scans with masks, sorted by case.
        unlabelled: scans without, sorted by case.
        ignored: files that are no scans and no masks (`._lung_001.nii.gz`, `.DS_Store`), relative to the root.
        licence: as `dataset.json` tells it.
        findings: what is wrong with the layout itself: partners that are missing, files that are not listed.
    """

    name: str
    root: Path
    labelled: tuple[CaseFiles, ...]
    unlabelled: tuple[CaseFiles, ...]
    ignored: tuple[str, ...] = ()
    licence: str | None = None
    findings: tuple[DataSetFinding, ...] = ()

    @property
    def pairs(self) -> tuple[CaseFiles, ...]:
        """All cases, labelled ones first."""
        return self.labelled + self.unlabelled

    def to_json(self) -> JsonObject:
        """Return JSON-ready values, which `decoding` turns back."""
        return with_text_paths(self)


def with_text_paths(value: DataSet | CaseFiles) -> JsonObject:
    """Return JSON-ready values, paths as texts."""
    return asdict(value, dict_factory=lambda items: {key: str(v) if isinstance(v, Path) else v for key, v in items})


def open_data_set(folder: Path, tumour_class: str | None = None) -> DataSet:
    """Find the cases of a data set.

    Args:
        folder: where it lies.
        tumour_class: name or value of the class that is tumour, see `labels.choose_legend`; None to go by its name.

    Raises:
        DataSetError: the folder is none of the layouts, or its JSON or CSV can't be used.
        TumourClassError: which class is tumour has to be said, or none is.
    """
    folder = resolved(folder)
    if not is_folder(folder):
        raise DataSetError(f"There is no folder {folder}.", "Give the folder that holds dataset.json and imagesTr.")
    with _readable(folder):
        card = listing.read_dataset_json(folder / JSON_NAME)
        found = _listed(folder, card) if listing.lists_files(card) else _side_by_side(folder)
        if not found.labelled:
            raise DataSetError(f"No scan in {folder} has a mask. {_why_none(folder, found)}", EXPECTED)
        return _data_set(folder, found, card, tumour_class)


def pair_folders(images: Path, labels: Path) -> DataSet:
    """Pair the scans of one folder with the masks of another by their names.

    Where both lie in a data set, its `labels` say which values of the masks are tumour.

    Raises:
        DataSetError: there is no such folder, or no pair.
        TumourClassError: as `open_data_set`.
    """
    images, labels = resolved(images), resolved(labels)
    for folder in (images, labels):
        if not is_folder(folder):
            raise DataSetError(f"There is no folder {folder}.", "Give a folder of scans and a folder of masks.")
    with _readable(images.parent):
        found = _paired(images, labels)
        if not found.labelled:
            raise DataSetError(
                f"No scan in {images} has a mask of its name in {labels}.", "Give scan and mask the same file name."
            )
        is_inside = labels.parent == images.parent
        labels_told = listing.read_dataset_json(images.parent / JSON_NAME).get("labels") if is_inside else None
        return _data_set(images.parent, found, {"labels": labels_told})


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataSetError(f"{folder} can't be read ({error.strerror}).", "Check its rights and its disk.") from error


@dataclass(frozen=True, slots=True)
class _Found:
    """What a layout gave: pairs of scan and mask, scans without, the folders they lie in, what is wrong."""

    labelled: list[CaseFiles]
    unlabelled: list[CaseFiles]
    folders: set[Path]
    findings: list[DataSetFinding]


def _listed(folder: Path, card: Mapping[str, Any]) -> _Found:
    """Take the files that `dataset.json` lists."""
    found = _Found([], [], set(), [])
    labelled = _usable(listing.training_entries(folder, card), found)
    test = _usable(listing.test_entries(folder, card), found)
    named = {file for entry in (*labelled, *test) for file in (entry.scan, entry.mask) if file}
    found.folders.update(file.parent for file in named)
    twins = _twins(found, folder, case_name, named)
    found.findings.extend(_missing(file, folder) for file in sorted(named) if not is_file(file))
    for entry in labelled:
        if entry.mask and {entry.scan, entry.mask}.isdisjoint(twins) and is_file(entry.scan) and is_file(entry.mask):
            found.labelled.append(_pair(entry.case or _stem(entry.scan, entry.mask), entry.scan, entry.mask))
    _add_unlabelled(found, [entry.scan for entry in test if is_file(entry.scan) and entry.scan not in twins])
    if not test and is_folder(folder / TEST_FOLDER) and not card.get("training"):
        _add_unlabelled(found, [scan for scan in _niftis(folder / TEST_FOLDER) if scan not in named])
        named.update(pair.scan for pair in found.unlabelled)
    there = [file for place in sorted(found.folders) for file in _niftis(place)]
    found.findings.extend(_unlisted(file, folder) for file in there if file not in named | twins)
    return found


def _usable(entries: Iterator[ListedEntry | RefusedEntry], found: _Found) -> list[ListedEntry]:
    """Return the entries that name files; the others become findings."""
    listed = []
    for entry in entries:
        if isinstance(entry, ListedEntry):
            listed.append(entry)
        else:
            found.findings.append(_refused(entry))
    return listed


def _twins(found: _Found, root: Path, name_of: Callable[[Path], str], wanted: set[Path] | None = None) -> set[Path]:
    """Find files that go by one name (`x.nii` beside `x.nii.gz`); nobody can tell which of them is meant.

    Args:
        found: gets a finding for each such name.
        root: what paths are told from.
        name_of: under which name a file goes.
        wanted: names without one of these files don't matter; None where all do.

    Returns:
        All files of such names: they are left out.
    """
    twins: set[Path] = set()
    for folder in sorted(found.folders):
        same: dict[str, list[Path]] = defaultdict(list)
        for file in _niftis(folder):
            same[name_of(file)].append(file)
        for name, files in same.items():
            if len(files) > 1 and (wanted is None or not wanted.isdisjoint(files)):
                twins.update(files)
                found.findings.append(_two_files(name, files, root))
    return twins


def _side_by_side(folder: Path) -> _Found:
    """Pair the files of two folders by their names; scans of `imagesTs` have no mask."""
    images, labels = _first_folder(folder, IMAGE_FOLDERS), _first_folder(folder, LABEL_FOLDERS)
    if images is None or labels is None:
        raise DataSetError(f"{folder} is no data set. {_inventory(folder)}", EXPECTED)
    found = _paired(images, labels)
    test = folder / TEST_FOLDER
    if is_folder(test):
        found.folders.add(test)
        _add_unlabelled(found, _niftis(test))
    return found


def _paired(images: Path, labels: Path) -> _Found:
    found = _Found([], [], {images, labels}, [])
    masks = {case_name(file): file for file in _niftis(labels)}
    names = {file: case_name(file) for file in _niftis(labels)} | {
        file: _goes_by(file, masks) for file in _niftis(images)
    }
    twins = _twins(found, images.parent, names.__getitem__)
    for twin in twins:
        masks.pop(_goes_by(twin, masks), None)
    scans = [scan for scan in _niftis(images) if scan not in twins]
    doubtful = {_goes_by(twin, {}) for twin in twins if twin.parent == labels}
    for scan in scans:
        mask = masks.pop(_goes_by(scan, masks), None)
        if mask:
            found.labelled.append(_pair(_stem(scan, mask), scan, mask))
        elif _first_channel(scan) not in scans and doubtful.isdisjoint({case_name(scan), _stem(scan)}):
            found.findings.append(_no_mask(scan, labels))
    found.findings.extend(_no_scan(mask, images) for mask in masks.values())
    return found


def _goes_by(scan: Path, masks: Mapping[str, Path]) -> str:
    """Return the name of the mask that belongs to a scan: its own, else that without the channel."""
    return case_name(scan) if case_name(scan) in masks else _stem(scan)


def _add_unlabelled(found: _Found, scans: list[Path]) -> None:
    """Add scans without mask; only where labelled ones end in a channel is that of these no part of their name."""
    has_channels = any(case_name(pair.scan) != pair.case for pair in found.labelled)
    for scan in scans:
        if not has_channels:
            found.unlabelled.append(_pair(case_name(scan), scan))
        elif _first_channel(scan) not in scans:
            found.unlabelled.append(_pair(_stem(scan), scan))


def _data_set(root: Path, found: _Found, card: Mapping[str, Any], tumour_class: str | None = None) -> DataSet:
    """Put together what was found: names made unique, patients, what the values of masks stand for, litter."""
    legend = choose_legend(card.get("labels"), tumour_class)
    patients = _read_patients(root / PATIENTS_NAME)
    labelled = _unique(found.labelled, set())
    unlabelled = _unique(found.unlabelled, {pair.case for pair in labelled})
    cases = {pair.case for pair in (*labelled, *unlabelled)}
    return DataSet(
        name=_text_in(card, "name") or root.name,
        root=root,
        labelled=tuple(replace(pair, patient=patients.get(pair.case, pair.case), legend=legend) for pair in labelled),
        unlabelled=tuple(replace(pair, patient=patients.get(pair.case, pair.case)) for pair in unlabelled),
        ignored=_litter(root, found),
        licence=_text_in(card, "licence") or _text_in(card, "license"),
        findings=(*found.findings, *(_unknown_case(case) for case in sorted(set(patients) - cases))),
    )


def _unique(pairs: list[CaseFiles], taken: set[str]) -> list[CaseFiles]:
    """Sort pairs by name; a name that is taken gets the folder of its scan appended."""
    named = []
    for pair in sorted(pairs, key=lambda pair: (pair.case, pair.scan)):
        case, number = pair.case, 1
        while case in taken:
            number += 1
            case = f"{pair.case}.{pair.scan.parent.name}.{number}"
        taken.add(case)
        named.append(replace(pair, case=case))
    return named


def _pair(case: str, scan: Path, mask: Path | None = None) -> CaseFiles:
    return CaseFiles(case, case, scan, mask)


def _stem(scan: Path, mask: Path | None = None) -> str:
    """Return the name of a scan's case: without the channel, unless that is in the name of its mask too."""
    name = case_name(scan)
    return name if mask and case_name(mask) == name else name.removesuffix(CHANNEL)


def _read_patients(path: Path) -> dict[str, str]:
    """Read the patient of each case, as far as they are told."""
    if not is_file(path):
        return {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as stream:
            rows = [(row["case"].strip(), row["patient"].strip()) for row in csv.DictReader(stream)]
    except (OSError, KeyError, AttributeError, UnicodeDecodeError, csv.Error) as error:
        raise DataSetError(f"{path} can't be read ({error!r}).", "Give it the columns case and patient.") from error
    return {case: patient for case, patient in rows if patient}


def _text_in(card: Mapping[str, Any], key: str) -> str | None:
    text = card.get(key)
    return text[:LONGEST_TEXT] if isinstance(text, str) and text else None


def _first_folder(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if is_folder(folder / name)), None)


def _niftis(folder: Path) -> list[Path]:
    """List the scans or masks of a folder; hidden files, such as `._lung_001.nii.gz`, are none."""
    if not is_folder(folder):
        return []
    return sorted(file for file in folder.iterdir() if file.name.lower().endswith(ENDINGS) and file.name[0] != ".")


def _first_channel(scan: Path) -> Path | None:
    """Return the file of which this one would be a further channel."""
    name = case_name(scan)
    if not OTHER_CHANNEL.search(name):
        return None
    return scan.with_name(name[: -len(CHANNEL)] + CHANNEL + scan.name[len(name) :])


def _litter(root: Path, found: _Found) -> tuple[str, ...]:
    """Name what lies about: all that is no scan and no mask in the folders, and what systems leave beside them."""
    litter = {file for file in root.iterdir() if file.name[0] == "." or file.name.lower() in LITTER}
    used = {file for pair in (*found.labelled, *found.unlabelled) for file in (pair.scan, pair.mask)}
    for folder in filter(is_folder, found.folders):
        scans = set(_niftis(folder))
        litter |= set(folder.iterdir()) - scans
        litter |= {scan for scan in scans - used if _first_channel(scan) in scans}
    return tuple(sorted(os.path.relpath(file, root) for file in litter))


def _why_none(folder: Path, found: _Found) -> str:
    """Say why no case is left: what is wrong with the first entries, else what lies in the folder."""
    wrong = [finding.found for finding in found.findings if finding.is_error]
    if not wrong:
        return _inventory(folder)
    more = f" And {len(wrong) - 1} more like it." if len(wrong) > 1 else ""
    return f"{wrong[0]}{more} {_inventory(folder)}"


def _inventory(folder: Path) -> str:
    """Say what a folder holds, for one who gave the wrong one."""
    names = sorted(file.name + "/" * file.is_dir() for file in folder.iterdir())
    inner = [file.name for file in sorted(folder.iterdir()) if is_file(file / JSON_NAME) or _has_pairs(file)]
    if inner:
        return f"The data set seems to be one folder further down: {', '.join(inner[:3])}."
    if not names:
        return "It is empty."
    more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
    return f"It holds {', '.join(names[:MOST_NAMES])}{more}."


def _has_pairs(folder: Path) -> bool:
    return bool(_first_folder(folder, IMAGE_FOLDERS) and _first_folder(folder, LABEL_FOLDERS))


def _refused(entry: RefusedEntry) -> DataSetFinding:
    remedy = f"{HOW_TO_LIST} Files lie inside the folder of the data set."
    return DataSetFinding(Severity.ERROR, "layout.entry", None, entry.found, remedy)


def _two_files(name: str, files: list[Path], root: Path) -> DataSetFinding:
    return DataSetFinding(
        Severity.ERROR,
        "layout.two_files",
        name[:LONGEST_TEXT],
        f"{' and '.join(os.path.relpath(file, root) for file in files)} go by one name: which is meant can't be told.",
        "Remove or rename all but one of them; the case is left out until then.",
    )


def _missing(file: Path, root: Path) -> DataSetFinding:
    return DataSetFinding(
        Severity.ERROR,
        "layout.missing_file",
        case_name(file).removesuffix(CHANNEL)[:LONGEST_TEXT],
        f"{JSON_NAME} lists {str(file.relative_to(root))[:LONGEST_TEXT]}, which is not there.",
        "Copy the file again, or take its entry out of dataset.json.",
    )


def _unlisted(file: Path, root: Path) -> DataSetFinding:
    return DataSetFinding(
        Severity.WARNING,
        "layout.unlisted_file",
        case_name(file).removesuffix(CHANNEL),
        f"{file.relative_to(root)} is not listed in {JSON_NAME} and is left out.",
        "Add it to dataset.json together with its partner, or remove the file.",
    )


def _no_mask(scan: Path, labels: Path) -> DataSetFinding:
    return DataSetFinding(
        Severity.ERROR,
        "layout.no_mask",
        _stem(scan),
        f"The scan {scan.name} has no mask of its name in {labels.name}.",
        f"Add its mask, or move the scan to {TEST_FOLDER}.",
    )


def _no_scan(mask: Path, images: Path) -> DataSetFinding:
    return DataSetFinding(
        Severity.ERROR,
        "layout.no_scan",
        case_name(mask),
        f"The mask {mask.name} has no scan of its name in {images.name}.",
        "Add its scan, or remove the mask.",
    )


def _unknown_case(case: str) -> DataSetFinding:
    return DataSetFinding(
        Severity.WARNING,
        "layout.unknown_case",
        case,
        f"{PATIENTS_NAME} names the case {case}, which is not in the data set.",
        "Correct the name; a case without its row counts as a patient of its own.",
    )
