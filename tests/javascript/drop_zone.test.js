import assert from "node:assert/strict";
import { test } from "node:test";

import { batchesOf, digest, droppedIn, filesOf, isJunk, nameOf } from "../../lungseg/ui/drop_zone/files.js";
import { Pace, sizeText, timeText } from "../../lungseg/ui/drop_zone/pace.js";
import { record, tarOf } from "../../lungseg/ui/drop_zone/tar.js";
import { Tabs } from "../../lungseg/ui/drop_zone/tabs.js";
import { Transfer, UploadError, metadata } from "../../lungseg/ui/drop_zone/transfer.js";
import { Unfinished } from "../../lungseg/ui/drop_zone/unfinished.js";
import { Uploads } from "../../lungseg/ui/drop_zone/uploads.js";

/**
 * A file as a browser has it.
 *
 * @param {string} path
 * @param {string} content
 * @param {number} lastModified
 */
function chosen(path, content = "x", lastModified = 1) {
  const name = path.split("/").pop() ?? "";
  const file = Object.assign(new Blob([content]), { name, lastModified, webkitRelativePath: path });
  return { path, file: /** @type {File} */ (/** @type {unknown} */ (file)) };
}

/** A server of tus in memory, which breaks where it is told to. */
class FakeServer {
  constructor() {
    this.endpoint = "http://here/below/lungseg/uploads";
    /** @type {Map<string, { bytes: string, length: number }>} */
    this.uploads = new Map();
    /** @type {string[]} */
    this.requests = [];
    /** @type {(number | { status: number, text: string })[]} answers to the next bodies, instead of taking them in */
    this.faults = [];
    this.lostAnswers = 0; // of uploads that are made
    /** @type {(string | undefined)[]} */
    this.parts = [];
    this.renewals = 0;
    this.isWaiting = false;
    this.grant = () => `grant ${this.renewals}`;
    this.renew = () => { this.renewals += 1; };
    this.wait = () => Promise.resolve();
  }

  /** @type {import("../../lungseg/ui/drop_zone/transfer.js").Ask} */
  ask = async ({ method, url, headers, body, onSent, signal }) => {
    this.requests.push(`${method} ${headers["LungSeg-Grant"]}`);
    if (signal?.aborted) return this.answer(0);
    if (method === "POST") return this.create(headers);
    const upload = this.uploads.get(url);
    if (!upload) return this.answer(404);
    if (method === "DELETE") {
      this.uploads.delete(url);
      return this.answer(204);
    }
    if (method === "PATCH") return this.append(upload, headers, await /** @type {Blob} */ (body).text(), onSent);
    return this.answer(200, { "Upload-Offset": `${upload.bytes.length}` });
  };

  /**
   * @param {{ bytes: string }} upload
   * @param {Record<string, string>} headers
   * @param {string} text
   * @param {((bytes: number) => void) | undefined} onSent
   */
  append(upload, headers, text, onSent) {
    const fault = this.faults.shift();
    if (Number(headers["Upload-Offset"]) !== upload.bytes.length) return this.answer(409);
    if (fault !== undefined) {
      if (fault !== 500) upload.bytes += text.slice(0, 2); // what had come when it broke
      return typeof fault === "number" ? this.answer(fault) : { ...this.answer(fault.status), text: fault.text };
    }
    onSent?.(text.length);
    upload.bytes += text;
    return this.answer(204, { "Upload-Offset": `${upload.bytes.length}` });
  }

  /** @param {Record<string, string>} headers */
  create(headers) {
    const id = `${this.uploads.size + 1}`.padStart(32, "0");
    this.uploads.set(`http://here/below/lungseg/uploads/${id}`, { bytes: "", length: Number(headers["Upload-Length"]) });
    const part = /part ([^,]*)/.exec(headers["Upload-Metadata"]);
    this.parts.push(part ? atob(part[1]) : undefined);
    if (this.lostAnswers-- > 0) return this.answer(0);
    return this.answer(201, { Location: `uploads/${id}` });
  }

  /** @param {number} status @param {Record<string, string>} headers */
  answer(status, headers = {}) {
    return { status, header: (/** @type {string} */ name) => headers[name] ?? null, text: "" };
  }

  get contents() {
    return [...this.uploads.values()].map(({ bytes }) => bytes);
  }
}

/** @returns {Storage} */
function storage() {
  /** @type {Map<string, string>} */
  const values = new Map();
  return /** @type {Storage} */ (/** @type {unknown} */ ({
    getItem: (/** @type {string} */ key) => values.get(key) ?? null,
    setItem: (/** @type {string} */ key, /** @type {string} */ value) => values.set(key, value),
    removeItem: (/** @type {string} */ key) => values.delete(key),
  }));
}

