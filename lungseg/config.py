"""Settings of one installation: where things are kept, limits, addresses; the one reader of the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

import psutil

from lungseg.errors import SetupError

CHECKOUT = Path(__file__).resolve().parents[1]
"""The folder that holds `app.py`, `pages/` and `models/`."""

GIGABYTE = 1024**3

LIFELINE = "LIFELINE_OF_LUNGSEG"
"""Variable that `lungseg serve` sets for the processes that it starts; nobody else sets it."""

SHIPPED_CHECKPOINT = "lungseg-3"
"""The checkpoint in `models/` that segments where nobody names another."""

HOST_NAME = re.compile(r"[A-Za-z0-9._-]+|(\[)?[0-9A-Fa-f]*(:[0-9A-Fa-f]*){2,7}(?(1)\])")
"""A host name or an IP address, without scheme, port or wildcard."""

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
"""Where a network runs; `auto` is CUDA where there is one."""


def _own_folder() -> tuple[Path, ...]:
    """Return the home folder of the user; none where there is none, or where that would be the whole disk."""
    try:
        folder = Path.home().resolve()
    except RuntimeError:
        return ()
    return () if folder == Path(folder.anchor) else (folder,)


CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def total_memory() -> int:
    """Return the memory of this machine in bytes, or what the control groups of this process leave it of that."""
    return min([psutil.virtual_memory().total, *(limit for _, limit in _memory_limits())])


def free_memory() -> int:
    """Return the memory in bytes that this process can still take without swapping, files in the cache not counted."""
    rooms = (limit - _used(group) for group, limit in _memory_limits())
    return max(0, min([psutil.virtual_memory().available, *rooms]))


def _largest_volume() -> int:
    return min(2 * GIGABYTE, total_memory() // 4)


def _most_memory() -> int:
    return min(5 * GIGABYTE, total_memory() // 2)


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that a scan must keep, checked before memory is allocated.

    Two of them follow the machine, so that one with 8 GB survives any file; a container counts with its own limit.

    Attributes:
        file_bytes: size of the file on disk.
        volume_bytes: size of the volume in memory, int16 whatever the file stores: 2 bytes a voxel. By default 2 GiB,
            or a quarter of the machine's memory where that is less.
        memory_bytes: what reading, segmenting and measuring it take at their peak, beside the network. By default
            5 GiB, or half of the machine's memory.
        axis_voxels: length of any one axis.
    """

    file_bytes: int = 2 * GIGABYTE
    volume_bytes: int = field(default_factory=_largest_volume)
    memory_bytes: int = field(default_factory=_most_memory)
    axis_voxels: int = 4096


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one installation; every path that the product writes to lies under `home`.

    Attributes:
        home: folder of database, scans, masks and logs (`LUNGSEG_HOME`, default `data/` in the checkout).
        models: folder of the shipped checkpoints (`LUNGSEG_MODELS`).
        database_url: SQLAlchemy URL (`LUNGSEG_DATABASE_URL`, default SQLite under `home`).
        host: address the server binds to (`LUNGSEG_HOST`).
        port: port the server binds to (`LUNGSEG_PORT`).
        device: `auto`, `cpu` or `cuda` (`LUNGSEG_DEVICE`).
        allow_unauthenticated: whether the server may listen beyond this machine though nobody has to log in
            (`LUNGSEG_ALLOW_UNAUTHENTICATED=1`).
        allowed_hosts: names under which browsers may reach the server, beside the address that it binds to and those of
            this machine (`LUNGSEG_ALLOWED_HOSTS`, separated by commas).
        viewer_folder: where the browser bundle lies if not under `home` (`LUNGSEG_VIEWER`).
        checkpoint: name in `models` or path of the checkpoint used where none is asked for (`LUNGSEG_CHECKPOINT`); None
            for the one that was promoted last, at first the shipped one: see `services.in_use`.
        data_roots: folders below which pages may name folders of data (`LUNGSEG_DATA`, several with the separator of
            `PATH` between them; default the home folder of the user who runs the server). Commands are not bound by it.
        limits: bounds on what is read.
    """

    home: Path
    models: Path
    database_url: str
    host: str = "127.0.0.1"
    port: int = 8501
    device: Device = "auto"
    allow_unauthenticated: bool = False
    allowed_hosts: tuple[str, ...] = ()
    viewer_folder: Path | None = None
    checkpoint: str | None = None
    data_roots: tuple[Path, ...] = field(default_factory=_own_folder)
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Refuse values that would only fail later.

        Raises:
            SetupError: port, device or the name of a host is not one that can be used.
        """
        highest_port = 65535
        if not 1 <= self.port <= highest_port:
            raise SetupError(f"LUNGSEG_PORT is {self.port}.", f"Set it to a number from 1 to {highest_port}.")
        if self.device not in get_args(Device):
            raise SetupError(f"LUNGSEG_DEVICE is {self.device!r}.", "Set it to auto, cpu or cuda.")
        for name in self.allowed_hosts:
            if not HOST_NAME.fullmatch(name):
                raise SetupError(
                    f"LUNGSEG_ALLOWED_HOSTS has {name!r}.",
                    "Name each host as in a browser's address bar, without https:// and port: scans.example.org.",
                )

    @classmethod
    def from_environment(cls) -> Settings:
        """Read `LUNGSEG_*` variables; what is not set takes its default.

        Raises:
            SetupError: a variable holds a value that can't be used.
        """
        home = _folder("LUNGSEG_HOME") or CHECKOUT / "data"
        port = os.environ.get("LUNGSEG_PORT") or "8501"
        if not port.isdecimal():
            raise SetupError(f"LUNGSEG_PORT is {port!r}.", "Set it to a number from 1 to 65535.")
        return cls(
            home=home,
            models=_folder("LUNGSEG_MODELS") or CHECKOUT / "models",
            database_url=os.environ.get("LUNGSEG_DATABASE_URL") or f"sqlite:///{home / 'lungseg.sqlite'}",
            host=os.environ.get("LUNGSEG_HOST") or "127.0.0.1",
            port=int(port),
            device=cast("Device", os.environ.get("LUNGSEG_DEVICE") or "auto"),
            allow_unauthenticated=os.environ.get("LUNGSEG_ALLOW_UNAUTHENTICATED") == "1",
            allowed_hosts=_names("LUNGSEG_ALLOWED_HOSTS"),
            viewer_folder=_folder("LUNGSEG_VIEWER"),
            checkpoint=os.environ.get("LUNGSEG_CHECKPOINT") or None,
            data_roots=_folders("LUNGSEG_DATA") or _own_folder(),
        )

    def to_environment(self) -> dict[str, str]:
        """Return this process's environment with `LUNGSEG_*` set so that a child process reads these settings."""
        ours = {
            "LUNGSEG_HOME": str(self.home),
            "LUNGSEG_MODELS": str(self.models),
            "LUNGSEG_DATABASE_URL": self.database_url,
            "LUNGSEG_HOST": self.host,
            "LUNGSEG_PORT": str(self.port),
            "LUNGSEG_DEVICE": self.device,
            "LUNGSEG_ALLOW_UNAUTHENTICATED": "1" if self.allow_unauthenticated else "",
            "LUNGSEG_ALLOWED_HOSTS": ",".join(self.allowed_hosts),
            "LUNGSEG_VIEWER": str(self.viewer),
            "LUNGSEG_CHECKPOINT": self.checkpoint or "",
            "LUNGSEG_DATA": os.pathsep.join(map(str, self.data_roots)),
        }
        return {**os.environ, **ours}

    @property
    def incoming(self) -> Path:
        """Folder of what is not complete yet, or not owned by a record yet: uploads, masks of runs that go on."""
        return self.home / "incoming"

    @property
    def trash(self) -> Path:
        """Folder of what the sweep took out of use, by the day on which it did."""
        return self.home / "trash"

    @property
    def scans(self) -> Path:
        """Folder of ingested scans, named by case id."""
        return self.home / "scans"

    @property
    def masks(self) -> Path:
        """Folder of masks, named by mask id."""
        return self.home / "masks"

    @property
    def probabilities(self) -> Path:
        """Folder of probability maps, named by the id of the mask that was made of them."""
        return self.home / "probabilities"

    @property
    def derived(self) -> Path:
        """Folder of masks at other thresholds, named by mask id and threshold; they can be derived again."""
        return self.home / "derived"

    @property
    def thumbnails(self) -> Path:
        """Folder of small pictures of cases, named by case id."""
        return self.home / "thumbnails"

    @property
    def stores(self) -> Path:
        """Folder of slice stores, named by data set id."""
        return self.home / "stores"

    @property
    def runs(self) -> Path:
        """Folder of what runs leave behind (checkpoints, logs), named by run id."""
        return self.home / "runs"

    @property
    def logs(self) -> Path:
        """Folder of log files."""
        return self.home / "logs"

    @property
    def demo(self) -> Path:
        """Folder of the demo scan and its reference mask."""
        return self.home / "demo"

    @property
    def viewer(self) -> Path:
        """Folder of the browser bundle that `lungseg setup` installs."""
        return self.viewer_folder or self.home / "viewer"


