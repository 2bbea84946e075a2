/** The uploads of a page: one batch after the other, each parcel of it by a `Transfer`; paused, given up, found again. */

/** @import { Batch } from "./files.js" */
/** @import { Server } from "./transfer.js" */
/** @import { Memo, Unfinished } from "./unfinished.js" */

import { Pace } from "./pace.js";
import { Transfer, UploadError } from "./transfer.js";

/** @typedef {"waiting" | "failed" | "arrived"} State */
/**
 * A batch on its way.
 *
 * @typedef {object} Task
 * @property {Batch} batch
 * @property {string} group what the server knows it by
 * @property {number} place in its drop
 * @property {string[]} urls of its parcels; empty where not begun
 * @property {State} state
 * @property {number} sent bytes that have arrived, or are on their way
 * @property {UploadError | null} error why it failed
 */
/** @typedef {{ file: number, upload: number }} Limits in bytes: of a scan's file, of anything else */
/** @typedef {{ memo: Memo, sent: number }} Left an upload that a page has left; `sent` bytes are on the server */

const MEMO_EVERY_MS = 3000;
const MOST_DELETES = 5;
const ELSEWHERE = "It is being uploaded in another tab of this browser.";
const BUSY = 423;
/** Status of an upload that another request holds. */

export class Uploads {
  /**
   * @param {Server} server
   * @param {Unfinished} unfinished
   * @param {{ changed: () => void, arrived: (drop: string, groups: string[]) => void }} listener
   */
  constructor(server, unfinished, listener) {
    this.server = server;
    this.unfinished = unfinished;
    this.listener = listener;
    /** @type {Limits} */
    this.limits = { file: Infinity, upload: Infinity };
    /** @type {Task[]} */
    this.tasks = [];
    /** @type {Left[]} */
    this.left = [];
    /** @type {Set<string>} groups that the page has not taken in yet */
    this.arrived = new Set();
    this.drop = "";
    this.isPaused = false;
    this.isLost = false;
    this.pace = new Pace();
    /** @type {AbortController | null} of the parcel that is being sent */
    this.sending = null;
    this.remembered = 0;
  }

  get isBusy() {
    return this.tasks.some(({ state }) => state === "waiting");
  }

  /** Bytes of all that is on its way, and how many of them have been sent. */
  get total() {
    const tasks = this.tasks.filter(({ state }) => state !== "failed");
    const sum = (/** @type {number[]} */ numbers) => numbers.reduce((total, number) => total + number, 0);
    return { sent: sum(tasks.map(({ sent }) => sent)), size: sum(tasks.map(({ batch }) => batch.size)), count: tasks.length };
  }

  /** @returns {Task | null} the batch that is sent now */
  get current() {
    return this.tasks.find(({ state }) => state === "waiting") ?? null;
  }

  /** @param {Batch[]} batches of one drop */
  add(batches) {
    if (!this.isBusy) {
      this.tasks = [];
      this.drop = randomId();
    }
    batches.forEach((batch) => {
      if (this.tasks.some((task) => task.batch.key === batch.key && task.state === "waiting")) return;
      this.tasks.push(this.task(batch, this.tasks.length));
    });
    this.listener.changed();
    this.go();
  }

  /**
   * @param {Batch} batch
   * @param {number} place
   * @returns {Task}
   */
  task(batch, place) {
    const memo = this.unfinished.find(batch.key);
    const error = this.obstacle(batch);
    this.left = this.left.filter(({ memo: { key } }) => key !== batch.key);
    return {
      batch,
      place,
      group: memo?.group ?? randomId(),
      urls: memo?.urls ?? batch.parcels.map(() => ""),
      state: error ? "failed" : "waiting",
      sent: 0,
      error,
    };
  }

  /**
   * Say why a batch can't be sent; null where it can.
   *
   * @param {Batch} batch
   */
  obstacle(batch) {
    const limit = batch.isScan ? this.limits.file : this.limits.upload;
    if (batch.size > limit) return tooLarge(batch, limit);
    return this.unfinished.isElsewhere(batch.key) ? new UploadError(ELSEWHERE, "Let it arrive there, or cancel it there.") : null;
  }

  /** Send what waits, until nothing does, or the reader pauses. */
  async go() {
    if (this.sending) return;
    for (let task = this.current; task && !this.isPaused; task = this.current) {
      this.sending = new AbortController();
      const { signal } = this.sending;
      try {
        await this.send(task, signal);
        if (!signal.aborted) this.settleTask(task);
      } catch (error) {
        task.state = "failed";
        task.error = error instanceof UploadError ? error : new UploadError("The page has met a fault.", "Reload it.");
        if (!(error instanceof UploadError)) reportError(error);
      } finally {
        this.sending = null;
        this.isLost = false;
        this.listener.changed();
      }
    }
  }

  /**
   * @param {Task} task
   * @param {AbortSignal} signal
   */
  async send(task, signal) {
    const { batch, group, place } = task;
    this.remember(task);
    let before = 0;
    for (const [number, { name, blob }] of batch.parcels.entries()) {
      const fields = { filename: name, group, count: batch.parcels.length, place, part: number };
      const transfer = new Transfer(this.server, blob, fields, task.urls[number]);
      const start = before;
      transfer.onProgress = (bytes) => this.progress(task, start + Math.min(bytes, blob.size));
      transfer.onUrl = (url) => {
        task.urls[number] = url;
        this.remember(task);
      };
      transfer.onTrouble = (isLost) => {
        this.isLost = isLost;
        this.listener.changed();
      };
      await transfer.run(signal);
      if (signal.aborted) return;
      before += blob.size;
    }
  }

