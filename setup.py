"""Puts into the wheel what stands beside the package in a checkout: entry, pages, settings of the server, checkpoints.

They go to `lungseg/site`, where `lungseg.config` looks for them if there is no checkout around the package.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

HERE = Path(__file__).parent
SITE = ("app.py", "pages/*.py", ".streamlit/config.toml", "models/*.safetensors", "models/*.json", "models/*.png")


class BuildWithSite(build_py):
    """Copies the site, unless the install is an editable one: that has the checkout."""

    def run(self) -> None:
        """Build the package, then copy."""
        super().run()
        if self.editable_mode:
            return
        for pattern in SITE:
            for path in HERE.glob(pattern):
                target = Path(self.build_lib, "lungseg", "site", path.relative_to(HERE))
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target)


setup(cmdclass={"build_py": BuildWithSite})
