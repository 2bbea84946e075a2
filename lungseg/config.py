"""Settings of one installation: folders, limits, addresses; the only reader of the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias, get_args, get_type_hints

import psutil
from pydantic import BeforeValidator, PositiveInt, ValidationError, create_model
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict

from lungseg.errors import SetupError

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent
"""The folder around the package."""
BUNDLED = PACKAGE / "site"
"""What an installed package holds of the files beside it in a checkout; a checkout has no such folder."""
SITE = BUNDLED if BUNDLED.is_dir() else CHECKOUT
"""The folder of `app.py`, `pages/` and the checkpoints that ship."""

GIGABYTE = 1024**3
HIGHEST_PORT = 65535
VARIABLE = "variable"
"""Key of a field's metadata: the environment variable that sets it."""

LIFELINE = "LIFELINE_OF_LUNGSEG"
"""Variable that `lungseg serve` sets for the processes that it starts."""

SHIPPED_CHECKPOINT = "lungseg-3"
"""The checkpoint in `models/` that segments unless somebody names another."""

HOST_NAME = re.compile(r"[A-Za-z0-9._-]+|(\[)?[0-9A-Fa-f]*(:[0-9A-Fa-f]*){2,7}(?(1)\])")
"""A host name or an IP address, without scheme, port or wildcard."""

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
"""Where a network runs; `auto` is CUDA where there is one."""


def _folder(value: Any) -> Any:
    return Path(value).expanduser().resolve() if isinstance(value, str) else value


def _folders(text: str) -> tuple[Path, ...]:
    return tuple(_folder(part) for part in text.split(os.pathsep) if part.strip())


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


IdentityPolicy: TypeAlias = Literal["remove", "keep"]
"""What becomes of a patient's identity in DICOM files."""

Folder: TypeAlias = Annotated[Path, BeforeValidator(_folder)]
Folders: TypeAlias = Annotated[tuple[Path, ...], BeforeValidator(_folders)]
Names: TypeAlias = Annotated[tuple[str, ...], BeforeValidator(_names)]
Switch: TypeAlias = Annotated[bool, BeforeValidator(lambda text: text == "1")]


def _user_home() -> tuple[Path, ...]:
    """Return the home folder of the user; empty where there is none, or where that would be the whole disk."""
    try:
        folder = Path.home().resolve()
    except RuntimeError:
        return ()
    return () if folder == Path(folder.anchor) else (folder,)


CONTROL_GROUPS = Path("/sys/fs/cgroup")
OWN_GROUPS = Path("/proc/self/cgroup")


def total_memory() -> int:
    """Return the memory of this machine in bytes, or the limit of this process's control groups where that is less."""
    return min([psutil.virtual_memory().total, *(limit for _, limit in _memory_limits())])


def free_memory() -> int:
    """Return the memory in bytes that this process can still take without swapping; cached files count as free."""
    in_groups = (limit - _used(group) for group, limit in _memory_limits())
    return max(0, min([psutil.virtual_memory().available, *in_groups]))


def _default_home() -> Path:
    """Return `data/` of a checkout; of an installed package, the folder in which programs of this user keep data."""
    if SITE == CHECKOUT:
        return CHECKOUT / "data"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "lungseg"


class _Environment(BaseSettings):
    """Reads variables by their exact names; an empty one sets nothing."""

    model_config = SettingsConfigDict(
        case_sensitive=True, enable_decoding=False, env_ignore_empty=True, extra="ignore", validate_default=False
    )


def setting(variable: str, text: str, remedy: str = "", **default: Any) -> Any:
    """Declare a field that a variable sets; the README has its `text`, the error for an unusable value its `remedy`."""
    return field(**default, metadata={VARIABLE: variable, "text": text, "remedy": remedy})


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


DESTINATION = re.compile(
    r"(?P<name>[\w .-]{1,40})=((?P<aet>[\x21-\x7e]{1,16})@(?P<host>[A-Za-z0-9._-]+):(?P<port>\d{1,5})|(?P<url>https?://[^\s,]+))"
)
"""A PACS that results are sent to: `archive=ORTHANC@10.0.0.5:4242` (C-STORE) or `archive=https://.../dicom-web`."""
AE_TITLE = re.compile(r"[\x21-\x5b\x5d-\x7e]{1,16}")
"""An application entity's title; blanks and backslashes are left out."""


