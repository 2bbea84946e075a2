/** @import { Tile } from "../../lungseg/ui/viewer/types.js" */

import assert from "node:assert/strict";
import { test } from "node:test";

import {
  clamped, indexAt, isInside, mmOf, placeText, PLANES, pointOf, shareOf, shareUnder,
} from "../../lungseg/ui/viewer/geometry.js";
import { paneAt, panesFor } from "../../lungseg/ui/viewer/layout.js";
import { barsOf } from "../../lungseg/ui/viewer/strip.js";
import { GRID } from "./cases.js";

test("a voxel's middle in patient space", () => {
  assert.deepEqual(mmOf(GRID, [1, 2, 1]), [-8, 26, -25]);
  const oblique = { ...GRID, affine: [[0, -3, 0, 1], [2, 0, 0, 2], [0, 0, 5, 3]] };
  assert.deepEqual(mmOf(oblique, [1, 2, 1]), [-5, 4, 8]);
  assert.equal(placeText([-8, 26, -25]), "L 8.0  A 26.0  I 25.0 mm");
  assert.equal(placeText([8.4, -26, 25], 0), "R 8  P 26  S 25 mm");
});

test("index and share of the box are each other's way back", () => {
  for (let i = 0; i < 4; i += 1) {
    for (let k = 0; k < 2; k += 1) assert.deepEqual(indexAt(GRID, shareOf(GRID, [i, 1, k])), [i, 1, k]);
  }
  assert.ok(!isInside(GRID, indexAt(GRID, [1.01, 0.5, 0.5])));
  assert.ok(!isInside(GRID, indexAt(GRID, [-0.01, 0.5, 0.5])));
  assert.deepEqual(clamped(GRID, [-Infinity, 1.6, Infinity]), [0, 2, 1]);
});

/** @type {Tile} the patient's right is at the left, so millimetres run from right to left */
const TILE = { box: [100, 50, 80, 40], leftBottomMm: [4, -5], fieldMm: [-8, 10] };

test("a point of the picture and a share of the box are each other's way back", () => {
  for (const plane of PLANES) {
    const share = shareUnder(GRID, plane, TILE, [123, 61], 0.25);
    assert.equal(share[plane.normal], 0.25);
    const [x, y] = pointOf(GRID, plane, TILE, share);
    assert.ok(Math.abs(x - 123) < 1e-9 && Math.abs(y - 61) < 1e-9);
  }
  const [axial] = PLANES;
  assert.deepEqual(shareUnder(GRID, axial, TILE, [100, 90], 0.5), [1, -5 / 9 + 0.5, 0.5]);
});

test("panes fill the stage without a gap, and beside them there is none", () => {
  for (const [width, height] of [[1600, 900], [800, 1200], [500, 500]]) {
    const { panes, rendering } = panesFor(width, height, null);
    assert.ok(rendering);
    const area = [...panes.map(({ position }) => position), rendering].reduce((sum, [, , w, h]) => sum + w * h, 0);
    assert.ok(Math.abs(area - 1) < 1e-9);
    panes.forEach(({ position: [left, top, w, h] }, at) => assert.equal(paneAt(panes, left + w / 2, top + h / 2), at));
    assert.equal(paneAt(panes, rendering[0] + 0.01, rendering[1] + 0.01), null);
    assert.equal(paneAt(panes, -0.1, 0.5), null);
  }
  assert.deepEqual(panesFor(100, 100, "coronal").panes.map(({ plane }) => plane.name), ["coronal"]);
  assert.deepEqual(panesFor(100, 100, "rendering").rendering, [0, 0, 1, 1]);
});

test("bars of the strip stay in their columns, whatever their number", () => {
  for (const columns of [1, 2, 3, 4]) {
    for (let column = 0; column < columns; column += 1) {
      const bars = barsOf([0, 1, 100], column, columns, 26);
      assert.deepEqual(bars.map(({ k }) => k), [1, 2]);
      for (const { left, length } of bars) {
        assert.ok(left >= (column * 26) / columns && left + length <= ((column + 1) * 26) / columns && length > 0);
      }
    }
  }
});