  /** @param {Task} task */
  settleTask(task) {
    task.state = "arrived";
    task.sent = task.batch.size;
    this.arrived.add(task.group);
    this.report();
  }

  report() {
    if (this.arrived.size) this.listener.arrived(this.drop, [...this.arrived]);
  }

  /**
   * Forget what the page has taken in.
   *
   * @param {string[]} groups
   */
  settle(groups) {
    for (const group of groups) {
      if (this.arrived.delete(group)) this.unfinished.forget(group);
    }
  }

  /**
   * @param {Task} task
   * @param {number} sent
   */
  progress(task, sent) {
    task.sent = sent;
    this.pace.note(this.total.sent, performance.now());
    if (performance.now() - this.remembered > MEMO_EVERY_MS) this.remember(task);
    this.listener.changed();
  }

  /** @param {Task} task */
  remember({ batch: { key, name, size }, group, urls }) {
    this.remembered = performance.now();
    this.unfinished.keep({ key, name, size, group, urls });
  }

  pause() {
    this.isPaused = true;
    this.stop();
  }

  resume() {
    this.isPaused = false;
    this.pace.rest();
    this.listener.changed();
    this.go();
  }

  /** Break off what is being sent; the server keeps what has arrived. */
  stop() {
    this.sending?.abort();
    this.pace.rest();
    this.listener.changed();
  }

  /** Give up all that has not arrived. */
  async cancel() {
    const tasks = this.tasks.filter(({ state }) => state === "waiting");
    this.tasks = [];
    this.isPaused = false;
    this.stop();
    await Promise.all(tasks.map(({ group, urls }) => this.giveUp(group, urls)));
  }

  /** @param {Task} task that has failed */
  tryAgain(task) {
    const { state, error, group, urls } = this.task(task.batch, task.place);
    Object.assign(task, { state, error, sent: 0 }, task.urls.some(Boolean) ? {} : { group, urls });
    this.listener.changed();
    this.go();
  }

  /** @param {Task} task that has failed */
  remove(task) {
    this.tasks = this.tasks.filter((other) => other !== task);
    this.listener.changed();
    this.giveUp(task.group, task.urls);
  }

  /** @param {Left} left */
  discard(left) {
    this.left = this.left.filter((other) => other !== left);
    this.listener.changed();
    this.giveUp(left.memo.group, left.memo.urls);
  }

  /**
   * Tell the server that an upload is not wanted any more; where it does not hear that, it sweeps it in a day.
   *
   * @param {string} group
   * @param {string[]} urls
   */
  async giveUp(group, urls) {
    this.unfinished.forget(group);
    await Promise.all(urls.filter(Boolean).map((url) => this.delete(url)));
  }

  /**
   * Delete an upload; while the server still writes what had come of it, it refuses.
   *
   * @param {string} url
   */
  async delete(url) {
    const { signal } = new AbortController();
    for (let tries = 0; tries < MOST_DELETES; tries += 1) {
      const { status } = await this.server.ask({ method: "DELETE", url, headers: this.headers });
      if (status !== BUSY) return;
      await this.server.wait(500 * 2 ** tries, signal);
    }
  }

  get headers() {
    return { "Tus-Resumable": "1.0.0", "LungSeg-Grant": this.server.grant() };
  }

  /** Ask the server what has become of the uploads that an earlier page has begun, and report those that are whole. */
  async recall() {
    const busy = new Set([...this.tasks, ...this.left.map(({ memo }) => memo)].map(({ group }) => group));
    const memos = this.unfinished.free.filter((memo) => !busy.has(memo.group));
    for (const memo of memos) {
      const sizes = await Promise.all(memo.urls.map((url) => (url ? this.arrivedAt(url) : 0)));
      const meanwhile = [...this.tasks, ...this.left.map((entry) => entry.memo)]; // chosen or recalled
      if (meanwhile.some(({ group }) => group === memo.group)) continue;
      const sent = sizes.reduce((total, size) => (total ?? 0) + (size ?? 0), 0) ?? 0;
      if (sizes.some((size) => size === null) || !memo.urls.some(Boolean)) this.unfinished.forget(memo.group);
      else if (sent === memo.size && memo.urls.every(Boolean)) this.arrived.add(memo.group);
      else this.left.push({ memo, sent });
    }
    this.report();
    this.review();
  }

  /** Let go of what another tab goes on with, or has given up, since it was recalled. */
  review() {
    const free = new Set(this.unfinished.free.map(({ group }) => group));
    this.left = this.left.filter(({ memo }) => free.has(memo.group));
    this.listener.changed();
  }

  /**
   * Ask how many bytes of an upload have arrived; null where it is gone.
   *
   * @param {string} url
   */
  async arrivedAt(url) {
    const answer = await this.server.ask({ method: "HEAD", url, headers: this.headers });
    if (answer.status === 404 || answer.status === 410) return null;
    return Number(answer.header("Upload-Offset") ?? 0);
  }
}

/**
 * @param {Batch} batch
 * @param {number} limit
 */
function tooLarge({ size, isScan }, limit) {
  const [what, remedy] = isScan
    ? ["The file", "Crop the scan to the chest, or compress it."]
    : ["The upload", "Upload fewer at once."];
  const texts = [size, limit].map((bytes) => bytes.toLocaleString("en"));
  return new UploadError(`${what} has ${texts[0]} bytes, more than ${texts[1]}.`, remedy, "scan.too_large");
}

/** 32 hexadecimal digits; `crypto.randomUUID` is missing where a page comes by plain HTTP from another machine. */
export function randomId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
