"""Taking in what readers hand in, as a run: unpacked, looked through, and made into cases where there is no doubt."""

from __future__ import annotations

import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import TypeVar
from uuid import uuid4

from lungseg.errors import (
    LungSegError,
    NotFoundError,
    RunCancelledError,
    SetupError,
    StorageError,
    TwinError,
    WorkTimeError,
)
from lungseg.files import atomic
from lungseg.intake.folder import IntakeFolder, Listing
from lungseg.intake.survey import Contents, contents_of, draw_thumbnails, is_other_scan, preferred, undoubted
from lungseg.intake.take import bytes_to_write, take
from lungseg.intake.unpack import unpack, unpacked_files
from lungseg.jobs.context import JobContext
from lungseg.jobs.recorder import Outcome
from lungseg.records.intakes import Intake
from lungseg.records.run_configs import IntakeConfig
from lungseg.records.run_states import Failure, Progress
from lungseg.scans.reader import Advance
from lungseg.services.cases import adopt, case_exists
from lungseg.services.identity import rule_of
from lungseg.services.intake import folder_of
from lungseg.services.outbox import expect_result
from lungseg.services.runs import latest_run, queue_segmentation
from lungseg.services.storage import check_disk
from lungseg.services.wholeness import fewer_slices, supersede_earlier

log = logging.getLogger(__name__)

Value = TypeVar("Value")

NO_FAULT_OF_SERIES = (RunCancelledError, SetupError, StorageError, WorkTimeError)
"""What ends the run, which can be tried again; any other error stands on the series alone."""
UNCERTAIN = "the record of what was unpacked is damaged, so that this is not certain."
"""Stands for what could not be unpacked where nobody knows."""
TELLS_AFTER_S = 0.5
"""The time left is told of a stage that has lasted this long."""


def job(context: JobContext) -> Outcome:
    """Look at an intake and take in what its run is to take, or what is without doubt; the page asks about the rest.

    Each step is there as a whole or is made anew, so that a run goes on after a kill; a case is never made twice.

    Raises:
        RunCancelledError: asked to stop; what is unpacked stays.
        LungSegError: nothing usable was handed in, or a series could not be taken in; the others were.
    """
    config = context.run.config_as(IntakeConfig)
    folder = folder_of(context.installation.files, config.intake)
    try:
        intake = folder.intake()
    except NotFoundError:  # an attempt before this one has done all its work and removed it
        return Outcome()
    _Work(context, config, folder, intake).carry_out()
    return Outcome()


