/** 3-D: a small copy of the scan with the masks inside it, which a software renderer can turn too. */

/** @import { ColourMap, Grid, Layer, NiivueLibrary, PackedMasks, Triple } from "./types.js" */
/** @import { RasArray } from "./voxels.js" */

import { byAxis } from "./geometry.js";
import { CHANNELS } from "./masks.js";
import { NiivueRendering } from "./niivue_adapter.js";

const LONGEST = 144;
const AIR_HU = -1024;
const HU_PER_STEP = 10;
const BODY_TOP = 199;
const TOP = 255;
const MOST_APART = 14;
/** @type {[step: number, opacity: number, colour: Triple][]} */
const BODY = [
  [0, 0, [0, 0, 0]], [38, 0, [90, 120, 150]], [54, 11, [90, 120, 150]], [72, 0, [90, 120, 150]], [124, 0, [225, 215, 195]],
  [150, 50, [225, 215, 195]], [BODY_TOP, 130, [255, 250, 240]], [200, 0, [0, 0, 0]],
];

/**
 * Draw the scan and its masks.
 *
 * @param {NiivueLibrary} library
 * @param {HTMLCanvasElement} canvas stands in the page
 * @param {{ volume: RasArray, grid: Grid, packed: PackedMasks | null, layers: Layer[] }} scan
 */
export async function openRendering(library, canvas, { volume, grid, packed, layers }) {
  const steps = byAxis((axis) => Math.ceil(grid.shape[axis] / LONGEST));
  const shape = byAxis((axis) => Math.floor(grid.shape[axis] / steps[axis]));
  const voxels = thinned(volume, shape, steps, (hu) => Math.min(BODY_TOP, (hu - AIR_HU) / HU_PER_STEP));
  if (packed) addMasks(voxels, shape, steps, packed, layers.length);
  const covered = { shape: byAxis((axis) => shape[axis] * steps[axis]), spacingMm: grid.spacingMm };
  return NiivueRendering.open(library, canvas, { grid: covered, shape, voxels, colours: coloursOf(layers) });
}

/**
 * The byte of layer number `n`: the bytes of layers lie above those of the body, apart from each other.
 *
 * @param {number} n
 * @param {number} count
 */
export function stepOf(n, count) {
  return TOP - n * Math.min(MOST_APART, Math.floor((TOP - BODY_TOP - 2) / count));
}

/**
 * Colour and opacity by step: a veil where air meets tissue, bones, and the masks opaque inside.
 *
 * @param {Layer[]} layers
 * @returns {ColourMap}
 */
export function coloursOf(layers) {
  const stops = [...BODY, ...layers.map(({ colour }, n) => stopsOf(colour, n, layers.length)).reverse().flat()];
  const [R, G, B] = byAxis((channel) => stops.map(([, , colour]) => Math.round(colour[channel])));
  return { R, G, B, A: stops.map(([, opacity]) => opacity), I: stops.map(([step]) => step) };
}

/**
 * @param {Triple} colour
 * @param {number} n
 * @param {number} count
 * @returns {[number, number, Triple][]}
 */
function stopsOf(colour, n, count) {
  const step = stepOf(n, count);
  /** @type {[number, number, Triple][]} */
  const stops = [
    [step - 1, 0, [0, 0, 0]],
    [step, Math.max(120, TOP - 35 * n), byAxis((channel) => colour[channel] * 255)],
    [step + 1, 0, [0, 0, 0]],
  ];
  return stops.filter(([place]) => place <= TOP);
}

/**
 * One byte per voxel of a coarser grid: the mean of each block of `steps` voxels through `toByte`.
 *
 * @param {RasArray} volume
 * @param {Triple} shape
 * @param {Triple} steps
 * @param {(hu: number) => number} toByte
 */
export function thinned(volume, shape, steps, toByte) {
  const out = new Uint8Array(shape[0] * shape[1] * shape[2]);
  const [di, dj, dk] = steps;
  let at = 0;
  for (let k = 0; k < shape[2]; k += 1) {
    for (let j = 0; j < shape[1]; j += 1) {
      for (let i = 0; i < shape[0]; i += 1, at += 1) {
        let sum = 0;
        for (let c = 0; c < dk; c += 1) {
          for (let b = 0; b < dj; b += 1) {
            let from = volume.offset([i * di, j * dj + b, k * dk + c]);
            for (let a = 0; a < di; a += 1, from += volume.steps[0]) sum += volume.array[from];
          }
        }
        const hu = (sum / (di * dj * dk)) * volume.slope + volume.intercept;
        out[at] = Math.max(0, Math.min(255, toByte(hu)));
      }
    }
  }
  return out;
}

/**
 * Write masks over a coarser grid: a block with a voxel of a mask takes its byte, of several masks that of the first.
 *
 * @param {Uint8Array} out
 * @param {Triple} shape
 * @param {Triple} steps
 * @param {PackedMasks} packed
 * @param {number} count of layers
 */
export function addMasks(out, shape, steps, { low, size, textures }, count) {
  let at = 0;
  for (let k = 0; k < size[2]; k += 1) {
    for (let j = 0; j < size[1]; j += 1) {
      for (let i = 0; i < size[0]; i += 1, at += CHANNELS) {
        const layer = firstAt(textures, at, count);
        if (layer === null) continue;
        const [x, y, z] = [i, j, k].map((n, axis) => Math.floor((low[axis] + n) / steps[axis]));
        if (x >= shape[0] || y >= shape[1] || z >= shape[2]) continue;
        const to = x + shape[0] * (y + shape[1] * z);
        out[to] = Math.max(out[to], stepOf(layer, count));
      }
    }
  }
}

/**
 * @param {Uint8Array[]} textures
 * @param {number} at
 * @param {number} count
 */
function firstAt(textures, at, count) {
  for (let n = 0; n < count; n += 1) {
    if (textures[Math.floor(n / CHANNELS)][at + (n % CHANNELS)]) return n;
  }
  return null;
}
