/**
 * Uploads are the browser's alone until the server has taken them in. Streamlit sends them by XMLHttpRequest; what goes to
 * its address for uploads is watched. The names of files that are on their way stand in the memory of this tab
 * (sessionStorage, gone with it), so that a page that comes after can say which never arrived.
 *
 * It imports nothing: it comes with the page itself, so that it watches before the first upload can begin.
 */

/** @import { ComponentArguments } from "../types.js" */

const ADDRESS = "/_stcore/upload_file/";
const MEMORY = "lungseg.uploads";
const QUESTION = "Files are still being uploaded. Those that have not arrived are lost if you leave. Leave all the same?";

/** @typedef {{ name: string }} Upload */

class Watch {
  constructor() {
    /** @type {Set<Upload>} */
    this.onTheirWay = new Set();
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
    return this.onTheirWay.size + this.arrived.size > 0;
  }

  /**
   * @param {XMLHttpRequest} request
   * @param {XMLHttpRequestBodyInit | Document | null} [body]
   */
  follow(request, body) {
    const file = body instanceof FormData ? [...body.values()].find((value) => value instanceof File) : null;
    const upload = { name: file instanceof File ? file.name : "a file" };
    this.onTheirWay.add(upload);
    this.remember();
    request.addEventListener("load", () => {
      if (request.status < 300 && this.onTheirWay.has(upload)) this.arrived.add(upload);
    });
    request.addEventListener("loadend", () => {
      if (this.onTheirWay.delete(upload)) this.remember();
    });
  }

  /**
   * All that had arrived was taken in.
   *
   * @param {number} takenIn how often that was so
   */
  settle(takenIn) {
    if (takenIn === this.takenIn) return;
    this.takenIn = takenIn;
    this.arrived.clear();
    this.remember();
  }

  /** The page is left: what is on its way is lost, which the memory still holds. */
  forget() {
    this.onTheirWay.clear();
    this.arrived.clear();
  }

  remember() {
    const names = [...this.onTheirWay, ...this.arrived].map((upload) => upload.name);
    if (names.length) sessionStorage.setItem(MEMORY, JSON.stringify(names));
    else sessionStorage.removeItem(MEMORY);
  }

  /**
   * A link to another page of ours does not unload anything, but ends the uploads of this one.
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
 * Say which files were on their way when this tab was left, and forget them.
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
  root.replaceChildren(title, ` Upload again what is not in the list: ${names.join(", ")}.`, close);
  root.hidden = false;
}

/** @type {Watch | null} */
let watch = null; // one for the window: requests of all pages go by it
/** @type {WeakSet<Element>} */
const seen = new WeakSet();

/**
 * What Streamlit calls at every run of the page, with the same element.
 *
 * @param {ComponentArguments<{ takenIn: number }>} component
 */
export default function show({ data, parentElement }) {
  const root = parentElement.querySelector(".cut");
  if (!(root instanceof HTMLElement)) return;
  watch ??= new Watch();
  if (!seen.has(root)) {
    seen.add(root);
    watch.forget(); // Back and Forward leave a page without a click
    watch.takenIn = data.takenIn;
    sayCutOff(root);
  }
  watch.settle(data.takenIn);
}
