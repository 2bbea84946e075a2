"""The front end's modules: the scripts under `lungseg/ui`, which browsers load as they are.

They are read once. Their address has a hash of their contents, so that browsers keep them for long. A page never gets
modules of two releases, as the modules that one imports have the same hash in their addresses.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

PREFIX = "/lungseg/modules"
FOLDER = Path(__file__).parents[1] / "ui"


@dataclass(frozen=True, slots=True)
class Modules:
    """The modules of this release.

    Attributes:
        version: hash of all names and contents.
        contents: by the path below `lungseg/ui`, with forward slashes.
    """

    version: str
    contents: Mapping[str, bytes]


@lru_cache(maxsize=1)
def modules() -> Modules:
    """Read the modules; no other file is ever sent."""
    contents = {path.relative_to(FOLDER).as_posix(): path.read_bytes() for path in sorted(FOLDER.rglob("*.js"))}
    digest = hashlib.sha256()
    for name, content in contents.items():
        digest.update(f"{name}\n{len(content)}\n".encode() + content)
    return Modules(digest.hexdigest()[:16], contents)


def module_address(name: str) -> str:
    """Return the address of a module, by its path below `lungseg/ui`.

    Raises:
        KeyError: there is no such module.
    """
    release = modules()
    if name not in release.contents:
        raise KeyError(name)
    return f"{PREFIX}/{release.version}/{name}"


def entry_script(name: str) -> str:
    """Return the script of a component whose code is a module.

    Streamlit loads a component's script from a blob, from which no relative import works: the script fetches the module
    from the server, at the base address that the page states.
    """
    return f"""const base = window.__streamlit?.BACKEND_BASE_URL ?? window.location.origin;
const module = await import(new URL("{module_address(name).removeprefix("/")}", base));
export default module.default;
"""
