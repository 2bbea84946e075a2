/**
 * Many files as one archive of known length, which is never held in memory: a Blob of headers and of the files themselves,
 * read as it is sent. The same files make the same bytes, so that an upload goes on where it broke off.
 *
 * POSIX ustar with pax records (IEEE 1003.1, `pax`). It has no checksum of contents, so none has to be read before.
 */

/** @typedef {{ path: string, file: Blob }} Item a file, with its path in the folder that it was chosen with */

const BLOCK = 512;
const NAME = { at: 0, length: 100 };
const MODE = { at: 100, text: "0000600\0" };
const OWNERS = { at: 108, text: "0000000\0".repeat(2) };
const SIZE = { at: 124, digits: 11 };
const TIME = { at: 136, text: "00000000000\0" };
const CHECKSUM = { at: 148, digits: 6 };
const KIND = { at: 156, file: "0", records: "x" };
const MAGIC = { at: 257, text: "ustar\u000000" };
const encoder = new TextEncoder();

/**
 * @param {string} name at most 100 bytes of ASCII
 * @param {number} size in bytes
 * @param {string} kind
 */
function header(name, size, kind) {
  const block = new Uint8Array(BLOCK);
  /** @param {number} at @param {string} text */
  const put = (at, text) => block.set(encoder.encode(text), at);
  put(NAME.at, name);
  put(MODE.at, MODE.text);
  put(OWNERS.at, OWNERS.text);
  put(SIZE.at, size.toString(8).padStart(SIZE.digits, "0"));
  put(TIME.at, TIME.text);
  put(CHECKSUM.at, " ".repeat(CHECKSUM.digits + 2));
  put(KIND.at, kind);
  put(MAGIC.at, MAGIC.text);
  const sum = block.reduce((total, byte) => total + byte, 0);
  put(CHECKSUM.at, `${sum.toString(8).padStart(CHECKSUM.digits, "0")}\0 `);
  return block;
}

/** @param {number} size */
function padding(size) {
  return new Uint8Array((BLOCK - (size % BLOCK)) % BLOCK);
}

/**
 * A pax record: its own length, key and value.
 *
 * @param {string} key
 * @param {string} value
 */
export function record(key, value) {
  const rest = encoder.encode(` ${key}=${value}\n`);
  let length = rest.length;
  while (`${length}`.length + rest.length !== length) length = `${length}`.length + rest.length;
  return new Uint8Array([...encoder.encode(`${length}`), ...rest]);
}

/**
 * The records of a file that the header has no room for.
 *
 * @param {string} path
 * @param {number} size
 */
function records(path, size) {
  const isPlain = path.length <= NAME.length && /^[\x20-\x7e]+$/.test(path);
  if (isPlain && size < 8 ** SIZE.digits) return [];
  return [record("path", path), record("size", `${size}`)];
}

/**
 * Make the archive of files, in the order in which they come.
 *
 * @param {Item[]} items
 */
export function tarOf(items) {
  /** @type {BlobPart[]} */
  const parts = [];
  items.forEach(({ path, file }, place) => {
    const extra = records(path, file.size);
    if (extra.length) {
      const size = extra.reduce((total, entry) => total + entry.length, 0);
      parts.push(header("records", size, KIND.records), ...extra, padding(size));
    }
    const isWithin = file.size < 8 ** SIZE.digits;
    const name = extra.length ? `${place + 1}`.padStart(6, "0") : path;
    parts.push(header(name, isWithin ? file.size : 0, KIND.file), file, padding(file.size));
  });
  parts.push(new Uint8Array(2 * BLOCK));
  return new Blob(parts);
}
