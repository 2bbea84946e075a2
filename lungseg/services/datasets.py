"""Data sets: folders made known, looked through by the worker, shown with their figures and what is wrong with them."""

from __future__ import annotations

import hashlib
import logging
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

from lungseg.config import Settings
from lungseg.dataset.findings import DataSetFinding, has_errors
from lungseg.dataset.layout import DataSet, open_data_set
from lungseg.dataset.lint import lint, of_split
from lungseg.dataset.parallel import OnProgress, ShouldStop
from lungseg.dataset.split import split_cases
from lungseg.dataset.statistics import Statistics, summarise_data_set
from lungseg.dataset.store import SliceStore, is_readable_layout, is_store, prepare
from lungseg.db import datasets as rows
from lungseg.db.runs import insert_run
from lungseg.errors import DataSetError, RunCancelledError
from lungseg.files import atomic
from lungseg.records.data_sets import RegisteredDataSet
from lungseg.records.run_configs import PrepareConfig
from lungseg.records.run_results import PrepareResult
from lungseg.records.run_states import RunKind
from lungseg.records.runs import Run
from lungseg.services.installation import Installation
from lungseg.services.runs import blank_run

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Overview:
    """A data set whose store is complete.

    Attributes:
        statistics: its figures.
        findings: what is wrong with it, errors first.
        ignored: files that were passed over.
        store: folder of its slices.
        pictures: the small picture of each usable case.
        fingerprint: sha256 of its content, see `dataset.store.SliceStore`; None in a store of an older release.
    """

    statistics: Statistics
    findings: tuple[DataSetFinding, ...]
    ignored: tuple[str, ...]
    store: Path
    pictures: dict[str, Path]
    fingerprint: str | None = None

    @property
    def is_fit(self) -> bool:
        """Whether nothing stands against training."""
        return not has_errors(self.findings)


def register(installation: Installation, folder: Path, tumour_class: str | None = None) -> RegisteredDataSet:
    """Make a folder known and queue its preparation; a folder that is known already is returned as it is.

    Args:
        installation: that knows it then.
        folder: where the data set lies.
        tumour_class: name or value of the class of its masks that is tumour; None to go by the name.

    Raises:
        DataSetError: the folder may not be used, or is no data set; the latter says what it holds.
        TumourClassError: somebody has to say which class is tumour: one of its `choices`, or several with commas.
    """
    allowed = allowed_folder(installation, folder)
    if registered := find_data_set(installation, allowed):
        return choose_tumour_class(installation, registered.id, tumour_class) if tumour_class else registered
    layout = open_data_set(allowed, tumour_class)
    with installation.database.begin() as session:
        if registered := rows.find_folder(session, str(layout.root)):
            return registered
        run = _new_run(data_set_id := uuid4().hex)
        insert_run(session, run)
        data_set = RegisteredDataSet(data_set_id, layout.name, str(layout.root), datetime.now(UTC), run, tumour_class)
        rows.insert_data_set(session, data_set)
    installation.executor.wake()
    log.info("data set %s: registered, %d cases", data_set_id, len(layout.pairs))
    return data_set


def choose_tumour_class(installation: Installation, data_set_id: str, tumour_class: str | None) -> RegisteredDataSet:
    """Say which class of a data set's masks is tumour, and queue its preparation where that is another one than before.

    A preparation that goes on with the class of before stops.

    Raises:
        NotFoundError: there is no such data set.
        TumourClassError: it has no such class.
    """
    data_set = get_data_set(installation, data_set_id)
    if data_set.tumour_class == tumour_class:
        return data_set
    open_data_set(Path(data_set.folder), tumour_class)
    with installation.database.begin() as session:
        rows.set_tumour_class(session, data_set_id, tumour_class)
        if run := rows.get_data_set(session, data_set_id).run:
            rows.delete_prepare_run(session, run.id)
    refresh(installation, data_set_id)
    return get_data_set(installation, data_set_id)


def find_data_set(installation: Installation, folder: Path) -> RegisteredDataSet | None:
    """Return the data set that is registered of a folder; None where none is."""
    with installation.database.read() as session:
        return rows.find_folder(session, str(atomic.resolved(folder)))


def open_registered(installation: Installation, folder: Path, tumour_class: str | None = None) -> DataSet:
    """Open a data set folder with a tumour class, or the one that was chosen when it was registered.

    Raises:
        DataSetError: as `open_data_set`.
    """
    registered = None if tumour_class else find_data_set(installation, folder)
    return open_data_set(folder, registered.tumour_class if registered else tumour_class)


def split_findings(
    settings: Settings,
    data_set_id: str,
    *,
    folds: int | None = None,
    fold: int | None = None,
    seed: int = 0,
) -> tuple[DataSetFinding, ...]:
    """Say what is wrong with the split that a training run would make of a data set: the check of `lungseg train`.

    Empty where its store is not complete yet. Findings are `split.leak` and `split.no_tumour`, errors both.

    Raises:
        DataSetError: no such split can be made.
    """
    try:
        store = SliceStore.open(store_folder(settings, data_set_id))
    except DataSetError:
        return ()
    split = split_cases(store.cases, store.alike, folds=folds, fold=fold, seed=seed)
    return of_split(store.facts, split, store.alike)