const never = new AbortController().signal;

test("junk is told from files without an ending", () => {
  for (const path of [".DS_Store", "a/Thumbs.db", "__MACOSX/a/b", "a/__MACOSX", "a/._IM1", "desktop.ini"]) {
    assert.ok(isJunk(path), path);
  }
  for (const path of ["IM0001", "a/DICOMDIR", "1.2.840.113", "a/thumbs.dbx", "MACOSX/a"]) assert.ok(!isJunk(path), path);
});

test("each NIfTI file is a batch, everything else one", async () => {
  const { batches, skipped } = batchesOf([
    chosen("s/b/IM2", "second"), chosen("x.NII.gz"), chosen("s/.DS_Store"), chosen("a.nii"), chosen("s/a/IM1", "first"), chosen("y.zip", "zip"),
  ]);
  assert.equal(skipped, 1);
  assert.deepEqual(batches.map(({ name, isScan }) => [name, isScan]), [["a.nii", true], ["x.NII.gz", true], ["s and 1 more", false]]);
  const [archive, loose] = batches[2].parcels;
  assert.deepEqual([archive.name, await archive.blob.text()], ["y.zip", "zip"]);
  assert.equal(loose.name, "s");
  const text = await loose.blob.text();
  assert.ok(text.indexOf("s/a/IM1") < text.indexOf("s/b/IM2"));
  assert.equal(batches[2].size, archive.blob.size + loose.blob.size);
});

test("a single loose file is sent as it is", async () => {
  const [{ parcels, name }] = batchesOf([chosen("enhanced.dcm", "frames")]).batches;
  assert.deepEqual([name, parcels.length, await parcels[0].blob.text()], ["enhanced.dcm", 1, "frames"]);
});

test("the same files have the same key in any order, changed ones another", () => {
  const key = (/** @type {ReturnType<typeof chosen>[]} */ ...files) => batchesOf(files).batches[0].key;
  const same = key(chosen("s/1"), chosen("s/2"));
  assert.equal(key(chosen("s/2"), chosen("s/1")), same);
  for (const other of [chosen("s/3"), chosen("s/2", "xx"), chosen("s/2", "x", 2), chosen("t/2")]) {
    assert.notEqual(key(chosen("s/1"), other), same);
  }
  assert.equal(new Set(Array.from({ length: 2000 }, (_, n) => digest(`IM${n}`))).size, 2000);
});

test("names of drops", () => {
  assert.equal(nameOf([chosen("CT/1"), chosen("CT/2")]), "CT");
  assert.equal(nameOf([chosen("a.dcm"), chosen("b.dcm"), chosen("c.dcm")]), "a.dcm and 2 more");
});

test("a folder is read to its end, a hundred entries at a time", async () => {
  const file = (/** @type {string} */ path) => ({ isFile: true, fullPath: `/${path}`, file: (/** @type {Function} */ take) => take(chosen(path).file) });
  const folder = (/** @type {string} */ path, /** @type {unknown[]} */ entries) => ({
    isFile: false,
    isDirectory: true,
    fullPath: `/${path}`,
    createReader: () => {
      const left = [...entries];
      return { readEntries: (/** @type {Function} */ take) => take(left.splice(0, 100)) };
    },
  });
  const many = Array.from({ length: 250 }, (_, n) => file(`CT/deep/IM${n}`));
  const root = /** @type {any} */ (folder("CT", [folder("CT/deep", many), file("CT/IM")]));
  const files = await filesOf(root);
  assert.equal(files.length, 251);
  assert.equal(files[0].path, "CT/deep/IM0");
  const items = [{ kind: "file", webkitGetAsEntry: () => root }, { kind: "string", webkitGetAsEntry: () => null }];
  assert.equal((await droppedIn(/** @type {any} */ ({ items, files: [] }))).length, 251);
  const unreadable = { ...file("CT/x"), file: (/** @type {Function} */ _, /** @type {Function} */ fail) => fail(new Error("NotFoundError")) };
  const damaged = /** @type {any} */ ([{ kind: "file", webkitGetAsEntry: () => folder("CT", [file("CT/a"), unreadable]) }]);
  await assert.rejects(droppedIn(/** @type {any} */ ({ items: damaged, files: [] })), /NotFoundError/);
  const flat = { items: [{ kind: "file", webkitGetAsEntry: () => file("a") }], files: [chosen("a").file] };
  assert.deepEqual((await droppedIn(/** @type {any} */ (flat))).map(({ path }) => path), ["a"]);
});

