"""Cases: scans taken in, listed, renamed, given reference masks, deleted."""

from __future__ import annotations

import logging
import unicodedata
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from lungseg.db import cases as rows
from lungseg.db import masks as mask_rows
from lungseg.errors import NamelessError, NotFoundError, StorageError, TwinError
from lungseg.files import keys
from lungseg.files.digests import sha256_of
from lungseg.files.store import FileStore, taken_back
from lungseg.intake.taken import TakenScan
from lungseg.records.cases import Case, CaseSummary
from lungseg.records.masks import Mask, MaskKind
from lungseg.scans.formats import NIFTI, open_scan, read_mask, write_mask
from lungseg.scans.geometry import Grid
from lungseg.scans.lesions import lesions_of, slice_voxels
from lungseg.scans.reader import ScanReader
from lungseg.services import identity, manifests
from lungseg.services.geometry import geometry_of
from lungseg.services.home import check_pairing
from lungseg.services.installation import Installation
from lungseg.services.runs import latest_run, queue_segmentation
from lungseg.services.storage import ReceivedFile, receiving

log = logging.getLogger(__name__)

LONGEST_NAME = 120


def ingest(
    installation: Installation,
    name: str,
    stream: BinaryIO,
    *,
    is_demo: bool = False,
    may_be_twin: bool = True,
) -> Case:
    """Take in a scan: stream it to disk, check its header, keep it under an id of ours.

    Args:
        installation: that keeps it.
        name: what the user calls the file; shown, never used on disk.
        stream: its bytes, `.nii` or `.nii.gz`.
        is_demo: whether it is the demo case.
        may_be_twin: whether it is taken in though its bytes are a case already.

    Raises:
        TwinError: it is a case already, and may not be; `submit_again` makes another one of it all the same.
        ScanError: it is no NIfTI file, or its header shows that it can't be used; nothing is kept.
        SetupError: files and database do not belong together.
        StorageError: there is no room for it, or the disk or database refuses.
    """
    check_pairing(installation)
    case_id = uuid4().hex
    with receiving(stream, installation.files.local(keys.INCOMING), installation.settings.limits) as received:
        with open_scan(received.path, limits=installation.settings.limits, formats=NIFTI) as reader:
            case = new_case(case_id, display_name(name), received, reader, is_demo=is_demo)
        with taken_back(installation.files, case.scan_path), installation.database.begin() as session:
            if not may_be_twin:
                _check_new(rows.twin_of(session, case.scan_sha256))
            rows.insert_case(session, case)
            installation.files.put(received.path, case.scan_path)
    manifests.keep_case(installation.files, case)
    log.info("case %s: taken in by %s, %d bytes", case.id, installation.actor.id, case.scan_bytes)
    return case


def adopt(installation: Installation, case_id: str, taken: TakenScan, *, name: str, may_be_twin: bool) -> Case:
    """Make a case of a scan that an intake has taken in: record, scan, originals and identity, or nothing of them.

    Args:
        installation: that keeps it.
        case_id: of the case; the caller has noted it, so that no later attempt makes another one.
        taken: its files are moved.
        name: what the case is called.
        may_be_twin: whether it is taken in though a case of the same series has the same canonical scan, byte for byte:
            the same files give the same bytes. Without a series, as `ingest` has it.

    Raises:
        TwinError: it is a case already, and may not be.
        ScanError: the canonical scan can't be used.
        SetupError, StorageError: as `ingest` does.
    """
    check_pairing(installation)
    files, suffix = installation.files, ".nii.gz" if taken.path.suffix == ".gz" else ".nii"
    received = ReceivedFile(taken.path, sha256_of(taken.path), taken.path.stat().st_size, suffix)
    with open_scan(taken.path, limits=installation.settings.limits) as reader:
        case = new_case(case_id, display_name(name), received, reader)
    original = keys.original(case_id) if taken.original else None
    case = replace(case, original_path=original, examination=taken.examination, findings=taken.findings)
    own = [case.scan_path, keys.original(case_id), keys.identity(case_id)]
    with taken_back(files, *own), installation.database.begin() as session:
        if not may_be_twin:
            series_uid = taken.examination.series_uid if taken.examination else ""
            _check_new(rows.twin_of(session, case.scan_sha256, series_uid))
        rows.insert_case(session, case)
        if taken.original:
            files.put(taken.original, keys.original(case_id))
        if taken.identity:
            identity.keep_entry(installation, case_id, taken.identity)
        files.put(taken.path, case.scan_path)
    manifests.keep_case(files, case)
    log.info("case %s: taken in by %s, %d bytes", case.id, installation.actor.id, case.scan_bytes)
    return case


