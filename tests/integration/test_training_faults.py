"""Training runs that can't go well: each ends in a clear state, with its reason and with what it had reached."""

import os
import shutil
import signal
import textwrap
from dataclasses import replace

import pytest

from lungseg.config import CHECKOUT
from lungseg.db.queue import MAX_CRASHES_IN_A_ROW
from lungseg.records.run_states import RunState
from lungseg.segmentation.checkpoint import load_checkpoint
from lungseg.services import training
from lungseg.services.datasets import unregistered_store
from lungseg.services.installation import Installation
from lungseg.services.runs import get_run
from tests.narrowing import existing
from tests.runs_at_work import PATIENCE_S, child_of, epochs, state, wait_for


@pytest.fixture
def fault(tmp_path, monkeypatch):
    """Let every child process of a worker begin with some lines of Python."""

    def begin_with(lines):
        script = f"""
            import sys
            if "execute" in sys.orig_argv:
                from pathlib import Path
                exec({textwrap.dedent(lines)!r})
        """
        (tmp_path / "fault").mkdir()
        (tmp_path / "fault" / "sitecustomize.py").write_text(textwrap.dedent(script))
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "fault"), str(CHECKOUT)]))

    return begin_with


def work_off(settings, database, worker, fields):
    run = training.queue_training(Installation(settings, database), fields)
    assert worker("--once").wait(PATIENCE_S) == 0
    return get_run(Installation(settings, database), run.id)


def test_data_that_disappear_before_the_start(environment, database, fields, worker):
    run = training.queue_training(Installation(environment, database), fields)
    fields.data.rename(fields.data.with_name("elsewhere"))
    assert worker("--once").wait(PATIENCE_S) == 0
    failed = get_run(Installation(environment, database), run.id)
    assert (failed.state, existing(failed.failure).code) == (RunState.FAILED, "data.unusable")
    assert "set" in existing(failed.failure).found


def test_data_that_disappear_in_the_middle(environment, database, fields, worker):
    run = training.queue_training(Installation(environment, database), replace(fields, epochs=1000))
    worker("--once")
    wait_for(lambda: epochs(database, run))
    shutil.rmtree(unregistered_store(environment, fields.data))
    wait_for(lambda: state(database, run).is_final)
    failed = get_run(Installation(environment, database), run.id)
    assert failed.state is RunState.FAILED
    assert existing(failed.failure).code == "data.unusable"
    load_checkpoint(environment.runs / run.id / f"{failed.checkpoint}.safetensors")
    assert training.can_resume(environment, failed)


def test_loss_that_is_no_number(environment, database, fields, worker):
    failed = work_off(environment, database, worker, replace(fields, preset="diverging"))
    assert (failed.state, existing(failed.failure).code) == (RunState.FAILED, "training.diverged")
    assert "learning rate" in existing(failed.failure).remedy


def test_process_that_is_killed_again_and_again(environment, database, fields, worker, fault):
    fault("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    failed = work_off(environment, database, worker, fields)
    assert (failed.state, existing(failed.failure).code) == (RunState.FAILED, "run.worker_lost")
    assert failed.attempts == MAX_CRASHES_IN_A_ROW
    assert failed.warnings[0] == "Attempt 1 was ended by SIGKILL before the run was done."


def test_run_that_gets_on_survives_more_losses_than_one_that_does_not(environment, database, fields, worker):
    run = training.queue_training(Installation(environment, database), replace(fields, epochs=MAX_CRASHES_IN_A_ROW + 2))
    process = worker("--once")
    for lost in range(1, MAX_CRASHES_IN_A_ROW + 2):
        wait_for(lambda lost=lost: len(epochs(database, run)) >= lost)
        child_of(process).send_signal(signal.SIGKILL)
        wait_for(lambda lost=lost: get_run(Installation(environment, database), run.id).attempts > lost)
    assert process.wait(PATIENCE_S) == 0
    done = get_run(Installation(environment, database), run.id)
    assert done.state is RunState.DONE
    assert done.attempts > MAX_CRASHES_IN_A_ROW


def test_disk_that_is_full(environment, database, fields, worker, fault):
    """The disk is full from the third epoch's state on; what was there before stays."""
    fault("""
        import errno
        from lungseg.files import atomic as files
        replace, count = files.os.replace, []
        def full(source, target):
            count.append(str(target).endswith(".resume"))
            if sum(count) > 2 and count[-1]:
                raise OSError(errno.ENOSPC, "No space left on device")
            replace(source, target)
        files.os.replace = full
    """)
    failed = work_off(environment, database, worker, fields)
    assert (failed.state, existing(failed.failure).code) == (RunState.FAILED, "storage.disk_full")
    assert "resume" in existing(failed.failure).remedy
    load_checkpoint(environment.runs / failed.id / f"{failed.checkpoint}.safetensors")
    assert not list((environment.runs / failed.id).glob("*.partial")) + list((environment.runs / failed.id).glob(".*"))


def test_memory_that_runs_out_is_said_aloud(environment, database, fields, worker, fault):
    """The first passes of whole batches through the network fail as torch fails without memory."""
    fault("""
        from lungseg.training import optimisation
        loss_of = optimisation.loss_of
        def short(logits, *others, **named):
            if logits.requires_grad and len(logits) > 2:
                raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
            return loss_of(logits, *others, **named)
        optimisation.loss_of = short
    """)
    done = work_off(environment, database, worker, replace(fields, epochs=1))
    assert done.state is RunState.DONE
    assert "Memory ran out: a batch of 4 now passes through the network 2 at a time" in done.warnings[0]


def test_database_that_is_locked_for_a_while(environment, database, fields, worker):
    """An epoch that can't be written down at once is written down later, and the run goes on."""
    run = training.queue_training(Installation(environment, database), replace(fields, epochs=3))
    process = worker("--once")
    wait_for(lambda: epochs(database, run))
    with database.begin() as session:
        session.connection().exec_driver_sql("UPDATE runs SET notes = 'locked'")
        assert process.poll() is None
        wait_for(lambda: "trying again" in "\n".join(training.log_lines(environment, run.id, most=99)))
    assert process.wait(PATIENCE_S) == 0
    assert (state(database, run), len(epochs(database, run))) == (RunState.DONE, 3)
