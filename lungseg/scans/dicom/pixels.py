"""Planes of DICOM files as HU: every transfer syntax for which there is a decoder, on all processors where that pays.

Native pixels take no time to decode, and threads do not speed the decoders up. So a long compressed series is decoded
in several processes, which also die in the place of this one; a script calls that under `if __name__ == "__main__"`.
They are forked from a server, which loads the decoders once for all of them, and for the next series.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import struct
import warnings
import zlib
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from io import BytesIO
from itertools import groupby
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels.decoders.base import get_decoder
from pydicom.uid import (
    JPEG2000,
    UID,
    DeflatedExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    JPEG2000Lossless,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from lungseg.errors import DecoderError, ScanChangedError, ScanError, TruncatedScanError
from lungseg.processes import end_with_parent
from lungseg.scans.dicom.agreement import slice_name
from lungseg.scans.dicom.instance import Instance
from lungseg.scans.dicom.jpeg import is_sound
from lungseg.scans.dicom.magic import MARK, PREAMBLE_BYTES
from lungseg.scans.dicom.rescaling import to_hounsfield
from lungseg.scans.reader import Advance

BYTE_BITS = 8
"""Of JPEG Extended no decoder takes more."""
PLUGINS: dict[str, str] = {
    RLELossless: "pylibjpeg", JPEG2000Lossless: "pylibjpeg", JPEG2000: "pylibjpeg", JPEGLSLossless: "pyjpegls",
    JPEGLSNearLossless: "pyjpegls",
}  # fmt: skip
"""Decoders that are better than the one that pydicom tries first: much faster for RLE. GDCM decodes JPEG 2000 with
threads for all processors, whatever else decodes, and damaged headers of that and of JPEG-LS end the process (SIGABRT,
GDCM 3.2.6)."""
LOSSLESS_JPEG = {JPEGLossless, JPEGLosslessSV1}
QUICK = {RLELossless, HTJ2KLossless, HTJ2KLosslessRPCL}
"""Compressed, but decoded sooner than processes start."""
WORTHWHILE_PIXELS = 150 * 512**2
"""Fewer compressed pixels are decoded before processes have started."""
PLANES_AT_ONCE = 8
"""Planes that a process decodes before it hands them over."""
WAITING = 2
"""Pieces of work for each process that are begun or wait to be taken."""
BESIDE_PIXELS_BYTES = 64 << 20
"""Of a deflated data set, besides its pixels."""
GROUP_LENGTH = b"\x02\x00\x00\x00UL\x04\x00"
EXPORT_AGAIN = "Copy or export the series again; where the archive shows it damaged, too, ask who sent it."


def check_decoders(planes: Sequence[Instance]) -> None:
    """Raise DecoderError unless there is a decoder for the transfer syntax of every plane."""
    for syntax, bits in sorted({(plane.transfer_syntax_uid, plane.bits_stored) for plane in planes}):
        try:
            is_available = get_decoder(UID(syntax)).is_available
        except NotImplementedError:
            is_available = False
        is_too_deep = syntax == JPEGExtended12Bit and bits > BYTE_BITS
        if not is_available or is_too_deep:
            raise DecoderError(
                f"The pixels are compressed as {UID(syntax).name or 'nothing that is named'}"
                f"{f' with {bits} bits' if is_too_deep else ''}, which can't be read.",
                "Export the series uncompressed (Explicit VR Little Endian), or as JPEG lossless or JPEG 2000.",
            )


def read_plane(plane: Instance) -> NDArray[np.int16]:
    """Read one plane, HU (rows, columns); padding is -1024, and no value is less.

    Raises:
        TruncatedScanError: its file ends early or its pixels are damaged.
        ScanChangedError: its file holds another picture than its header said.
        ScanError: its file can't be read.
    """
    return next(_decoded([plane]))


def read_planes(
    planes: Sequence[Instance], *, on_progress: Advance | None = None, workers: int | None = None
) -> Iterator[NDArray[np.int16]]:
    """Yield planes in order, as `read_plane` gives and raises them; memory holds a few at a time.

    Args:
        planes: those of one file that are neighbours are read from it at once.
        on_progress: called with the number of planes that are read, and of all.
        workers: processes that decode; None for what pays, 1 for this process.

    Raises:
        DecoderError: a process died.
    """
    count = workers or _workers_for(planes)
    for done, plane in enumerate(_decoded(planes) if count == 1 else _pooled(planes, count), start=1):
        if on_progress is not None:
            on_progress(done, len(planes))
        yield plane


def _workers_for(planes: Sequence[Instance]) -> int:
    """Return how many processes pay off; a process that may have no children decodes by itself."""
    slow = (plane for plane in planes if UID(plane.transfer_syntax_uid).is_compressed)
    pixels = sum(plane.rows * plane.columns for plane in slow if plane.transfer_syntax_uid not in QUICK)
    if pixels < WORTHWHILE_PIXELS or multiprocessing.current_process().daemon:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pooled(planes: Sequence[Instance], count: int) -> Iterator[NDArray[np.int16]]:
    pieces = [planes[first : first + PLANES_AT_ONCE] for first in range(0, len(planes), PLANES_AT_ONCE)]
    waiting: deque[Future[list[NDArray[np.int16]]]] = deque()
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    with ProcessPoolExecutor(count, context, _set_up) as pool:
        try:
            for piece in pieces:
                waiting.append(pool.submit(_decoded_piece, piece))
                if len(waiting) > WAITING * count:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool as error:
            raise DecoderError(
                "A process that decodes slices died: memory ran out, or a damaged slice broke its decoder.",
                "Try again with other programs closed; if it happens again, export the series uncompressed.",
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def _set_up() -> None:
    """Prepare a new process: no reaction to an interrupt, an end as soon as the parent ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _decoded_piece(planes: Sequence[Instance]) -> list[NDArray[np.int16]]:
    return list(_decoded(planes))


