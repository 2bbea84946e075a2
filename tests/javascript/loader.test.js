/** @import { Answer } from "../../lungseg/ui/viewer/types.js" */

import assert from "node:assert/strict";
import { test } from "node:test";

import { LoadError, Superseded } from "../../lungseg/ui/viewer/errors.js";
import { Loader } from "../../lungseg/ui/viewer/loader.js";
import { GRID } from "./cases.js";

/** A port of Node's in the place of a worker: what it is sent is answered by the test. */
function openLoader() {
  const { port1, port2 } = new MessageChannel();
  const ends = { isTerminated: false };
  const worker = Object.assign(port1, { terminate: () => { ends.isTerminated = true; port1.close(); }, onerror: null });
  const loader = new Loader(/** @type {Worker} */ (/** @type {unknown} */ (worker)));
  /** @param {Answer[]} answers */
  const answer = (...answers) => answers.forEach((each) => port2.postMessage(each));
  return { loader, answer, ends };
}

test("each question gets its own answer, and progress before it", async () => {
  const { loader, answer } = openLoader();
  const told = /** @type {number[]} */ ([]);
  const scan = loader.scan("/scan", GRID, (bytes) => told.push(bytes));
  const masks = loader.masks([null], GRID);
  answer({ id: 1, result: null }, { id: 7, result: "nobody asked" }, { id: 7, bytes: 1 }, { id: 0, bytes: 5 }, { id: 0, result: "voxels" });
  assert.deepEqual([await masks, await scan, told], [null, "voxels", [5]]);
  loader.close();
});

test("errors of the scan are told from faults of ours", async () => {
  const { loader, answer } = openLoader();
  const [bad, broken] = [loader.masks([], GRID), loader.masks([], GRID)];
  answer({ id: 0, error: "no NIfTI", isExpected: true }, { id: 1, error: "x is undefined", isExpected: false });
  await assert.rejects(bad, LoadError);
  await assert.rejects(broken, (error) => !(error instanceof LoadError));
  loader.close();
});

test("a worker that breaks answers all who wait, and those who come later", async () => {
  const { loader, ends } = openLoader();
  const waiting = loader.masks([], GRID);
  loader.worker.onerror?.(/** @type {ErrorEvent} */ ({}));
  await assert.rejects(waiting, LoadError);
  await assert.rejects(loader.masks([], GRID), LoadError);
  assert.deepEqual([loader.waiting.size, ends.isTerminated], [0, true]);
});

test("one that is closed leaves nobody waiting", async () => {
  const { loader } = openLoader();
  const waiting = loader.masks([], GRID);
  loader.close();
  await assert.rejects(waiting, Superseded);
});
