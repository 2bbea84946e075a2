// Voxels: from the bytes of a NIfTI file to the RAS+ grid that the server describes. Knows no screen and no NiiVue; the
// page and its loading worker both run this file. `lungseg/scans/nifti.py` reads the same files by the same rules.

const NIFTI_TYPES = {
  2: Uint8Array, 256: Int8Array, 4: Int16Array, 512: Uint16Array, 8: Int32Array, 768: Uint32Array,
  16: Float32Array, 64: Float64Array, 1024: BigInt64Array, 1280: BigUint64Array,
};
const FIRST_BYTES = 348;
const SECOND_BYTES = 540;
const BLOCK_VOXELS = 65536;
const ROUNDER = 1.5 * 2 ** 52; // added and taken away it rounds to whole numbers, halves to even, as the server does

class LoadError extends Error {}

class EndsEarly extends LoadError {}

/**
 * Fetch a file and read its first `voxelCount` voxels; a browser that stops inflating early is sent the bytes as they are.
 * `onProgress` is told the bytes received so far. Returns {array, slope, intercept}: stored integers of one or two bytes
 * with their scaling, anything else as HU.
 */
async function fetchVoxels(url, voxelCount, onProgress) {
  try {
    return await streamVoxels(url, voxelCount, onProgress);
  } catch (error) {
    if (!(error instanceof EndsEarly) && !(error instanceof TypeError)) throw error;
    return streamVoxels(`${url}?inflated=1`, voxelCount, onProgress);
  }
}

/** Read a file as it comes, up to its last voxel. */
async function streamVoxels(url, voxelCount, onProgress) {
  const response = await fetch(url);
  if (response.status === 403) throw new LoadError("The address of the scan has expired. Reload the page.");
  if (!response.ok) throw new LoadError(`The server answered ${response.status}. Reload the page.`);
  const source = new Source(response.body.getReader(), onProgress);
  try {
    return await readNifti(source, voxelCount);
  } finally {
    source.leave();
  }
}

/** The bytes of an answer, in the amounts that are asked for. */
class Source {
  constructor(reader, onProgress) {
    this.reader = reader;
    this.onProgress = onProgress;
    this.received = 0;
    this.part = new Uint8Array(0);
  }

  /** Return up to `most` bytes that have come, at least one. */
  async take(most) {
    while (!this.part.length) {
      const { done, value } = await this.reader.read();
      if (done) throw new EndsEarly("The file ends before its voxels do. Export it again.");
      this.part = value;
      this.received += value.length;
      this.onProgress?.(this.received);
    }
    const taken = this.part.subarray(0, most);
    this.part = this.part.subarray(taken.length);
    return taken;
  }

  async fill(target) {
    for (let at = 0; at < target.length;) {
      const bytes = await this.take(target.length - at);
      target.set(bytes, at);
      at += bytes.length;
    }
  }

  async skip(count) {
    for (let left = count; left > 0;) left -= (await this.take(left)).length;
  }

  /** Ask for no more. An answer that ends here is read to its end first, so that the browser keeps it. */
  leave() {
    const next = this.part.length ? Promise.resolve({ done: false }) : this.reader.read();
    next.then(({ done }) => done || this.reader.cancel()).catch(() => {});
  }
}

async function readNifti(source, voxelCount) {
  const header = await readHeader(source);
  const { Kind, slope, intercept } = header;
  await source.skip(header.offset - header.length);
  if (Kind.BYTES_PER_ELEMENT <= 2) {
    const array = allocate(Kind, voxelCount);
    await readStored(source, array, header);
    return { array, slope, intercept };
  }
  const array = allocate(Int16Array, voxelCount);
  const block = new Kind(Math.min(voxelCount, BLOCK_VOXELS));
  for (let first = 0; first < voxelCount; first += block.length) {
    const stored = block.subarray(0, voxelCount - first);
    await readStored(source, stored, header);
    for (let at = 0; at < stored.length; at += 1) array[first + at] = toHu(Number(stored[at]) * slope + intercept);
  }
  return { array, slope: 1, intercept: 0 };
}

/** Fill a typed array with the next values of a file. */
async function readStored(source, array, { isLittle }) {
  const bytes = new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
  await source.fill(bytes);
  if (!isLittle) swapBytes(bytes, array.BYTES_PER_ELEMENT);
}

/** Read the header of a NIfTI-1 or NIfTI-2 file; the first number of `dim` tells the byte order. */
async function readHeader(source) {
  const bytes = new Uint8Array(SECOND_BYTES);
  await source.fill(bytes.subarray(0, FIRST_BYTES));
  const mark = (at) => String.fromCharCode(...bytes.subarray(at, at + 4));
  const isFirst = mark(344) === "n+1\0";
  if (!isFirst && mark(4) !== "n+2\0") throw new LoadError("The file is no NIfTI file.");
  if (!isFirst) await source.fill(bytes.subarray(FIRST_BYTES));
  const length = isFirst ? FIRST_BYTES : SECOND_BYTES;
  const view = new DataView(bytes.buffer);
  const rank = isFirst ? view.getInt16(40, true) : view.getBigInt64(16, true);
  const isLittle = rank >= 1 && rank <= 7;
  const type = view.getInt16(isFirst ? 70 : 12, isLittle);
  const offset = isFirst ? view.getFloat32(108, isLittle) : Number(view.getBigInt64(168, isLittle));
  const slope = isFirst ? view.getFloat32(112, isLittle) : view.getFloat64(176, isLittle);
  const intercept = isFirst ? view.getFloat32(116, isLittle) : view.getFloat64(184, isLittle);
  const Kind = NIFTI_TYPES[type];
  if (!Kind) throw new LoadError(`The browser can't show voxels of NIfTI datatype ${type}.`);
  if (!(offset >= 0 && offset < Infinity)) throw new LoadError(`The header is damaged: its voxels begin at ${offset}.`);
  const isScaled = Number.isFinite(slope) && slope !== 0;
  return {
    length, Kind, isLittle, offset: Math.max(Math.trunc(offset), length + 4), slope: isScaled ? slope : 1,
    intercept: isScaled ? intercept : 0,
  };
}

