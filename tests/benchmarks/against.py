"""This checkout against another one, by turns: `python -m tests.benchmarks.against ../old --rounds 7`.

Both run in the environment of this Python, with the demo scan that `lungseg setup` prepared here. In each round both do
the same in processes of their own, each with an empty home. The one that begins changes from round to round, so that
other work on the machine weighs on both. A Markdown table of medians is printed.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Annotated

import psutil
import typer

from lungseg.config import CHECKOUT, SHIPPED_CHECKPOINT, Settings
from lungseg.services.demo import DemoFiles
from tests.browser.conftest import stop, wait_until_ready
from tests.sessions import Session, rss_mb
from tests.web import free_port

IN_ONE_PROCESS = """
import importlib, json, sys, time
from pathlib import Path

def of(name, *modules):
    for module in modules:
        try:
            return getattr(importlib.import_module(module), name)
        except ModuleNotFoundError:
            continue
    raise SystemExit(f"{name} is in none of {modules}")

def seconds_of(call, *arguments):
    call(*arguments)
    began = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - began

scan, mask, checkpoint = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
read_volume = of("read_volume", "lungseg.scans.formats", "lungseg.nifti")
segment_scan = of("segment_scan", "lungseg.segmentation.pipeline", "lungseg.pipeline")
segmenter = of("Segmenter", "lungseg.segmentation.segmenter", "lungseg.inference").load(
    checkpoint, models=Path("models"), device="cpu"
)
figures = {"read the scan, s": seconds_of(read_volume, scan)}
print(json.dumps(figures | {"segment, warm, s": seconds_of(segment_scan, scan, mask, segmenter)}))
"""
"""Reads and segments a scan twice and prints how long the second time took; modules by their names, newest first."""


class Checkout:
    """A checkout and an empty home for one round of it."""

    def __init__(self, folder: Path, home: Path) -> None:
        self._folder, self._home = folder, home
        own = {name: value for name, value in os.environ.items() if not name.startswith("LUNGSEG_")}
        # Compute threads wait as commands and workers let them.
        self._environment = own | {
            "PYTHONPATH": str(folder), "LUNGSEG_HOME": str(home), "OMP_WAIT_POLICY": "passive",
        }  # fmt: skip

    def figures(self, scan: Path) -> dict[str, float]:
        """Start the web process, segment with a new process, then read and segment in a warm one."""
        mask = self._home / "mask.nii.gz"
        report, _ = self._run("-c", IN_ONE_PROCESS, scan, mask, SHIPPED_CHECKPOINT).communicate()
        warm: dict[str, float] = json.loads(report)
        return self._start() | self._segment(scan, mask) | warm

    def _start(self) -> dict[str, float]:
        port = free_port()
        began = time.perf_counter()
        with self._run("-m", "streamlit", "run", "app.py", f"--server.port={port}") as process:
            try:
                wait_until_ready(f"http://127.0.0.1:{port}")
                answers_s = time.perf_counter() - began
                Session(f"http://127.0.0.1:{port}").close()
                return {
                    "web process answers, s": answers_s,
                    "first page drawn, s": time.perf_counter() - began,
                    "web process, MB": rss_mb(psutil.Process(process.pid)),
                }
            finally:
                stop(process.pid)

    def _segment(self, scan: Path, mask: Path) -> dict[str, float]:
        began = time.perf_counter()
        process = self._run("-m", "lungseg", "segment", scan, "-o", mask, "--device", "cpu")
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"lungseg segment of {self._folder} ended with {process.returncode}")
        return {
            "lungseg segment, s": seconds,
            "lungseg segment, s of the processor": usage.ru_utime + usage.ru_stime,
            "lungseg segment, MB at most": usage.ru_maxrss / 1024,
        }

    def _run(self, *arguments: str | Path) -> subprocess.Popen[bytes]:
        """Run Python in the checkout; what it says lies in its home."""
        with (self._home / "log.txt").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, *map(str, arguments)],
                cwd=self._folder, env=self._environment, stdout=subprocess.PIPE, stderr=log,
            )  # fmt: skip


def table(old: dict[str, list[float]], new: dict[str, list[float]]) -> str:
    """Write medians and their ratios as a Markdown table."""
    lines = ["| | old | new | new / old |", "|---|---|---|---|"]
    for name, values in new.items():
        before, now = median(old[name]), median(values)
        lines.append(f"| {name} | {before:.3g} | {now:.3g} | {now / before:.2f} |")
    return "\n".join(lines)


def main(
    old: Annotated[Path, typer.Argument(help="The other checkout.", exists=True, file_okay=False, resolve_path=True)],
    rounds: Annotated[int, typer.Option(min=1)] = 7,
) -> None:
    """Compare start, memory, segmenting and reading of two checkouts."""
    scan = DemoFiles.of(Settings.from_environment()).scan
    if not scan.is_file():
        raise SystemExit("The demo scan was not prepared: run `lungseg demo`.")
    figures: dict[Path, dict[str, list[float]]] = {folder: defaultdict(list) for folder in (old, CHECKOUT)}
    for number in range(rounds):
        for folder in sorted(figures, reverse=number % 2 == 1):
            with tempfile.TemporaryDirectory() as home:
                for name, value in Checkout(folder, Path(home)).figures(scan.resolve()).items():
                    figures[folder][name].append(value)
    typer.echo(table(figures[old], figures[CHECKOUT]))


if __name__ == "__main__":
    typer.run(main)
