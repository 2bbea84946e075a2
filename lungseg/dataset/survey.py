"""The facts of all cases of a data set, measured in several processes; nothing is kept on disk."""

from __future__ import annotations

from pathlib import Path

from lungseg.dataset.facts import CaseFacts, measure
from lungseg.dataset.layout import DataSet, open_data_set
from lungseg.dataset.parallel import OnProgress, ShouldStop, each
from lungseg.dataset.store import SliceStore, is_store


def survey(
    data_set: DataSet,
    *,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
    should_stop: ShouldStop | None = None,
) -> tuple[CaseFacts, ...]:
    """Read and measure every case, labelled ones first; a broken one is told in its facts.

    Raises:
        RunCancelledError: `should_stop` said so.
        DataSetError: memory ran out.
    """
    found = {
        facts.case: facts
        for facts in each(
            "reading", measure, data_set.pairs, workers=workers, on_progress=on_progress, should_stop=should_stop
        )
    }
    return tuple(found[pair.case] for pair in data_set.pairs)


def examine(
    folder: Path,
    *,
    workers: int | None = None,
    on_progress: OnProgress | None = None,
) -> tuple[DataSet, tuple[CaseFacts, ...]]:
    """Return a data set and the facts of its cases: measured now, or as a slice store kept them.

    Raises:
        DataSetError: the folder is neither.
    """
    if is_store(folder):
        store = SliceStore.open(folder)
        return store.data_set, store.facts
    data_set = open_data_set(folder)
    return data_set, survey(data_set, workers=workers, on_progress=on_progress)