function allocate(Kind, count) {
  try {
    return new Kind(count);
  } catch (error) {
    if (error instanceof RangeError) throw new LoadError("This browser's memory can't hold the scan.");
    throw error;
  }
}

function swapBytes(bytes, width) {
  for (let first = 0; first < bytes.length; first += width) {
    for (let low = first, high = first + width - 1; low < high; low += 1, high -= 1) {
      const byte = bytes[low];
      bytes[low] = bytes[high];
      bytes[high] = byte;
    }
  }
}

/** Round to whole HU, halves to even, and clip to 16 bits. */
function toHu(value) {
  return Math.max(-32768, Math.min(32767, value)) + ROUNDER - ROUNDER;
}

/** The array of a file seen as (I, J, K) toward Right, Anterior, Superior, by the axes and flips the server found. */
class RasArray {
  constructor({ array, slope, intercept }, grid) {
    this.array = array;
    this.slope = slope;
    this.intercept = intercept;
    this.shape = grid.shape;
    const fileShape = [];
    grid.axes.forEach((axis, r) => { fileShape[axis] = grid.shape[r]; });
    const strides = [1, fileShape[0], fileShape[0] * fileShape[1]];
    this.steps = grid.axes.map((axis, r) => strides[axis] * (grid.flips[r] ? -1 : 1));
    this.start = grid.axes.reduce((at, axis, r) => at + (grid.flips[r] ? strides[axis] * (grid.shape[r] - 1) : 0), 0);
  }

  offset([i, j, k]) {
    return this.start + i * this.steps[0] + j * this.steps[1] + k * this.steps[2];
  }

  value(index) {
    return toHu(this.array[this.offset(index)] * this.slope + this.intercept);
  }
}

/** Half-precision bits of the integers -32768..32767, at index `value & 0xffff`; exact up to +-2048. */
function halfTable() {
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

/** HU as half-precision floats, (I, J, K) with I fastest, as a 3-D texture takes them. */
function halfFloats(volume) {
  const table = halfTable();
  const { array, slope, intercept, steps, shape } = volume;
  const isPlain = slope === 1 && intercept === 0 && !(array instanceof Uint16Array);
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

/** The stored value whose low 16 bits are `bits`, for an 8- or 16-bit integer array. */
function storedOf(array, bits) {
  const isSigned = array instanceof Int8Array || array instanceof Int16Array;
  return isSigned && bits >= 32768 ? bits - 65536 : bits;
}

/**
 * Cut masks to the box that holds all of them and one voxel more; a byte a voxel for each mask. `masks` holds
 * {volume, sliceVoxels, mark} or null for each; `mark` is the value of its voxels, null for any but 0. Returns {low, size, data}, or null where all are empty.
 */
function packMarks(masks) {
  const box = { low: [Infinity, Infinity, Infinity], high: [-1, -1, -1] };
  masks.forEach((mask) => mask && growBox(box, mask));
  if (box.high[0] < 0) return null;
  const low = box.low.map((n) => n - 1);
  const size = box.high.map((n, axis) => n + 2 - low[axis]);
  const data = new Uint8Array(masks.length * size[0] * size[1] * size[2]);
  masks.forEach((mask, channel) => mask && fillMarks(data, [channel, masks.length], mask, low, size));
  return { low, size, data };
}

function growBox(box, { volume, sliceVoxels, mark }) {
  const [width, height] = volume.shape;
  sliceVoxels.forEach((count, k) => {
    if (!count) return;
    for (let j = 0; j < height; j += 1) {
      let from = volume.offset([0, j, k]);
      for (let i = 0; i < width; i += 1, from += volume.steps[0]) {
        if (mark ? volume.array[from] !== mark : !volume.array[from]) continue;
        [i, j, k].forEach((n, axis) => {
          box.low[axis] = Math.min(box.low[axis], n);
          box.high[axis] = Math.max(box.high[axis], n);
        });
      }
    }
  });
}

function fillMarks(data, [channel, channels], { volume, mark }, low, size) {
  const inner = [1, 1, 1].map((_, axis) => [low[axis] + 1, low[axis] + size[axis] - 1]);
  for (let k = inner[2][0]; k < inner[2][1]; k += 1) {
    for (let j = inner[1][0]; j < inner[1][1]; j += 1) {
      let from = volume.offset([inner[0][0], j, k]);
      let to = channels * (1 + size[0] * (j - low[1] + size[1] * (k - low[2]))) + channel;
      for (let i = inner[0][0]; i < inner[0][1]; i += 1, from += volume.steps[0], to += channels) {
        if (mark ? volume.array[from] === mark : volume.array[from]) data[to] = 255;
      }
    }
  }
}