def case_exists(installation: Installation, case_id: str) -> bool:
    """Tell whether there is a case of this id."""
    with installation.database.read() as session:
        return case_id in rows.all_case_ids(session)


def submit(installation: Installation, name: str, stream: BinaryIO, *, place: int) -> Case:
    """Take in a scan that a reader hands in, and queue its segmentation.

    `place` is that of the scan among those that its reader hands in together, 0 for the first or only one.

    Raises:
        TwinError: it is a case already; `submit_again` makes another one of it all the same.
        CheckpointError: there is none to segment with; the case is there.
        ScanError, SetupError, StorageError: as `ingest` does.
    """
    case = ingest(installation, name, stream, may_be_twin=False)
    queue_segmentation(installation, case.id, place=place)
    return case


def submit_again(installation: Installation, case_id: str, name: str, *, place: int) -> Case:
    """Make another case of the scan of a case, under a name of its own, and queue its segmentation.

    Raises:
        NotFoundError: there is no such case, or its scan is gone.
        CheckpointError: there is none to segment with; the case is there.
        SetupError, StorageError: as `ingest` does.
    """
    original = get_case(installation, case_id)
    if not installation.files.exists(original.scan_path):
        raise NotFoundError("The scan is not there any more.", "Upload it again.")
    with installation.files.open(original.scan_path) as stream:
        case = ingest(installation, name, stream)
    queue_segmentation(installation, case.id, place=place)
    return case


def stop_segmentation(installation: Installation, case_id: str) -> None:
    """Stop the newest segmentation of a case, if it goes on; raises NotFoundError where there is no such case."""
    get_case(installation, case_id)
    if run := latest_run(installation, case_id):
        installation.executor.cancel(run.id)


def list_cases(installation: Installation) -> tuple[CaseSummary, ...]:
    """Return all cases, newest first, with their newest run and the totals of their newest predicted mask."""
    with installation.database.read() as session:
        return rows.list_summaries(session)


def get_case(installation: Installation, case_id: str) -> Case:
    """Return a case; raises NotFoundError where there is none of this id."""
    with installation.database.read() as session:
        return rows.get_case(session, case_id)


def masks_of(installation: Installation, case_id: str) -> tuple[Mask, ...]:
    """Return all masks of a case with their lesions, newest first."""
    with installation.database.read() as session:
        return mask_rows.masks_of_case(session, case_id)


def get_mask(installation: Installation, mask_id: str) -> Mask:
    """Return a mask with its lesions; raises NotFoundError where there is none of this id."""
    with installation.database.read() as session:
        return mask_rows.get_mask(session, mask_id)


def add_reference(installation: Installation, case_id: str, path: Path) -> Mask:
    """Add a reference mask of a case, kept on the scan's own grid as one more version.

    `path` is a NIfTI mask on the voxels of the scan, in any axis order; every value other than 0 is inside.

    Raises:
        NotFoundError: there is no such case.
        GridMismatchError: the mask lies elsewhere.
        ScanError: the file is no usable mask.
        StorageError: it can't be kept.
    """
    case = get_case(installation, case_id)
    geometry = geometry_of(installation, case)
    grid = Grid.of(geometry).to_ras()
    voxels = read_mask(path, grid, limits=installation.settings.limits)
    lesions = lesions_of(voxels, grid)
    mask_id = uuid4().hex
    key = keys.mask(mask_id)
    stored = installation.files.local(key)
    with taken_back(installation.files, key):
        write_mask(voxels, stored, geometry)
        with installation.database.begin() as session:
            rows.get_case(session, case_id)
            mask = Mask(
                id=mask_id,
                case_id=case_id,
                run_id=None,
                kind=MaskKind.REFERENCE,
                version=mask_rows.next_version(session, case_id, MaskKind.REFERENCE),
                path=key,
                sha256=sha256_of(stored),
                volume_ml=sum(lesion.volume_ml for lesion in lesions),
                slice_voxels=slice_voxels(voxels),
                created_at=datetime.now(UTC),
                lesions=lesions,
            )
            mask_rows.insert_mask(session, mask)
    manifests.keep_mask(installation.files, mask, run=None)
    return mask


