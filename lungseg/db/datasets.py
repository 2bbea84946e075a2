"""Registered data sets in the database."""

from __future__ import annotations

from sqlalchemy import Select, delete, select, update
from sqlalchemy.orm import Session

from lungseg.db.runs import runs_of
from lungseg.db.tables import DataSetRow, RunRow, columns_of
from lungseg.errors import NotFoundError
from lungseg.records.data_sets import RegisteredDataSet
from lungseg.records.run_states import RunKind


def insert_data_set(session: Session, data_set: RegisteredDataSet) -> None:
    """Insert a new data set; its run has to be there already."""
    columns = columns_of(data_set)
    run = columns.pop("run")
    session.add(DataSetRow(**columns, run_id=run.id if run else None))
    session.flush()


def list_data_sets(session: Session) -> tuple[RegisteredDataSet, ...]:
    """Return all data sets with their newest runs, by name."""
    rows = session.execute(_with_runs().order_by(DataSetRow.name, DataSetRow.registered_at))
    return tuple(_data_set_of(row, run) for row, run in rows)


def get_data_set(session: Session, data_set_id: str) -> RegisteredDataSet:
    """Return a data set; raises NotFoundError where there is none of this id."""
    rows = session.execute(_with_runs().where(DataSetRow.id == data_set_id)).one_or_none()
    if rows is None:
        raise NotFoundError("There is no such data set.", "It may have been removed; choose one from the list.")
    return _data_set_of(*rows)


def find_folder(session: Session, folder: str) -> RegisteredDataSet | None:
    """Return the data set of a folder; None where it is not registered."""
    rows = session.execute(_with_runs().where(DataSetRow.folder == folder)).one_or_none()
    return _data_set_of(*rows) if rows else None


def set_run(session: Session, data_set_id: str, run_id: str) -> None:
    """Note the newest run of a data set."""
    session.execute(update(DataSetRow).where(DataSetRow.id == data_set_id).values(run_id=run_id))


def set_tumour_class(session: Session, data_set_id: str, tumour_class: str | None) -> None:
    """Note which class of a data set's masks is tumour."""
    session.execute(update(DataSetRow).where(DataSetRow.id == data_set_id).values(tumour_class=tumour_class))


def delete_data_set(session: Session, data_set_id: str) -> None:
    """Delete a data set with the run that prepared it; raises as `get_data_set`."""
    data_set = get_data_set(session, data_set_id)
    session.execute(delete(DataSetRow).where(DataSetRow.id == data_set_id))
    if data_set.run:
        delete_prepare_run(session, data_set.run.id)


def delete_prepare_run(session: Session, run_id: str) -> None:
    """Delete a run that prepared a data set."""
    session.execute(delete(RunRow).where(RunRow.id == run_id, RunRow.kind == RunKind.PREPARE))


def _with_runs() -> Select[DataSetRow, RunRow]:
    return select(DataSetRow, RunRow).outerjoin(RunRow, RunRow.id == DataSetRow.run_id)


def _data_set_of(row: DataSetRow, run: RunRow | None) -> RegisteredDataSet:
    prepared_by = next(iter(runs_of([run])), None) if run else None
    return RegisteredDataSet(row.id, row.name, row.folder, row.registered_at, prepared_by, row.tumour_class)
