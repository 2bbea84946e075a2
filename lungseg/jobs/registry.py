"""Which job carries the runs of a kind out, whatever process they run in."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import cast

from lungseg.jobs.context import Job
from lungseg.records import RunKind

JOBS: Mapping[RunKind, str] = {
    RunKind.SEGMENT: "lungseg.jobs.segment",
    RunKind.PREPARE: "lungseg.jobs.prepare",
    RunKind.TRAIN: "lungseg.jobs.train",
    RunKind.EVALUATE: "lungseg.jobs.evaluate",
    RunKind.MEASURE: "lungseg.jobs.measure",
    RunKind.VIDEO: "lungseg.jobs.video",
}
"""The module whose `job` carries runs of a kind out: a process loads the libraries of its own kind alone."""


def job_of(kind: RunKind) -> Job:
    """Return the job of a kind."""
    return cast("Job", import_module(JOBS[kind]).job)
