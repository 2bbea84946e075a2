"""NIfTI files: small good ones of every kind, and how they get damaged."""

import gzip
import io
import zlib
from typing import Literal

import nibabel as nib
import numpy as np

from tests.conftest import SHARED_DATA
from tests.fuzz.damage import damaged_bytes, flipped, packed_wrongly
from tests.phantoms import chest, ras_affine, write_nifti
from tests.scan_files import load_nifti

SHAPE, SPACING_MM, SPOT = (40, 34, 18), (7.0, 7.5, 12.0), (28, 18, 10)
RADIUS_MM = 30.0
KINDS = (
    ("LPS", np.int16, True), ("RAS", np.int16, False), ("SAR", np.float32, True), ("LPS", np.float64, False),
    ("PIL", np.uint16, True), ("RAI", np.int32, False),
)  # fmt: skip
SIDE_PX, SLICES = 48, 12
ORDERS: tuple[Literal["<", ">"], ...] = ("<", ">")
DATATYPES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, 77, -1)
FLOATS = (np.nan, np.inf, -np.inf, np.finfo(np.float32).tiny)
MOST_FIELDS = 3
SWOLLEN = 0.03
"""Share of the damaged archives that claim more than is good; each takes a second."""


def good_scans(folder):
    """Return the bytes of small scans: phantoms of many kinds, and crops of real ones where they are at hand."""
    hu, _ = chest(SHAPE, SPACING_MM, SPOT, RADIUS_MM)
    found = [_written(folder, hu, codes, dtype, packed=packed) for codes, dtype, packed in KINDS]
    found.append(_second(found[1], nib.Nifti2Image, "<"))
    found.append(_second(found[1], nib.Nifti1Image, ">"))
    if SHARED_DATA.is_dir():
        found += [_crop(path) for path in sorted((SHARED_DATA / "chest_ct_msd_layout").glob("images*/[!.]*.nii.gz"))]
    return found


def good_mask(folder):
    """Return the bytes of the mask of the lesion in the first of the good scans."""
    _, lesion = chest(SHAPE, SPACING_MM, SPOT, RADIUS_MM)
    return _written(folder, lesion.astype(np.uint8), "LPS", np.uint8, packed=True)


def damaged_scan(raw, rng, others):
    """Damage a scan in one of many ways, sometimes in two."""
    changed = _damaged_once(raw, rng, others)
    return _damaged_once(changed, rng, others) if rng.random() < 0.2 else changed


def _damaged_once(raw, rng, others):
    is_packed = raw[:2] == b"\x1f\x8b"
    plain = _unpacked(raw)
    ways = (
        lambda: _fields(plain, rng),
        lambda: _fields(plain, rng),
        lambda: _datatype(plain, rng),
        lambda: flipped(plain, rng, within=352),
        lambda: damaged_bytes(plain, rng, [_unpacked(other) for other in others]),
        lambda: _swapped(plain, rng),
        lambda: _renamed(plain, rng),
        lambda: _extended(plain, rng),
        lambda: rng.bytes(int(rng.integers(1000))),
    )
    way = rng.integers(len(ways) + 2)
    if way >= len(ways):
        return _swollen(plain, rng) if rng.random() < SWOLLEN else packed_wrongly(raw, rng)
    changed = ways[way]()
    return gzip.compress(changed, 1) if is_packed else changed


def _unpacked(raw):
    try:
        return gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, ValueError, zlib.error):
        return raw


def _layout(plain):
    """Return the layout of the header, in the byte order that its first number tells."""
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        for order in ORDERS:
            layout = kind.template_dtype.newbyteorder(order)
            size = np.frombuffer(plain[:4], f"{order}i4")[0] if len(plain) >= 4 else 0
            if size == layout.itemsize <= len(plain):
                return layout
    return None


def _fields(plain, rng):
    """Set fields of the header to extreme values."""
    layout = _layout(plain)
    if layout is None:
        return flipped(plain, rng)
    header = np.frombuffer(plain[: layout.itemsize], layout).copy()
    for name in rng.choice(layout.names, size=rng.integers(1, MOST_FIELDS + 1), replace=False):
        flat = header[name].reshape(-1)
        if flat.dtype.kind not in "iuf":
            header[name] = rng.bytes(flat.dtype.itemsize)
            continue
        flat[rng.integers(flat.size)] = _extreme(flat.dtype, rng)
        header[name] = flat.reshape(header[name].shape)
    return header.tobytes() + plain[layout.itemsize :]


