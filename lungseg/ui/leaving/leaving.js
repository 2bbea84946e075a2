/**
 * Watches uploads, which only the browser has until the server has taken them in. Streamlit sends them by XMLHttpRequest to
 * an address of their own. The names of files that have not arrived stand in the memory of this tab (sessionStorage), so
 * that the next page can say which were cut off.
 *
 * It imports nothing: it is sent with the page itself, so that it watches before the first upload can begin.
 */

/** @import { ComponentArguments } from "../types.js" */

const ADDRESS = "/_stcore/upload_file/";
const MEMORY = "lungseg.uploads";
const QUESTION = "Files are still being uploaded. If you leave, those that have not arrived are lost. Leave this page?";

/** @typedef {{ name: string }} Upload */

class Watch {
  constructor() {
    /** @type {Set<Upload>} */
    this.pending = new Set();
    /** @type {Set<Upload>} */
    this.arrived = new Set();
    this.takenIn = 0;
    this.watchRequests();
    window.addEventListener("beforeunload", (event) => {
      if (this.isBusy) event.preventDefault();
    });
    document.addEventListener("click", (event) => this.ask(event), true);
  }

  watchRequests() {
    const { open, send } = XMLHttpRequest.prototype;
    /** @type {WeakSet<XMLHttpRequest>} */
    const uploads = new WeakSet();
    /** @param {XMLHttpRequest} request @param {XMLHttpRequestBodyInit | Document | null} [body] */
    const follow = (request, body) => { if (uploads.has(request)) this.follow(request, body); };
    /** @type {(this: XMLHttpRequest, method: string, url: string | URL, ...rest: any[]) => void} */
    XMLHttpRequest.prototype.open = function opened(method, url, ...rest) {
      if (method.toUpperCase() === "PUT" && String(url).includes(ADDRESS)) uploads.add(this);
      else uploads.delete(this);
      Reflect.apply(open, this, [method, url, ...rest]);
    };
    /** @type {(this: XMLHttpRequest, body?: XMLHttpRequestBodyInit | Document | null) => void} */
    XMLHttpRequest.prototype.send = function sent(body) {
      follow(this, body);
      send.call(this, body);
    };
  }

  get isBusy() {
    return this.pending.size + this.arrived.size > 0;
  }

  /**
   * @param {XMLHttpRequest} request
   * @param {XMLHttpRequestBodyInit | Document | null} [body]
   */
  follow(request, body) {
    const file = body instanceof FormData ? [...body.values()].find((value) => value instanceof File) : null;
    const upload = { name: file instanceof File ? file.name : "a file" };
    this.pending.add(upload);
    this.remember();
    request.addEventListener("load", () => {
      if (request.status < 300 && this.pending.has(upload)) this.arrived.add(upload);
    });
    request.addEventListener("loadend", () => {
      if (this.pending.delete(upload)) this.remember();
    });
  }

  /** @param {number} takenIn how often all files that arrived were taken in: they are then forgotten */
  settle(takenIn) {
    if (takenIn === this.takenIn) return;
    this.takenIn = takenIn;
    this.arrived.clear();
    this.remember();
  }

  /** Forget the files of a page that was left; the memory of the tab still holds their names. */
  forget() {
    this.pending.clear();
    this.arrived.clear();
  }

  remember() {
    const names = [...this.pending, ...this.arrived].map((upload) => upload.name);
    if (names.length) sessionStorage.setItem(MEMORY, JSON.stringify(names));
    else sessionStorage.removeItem(MEMORY);
  }

  /**
   * Ask before a link to another page of ours is followed: that unloads nothing, but ends the uploads.
   *
   * @param {MouseEvent} event
   */
  ask(event) {
    const link = event.composedPath().find((node) => node instanceof HTMLAnchorElement && node.href);
    if (!(link instanceof HTMLAnchorElement) || !this.isBusy || link.target === "_blank") return;
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a window of its own
    if (window.confirm(QUESTION)) {
      this.forget();
      return;
    }
    event.preventDefault();
    event.stopImmediatePropagation();
  }
}

/**
 * Say which files had not arrived when the page was left, and forget them.
 *
 * @param {HTMLElement} root
 */
function sayCutOff(root) {
  const names = JSON.parse(sessionStorage.getItem(MEMORY) ?? "[]");
  sessionStorage.removeItem(MEMORY);
  if (!names.length) return;
  const what = names.length === 1 ? "An upload was" : `${names.length} uploads were`;
  const close = Object.assign(document.createElement("button"), { type: "button", textContent: "Close" });
  close.addEventListener("click", () => { root.hidden = true; });
  const title = document.createElement("b");
  title.textContent = `${what} cut off when the page was left.`;
  root.replaceChildren(title, ` Upload the files that are not in the list again: ${names.join(", ")}.`, close);
  root.hidden = false;
}

/** @type {Watch | null} */
let watch = null; // one for the window: it sees the requests of all pages
/** @type {WeakSet<Element>} */
const initialised = new WeakSet();

/** @param {ComponentArguments<{ takenIn: number }>} component of each run of the page, always with the same element */
export default function show({ data, parentElement }) {
  const root = parentElement.querySelector(".cut");
  if (!(root instanceof HTMLElement)) return;
  watch ??= new Watch();
  if (!initialised.has(root)) {
    initialised.add(root);
    watch.forget(); // Back and Forward leave a page without a click
    watch.takenIn = data.takenIn;
    sayCutOff(root);
  }
  watch.settle(data.takenIn);
}
