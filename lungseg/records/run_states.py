"""Which kinds of run there are, and where a run stands."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from lungseg.decoding import Finite, Natural
from lungseg.errors import LungSegError


class RunKind(StrEnum):
    """What a run does."""

    SEGMENT = "SEGMENT"
    TRAIN = "TRAIN"
    EVALUATE = "EVALUATE"
    PREPARE = "PREPARE"
    MEASURE = "MEASURE"
    VIDEO = "VIDEO"
    INTAKE = "INTAKE"
    EXPORT = "EXPORT"


RESUMABLE_KINDS = frozenset({RunKind.TRAIN, RunKind.EVALUATE})
"""Kinds that go on where they were; what they leave in their folder is worth keeping."""


class RunState(StrEnum):
    """Where a run stands; DONE, FAILED and CANCELLED are final, except for a training run that is resumed."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_final(self) -> bool:
        """Whether a run in this state never changes again."""
        return self in {RunState.DONE, RunState.FAILED, RunState.CANCELLED}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come.

    Attributes:
        stage: what is being done ("reading", "segmenting", "writing").
        done: steps done in this stage.
        total: steps of this stage; 0 where it can't be known.
        left_s: estimated seconds left of the whole run; None where it can't be told yet.
    """

    stage: str
    done: Natural = 0
    total: Natural = 0
    left_s: Finite | None = None

    @property
    def fraction(self) -> float:
        """Share of the stage that is done, 0 to 1."""
        return min(1.0, self.done / self.total) if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run failed: the stable code of the error, what was found, what to do."""

    code: str
    found: str
    remedy: str

    @classmethod
    def of(cls, error: LungSegError) -> Failure:
        """Take the three from an error."""
        return cls(error.code, error.found, error.remedy)
