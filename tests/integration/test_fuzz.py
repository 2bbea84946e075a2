"""Damaged files through every reader, in a short form: `make fuzz` does twenty-five times as many."""

import subprocess
import sys

from lungseg.config import CHECKOUT


def test_damaged_files_give_a_result_or_a_reason():
    command = [sys.executable, "-m", "tests.fuzz", "--seed", "11", "--short"]
    done = subprocess.run(command, cwd=CHECKOUT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    total = done.stdout.splitlines()[-1].split()
    assert (total[0], total[1]) == ("all", "400")
    assert int(total[2]) > 100
    assert int(total[3]) > 100
