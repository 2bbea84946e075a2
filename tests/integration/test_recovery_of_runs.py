"""A lost database costs no training run: its folder says what it was, and it can be compared or go on."""

from contextlib import closing
from dataclasses import replace

import pytest

from lungseg.db import open_database
from lungseg.records.run_states import RunState
from lungseg.services import manifests, recovery, training
from lungseg.services.installation import Installation
from lungseg.services.runs import get_run
from tests.installations import remove_database
from tests.runs_at_work import PATIENCE_S, child_of, epochs, scores, wait_for


@pytest.mark.parametrize("is_damaged", [False, True])
def test_training_run_comes_back_with_its_epochs_and_scores(environment, database, fields, worker, is_damaged):
    run = training.queue_training(Installation(environment, database), fields)
    assert worker("--once").wait(PATIENCE_S) == 0
    before = get_run(Installation(environment, database), run.id), epochs(database, run), scores(database, run)
    assert before[0].state is RunState.DONE
    if is_damaged:
        manifests.run_manifest(environment, run.id).write_bytes(b'{"run": 3}')
    database.close()
    remove_database(environment)
    with closing(open_database(environment.database_url)) as fresh:
        found = recovery.recover(Installation(environment, fresh))
        if is_damaged:
            assert (found.runs, [file for file, _ in found.refused]) == (0, [f"runs/{run.id}"])
        else:
            assert (found.runs, found.refused) == (1, [])
            assert (get_run(Installation(environment, fresh), run.id), epochs(fresh, run), scores(fresh, run)) == before


def test_run_that_went_on_when_the_database_was_lost_can_be_resumed(environment, database, fields, worker):
    run = training.queue_training(Installation(environment, database), replace(fields, epochs=30))
    process = worker()
    wait_for(lambda: manifests.run_manifest(environment, run.id).is_file() and child_of(process))
    process.kill()
    process.wait()
    kept = manifests.read_manifest(manifests.RunManifest, manifests.run_manifest(environment, run.id))
    assert kept.epochs
    database.close()
    remove_database(environment)
    with closing(open_database(environment.database_url)) as fresh:
        assert recovery.recover(Installation(environment, fresh)).runs == 1
        assert get_run(Installation(environment, fresh), run.id).state is RunState.CANCELLED
        assert training.can_resume(environment, get_run(Installation(environment, fresh), run.id))
        assert len(epochs(fresh, run)) >= len(kept.epochs)
