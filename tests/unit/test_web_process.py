"""The web process stays small: no network library, also not by a detour."""

import subprocess
import sys

import pytest

from lungseg.config import CHECKOUT

IMPORT_ALL = """
import importlib, pkgutil, runpy, sys
import app
import lungseg.ui, lungseg.web, lungseg.services, lungseg.db, lungseg.figures
for package in (lungseg.ui, lungseg.web, lungseg.services, lungseg.db):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name != "lungseg.ui.entry" and ".migrations" not in module.name:
            importlib.import_module(module.name)
heavy = sorted({"torch", "imgaug", "safetensors", "pydicom", "highdicom", "SimpleITK", "pynetdicom"} & set(sys.modules))
print("loaded:", ",".join(heavy))
"""


@pytest.mark.usefixtures("environment")
def test_torch_is_never_loaded():
    result = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL], cwd=CHECKOUT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1].strip() == "loaded:"
