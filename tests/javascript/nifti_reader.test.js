import assert from "node:assert/strict";
import { test } from "node:test";

import { EndsEarly, LoadError } from "../../lungseg/ui/viewer/errors.js";
import { fetchVoxels, readHeader, Source } from "../../lungseg/ui/viewer/nifti_reader.js";

/** @typedef {{ isLittle?: boolean, isSecond?: boolean, type?: number, offset?: number, slope?: number, intercept?: number }} Header */

/**
 * The bytes of a file: header, four bytes, voxels.
 *
 * @param {Header} header
 * @param {number[]} voxels
 */
function file({ isLittle = true, isSecond = false, type = 4, offset, slope = 1, intercept = 0 }, voxels = []) {
  const length = isSecond ? 540 : 348;
  const bytes = new ArrayBuffer(length + 4 + 2 * voxels.length);
  const view = new DataView(bytes);
  if (isSecond) {
    new Uint8Array(bytes).set([0x6e, 0x2b, 0x32, 0], 4);
    view.setBigInt64(16, 3n, isLittle);
    view.setInt16(12, type, isLittle);
    view.setBigInt64(168, BigInt(offset ?? 544), isLittle);
    view.setFloat64(176, slope, isLittle);
    view.setFloat64(184, intercept, isLittle);
  } else {
    new Uint8Array(bytes).set([0x6e, 0x2b, 0x31, 0], 344);
    view.setInt16(40, 3, isLittle);
    view.setInt16(70, type, isLittle);
    view.setFloat32(108, offset ?? 352, isLittle);
    view.setFloat32(112, slope, isLittle);
    view.setFloat32(116, intercept, isLittle);
  }
  voxels.forEach((value, at) => view.setInt16(length + 4 + 2 * at, value, isLittle));
  return new Uint8Array(bytes);
}

/** @param {Uint8Array} bytes */
function sourceOf(bytes, chunk = 7) {
  let at = 0;
  const stream = new ReadableStream({
    pull(controller) {
      if (at >= bytes.length) return controller.close();
      controller.enqueue(bytes.slice(at, at + chunk));
      at += chunk;
      return undefined;
    },
  });
  return new Source(stream.getReader());
}

for (const isSecond of [false, true]) {
  for (const isLittle of [true, false]) {
    test(`header of NIfTI-${isSecond ? 2 : 1}, ${isLittle ? "little" : "big"} end first`, async () => {
      const header = await readHeader(sourceOf(file({ isSecond, isLittle, type: 512, slope: 0.5, intercept: -1024 })));
      const length = isSecond ? 540 : 348;
      assert.deepEqual(header, { length, type: 512, isLittle, offset: length + 4, slope: 0.5, intercept: -1024 });
    });
  }
}

for (const slope of [0, NaN, Infinity]) {
  test(`a slope of ${slope} means none`, async () => {
    const header = await readHeader(sourceOf(file({ slope, intercept: 7 })));
    assert.deepEqual([header.slope, header.intercept], [1, 0]);
  });
}

test("voxels never begin inside the header", async () => {
  assert.equal((await readHeader(sourceOf(file({ offset: 0 })))).offset, 352);
});

for (const [name, bytes] of /** @type {const} */ ([
  ["no NIfTI file", new Uint8Array(600)], ["NIfTI datatype 128", file({ type: 128 })], ["begin at -1", file({ offset: -1 })],
])) {
  test(`refused: ${name}`, async () => {
    await assert.rejects(readHeader(sourceOf(bytes)), (error) => error instanceof LoadError && error.message.includes(name));
  });
}

test("a file that ends early says so", async () => {
  await assert.rejects(readHeader(sourceOf(new Uint8Array(100))), EndsEarly);
});

/** @param {Record<string, Response>} answers */
function withAnswers(answers) {
  globalThis.fetch = async (url) => answers[String(url)];
}

test("big-endian voxels are turned, and what the browser cut is asked for as it is", async () => {
  const bytes = file({ isLittle: false }, [1, -2, 300]);
  withAnswers({ scan: new Response(bytes.slice(0, 354)), "scan?inflated=1": new Response(bytes) });
  const told = /** @type {number[]} */ ([]);
  const { array } = await fetchVoxels("scan", 3, (count) => told.push(count));
  assert.deepEqual([...array], [1, -2, 300]);
  assert.equal(told.at(-1), bytes.length);
});

for (const [status, text] of /** @type {const} */ ([[403, "expired"], [500, "answered 500"]])) {
  test(`an answer of ${status} is said`, async () => {
    withAnswers({ scan: new Response("", { status }) });
    await assert.rejects(fetchVoxels("scan", 1), new RegExp(text));
  });
}
