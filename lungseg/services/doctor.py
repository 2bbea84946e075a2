"""What an installation has and lacks: one finding per part, each with its remedy."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

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


def check_installation(settings: Settings) -> tuple[InstallationCheck, ...]:
    """Look at every part of the installation, in the order in which they depend on each other."""
    return tuple(_examined(part, settings) for part in CHECKS)


def _examined(part: str, settings: Settings) -> InstallationCheck:
    try:
        return CHECKS[part](settings)
    except (OSError, subprocess.TimeoutExpired) as error:
        return InstallationCheck(
            part, State.MISSING, str(error), "Check that the user who runs LungSeg may read and run it."
        )
    except LungSegError as error:
        return InstallationCheck(part, State.MISSING, error.found, error.remedy)


def _python(_: Settings) -> InstallationCheck:
    found = f"{platform.python_version()} ({sys.executable})"
    if sys.version_info < OLDEST_PYTHON:
        return InstallationCheck("python", State.MISSING, found, "Install Python 3.11 or newer.")
    return InstallationCheck("python", State.OK, found)


def _packages(_: Settings) -> InstallationCheck:
    requirements = _requirements()
    wrong = [f"{need} (found: {found or 'none'})" for need in requirements if not _fits(need, found := _version(need))]
    if wrong:
        return InstallationCheck("packages", State.MISSING, ", ".join(wrong), "Run `pip install -r requirements.txt`.")
    return InstallationCheck("packages", State.OK, f"{len(requirements)} of requirements.txt installed")


def _requirements() -> list[Requirement]:
    """Return what has to be installed: what the checkout asks for, or what the installed package was built with."""
    path = CHECKOUT / "requirements.txt"
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else requires("lungseg") or []
    needs = [Requirement(line) for line in lines if line and not line.startswith("#")]
    return [need for need in needs if need.marker is None or need.marker.evaluate({"extra": ""})]


def _version(need: Requirement) -> str | None:
    try:
        return version(need.name)
    except PackageNotFoundError:
        return None


def _fits(need: Requirement, found: str | None) -> bool:
    return found is not None and need.specifier.contains(found, prereleases=True)


def _device(settings: Settings) -> InstallationCheck:
    result = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True, timeout=PROBE_S, check=False)
    if result.returncode != 0:
        reason = (result.stderr.strip().splitlines() or [f"exit code {result.returncode}"])[-1]
        remedy = "Install the shared library that it names (Debian: libgl1 and libglib2.0-0 for OpenCV)."
        return InstallationCheck("device", State.MISSING, f"The libraries can't be loaded: {reason}", remedy)
    name = decode(str, result.stdout.strip().rpartition("\n")[2], _no_answer)
    if settings.device == "cuda" and name.startswith("cpu"):
        return InstallationCheck(
            "device", State.MISSING, "LUNGSEG_DEVICE is cuda; there is none.", "Set it to auto or cpu."
        )
    return InstallationCheck("device", State.OK, name)


def _no_answer(reason: str) -> SetupError:
    return SetupError(f"The libraries give no answer ({reason}).", "Install LungSeg again: `make clean setup`.")


def _home(settings: Settings) -> InstallationCheck:
    folder = _nearest_folder(settings.home)
    if not os.access(folder, os.W_OK):
        return InstallationCheck(
            "home", State.MISSING, f"{folder} can't be written to", "Set LUNGSEG_HOME to another folder."
        )
    return InstallationCheck("home", State.OK, str(settings.home))


def _disk(settings: Settings) -> InstallationCheck:
    free_gb = shutil.disk_usage(_nearest_folder(settings.home)).free / GIGABYTE
    found = f"{free_gb:.1f} GB free"
    remedy = "Free disk space, or set LUNGSEG_HOME to a larger disk."
    if free_gb < LEAST_DISK_GB:
        return InstallationCheck("disk", State.MISSING, found, remedy)
    if free_gb < ENOUGH_DISK_GB:
        return InstallationCheck("disk", State.WARNING, found, remedy)
    return InstallationCheck("disk", State.OK, found)


def _database(settings: Settings) -> InstallationCheck:
    kind, _, place = settings.database_url.partition("://")
    if kind == "sqlite" and not Path(place.removeprefix("/")).is_file():
        return InstallationCheck("database", State.OK, "not there yet; the first start makes it")
    try:
        open_database(settings.database_url).close()
    except LungSegError as error:
        return InstallationCheck("database", State.MISSING, error.found, error.remedy)
    return InstallationCheck("database", State.OK, f"{kind}, schema up to date")


def _files(settings: Settings) -> InstallationCheck:
    """Compare the files with the database, where there is one; opening one that is missing would make it anew."""
    from lungseg.services.home import holdings  # noqa: PLC0415 - OpenCV may be what is broken

    kind, _, place = settings.database_url.partition("://")
    if kind == "sqlite" and not Path(place.removeprefix("/")).is_file():
        scans = sum(not key.endswith(keys.MANIFEST_END) for key in files_of(settings).list(keys.SCANS))
        if scans:
            found = f"{counted(scans, 'scan is', 'scans are')} here, and no database"
            return InstallationCheck("files", State.WARNING, found, "Put it back, or run `lungseg recover`.")
        return InstallationCheck("files", State.OK, "none yet")
    database = open_database(settings.database_url)
    try:
        held = holdings(Installation(settings, database))
    finally:
        database.close()
    if held.alarm:
        return InstallationCheck("files", State.WARNING, held.alarm, "Do what it says; until then nothing is removed.")
    return InstallationCheck(
        "files",
        State.OK,
        f"{counted(len(held.scans.there), 'scan')} and {counted(len(held.masks.there), 'mask')}, all known",
    )


def _checkpoint(settings: Settings) -> InstallationCheck:
    from lungseg.segmentation.card import check_pair, read_card  # noqa: PLC0415 - OpenCV may be what is broken
    from lungseg.services.in_use import weights_in_use  # noqa: PLC0415 - likewise

    try:
        weights = weights_in_use(settings)
        card = read_card(weights)
        check_pair(weights, card)
    except LungSegError as error:
        return InstallationCheck("checkpoint", State.MISSING, error.found, error.remedy)
    return InstallationCheck("checkpoint", State.OK, f"{card.name}, sha256 {card.sha256[:12]}...")


def _viewer(settings: Settings) -> InstallationCheck:
    status = viewer_bundle.status(settings)
    if status.is_ready:
        return InstallationCheck("viewer", State.OK, str(status))
    return InstallationCheck("viewer", State.WARNING, status.lack.found, status.lack.remedy)


def _demo(settings: Settings) -> InstallationCheck:
    from lungseg.services.demo import DemoFiles  # noqa: PLC0415 - OpenCV may be what is broken

    if DemoFiles.of(settings).are_there:
        return InstallationCheck("demo", State.OK, str(settings.demo))
    return InstallationCheck("demo", State.WARNING, "the demo scan is not there", "Run `lungseg demo`.")


def _worker(settings: Settings) -> InstallationCheck:
    if alive := local_executor.workers(settings):
        return InstallationCheck("worker", State.OK, f"running: {alive[0]}")
    return InstallationCheck("worker", State.OK, "not running; `lungseg serve` and the pages start it")


def _nearest_folder(path: Path) -> Path:
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


CHECKS: dict[str, Callable[[Settings], InstallationCheck]] = {
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
