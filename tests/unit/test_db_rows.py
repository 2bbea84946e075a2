"""What goes into the tables comes out as the same record."""

from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy import event

from lungseg.db.cases import delete_case, get_case, insert_case, list_summaries, rename_case
from lungseg.db.masks import insert_mask, masks_of_case, next_version
from lungseg.db.runs import get_run, insert_run, latest_run
from lungseg.errors import NotFoundError, StorageError
from lungseg.records.masks import MaskKind
from lungseg.records.run_states import RunKind, RunState
from tests.rows import new_case, new_mask, new_run

START = datetime(2026, 3, 1, tzinfo=UTC)


def keep_full_case(session, minute=0, runs=2):
    """Insert a case with two predictions, a reference and some runs; returns the case and its newest run."""
    case = new_case(created_at=START + timedelta(minutes=minute))
    insert_case(session, case)
    kept = [new_run(case.id, queued_at=START + timedelta(seconds=n)) for n in range(runs)]
    for run in kept:
        insert_run(session, run)
    insert_mask(session, new_mask(case.id, run_id=kept[0].id))
    insert_mask(session, new_mask(case.id, version=2, lesions=(), volume_ml=0.0))
    insert_mask(session, new_mask(case.id, kind=MaskKind.REFERENCE, volume_ml=99.0))
    return case, kept[-1]


def test_case_run_and_mask_come_back_as_they_were(database):
    case = new_case(shape=None, spacing_mm=None, orientation=None)
    run = new_run(case.id, kind=RunKind.EVALUATE, seed=2**40)
    with database.begin() as session:
        insert_case(session, case)
        insert_run(session, run)
        insert_mask(session, mask := new_mask(case.id, run_id=run.id))
    with database.read() as session:
        assert get_case(session, case.id) == case
        assert get_run(session, run.id) == run
        assert masks_of_case(session, case.id) == (mask,)
        assert latest_run(session, case.id, RunKind.EVALUATE) == run
        assert latest_run(session, case.id, RunKind.SEGMENT) is None


def test_versions_count_within_case_and_kind(database):
    with database.begin() as session:
        first, _ = keep_full_case(session)
        second, _ = keep_full_case(session)
        insert_mask(session, new_mask(second.id, version=3))
        assert next_version(session, first.id, MaskKind.PREDICTION) == 3
        assert next_version(session, second.id, MaskKind.PREDICTION) == 4
        assert next_version(session, first.id, MaskKind.EDIT) == 1


def test_one_version_is_given_once(database):
    with database.begin() as session:
        insert_case(session, case := new_case())
        insert_mask(session, new_mask(case.id))
    with pytest.raises(StorageError, match=r"(?i)unique constraint"), database.begin() as session:
        insert_mask(session, new_mask(case.id))


def test_deleting_a_case_takes_all_that_is_its_own_and_nothing_else(database):
    with database.begin() as session:
        gone, gone_run = keep_full_case(session)
        stays, stays_run = keep_full_case(session)
        delete_case(session, gone.id)
    with database.read() as session:
        assert [summary.case.id for summary in list_summaries(session)] == [stays.id]
        assert masks_of_case(session, gone.id) == ()
        assert len(masks_of_case(session, stays.id)) == 3
        assert get_run(session, stays_run.id) == stays_run
        with pytest.raises(NotFoundError, match=gone_run.id):
            get_run(session, gone_run.id)
        tables = {name: session.connection().exec_driver_sql(f"SELECT count(*) FROM {name}").scalar_one()
                  for name in ("cases", "runs", "masks", "lesions")}  # fmt: skip
    assert tables == {"cases": 1, "runs": 2, "masks": 3, "lesions": 4}


@pytest.mark.parametrize("change", [delete_case, lambda session, case_id: rename_case(session, case_id, "x")])
def test_case_that_is_not_there_can_not_be_changed(database, change):
    with pytest.raises(NotFoundError, match="no case abc"), database.begin() as session:
        change(session, "abc")


def test_summary_tells_of_the_newest_run_and_the_newest_prediction(database):
    with database.begin() as session:
        full, newest = keep_full_case(session, minute=1)
        bare = new_case(created_at=START + timedelta(minutes=2))
        insert_case(session, bare)
        insert_run(session, new_run(full.id, kind=RunKind.EVALUATE, queued_at=START + timedelta(days=1)))
        one_mask = new_case(created_at=START)
        insert_case(session, one_mask)
        insert_mask(session, new_mask(one_mask.id))
    with database.read() as session:
        without, with_two, with_one = list_summaries(session)
    assert (without.case, without.run, without.lesions, without.volume_ml) == (bare, None, None, None)
    assert not without.has_reference
    assert (with_two.case, with_two.run) == (full, newest)
    assert (with_two.lesions, with_two.volume_ml, with_two.largest_ml) == (0, 0.0, None)
    assert with_two.has_reference
    assert (with_one.lesions, with_one.volume_ml, with_one.largest_ml) == (2, 8.75, 7.25)


def test_list_takes_as_many_queries_for_many_cases_as_for_one(database):
    def queries():
        found = []
        with database.read() as session:
            connection = session.connection()
            event.listen(connection, "after_cursor_execute", lambda *given: found.append(given[2]))
            cases = len(list_summaries(session))
        return cases, len(found)

    with database.begin() as session:
        keep_full_case(session)
    assert queries() == (1, 5)
    with database.begin() as session:
        for minute in range(30):
            keep_full_case(session, minute)
    assert queries() == (31, 5)


def test_states_are_kept_as_words(database):
    with database.begin() as session:
        insert_case(session, case := new_case())
        insert_run(session, new_run(case.id))
        assert session.connection().exec_driver_sql("SELECT state, kind FROM runs").one() == (
            RunState.QUEUED.value,
            RunKind.SEGMENT.value,
        )
