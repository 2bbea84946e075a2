"""Numbers and times as people read them, each with its unit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from lungseg.records.run_states import Progress, RunKind, RunState
from lungseg.records.runs import Run
from lungseg.wording import counted

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86400
WEEK_D = 7

STATE_WORDS = {
    RunState.QUEUED: "Waiting",
    RunState.RUNNING: "Running",
    RunState.DONE: "Done",
    RunState.FAILED: "Failed",
    RunState.CANCELLED: "Stopped",
}
SEGMENTATION_WORDS = {**STATE_WORDS, RunState.DONE: "Segmented", RunState.FAILED: "Segmentation failed"}


def ago(moment: datetime, *, now: datetime | None = None) -> str:
    """Say how long ago a moment was ("3 min ago"); after a week its date."""
    seconds = ((now or datetime.now(UTC)) - moment).total_seconds()
    if seconds < MINUTE_S:
        return "just now"
    if seconds < HOUR_S:
        return f"{seconds // MINUTE_S:.0f} min ago"
    if seconds < DAY_S:
        return f"{seconds // HOUR_S:.0f} h ago"
    days = int(seconds // DAY_S)
    if days < WEEK_D:
        return f"{counted(days, 'day')} ago"
    return moment.astimezone().strftime("%Y-%m-%d")


def exact(moment: datetime) -> str:
    """Write a moment to the second in the server's time zone, for the hover text of `ago`."""
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def duration(seconds: float) -> str:
    """Say how long something took or will take ("8.2 s", "2 min 05 s")."""
    if seconds < MINUTE_S:
        return f"{seconds:.1f} s" if seconds < MINUTE_S / 6 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), MINUTE_S)
    return (
        f"{minutes} min {rest:02d} s" if minutes < MINUTE_S else f"{minutes // MINUTE_S} h {minutes % MINUTE_S:02d} min"
    )


def voxels(shape: tuple[int, int, int] | None) -> str:
    """Write the shape of a scan ("512 x 512 x 133")."""
    return " × ".join(map(str, shape)) if shape else "–"


def spacing(spacing_mm: tuple[float, float, float] | None) -> str:
    """Write the voxel spacing ("0.70 x 0.70 x 2.50 mm")."""
    return " × ".join(f"{mm:.2f}" for mm in spacing_mm) + " mm" if spacing_mm else ""


def millilitres(volume_ml: float | None) -> str:
    """Write a volume; two decimals below 100 ml."""
    if volume_ml is None:
        return "–"
    return f"{volume_ml:.2f} ml" if volume_ml < 100 else f"{volume_ml:.0f} ml"  # noqa: PLR2004 - as the docstring says


def progress_text(progress: Progress | None) -> str:
    """Write the progress of a run ("segmenting, about 5 s left")."""
    if progress is None:
        return "starting"
    if progress.left_s is None:
        return progress.stage
    return f"{progress.stage}, about {duration(max(1.0, round(progress.left_s)))} left".replace(".0 s", " s")


def run_seconds(run: Run) -> float | None:
    """Return how long a run took; None where it has not ended."""
    if run.started_at is None or run.finished_at is None:
        return None
    return (run.finished_at - run.started_at).total_seconds()


@dataclass(frozen=True, slots=True)
class RunStatus:
    """The state of a run.

    Attributes:
        text: state, moment and duration as a sentence.
        exact: the moment that the text names; empty where it names none.
        share: progress, 0 to 1; None where it has ended.
    """

    text: str
    exact: str = ""
    share: float | None = None


def status_of(run: Run | None) -> RunStatus:
    """Describe the state of a run; None stands for a case without segmentation."""
    if run is None:
        return RunStatus("Not segmented yet")
    if run.state is RunState.RUNNING:
        text = "Stopping after this step" if run.stop_requested else progress_text(run.progress).capitalize()
        return RunStatus(text, share=run.progress.fraction if run.progress else 0.0)
    if run.state is RunState.QUEUED:
        return RunStatus(f"Waiting for the worker, queued {ago(run.queued_at)}", exact(run.queued_at), share=0.0)
    end, seconds = run.finished_at or run.queued_at, run_seconds(run)
    word = (SEGMENTATION_WORDS if run.kind is RunKind.SEGMENT else STATE_WORDS)[run.state]
    took = f", took {duration(seconds)}" if seconds is not None else ""
    return RunStatus(f"{word} {ago(end)}{took}", exact(end))


def person(name: str) -> str:
    """Write a name as DICOM has it ("Doe^Jane") as people do: "Doe Jane"."""
    return " ".join(name.replace("^", " ").split())


def plain(text: str) -> str:
    """Escape a user's text, so that it is not read as Markdown."""
    return "".join(f"\\{character}" if character in r"\`*_{}[]()#+-.!$:~|<>" else character for character in text)
