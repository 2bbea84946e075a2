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
from lungseg.errors import LungSegError, NotFoundError, SetupError, StorageError
from lungseg.files import keys
from lungseg.files.store import FileStore
from lungseg.records import Case, MaskKind, RunState
from lungseg.scans.formats import open_scan
from lungseg.segmentation.card import sha256_of
from lungseg.services import manifests
from lungseg.services.home import ID, holdings, open_home, pair
from lungseg.services.installation import Installation
from lungseg.services.runs import queue_segmentation

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
    installation: Installation, *, adopt: bool = False, on_step: Callable[[str], None] | None = None
) -> Recovery:
    """Make records of all files in the home that the database does not know, then pair the two.

    Args:
        installation: whose it is.
        adopt: take over a database that belongs to another home.
        on_step: told what is being done.

    Raises:
        SetupError: the database belongs to another home.
        StorageError: home or database can't be written to.
    """
    open_home(installation.settings)
    found = holdings(installation)
    if found.home and found.paired and found.home != found.paired and not adopt:
        raise SetupError(
            "The database belongs to another LUNGSEG_HOME than this one.",
            "Set LUNGSEG_DATABASE_URL or LUNGSEG_HOME to what belongs together, or give --adopt to take it over.",
        )
    recovery, tell = Recovery(), on_step or (lambda _: None)
    back = []
    for number, case_id in enumerate(sorted(found.scans.strangers), start=1):
        tell(f"scan {number} of {len(found.scans.strangers)}")
        if _recover_case(installation, case_id, recovery):
            back.append(case_id)
    for number, mask_id in enumerate(sorted(found.masks.strangers), start=1):
        tell(f"mask {number} of {len(found.masks.strangers)}")
        _recover_mask(installation, mask_id, recovery)
    tell("runs")
    _recover_runs(installation, recovery)
    _segment_again(installation, back, recovery)
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
    manifests.keep_case(installation.files, case)
    recovery.cases += 1
    return True


def _case_of(installation: Installation, key: str, case_id: str, recovery: Recovery) -> Case:
    """Describe a scan by its file; of the manifest only what the file can't tell is taken: name, time, demo or not."""
    path = installation.files.local(key)
    with open_scan(path, limits=installation.settings.limits) as reader:
        grid, geometry = reader.grid, reader.geometry
    turned = grid.to_ras()
    case = Case(
        id=case_id,
        name=f"recovered {case_id[:8]}",
        scan_path=key,
        scan_sha256=sha256_of(path),
        scan_bytes=path.stat().st_size,
        shape=turned.shape,
        spacing_mm=turned.spacing_mm,
        orientation=grid.orientation.codes,
        is_demo=False,
        created_at=datetime.fromtimestamp(path.stat().st_mtime, UTC),
        geometry=geometry,
    )
    try:
        said = manifests.read_case(installation.files.local(keys.case_manifest(case_id)))
    except StorageError:
        recovery.unnamed += 1
        return case
    if said.scan_sha256 == case.scan_sha256 and said.geometry:
        case = replace(case, geometry=said.geometry)
    return replace(case, name=said.name, created_at=said.created_at, is_demo=said.is_demo)


def _recover_mask(installation: Installation, mask_id: str, recovery: Recovery) -> None:
    key = _key_of(installation.files, keys.MASKS, mask_id)
    try:
        said = manifests.read_mask_manifest(installation.files.local(keys.mask_manifest(mask_id)))
        with installation.database.begin() as session:
            case_rows.get_case(session, said.mask.case_id)
            run = said.run if said.run and said.run.case_id == said.mask.case_id else None
            if run and run.id not in run_rows.all_run_ids(session):
                run_rows.insert_run(session, replace(run, state=RunState.DONE))
            taken = {(mask.kind, mask.version) for mask in mask_rows.masks_of_case(session, said.mask.case_id)}
            version = said.mask.version
            if (said.mask.kind, version) in taken:
                version = mask_rows.next_version(session, said.mask.case_id, said.mask.kind)
            mask = replace(
                said.mask,
                id=mask_id,
                run_id=run.id if run else None,
                version=version,
                path=key,
                sha256=sha256_of(installation.files.local(key)),
            )
            mask_rows.insert_mask(session, mask)
    except (StorageError, NotFoundError):
        installation.files.rename(key, f"{keys.UNASSIGNED}/{key.rpartition('/')[2]}")
        recovery.set_aside += 1
        return
    recovery.masks += 1


def _recover_runs(installation: Installation, recovery: Recovery) -> None:
    """List runs with a folder again; one that was going on when its record was lost can be resumed."""
    with installation.database.read() as session:
        known = run_rows.all_run_ids(session)
    folders = sorted(installation.settings.runs.iterdir()) if installation.settings.runs.is_dir() else []
    for folder in folders:
        if folder.name in known or not ID.fullmatch(folder.name):
            continue
        try:
            said = manifests.read_run(manifests.run_manifest(installation.settings, folder.name))
            if said.run.id != folder.name:
                raise StorageError("The manifest is that of another run.", "Remove the folder of the run.")
            state = said.run.state if said.run.state.is_final else RunState.CANCELLED
            with installation.database.begin() as session:
                run_rows.insert_run(session, replace(said.run, state=state, case_id=None, progress=None))
                for epoch in said.epochs:
                    training_rows.keep_epoch(session, replace(epoch, run_id=folder.name))
                training_rows.keep_scores(session, folder.name, said.scores)
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
