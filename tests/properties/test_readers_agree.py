"""The server's reader and that of the viewer see the same voxels in every file that the server accepts."""

import gzip
import json
import subprocess
import zlib
from dataclasses import dataclass, field, replace
from itertools import permutations, product
from pathlib import Path
from typing import Literal

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, event, given, settings
from hypothesis import strategies as st

from lungseg.errors import ScanError
from lungseg.scans import formats, nifti
from tests.node import node
from tests.scan_files import geometry_of, grid_of

KINDS = ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"]
SCALES = {
    "i1": (10.0, 0.0),
    "u1": (10.0, -1000.0),
    "u2": (0.05, -1024.0),
    "u4": (1e-6, -1024.5),
    "u8": (2.0**-52, -1024.0),
}
"""Slope and intercept that make HU of the types that have none by themselves."""
HALF_EXACT = 2048
"""Half-precision floats hold all integers up to this."""
ORDERS = [
    "".join(pair[sign] for pair, sign in zip(axes, signs, strict=True))
    for axes in permutations(["LR", "PA", "IS"])
    for signs in product((0, 1), repeat=3)
]


class Browser:
    """The viewer's modules in one process of node."""

    def __init__(self, folder: Path) -> None:
        self.sent, self.inflated = folder / "sent", folder / "inflated"
        command = [node(), str(Path(__file__).with_name("scan_reader.js"))]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def read(self, path: Path, chunk: int = 100):
        """Return the HU (I, J, K) of a scan, the half floats of its texture, and the bytes that were taken."""
        own = grid_of(path)
        grid = own.to_ras()
        self.inflated.write_bytes(b"".join(nifti.inflate(path)))
        answer = self.ask(path.read_bytes(), grid, own.orientation, chunk)
        assert "error" not in answer, answer
        hu = np.array(answer["hu"]).reshape(grid.shape, order="F")
        halves = np.array(answer["halves"], np.uint16).view(np.float16).reshape(grid.shape, order="F")
        return hu, halves, answer["taken"]

    def ask(self, stored: bytes, grid, orientation, chunk: int = 100):
        """Let the script read a file's bytes; returns its answer."""
        self.sent.write_bytes(as_sent(stored))
        shown = {"shape": grid.shape, "axes": orientation.axes, "flips": orientation.flips}
        question = {"sent": str(self.sent), "inflated": str(self.inflated), "chunk": chunk, "grid": shown}
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self) -> None:
        self.process.communicate()


def as_sent(stored: bytes) -> bytes:
    """What Chromium hands to a script of a file sent as it is: of a gzipped one the first member, nothing behind it."""
    if not stored.startswith(b"\x1f\x8b"):
        return stored
    return zlib.decompressobj(31).decompress(stored)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    opened = Browser(tmp_path_factory.mktemp("reader"))
    yield opened
    opened.close()


