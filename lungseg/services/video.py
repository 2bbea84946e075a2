"""A video of a case's slices with its masks, for whoever wants to show it elsewhere; it is made by a run."""

from __future__ import annotations

from dataclasses import replace

from lungseg.db import runs as rows
from lungseg.db import training as training_rows
from lungseg.errors import NotFoundError, StorageError
from lungseg.files import keys
from lungseg.records.run_configs import VideoConfig
from lungseg.records.run_states import RunKind, RunState
from lungseg.records.runs import Run
from lungseg.services.installation import Installation
from lungseg.services.runs import blank_run, ended
from lungseg.services.viewing import CaseView

LONGEST_S = 300.0


def video_of(installation: Installation, view: CaseView) -> bytes:
    """Return the video of a case with its newest mask, and its reference mask where there is one, as MP4.

    It waits for the run that makes the video, two to three seconds for a scan of 133 slices. The run goes on where
    nobody waits any more, and its video is returned the next time.

    Raises:
        NotFoundError: the case has no mask by a network, or was deleted meanwhile.
        StorageError: the video can't be made, and why, or was not made in time.
    """
    run = ended(installation, queue_video(installation, view), longest_s=LONGEST_S)
    if run.failure:
        raise StorageError(f"The film can't be made: {run.failure.found}", run.failure.remedy)
    if run.state is RunState.CANCELLED:
        raise StorageError("The film was stopped.", "Ask for it again.")
    with installation.files.open(_key(run)) as stream:
        return stream.read()


def queue_video(installation: Installation, view: CaseView) -> Run:
    """Queue the making of a video; where the same one waits, is being made or was made, return the run of that.

    Raises:
        NotFoundError: the case has no mask by a network.
    """
    if view.model is None:
        raise NotFoundError("The case has no mask yet.", "Segment it first.")
    config = VideoConfig(mask=view.model.path, reference=view.reference.path if view.reference else None)
    run = replace(blank_run(RunKind.VIDEO, config), case_id=view.case.id)
    with installation.database.begin() as session:
        latest = rows.latest_run(session, view.case.id, RunKind.VIDEO)
        is_alike = latest and (latest.config, latest.code_version) == (config, run.code_version)
        if latest and is_alike and (not latest.state.is_final or installation.files.exists(_key(latest))):
            return latest
        if latest and latest.state.is_final:  # one video for each case, which can be made again
            training_rows.delete_run(session, latest.id)
            installation.files.delete(_key(latest))
        rows.insert_run(session, run)
    installation.executor.wake()
    return run


def video_at_work(installation: Installation, case_id: str) -> Run | None:
    """Return the run that makes a video of a case now; None where none does."""
    with installation.database.read() as session:
        latest = rows.latest_run(session, case_id, RunKind.VIDEO)
    return latest if latest and not latest.state.is_final else None


def _key(run: Run) -> str:
    return keys.video(run.config_as(VideoConfig).mask, run.id)