test("records say their own length", () => {
  for (const length of [1, 80, 91, 92, 93, 94, 985, 990]) {
    const text = new TextDecoder().decode(record("path", "ü".repeat(length)));
    assert.equal(Number(text.split(" ")[0]), new TextEncoder().encode(text).length);
  }
});

test("an archive has a known length and always the same bytes", async () => {
  const items = [chosen("a/1", "x".repeat(512)), chosen("a/2", "")];
  const bytes = new Uint8Array(await tarOf(items).arrayBuffer());
  assert.equal(bytes.length, 512 + 512 + 512 + 1024);
  assert.deepEqual(bytes, new Uint8Array(await tarOf(items).arrayBuffer()));
});

test("what breaks off goes on where the server is", async () => {
  const server = new FakeServer();
  server.faults = [0, 503, 423];
  const transfer = new Transfer(server, new Blob(["0123456789"]), { filename: "a" });
  const troubles = /** @type {boolean[]} */ ([]);
  transfer.onTrouble = (isLost) => troubles.push(isLost);
  await transfer.run(never);
  assert.deepEqual(server.contents, ["0123456789"]);
  assert.equal(transfer.url, "http://here/below/lungseg/uploads/00000000000000000000000000000001");
  assert.ok(troubles.includes(true));
  assert.equal(troubles.at(-1), false);
});

test("an upload that is gone is begun anew, and one of a page before goes on", async () => {
  const server = new FakeServer();
  const gone = new Transfer(server, new Blob(["abc"]), {}, "http://here/below/lungseg/uploads/gone");
  await gone.run(never);
  assert.deepEqual(server.contents, ["abc"]);
  const first = new Transfer(server, new Blob(["0123456789"]), {});
  server.faults = [{ status: 507, text: JSON.stringify({ found: "The disk is full.", remedy: "Free space.", code: "storage.disk_full" }) }];
  await assert.rejects(first.run(never), { found: "The disk is full.", remedy: "Free space.", code: "storage.disk_full" });
  await new Transfer(server, new Blob(["0123456789"]), {}, first.url).run(never);
  assert.deepEqual(server.contents, ["abc", "0123456789"]);
});

test("a grant that has expired is renewed", async () => {
  const server = new FakeServer();
  server.faults = [403];
  await new Transfer(server, new Blob(["abc"]), {}).run(never);
  assert.deepEqual(server.requests, ["POST grant 0", "PATCH grant 0", "HEAD grant 1", "PATCH grant 1"]);
});

test("what no other try would change ends the upload", async () => {
  const server = new FakeServer();
  server.faults = [413];
  await assert.rejects(new Transfer(server, new Blob(["abc"]), {}).run(never), /refuses the upload \(status 413\)/);
  server.faults = Array(20).fill(500);
  server.uploads.clear();
  await assert.rejects(new Transfer(server, new Blob(["a".repeat(99)]), {}).run(never), UploadError);
});

test("a file that can't be read any more is told from a lost connection", async () => {
  const server = new FakeServer();
  server.faults = [0];
  const blob = new Blob(["abc"]);
  const slice = blob.slice.bind(blob);
  blob.slice = (...range) => {
    const part = slice(...range);
    if (part.size === 1) part.arrayBuffer = () => Promise.reject(new Error("NotReadableError"));
    return part;
  };
  await assert.rejects(new Transfer(server, blob, {}).run(never), /moved or changed/);
});

test("an empty file is an upload too", async () => {
  const server = new FakeServer();
  await new Transfer(server, new Blob([]), {}).run(never);
  assert.deepEqual(server.contents, [""]);
});

test("names beyond ASCII in metadata", () => {
  assert.equal(metadata({ filename: "Müller 肺", place: 2 }), `filename ${Buffer.from("Müller 肺").toString("base64")},place ${btoa("2")}`);
});

/** @param {string} id @param {string[]} others ids of the other tabs that are there */
function tab(id, ...others) {
  return { id, others: new Set(others) };
}

/** @param {FakeServer} server @param {Storage} memory @param {{ id: string, others: Set<string> }} tabs */
function page(server, memory, tabs = tab("tab")) {
  const reports = /** @type {string[][]} */ ([]);
  const listener = { changed: () => {}, arrived: (/** @type {string} */ _, /** @type {string[]} */ groups) => { reports.push(groups); } };
  const uploads = new Uploads(server, new Unfinished(memory, tabs), listener);
  return { uploads, reports };
}

