import assert from "node:assert/strict";
import { test } from "node:test";

import { byAxis } from "../../lungseg/ui/viewer/geometry.js";
import { halfFloats, halfTable, RasArray, toHu } from "../../lungseg/ui/viewer/voxels.js";
import { counted, GRID } from "./cases.js";

/**
 * The number that half-precision bits stand for.
 *
 * @param {number} bits
 */
function valueOfHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1;
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

test("half floats are exact where they can be, and the nearest elsewhere", () => {
  const table = halfTable();
  for (let value = -32768; value < 32768; value += 1) {
    const half = valueOfHalf(table[value & 0xffff]);
    const gap = Math.abs(value) <= 2048 ? 0 : 2 ** (Math.floor(Math.log2(Math.abs(value))) - 10) / 2;
    assert.ok(Math.abs(half - value) <= gap, `${value}: ${half}`);
  }
});

test("HU are rounded halves to even and clipped to 16 bits", () => {
  assert.deepEqual([0.5, 1.5, -0.5, -1.5, 40000, -40000].map(toHu), [0, 2, 0, -2, 32767, -32768]);
});

test("axes and flips of the file lead to RAS", () => {
  const volume = new RasArray(counted(Int16Array), { shape: [4, 3, 2], axes: [2, 0, 1], flips: [true, false, true] });
  // The file is (3, 2, 4): its first axis runs to A, its second to I, its third to L.
  for (const [i, j, k] of [[0, 0, 0], [3, 2, 1], [1, 2, 0]]) {
    assert.equal(volume.value([i, j, k]), j + 3 * (1 - k) + 6 * (3 - i));
  }
});

for (const kind of [Uint8Array, Int8Array, Int16Array, Uint16Array]) {
  test(`half floats of ${kind.name} are the HU, in RAS order`, () => {
    const scaled = { ...counted(kind), slope: kind === Int16Array ? 1 : 2.5, intercept: kind === Int16Array ? 0 : -10 };
    const volume = new RasArray(scaled, { ...GRID, flips: [true, false, false] });
    const halves = halfFloats(volume);
    const [width, height] = GRID.shape;
    halves.forEach((bits, at) => {
      const [i, j, k] = byAxis((axis) => [at % width, Math.floor(at / width) % height, Math.floor(at / width / height)][axis]);
      assert.equal(valueOfHalf(bits), volume.value([i, j, k]));
    });
  });
}

test("negative and large stored values keep their sign", () => {
  const signed = new RasArray({ array: Int8Array.of(-128, 127), slope: 2, intercept: 0 }, { ...GRID, shape: [2, 1, 1] });
  assert.deepEqual([...halfFloats(signed)].map(valueOfHalf), [-256, 254]);
  const large = new RasArray({ array: Uint16Array.of(0, 65535), slope: 0.5, intercept: -1024 }, { ...GRID, shape: [2, 1, 1] });
  assert.deepEqual([large.value([0, 0, 0]), large.value([1, 0, 0])], [-1024, 31744]);
  assert.deepEqual([...halfFloats(large)].map(valueOfHalf), [-1024, 31744]);
});
