"""What is done with a scan that is handed in, and a second reader to compare with: nibabel."""

import numpy as np
from nibabel.arrayproxy import ArrayProxy

from lungseg.errors import LungSegError
from lungseg.scans import formats
from tests.fuzz.target import WrongVoxelsError
from tests.narrowing import of_type
from tests.scan_files import grid_of, load_nifti, scan_of

GZIP = b"\x1f\x8b"
INT16 = np.iinfo(np.int16)


def read_scan(path):
    """Read a scan in all ways, compare its voxels with nibabel's, write a mask on its grid and read that again."""
    own = grid_of(path)
    try:
        formats.read_label_map(path, own.to_ras())
    except LungSegError:
        formats.read_volume(path)
        raise
    scan = scan_of(path)
    volume = scan.volume
    _compare(path, own, volume)
    inside = volume.hu > 0
    mask = path.with_name("mask.nii.gz")
    formats.write_mask(inside, mask, scan.geometry)
    if not np.array_equal(formats.read_mask(mask, volume.grid), inside):
        raise WrongVoxelsError("the mask that was written is not the one that is read")


def _compare(path, own, volume):
    theirs = _theirs(path)
    if theirs is None:
        return
    ours = own.orientation.from_ras(volume.hu)
    if ours.size != theirs.size:
        raise WrongVoxelsError(f"the shape is {ours.shape}, nibabel's {theirs.shape}")
    wrong = int(np.count_nonzero(ours != theirs.reshape(ours.shape, order="F")))
    if wrong:
        raise WrongVoxelsError(f"{wrong} of {ours.size} voxels are not those that nibabel reads")


def _theirs(path):
    """Return HU as nibabel reads them, in the file's own axis order; None where it does not read the file."""
    raw = path.read_bytes()
    named = path.with_name("witness.nii.gz" if raw[:2] == GZIP else "witness.nii")
    named.write_bytes(raw)
    try:
        stored = load_nifti(named).dataobj
        if of_type(ArrayProxy, stored).offset == 0:
            return None  # nibabel takes the header for voxels there
        with np.errstate(all="ignore"):
            values = np.asarray(stored)
    except Exception:  # noqa: BLE001 - whatever it can't read, there is nothing to compare with
        return None
    if values.dtype.kind not in "iuf" or not np.isfinite(values).all():
        return None
    rounded = np.rint(values) if values.dtype.kind == "f" else values
    return np.clip(rounded, INT16.min, INT16.max).astype(np.int16)
