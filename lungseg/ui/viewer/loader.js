// The page's side of the loading worker. `WORKER_SOURCE` is put before this file: what the worker runs.

class Loader {
  constructor() {
    const address = URL.createObjectURL(new Blob([WORKER_SOURCE], { type: "text/javascript" }));
    this.worker = new Worker(address);
    URL.revokeObjectURL(address);
    this.waiting = new Map();
    this.asked = 0;
    this.worker.onmessage = ({ data }) => this.receive(data);
    this.worker.onerror = () => {
      this.waiting.forEach(({ reject }) => reject(new LoadError("The scan could not be unpacked. Reload the page.")));
    };
  }

  /** Let the worker do a task of `worker.js`; `onProgress` is told the bytes received so far. */
  ask(task, details, onProgress) {
    return new Promise((resolve, reject) => {
      const id = this.asked++;
      this.waiting.set(id, { resolve, reject, onProgress });
      this.worker.postMessage({ id, task, ...details });
    });
  }

  receive({ id, bytes, result, error, isExpected }) {
    const { resolve, reject, onProgress } = this.waiting.get(id);
    if (bytes !== undefined) return void onProgress?.(bytes);
    this.waiting.delete(id);
    if (error !== undefined) reject(isExpected ? new LoadError(error) : new Error(error));
    else resolve(result);
  }

  close() {
    this.worker.terminate();
  }
}

function absolute(address) {
  return new URL(address, window.location.origin).href;
}
