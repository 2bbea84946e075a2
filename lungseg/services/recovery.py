"""Cases and runs made again from the files that are there, after their database was lost.

Manifests say all that the database said. A scan without one becomes a case under a new name, and is segmented again; a
mask without one belongs to nobody knows which case and is set aside. What the database knows already stays as it is, so
that the recovery can be repeated.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime

from lungseg.db import cases as case_rows
from lungseg.db import masks as mask_rows
from lungseg.db import runs as run_rows
from lungseg.db import training as training_rows
from lungseg.errors import LungSegError, SetupError, StorageError
from lungseg.files import keys
from lungseg.files.digests import sha256_of
from lungseg.files.store import FileStore
from lungseg.records.cases import Case
from lungseg.records.masks import MaskKind
from lungseg.records.run_states import RunState
from lungseg.scans.formats import open_scan
from lungseg.services.cases import new_case
from lungseg.services.home import ID, OTHER_HOME, holdings, open_home, pair
from lungseg.services.installation import Installation
from lungseg.services.manifests import (
    MaskManifest,
    RunManifest,
    keep_case,
    read_manifest,
    run_folders,
    run_manifest,
)
from lungseg.services.runs import queue_segmentation
from lungseg.services.storage import ReceivedFile

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Recovery:
    """What became of the files.

    Attributes:
        cases: how many became cases again.
        unnamed: how many of them had no manifest, so that their name is lost.
        masks: how many masks have their case again.
        runs: how many runs that train or score are listed again.
        queued: how many cases are segmented again.
        set_aside: masks that belong to nobody knows which case, in the folder `unassigned`.
        refused: files that can't be used, and why.
    """

    cases: int = 0
    unnamed: int = 0
    masks: int = 0
    runs: int = 0
    queued: int = 0
    set_aside: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)


def recover(
    installation: Installation, *, adopt: bool = False, on_step: Callable[[str], None] = lambda _: None
) -> Recovery:
    """Make records of all files in the home that the database does not know, then pair the two.

    Args:
        installation: to be recovered.
        adopt: take over a database that belongs to another home.
        on_step: told what is being done.

    Raises:
        SetupError: the database belongs to another home.
        StorageError: home or database can't be written to.
    """
    open_home(installation.settings)
    files = holdings(installation)
    if files.home and files.paired and files.home != files.paired and not adopt:
        raise SetupError(
            OTHER_HOME,
            "Set LUNGSEG_DATABASE_URL or LUNGSEG_HOME to what belongs together, or give --adopt to take it over.",
        )
    recovery, case_ids = Recovery(), []
    for number, case_id in enumerate(sorted(files.scans.orphans), start=1):
        on_step(f"scan {number} of {len(files.scans.orphans)}")
        if _recover_case(installation, case_id, recovery):
            case_ids.append(case_id)
    for number, mask_id in enumerate(sorted(files.masks.orphans), start=1):
        on_step(f"mask {number} of {len(files.masks.orphans)}")
        _recover_mask(installation, mask_id, recovery)
    on_step("runs")
    _recover_runs(installation, recovery)
    _segment_again(installation, case_ids, recovery)
    pair(installation)
    return recovery


def _recover_case(installation: Installation, case_id: str, recovery: Recovery) -> bool:
    key = _key_of(installation.files, keys.SCANS, case_id)
    try:
        case = _case_of(installation, key, case_id, recovery)
        with installation.database.begin() as session:
            case_rows.insert_case(session, case)
    except LungSegError as error:
        recovery.refused.append((key, str(error)))
        return False
    keep_case(installation.files, case)
    recovery.cases += 1
    return True


def _case_of(installation: Installation, key: str, case_id: str, recovery: Recovery) -> Case:
    """Describe a scan by its file; the manifest adds what the file can't tell: name, time, examination."""
    path = installation.files.local(key)
    received = ReceivedFile(path, sha256_of(path), path.stat().st_size, key.removeprefix(f"{keys.SCANS}/{case_id}"))
    with open_scan(path, limits=installation.settings.limits) as reader:
        case = new_case(case_id, f"recovered {case_id[:8]}", received, reader)
    original = keys.original(case_id) if installation.files.exists(keys.original(case_id)) else None
    try:
        manifest = read_manifest(Case, installation.files.local(keys.case_manifest(case_id)))
    except StorageError:
        recovery.unnamed += 1
        return replace(case, created_at=datetime.fromtimestamp(path.stat().st_mtime, UTC), original_path=original)
    geometry = manifest.geometry if manifest.scan_sha256 == case.scan_sha256 else None
    return replace(
        case,
        name=manifest.name,
        created_at=manifest.created_at,
        is_demo=manifest.is_demo,
        geometry=geometry or case.geometry,
        original_path=original,
        examination=manifest.examination,
        findings=manifest.findings,
    )