@dataclass(frozen=True, slots=True)
class _Work:
    """The work on one intake."""

    context: JobContext
    config: IntakeConfig
    folder: IntakeFolder
    intake: Intake

    def carry_out(self) -> None:
        """Do all steps; raises as `job`."""
        with self._unpacked() as listing:
            self._take_in(listing)

    def _take_in(self, listing: Listing) -> None:
        """Look at the unpacked files and take in what is to be; what is settled removes the intake."""
        limits = self.context.installation.settings.limits
        files = {self.folder.files / path: name for path, name in listing.names.items()}
        report = self._report("looking at files")
        contents = contents_of(files, limits=limits, ignored=listing.ignored, lost=listing.lost, on_progress=report)
        if self.folder.survey() is None:
            self.folder.keep_survey(contents.survey)
        choice = preferred if self.config.unattended else undoubted
        selection = self.config.series or choice(contents.survey)
        errors = [error for place, key in enumerate(selection) if (error := self._settle(contents, key, place))]
        is_settled = selection and not errors and not self.folder.ledger().twins.keys() & set(selection)
        others = {offer.key for offer in contents.survey.offers if not offer.refusal}.difference(selection)
        if is_settled and (self.config.series or not others):
            self.folder.remove()
            return
        if not self.folder.thumbnails.is_dir():
            report = self._report("drawing thumbnails")
            self.folder.keep_survey(draw_thumbnails(contents, self.folder.thumbnails, on_progress=report))
        if errors:
            raise errors[0]

    @contextmanager
    def _unpacked(self) -> Iterator[Listing]:
        """Yield the unpacked files, as an attempt before this one has left them or made now.

        What stays behind the block is flushed to the disk before that goes of which it was unpacked.
        """
        listing = self.folder.listing() or self._listing()
        try:
            yield listing
        except Exception:
            self._keep_unpacked(listing)
            raise
        self._keep_unpacked(listing)

    def _keep_unpacked(self, listing: Listing) -> None:
        """Let the unpacked files stand for what was handed in, which goes; keep no name that no reader has to see."""
        if not self.folder.has_record or (self.folder.listing() and not self.folder.upload.exists()):
            return
        atomic.flush_all(self.folder.files)
        limits = self.context.installation.settings.limits
        names = {
            path: name if is_other_scan(self.folder.files / path, limits) else ""
            for path, name in listing.names.items()
        }
        self.folder.keep_listing(replace(listing, names=names))
        self.folder.keep_intake(replace(self.intake, file_names=()))
        shutil.rmtree(self.folder.upload, ignore_errors=True)

    def _listing(self) -> Listing:
        """Unpack what was handed in; where that is gone, its unpacked files are whole."""
        self._retrieve()
        target = self.folder.files
        if not self.folder.upload.exists():
            return self._listing_again()
        with atomic.disk_errors("The folder of what is unpacked"):
            if target.exists():
                shutil.rmtree(target)
            sources = sorted(self.folder.upload.iterdir())
        names = dict(zip(sources, self.intake.file_names, strict=False))  # none of a study that was retrieved
        limits, report = self.context.installation.settings.limits, self._report("unpacking")
        with ExitStack() as undo:
            undo.callback(shutil.rmtree, target, ignore_errors=True)  # a part would fill the disk for nothing
            unpacked = unpack(sources, target, limits=limits, names=names, on_progress=self._while_room(report))
            undo.pop_all()
        return Listing(
            {str(path.relative_to(target)): name for path, name in unpacked.names.items()},
            dict(unpacked.ignored),
            tuple(member.error.found for member in unpacked.lost),
        )

    def _listing_again(self) -> Listing:
        """Return the unpacked files where the record of them is damaged."""
        names = {str(path.relative_to(self.folder.files)): "" for path in unpacked_files(self.folder.files)}
        if not names:
            raise NotFoundError("Nothing is there any more of what was handed in.", "Discard it, and hand it in again.")
        return Listing(names, {}, (UNCERTAIN,))

    def _while_room(self, report: Advance) -> Advance:
        """Return what reports progress, and ends the work where the disk would be left too little room."""

        def report_or_end(done: int, total: int) -> None:
            check_disk(self.folder.path, 0)
            report(done, total)

        return report_or_end

    def _retrieve(self) -> None:
        """Fetch the study of the run from the PACS, unless files were handed in or it is there already."""
        if not self.intake.study_uid or self.folder.upload.is_dir():
            return
        from lungseg.pacs.dicomweb import retrieve_study  # noqa: PLC0415 - its libraries take half a second

        with self._working():
            settings, intake = self.context.installation.settings, self.intake
            report = self._while_room(self._report("retrieving slices"))
            retrieve_study(settings, intake.study_uid, intake.series_uid, self.folder.work, on_progress=report)
            atomic.flush_all(self.folder.work)
            atomic.move(self.folder.work, self.folder.upload)

    def _settle(self, contents: Contents, key: str, place: int) -> LungSegError | None:
        """Make a case of a series and queue its segmentation; return why that can't be, None where it is a case now.

        A twin is noted, for the page to ask about it.
        """
        installation, ledger = self.context.installation, self.folder.ledger()
        case_id = ledger.cases.get(key) or uuid4().hex
        ledger = replace(
            ledger,
            cases={**ledger.cases, key: case_id},
            twins=_without(ledger.twins, key),
            failures=_without(ledger.failures, key),
        )
        self.folder.keep_ledger(ledger)
        if not case_exists(installation, case_id):
            if ledger.made_by.get(key) == self.context.run.id:
                log.info("intake %s: case %s was deleted, and is not made again", self.intake.id, case_id)
                return None
            try:
                self._adopt(contents, key, case_id)
            except TwinError as error:
                if self.config.unattended:  # a PACS has sent it again
                    log.info("intake %s: a series is case %s already", self.intake.id, error.case_id)
                    self.folder.keep_ledger(replace(ledger, cases={**ledger.cases, key: error.case_id}))
                    return None
                twins = {**ledger.twins, key: error.case_id}
                self.folder.keep_ledger(replace(ledger, cases=_without(ledger.cases, key), twins=twins))
                return None
            except NO_FAULT_OF_SERIES:
                raise
            except LungSegError as error:
                failures = {**ledger.failures, key: Failure.of(error)}
                self.folder.keep_ledger(replace(ledger, cases=_without(ledger.cases, key), failures=failures))
                return error
        self.folder.keep_ledger(replace(ledger, made_by={**ledger.made_by, key: self.context.run.id}))
        try:
            self._go_on_with(case_id, place)
        except NotFoundError:
            log.info("intake %s: case %s was deleted as soon as it was made", self.intake.id, case_id)
        return None

    def _go_on_with(self, case_id: str, place: int) -> None:
        """Queue the segmentation of a case, and let others know of it; raises NotFoundError where it is gone."""
        installation = self.context.installation
        if latest_run(installation, case_id) is None:
            queue_segmentation(installation, case_id, place=self.intake.place + place)
        if self.config.unattended:
            supersede_earlier(installation, case_id)
            expect_result(installation, case_id)

    def _adopt(self, contents: Contents, key: str, case_id: str) -> None:
        installation = self.context.installation
        with self._working():
            check_disk(self.folder.path, bytes_to_write(contents, key))
            taken = take(
                contents,
                key,
                self.folder.work,
                rule_of(installation),
                limits=installation.settings.limits,
                on_progress=self._report("reading slices"),
            )
            if self.config.lacking:
                taken = replace(taken, findings=(fewer_slices(self.config.lacking), *taken.findings))
            adopt(
                installation, case_id, taken, name=taken.name or self.intake.name, may_be_twin=self.config.may_be_twin
            )
        log.info("intake %s: a series is case %s", self.intake.id, case_id)

    @contextmanager
    def _working(self) -> Iterator[None]:
        """Work in an empty folder, which is gone after the block."""
        shutil.rmtree(self.folder.work, ignore_errors=True)
        with atomic.disk_errors("The folder of the intake"):
            self.folder.work.mkdir(mode=atomic.PRIVATE_FOLDER)
        try:
            yield
        finally:
            shutil.rmtree(self.folder.work, ignore_errors=True)

    def _report(self, stage: str) -> Advance:
        """Return what reports the progress of a stage, and ends the work where the run is to stop."""
        monitor, began_s = self.context.monitor, time.monotonic()
        monitor.report(Progress(stage))

        def report(done: int, total: int) -> None:
            if monitor.should_stop():
                raise RunCancelledError("Taking in was stopped.", "Try it again, or discard it.")
            elapsed_s = time.monotonic() - began_s
            is_told = done and elapsed_s > TELLS_AFTER_S
            monitor.report(Progress(stage, done, total, elapsed_s * (total - done) / done if is_told else None))

        return report


def _without(entries: Mapping[str, Value], key: str) -> dict[str, Value]:
    return {other: value for other, value in entries.items() if other != key}
