/** Voxels on the RAS+ grid that the server describes: values in HU, and half floats for the graphics card. */

/** @import { Grid, StoredArray, StoredVoxels, Triple } from "./types.js" */

import { LoadError } from "./errors.js";

const ROUNDER = 1.5 * 2 ** 52; // added and subtracted, it rounds to whole numbers, halves to even, as the server does

/** @param {number} value is rounded to whole HU, halves to even, and clipped to 16 bits */
export function toHu(value) {
  return Math.max(-32768, Math.min(32767, value)) + ROUNDER - ROUNDER;
}

/**
 * Make a typed array, or say that there is no memory for it.
 *
 * @template Kind
 * @param {new (count: number) => Kind} kind
 * @param {number} count
 * @returns {Kind}
 */
export function allocate(kind, count) {
  try {
    return new kind(count);
  } catch (error) {
    if (error instanceof RangeError) throw new LoadError("This browser's memory can't hold the scan.");
    throw error;
  }
}

/** @param {Grid} grid */
export function voxelCountOf({ shape }) {
  return shape[0] * shape[1] * shape[2];
}

/** The array of a file as (I, J, K) toward Right, Anterior, Superior, by the axes and flips of the server. */
export class RasArray {
  /**
   * @param {StoredVoxels} stored
   * @param {Pick<Grid, "shape" | "axes" | "flips">} grid
   */
  constructor({ array, slope, intercept }, { shape, axes, flips }) {
    this.array = array;
    this.slope = slope;
    this.intercept = intercept;
    this.shape = shape;
    /** @type {number[]} */
    const fileShape = [];
    axes.forEach((axis, r) => { fileShape[axis] = shape[r]; });
    const strides = [1, fileShape[0], fileShape[0] * fileShape[1]];
    this.steps = axes.map((axis, r) => strides[axis] * (flips[r] ? -1 : 1));
    this.start = axes.reduce((sum, axis, r) => sum + (flips[r] ? strides[axis] * (shape[r] - 1) : 0), 0);
  }

  /**
   * Place of a voxel in the file's array.
   *
   * @param {Triple} index
   */
  offset([i, j, k]) {
    return this.start + i * this.steps[0] + j * this.steps[1] + k * this.steps[2];
  }

  /**
   * HU of a voxel.
   *
   * @param {Triple} index
   */
  value(index) {
    return toHu(this.array[this.offset(index)] * this.slope + this.intercept);
  }
}

/** Half-precision bits of the integers -32768..32767, at index `value & 0xffff`; exact up to +-2048. */
export function halfTable() {
  const bits = new Uint16Array(65536);
  const single = new Float32Array(1);
  const word = new Uint32Array(single.buffer);
  for (let value = -32768; value < 32768; value += 1) {
    single[0] = value;
    const exponent = ((word[0] >>> 23) & 0xff) - 112;
    const rounded = ((word[0] & 0x7fffff) + 0x1000) >>> 13;
    bits[value & 0xffff] = value === 0 ? 0 : ((word[0] >>> 16) & 0x8000) | ((exponent << 10) + rounded);
  }
  return bits;
}

/**
 * HU as half-precision floats, (I, J, K) with I fastest, as a 3-D texture takes them.
 *
 * @param {RasArray} volume
 */
export function halfFloats(volume) {
  const table = halfTable();
  const { array, slope, intercept, steps, shape } = volume;
  const isPlain = slope === 1 && intercept === 0 && !(array instanceof Uint16Array);
  /** @param {number} stored */
  const halfOf = (stored) => table[toHu(stored * slope + intercept) & 0xffff];
  const lookup = isPlain ? table : table.map((_, bits) => halfOf(storedOf(array, bits)));
  const out = allocate(Uint16Array, array.length);
  let at = 0;
  for (let k = 0; k < shape[2]; k += 1) {
    for (let j = 0; j < shape[1]; j += 1) {
      let from = volume.offset([0, j, k]);
      for (let i = 0; i < shape[0]; i += 1, from += steps[0], at += 1) {
        out[at] = lookup[array[from] & 0xffff];
      }
    }
  }
  return out;
}

/**
 * The stored value whose low 16 bits are `bits`, for an 8- or 16-bit integer array.
 *
 * @param {StoredArray} array
 * @param {number} bits
 */
function storedOf(array, bits) {
  const isSigned = array instanceof Int8Array || array instanceof Int16Array;
  return isSigned && bits >= 32768 ? bits - 65536 : bits;
}
