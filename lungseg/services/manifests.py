"""Manifests: beside each scan and each mask a small file with its record, so that files alone can become cases again.

The database is the truth; a manifest repeats what it says of one file. It is written after the record and goes before
it: a file with a manifest that no record owns was lost, never just left over.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lungseg.config import Settings
from lungseg.db import cases as case_rows
from lungseg.db import masks as mask_rows
from lungseg.db import runs as run_rows
from lungseg.db import training as training_rows
from lungseg.decoding import decode_file, encode
from lungseg.errors import NotFoundError, StorageError
from lungseg.files import atomic, keys
from lungseg.files.store import FileStore
from lungseg.records.cases import Case
from lungseg.records.masks import Mask
from lungseg.records.runs import EpochRecord, Run
from lungseg.records.scores import CaseScore
from lungseg.services.installation import Installation

log = logging.getLogger(__name__)

Manifest = TypeVar("Manifest", Case, "MaskManifest", "RunManifest")


@dataclass(frozen=True, slots=True)
class MaskManifest:
    """A mask, and the run that made it (None for a reference mask)."""

    mask: Mask
    run: Run | None


@dataclass(frozen=True, slots=True)
class RunManifest:
    """A run that has a folder, its epochs and its scores."""

    run: Run
    epochs: tuple[EpochRecord, ...]
    scores: tuple[CaseScore, ...]


def run_manifest(settings: Settings, run_id: str) -> Path:
    """Name the manifest of a run that trains or scores; it lies in the run's own folder."""
    return settings.runs / run_id / f"manifest{keys.MANIFEST_END}"


def run_folders(settings: Settings) -> tuple[Path, ...]:
    """Return the folders of runs, sorted; each has the id of its run as name."""
    return tuple(sorted(path for path in settings.runs.iterdir() if path.is_dir())) if settings.runs.is_dir() else ()


def keep_case(files: FileStore, case: Case) -> None:
    """Write the manifest of a case; where the disk refuses, the next sweep writes it."""
    _write(files.local(keys.case_manifest(case.id)), encode(case))


def keep_mask(files: FileStore, mask: Mask, run: Run | None) -> None:
    """Write the manifest of a mask, as `keep_case`."""
    _write(files.local(keys.mask_manifest(mask.id)), encode(MaskManifest(mask, run)))


def keep_run(installation: Installation, run_id: str) -> None:
    """Write the manifest of a run that has a folder, as `keep_case`; nothing where the run is gone."""
    if not (installation.settings.runs / run_id).is_dir():
        return
    try:
        with installation.database.read() as session:
            run = run_rows.get_run(session, run_id)
            epochs = training_rows.epochs_of(session, (run_id,))[run_id]
            scores = training_rows.scores_of(session, (run_id,))[run_id]
    except NotFoundError:
        return
    _write(run_manifest(installation.settings, run_id), encode(RunManifest(run, epochs, scores)))


def read_manifest(kind: type[Manifest], path: Path) -> Manifest:
    """Read a manifest: a `Case`, a `MaskManifest` or a `RunManifest`.

    Raises:
        StorageError: it is missing or damaged.
    """
    return decode_file(kind, path, _damaged)


def complete(installation: Installation) -> int:
    """Write the manifests that an earlier release or a full disk left out, and return how many."""
    files = installation.files
    with installation.database.read() as session:
        case_ids = _without(files, keys.SCANS, case_rows.all_case_ids(session))
        mask_ids = _without(files, keys.MASKS, mask_rows.all_mask_ids(session))
        cases = [case_rows.get_case(session, case_id) for case_id in case_ids]
        masks = [mask_rows.get_mask(session, mask_id) for mask_id in mask_ids]
        run_ids = run_rows.all_run_ids(session) & {folder.name for folder in run_folders(installation.settings)}
        runs = [run_rows.get_run(session, mask.run_id) if mask.run_id else None for mask in masks]
    for case in cases:
        keep_case(files, case)
    for mask, run in zip(masks, runs, strict=True):
        keep_mask(files, mask, run)
    with installation.database.read() as session:  # manifests of what was deleted meanwhile go again
        deleted = [keys.case_manifest(case_id) for case_id in set(case_ids) - case_rows.all_case_ids(session)]
        deleted += [keys.mask_manifest(mask_id) for mask_id in set(mask_ids) - mask_rows.all_mask_ids(session)]
    files.delete(*deleted)
    runs_without = [run_id for run_id in run_ids if not run_manifest(installation.settings, run_id).is_file()]
    for run_id in runs_without:
        keep_run(installation, run_id)
    return len(cases) + len(masks) + len(runs_without)


def _without(files: FileStore, folder: str, ids: frozenset[str]) -> list[str]:
    """Return those ids that have a file in a folder, but no manifest."""
    with_file = {keys.id_of(key) for key in files.list(folder)}
    with_manifest = {keys.id_of(key) for key in files.list(folder) if key.endswith(keys.MANIFEST_END)}
    return sorted(ids & with_file - with_manifest)


def _write(path: Path, content: bytes) -> None:
    try:
        atomic.write_bytes(path, content)
    except StorageError as error:
        log.warning("no manifest written: %s", error.found)


def _damaged(reason: str) -> StorageError:
    return StorageError(f"The manifest is damaged or missing ({reason}).", "The file is taken in without it.")
