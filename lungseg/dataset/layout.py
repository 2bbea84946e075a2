"""Which scan belongs to which mask: the layouts of data set folders. Only names are read here, no voxels.

Three layouts are understood, with `.nii` and `.nii.gz` files:

- Medical Segmentation Decathlon: `dataset.json` lists pairs of `imagesTr/` and `labelsTr/`, and scans of `imagesTs/`;
- nnU-Net: `dataset.json` lists no files, and scans end in `_0000`, their masks do not; or its key `dataset` lists them;
- two folders without a JSON: `imagesTr` and `labelsTr`, or `images` and `labels` or `masks`.

`patients.csv` (columns `case`, `patient`) names the patient of each case; without it each case is a patient.
"""

from __future__ import annotations

import csv
import os
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lungseg.dataset import listing
from lungseg.dataset.contents import first_few
from lungseg.dataset.findings import DataSetFinding, Severity
from lungseg.dataset.labels import Legend, choose_legend
from lungseg.dataset.listing import (
    CHANNEL,
    ENDINGS,
    JSON_NAME,
    LONGEST_TEXT,
    MOST_NAMES,
    ListedEntry,
    RefusedEntry,
    case_name,
)
from lungseg.errors import DataSetError
from lungseg.files.atomic import is_file, is_folder, resolved

PATIENTS_NAME = "patients.csv"
IMAGE_FOLDERS = ("imagesTr", "images", "scans")
LABEL_FOLDERS = ("labelsTr", "labels", "masks")
TEST_FOLDER = "imagesTs"
OTHER_CHANNEL = re.compile(r"_000[1-9]$")
HOW_TO_LIST = (
    'Write entries as {"image": "./imagesTr/lung_001.nii.gz", "label": "./labelsTr/lung_001.nii.gz"}. '
    "Files lie inside the folder of the data set."
)
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
        mask: None for scans without label.
        legend: what the mask's values stand for; None where every value but 0 is tumour.
    """

    case: str
    patient: str
    scan: Path
    mask: Path | None
    legend: Legend | None = None

    @property
    def files(self) -> dict[str, Path]:
        """Scan and mask, where there is one, by these words."""
        return {"scan": self.scan} if self.mask is None else {"scan": self.scan, "mask": self.mask}


@dataclass(frozen=True, slots=True)
class DataSet:
    """What lies in a data set folder.

    Attributes:
        name: as `dataset.json` calls it, else the folder's name.
        root: the folder.
        labelled: scans with masks, sorted by case.
        unlabelled: scans without, sorted by case.
        ignored: files that are no scans and no masks (`._lung_001.nii.gz`, `.DS_Store`), relative to the root.
        licence: as `dataset.json` states it.
        findings: what is wrong with the layout: missing partners, files that are not listed.
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


def open_data_set(folder: Path, tumour_class: str | None = None) -> DataSet:
    """Find the cases of a data set.

    Args:
        folder: the data set.
        tumour_class: name or value of the class that is tumour, see `labels.choose_legend`; None to go by its name.

    Raises:
        DataSetError: the folder has none of the layouts, or its JSON or CSV can't be used.
        TumourClassError: which class is tumour has to be given, or there is none.
    """
    folder = resolved(folder)
    if not is_folder(folder):
        raise DataSetError(f"There is no folder {folder}.", "Give the folder that holds dataset.json and imagesTr.")
    with _readable(folder):
        card = listing.read_dataset_json(folder / JSON_NAME)
        files = _from_card(folder, card) if listing.lists_files(card) else _side_by_side(folder)
        if not files.labelled:
            raise DataSetError(f"No scan in {folder} has a mask. {_why_none(folder, files)}", EXPECTED)
        return _data_set(folder, files, card, tumour_class)


