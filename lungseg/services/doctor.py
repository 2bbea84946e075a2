"""What an installation has and lacks: one finding per part, each with its remedy."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path
from typing import TypeAlias

from packaging.requirements import Requirement

from lungseg.config import CHECKOUT, GIGABYTE, Settings
from lungseg.db import open_database
from lungseg.decoding import decode
from lungseg.errors import LungSegError, SetupError
from lungseg.files import keys
from lungseg.services import local_executor, viewer_bundle
from lungseg.services.file_store import files_of
from lungseg.services.installation import Installation
from lungseg.wording import counted

OLDEST_PYTHON = (3, 11)
ENOUGH_DISK_GB = 5.0
LEAST_DISK_GB = 1.0
PROBE_S = 120
PROBE = """
import json
import cv2, isal, nibabel, streamlit, torch
cuda = torch.cuda.is_available()
print(json.dumps(torch.cuda.get_device_name() if cuda else f"cpu, {torch.get_num_threads()} threads"))
"""
"""Run in a process of its own: this side never imports torch, and a broken library must not end the examination."""


class State(StrEnum):
    """How a part stands."""

    OK = "ok"
    WARNING = "warning"
    MISSING = "missing"


@dataclass(frozen=True, slots=True)
class InstallationCheck:
    """What was found of one part of the installation.

    Attributes:
        part: its name.
        state: MISSING where the product can't work without it, WARNING where it works with less.
        found: what is there.
        remedy: what to do; empty where nothing is to be done.
    """

    part: str
    state: State
    found: str
    remedy: str = ""


Outcome: TypeAlias = tuple[State, str] | tuple[State, str, str]
"""State, what is there, and what to do."""


def check_installation(settings: Settings) -> tuple[InstallationCheck, ...]:
    """Look at every part of the installation, in the order in which they depend on each other."""
    return tuple(check_part(part, settings) for part in CHECKS)


def check_part(part: str, settings: Settings) -> InstallationCheck:
    """Look at one part of the installation."""
    try:
        return InstallationCheck(part, *CHECKS[part](settings))
    except (OSError, subprocess.TimeoutExpired) as error:
        remedy = "Check that the user who runs LungSeg may read and run it."
        return InstallationCheck(part, State.MISSING, str(error), remedy)
    except LungSegError as error:
        return InstallationCheck(part, State.MISSING, error.found, error.remedy)


def _python(_: Settings) -> Outcome:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < OLDEST_PYTHON:
        return State.MISSING, found, "Install Python 3.11 or newer."
    return State.OK, found


def _packages(_: Settings) -> Outcome:
    requirements = _requirements()
    wrong = []
    for need in requirements:
        try:
            installed = version(need.name)
        except PackageNotFoundError:
            installed = ""
        if not installed or not need.specifier.contains(installed, prereleases=True):
            wrong.append(f"{need} (found: {installed or 'none'})")
    if wrong:
        return State.MISSING, ", ".join(wrong), "Run `pip install -r requirements.txt`."
    return State.OK, f"{len(requirements)} of requirements.txt installed"


def _requirements() -> list[Requirement]:
    """Return what has to be installed: what the checkout asks for, or what the installed package was built with."""
    path = CHECKOUT / "requirements.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else requires("lungseg") or []
    needs = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]


def _device(settings: Settings) -> Outcome:
    result = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=PROBE_S, check=False)
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        remedy = "Install the shared library that it names (Debian: libgl1 and libglib2.0-0 for OpenCV)."
        return State.MISSING, f"The libraries can't be loaded: {reason}", remedy
    name = decode(str, result.stdout.strip().rpartition("\n")[2], _no_answer)
    if settings.device == "cuda" and name.startswith("cpu"):
        return State.MISSING, "LUNGSEG_DEVICE is cuda; there is none.", "Set it to auto or cpu."
    return State.OK, name


def _no_answer(reason: str) -> SetupError:
    return SetupError(f"The libraries give no answer ({reason}).", "Install LungSeg again: `make clean setup`.")


def _home(settings: Settings) -> Outcome:
    folder = _nearest_folder(settings.home)
    if not os.access(folder, os.W_OK):
        return State.MISSING, f"{folder} can't be written to", "Set LUNGSEG_HOME to another folder."
    return State.OK, str(settings.home)


def _disk(settings: Settings) -> Outcome:
    free_gb = shutil.disk_usage(_nearest_folder(settings.home)).free / GIGABYTE
    found = f"{free_gb:.1f} GB free"
    remedy = "Free disk space, or set LUNGSEG_HOME to a larger disk."
    if free_gb < LEAST_DISK_GB:
        return State.MISSING, found, remedy
    return (State.WARNING, found, remedy) if free_gb < ENOUGH_DISK_GB else (State.OK, found)


def _database(settings: Settings) -> Outcome:
    if _lacks_database(settings):
        return State.OK, "not there yet; the first start makes it"
    open_database(settings.database_url).close()
    return State.OK, f"{settings.database_url.partition('://')[0]}, schema up to date"


def _lacks_database(settings: Settings) -> bool:
    """Tell whether the file of the database is missing: opening it would make it anew."""
    kind, _, place = settings.database_url.partition("://")
    return kind == "sqlite" and not Path(place.removeprefix("/")).is_file()


def _files(settings: Settings) -> Outcome:
    """Compare the files with the database, where there is one."""
    from lungseg.services.home import holdings  # noqa: PLC0415 - OpenCV may be what is broken

    if _lacks_database(settings):
        scans = sum(not key.endswith(keys.MANIFEST_END) for key in files_of(settings).list(keys.SCANS))
        if scans:
            found = f"{counted(scans, 'scan is', 'scans are')} here, and no database"
            return State.WARNING, found, "Put it back, or run `lungseg recover`."
        return State.OK, "none yet"
    with closing(open_database(settings.database_url)) as database:
        comparison = holdings(Installation(settings, database))
    if comparison.alarm:
        return State.WARNING, comparison.alarm, "Do what it says; until then nothing is removed."
    scans, masks = len(comparison.scans.with_file), len(comparison.masks.with_file)
    return State.OK, f"{counted(scans, 'scan')} and {counted(masks, 'mask')}, all known"


def _checkpoint(settings: Settings) -> Outcome:
    from lungseg.segmentation.card import check_pair, read_card  # noqa: PLC0415 - OpenCV may be what is broken
    from lungseg.services.in_use import weights_in_use  # noqa: PLC0415 - likewise

    weights = weights_in_use(settings)
    card = read_card(weights)
    check_pair(weights, card)
    return State.OK, f"{card.name}, sha256 {card.sha256[:12]}..."


def _viewer(settings: Settings) -> Outcome:
    status = viewer_bundle.status(settings)
    return (State.OK, str(status)) if status.is_ready else (State.WARNING, status.lack.found, status.lack.remedy)


def _demo(settings: Settings) -> Outcome:
    from lungseg.services.demo import DemoFiles  # noqa: PLC0415 - OpenCV may be what is broken

    if DemoFiles.of(settings).are_there:
        return State.OK, str(settings.demo)
    return State.WARNING, "the demo scan is not there", "Run `lungseg demo`."


def _worker(settings: Settings) -> Outcome:
    workers = local_executor.workers(settings)
    return State.OK, f"running: {workers[0]}" if workers else "not running; `lungseg serve` and the pages start it"


def _nearest_folder(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


CHECKS: dict[str, Callable[[Settings], Outcome]] = {
    "python": _python,
    "packages": _packages,
    "device": _device,
    "home": _home,
    "disk": _disk,
    "database": _database,
    "files": _files,
    "checkpoint": _checkpoint,
    "viewer": _viewer,
    "demo": _demo,
    "worker": _worker,
}
