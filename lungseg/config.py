"""Settings of one installation: folders, limits, addresses; the only reader of the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_type_hints

from pydantic import BeforeValidator, PositiveInt, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from lungseg.errors import SetupError
from lungseg.machine import total_memory
from lungseg.pacs_settings import PacsSettings
from lungseg.setting import HIGHEST_PORT, VARIABLE, setting

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent
"""The folder around the package."""
BUNDLED = PACKAGE / "site"
"""What an installed package holds of the files beside it in a checkout; a checkout has no such folder."""
SITE = BUNDLED if BUNDLED.is_dir() else CHECKOUT
"""The folder of `app.py`, `pages/` and the checkpoints that ship."""

GIGABYTE = 1024**3

LIFELINE = "LIFELINE_OF_LUNGSEG"
"""Variable that `lungseg serve` sets for the processes that it starts."""

SHIPPED_CHECKPOINT = "lungseg-3"
"""The checkpoint in `models/` that segments unless somebody names another."""

HOST_NAME = re.compile(r"[A-Za-z0-9._-]+|(\[)?[0-9A-Fa-f]*(:[0-9A-Fa-f]*){2,7}(?(1)\])")
"""A host name or an IP address, without scheme, port or wildcard."""

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
"""Where a network runs; `auto` is CUDA where there is one."""

IdentityPolicy: TypeAlias = Literal["remove", "keep"]
"""What becomes of a patient's identity in DICOM files."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of a scan, checked before memory is allocated.

    Two of them follow the memory of the machine or container, so that one with 8 GB survives any file.
    """

    file_bytes: PositiveInt = setting(
        "LUNGSEG_MAX_FILE_BYTES", "size of a scan's file", "Set it to a number of bytes.", default=2 * GIGABYTE
    )
    upload_bytes: PositiveInt = setting(
        "LUNGSEG_MAX_UPLOAD_BYTES",
        "size of one upload: a folder, an archive, or DICOM files chosen together",
        "Set it to a number of bytes.",
        default=16 * GIGABYTE,
    )
    files: PositiveInt = setting(
        "LUNGSEG_MAX_FILES", "files in one upload, unpacked", "Set it to a number of files.", default=20_000
    )
    expanded_bytes: PositiveInt = setting(
        "LUNGSEG_MAX_EXPANDED_BYTES",
        "size of one upload, unpacked",
        "Set it to a number of bytes.",
        default=32 * GIGABYTE,
    )
    expansion: PositiveInt = setting(
        "LUNGSEG_MAX_EXPANSION",
        "how many times its own size an archive may unpack to, from 256 MiB on",
        "Set it to a number.",
        default=200,
    )
    archive_depth: PositiveInt = setting(
        "LUNGSEG_MAX_ARCHIVE_DEPTH",
        "archives that lie one in the other; 2 allows archives in an archive",
        "Set it to a number.",
        default=2,
    )
    unpack_s: PositiveInt = setting(
        "LUNGSEG_MAX_UNPACK_SECONDS", "time that unpacking may take", "Set it to a number of seconds.", default=900
    )
    volume_bytes: PositiveInt = setting(
        "LUNGSEG_MAX_VOLUME_BYTES",
        "size of a scan in memory, 2 bytes per voxel whatever the file stores",
        "Set it to a number of bytes.",
        default_factory=lambda: min(2 * GIGABYTE, total_memory() // 4),
    )
    memory_bytes: PositiveInt = setting(
        "LUNGSEG_MAX_MEMORY_BYTES",
        "what reading, segmenting and measuring a scan take at their peak, beside the network",
        "Set it to a number of bytes.",
        default_factory=lambda: min(5 * GIGABYTE, total_memory() // 2),
    )
    axis_voxels: PositiveInt = setting(
        "LUNGSEG_MAX_AXIS_VOXELS", "length of any one axis of a scan", "Set it to a number of voxels.", default=4096
    )


def _user_home() -> tuple[Path, ...]:
    """Return the home folder of the user; empty where there is none, or where that would be the whole disk."""
    try:
        folder = Path.home().resolve()
    except RuntimeError:
        return ()
    return () if folder == Path(folder.anchor) else (folder,)


def _default_home() -> Path:
    """Return `data/` of a checkout; of an installed package, the folder in which programs of this user keep data."""
    if SITE == CHECKOUT:
        return CHECKOUT / "data"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "lungseg"


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one installation; every path that the product writes to lies under `home`.

    A `checkpoint` of None is the one that was promoted last, see `services.in_use`; `viewer_folder` of None is the one
    under `home`; an empty `database_url` becomes SQLite under `home`. `models` of an installed package is a folder
    under `home`, beside the checkpoints that ship. `data_roots` does not bind commands.
    """

    home: Path = setting(
        "LUNGSEG_HOME",
        "folder of everything that LungSeg writes: database, scans, masks, logs",
        default_factory=_default_home,
    )
    models: Path = setting("LUNGSEG_MODELS", "folder of checkpoints", default=SITE / "models")
    database_url: str = setting("LUNGSEG_DATABASE_URL", "SQLAlchemy URL of the database", default="")
    host: str = setting("LUNGSEG_HOST", "address that the server listens on", default="127.0.0.1")
    port: int = setting("LUNGSEG_PORT", "its port", f"Set it to a number from 1 to {HIGHEST_PORT}.", default=8501)
    device: Device = setting(
        "LUNGSEG_DEVICE", "`auto`, `cpu` or `cuda`", "Set it to auto, cpu or cuda.", default="auto"
    )
    allow_unauthenticated: bool = setting(
        "LUNGSEG_ALLOW_UNAUTHENTICATED",
        "`1` lets the server listen beyond this machine though it has no login yet",
        default=False,
    )
    allowed_hosts: tuple[str, ...] = setting(
        "LUNGSEG_ALLOWED_HOSTS",
        "names under which browsers may reach it besides, separated by commas: `lungseg.example.org`",
        default=(),
    )
    viewer_folder: Path | None = setting("LUNGSEG_VIEWER", "folder of the viewer's browser bundle", default=None)
    checkpoint: str | None = setting(
        "LUNGSEG_CHECKPOINT",
        "name in `models/` or path of the checkpoint that segments, whatever was promoted",
        default=None,
    )
    identity: IdentityPolicy = setting(
        "LUNGSEG_IDENTITY",
        "`remove` takes a patient's identity out of DICOM files as they come in, `keep` leaves it",
        "Set it to remove or keep.",
        default="remove",
    )
    data_roots: tuple[Path, ...] = setting(
        "LUNGSEG_DATA",
        "folders below which the pages Data set and Training may name folders, separated by `:`; commands may use any",
        default_factory=_user_home,
    )
    limits: Limits = field(default_factory=Limits)
    pacs: PacsSettings = field(default_factory=PacsSettings)

    def __post_init__(self) -> None:
        """Raise SetupError where port, device or the name of a host can't be used."""
        if not self.database_url:
            object.__setattr__(self, "database_url", f"sqlite:///{self.home / 'lungseg.sqlite'}")
        if self.models == BUNDLED / "models":  # nothing is written into an installed package
            object.__setattr__(self, "models", self.home / "models")
        if not 1 <= self.port <= HIGHEST_PORT:
            raise SetupError(f"LUNGSEG_PORT is {self.port}.", f"Set it to a number from 1 to {HIGHEST_PORT}.")
        if self.device not in get_args(Device):
            raise SetupError(f"LUNGSEG_DEVICE is {self.device!r}.", "Set it to auto, cpu or cuda.")
        for name in self.allowed_hosts:
            if not HOST_NAME.fullmatch(name):
                raise SetupError(
                    f"LUNGSEG_ALLOWED_HOSTS has {name!r}.",
                    "Name each host as in a browser's address bar, without https:// and port: lungseg.example.org.",
                )

    @classmethod
    def from_environment(cls) -> Settings:
        """Read `LUNGSEG_*` variables, which have defaults; raises SetupError where a value can't be used."""
        return cls(
            **_read_environment(cls),
            limits=Limits(**_read_environment(Limits)),
            pacs=PacsSettings(**_read_environment(PacsSettings)),
        )

    def to_environment(self) -> dict[str, str]:
        """Return this process's environment with `LUNGSEG_*` set so that a child process reads these settings."""
        return {**os.environ, **_as_variables(self), **_as_variables(self.limits), **_as_variables(self.pacs)}

    @property
    def stores(self) -> Path:
        """Folder of slice stores, named by data set id."""
        return self.home / "stores"

    @property
    def runs(self) -> Path:
        """Folder of the files of runs (checkpoints, logs), named by run id."""
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