@dataclass(frozen=True, slots=True)
class PacsSettings:
    """How this installation talks to a PACS. By default it does not: nobody is asked, and nobody may send.

    A `dicomweb_login` holds `user:password`, a `dicomweb_token` the token alone; both go to the host of `dicomweb_url`
    and to no other.
    """

    dicomweb_url: str = setting(
        "LUNGSEG_DICOMWEB_URL",
        "address of the DICOMweb server that the page PACS searches: `http://127.0.0.1:8042/dicom-web`",
        "Give its whole address, with http:// or https://.",
        default="",
    )
    dicomweb_login: Folder | None = setting(
        "LUNGSEG_DICOMWEB_LOGIN", "file that holds `user:password` for it", default=None
    )
    dicomweb_token: Folder | None = setting(
        "LUNGSEG_DICOMWEB_TOKEN", "file that holds a bearer token for it", default=None
    )
    ca_file: Folder | None = setting(
        "LUNGSEG_PACS_CA",
        "certificates (PEM) that a DICOMweb server is checked by; the public ones where it is not set",
        default=None,
    )
    timeout_s: PositiveInt = setting(
        "LUNGSEG_PACS_TIMEOUT", "seconds in which a PACS has to answer", "Set it to a number of seconds.", default=30
    )
    destinations: Names = setting(
        "LUNGSEG_PACS_DESTINATIONS",
        "where results may be sent, separated by commas: `archive=AET@host:port` or `archive=https://host/dicom-web`",
        default=(),
    )
    send_back_to: str = setting(
        "LUNGSEG_PACS_SEND_BACK",
        "name of the destination to which results of studies are sent that the listener received",
        default="",
    )
    aet: str = setting("LUNGSEG_PACS_AET", "AE title of LungSeg, as listener and as sender", default="LUNGSEG")
    listen_host: str = setting("LUNGSEG_LISTEN_HOST", "address that `lungseg listen` listens on", default="127.0.0.1")
    listen_port: int = setting(
        "LUNGSEG_LISTEN_PORT", "its port", f"Set it to a number from 1 to {HIGHEST_PORT}.", default=11112
    )
    listen_from: Names = setting(
        "LUNGSEG_LISTEN_FROM",
        "AE titles that may send to it, separated by commas; without one it does not start",
        default=(),
    )
    quiet_s: PositiveInt = setting(
        "LUNGSEG_LISTEN_QUIET",
        "seconds without a new slice after which a study is complete",
        "Set it to a number of seconds.",
        default=60,
    )

    def __post_init__(self) -> None:
        """Raise SetupError where an address, a title or a port can't be used."""
        if not 1 <= self.listen_port <= HIGHEST_PORT:
            raise SetupError(
                f"LUNGSEG_LISTEN_PORT is {self.listen_port}.", f"Set it to a number from 1 to {HIGHEST_PORT}."
            )
        if self.dicomweb_url and not self.dicomweb_url.startswith(("http://", "https://")):
            raise SetupError(
                f"LUNGSEG_DICOMWEB_URL is {self.dicomweb_url!r}.", "Give its whole address, with http:// or https://."
            )
        for variable, titles in (("LUNGSEG_PACS_AET", (self.aet,)), ("LUNGSEG_LISTEN_FROM", self.listen_from)):
            if wrong := [title for title in titles if not AE_TITLE.fullmatch(title)]:
                raise SetupError(f"{variable} has {wrong[0]!r}.", "An AE title has 1 to 16 characters, no blanks.")
        names = [self._name_of(text) for text in self.destinations]
        if self.send_back_to and self.send_back_to not in names:
            raise SetupError(
                f"LUNGSEG_PACS_SEND_BACK is {self.send_back_to!r}.",
                "Name one of the destinations in LUNGSEG_PACS_DESTINATIONS.",
            )

    @staticmethod
    def _name_of(text: str) -> str:
        match = DESTINATION.fullmatch(text)
        if match is None or int(match["port"] or 1) not in range(1, HIGHEST_PORT + 1):
            raise SetupError(
                f"LUNGSEG_PACS_DESTINATIONS has {text!r}.",
                "Write each as name=AET@host:port, or as name=https://host/dicom-web.",
            )
        return match["name"]


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of one installation; every path that the product writes to lies under `home`.

    A `checkpoint` of None is the one that was promoted last, see `services.in_use`; `viewer_folder` of None is the one
    under `home`; an empty `database_url` becomes SQLite under `home`. `models` of an installed package is a folder
    under `home`, beside the checkpoints that ship. `data_roots` does not bind commands.
    """

    home: Folder = setting(
        "LUNGSEG_HOME",
        "folder of everything that LungSeg writes: database, scans, masks, logs",
        default_factory=_default_home,
    )
    models: Folder = setting("LUNGSEG_MODELS", "folder of checkpoints", default=SITE / "models")
    database_url: str = setting("LUNGSEG_DATABASE_URL", "SQLAlchemy URL of the database", default="")
    host: str = setting("LUNGSEG_HOST", "address that the server listens on", default="127.0.0.1")
    port: int = setting("LUNGSEG_PORT", "its port", f"Set it to a number from 1 to {HIGHEST_PORT}.", default=8501)
    device: Device = setting(
        "LUNGSEG_DEVICE", "`auto`, `cpu` or `cuda`", "Set it to auto, cpu or cuda.", default="auto"
    )
    allow_unauthenticated: Switch = setting(
        "LUNGSEG_ALLOW_UNAUTHENTICATED",
        "`1` lets the server listen beyond this machine though it has no login yet",
        default=False,
    )
    allowed_hosts: Names = setting(
        "LUNGSEG_ALLOWED_HOSTS",
        "names under which browsers may reach it besides, separated by commas: `lungseg.example.org`",
        default=(),
    )
    viewer_folder: Folder | None = setting("LUNGSEG_VIEWER", "folder of the viewer's browser bundle", default=None)
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
    data_roots: Folders = setting(
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


def _settings_in(kind: type[Settings | Limits | PacsSettings]) -> dict[str, Field[Any]]:
    """Return the fields of a class that variables set, by variable."""
    return {item.metadata[VARIABLE]: item for item in fields(kind) if VARIABLE in item.metadata}


def _read_environment(kind: type[Settings | Limits | PacsSettings]) -> Mapping[str, Any]:
    """Return what the environment sets of a class, by field; raises SetupError where a value can't be used."""
    settings, types = _settings_in(kind), get_type_hints(kind, include_extras=True)
    columns: dict[str, Any] = {
        item.name: (types[item.name], FieldInfo(default=None, validation_alias=variable))
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


def _as_variables(settings: Settings | Limits | PacsSettings) -> dict[str, str]:
    """Write settings as `_read_environment` reads them."""
    return {variable: _as_text(getattr(settings, item.name)) for variable, item in _settings_in(type(settings)).items()}


def _as_text(value: Any) -> str:
    if isinstance(value, tuple):
        return (os.pathsep if any(isinstance(part, Path) for part in value) else ",").join(map(str, value))
    if isinstance(value, bool):
        return "1" if value else ""
    return "" if value is None else str(value)


def _memory_limits() -> Iterator[tuple[Path, int]]:
    """Yield the control groups (version 1 and 2) that limit the memory of this process, with their limits in bytes."""
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
            group = root / name.lstrip("/")
            yield from (folder for folder in (group, *group.parents) if folder.is_relative_to(root))


def _used(group: Path) -> int:
    """Return the bytes that a control group holds without cached files, which the kernel takes back when needed."""
    total = _number(group / "memory.current") or _number(group / "memory.usage_in_bytes") or 0
    figures = dict(line.split(maxsplit=1) for line in _lines(group / "memory.stat"))
    prefix = "total_" if "total_inactive_file" in figures else ""  # version 1 counts without its children, too
    return total - sum(int(figures.get(f"{prefix}{name}_file", 0)) for name in ("inactive", "active"))


def _number(path: Path) -> int | None:
    """Read a number; None where there is none, such as "max" for no limit."""
    text = "".join(_lines(path))
    return int(text) if text.isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
