"""The process that watches: it starts the other one, ends it where it hangs, and counts what came of each input."""

import json
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from lungseg.config import CHECKOUT

HANGS_S = 20.0
STARTS_S = 180.0
"""How long the other process may take to make its good files."""
MOST_SAID = 3000
FAILURES = ("traceback", "wrong voxels", "hang", "death", "no start")


@dataclass(frozen=True)
class Result:
    """What came of one input.

    Attributes:
        number: of the input.
        kind: of file.
        outcome: `accepted`, a code of ours, or one of FAILURES.
        text: how it failed.
        seconds: it took.
        megabytes: highest memory meanwhile, beyond what the process had after reading all good files.
    """

    number: int
    kind: str
    outcome: str
    text: str = ""
    seconds: float = 0.0
    megabytes: float = 0.0

    @property
    def is_failure(self):
        return self.outcome in FAILURES

    def told(self, seed, kinds):
        """Say what failed, and how to do it again."""
        chosen = "".join(f" --kind '{kind}'" for kind in kinds)
        again = f"python -m tests.fuzz --seed {seed} --only {self.number}{chosen}"
        return f"FAILED: {self.kind}, {self.outcome} [{again}]\n{self.text}"


@dataclass
class _Row:
    inputs: int = 0
    seconds: float = 0.0
    longest_s: float = 0.0
    megabytes: float = 0.0
    outcomes: Counter[str] = field(default_factory=Counter)


class Tally:
    """What came of all inputs, by kind."""

    def __init__(self):
        self._rows = defaultdict(_Row)
        self.failures = 0

    def add(self, result):
        row = self._rows[result.kind]
        row.inputs += 1
        row.seconds += result.seconds
        row.longest_s = max(row.longest_s, result.seconds)
        row.megabytes = max(row.megabytes, result.megabytes)
        row.outcomes[result.outcome] += 1
        self.failures += result.is_failure

    def table(self):
        """Lay the counts out as text, a line for each kind."""
        head = ("kind", "inputs", "accepted", "refused", *FAILURES[:4], "MB", "s", "longest s", "codes")
        lines = [head, *(self._line(kind, row) for kind, row in self._rows.items())]
        total = _Row()
        for row in self._rows.values():
            total.inputs, total.seconds = total.inputs + row.inputs, total.seconds + row.seconds
            total.longest_s, total.megabytes = max(total.longest_s, row.longest_s), max(total.megabytes, row.megabytes)
            total.outcomes.update(row.outcomes)
        lines.append(self._line("all", total))
        widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
        return "\n".join(
            "  ".join(cell.ljust(width) for cell, width in zip(line, [*widths, 0], strict=True)) for line in lines
        )

    @staticmethod
    def _line(kind, row):
        codes = {
            name: count for name, count in row.outcomes.most_common() if name != "accepted" and name not in FAILURES
        }
        return (
            kind, str(row.inputs), str(row.outcomes["accepted"]), str(sum(codes.values())),
            *(str(row.outcomes[name]) for name in FAILURES[:4]),
            f"{row.megabytes:.0f}", f"{row.seconds:.1f}", f"{row.longest_s:.2f}",
            ", ".join(f"{name} {count}" for name, count in codes.items()),
        )  # fmt: skip


def watch(seed, first, last, kinds=()):
    """Yield the result of each input; after a hang or a death another process goes on with the next one."""
    while first < last:
        for result in _watch_one(seed, first, last, kinds):
            yield result
            first = result.number + 1
            if result.outcome == "no start":
                return


def _watch_one(seed, first, last, kinds):
    """Yield results until the process has done all, hangs or dies."""
    command = [sys.executable, "-m", "tests.fuzz", "--seed", str(seed), "--child", str(first), "--count", str(last)]
    command += [part for kind in kinds for part in ("--kind", kind)]
    begun: dict[str, Any] | None = {"number": first, "kind": "start"}
    with (
        tempfile.TemporaryFile() as errors,
        subprocess.Popen(command, cwd=CHECKOUT, stdout=subprocess.PIPE, stderr=errors) as process,
    ):
        lines, patience_s = _Lines(process.stdout), STARTS_S
        while (line := lines.next(patience_s)) is not None:
            if not line:
                break
            patience_s, record = HANGS_S, json.loads(line)
            if "outcome" in record:
                yield Result(**record)
                begun = None
            else:
                begun = record
        is_hanging = line is None
        process.kill()
        code = process.wait()
        errors.seek(0)
        said = errors.read().decode(errors="replace")[-MOST_SAID:]
    if begun is not None:
        how = "hang" if is_hanging else "death"
        outcome = "no start" if begun["kind"] == "start" else how
        yield Result(begun["number"], begun["kind"], outcome, f"exit code {code}\n{said}")


class _Lines:
    """Lines of a stream, each waited for no longer than a time."""

    def __init__(self, stream):
        self._stream = stream
        self._selector = selectors.DefaultSelector()
        self._selector.register(stream, selectors.EVENT_READ)
        self._buffer = ""

    def next(self, patience_s):
        """Return the next line, "" at the end, None where none comes in time."""
        deadline = time.monotonic() + patience_s
        while "\n" not in self._buffer:
            if not self._selector.select(max(0.0, deadline - time.monotonic())):
                return None
            block = self._stream.read1(65_536).decode(errors="replace")
            if not block:
                return ""
            self._buffer += block
        line, _, self._buffer = self._buffer.partition("\n")
        return line
