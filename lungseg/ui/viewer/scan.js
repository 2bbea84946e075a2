// Voxels: from the bytes of a NIfTI file to the RAS+ grid that the server describes. Knows no screen and no NiiVue; the
// page and its loading worker both run this file.

const NIFTI_TYPES = {
  2: Uint8Array, 256: Int8Array, 4: Int16Array, 512: Uint16Array, 8: Int32Array, 768: Uint32Array,
  16: Float32Array, 64: Float64Array, 1024: BigInt64Array, 1280: BigUint64Array,
};

class LoadError extends Error {}

/** Fetch a file whole; `onProgress` is told the bytes received so far. */
async function fetchBytes(url, onProgress) {
  const response = await fetch(url);
  if (response.status === 403) throw new LoadError("The address of the scan has expired. Reload the page.");
  if (!response.ok) throw new LoadError(`The server answered ${response.status}. Reload the page.`);
  const chunks = [];
  let received = 0;
  const reader = response.body.getReader();
  for (let part = await reader.read(); !part.done; part = await reader.read()) {
    chunks.push(part.value);
    received += part.value.length;
    onProgress?.(received);
  }
  const bytes = new Uint8Array(received);
  chunks.reduce((at, chunk) => (bytes.set(chunk, at), at + chunk.length), 0);
  return bytes.buffer;
}

/** Fetch a file and read its voxels; a browser that stops inflating early is sent the bytes as they are. */
async function fetchVoxels(url, voxelCount, onProgress) {
  try {
    return readNifti(await fetchBytes(url, onProgress), voxelCount);
  } catch (error) {
    if (!(error instanceof RangeError) && !(error instanceof TypeError)) throw error;
    return readNifti(await fetchBytes(`${url}?inflated=1`, onProgress), voxelCount);
  }
}

/** Read header and voxels of a NIfTI-1 or NIfTI-2 file, either byte order. Returns {array, slope, intercept}. */
function readNifti(buffer, voxelCount) {
  const view = new DataView(buffer);
  const isLittle = [348, 540].includes(view.getInt32(0, true));
  const isFirst = view.getInt32(0, isLittle) === 348;
  const type = view.getInt16(isFirst ? 70 : 12, isLittle);
  const offset = isFirst ? view.getFloat32(108, isLittle) : Number(view.getBigInt64(168, isLittle));
  const slope = isFirst ? view.getFloat32(112, isLittle) : view.getFloat64(176, isLittle);
  const intercept = isFirst ? view.getFloat32(116, isLittle) : view.getFloat64(184, isLittle);
  const Kind = NIFTI_TYPES[type];
  if (!Kind) throw new LoadError(`The browser can't show voxels of NIfTI datatype ${type}.`);
  const array = typedView(buffer, Kind, offset || (isFirst ? 352 : 544), voxelCount, isLittle);
  const isScaled = Number.isFinite(slope) && slope !== 0;
  return { array, slope: isScaled ? slope : 1, intercept: isScaled && Number.isFinite(intercept) ? intercept : 0 };
}

function typedView(buffer, Kind, offset, count, isLittle) {
  const width = Kind.BYTES_PER_ELEMENT;
  if (buffer.byteLength < offset + count * width) throw new RangeError("The file ends before its voxels do.");
  const isPlaced = offset % width === 0;
  if (!isLittle && width > 1) {
    const bytes = new Uint8Array(buffer.slice(offset, offset + count * width));
    for (let at = 0; at < bytes.length; at += width) bytes.subarray(at, at + width).reverse();
    buffer = bytes.buffer;
    offset = 0;
  } else if (!isPlaced) {
    buffer = buffer.slice(offset, offset + count * width);
    offset = 0;
  }
  const array = new Kind(buffer, offset, count);
  return Kind === BigInt64Array || Kind === BigUint64Array ? Float64Array.from(array, Number) : array;
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
    return this.array[this.offset(index)] * this.slope + this.intercept;
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
  const isInteger = array.BYTES_PER_ELEMENT <= 2;
  const toHu = (stored) => Math.max(-32768, Math.min(32767, Math.round(stored * slope + intercept)));
  const isPlain = slope === 1 && intercept === 0 && !(array instanceof Uint16Array);
  const lookup = isInteger && !isPlain ? table.map((_, bits) => table[toHu(storedOf(array, bits)) & 0xffff]) : table;
  const out = new Uint16Array(array.length);
  let at = 0;
  for (let k = 0; k < shape[2]; k += 1) {
    for (let j = 0; j < shape[1]; j += 1) {
      let from = volume.offset([0, j, k]);
      for (let i = 0; i < shape[0]; i += 1, from += steps[0], at += 1) {
        out[at] = isInteger ? lookup[array[from] & 0xffff] : table[toHu(array[from]) & 0xffff];
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
 * Cut masks to the box that holds all of them and one voxel more; two bytes a voxel: model, reference. `masks` holds
 * {volume, sliceVoxels} or null for each. Returns {low, size, data}, or null where all are empty.
 */
function packMarks(masks) {
  const box = { low: [Infinity, Infinity, Infinity], high: [-1, -1, -1] };
  masks.forEach((mask) => mask && growBox(box, mask));
  if (box.high[0] < 0) return null;
  const low = box.low.map((n) => n - 1);
  const size = box.high.map((n, axis) => n + 2 - low[axis]);
  const data = new Uint8Array(2 * size[0] * size[1] * size[2]);
  masks.forEach((mask, channel) => mask && fillMarks(data, channel, mask, low, size));
  return { low, size, data };
}

function growBox(box, { volume, sliceVoxels }) {
  const [width, height] = volume.shape;
  sliceVoxels.forEach((count, k) => {
    if (!count) return;
    for (let j = 0; j < height; j += 1) {
      let from = volume.offset([0, j, k]);
      for (let i = 0; i < width; i += 1, from += volume.steps[0]) {
        if (!volume.array[from]) continue;
        [i, j, k].forEach((n, axis) => {
          box.low[axis] = Math.min(box.low[axis], n);
          box.high[axis] = Math.max(box.high[axis], n);
        });
      }
    }
  });
}

function fillMarks(data, channel, { volume }, low, size) {
  const inner = [1, 1, 1].map((_, axis) => [low[axis] + 1, low[axis] + size[axis] - 1]);
  for (let k = inner[2][0]; k < inner[2][1]; k += 1) {
    for (let j = inner[1][0]; j < inner[1][1]; j += 1) {
      let from = volume.offset([inner[0][0], j, k]);
      let to = 2 * (1 + size[0] * (j - low[1] + size[1] * (k - low[2]))) + channel;
      for (let i = inner[0][0]; i < inner[0][1]; i += 1, from += volume.steps[0], to += 2) {
        if (volume.array[from]) data[to] = 255;
      }
    }
  }
}
