/** What a reader hands in: the files of a drop or a choice, without junk, sorted into what is uploaded together. */

import { tarOf } from "./tar.js";

/** @typedef {{ path: string, file: File }} Chosen */
/**
 * What becomes one case, or one intake.
 *
 * @typedef {object} Batch
 * @property {string} key tells the same files, chosen again, from others
 * @property {string} name
 * @property {boolean} isScan whether it is one NIfTI file
 * @property {number} size in bytes
 * @property {{ name: string, blob: Blob }[]} parcels what is uploaded, one after the other
 */

const SCAN = /\.nii(\.gz)?$/i;
const ARCHIVE = /\.(zip|tar|tgz|tbz2?|txz|7z|rar|tar\.(gz|bz2|xz|zst))$/i;
const JUNK = /(^|\/)(\.[^/]*|thumbs\.db|desktop\.ini|__macosx(\/.*)?)$/i;

/**
 * Tell whether a file is one that systems leave in folders, and no reader means.
 *
 * @param {string} path
 */
export function isJunk(path) {
  return JUNK.test(path) || /(^|\/)__macosx\//i.test(path);
}

/** @param {FileList | File[]} files as a field of the page has them */
export function chosenIn(files) {
  return [...files].map((file) => ({ path: file.webkitRelativePath || file.name, file }));
}

/**
 * List the files of a drop, with those in its folders.
 *
 * @param {DataTransfer} transfer its items are gone as soon as the event is over
 * @returns {Promise<Chosen[]>}
 */
export async function droppedIn(transfer) {
  const entries = [...transfer.items].map((item) => (item.kind === "file" ? item.webkitGetAsEntry() : null));
  if (!entries.some((entry) => entry?.isDirectory)) return chosenIn(transfer.files);
  const lists = await Promise.all(entries.map((entry) => (entry ? filesOf(entry) : [])));
  return lists.flat();
}

/**
 * @param {FileSystemEntry} entry
 * @returns {Promise<Chosen[]>}
 */
export async function filesOf(entry) {
  if (entry.isFile) {
    const file = await new Promise((resolve, reject) => {
      /** @type {FileSystemFileEntry} */ (entry).file(resolve, reject);
    });
    return [{ path: entry.fullPath.replace(/^\/+/, ""), file }];
  }
  const reader = /** @type {FileSystemDirectoryEntry} */ (entry).createReader();
  const chosen = [];
  for (;;) {
    /** @type {FileSystemEntry[]} a hundred at most */
    const entries = await new Promise((resolve, reject) => { reader.readEntries(resolve, reject); });
    if (!entries.length) return chosen;
    for (const inner of entries) chosen.push(...await filesOf(inner));
  }
}

/**
 * Sort files into batches: each NIfTI file alone, everything else together; archives as they are, loose files in one.
 *
 * @param {Chosen[]} chosen
 * @returns {{ batches: Batch[], skipped: number }}
 */
export function batchesOf(chosen) {
  const files = chosen.filter(({ path }) => !isJunk(path));
  files.sort((a, b) => (a.path < b.path ? -1 : Number(a.path > b.path)));
  const scans = files.filter(({ path }) => SCAN.test(path));
  const others = files.filter(({ path }) => !SCAN.test(path));
  const batches = scans.map((item) => batch([item], [{ name: item.file.name, blob: item.file }], true));
  if (others.length) batches.push(batch(others, parcelsOf(others), false));
  return { batches, skipped: chosen.length - files.length };
}

/**
 * @param {Chosen[]} files
 * @returns {{ name: string, blob: Blob }[]}
 */
function parcelsOf(files) {
  const archives = files.filter(({ path }) => ARCHIVE.test(path));
  const loose = files.filter(({ path }) => !ARCHIVE.test(path));
  const parcels = archives.map(({ file }) => ({ name: file.name, blob: /** @type {Blob} */ (file) }));
  if (loose.length === 1) parcels.push({ name: loose[0].file.name, blob: loose[0].file });
  if (loose.length > 1) parcels.push({ name: nameOf(loose), blob: tarOf(loose) });
  return parcels;
}

/**
 * @param {Chosen[]} files
 * @param {{ name: string, blob: Blob }[]} parcels
 * @param {boolean} isScan
 * @returns {Batch}
 */
function batch(files, parcels, isScan) {
  const facts = files.map(({ path, file }) => `${path}\0${file.size}\0${file.lastModified}`);
  const size = parcels.reduce((total, { blob }) => total + blob.size, 0);
  return { key: `${digest(facts.join("\n"))}-${size}`, name: nameOf(files), isScan, size, parcels };
}

/**
 * Name files by the folder that they share, or by the first one.
 *
 * @param {Chosen[]} files
 */
export function nameOf(files) {
  const tops = new Set(files.map(({ path }) => path.split("/")[0]));
  const [first] = tops;
  return tops.size === 1 ? first : `${first} and ${tops.size - 1} more`;
}

/**
 * A digest of 106 bits, which tells texts apart that nobody has made to collide; the browser's own SHA-256 is missing
 * where a page comes by plain HTTP from another machine. It is cyrb53 (public domain) with two seeds.
 *
 * @param {string} text
 */
export function digest(text) {
  return [1, 2].map((seed) => half(text, seed).toString(36)).join("-");
}

/**
 * @param {string} text
 * @param {number} seed
 */
function half(text, seed) {
  let [high, low] = [0xdeadbeef ^ seed, 0x41c6ce57 ^ seed];
  for (let place = 0; place < text.length; place += 1) {
    const code = text.charCodeAt(place);
    high = Math.imul(high ^ code, 2654435761);
    low = Math.imul(low ^ code, 1597334677);
  }
  high = Math.imul(high ^ (high >>> 16), 2246822507) ^ Math.imul(low ^ (low >>> 13), 3266489909);
  low = Math.imul(low ^ (low >>> 16), 2246822507) ^ Math.imul(high ^ (high >>> 13), 3266489909);
  return 4294967296 * (2097151 & low) + (high >>> 0);
}
