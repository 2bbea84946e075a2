"""Where a voxel lies is computed twice: by `Grid` here, by `lungseg/ui/viewer/geometry.js` in the browser.

Whoever changes one changes the other. `mmOf` there is `Grid.mm_of`; `indexAt(shareOf(index))` is the index again. The
viewer gets shape and affine of the RAS+ grid (`Grid.to_ras`), never those of the file.
"""

import json
import subprocess
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from lungseg import ui
from lungseg.scans.geometry import Grid
from tests.node import node
from tests.phantoms import ras_affine

GEOMETRY_JS = Path(ui.__file__).with_name("viewer") / "geometry.js"
SCRIPT = """
import { readFileSync } from "node:fs";
const { indexAt, mmOf, shareOf } = await import(process.argv[1]);
const cases = JSON.parse(readFileSync(0, "utf8"));
console.log(JSON.stringify(cases.map(({ grid, index }) => [mmOf(grid, index), indexAt(grid, shareOf(grid, index))])));
"""


def asked(cases):
    """Return what the viewer computes for voxels of grids: position in mm, and index of the share there."""
    grids = [{"grid": {"affine": grid.affine.tolist(), "shape": grid.shape}, "index": index} for grid, index in cases]
    command = [node(), "--input-type=module", "-e", SCRIPT, GEOMETRY_JS.as_uri()]
    said = subprocess.run(command, input=json.dumps(grids), capture_output=True, text=True, check=True, timeout=60)
    return json.loads(said.stdout)


@st.composite
def places(draw):
    """Return a grid, oblique and unequally spaced, and one of its voxels."""
    shape = draw(st.tuples(*[st.integers(2, 40)] * 3))
    spacing = draw(st.tuples(*[st.floats(0.3, 5.0)] * 3))
    origin = draw(st.tuples(*[st.floats(-400, 400)] * 3))
    grid = Grid(shape, ras_affine(spacing, origin, oblique=draw(st.booleans())))
    return grid, tuple(draw(st.integers(0, n - 1)) for n in shape)


@settings(max_examples=5, deadline=None)
@given(st.lists(places(), min_size=30, max_size=30))
def test_viewer_and_server_place_voxels_alike(cases):
    for (grid, index), (mm, again) in zip(cases, asked(cases), strict=True):
        np.testing.assert_allclose(mm, grid.mm_of(index), atol=1e-9)
        assert tuple(again) == index