/** @param {Uploads} uploads */
async function done(uploads) {
  while (uploads.isBusy && !uploads.isPaused) await new Promise((resolve) => { setImmediate(resolve); });
}

test("files of a drop arrive one after the other and are forgotten when they are taken in", async () => {
  const [server, memory] = [new FakeServer(), storage()];
  const { uploads, reports } = page(server, memory);
  uploads.add(batchesOf([chosen("a.nii", "one"), chosen("b.nii", "two"), chosen("s/1", "x"), chosen("s.zip", "y")]).batches);
  await done(uploads);
  assert.deepEqual(server.contents.slice(0, 3), ["one", "two", "y"]);
  assert.deepEqual(reports.map((groups) => groups.length), [1, 2, 3]);
  assert.equal(new Unfinished(memory, tab("tab")).list().length, 3);
  uploads.settle(reports[2]);
  assert.equal(new Unfinished(memory, tab("tab")).list().length, 0);
});

test("a part that is begun twice, since the first answer was lost, says which one it is", async () => {
  const server = new FakeServer();
  server.lostAnswers = 1;
  const { uploads } = page(server, storage());
  uploads.add(batchesOf([chosen("s/1", "x"), chosen("s.zip", "y")]).batches);
  await done(uploads);
  assert.deepEqual(server.parts, ["0", "0", "1"]);
  assert.deepEqual(server.contents.slice(0, 2), ["", "y"]);
});

test("a page that is opened again reports what is whole and goes on with what is half", async () => {
  const [server, memory] = [new FakeServer(), storage()];
  const first = page(server, memory);
  first.uploads.add(batchesOf([chosen("a.nii", "whole")]).batches);
  await done(first.uploads);
  server.faults = [{ status: 507, text: "{}" }];
  first.uploads.add(batchesOf([chosen("b.nii", "0123456789")]).batches);
  await done(first.uploads);
  const second = page(server, memory);
  await second.uploads.recall();
  assert.equal(second.reports.length, 1);
  assert.deepEqual(second.uploads.left.map(({ memo, sent }) => [memo.name, sent]), [["b.nii", 2]]);
  await second.uploads.recall();
  assert.equal(second.uploads.left.length, 1);
  second.uploads.add(batchesOf([chosen("b.nii", "0123456789")]).batches);
  assert.equal(second.uploads.left.length, 0);
  await done(second.uploads);
  assert.deepEqual(server.contents, ["whole", "0123456789"]);
});

test("what another tab uploads is left to it, however long it says nothing", async () => {
  const [server, memory] = [new FakeServer(), storage()];
  const first = page(server, memory, tab("one"));
  server.faults = [{ status: 507, text: "{}" }];
  const { batches } = batchesOf([chosen("b.nii", "0123456789")]);
  first.uploads.add(batches);
  await done(first.uploads);
  memory.setItem("lungseg.uploads", (memory.getItem("lungseg.uploads") ?? "").replace(/"at":\d+/, `"at":${Date.now() - 3_600_000}`));
  const others = tab("two", "one");
  const second = page(server, memory, others);
  await second.uploads.recall();
  assert.equal(second.uploads.left.length, 0);
  second.uploads.add(batches);
  assert.deepEqual(second.uploads.tasks.map(({ state, error }) => [state, error?.found]), [
    ["failed", "It is being uploaded in another tab of this browser."],
  ]);
  second.uploads.tryAgain(second.uploads.tasks[0]);
  assert.equal(second.uploads.isBusy, false);
  others.others.clear(); // it was closed
  second.uploads.tryAgain(second.uploads.tasks[0]);
  await done(second.uploads);
  assert.deepEqual(server.contents, ["0123456789"]);
});

test("an upload that was cut off is one tab's again as soon as that goes on with it", async () => {
  const [server, memory] = [new FakeServer(), storage()];
  const { batches } = batchesOf([chosen("b.nii", "0123456789")]);
  const first = page(server, memory, tab("one"));
  server.faults = [{ status: 507, text: "{}" }];
  first.uploads.add(batches);
  await done(first.uploads);
  const [second, third] = [page(server, memory, tab("two", "three")), page(server, memory, tab("three", "two"))];
  await Promise.all([second.uploads.recall(), second.uploads.recall(), third.uploads.recall()]);
  assert.equal(second.uploads.left.length, 1);
  second.uploads.add(batches);
  third.uploads.review(); // as the event of the storage tells it
  assert.equal(third.uploads.left.length, 0);
  await done(second.uploads);
  assert.deepEqual(server.contents, ["0123456789"]);
});