def pair_folders(images: Path, labels: Path) -> DataSet:
    """Pair the scans of one folder with the masks of another by their names.

    Where both are folders of a data set, its `labels` say which values of the masks are tumour.

    Raises:
        DataSetError: there is no such folder, or no pair.
        TumourClassError: as `open_data_set`.
    """
    images, labels = resolved(images), resolved(labels)
    for folder in (images, labels):
        if not is_folder(folder):
            raise DataSetError(f"There is no folder {folder}.", "Give a folder of scans and a folder of masks.")
    with _readable(images.parent):
        files = _paired(images, labels)
        if not files.labelled:
            raise DataSetError(
                f"No scan in {images} has a mask of its name in {labels}.", "Give scan and mask the same file name."
            )
        card = listing.read_dataset_json(images.parent / JSON_NAME) if labels.parent == images.parent else {}
        return _data_set(images.parent, files, {"labels": card.get("labels")})


@contextmanager
def _readable(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DataSetError(f"{folder} can't be read ({error.strerror}).", "Check its rights and its disk.") from error


@dataclass(frozen=True, slots=True)
class _Files:
    """The files of a layout: pairs of scan and mask, scans without, their folders; and what is wrong with them."""

    labelled: list[CaseFiles]
    unlabelled: list[CaseFiles]
    folders: set[Path]
    findings: list[DataSetFinding]

    def add_finding(
        self, code: str, case: str | None, found: str, remedy: str, severity: Severity = Severity.ERROR
    ) -> None:
        self.findings.append(DataSetFinding(severity, f"layout.{code}", case and case[:LONGEST_TEXT], found, remedy))


def _from_card(folder: Path, card: Mapping[str, Any]) -> _Files:
    """Take the files that `dataset.json` lists."""
    files = _Files([], [], set(), [])
    labelled = _usable(listing.training_entries(folder, card), files)
    test = _usable(listing.test_entries(folder, card), files)
    listed = {file for entry in (*labelled, *test) for file in (entry.scan, entry.mask) if file}
    files.folders.update(file.parent for file in listed)
    twins = _twins(files, folder, case_name, listed)
    for file in sorted(listed):
        if not is_file(file):
            files.add_finding(
                "missing_file",
                case_name(file).removesuffix(CHANNEL),
                f"{JSON_NAME} lists {str(file.relative_to(folder))[:LONGEST_TEXT]}, which is not there.",
                "Copy the file again, or take its entry out of dataset.json.",
            )
    for entry in labelled:
        if entry.mask and {entry.scan, entry.mask}.isdisjoint(twins) and is_file(entry.scan) and is_file(entry.mask):
            files.labelled.append(_pair(entry.case or _stem(entry.scan, entry.mask), entry.scan, entry.mask))
    _add_unlabelled(files, [entry.scan for entry in test if is_file(entry.scan) and entry.scan not in twins])
    if not test and is_folder(folder / TEST_FOLDER) and not card.get("training"):
        _add_unlabelled(files, [scan for scan in _niftis(folder / TEST_FOLDER) if scan not in listed])
        listed.update(pair.scan for pair in files.unlabelled)
    for file in [file for place in sorted(files.folders) for file in _niftis(place) if file not in listed | twins]:
        files.add_finding(
            "unlisted_file",
            case_name(file).removesuffix(CHANNEL),
            f"{file.relative_to(folder)} is not listed in {JSON_NAME} and is left out.",
            "Add it to dataset.json together with its partner, or remove the file.",
            Severity.WARNING,
        )
    return files


def _usable(entries: Iterator[ListedEntry | RefusedEntry], files: _Files) -> list[ListedEntry]:
    """Return the entries that name files; the others become findings."""
    usable = []
    for entry in entries:
        if isinstance(entry, ListedEntry):
            usable.append(entry)
        else:
            files.add_finding("entry", None, f"{JSON_NAME} has the entry {entry.entry}: {entry.reason}.", HOW_TO_LIST)
    return usable


def _twins(files: _Files, root: Path, name_of: Callable[[Path], str], needed: set[Path] | None = None) -> set[Path]:
    """Return files that share a name (`x.nii` beside `x.nii.gz`), to be left out; each such name becomes a finding.

    Names that none of the `needed` files has don't matter; None where all names do.
    """
    twins: set[Path] = set()
    for folder in sorted(files.folders):
        by_name: dict[str, list[Path]] = defaultdict(list)
        for file in _niftis(folder):
            by_name[name_of(file)].append(file)
        for name, group in by_name.items():
            if len(group) > 1 and (needed is None or not needed.isdisjoint(group)):
                twins.update(group)
                paths = " and ".join(os.path.relpath(file, root) for file in group)
                files.add_finding(
                    "two_files",
                    name,
                    f"{paths} go by one name: which is meant can't be told.",
                    "Remove or rename all but one of them; the case is left out until then.",
                )
    return twins


def _side_by_side(folder: Path) -> _Files:
    """Pair the files of two folders by their names; scans of `imagesTs` have no mask."""
    images, labels = _first_folder(folder, IMAGE_FOLDERS), _first_folder(folder, LABEL_FOLDERS)
    if images is None or labels is None:
        raise DataSetError(f"{folder} is no data set. {_inventory(folder)}", EXPECTED)
    files = _paired(images, labels)
    test = folder / TEST_FOLDER
    if is_folder(test):
        files.folders.add(test)
        _add_unlabelled(files, _niftis(test))
    return files


def _paired(images: Path, labels: Path) -> _Files:
    files = _Files([], [], {images, labels}, [])
    masks = {case_name(file): file for file in _niftis(labels)}
    names = {file: case_name(file) for file in _niftis(labels)}
    names |= {file: _mask_name(file, masks) for file in _niftis(images)}
    twins = _twins(files, images.parent, names.__getitem__)
    for twin in twins:
        masks.pop(_mask_name(twin, masks), None)
    scans = [scan for scan in _niftis(images) if scan not in twins]
    doubtful = {_stem(twin) for twin in twins if twin.parent == labels}
    for scan in scans:
        mask = masks.pop(_mask_name(scan, masks), None)
        if mask:
            files.labelled.append(_pair(_stem(scan, mask), scan, mask))
        elif _first_channel(scan) not in scans and doubtful.isdisjoint({case_name(scan), _stem(scan)}):
            files.add_finding(
                "no_mask",
                _stem(scan),
                f"The scan {scan.name} has no mask of its name in {labels.name}.",
                f"Add its mask, or move the scan to {TEST_FOLDER}.",
            )
    for case, mask in masks.items():
        files.add_finding(
            "no_scan",
            case,
            f"The mask {mask.name} has no scan of its name in {images.name}.",
            "Add its scan, or remove the mask.",
        )
    return files


def _mask_name(scan: Path, masks: Mapping[str, Path]) -> str:
    """Return the name of the mask that belongs to a scan: its own, else that without the channel."""
    return case_name(scan) if case_name(scan) in masks else _stem(scan)


def _add_unlabelled(files: _Files, scans: list[Path]) -> None:
    """Add scans without mask; their channel is no part of the case's name where that of labelled scans is none."""
    has_channels = any(case_name(pair.scan) != pair.case for pair in files.labelled)
    for scan in scans:
        if not has_channels:
            files.unlabelled.append(_pair(case_name(scan), scan))
        elif _first_channel(scan) not in scans:
            files.unlabelled.append(_pair(_stem(scan), scan))


def _data_set(root: Path, files: _Files, card: Mapping[str, Any], tumour_class: str | None = None) -> DataSet:
    """Make a data set of files: unique names, patients, the legend of the masks, litter."""
    legend = choose_legend(card.get("labels"), tumour_class)
    patients = _read_patients(root / PATIENTS_NAME)
    labelled = _unique(files.labelled, set())
    unlabelled = _unique(files.unlabelled, {pair.case for pair in labelled})
    for case in sorted(set(patients) - {pair.case for pair in (*labelled, *unlabelled)}):
        files.add_finding(
            "unknown_case",
            case,
            f"{PATIENTS_NAME} names the case {case}, which is not in the data set.",
            "Correct the name; a case without its row counts as a patient of its own.",
            Severity.WARNING,
        )
    return DataSet(
        name=_text_in(card, "name") or root.name,
        root=root,
        labelled=tuple(replace(pair, patient=patients.get(pair.case, pair.case), legend=legend) for pair in labelled),
        unlabelled=tuple(replace(pair, patient=patients.get(pair.case, pair.case)) for pair in unlabelled),
        ignored=_litter(root, files),
        licence=_text_in(card, "licence") or _text_in(card, "license"),
        findings=tuple(files.findings),
    )


def _unique(pairs: list[CaseFiles], names: set[str]) -> list[CaseFiles]:
    """Sort pairs by name; a name that is taken gets the folder of its scan appended."""
    unique = []
    for pair in sorted(pairs, key=lambda pair: (pair.case, pair.scan)):
        case, number = pair.case, 1
        while case in names:
            number += 1
            case = f"{pair.case}.{pair.scan.parent.name}.{number}"
        names.add(case)
        unique.append(replace(pair, case=case))
    return unique


def _pair(case: str, scan: Path, mask: Path | None = None) -> CaseFiles:
    return CaseFiles(case, case, scan, mask)


def _stem(scan: Path, mask: Path | None = None) -> str:
    """Return the name of a scan's case: without the channel, unless its mask has that in its name too."""
    name = case_name(scan)
    return name if mask and case_name(mask) == name else name.removesuffix(CHANNEL)


def _read_patients(path: Path) -> dict[str, str]:
    """Read the patient of each case that has a row."""
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
    """List the scans or masks of a folder, without hidden files such as `._lung_001.nii.gz`."""
    if not is_folder(folder):
        return []
    return sorted(file for file in folder.iterdir() if file.name.lower().endswith(ENDINGS) and file.name[0] != ".")


def _first_channel(scan: Path) -> Path | None:
    """Return the file of which this one would be a further channel."""
    name = case_name(scan)
    if not OTHER_CHANNEL.search(name):
        return None
    return scan.with_name(name[: -len(CHANNEL)] + CHANNEL + scan.name[len(name) :])


def _litter(root: Path, files: _Files) -> tuple[str, ...]:
    """Name what is no scan and no mask in the folders, and what systems leave beside them."""
    litter = {file for file in root.iterdir() if file.name[0] == "." or file.name.lower() in LITTER}
    used = {file for pair in (*files.labelled, *files.unlabelled) for file in (pair.scan, pair.mask)}
    for folder in filter(is_folder, files.folders):
        scans = set(_niftis(folder))
        litter |= set(folder.iterdir()) - scans
        litter |= {scan for scan in scans - used if _first_channel(scan) in scans}
    return tuple(sorted(os.path.relpath(file, root) for file in litter))


def _why_none(folder: Path, files: _Files) -> str:
    """Say why there is no case: what is wrong with the first entry, and what lies in the folder."""
    errors = [finding.found for finding in files.findings if finding.is_error]
    more = f" And {len(errors) - 1} more like it." if len(errors) > 1 else ""
    return f"{errors[0]}{more} {_inventory(folder)}" if errors else _inventory(folder)


def _inventory(folder: Path) -> str:
    """Say what a folder holds, to a user who gave the wrong one."""
    names = sorted(file.name + "/" * file.is_dir() for file in folder.iterdir())
    inner = [
        file.name
        for file in sorted(folder.iterdir())
        if is_file(file / JSON_NAME) or (_first_folder(file, IMAGE_FOLDERS) and _first_folder(file, LABEL_FOLDERS))
    ]
    if inner:
        return f"The data set seems to be one folder further down: {', '.join(inner[:3])}."
    return f"It holds {first_few(names, MOST_NAMES, ', ')}." if names else "It is empty."
