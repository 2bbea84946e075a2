"""Probability maps in files: what a network said of a scan, kept so that its mask can be had at any threshold.

A file is a compressed npz of plain arrays, no pickle: `canvases` (K, size, size) uint8; `frame`, where a slice lies on
its canvas; `shape` and `affine` of the RAS+ grid.
"""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from zipfile import BadZipFile, ZipFile
from zlib import error as InflateError  # noqa: N812 - a class, whatever zlib calls it

import numpy as np

from lungseg.errors import LungSegError, StorageError
from lungseg.postprocessing import ProbabilityMap
from lungseg.preprocessing import Frame
from lungseg.volume import Grid


def write_map(probability: ProbabilityMap, path: Path) -> None:
    """Write a probability map, complete or not at all.

    Raises:
        StorageError: the folder can't be written to, or the disk is full.
    """
    frame, grid = probability.frame, probability.grid
    partial = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as stream:
            np.savez_compressed(
                stream,
                canvases=probability.canvases,
                frame=np.array([frame.size, *frame.rows, *frame.columns, *frame.shape]),
                shape=np.array(grid.shape),
                affine=grid.affine,
            )
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink()
        raise StorageError(
            f"The probability map can't be written ({error.strerror}).", "Check its folder and free disk."
        ) from error


def read_map(path: Path) -> ProbabilityMap:
    """Undo `write_map`.

    Raises:
        StorageError: there is no such file, or it is damaged.
    """
    try:
        with path.open("rb") as stream:
            _check_whole(stream)
            with np.load(stream, allow_pickle=False) as kept:
                size, top, bottom, left, right, rows, columns = map(int, kept["frame"])
                i, j, k = map(int, kept["shape"])
                frame = Frame(size, (top, bottom), (left, right), (rows, columns))
                return ProbabilityMap(kept["canvases"], frame, Grid((i, j, k), kept["affine"]))
    except (OSError, ValueError, KeyError, BadZipFile, InflateError, LungSegError) as error:
        raise StorageError(f"The probability map can't be read ({error}).", "Segment the scan again.") from error


def _check_whole(stream: BinaryIO) -> None:
    """Compare the checksums before numpy, which trusts what it reads, does; raises BadZipFile."""
    with ZipFile(stream) as archive:
        if damaged := archive.testzip():
            raise BadZipFile(f"{damaged} is damaged")
    stream.seek(0)
