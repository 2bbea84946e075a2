"""What readers hand in, from the upload to the cases: begun, watched, chosen from, discarded. A run does the work."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from lungseg.db import cases as case_rows
from lungseg.db import runs as rows
from lungseg.errors import NotFoundError, RunActiveError, ScanError, SetupError
from lungseg.files import atomic, keys
from lungseg.files.store import FileStore
from lungseg.files.unpacking import open_content
from lungseg.intake.folder import IntakeFolder
from lungseg.intake.tar_archive import BLOCK, is_tar
from lungseg.intake.zip_archive import is_zip
from lungseg.records.intakes import Intake, IntakeLedger, IntakeSurvey, SeriesOffer
from lungseg.records.run_configs import IntakeConfig
from lungseg.records.run_states import RunKind, RunState
from lungseg.records.runs import Run
from lungseg.scans.formats import FORMATS, NIFTI
from lungseg.scans.nifti_header import is_nifti
from lungseg.services.cases import display_name
from lungseg.services.home import check_pairing
from lungseg.services.installation import Installation
from lungseg.services.runs import blank_run
from lungseg.wording import counted

log = logging.getLogger(__name__)

LEFT_AFTER_S = 7 * 24 * 3600.0
"""An intake that nobody has decided on for this long goes."""
UNRECORDED_S = 3600.0
"""So does one without a record, as a kill leaves it that came while it was made, or removed."""


@dataclass(frozen=True, slots=True)
class IntakeState:
    """Where an intake stands.

    Attributes:
        run: its newest; None where the server ended before it was queued.
        survey: what was found; None as long as nobody has looked.
        ledger: what has become of its series; `cases` has those alone that are cases now.
        ahead: number of other intakes that are carried out before, as long as it waits.
        thumbnails: folder of the small pictures.
    """

    intake: Intake
    run: Run | None
    survey: IntakeSurvey | None
    ledger: IntakeLedger
    ahead: int
    thumbnails: Path

    @property
    def is_active(self) -> bool:
        """Whether it waits to be carried out, or is carried out now."""
        return self.run is not None and not self.run.state.is_final

    @property
    def open_offers(self) -> tuple[SeriesOffer, ...]:
        """The series that can still be taken in."""
        offers = self.survey.offers if self.survey else ()
        settled = {*self.ledger.cases, *self.ledger.failures}
        return tuple(offer for offer in offers if not offer.refusal and offer.key not in settled)


def begin(
    installation: Installation,
    files: Sequence[tuple[str, Path]],
    *,
    place: int = 0,
    unattended: bool = False,
    intake_id: str = "",
    lacking: int = 0,
) -> str:
    """Take over files or folders that a reader hands in together, and queue the run that looks at them.

    Args:
        installation: that keeps them.
        files: each with the name that its reader gives it, of which the disk sees nothing. They have to lie on the disk
            of the installation, and are gone once the run is queued.
        place: of what they hold among all that its reader hands in together, 0 for the first or only one.
        unattended: whether nobody is there to choose: of several series the preferred one of each study is taken.
        intake_id: of the intake, so that what a kill interrupted can be begun again and is one intake; empty for a new
            one.
        lacking: number of slices that a PACS has of its series besides.

    Returns:
        The id of the intake.

    Raises:
        SetupError: files and database of the installation do not belong together.
        StorageError: the disk or the database refuses; files stay where they are, to be handed in again.
    """
    check_pairing(installation)
    intake = _new_intake(_name_of([name for name, _ in files]), place, intake_id)
    folder = folder_of(installation.files, intake.id)
    with installation.database.read() as session:
        is_queued = intake.id in rows.latest_intake_runs(session, [intake.id])
    if not is_queued:
        _fill(folder, replace(intake, file_names=tuple(name for name, _ in files)), [path for _, path in files])
        config = IntakeConfig(intake=intake.id, unattended=unattended, lacking=lacking)
        installation.executor.submit(_run(config, place))
        log.info("intake %s: %s handed in by %s", intake.id, counted(len(files), "file"), installation.actor.id)
    for _, path in files:
        with suppress(OSError):  # a folder was moved; any other file is a second name
            path.unlink()
    return intake.id


def is_for_intake(path: Path) -> bool:
    """Tell whether a file, whatever it is called, is an archive or a scan of another format than NIfTI.

    Only a run opens those, in a process with limits. Any other file that is no NIfTI is named at once by `ingest`.
    """
    try:
        with open_content(path) as content:
            block = content.read(BLOCK)
    except ScanError:
        return False
    others = [other.recognises for other in FORMATS if other not in NIFTI]
    return not is_nifti(block) and any(recognises(block) for recognises in (is_tar, is_zip, *others))


def retrieve(installation: Installation, study_uid: str, series_uid: str = "") -> str:
    """Queue the run that fetches a study, or one series of it, from the DICOMweb server and takes it in.

    Returns the id of the intake; raises as `begin`.
    """
    check_pairing(installation)
    intake = replace(_new_intake("A study from the PACS", 0), study_uid=study_uid, series_uid=series_uid)
    folder = folder_of(installation.files, intake.id)
    with atomic.disk_errors("The folder of what is retrieved"):
        folder.path.mkdir(mode=atomic.PRIVATE_FOLDER, parents=True)
        folder.keep_intake(intake)
    installation.executor.submit(_run(IntakeConfig(intake=intake.id), intake.place))
    return intake.id


def pending(installation: Installation) -> tuple[IntakeState, ...]:
    """Return what was handed in and is not decided, oldest first: at work, waiting for a choice, failed or stopped."""
    folders = {}
    for folder in _folders(installation.files):
        try:
            folders[folder.path.name] = (folder, folder.intake())
        except NotFoundError:
            continue  # being made or removed now
    if not folders:
        return ()
    with installation.database.read() as session:
        runs = rows.latest_intake_runs(session, folders)
        case_ids = case_rows.all_case_ids(session)
    waiting = [run for run in runs.values() if not run.state.is_final]
    queue = sorted(waiting, key=lambda run: (run.state is not RunState.RUNNING, run.priority, run.queued_at, run.id))
    states = []
    for intake_id, (folder, intake) in folders.items():
        run, ledger = runs.get(intake_id), folder.ledger()
        cases = {key: case_id for key, case_id in ledger.cases.items() if case_id in case_ids}
        ahead = queue.index(run) if run in queue else 0
        states.append(IntakeState(intake, run, folder.survey(), replace(ledger, cases=cases), ahead, folder.thumbnails))
    return tuple(sorted(states, key=lambda state: state.intake.created_at))


def choose(installation: Installation, intake_id: str, series: Collection[str], *, may_be_twin: bool = False) -> Run:
    """Queue the run that takes series of an intake in, and discards what else it holds.

    Args:
        installation: of the intake.
        intake_id: the intake.
        series: keys of its offers.
        may_be_twin: whether a series is taken in though its scan is a case already.

    Raises:
        NotFoundError: the intake is gone, or has no such series that can be taken in.
        RunActiveError: it is being carried out.
        StorageError: the database refuses.
    """
    folder = folder_of(installation.files, intake_id)
    survey = folder.survey()
    usable = {offer.key for offer in survey.offers if not offer.refusal} if survey else set()
    if not series or not usable.issuperset(series):
        folder.intake()
        raise NotFoundError("There is no such series in what was handed in.", "Choose one of those that are shown.")
    config = IntakeConfig(intake=intake_id, series=tuple(series), may_be_twin=may_be_twin)
    return _queue(installation, replace(config, lacking=_latest_config(installation, intake_id).lacking))


def try_again(installation: Installation, intake_id: str) -> Run:
    """Queue again what an intake was to do last; raises as `choose`."""
    return _queue(installation, _latest_config(installation, intake_id))


def stop(installation: Installation, intake_id: str) -> None:
    """Stop an intake that waits or is carried out; what it has unpacked stays, so that it can be tried again.

    Raises:
        NotFoundError: the intake is gone.
        StorageError: the database refuses.
    """
    folder_of(installation.files, intake_id).intake()
    with installation.database.read() as session:
        latest = rows.latest_intake_runs(session, [intake_id]).get(intake_id)
    if latest:
        installation.executor.cancel(latest.id)


def discard(installation: Installation, intake_id: str) -> None:
    """Remove an intake with all that was not taken in; raises NotFoundError and RunActiveError as `choose`."""
    folder = folder_of(installation.files, intake_id)
    with installation.database.begin() as session:  # so that no run is queued meanwhile
        _check_idle(rows.latest_intake_runs(session, [intake_id]).get(intake_id))
        folder.intake()
        with atomic.disk_errors("What was handed in"):
            folder.remove()
    log.info("intake %s: discarded by %s", intake_id, installation.actor.id)


def sweep_intakes(installation: Installation) -> int:
    """Remove intakes that nobody has touched for a week and that no run works on, and return how many.

    What a kill has left of others goes sooner. One whose record is damaged stays until somebody who has seen that
    decides. Nothing is removed where files and database do not belong together.

    Raises:
        StorageError: the database refuses.
    """
    try:
        check_pairing(installation)
    except SetupError as error:
        log.error("no intake is swept: %s", error.found)  # noqa: TRY400 - a state of the installation, no fault of ours
        return 0
    folders = {folder.path.name: folder for folder in _folders(installation.files)}
    with installation.database.read() as session:
        runs = rows.latest_intake_runs(session, folders)
    stale = [folder for intake_id, folder in folders.items() if _is_left(folder, runs.get(intake_id))]
    return sum(_remove_left(installation, folder) for folder in stale)


def folder_of(files: FileStore, intake_id: str) -> IntakeFolder:
    """Return the folder of an intake, whether it is there or not."""
    return IntakeFolder(files.local(keys.intake(intake_id)))


def _fill(folder: IntakeFolder, intake: Intake, paths: Sequence[Path]) -> None:
    """Give files a second name in the folder of an intake, and move folders there; its record comes last."""
    with atomic.disk_errors("The folder of what was handed in"):
        if atomic.is_file(folder.path / "intake.json"):
            return  # all of them are there; its run could not be queued
        shutil.rmtree(folder.path, ignore_errors=True)
        folder.path.mkdir(mode=atomic.PRIVATE_FOLDER, parents=True)
        folder.upload.mkdir(mode=atomic.PRIVATE_FOLDER)
        for number, path in enumerate(paths, 1):
            name_again = os.replace if path.is_dir() else os.link
            name_again(path, folder.upload / f"{number:06}")
        atomic.flush_all(folder.upload)  # its other name goes
        folder.keep_intake(intake)


def _queue(installation: Installation, config: IntakeConfig) -> Run:
    """Queue a run of an intake, one at a time."""
    intake = folder_of(installation.files, config.intake).intake()
    run = _run(config, intake.place)
    with installation.database.begin() as session:
        _check_idle(rows.latest_intake_runs(session, [intake.id]).get(intake.id))
        rows.insert_run(session, run)
    installation.executor.wake()
    return run


def _latest_config(installation: Installation, intake_id: str) -> IntakeConfig:
    """Return what an intake was to do last."""
    with installation.database.read() as session:
        latest = rows.latest_intake_runs(session, [intake_id]).get(intake_id)
    return latest.config_as(IntakeConfig) if latest else IntakeConfig(intake=intake_id)


def _check_idle(latest: Run | None) -> None:
    if latest and not latest.state.is_final:
        raise RunActiveError("It is being taken in already.", "Wait until that is done, or stop it first.")


def _run(config: IntakeConfig, place: int) -> Run:
    return replace(blank_run(RunKind.INTAKE, config), priority=place)


def _new_intake(name: str, place: int, intake_id: str = "") -> Intake:
    return Intake(id=intake_id or uuid4().hex, name=name, created_at=datetime.now(UTC), place=place)


def _name_of(names: Sequence[str]) -> str:
    """Name what was handed in: the one file, the one folder, or the first of several."""
    parts = ([part for part in name.replace("\\", "/").split("/") if part.strip(".")] for name in names)
    firsts = list(dict.fromkeys(path[0] if path else "" for path in parts))
    name = display_name(firsts[0]) if firsts else "Nothing"
    return name if len(firsts) <= 1 else f"{name} and {len(firsts) - 1} more"


def _folders(files: FileStore) -> list[IntakeFolder]:
    parent = files.local(keys.INTAKES)
    return [IntakeFolder(path) for path in sorted(parent.iterdir()) if path.is_dir()] if parent.is_dir() else []


def _remove_left(installation: Installation, folder: IntakeFolder) -> bool:
    """Remove an intake unless somebody has decided on it just now; tells whether it went."""
    intake_id = folder.path.name
    with installation.database.begin() as session:  # so that no run is queued meanwhile
        is_left = _is_left(folder, rows.latest_intake_runs(session, [intake_id]).get(intake_id))
        if is_left:
            folder.remove()
            log.info("intake %s: left by a kill, or not decided on for a week; it is removed", intake_id)
    return is_left


def _is_left(folder: IntakeFolder, run: Run | None) -> bool:
    if run and (not run.state.is_final or run.finished_at is None):
        return False
    if folder.is_damaged:
        log.warning("intake %s: its record is damaged; it stays until somebody discards it", folder.path.name)
        return False
    try:
        touched_s = folder.path.stat().st_mtime
    except OSError:
        return False
    if run and run.finished_at:
        touched_s = max(touched_s, run.finished_at.timestamp())
    return time.time() - touched_s > (LEFT_AFTER_S if folder.has_record else UNRECORDED_S)
