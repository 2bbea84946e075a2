/** Masks for the graphics card, cut to the box that holds all of them. */

/** @import { PackedMasks, Triple } from "./types.js" */
/** @import { RasArray } from "./voxels.js" */

import { byAxis } from "./geometry.js";
import { allocate } from "./voxels.js";

/** Masks per texture, one in each of its channels. */
export const CHANNELS = 4;

/**
 * A mask: its voxels hold `mark`, or anything but 0 where that is null. Slices without any are skipped by `sliceVoxels`.
 *
 * @typedef {{ volume: RasArray, sliceVoxels: number[], mark: number | null }} MaskVolume
 */

/**
 * Cut masks to the box that holds all of them, with a margin of one voxel. A byte per voxel and mask, 255 inside: mask n
 * stands in channel n % 4 of texture n / 4. Null where all are empty.
 *
 * @param {(MaskVolume | null)[]} masks
 * @returns {PackedMasks | null}
 */
export function packMasks(masks) {
  /** @type {{ low: Triple, high: Triple }} */
  const box = { low: [Infinity, Infinity, Infinity], high: [-1, -1, -1] };
  masks.forEach((mask) => mask && growBox(box, mask));
  if (box.high[0] < 0) return null;
  const low = byAxis((axis) => box.low[axis] - 1);
  const size = byAxis((axis) => box.high[axis] + 2 - low[axis]);
  const voxels = size[0] * size[1] * size[2];
  const textures = Array.from({ length: Math.ceil(masks.length / CHANNELS) }, () => allocate(Uint8Array, CHANNELS * voxels));
  masks.forEach((mask, n) => mask && fillChannel(textures[Math.floor(n / CHANNELS)], n % CHANNELS, mask, low, size));
  return { low, size, textures };
}

/**
 * @param {{ low: Triple, high: Triple }} box
 * @param {MaskVolume} mask
 */
function growBox(box, { volume, sliceVoxels, mark }) {
  const [width, height] = volume.shape;
  sliceVoxels.forEach((count, k) => {
    if (!count) return;
    for (let j = 0; j < height; j += 1) {
      let from = volume.offset([0, j, k]);
      for (let i = 0; i < width; i += 1, from += volume.steps[0]) {
        if (mark === null ? !volume.array[from] : volume.array[from] !== mark) continue;
        [i, j, k].forEach((n, axis) => {
          box.low[axis] = Math.min(box.low[axis], n);
          box.high[axis] = Math.max(box.high[axis], n);
        });
      }
    }
  });
}

/**
 * @param {Uint8Array} texture
 * @param {number} channel
 * @param {MaskVolume} mask
 * @param {Triple} low
 * @param {Triple} size
 */
function fillChannel(texture, channel, { volume, mark }, low, size) {
  const first = byAxis((axis) => low[axis] + 1);
  const end = byAxis((axis) => low[axis] + size[axis] - 1);
  for (let k = first[2]; k < end[2]; k += 1) {
    for (let j = first[1]; j < end[1]; j += 1) {
      let from = volume.offset([first[0], j, k]);
      let to = CHANNELS * (1 + size[0] * (j - low[1] + size[1] * (k - low[2]))) + channel;
      for (let i = first[0]; i < end[0]; i += 1, from += volume.steps[0], to += CHANNELS) {
        if (mark === null ? volume.array[from] : volume.array[from] === mark) texture[to] = 255;
      }
    }
  }
}