def inherited_lifeline() -> int | None:
    """Return the lifeline (see `processes`) that the server handed to this process; None where there is none."""
    number = os.environ.get(LIFELINE, "")
    try:
        os.fstat(int(number))
    except (ValueError, OverflowError, OSError):
        return None
    return int(number)


def share_processors() -> None:
    """Let compute threads that wait for each other sleep instead of spin; to be called before torch is imported.

    On a busy machine spinning threads take the processor from the threads they wait for: beside a training run on two
    cores a scan took 7 to 35 s with spinning and 2 s without. A setting of the user's own stays.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")


class _Environment(BaseSettings):
    """Reads variables by their exact names; an empty one sets nothing."""

    model_config = SettingsConfigDict(
        case_sensitive=True, enable_decoding=False, env_ignore_empty=True, extra="ignore", validate_default=False
    )


def _folder(text: str) -> Path:
    return Path(text).expanduser().resolve()


def _folders(text: str) -> tuple[Path, ...]:
    return tuple(_folder(part) for part in text.split(os.pathsep) if part.strip())


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


FROM_TEXT: dict[Any, Callable[[str], Any]] = {
    Path: _folder,
    Path | None: _folder,
    tuple[Path, ...]: _folders,
    tuple[str, ...]: _names,
    bool: lambda text: text == "1",
}
"""How a variable is read, by the type of its field; pydantic reads the others."""


def _settings_in(kind: type[Settings | Limits | PacsSettings]) -> dict[str, Field[Any]]:
    """Return the fields of a class that variables set, by variable."""
    return {item.metadata[VARIABLE]: item for item in fields(kind) if VARIABLE in item.metadata}


def _read_environment(kind: type[Settings | Limits | PacsSettings]) -> Mapping[str, Any]:
    """Return what the environment sets of a class, by field; raises SetupError where a value can't be used."""
    settings, types = _settings_in(kind), get_type_hints(kind, include_extras=True)
    columns: dict[str, Any] = {
        item.name: (_read_from_text(types[item.name]), FieldInfo(default=None, validation_alias=variable))
        for variable, item in settings.items()
    }
    try:
        environment = create_model(kind.__name__, __base__=_Environment, **columns)()
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        variable = str(detail["loc"][0])
        remedy = settings[variable].metadata["remedy"] or "Set it to another value."
        raise SetupError(f"{variable} is {detail['input']!r}.", remedy) from error
    values = {name: getattr(environment, name) for name in environment.model_fields_set}
    return {name: value for name, value in values.items() if value != ()}


def _read_from_text(kind: Any) -> Any:
    return Annotated[kind, BeforeValidator(FROM_TEXT[kind])] if kind in FROM_TEXT else kind


def _as_variables(settings: Settings | Limits | PacsSettings) -> dict[str, str]:
    """Write settings as `_read_environment` reads them."""
    return {variable: _as_text(getattr(settings, item.name)) for variable, item in _settings_in(type(settings)).items()}


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return (os.pathsep if any(isinstance(part, Path) for part in value) else ",").join(map(str, value))
    if isinstance(value, bool):
        return "1" if value else ""
    return "" if value is None else str(value)
