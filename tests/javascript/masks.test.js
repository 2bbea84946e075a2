/** @import { Triple } from "../../lungseg/ui/viewer/types.js" */

import assert from "node:assert/strict";
import { test } from "node:test";

import { CHANNELS, packMasks } from "../../lungseg/ui/viewer/masks.js";
import { addMasks, coloursOf, stepOf, thinned } from "../../lungseg/ui/viewer/volume_rendering.js";
import { RasArray } from "../../lungseg/ui/viewer/voxels.js";
import { layer } from "./cases.js";

/** @type {Triple} */
const SHAPE = [5, 4, 3];
const PLAIN = { shape: SHAPE, axes: /** @type {Triple} */ ([0, 1, 2]), flips: /** @type {[boolean, boolean, boolean]} */ ([false, false, false]) };

/**
 * @param {[Triple, number][]} voxels
 * @param {number | null} mark
 */
function maskOf(voxels, mark = null) {
  const array = new Uint8Array(60);
  for (const [[i, j, k], value] of voxels) array[i + 5 * (j + 4 * k)] = value;
  const sliceVoxels = [0, 1, 2].map((k) => voxels.filter(([index]) => index[2] === k).length);
  return { volume: new RasArray({ array, slope: 1, intercept: 0 }, PLAIN), sliceVoxels, mark };
}

/**
 * What a packed mask holds of a voxel of the scan.
 *
 * @param {NonNullable<ReturnType<typeof packMasks>>} packed
 * @param {number} n
 * @param {Triple} index
 */
function packedAt({ low, size, textures }, n, index) {
  const [i, j, k] = index.map((at, axis) => at - low[axis]);
  return textures[Math.floor(n / CHANNELS)][CHANNELS * (i + size[0] * (j + size[1] * k)) + (n % CHANNELS)];
}

test("masks are cut to the box that holds all of them and one voxel more", () => {
  const packed = packMasks([maskOf([[[1, 1, 0], 1]]), null, maskOf([[[3, 2, 2], 1]])]);
  assert.ok(packed);
  assert.deepEqual([packed.low, packed.size, packed.textures.length], [[0, 0, -1], [5, 4, 5], 1]);
  assert.equal(packed.textures[0].reduce((sum, value) => sum + Number(value > 0), 0), 2);
  assert.equal(packedAt(packed, 0, [1, 1, 0]), 255);
  assert.equal(packedAt(packed, 2, [3, 2, 2]), 255);
  assert.equal(packedAt(packed, 0, [3, 2, 2]), 0);
});

test("a mark tells voxels of one mask from others", () => {
  const packed = packMasks([maskOf([[[1, 1, 1], 1], [[2, 1, 1], 2]], 2)]);
  assert.ok(packed);
  assert.deepEqual([packed.low, packed.size], [[1, 0, 0], [3, 3, 3]]);
  assert.deepEqual([packedAt(packed, 0, [1, 1, 1]), packedAt(packed, 0, [2, 1, 1])], [0, 255]);
});

test("more masks than a texture has channels take another one", () => {
  const packed = packMasks([0, 1, 2, 3, 4].map((i) => maskOf([[[i, 2, 1], 1]])));
  assert.ok(packed);
  assert.equal(packed.textures.length, 2);
  [0, 1, 2, 3, 4].forEach((n) => [0, 1, 2, 3, 4].forEach((i) => {
    assert.equal(packedAt(packed, n, [i, 2, 1]), i === n ? 255 : 0);
  }));
});

test("nothing is packed of empty masks", () => {
  assert.equal(packMasks([null, maskOf([])]), null);
  assert.equal(packMasks([]), null);
});

test("in 3-D the first layer covers the others, and every layer lies above the body", () => {
  const packed = packMasks([null, maskOf([[[1, 1, 1], 1]]), maskOf([[[1, 1, 1], 1], [[3, 1, 1], 1]])]);
  assert.ok(packed);
  const out = new Uint8Array(60);
  addMasks(out, SHAPE, [1, 1, 1], packed, 3);
  assert.deepEqual([out[1 + 5 * 5], out[3 + 5 * 5], out[2 + 5 * 5]], [stepOf(1, 3), stepOf(2, 3), 0]);
  for (const count of [1, 3, 12]) {
    const steps = [...Array(count).keys()].map((at) => stepOf(at, count));
    assert.ok(Math.min(...steps) > 200 && steps.every((step, at) => !at || steps[at - 1] - step >= 3), `${steps}`);
    const { I } = coloursOf(steps.map((_, at) => layer(`l${at}`)));
    assert.deepEqual(I, [...I].sort((a, b) => a - b));
    assert.equal(I.at(-1), 255);
  }
});

test("a coarser grid holds the mean of each block", () => {
  const array = Int16Array.from({ length: 60 }, (_, at) => at);
  const volume = new RasArray({ array, slope: 2, intercept: 1 }, PLAIN);
  const out = thinned(volume, [2, 2, 1], [2, 2, 3], (hu) => hu);
  assert.equal(out[0], Math.floor(2 * ((0 + 1 + 5 + 6) / 4 + 20) + 1));
});
