"""Making the video of a case as a run."""

from __future__ import annotations

from lungseg.errors import RunCancelledError
from lungseg.figures.video import Film
from lungseg.files import keys
from lungseg.jobs.context import JobContext
from lungseg.jobs.recorder import Outcome
from lungseg.records.run_configs import VideoConfig
from lungseg.records.run_states import Progress
from lungseg.scans.formats import read_mask, read_volume
from lungseg.services.cases import get_case


def job(context: JobContext) -> Outcome:
    """Draw all axial slices of the scan of a case, with the outlines of its masks, into a video.

    Raises:
        RunCancelledError: asked to stop; nothing is left.
        ScanError: scan or mask can't be read.
        StorageError: the video can't be written.
    """
    files, monitor = context.installation.files, context.monitor
    config = context.run.config_as(VideoConfig)

    def report(stage: str, done: int, total: int) -> None:
        if monitor.should_stop():
            raise RunCancelledError("The film was stopped.", "Ask for it again.")
        monitor.report(Progress(stage, done, total))

    case = get_case(context.installation, context.run.case_id or "")
    volume = read_volume(files.local(case.scan_path), on_progress=lambda done, total: report("reading", done, total))
    mask = read_mask(files.local(config.mask), volume.grid)
    reference = read_mask(files.local(config.reference), volume.grid) if config.reference else None
    path = files.local(keys.video(config.mask, context.run.id))
    path.parent.mkdir(parents=True, exist_ok=True)
    Film(volume, mask, reference).write(path, on_progress=lambda done, total: report("drawing", done, total))
    return Outcome()