def allowed_folder(installation: Installation, folder: Path) -> Path:
    """Resolve a folder that a page or a client names, links and all; it has to lie below `Settings.data_roots`.

    A registered one may lie anywhere. The answer to what is refused is the same whether it exists or not.

    Raises:
        DataSetError: it lies elsewhere.
    """
    try:
        resolved = folder.expanduser().resolve()
    except (OSError, RuntimeError, ValueError):  # no such user, links in a circle, a zero byte
        resolved = None
    if resolved is not None:
        roots = [root.resolve() for root in installation.settings.data_roots]
        if any(resolved.is_relative_to(root) for root in roots) or find_data_set(installation, resolved):
            return resolved
    raise DataSetError(
        "The folder is not in a place that data may come from.",
        "Give a folder below one of those that LUNGSEG_DATA names; whoever runs the server can add to them.",
    )


def list_data_sets(installation: Installation) -> tuple[RegisteredDataSet, ...]:
    """Return all data sets, by name."""
    with installation.database.read() as session:
        return rows.list_data_sets(session)


def get_data_set(installation: Installation, data_set_id: str) -> RegisteredDataSet:
    """Return a data set; raises NotFoundError where there is none of this id."""
    with installation.database.read() as session:
        return rows.get_data_set(session, data_set_id)


def refresh(installation: Installation, data_set_id: str) -> Run:
    """Queue the preparation of a data set once more; raises NotFoundError where there is no such data set."""
    with installation.database.begin() as session:
        before = rows.get_data_set(session, data_set_id).run
        if before and not before.state.is_final:
            return before
        run = _new_run(data_set_id)
        insert_run(session, run)
        rows.set_run(session, data_set_id, run.id)
        if before:
            rows.delete_prepare_run(session, before.id)
    installation.executor.wake()
    return run


def forget(installation: Installation, data_set_id: str) -> None:
    """Forget a data set and delete its store, not its own folder; raises NotFoundError where there is none.

    A worker busy with it stops soon.
    """
    with installation.database.begin() as session:
        rows.delete_data_set(session, data_set_id)
    shutil.rmtree(store_folder(installation.settings, data_set_id), ignore_errors=True)
    installation.database.scrub()
    log.info("data set %s: forgotten", data_set_id)


def data_set_overview(settings: Settings, data_set_id: str) -> Overview | None:
    """Return the figures and findings of a data set from its store; None where that is not complete."""
    folder = store_folder(settings, data_set_id)
    if not is_readable_layout(folder):
        return None
    try:
        store = SliceStore.open(folder)
    except DataSetError:
        return None
    return Overview(
        statistics=summarise_data_set(store.data_set, store.facts),
        findings=lint(store.data_set, store.facts, likenesses=store.alike),
        ignored=store.data_set.ignored,
        store=folder,
        pictures={case.case: case.picture for case in (*store.cases, *store.unlabelled)},
        fingerprint=store.fingerprint,
    )


def store_folder(settings: Settings, data_set_id: str) -> Path:
    """Name the folder of a data set's slices."""
    return settings.stores / data_set_id


def store_of(installation: Installation, folder: Path) -> Path:
    """Name the slice store of a data set folder, registered or not."""
    registered = find_data_set(installation, folder)
    return (
        store_folder(installation.settings, registered.id)
        if registered
        else unregistered_store(installation.settings, folder)
    )


def unregistered_store(settings: Settings, folder: Path) -> Path:
    """Name the slice store of a folder that is not registered: runs on the same folder share it."""
    return settings.stores / hashlib.sha256(str(atomic.resolved(folder)).encode()).hexdigest()[:32]


def prepare_store(
    installation: Installation, run: Run, *, on_progress: OnProgress, should_stop: ShouldStop
) -> PrepareResult:
    """Bring the store of a run's data set up to date; returns what the run leaves in the database.

    Raises:
        NotFoundError: the data set was forgotten.
        DataSetError: its folder can't be used.
        StorageError: there is no room for the store.
        RunCancelledError: `should_stop` said so.
    """
    data_set = get_data_set(installation, run.config_as(PrepareConfig).data_set)
    folder = store_folder(installation.settings, data_set.id)
    if is_store(folder) and not is_readable_layout(folder):
        shutil.rmtree(folder)
    try:
        layout = open_data_set(Path(data_set.folder), data_set.tumour_class)
        store = prepare(layout, folder, on_progress=on_progress, should_stop=should_stop)
    except RunCancelledError:
        registered = find_data_set(installation, Path(data_set.folder))
        if registered is None or registered.id != data_set.id:  # forgotten meanwhile
            shutil.rmtree(folder, ignore_errors=True)
        raise
    findings = lint(store.data_set, store.facts, likenesses=store.alike)
    return PrepareResult(
        cases=len(store.cases),
        unlabelled=len(store.unlabelled),
        left_out=sum(not facts.is_usable for facts in store.facts),
        errors=sum(finding.is_error for finding in findings),
        warnings=sum(not finding.is_error for finding in findings),
        fingerprint=store.fingerprint,
    )


def _new_run(data_set_id: str) -> Run:
    return blank_run(RunKind.PREPARE, PrepareConfig(data_set=data_set_id))
