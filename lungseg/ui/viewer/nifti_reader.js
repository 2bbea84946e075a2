/** Reads the stored voxels of a NIfTI file, by the same rules as `lungseg/scans/nifti.py`; the loading worker runs it. */

/** @import { StoredArray, StoredVoxels } from "./types.js" */

import { EndsEarly, LoadError } from "./errors.js";
import { allocate, toHu } from "./voxels.js";

/** @typedef {Int32ArrayConstructor | Uint32ArrayConstructor | Float32ArrayConstructor | Float64ArrayConstructor
 *   | BigInt64ArrayConstructor | BigUint64ArrayConstructor} LongKind */
/**
 * @typedef {object} Header
 * @property {number} length
 * @property {number} type
 * @property {boolean} isLittle
 * @property {number} offset
 * @property {number} slope
 * @property {number} intercept
 */

/** @type {Record<number, new (count: number) => StoredArray>} */
const SHORT_TYPES = { 2: Uint8Array, 256: Int8Array, 4: Int16Array, 512: Uint16Array };
/** @type {Record<number, LongKind>} */
const LONG_TYPES = {
  8: Int32Array, 768: Uint32Array, 16: Float32Array, 64: Float64Array, 1024: BigInt64Array, 1280: BigUint64Array,
};
const FIRST = {
  length: 348,
  rank: (/** @type {DataView} */ view) => view.getInt16(40, true),
  fields: (/** @type {DataView} */ view, /** @type {boolean} */ isLittle) => ({
    type: view.getInt16(70, isLittle), offset: view.getFloat32(108, isLittle),
    slope: view.getFloat32(112, isLittle), intercept: view.getFloat32(116, isLittle),
  }),
};
const SECOND = {
  length: 540,
  rank: (/** @type {DataView} */ view) => Number(view.getBigInt64(16, true)),
  fields: (/** @type {DataView} */ view, /** @type {boolean} */ isLittle) => ({
    type: view.getInt16(12, isLittle), offset: Number(view.getBigInt64(168, isLittle)),
    slope: view.getFloat64(176, isLittle), intercept: view.getFloat64(184, isLittle),
  }),
};
const BLOCK_VOXELS = 65536;

/**
 * Fetch a file and read its first `voxelCount` voxels; the server inflates it for a browser that stops too early. Integers
 * of one or two bytes are returned as stored with their scaling, all others as HU.
 *
 * @param {string} url
 * @param {number} voxelCount
 * @param {(bytes: number) => void} [onProgress] gets the number of bytes received so far
 * @returns {Promise<StoredVoxels>}
 */
export async function fetchVoxels(url, voxelCount, onProgress) {
  try {
    return await streamVoxels(url, voxelCount, onProgress);
  } catch (error) {
    if (!(error instanceof EndsEarly) && !(error instanceof TypeError)) throw error;
    return streamVoxels(`${url}?inflated=1`, voxelCount, onProgress);
  }
}

/**
 * Read a file while it arrives, up to its last voxel.
 *
 * @param {string} url
 * @param {number} voxelCount
 * @param {(bytes: number) => void} [onProgress]
 */
async function streamVoxels(url, voxelCount, onProgress) {
  const response = await fetch(url);
  if (response.status === 403) throw new LoadError("The address of the scan has expired. Reload the page.");
  if (!response.ok || !response.body) throw new LoadError(`The server answered ${response.status}. Reload the page.`);
  const source = new Source(response.body.getReader(), onProgress);
  try {
    return await readVoxels(source, voxelCount);
  } finally {
    source.close();
  }
}

/** The bytes of an answer, in any amounts. */
export class Source {
  /**
   * @param {ReadableStreamDefaultReader<Uint8Array>} reader
   * @param {(bytes: number) => void} [onProgress]
   */
  constructor(reader, onProgress) {
    this.reader = reader;
    this.onProgress = onProgress;
    this.received = 0;
    /** @type {Uint8Array} */
    this.part = new Uint8Array(0);
  }

