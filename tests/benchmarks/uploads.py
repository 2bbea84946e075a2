"""What uploads cost the web process: `python -m tests.benchmarks.uploads` starts a server of its own, prints figures.

Every session is a tab that stays open and uploads its files one after the other, a few tabs at a time. The files are
scans that are refused by their header: they go all the way to the disk and through the page, and 12 GB of uploads leave
nothing behind.
"""

import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import psutil
import typer

from tests.browser.conftest import serving
from tests.phantoms import write_chest
from tests.sessions import Session, peak_rss, rss_mb, web_process, write_noise

HEADER_BYTES = 352
AXES, FOURTH_AXIS = slice(40, 42), slice(48, 50)
"""Of a NIfTI-1 header."""
REFUSAL = "scan.dimensions"
QUIET_S = 3.0


@dataclass(frozen=True)
class Figures:
    """Memory of the web process in MB, and what was done meanwhile.

    Attributes:
        before: after a first small upload.
        peak: while uploads went on.
        open: after the last upload, all tabs open.
        closed: after all tabs were closed.
        seconds: from the first upload to the end of the last one.
        left: uploads that lie on the disk, all tabs open.
    """

    before: float
    peak: float
    open: float
    closed: float
    seconds: float
    left: int


def write_refused_scan(path: Path, megabytes: int) -> Path:
    """Write a scan of four axes, whose voxels can't be compressed."""
    chest = path.with_name("chest.nii")
    write_chest(chest, "RAS")
    head = bytearray(chest.read_bytes()[:HEADER_BYTES])
    chest.unlink()
    head[AXES], head[FOURTH_AXIS] = (4).to_bytes(2, "little"), (3).to_bytes(2, "little")
    return write_noise(path, megabytes, bytes(head))


def load(url: str, process: psutil.Process, home: Path, *, sessions: int, scans: list[Path], at_once: int) -> Figures:
    """Open tabs, upload the scans in each, close them; all are to be refused by the page."""

    def visit(number: int) -> Session:
        session = Session(url)
        for scan in scans:
            drop(session, f"{number}-{scan.name}", scan)
        return session

    def drop(session: Session, name: str, scan: Path) -> None:
        texts = session.drop((name, scan))
        if not any(REFUSAL in text for text in texts):
            raise RuntimeError(f"the page does not say why it refused {name}")

    first = Session(url)
    drop(first, "small.nii", write_refused_scan(home / "small.nii", 1))
    time.sleep(QUIET_S)
    before, began = rss_mb(process), time.monotonic()
    with peak_rss(process) as highest, ThreadPoolExecutor(at_once) as pool:
        opened = list(pool.map(visit, range(sessions)))
    seconds = time.monotonic() - began
    time.sleep(QUIET_S)
    held, left = rss_mb(process), len(list(home.rglob("*.upload")))
    for session in (first, *opened):
        session.close()
    time.sleep(QUIET_S)
    return Figures(before, highest[0], held, rss_mb(process), seconds, left)


def main(
    sessions: Annotated[int, typer.Option(help="Tabs.")] = 20,
    uploads: Annotated[int, typer.Option(help="Files that each tab uploads, one after the other.")] = 2,
    megabytes: Annotated[int, typer.Option(help="Size of each file.")] = 300,
    at_once: Annotated[int, typer.Option(help="Tabs that upload at the same time.")] = 4,
    rounds: Annotated[int, typer.Option(help="How often all that is done, on the same server.")] = 1,
) -> None:
    """Load a server with uploads and print what its web process held, in MB."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder, "home")
        home.mkdir()
        scan = write_refused_scan(Path(folder, "noise.nii"), megabytes)
        with serving(home, Path(folder)) as server:
            for _ in range(rounds):
                scans = [scan] * uploads
                figures = load(server.url, web_process(), home, sessions=sessions, scans=scans, at_once=at_once)
                typer.echo(f"{sessions} tabs, each {uploads} uploads of {megabytes} MB, {at_once} at once")
                _print(figures, sessions * uploads * megabytes)


def _print(figures: Figures, megabytes: int) -> None:
    typer.echo(
        f"  web process: {figures.before:.0f} MB before, {figures.peak:.0f} at most, {figures.open:.0f} after the last "
        f"upload with all tabs open, {figures.closed:.0f} after they were closed"
    )
    typer.echo(
        f"  {figures.seconds:.0f} s, {megabytes / figures.seconds:.0f} MB/s; uploads left on the disk: {figures.left}"
    )


if __name__ == "__main__":
    typer.run(main)
