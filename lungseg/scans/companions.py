"""Scans of two files: a header, and the voxels in a file beside it."""

from __future__ import annotations

import stat
from collections.abc import Callable, Sequence
from pathlib import Path

from lungseg.errors import DataFileError, ScanError
from lungseg.files.unpacking import open_content
from lungseg.scans.containers import HEADER_BYTES

MOST_NAME = 60
"""Characters of a name that a header states, in a message."""
BOTH = "Hand in both files together, in one folder or one archive."


def header_among(files: Sequence[Path], recognises: Callable[[bytes], bool]) -> Path:
    """Return the one file that is a header.

    Raises:
        ScanError: several files are.
    """
    headers = [path for path in files if recognises(first_block(path))]
    if len(headers) != 1:
        raise ScanError(f"There are {len(headers)} headers of scans.", "Hand in one scan after the other.")
    return headers[0]


def data_file(header: Path, names: Sequence[str], files: Sequence[Path]) -> Path:
    """Return the file beside a header that holds its voxels.

    A header may come from anywhere: the name that it states leads neither out of its folder nor through a link.

    Args:
        header: its file.
        names: that the file may have, the likeliest first.
        files: that were handed in; if there are several, the file must be one of them, and no other may be there.

    Raises:
        DataFileError: the header names a file elsewhere, there is none, it is no file of its own, or others are there.
    """
    for name in names:
        if not is_plain_name(name):
            raise DataFileError(f"The header names its voxels as {shortened(name)}, which is no plain name.", BOTH)
    for name in names:
        path = header.with_name(name)
        if not _is_own_file(path):
            continue
        others = [other for other in files if other not in {header, path}]
        if others or (len(files) > 1 and path not in files):
            raise DataFileError(
                f"There are {len(files)} files; this scan has two, a header and its voxels.", "Hand in these two alone."
            )
        return path
    raise DataFileError(
        f"The header's voxels should be in {shortened(names[0])} beside it; there is no such file.", BOTH
    )


def is_plain_name(name: str) -> bool:
    """Tell whether a name can only mean a file in the header's own folder."""
    return bool(name.strip(". ")) and not {"/", "\\", "\0", ":"} & set(name)


def shortened(name: str) -> str:
    """Quote a name for a message."""
    return repr(name if len(name) <= MOST_NAME else f"{name[:MOST_NAME]}...")


def first_block(path: Path) -> bytes:
    """Return what a format is recognised by."""
    with open_content(path) as content:
        return content.read(HEADER_BYTES)


def _is_own_file(path: Path) -> bool:
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except (OSError, ValueError):
        return False
