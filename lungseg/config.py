"""Settings of one installation: where things are kept, limits, addresses; the one reader of the environment."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias, cast, get_args

from lungseg.errors import SetupError

CHECKOUT = Path(__file__).resolve().parents[1]
"""The folder that holds `app.py`, `pages/` and `models/`."""

GIGABYTE = 1024**3

SHIPPED_CHECKPOINT = "lungseg-3"
"""The checkpoint in `models/` that segments where nobody names another."""

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
"""Where a network runs; `auto` is CUDA where there is one."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds that a scan must keep, checked before memory is allocated.

    Attributes:
        file_bytes: size of the file on disk.
        volume_bytes: size of the decompressed voxels.
        axis_voxels: length of any one axis.
    """

    file_bytes: int = 2 * GIGABYTE
    volume_bytes: int = 4 * GIGABYTE
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
        viewer_folder: where the browser bundle lies if not under `home` (`LUNGSEG_VIEWER`).
        checkpoint: name in `models` or path of the checkpoint used where none is asked for (`LUNGSEG_CHECKPOINT`).
        limits: bounds on what is read.
    """

    home: Path
    models: Path
    database_url: str
    host: str = "127.0.0.1"
    port: int = 8501
    device: Device = "auto"
    allow_unauthenticated: bool = False
    viewer_folder: Path | None = None
    checkpoint: str = SHIPPED_CHECKPOINT
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        """Refuse values that would only fail later.

        Raises:
            SetupError: port or device is not one that can be used.
        """
        highest_port = 65535
        if not 1 <= self.port <= highest_port:
            raise SetupError(f"LUNGSEG_PORT is {self.port}.", f"Set it to a number from 1 to {highest_port}.")
        if self.device not in get_args(Device):
            raise SetupError(f"LUNGSEG_DEVICE is {self.device!r}.", "Set it to auto, cpu or cuda.")

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
            viewer_folder=_folder("LUNGSEG_VIEWER"),
            checkpoint=os.environ.get("LUNGSEG_CHECKPOINT") or SHIPPED_CHECKPOINT,
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
            "LUNGSEG_VIEWER": str(self.viewer),
            "LUNGSEG_CHECKPOINT": self.checkpoint,
        }
        return {**os.environ, **ours}

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


def share_processors() -> None:
    """Let compute threads that wait for each other sleep, not spin; to be called before torch is imported.

    On a busy machine spinning threads take the processor from those they wait for: beside a training run on two cores
    one scan took 7 to 35 s with spinning and 2 s without. A setting of the user's own stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


def _folder(variable: str) -> Path | None:
    value = os.environ.get(variable)
    return Path(value).expanduser().resolve() if value else None
