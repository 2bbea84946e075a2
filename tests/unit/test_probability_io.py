"""Probability maps in files: what is written is what is read, whole or not at all."""

import numpy as np
import pytest

from lungseg.errors import StorageError
from lungseg.scans.geometry import Grid
from lungseg.segmentation.probability_io import read_map, write_map
from tests.phantoms import SHAPE, graded_map, ras_affine


@pytest.fixture
def probability():
    return graded_map(Grid(SHAPE, ras_affine(oblique=True)))


def test_map_comes_back_as_written(probability, tmp_path):
    write_map(probability, tmp_path / "maps" / "one.npz")
    read = read_map(tmp_path / "maps" / "one.npz")
    assert np.array_equal(read.canvases, probability.canvases)
    assert read.frame == probability.frame
    assert read.grid.matches(probability.grid, tolerance_mm=0.0)
    assert [path.name for path in (tmp_path / "maps").iterdir()] == ["one.npz"]


def test_map_that_can_not_be_written_leaves_nothing(probability, tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(StorageError, match="can't be written"):
        write_map(probability, tmp_path / "taken" / "one.npz")
    (tmp_path / "folder.npz").mkdir()
    with pytest.raises(StorageError, match="can't be written"):
        write_map(probability, tmp_path / "folder.npz")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder.npz", "taken"]


def test_damaged_map_is_refused(probability, tmp_path):
    path = tmp_path / "one.npz"
    write_map(probability, path)
    whole = path.read_bytes()
    turned = bytearray(whole)
    turned[200:240] = bytes(40)
    np.savez(tmp_path / "other.npz", canvases=probability.canvases)
    np.savez(
        tmp_path / "objects.npz",
        canvases=np.array([{"code": 1}], dtype=object),
        frame=np.arange(7),
        shape=np.arange(3) + 1,
        affine=np.eye(4),
    )
    for damaged in (whole[:-300], whole[:20], bytes(turned), b"", (tmp_path / "other.npz").read_bytes(),
                    (tmp_path / "objects.npz").read_bytes()):  # fmt: skip
        path.write_bytes(damaged)
        with pytest.raises(StorageError, match="can't be read"):
            read_map(path)
    with pytest.raises(StorageError, match="can't be read"):
        read_map(tmp_path / "none.npz")
