"""The facts of all cases of a data set, measured in several processes; nothing is written to disk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from lungseg.dataset.fingerprint import CaseFacts, measure_case
from lungseg.dataset.layout import DataSet, open_data_set
from lungseg.dataset.likeness import Likeness
from lungseg.dataset.parallel import OnProgress, Work, map_in_processes
from lungseg.dataset.store import SliceStore, is_store
from lungseg.errors import DataSetError


def measure_cases(
    data_set: DataSet, *, workers: int | None = None, on_progress: OnProgress | None = None
) -> tuple[CaseFacts, ...]:
    """Read and measure every case, labelled ones first; the facts of a broken one say why."""
    work = Work("reading", measure_case, lambda pair, failure: CaseFacts(pair.case, pair.patient, failure))
    measured = map_in_processes(work, data_set.pairs, workers=workers, on_progress=on_progress)
    by_name = {facts.case: facts for facts in measured}
    return tuple(by_name[pair.case] for pair in data_set.pairs)


@dataclass(frozen=True, slots=True)
class Survey:
    """A data set and the facts of its cases; `likenesses` is None where they are not known yet."""

    data_set: DataSet
    facts: tuple[CaseFacts, ...]
    likenesses: tuple[Likeness, ...] | None = None


def survey(
    folder: Path, *, tumour_class: str | None = None, workers: int | None = None, on_progress: OnProgress | None = None
) -> Survey:
    """Return a data set and the facts of its cases: measured now, or those of a slice store.

    Args:
        folder: data set or slice store.
        tumour_class: the class that is tumour, see `layout.open_data_set`; a store was made with one.
        workers: processes at once, see `parallel.map_in_processes`.
        on_progress: called after each case.

    Raises:
        DataSetError: the folder is neither, or it is a store and a tumour class is given.
    """
    if is_store(folder):
        store = SliceStore.open(folder)
        if tumour_class:
            raise DataSetError("A slice store was made with its tumour class.", "Give the class to `lungseg prepare`.")
        return Survey(store.data_set, store.facts, store.alike)
    data_set = open_data_set(folder, tumour_class)
    return Survey(data_set, measure_cases(data_set, workers=workers, on_progress=on_progress))
