"""The facts of all cases of a data set, measured in several processes; nothing is kept on disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lungseg.dataset.fingerprint import CaseFacts, measure_case
from lungseg.dataset.layout import DataSet, open_data_set
from lungseg.dataset.likeness import Likeness
from lungseg.dataset.parallel import OnProgress, ShouldStop, Work, map_in_processes
from lungseg.dataset.store import SliceStore, is_store
from lungseg.errors import DataSetError


def measure_cases(
    data_set: DataSet,
    *,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> tuple[CaseFacts, ...]:
    """Read and measure every case, labelled ones first; a broken one is told in its facts.

    Raises:
        RunCancelledError: `should_stop` said so.
    """
    measured = map_in_processes(
        Work("reading", measure_case, lambda pair, failure: CaseFacts(pair.case, pair.patient, failure)),
        data_set.pairs,
        workers=workers,
        on_progress=on_progress,
        should_stop=should_stop,
    )
    found = {facts.case: facts for facts in measured}
    return tuple(found[pair.case] for pair in data_set.pairs)


@dataclass(frozen=True, slots=True)
class Survey:
    """A data set and what was measured of it.

    Attributes:
        data_set: what lies in the folder.
        facts: of its cases.
        likenesses: cases that show one examination; None where nobody has looked for them yet.
    """

    data_set: DataSet
    facts: tuple[CaseFacts, ...]
    likenesses: tuple[Likeness, ...] | None = None


def survey(
    folder: Path,
    *,
    tumour_class: str | None = None,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> Survey:
    """Return a data set and the facts of its cases: measured now, or as a slice store kept them.

    Args:
        folder: data set or slice store.
        tumour_class: the class that is tumour, see `layout.open_data_set`; a store was made with one.
        workers: processes at once, see `parallel.map_in_processes`.
        on_progress: told of each case that is done.

    Raises:
        DataSetError: the folder is neither, or a store made with another tumour class.
    """
    if is_store(folder):
        store = SliceStore.open(folder)
        if tumour_class:
            raise DataSetError("A slice store was made with its tumour class.", "Give the class to `lungseg prepare`.")
        return Survey(store.data_set, store.facts, store.alike)
    data_set = open_data_set(folder, tumour_class)
    return Survey(data_set, measure_cases(data_set, workers=workers, on_progress=on_progress))
