"""The front end's modules: the scripts under `lungseg/ui`, which browsers load as they are.

They are read once, and lie under an address that names their contents: browsers keep them for long, and a page never
gets modules of two releases, because those that a module imports have the same hash in their addresses.
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
    """Read them; whatever is not in here is never sent."""
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
    known = modules()
    if name not in known.contents:
        raise KeyError(name)
    return f"{PREFIX}/{known.version}/{name}"


def entry_script(name: str) -> str:
    """Return the script of a component whose code is a module.

    Streamlit loads a component's script from a blob, which has no neighbours: it fetches the module from the server,
    whose addresses begin where the page says.
    """
    return f"""const base = window.__streamlit?.BACKEND_BASE_URL ?? window.location.origin;
const module = await import(new URL("{module_address(name).removeprefix("/")}", base));
export default module.default;
"""