def rename_case(installation: Installation, case_id: str, name: str) -> Case:
    """Change what a case is called; the old name goes from the files of the database too.

    Raises:
        NamelessError: nothing of the new name can be seen; the old one stays.
        NotFoundError: there is none of this id.
    """
    visible = visible_name(name)
    if not visible:
        raise no_name()
    with installation.database.begin() as session:
        case = rows.rename_case(session, case_id, visible)
    manifests.keep_case(installation.files, case)
    installation.database.scrub()
    return case


def delete_case(installation: Installation, case_id: str) -> None:
    """Delete a case with its scan, its original files and what leads back to the patient, runs, masks and pictures.

    A worker busy with it stops within a second or two.

    Manifests go first, then rows, then files: where that is interrupted, a row without manifests gets them again, and a
    file without a row is swept later. A row without its file would be a broken case. Nothing of the name stays.

    Raises:
        NotFoundError: there is none of this id.
    """
    files = installation.files
    with installation.database.begin() as session:  # so that no mask is added meanwhile
        case = rows.get_case(session, case_id)
        masks = mask_rows.masks_of_case(session, case_id)
        manifest_keys = [*(keys.mask_manifest(mask.id) for mask in masks), keys.case_manifest(case_id)]
        _remove(files, manifest_keys)
        rows.delete_case(session, case_id)
    originals = (keys.original(case_id), keys.identity(case_id))
    own = [case.scan_path, *originals, *(mask.path for mask in masks), keys.thumbnail(case_id)]
    own += [key for key in files.list(keys.OUTBOX) if keys.id_of(key) == case_id]
    _remove(files, [*manifest_keys, *own, *(key for mask in masks for key in keys_beside(files, mask.id))])
    installation.database.scrub()
    log.info("case %s: deleted by %s", case_id, installation.actor.id)


def display_name(name: str) -> str:
    """Make a name fit to be shown, and never empty."""
    return visible_name(name) or "scan"


def visible_name(name: str) -> str:
    """Return what can be shown of a name: no folders, no control or direction characters, not endless; may be empty."""
    base = name.replace("\\", "/").rstrip("/").rpartition("/")[2]
    visible = "".join(character for character in base if unicodedata.category(character)[0] != "C")
    return " ".join(visible.split())[:LONGEST_NAME].strip()


def no_name() -> NamelessError:
    """Return the error of a name of which nothing can be seen."""
    return NamelessError("The name is empty.", "Give the case a name; the old one stays as long as it has no other.")


def new_case(case_id: str, name: str, received: ReceivedFile, scan: ScanReader, *, is_demo: bool = False) -> Case:
    """Describe a scan as a case of now; its file lies under `scan_path`, or will."""
    turned = scan.grid.to_ras()
    return Case(
        id=case_id,
        name=name,
        scan_path=keys.scan(case_id, received.suffix),
        scan_sha256=received.sha256,
        scan_bytes=received.size,
        shape=turned.shape,
        spacing_mm=turned.spacing_mm,
        orientation=scan.grid.orientation.codes,
        is_demo=is_demo,
        created_at=datetime.now(UTC),
        geometry=scan.geometry,
    )


def keys_beside(files: FileStore, mask_id: str) -> list[str]:
    """Return what is kept of a mask besides its own file: its probabilities, and masks at other thresholds."""
    derived = (key for key in files.list(keys.DERIVED) if keys.id_of(key) == mask_id)
    return [keys.probability(mask_id), *derived]


def _check_new(twin: Case | None) -> None:
    """Raise TwinError where the scan of a new case is that of another one."""
    if twin:
        remedy = "Open that case, or take the scan in once more."
        raise TwinError(f"It is the same scan as {twin.name}.", remedy, twin.id)


def _remove(files: FileStore, removable: Iterable[str]) -> None:
    """Remove files; one that can't be removed is left for the sweep, and never keeps the rest."""
    try:
        files.delete(*removable)
    except StorageError as error:
        log.warning("%s", error.found)