def _recover_mask(installation: Installation, mask_id: str, recovery: Recovery) -> None:
    files, key = installation.files, _key_of(installation.files, keys.MASKS, mask_id)
    try:
        manifest = read_manifest(MaskManifest, files.local(keys.mask_manifest(mask_id)))
    except StorageError:
        manifest = None
    with installation.database.read() as session:
        case_ids, run_ids = case_rows.all_case_ids(session), run_rows.all_run_ids(session)
    if manifest is None or manifest.mask.case_id not in case_ids:
        files.rename(key, f"{keys.UNASSIGNED}/{key.rpartition('/')[2]}")
        recovery.set_aside += 1
        return
    mask, run = manifest.mask, manifest.run
    if run and run.case_id != mask.case_id:
        run = None
    mask = replace(mask, id=mask_id, run_id=run.id if run else None, path=key, sha256=sha256_of(files.local(key)))
    try:
        with installation.database.begin() as session:
            if run and run.id not in run_ids:
                run_rows.insert_run(session, replace(run, state=RunState.DONE))
            others = mask_rows.masks_of_case(session, mask.case_id)
            if (mask.kind, mask.version) in {(other.kind, other.version) for other in others}:
                mask = replace(mask, version=mask_rows.next_version(session, mask.case_id, mask.kind))
            mask_rows.insert_mask(session, mask)
    except StorageError as error:
        recovery.refused.append((key, str(error)))
    else:
        recovery.masks += 1


def _recover_runs(installation: Installation, recovery: Recovery) -> None:
    """List runs with a folder again; one that was going on when its record was lost can be resumed."""
    with installation.database.read() as session:
        run_ids = run_rows.all_run_ids(session)
    for folder in run_folders(installation.settings):
        if folder.name in run_ids or not ID.fullmatch(folder.name):
            continue
        try:
            manifest = read_manifest(RunManifest, run_manifest(installation.settings, folder.name))
            run = manifest.run
            if run.id != folder.name:
                raise StorageError("The manifest is that of another run.", "Remove the folder of the run.")
            state = run.state if run.state.is_final else RunState.CANCELLED
            with installation.database.begin() as session:
                run_rows.insert_run(session, replace(run, state=state, case_id=None, progress=None))
                for epoch in manifest.epochs:
                    training_rows.keep_epoch(session, replace(epoch, run_id=folder.name))
                training_rows.keep_scores(session, folder.name, manifest.scores)
        except LungSegError as error:
            recovery.refused.append((f"runs/{folder.name}", str(error)))
        else:
            recovery.runs += 1


def _segment_again(installation: Installation, case_ids: list[str], recovery: Recovery) -> None:
    """Queue cases whose mask by a network did not come back."""
    for case_id in case_ids:
        with installation.database.read() as session:
            kinds = {mask.kind for mask in mask_rows.masks_of_case(session, case_id)}
        if MaskKind.PREDICTION in kinds:
            continue
        try:
            queue_segmentation(installation, case_id)
        except LungSegError as error:
            recovery.refused.append((f"case {case_id}", str(error)))
        else:
            recovery.queued += 1


def _key_of(files: FileStore, folder: str, record_id: str) -> str:
    """Return the key of the file of a record, not that of its manifest."""
    own = (key for key in files.list(folder) if keys.id_of(key) == record_id)
    return next(key for key in own if not key.endswith(keys.MANIFEST_END))