def lifeline_number() -> int | None:
    """Return the number of the file descriptor that `lungseg.processes` hands on; None where there is none."""
    number = os.environ.get(LIFELINE, "")
    return int(number) if number.isdecimal() else None


def share_processors() -> None:
    """Let compute threads that wait for each other sleep, not spin; to be called before torch is imported.

    On a busy machine spinning threads take the processor from those they wait for: beside a training run on two cores
    one scan took 7 to 35 s with spinning and 2 s without. A setting of the user's own stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def _folders(variable: str) -> tuple[Path, ...]:
    values = os.environ.get(variable, "").split(os.pathsep)
    return tuple(Path(value).expanduser().resolve() for value in values if value.strip())


def _folder(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser().resolve() if value else None


def _names(variable: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in os.environ.get(variable, "").split(",") if name.strip())


def _memory_limits() -> Iterator[tuple[Path, int]]:
    """Yield the control groups of this process that limit its memory, version 2 and 1, with their limits in bytes."""
    for group in _groups():
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _number(group / name)
            if limit is not None:
                yield group, limit


def _groups() -> Iterator[Path]:
    """Yield the folders of the control groups that hold this process, up to the root, whether they are there or not."""
    for line in _lines(OWN_GROUPS):
        _, controllers, name = line.split(":", 2)
        if not controllers or "memory" in controllers.split(","):
            root = CONTROL_GROUPS / "memory" if controllers else CONTROL_GROUPS
            own = root / name.lstrip("/")
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(root))


def _used(group: Path) -> int:
    """Return the bytes that a control group holds, but not those of cached files, which it gives back when asked."""
    used = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes") or 0
    figures = dict(line.split(maxsplit=1) for line in _lines(group / "memory.stat"))
    prefix = "total_" if "total_inactive_file" in figures else ""  # version 1 counts without its children, too
    return used - sum(int(figures.get(f"{prefix}{name}_file", 0)) for name in ("inactive", "active"))


def _number(path: Path) -> int | None:
    """Read a number; None where there is none, such as "max" for no limit."""
    text = "".join(_lines(path))
    return int(text) if text.isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