@dataclass(frozen=True)
class Scan:
    """A file to be: what its header says, and what is done to its bytes."""

    kind: str = "i2"
    is_second: bool = False
    order: Literal["<", ">"] = "<"
    codes: str = "LPS"
    shape: tuple[int, int, int] = (5, 4, 3)
    offset: float | None = None
    slope: float = 1.0
    intercept: float = 0.0
    seed: int = 0
    tail: bytes = b""
    cut: int = 0
    packing: str = "plain"
    chunk: int = 100
    changes: tuple[tuple[int, int], ...] = field(default=())

    def write(self, path: Path) -> None:
        header = self.header()
        start = header.sizeof_hdr + 4
        if self.offset is not None and start < self.offset < 2000:
            start = int(self.offset)
        random = np.random.default_rng(self.seed)
        content = bytearray(header.binaryblock + random.bytes(start - header.sizeof_hdr))
        content += self.voxels(random).tobytes(order="F") + self.tail
        for at, value in self.changes:
            content[at] = value
        path.write_bytes(PACKINGS[self.packing](bytes(content[: len(content) - self.cut])))

    def header(self):
        header = (nib.Nifti2Header if self.is_second else nib.Nifti1Header)(endianness=self.order)
        header.set_data_shape(self.shape)
        header.set_data_dtype(np.dtype(self.kind))
        turn = nib.orientations.inv_ornt_aff(nib.orientations.axcodes2ornt(tuple(self.codes)), self.shape)
        header.set_sform(np.diag([0.7, 0.8, 1.25, 1.0]) @ turn, 1)
        header["scl_slope"], header["scl_inter"] = self.slope, self.intercept
        header["vox_offset"] = header.sizeof_hdr + 4 if self.offset is None else self.offset
        return header

    def voxels(self, random):
        """Values all over the range of CT, some beyond, many halfway between two integers."""
        hu = random.integers(-2200, 7000, self.shape) / 2
        scale = self.slope if np.isfinite(self.slope) and abs(self.slope) > 1e-20 else 1.0
        shift = self.intercept if np.isfinite(self.intercept) and scale == self.slope else 0.0
        dtype = np.dtype(self.kind).newbyteorder(self.order)
        stored = (hu - shift) / scale
        if dtype.kind != "f":
            limits = np.iinfo(dtype)
            stored = np.clip(np.rint(stored), max(limits.min, -(2.0**62)), min(limits.max, 2.0**62))
        stored = stored.astype(dtype)
        stored[0, 0, 0] = np.finfo(np.float32).max if dtype.kind == "f" else np.iinfo(dtype).max
        return stored


def two_members(content: bytes) -> bytes:
    middle = len(content) // 2
    return gzip.compress(content[:middle]) + gzip.compress(content[middle:])


PACKINGS = {
    "plain": lambda content: content,
    "gzip": gzip.compress,
    "two members": two_members,
    "garbage behind": lambda content: gzip.compress(content) + b"\x1fgarbage",
    "one byte behind": lambda content: gzip.compress(content) + b"\x1f",
    "zeros behind": lambda content: gzip.compress(content) + bytes(3000),
}


