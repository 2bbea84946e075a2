/** One upload by tus 1.0.0: created, asked how far it is, sent in pieces, tried again until all of it has arrived. */

/** @typedef {{ status: number, header(name: string): string | null, text: string }} Answer a status of 0: none came */
/**
 * @typedef {object} Request
 * @property {string} method
 * @property {string} url
 * @property {Record<string, string>} headers
 * @property {Blob} [body]
 * @property {AbortSignal} [signal]
 * @property {(bytes: number) => void} [onSent]
 */
/** @typedef {(request: Request) => Promise<Answer>} Ask */
/**
 * @typedef {object} Server
 * @property {string} endpoint where uploads are created
 * @property {() => string} grant what shows that the page is the server's own
 * @property {() => void} renew asks for another grant
 * @property {Ask} ask
 * @property {(ms: number, signal: AbortSignal) => Promise<void>} wait
 */

const PIECE_BYTES = 64 * 1024 ** 2;
const LONGEST_WAIT_MS = 20_000;
const MOST_TRIES = 8;
const PASSING = new Set([0, 403, 404, 408, 409, 410, 423, 429, 500, 502, 503, 504]);
/** Statuses that may differ at the next try. */

/** Why an upload can't go on: what was found, what to do. */
export class UploadError extends Error {
  /**
   * @param {string} found
   * @param {string} [remedy]
   * @param {string} [code]
   */
  constructor(found, remedy = "", code = "") {
    super(found);
    this.found = found;
    this.remedy = remedy;
    this.code = code;
  }
}

/**
 * Write a header Upload-Metadata.
 *
 * @param {Record<string, string | number>} fields
 */
export function metadata(fields) {
  const encoder = new TextEncoder();
  return Object.entries(fields)
    .map(([key, value]) => `${key} ${btoa(String.fromCharCode(...encoder.encode(`${value}`)))}`).join(",");
}

export class Transfer {
  /**
   * @param {Server} server
   * @param {Blob} blob
   * @param {Record<string, string | number>} fields of its metadata
   * @param {string} [url] of an upload that was begun before
   */
  constructor(server, blob, fields, url = "") {
    this.server = server;
    this.blob = blob;
    this.fields = fields;
    this.url = url;
    /** @type {number | null} bytes that the server has; null where only the server knows */
    this.offset = null;
    this.furthest = 0;
    this.tries = 0; // in a row, without a byte more
    /** @type {(bytes: number) => void} called with what has been sent */
    this.onProgress = () => {};
    /** @type {(url: string) => void} called when the server has made the upload */
    this.onUrl = () => {};
    /** @type {(isLost: boolean) => void} called when the connection is lost, and when it is there again */
    this.onTrouble = () => {};
  }

  /**
   * Send all that is missing; ends when the server has everything, or the signal is given.
   *
   * @param {AbortSignal} signal
   */
  async run(signal) {
    this.tries = 0;
    while (!signal.aborted) {
      const answer = await this.step(signal);
      if (signal.aborted || !answer) return;
      if (answer.status >= 200 && answer.status < 300) {
        this.onTrouble(false);
        continue;
      }
      this.tries += 1;
      await this.checkFile();
      this.judge(answer);
      this.offset = null;
      if (answer.status === 403) this.server.renew();
      if (this.url && (answer.status === 404 || answer.status === 410)) {
        this.url = "";
        continue;
      }
      this.onTrouble(true);
      await this.server.wait(Math.min(LONGEST_WAIT_MS, 500 * 2 ** this.tries), signal);
    }
  }

  /**
   * Ask the server for the next step; null where nothing is missing.
   *
   * @param {AbortSignal} signal
   */
  async step(signal) {
    if (!this.url) return this.create(signal);
    if (this.offset === null) return this.look(signal);
    if (this.offset >= this.blob.size) return null;
    const offset = this.offset;
    const answer = await this.ask("PATCH", this.url, {
      headers: { "Content-Type": "application/offset+octet-stream", "Upload-Offset": `${offset}` },
      body: this.blob.slice(offset, offset + PIECE_BYTES),
      signal,
      onSent: (bytes) => this.onProgress(offset + bytes),
    });
    if (answer.status === 204) this.arrive(answer);
    return answer;
  }

  /** @param {AbortSignal} signal */
  async create(signal) {
    const headers = { "Upload-Length": `${this.blob.size}`, "Upload-Metadata": metadata(this.fields) };
    const answer = await this.ask("POST", this.server.endpoint, { headers, signal });
    const location = answer.header("Location");
    if (answer.status === 201 && location) {
      this.url = new URL(location, this.server.endpoint).href;
      this.offset = 0;
      this.onUrl(this.url);
    }
    return answer;
  }

  /** @param {AbortSignal} signal */
  async look(signal) {
    const answer = await this.ask("HEAD", this.url, { headers: {}, signal });
    if (answer.status === 200) this.arrive(answer);
    return answer;
  }

  /** @param {Answer} answer */
  arrive(answer) {
    this.offset = Number(answer.header("Upload-Offset"));
    if (this.offset > this.furthest) this.tries = 0;
    this.furthest = Math.max(this.furthest, this.offset);
    this.onProgress(this.offset);
  }

  /**
   * @param {string} method
   * @param {string} url
   * @param {Omit<Request, "method" | "url">} rest
   */
  ask(method, url, { headers, ...rest }) {
    const ours = { "Tus-Resumable": "1.0.0", "LungSeg-Grant": this.server.grant() };
    return this.server.ask({ method, url, headers: { ...ours, ...headers }, ...rest });
  }

  /** A file that was moved or changed fails like a lost connection: only reading it tells. */
  async checkFile() {
    const place = Math.min(this.offset ?? 0, Math.max(0, this.blob.size - 1));
    try {
      await this.blob.slice(place, place + 1).arrayBuffer();
    } catch {
      throw new UploadError("The file can't be read any more: it was moved or changed.", "Choose it again.");
    }
  }

  /**
   * Throw where no other try would help.
   *
   * @param {Answer} answer
   */
  judge(answer) {
    if (answer.status === 0 || (PASSING.has(answer.status) && this.tries <= MOST_TRIES)) return;
    throw errorOf(answer);
  }
}

/** @param {Answer} answer */
export function errorOf({ status, text }) {
  try {
    const { found, remedy, code } = JSON.parse(text);
    if (found) return new UploadError(found, remedy, code);
  } catch {
    // not by our server
  }
  return new UploadError(`The server, or what stands before it, refuses the upload (status ${status}).`, "Try again.");
}

/**
 * Ask by XMLHttpRequest, which says what has been sent.
 *
 * @type {Ask}
 */
export function askByXhr({ method, url, headers, body, signal, onSent }) {
  return new Promise((resolve) => {
    const request = new XMLHttpRequest();
    request.open(method, url);
    for (const [name, value] of Object.entries(headers)) request.setRequestHeader(name, value);
    request.upload.addEventListener("progress", ({ loaded }) => onSent?.(loaded));
    request.addEventListener("loadend", () => {
      resolve({ status: request.status, header: (name) => request.getResponseHeader(name), text: request.responseText });
    });
    signal?.addEventListener("abort", () => request.abort(), { once: true });
    if (signal?.aborted) request.abort();
    request.send(body ?? null);
  });
}

/**
 * @param {number} ms
 * @param {AbortSignal} signal
 * @returns {Promise<void>}
 */
export function waitFor(ms, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => { clearTimeout(timer); resolve(); }, { once: true });
  });
}