def _decoded(planes: Sequence[Instance]) -> Iterator[NDArray[np.int16]]:
    for path, group in groupby(planes, key=attrgetter("path")):
        neighbours = list(group)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pydicom warns of every value that breaks a rule
            dataset = _data_set(neighbours[0])
        size = dataset.get("Columns"), dataset.get("Rows")
        for plane in neighbours:
            if not isinstance(dataset.get("PixelData"), bytes):  # missing, empty, or a sequence by its name
                raise TruncatedScanError(f"{_place(plane)} ends before its pixels do.", EXPORT_AGAIN)
            if size != (plane.columns, plane.rows):
                raise ScanChangedError(
                    f"{path.name} holds a picture of {size[0]} x {size[1]} pixels, not of {plane.columns} x "
                    f"{plane.rows}, as it did.",
                    "Hand the series in again, once nothing writes to it any more.",
                )
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                stored = _stored(dataset, plane)
            yield to_hounsfield(stored, plane)


def _data_set(plane: Instance) -> Dataset:
    """Read a file; one that is deflated is inflated no farther than its planes need."""
    try:
        raw = plane.path.read_bytes()
        if plane.transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
            raw = _inflated(raw, plane.rows * plane.columns * plane.bits_allocated // 8 * plane.frames)
        dataset = dcmread(BytesIO(raw.removeprefix(MARK)), force=True)
        for name in ("Columns", "Rows", "PixelData"):
            dataset.get(name)  # pydicom looks at a value now, and may find that it is none
    except OSError as error:
        raise ScanError(
            f"{plane.path.name} can't be read ({error.strerror or error}).", "Check that it is still there."
        ) from error
    except Exception as error:
        raise TruncatedScanError(f"{_place(plane)} is damaged or cut off.", EXPORT_AGAIN) from error
    return dataset


def _inflated(raw: bytes, pixel_bytes: int) -> bytes:
    """Return a deflated data set, explicit and little endian, without the meta information before it."""
    start = PREAMBLE_BYTES + len(MARK)
    if raw[start : start + len(GROUP_LENGTH)] != GROUP_LENGTH:
        raise ValueError("no group length")
    start += len(GROUP_LENGTH)
    (length,) = struct.unpack_from("<L", raw, start)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    return inflater.decompress(raw[start + 4 + length :], pixel_bytes + BESIDE_PIXELS_BYTES)


def _stored(dataset: Dataset, plane: Instance) -> NDArray[Any]:
    """Return the stored values of a plane."""
    syntax = UID(plane.transfer_syntax_uid)
    if not syntax.is_compressed:
        _check_length(dataset, plane)
    plugin = PLUGINS.get(syntax, "")
    decoder = get_decoder(syntax)
    try:
        if syntax in LOSSLESS_JPEG and not is_sound(_frame(dataset, plane), plane.rows, plane.columns):
            raise ValueError("damaged header")  # noqa: TRY301 - as the decoder would raise it
        stored, _ = decoder.as_array(
            dataset,
            index=plane.frame,
            raw=True,
            decoding_plugin=plugin if plugin in decoder.available_plugins else "",
        )
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:  # a panic of a decoder in Rust is no Exception
        raise TruncatedScanError(f"The pixels of {_place(plane)} are damaged or cut off.", EXPORT_AGAIN) from error
    return np.asarray(stored)


def _frame(dataset: Dataset, plane: Instance) -> bytes:
    return get_frame(dataset.PixelData, plane.frame, number_of_frames=plane.frames)


def _check_length(dataset: Dataset, plane: Instance) -> None:
    length, needed = len(dataset.PixelData), plane.rows * plane.columns * plane.bits_allocated // 8 * (plane.frame + 1)
    if length < needed:
        raise TruncatedScanError(
            f"{_place(plane)} holds {length:,} of {needed:,} bytes of pixels: it was cut off.", EXPORT_AGAIN
        )


def _place(plane: Instance) -> str:
    return f"{slice_name(plane, plane.frame + 1)} ({plane.path.name})"