def check(browser, path, scan):
    """Read a scan on both sides; returns the code with which the server refuses it, empty where it does not."""
    scan.write(path)
    try:
        volume = formats.read_volume(path)
    except ScanError as error:
        return error.code
    hu, halves, taken = browser.read(path, scan.chunk)
    np.testing.assert_array_equal(hu, volume.hu)
    exact = np.abs(volume.hu.astype(np.int32)) <= HALF_EXACT
    np.testing.assert_array_equal(halves[exact], volume.hu[exact].astype(np.float16))
    if scan.packing != "two members":
        assert taken <= len(b"".join(nifti.inflate(path))) + 2 * scan.chunk
    return ""


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("is_second", [False, True], ids=["NIfTI-1", "NIfTI-2"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_type_in_every_byte_order(browser, tmp_path, kind, is_second, order):
    slope, intercept = SCALES.get(kind, (1.0, 0.0))
    scan = Scan(kind=kind, is_second=is_second, order=order, slope=slope, intercept=intercept)
    for other in (scan, replace(scan, slope=slope * 1.1, chunk=7), replace(scan, slope=-slope, intercept=-intercept)):
        assert check(browser, tmp_path / "scan.nii", other) == ""


@pytest.mark.parametrize("codes", ORDERS)
def test_every_axis_order(browser, tmp_path, codes):
    assert check(browser, tmp_path / "scan.nii", Scan(codes=codes)) == ""


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("tail", [b"", b"\x07", bytes(5000)], ids=["", "a byte", "5000 bytes"])
def test_whatever_lies_behind_the_last_voxel(browser, tmp_path, packing, tail):
    assert check(browser, tmp_path / "scan.nii", Scan(packing=packing, tail=tail)) == ""


@pytest.mark.parametrize("offset", [0, 1, 100, 340, 351.9, 352, 352.5, 353, 367.9, 1000.75])
@pytest.mark.parametrize("kind", ["i2", "f4"])
def test_voxels_begin_at_a_whole_byte_behind_the_header(browser, tmp_path, offset, kind):
    assert check(browser, tmp_path / "scan.nii", Scan(offset=offset, kind=kind)) == ""
    assert check(browser, tmp_path / "scan.nii", Scan(offset=int(offset), kind=kind, is_second=True)) == ""


MEANT = {
    "4 axes, the last of no length": ((40, 4), (48, 0), (49, 0)),
    "microns": ((123, 3),),
    "metres": ((123, 1),),
    "negative spacing": ((87, 0xBF),),
    "qfac 0": ((78, 0), (79, 0)),
    "an extension of absurd length": ((348, 1), (352, 255), (353, 255), (354, 255), (355, 127)),
}
"""Bytes of a header, in which the standard or common sense says what is meant."""


@pytest.mark.parametrize("packing", ["plain", "gzip"])
@pytest.mark.parametrize("name", MEANT)
def test_what_a_header_means_is_the_same_to_both(browser, tmp_path, name, packing):
    offset = 368 if name.startswith("an extension") else None
    assert check(browser, tmp_path / "scan.nii", Scan(changes=MEANT[name], packing=packing, offset=offset)) == ""


@pytest.mark.parametrize("offset", [np.nan, np.inf, -np.inf, -1.0, -0.5])
def test_damaged_offset_is_refused_by_both(browser, tmp_path, offset):
    path = tmp_path / "scan.nii"
    assert check(browser, path, Scan()) == ""
    own = grid_of(path)
    assert check(browser, path, Scan(offset=offset)) == "scan.not_nifti"
    answer = browser.ask(path.read_bytes(), own.to_ras(), own.orientation)
    assert answer["error"].startswith("LoadError: The header is damaged")


def test_file_that_ends_early_is_refused_by_both(browser, tmp_path):
    path = tmp_path / "scan.nii"
    assert check(browser, path, Scan()) == ""
    own = grid_of(path)
    assert check(browser, path, Scan(cut=1)) == "scan.truncated"
    browser.inflated.write_bytes(path.read_bytes())
    answer = browser.ask(path.read_bytes(), own.to_ras(), own.orientation)
    assert answer["error"].startswith("LoadError: The file ends before its voxels do")


@pytest.mark.parametrize("is_second", [False, True], ids=["NIfTI-1", "NIfTI-2"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_masks_of_ours_are_read(browser, tmp_path, is_second, order):
    scan, mask = tmp_path / "scan.nii", tmp_path / "mask.nii.gz"
    Scan(is_second=is_second, order=order, codes="SAR").write(scan)
    inside = formats.read_volume(scan).hu > 0
    formats.write_mask(inside, mask, geometry_of(scan))
    np.testing.assert_array_equal(browser.read(mask)[0], inside)


FLOATS = st.sampled_from([0.0, 1.0, -1.0, 0.5, 1.1, -2.25, 10.0, 1e-3, 1e30, -1024.0, -1000.25, np.nan, np.inf])
OFFSETS = st.sampled_from([None, None, 0.0, 100.0, 340.0, 352.5, 353.0, 1000.9, -1.0, -0.5, 1e9, 1e30, np.nan, -np.inf])
SCANS = st.builds(
    Scan,
    kind=st.sampled_from(KINDS),
    is_second=st.booleans(),
    order=st.sampled_from("<>"),
    codes=st.sampled_from(ORDERS),
    shape=st.tuples(*[st.integers(2, 6)] * 3),
    slope=FLOATS | st.floats(width=32),
    intercept=FLOATS | st.floats(-2000, 2000, width=32),
    seed=st.integers(0, 9),
    tail=st.sampled_from([b"", b"", b"\xff", bytes(700)]),
    cut=st.sampled_from([0, 0, 0, 1, 9, 300]),
    packing=st.sampled_from(list(PACKINGS)),
    chunk=st.sampled_from([1, 7, 64, 5000]),
    changes=st.lists(st.tuples(st.integers(0, 347), st.integers(0, 255)), max_size=2).map(tuple),
)


@settings(
    max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(scan=SCANS, offset=OFFSETS)
def test_either_both_agree_or_the_server_refuses(browser, tmp_path, scan, offset):
    if scan.is_second and offset is not None:
        offset = int(np.clip(np.nan_to_num(offset), -(2.0**62), 2.0**62))
    event(check(browser, tmp_path / "scan.nii", replace(scan, offset=offset)) or "accepted")
