/** The page's side of the loading worker. */

/** @import { Answer, Grid, MaskRequest, PackedMasks, ScanResult, Task } from "./types.js" */

import { LoadError, Superseded } from "./errors.js";

/**
 * @typedef {object} Waiting
 * @property {(result: any) => void} resolve
 * @property {(error: Error) => void} reject
 * @property {(bytes: number) => void} [onProgress]
 */

export class Loader {
  /** @param {Worker} worker */
  constructor(worker = new Worker(new URL("./worker.js", import.meta.url), { type: "module" })) {
    this.worker = worker;
    /** @type {Map<number, Waiting>} */
    this.waiting = new Map();
    this.nextId = 0;
    worker.onmessage = ({ data }) => this.receive(data);
    worker.onerror = () => this.stop(new LoadError("The scan could not be unpacked. Reload the page."));
  }

  /**
   * Fetch the scan.
   *
   * @param {string} url
   * @param {Grid} grid
   * @param {(bytes: number) => void} onProgress gets the number of bytes received so far
   * @returns {Promise<ScanResult>}
   */
  scan(url, grid, onProgress) {
    return this.ask({ task: "scan", url, grid }, onProgress);
  }

  /**
   * Fetch masks; null stands for a layer without one.
   *
   * @param {(MaskRequest | null)[]} masks
   * @param {Grid} grid
   * @returns {Promise<PackedMasks | null>}
   */
  masks(masks, grid) {
    return this.ask({ task: "masks", masks, grid });
  }

  /**
   * @param {Task} task
   * @param {(bytes: number) => void} [onProgress]
   * @returns {Promise<any>}
   */
  ask(task, onProgress) {
    if (this.failure) return Promise.reject(this.failure);
    return new Promise((resolve, reject) => {
      const id = this.nextId;
      this.nextId += 1;
      this.waiting.set(id, { resolve, reject, onProgress });
      this.worker.postMessage({ id, ...task });
    });
  }

  /** @param {Answer} answer is dropped where nobody waits for it any more */
  receive({ id, bytes, result, error, isExpected }) {
    const waiting = this.waiting.get(id);
    if (!waiting) return;
    if (bytes !== undefined) {
      waiting.onProgress?.(bytes);
      return;
    }
    this.waiting.delete(id);
    if (error === undefined) waiting.resolve(result);
    else waiting.reject(isExpected ? new LoadError(error) : new Error(error));
  }

  /** @param {Error} failure rejects all pending and future requests */
  stop(failure) {
    this.failure = failure;
    this.worker.terminate();
    this.waiting.forEach(({ reject }) => reject(failure));
    this.waiting.clear();
  }

  close() {
    this.stop(new Superseded("The load has ended."));
  }
}
