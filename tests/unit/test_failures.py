"""What stands on a run that failed: a code and a remedy, never the text of a foreign error."""

import errno
import re

import pytest
import torch

from lungseg import errors
from lungseg.errors import NotHounsfieldError, StorageError
from lungseg.failures import failure_of
from lungseg.records.run_states import Failure


def wrapped(outer, inner):
    outer.__cause__ = inner
    return outer


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "storage.disk_full"),
        (OSError(errno.EDQUOT, "Quota exceeded"), "storage.disk_full"),
        (wrapped(StorageError("x", "y"), OSError(errno.ENOSPC, "No space")), "storage.disk_full"),
        (StorageError("x", "y"), "storage.failed"),
        (FileNotFoundError(errno.ENOENT, "No such file", "/home/Mustermann.nii"), "storage.failed"),
        (MemoryError(), "run.out_of_memory"),
        (torch.OutOfMemoryError("CUDA out of memory"), "run.out_of_memory"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes"), "run.out_of_memory"),
        (RuntimeError("Mustermann"), "run.crashed"),
        (ZeroDivisionError("Mustermann"), "run.crashed"),
    ],
)
def test_each_kind_of_error_has_its_code(error, code):
    failure = failure_of(error)
    assert failure.code == code
    assert failure.found
    assert failure.remedy
    assert "Mustermann" not in failure.found + failure.remedy


def test_error_of_ours_is_told_as_it_is():
    assert failure_of(NotHounsfieldError("0..255", "export again")) == Failure("scan.not_hu", "0..255", "export again")


def test_crash_names_the_type():
    assert "ZeroDivisionError" in failure_of(ZeroDivisionError()).found


def test_tree_of_errors_shows_each_with_its_code():
    codes = {name: kind.code for name, kind in vars(errors).items() if name.endswith("Error")}
    del codes["LungSegError"]
    assert dict(re.findall(r"── (\w+)\s+([\w.]+)$", errors.__doc__, re.MULTILINE)) == codes
    assert len(set(codes.values())) == len(codes)