  /**
   * Return up to `most` bytes that have arrived, at least one.
   *
   * @param {number} most
   */
  async take(most) {
    while (!this.part.length) {
      const { done, value } = await this.reader.read();
      if (done) throw new EndsEarly("The file ends before its voxels do. Export it again.");
      this.part = value;
      this.received += value.length;
      this.onProgress?.(this.received);
    }
    const bytes = this.part.subarray(0, most);
    this.part = this.part.subarray(bytes.length);
    return bytes;
  }

  /** @param {Uint8Array} target */
  async fill(target) {
    for (let filled = 0; filled < target.length;) {
      const bytes = await this.take(target.length - filled);
      target.set(bytes, filled);
      filled += bytes.length;
    }
  }

  /** @param {number} count */
  async skip(count) {
    for (let left = count; left > 0;) left -= (await this.take(left)).length;
  }

  /** Cancel the rest. An answer that ends here is read to its end first, so that the browser caches it. */
  close() {
    const next = this.part.length ? Promise.resolve({ done: false }) : this.reader.read();
    next.then(({ done }) => (done ? null : this.reader.cancel())).catch(() => {});
  }
}

/**
 * @param {Source} source
 * @param {number} voxelCount
 * @returns {Promise<StoredVoxels>}
 */
async function readVoxels(source, voxelCount) {
  const header = await readHeader(source);
  const { type, isLittle, slope, intercept } = header;
  await source.skip(header.offset - header.length);
  if (type in SHORT_TYPES) {
    /** @type {StoredArray} */
    const array = allocate(SHORT_TYPES[type], voxelCount);
    await readStored(source, array, isLittle);
    return { array, slope, intercept };
  }
  const array = allocate(Int16Array, voxelCount);
  const block = new LONG_TYPES[type](Math.min(voxelCount, BLOCK_VOXELS));
  for (let first = 0; first < voxelCount; first += block.length) {
    const stored = block.subarray(0, voxelCount - first);
    await readStored(source, stored, isLittle);
    for (let n = 0; n < stored.length; n += 1) array[first + n] = toHu(Number(stored[n]) * slope + intercept);
  }
  return { array, slope: 1, intercept: 0 };
}

/**
 * Fill a typed array with the next values of a file.
 *
 * @param {Source} source
 * @param {StoredArray | InstanceType<LongKind>} array
 * @param {boolean} isLittle
 */
async function readStored(source, array, isLittle) {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  await source.fill(bytes);
  if (!isLittle) swapBytes(bytes, array.BYTES_PER_ELEMENT);
}

/**
 * Read the header of a NIfTI-1 or NIfTI-2 file; the first number of `dim` tells the byte order.
 *
 * @param {Pick<Source, "fill">} source
 * @returns {Promise<Header>}
 */
export async function readHeader(source) {
  const bytes = new Uint8Array(SECOND.length);
  await source.fill(bytes.subarray(0, FIRST.length));
  /** @param {number} offset */
  const magicAt = (offset) => String.fromCharCode(...bytes.subarray(offset, offset + 4));
  const isFirst = magicAt(344) === "n+1\0";
  if (!isFirst && magicAt(4) !== "n+2\0") throw new LoadError("The file is no NIfTI file.");
  if (!isFirst) await source.fill(bytes.subarray(FIRST.length));
  const { length, rank, fields } = isFirst ? FIRST : SECOND;
  const view = new DataView(bytes.buffer);
  const isLittle = rank(view) >= 1 && rank(view) <= 7;
  const { type, offset, slope, intercept } = fields(view, isLittle);
  if (!(type in SHORT_TYPES) && !(type in LONG_TYPES)) {
    throw new LoadError(`The browser can't show voxels of NIfTI datatype ${type}.`);
  }
  if (!(offset >= 0 && offset < Infinity)) throw new LoadError(`The header is damaged: its voxels begin at ${offset}.`);
  const scaling = Number.isFinite(slope) && slope !== 0 ? { slope, intercept } : { slope: 1, intercept: 0 };
  return { length, type, isLittle, offset: Math.max(Math.trunc(offset), length + 4), ...scaling };
}

/**
 * @param {Uint8Array} bytes
 * @param {number} width bytes per value
 */
function swapBytes(bytes, width) {
  for (let first = 0; first < bytes.length; first += width) bytes.subarray(first, first + width).reverse();
}
