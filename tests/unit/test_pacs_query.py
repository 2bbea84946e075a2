"""The child process that asks the PACS, and what the server makes of its end."""

import io
import subprocess
import sys

import pytest

from lungseg.decoding import decode, encode
from lungseg.errors import PacsError, PacsUnauthorisedError, PacsUnreachableError, SetupError
from lungseg.pacs.queries import PacsAnswer, PacsQuery
from lungseg.records.run_states import Failure
from lungseg.services.pacs import ask

QUERY = PacsQuery(patient_name="Doe")


def refuse(reason):
    raise AssertionError(reason)


@pytest.fixture
def child(monkeypatch):
    """Let the child process be this: what it is called with is noted, what it leaves is set."""
    calls = []

    def set_end(code=0, answer=b"", error=None):
        def run(command, **options):
            calls.append((command, options))
            if error:
                raise error
            return subprocess.CompletedProcess(command, code, answer, b"")

        monkeypatch.setattr(subprocess, "run", run)
        return calls

    return set_end


def test_no_argument_holds_a_name(installation, child):
    calls = child(answer=encode(PacsAnswer()))
    assert ask(installation, QUERY) == PacsAnswer()
    ((command, options),) = calls
    assert "Doe" not in " ".join(command)
    assert decode(PacsQuery, options["input"], refuse) == QUERY


def test_ends_of_the_child_are_named(installation, child):
    child(code=-9)
    with pytest.raises(PacsError, match="ended with code -9"):
        ask(installation, QUERY)
    child(error=subprocess.TimeoutExpired("x", 1))
    with pytest.raises(PacsUnreachableError, match="does not answer in 120 s"):
        ask(installation, QUERY)
    child(answer=b"<html>")
    with pytest.raises(PacsError, match="can't be read"):
        ask(installation, QUERY)


@pytest.mark.parametrize("kind", [PacsUnauthorisedError, SetupError, PacsError])
def test_its_error_is_that_of_the_server(installation, child, kind):
    child(answer=encode(PacsAnswer(failure=Failure.of(kind("Found.", "Do.")))))
    with pytest.raises(PacsError if kind is not SetupError else SetupError, match=r"Found\. Do\.") as caught:
        ask(installation, QUERY)
    assert type(caught.value) is kind


class Stream(io.BytesIO):
    @property
    def buffer(self):
        return self


def test_the_command_answers_with_what_is_wrong(environment, monkeypatch):
    from lungseg import processes
    from lungseg.cli.pacs_query import pacs_query

    monkeypatch.setattr(processes, "limit_resources", lambda *_: None)  # this process goes on
    for given, code in ((encode(QUERY), "setup.incomplete"), (b"{", "pacs.failed")):
        output = Stream()
        monkeypatch.setattr(sys, "stdin", Stream(given))
        monkeypatch.setattr(sys, "stdout", output)
        pacs_query()
        failure = decode(PacsAnswer, output.getvalue(), refuse).failure
        assert failure is not None
        assert failure.code == code
