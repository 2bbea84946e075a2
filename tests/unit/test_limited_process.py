"""A process that handles files of strangers: memory and processor time end in an error, never with the machine."""

import resource
import signal
import subprocess
import sys
import textwrap

import pytest

from lungseg.config import CHECKOUT
from lungseg.errors import WorkTimeError
from lungseg.processes import limit_resources, without_library

BEGIN = """
import resource, signal, sys
from lungseg.errors import LungSegError
from lungseg.failures import failure_of
from lungseg import processes
processes.CPU_GRACE_S = 1
processes.limit_resources(300 * 1024**2, 1)
try:
"""
END = """
except Exception as error:
    print(failure_of(error).code)
"""


def outcome_of(body):
    code = BEGIN + textwrap.indent(textwrap.dedent(body), "    ") + END
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False, timeout=60)


@pytest.mark.skipif(sys.platform != "linux", reason="macOS takes no limit of memory")
def test_memory_ends_in_a_reason():
    done = outcome_of("held = [bytearray(100 * 1024**2) for _ in range(4)]")
    assert (done.stdout.strip(), done.returncode) == ("run.out_of_memory", 0), done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="macOS takes no limit of memory")
def test_what_was_loaded_before_does_not_count():
    done = outcome_of("held = bytearray(250 * 1024**2); print('enough')")
    assert done.stdout.strip() == "enough", done.stderr


def test_processor_time_ends_in_a_reason():
    done = outcome_of("while True: sum(range(1000))")
    assert (done.stdout.strip(), done.returncode) == ("run.cpu_time", 0), done.stderr


def test_code_that_does_not_listen_is_killed():
    done = outcome_of("signal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass")
    assert done.returncode == -9


def test_crash_leaves_no_core():
    done = outcome_of("print(resource.getrlimit(resource.RLIMIT_CORE))")
    assert done.stdout.strip() == "(0, 0)", done.stderr


def test_limit_that_holds_already_is_not_raised():
    done = outcome_of("processes.limit_resources(2**60, 10**6)\nprint(resource.getrlimit(resource.RLIMIT_CPU)[1] < 99)")
    assert done.stdout.strip() == "True", done.stderr


def test_system_that_takes_no_limit_of_memory_gets_the_others(monkeypatch):
    limits = {}

    def note(kind, values):
        if kind == resource.RLIMIT_AS:
            raise ValueError("macOS")
        limits[kind] = values

    monkeypatch.setattr(resource, "setrlimit", note)
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (50, 50 if kind == resource.RLIMIT_CPU else -1))
    before = signal.getsignal(signal.SIGXCPU)
    try:
        limit_resources(10**6, 10**6)
        with pytest.raises(WorkTimeError, match="more than 1,000,000 s"):
            signal.raise_signal(signal.SIGXCPU)
    finally:
        signal.signal(signal.SIGXCPU, before)
    assert limits == {resource.RLIMIT_CORE: (0, 0), resource.RLIMIT_CPU: (50, 50)}


def test_library_is_hidden_within_the_block_alone():
    sys.modules.pop("this", None)
    with without_library("this"), pytest.raises(ImportError):
        __import__("this")
    assert "this" not in sys.modules
    with without_library("json"):
        import json
    assert json is sys.modules["json"]
