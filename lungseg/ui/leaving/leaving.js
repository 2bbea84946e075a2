/**
 * Uploads are the browser's alone until the server has taken them in. Streamlit sends them by XMLHttpRequest; what goes
 * to its address for uploads is watched. The names of files that are on their way stand in the memory of this tab
 * (sessionStorage, gone with it), so that a page that comes after can say which never arrived.
 */

const ADDRESS = "/_stcore/upload_file/";
const MEMORY = "lungseg.uploads";
const QUESTION = "Files are still being uploaded. Those that have not arrived are lost if you leave. Leave all the same?";

class Watch {
  constructor() {
    this.onTheirWay = new Set();
    this.arrived = new Set();
    this.takenIn = 0;
    const watch = this;
    const { open, send } = XMLHttpRequest.prototype;
    XMLHttpRequest.prototype.open = function opened(method, url, ...rest) {
      this.lungsegUpload = method.toUpperCase() === "PUT" && `${url}`.includes(ADDRESS);
      return open.call(this, method, url, ...rest);
    };
    XMLHttpRequest.prototype.send = function sent(body) {
      if (this.lungsegUpload) watch.follow(this, body);
      return send.call(this, body);
    };
    window.addEventListener("beforeunload", (event) => {
      if (this.isBusy) event.preventDefault();
    });
    document.addEventListener("click", (event) => this.ask(event), true);
  }

  get isBusy() {
    return this.onTheirWay.size + this.arrived.size > 0;
  }

  follow(request, body) {
    const file = body instanceof FormData ? [...body.values()].find((value) => value instanceof File) : null;
    const upload = { name: file?.name ?? "a file" };
    this.onTheirWay.add(upload);
    this.remember();
    request.addEventListener("load", () => {
      if (request.status < 300 && this.onTheirWay.has(upload)) this.arrived.add(upload);
    });
    request.addEventListener("loadend", () => {
      if (this.onTheirWay.delete(upload)) this.remember();
    });
  }

  /** All that had arrived was taken in. */
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

  /** A link to another page of ours does not unload anything, but ends the uploads of this one. */
  ask(event) {
    const link = event.composedPath().find((node) => node instanceof HTMLAnchorElement && node.href);
    if (!link || !this.isBusy || link.target === "_blank" || event.ctrlKey || event.metaKey || event.shiftKey) return;
    if (window.confirm(QUESTION)) {
      this.forget();
      return;
    }
    event.preventDefault();
    event.stopImmediatePropagation();
  }
}

/** Say which files were on their way when this tab was left, and forget them. */
function sayCutOff(root) {
  const names = JSON.parse(sessionStorage.getItem(MEMORY) ?? "[]");
  sessionStorage.removeItem(MEMORY);
  if (!names.length) return;
  const found = document.createElement("b");
  found.textContent = `${names.length === 1 ? "An upload was" : `${names.length} uploads were`} cut off when the page was left.`;
  const close = Object.assign(document.createElement("button"), { type: "button", textContent: "Close" });
  close.addEventListener("click", () => { root.hidden = true; });
  root.replaceChildren(found, ` Upload again what is not in the list: ${names.join(", ")}.`, close);
  root.hidden = false;
}

export default function show({ data, parentElement }) {
  const root = parentElement.querySelector(".cut");
  if (!root.lungseg) {
    root.lungseg = true;
    window.lungsegUploads ??= new Watch();
    window.lungsegUploads.forget(); // Back and Forward leave a page without a click
    window.lungsegUploads.takenIn = data.takenIn;
    sayCutOff(root);
  }
  window.lungsegUploads.settle(data.takenIn);
}
