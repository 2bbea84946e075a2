"""What no linter holds: which libraries a process loads, and which names modules may not have."""

import json
import re
import subprocess
import sys
from dataclasses import fields

import pytest

from lungseg.config import CHECKOUT, Limits, Settings
from lungseg.pacs_settings import PacsSettings

HEAVY = {"torch", "streamlit", "cv2", "nibabel", "sqlalchemy", "plotly"}
BANNED_NAMES = {"utils", "util", "helpers", "helper", "manager", "managers", "common", "misc"}


def loaded_after(code):
    """Names of the top-level modules that a fresh process has loaded after running `code`."""
    program = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{name.partition('.')[0] for name in sys.modules}})))"
    command = [sys.executable, "-W", "ignore", "-c", program]
    result = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=True, timeout=120)
    return set(json.loads(result.stdout.splitlines()[-1]))


def test_package_and_command_line_load_nothing_heavy():
    assert not loaded_after("import lungseg, lungseg.cli") & HEAVY


def test_pages_are_there():
    assert {"cases.py", "viewer.py", "dataset.py", "training.py", "runs.py", "checkpoint.py"} <= {
        path.name for path in (CHECKOUT / "pages").glob("*.py")
    }


@pytest.mark.parametrize("folder", ["lungseg", "pages", "tests"])
def test_no_module_has_a_name_that_says_nothing(folder):
    assert not [path for path in (CHECKOUT / folder).rglob("*.py") if path.stem in BANNED_NAMES]


def test_every_tracked_weight_has_its_card():
    weights = sorted((CHECKOUT / "models").glob("*.safetensors"))
    assert weights, "models/ ships no checkpoint"
    assert all(path.with_suffix(".json").is_file() for path in weights)


def test_every_setting_is_in_the_readme_with_its_meaning():
    declared = [field.metadata for kind in (Settings, Limits, PacsSettings) for field in fields(kind) if field.metadata]
    rows = re.findall(r"\| `(LUNGSEG_[A-Z_]+)` \| (.*?) \|", (CHECKOUT / "README.md").read_text(encoding="utf-8"))
    assert dict(rows) == {each["variable"]: each["text"] for each in declared}