test("tabs hear who is there, who comes and who goes", async () => {
  const first = new Tabs("one");
  const second = new Tabs("two");
  await Promise.all([first.call(), second.call()]);
  assert.deepEqual([[...first.others], [...second.others]], [["two"], ["one"]]);
  const gone = new Promise((resolve) => { first.onChange = () => resolve(null); });
  second.close();
  await gone;
  assert.deepEqual([...first.others], []);
  const crashed = new Tabs("three");
  crashed.say("here");
  await new Promise((resolve) => { first.onChange = () => resolve(null); });
  crashed.channel.close(); // without a word
  assert.deepEqual([...first.others], ["three"]);
  await first.call();
  assert.deepEqual([...first.others], []);
  first.close();
});

test("what is gone from the server is forgotten, what is discarded goes from it", async () => {
  const [server, memory] = [new FakeServer(), storage()];
  const first = page(server, memory);
  server.faults = [{ status: 507, text: "{}" }, { status: 507, text: "{}" }];
  first.uploads.add(batchesOf([chosen("a.nii", "0123"), chosen("b.nii", "4567")]).batches);
  await done(first.uploads);
  server.uploads.delete([...server.uploads.keys()][0]);
  const second = page(server, memory);
  await second.uploads.recall();
  assert.deepEqual(second.uploads.left.map(({ memo }) => memo.name), ["b.nii"]);
  second.uploads.discard(second.uploads.left[0]);
  await new Promise((resolve) => { setImmediate(resolve); });
  assert.equal(server.uploads.size, 0);
  assert.equal(new Unfinished(memory, tab("tab")).list().length, 0);
});

test("limits are told before anything is sent", async () => {
  const server = new FakeServer();
  const { uploads } = page(server, storage());
  uploads.limits = { file: 3, upload: 5000 };
  uploads.add(batchesOf([chosen("a.nii", "four"), chosen("b.nii", "two"), chosen("c", "x".repeat(5001))]).batches);
  await done(uploads);
  assert.deepEqual(server.contents, ["two"]);
  assert.deepEqual(uploads.tasks.map(({ error }) => error?.found ?? null), [
    "The file has 4 bytes, more than 3.", null, "The upload has 5,001 bytes, more than 5,000.",
  ]);
});

test("paused, gone on, cancelled", async () => {
  const [server, memory] = [new FakeServer(), storage()];
  const { uploads, reports } = page(server, memory);
  uploads.isPaused = true;
  uploads.add(batchesOf([chosen("a.nii", "one")]).batches);
  assert.deepEqual(server.requests, []);
  uploads.resume();
  await done(uploads);
  assert.equal(reports.length, 1);
  uploads.isPaused = true;
  uploads.add(batchesOf([chosen("b.nii", "two")]).batches);
  await uploads.cancel();
  assert.equal(uploads.isBusy, false);
  assert.deepEqual(server.contents, ["one"]);
});

test("a failed upload is tried again or removed", async () => {
  const [server, memory] = [new FakeServer(), storage()];
  const { uploads } = page(server, memory);
  server.faults = [{ status: 507, text: "{}" }, { status: 507, text: "{}" }];
  uploads.add(batchesOf([chosen("a.nii", "0123"), chosen("b.nii", "4567")]).batches);
  await done(uploads);
  const [first, second] = uploads.tasks;
  uploads.tryAgain(first);
  await done(uploads);
  uploads.remove(second);
  await new Promise((resolve) => { setImmediate(resolve); });
  assert.deepEqual(server.contents, ["0123"]);
});

test("pace over the last seconds", () => {
  const pace = new Pace();
  assert.equal(pace.text(0, 3e9), "0 bytes of 3.0 GB");
  for (let second = 0; second <= 20; second += 1) pace.note(second < 10 ? 0 : (second - 10) * 50e6, second * 1000);
  assert.equal(pace.rate, 50e6);
  assert.equal(pace.text(500e6, 3e9), "500 MB of 3.0 GB · 50.0 MB/s · 50 s left");
  pace.note(0, 21_000);
  assert.equal(pace.rate, null);
});

test("sizes and times", () => {
  assert.deepEqual([0, 999, 1500, 157e6, 3.2e9].map(sizeText), ["0 bytes", "999 bytes", "1.5 kB", "157 MB", "3.2 GB"]);
  assert.deepEqual([0.2, 89, 120, 7200].map(timeText), ["1 s", "89 s", "2 min", "2.0 h"]);
});