def _extreme(dtype, rng):
    if dtype.kind == "f":
        limits = np.finfo(dtype)
        values: tuple[float, ...] = (
            0.0, -0.0, 1.0, -1.0, 0.5, 340.0, 352.5, 1e-30, 1e9, limits.max, limits.min, limits.tiny, np.nan, np.inf,
            -np.inf,
        )  # fmt: skip
    else:
        highest, lowest = np.iinfo(dtype).max, np.iinfo(dtype).min
        values = (0, 1, 2, 3, 4, 7, 8, 255, highest, lowest, highest // 2, highest - 1)
    return np.array(values[rng.integers(len(values))]).astype(dtype)


def _datatype(plain, rng):
    layout = _layout(plain)
    if layout is None:
        return flipped(plain, rng)
    header = np.frombuffer(plain[: layout.itemsize], layout).copy()
    header["datatype"] = rng.choice(DATATYPES)
    header["bitpix"] = rng.choice([0, 1, 8, 16, 32, 64, 128, -1])
    return header.tobytes() + plain[layout.itemsize :]


def _swapped(plain, rng):
    """Turn the byte order: of the header, of the voxels, or of both."""
    layout = _layout(plain)
    if layout is None:
        return flipped(plain, rng)
    header = np.frombuffer(plain[: layout.itemsize], layout)
    rest = plain[layout.itemsize :]
    if rng.random() < 0.7:
        header = header.astype(layout.newbyteorder("S"))
    if rng.random() < 0.7 and len(rest) > 4:
        rest = rest[:4] + np.frombuffer(rest[4 : len(rest) - len(rest) % 2], np.int16).byteswap().tobytes()
    return header.tobytes() + rest


def _swollen(plain, rng):
    """Claim many voxels, all but a few of them zeros, in a small file."""
    layout = _layout(plain)
    if layout is None:
        return flipped(plain, rng)
    header = np.frombuffer(plain[: layout.itemsize], layout).copy()
    shape = ((512, 512, 150), (4096, 4096, 2), (4096, 4096, 4096), (32_767, 32_767, 32_767))[rng.integers(4)]
    header["dim"] = (3, *shape, 1, 1, 1, 1)
    zeros = min(int(np.prod(shape, dtype=object)), 512 * 512 * 150) * 2
    return gzip.compress(header.tobytes() + plain[layout.itemsize :] + bytes(zeros), 1)


def _renamed(plain, rng):
    """Claim to be of another version, or of another kind of file."""
    marks = {
        344: (b"n+2\0", b"ni1\0", b"n+1\r", b"\0\0\0\0"), 4: (b"n+1\0", b"n+2\0"), 128: (b"DICM",),
        0: (b"\x1f\x8b", b"PK\x03\x04", b"BZh9", (540).to_bytes(4, "little"), (348).to_bytes(4, "big")),
    }  # fmt: skip
    at = int(rng.choice(list(marks)))
    mark = marks[at][rng.integers(len(marks[at]))]
    return plain[:at] + mark + plain[at + len(mark) :]


def _extended(plain, rng):
    """Claim extensions of the header, whose lengths lie, with room for them before the voxels or without."""
    layout = _layout(plain)
    if layout is None:
        return flipped(plain, rng)
    lengths = rng.choice([0, -1, 1, 7, 8, 16, 17, 1024, 2**31 - 1, -(2**31)], size=rng.integers(1, 4))
    blocks = b"".join(np.array([length, rng.integers(50)], "<i4").tobytes() + bytes(8) for length in lengths)
    header = np.frombuffer(plain[: layout.itemsize], layout).copy()
    if rng.random() < 0.5:
        header["vox_offset"] = layout.itemsize + 4 + len(blocks)
    return header.tobytes() + b"\1\0\0\0" + blocks + plain[layout.itemsize + 4 :]


def _written(folder, array, codes, dtype, *, packed):
    path = folder / f"seed.nii{'.gz' if packed else ''}"
    slope, inter = (1.0, -1024.0) if dtype == np.uint16 else (None, None)
    stored = array - np.int16(-1024) if dtype == np.uint16 else array
    write_nifti(path, stored.astype(dtype), ras_affine(SPACING_MM), codes, slope=slope, inter=inter)
    return path.read_bytes()


def _second(raw, kind, order):
    """Write a plain scan again as another version, or in another byte order."""
    image = nib.Nifti1Image.from_bytes(raw)
    written = kind(np.asarray(image.dataobj), image.affine)
    written.header.set_data_dtype(np.dtype(np.int16).newbyteorder(order))
    if order == ">":
        written = kind(np.asarray(image.dataobj), image.affine, written.header.as_byteswapped(order))
    target = io.BytesIO()
    written.to_file_map({"image": nib.FileHolder(fileobj=target), "header": nib.FileHolder(fileobj=target)})
    return target.getvalue()


def _crop(path):
    image = load_nifti(path)
    step, middle = image.shape[0] // SIDE_PX, image.shape[2] // 2
    part = image.slicer[::step, ::step, middle - SLICES // 2 : middle + SLICES // 2]
    return gzip.compress(nib.Nifti1Image(np.asarray(part.dataobj).astype(np.int16), part.affine).to_bytes(), 1)
