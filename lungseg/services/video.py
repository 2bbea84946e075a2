"""A film of a case's slices with its masks, for whoever wants to show it elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from lungseg.config import CHECKOUT, Settings
from lungseg.errors import NotFoundError, StorageError
from lungseg.services.viewing import CaseView

LONGEST_S = 300.0


def film_of(settings: Settings, scene: CaseView) -> bytes:
    """Make the film of a case with its newest mask, and its reference mask where there is one, as MP4.

    The command `lungseg film` does it in a process of its own, so that volume and encoder take no memory here; it takes
    two to three seconds for a scan of 133 slices.

    Raises:
        NotFoundError: the case has no mask by a network.
        StorageError: the film can't be made, and why.
    """
    if scene.model is None:
        raise NotFoundError("The case has no mask yet.", "Segment it first.")
    reference = ("--reference", settings.home / scene.reference.path) if scene.reference else ()
    scan, mask = settings.home / scene.case.scan_path, settings.home / scene.model.path
    with TemporaryDirectory(prefix=".film-", dir=settings.home) as folder:
        film = Path(folder) / "film.mp4"
        done = _run(settings, (scan, mask, *reference, "--output", film))
        if done.returncode != 0:
            raise StorageError(f"The film can't be made: {done.stderr.strip()}", "Segment the case again, or retry.")
        return film.read_bytes()


def _run(settings: Settings, arguments: tuple[str | Path, ...]) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(
            [sys.executable, "-m", "lungseg", "film", *arguments],
            cwd=CHECKOUT,
            env=settings.to_environment(),
            capture_output=True,
            text=True,
            timeout=LONGEST_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise StorageError(
            f"The film was not done in {LONGEST_S:.0f} s.", "Try again when less is going on."
        ) from error
