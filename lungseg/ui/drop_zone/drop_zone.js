/** The drop zone: files and folders are chosen or dropped, and what is on its way is shown. */

/** @import { ComponentArguments } from "../types.js" */
/** @import { Left, Task } from "./uploads.js" */

import { objectOn } from "../component.js";
import { find, make, makeButton } from "../dom.js";
import { batchesOf, chosenIn, droppedIn } from "./files.js";
import { ProgressLine } from "./progress.js";
import { Tabs } from "./tabs.js";
import { askByXhr, waitFor } from "./transfer.js";
import { MEMORY, Unfinished } from "./unfinished.js";
import { Uploads, randomId } from "./uploads.js";

/**
 * What the page says: `drop_area` in `__init__.py`.
 *
 * @typedef {object} ZoneData
 * @property {string} endpoint below the base of the server's addresses
 * @property {string} grant
 * @property {number} file_bytes
 * @property {number} upload_bytes
 * @property {string[]} taken groups that are taken in
 */
/** @typedef {(name: string, value: unknown) => void} Send */

const QUESTION = "Files are still being uploaded. If you leave, that stops, and goes on when you choose the same files again. Leave?";
const UNREAD = "Nothing of that was uploaded: a file or folder in it can't be read. Copy it to another folder, and drop that.";

class DropZone {
  /**
   * @param {HTMLElement} root
   * @param {ZoneData} data
   */
  constructor(root, data) {
    this.data = data;
    /** @type {Send} */
    this.setState = () => {};
    /** @type {Send} */
    this.trigger = () => {};
    this.listening = new AbortController();
    this.skipped = 0;
    this.isUnread = false;
    this.progress = new ProgressLine(() => this.uploads);
    this.notes = make("ul", "notes");
    this.tabs = new Tabs(randomId());
    /** @type {Uploads} */
    this.uploads = new Uploads(
      {
        endpoint: new URL(data.endpoint, baseAddress()).href,
        grant: () => this.data.grant,
        renew: () => this.trigger("renew", true),
        ask: askByXhr,
        wait: waitFor,
      },
      new Unfinished(localStorage, this.tabs),
      { changed: () => this.draw(), arrived: (drop, groups) => this.setState("arrived", { drop, groups }) },
    );
    this.listen(root);
    root.append(this.progress.root, this.progress.spoken, this.notes);
    this.watchLeaving();
    this.recall();
  }

  /** Look for uploads that were cut off; those of other tabs are theirs for as long as they are there. */
  async recall() {
    const { signal } = this.listening;
    window.addEventListener("storage", ({ key }) => { if (key === MEMORY) this.uploads.review(); }, { signal });
    window.addEventListener("pagehide", () => this.tabs.say("gone"), { signal });
    window.addEventListener("pageshow", ({ persisted }) => { if (persisted) this.tabs.say("here"); }, { signal });
    await this.tabs.call();
    if (signal.aborted) return;
    this.tabs.onChange = () => this.uploads.recall();
    this.uploads.recall();
  }

  /** @param {HTMLElement} root */
  listen(root) {
    for (const kind of ["files", "folder"]) {
      const input = find(root, `input.${kind}`, HTMLInputElement);
      input.addEventListener("change", () => {
        if (input.files?.length) this.take(chosenIn(input.files));
        input.value = ""; // so that the same file, given again, is a change
      });
      const button = find(root, `button.${kind}`, HTMLButtonElement);
      button.addEventListener("click", () => input.click());
      button.disabled = false; // it was until somebody listens
    }
    this.listenToDrops(find(root, ".zone", HTMLElement));
  }

  /** @param {HTMLElement} zone */
  listenToDrops(zone) {
    let depth = 0; // children are entered before the zone is left
    /** @param {number} change */
    const move = (change) => {
      depth = change ? depth + change : 0;
      zone.classList.toggle("over", depth > 0);
    };
    zone.addEventListener("dragenter", (event) => { event.preventDefault(); move(1); });
    zone.addEventListener("dragleave", () => move(-1));
    zone.addEventListener("dragover", (event) => event.preventDefault());
    zone.addEventListener("drop", async (event) => {
      event.preventDefault();
      move(0);
      if (!event.dataTransfer) return;
      try {
        await this.take(await droppedIn(event.dataTransfer));
      } catch {
        this.isUnread = true;
        this.draw();
      }
    });
  }

  /** @param {import("./files.js").Chosen[]} chosen */
  async take(chosen) {
    const { batches, skipped } = batchesOf(chosen);
    if (batches.some(({ key }) => this.uploads.unfinished.isElsewhere(key))) await this.tabs.call(); // it may have crashed
    this.skipped = skipped;
    this.isUnread = false;
    this.uploads.add(batches);
  }

  /** @param {ZoneData} data */
  show(data) {
    this.data = data;
    this.uploads.limits = { file: data.file_bytes, upload: data.upload_bytes };
    this.uploads.settle(data.taken);
  }

  draw() {
    this.progress.show(this.uploads);
    const { tasks, left } = this.uploads;
    const failed = tasks.filter(({ state }) => state === "failed");
    const groups = left.map(({ memo }) => memo.group);
    const content = [failed.map(({ group, error }) => [group, error?.found]), groups, this.skipped, this.isUnread];
    const shown = JSON.stringify(content);
    if (shown === this.notes.dataset.shown) return;
    this.notes.dataset.shown = shown;
    this.notes.replaceChildren(
      ...(this.isUnread ? [make("li", "failed", UNREAD)] : []),
      ...failed.map((task) => this.failure(task)),
      ...left.map((entry) => this.leftOver(entry)),
      ...(this.skipped ? [make("li", "skipped", `Skipped: ${this.skipped} of the files that systems leave in folders (.DS_Store, Thumbs.db).`)] : []),
    );
  }

  /** @param {Task} task */
  failure(task) {
    const { found, remedy, code } = task.error ?? { found: "", remedy: "", code: "" };
    const again = makeButton("", "Try again");
    again.addEventListener("click", () => this.uploads.tryAgain(task));
    const remove = makeButton("", "Remove");
    remove.addEventListener("click", () => this.uploads.remove(task));
    const texts = [make("b", "", task.batch.name), ` ${found} ${remedy} `, make("code", "", code)];
    const line = make("li", "failed", "", make("span"), ...(code === "scan.too_large" ? [] : [again]), remove);
    line.firstElementChild?.append(...texts);
    line.setAttribute("role", "alert");
    return line;
  }

  /** @param {Left} left */
  leftOver(left) {
    const { memo: { name, size }, sent } = left;
    const discard = makeButton("", "Discard");
    discard.addEventListener("click", () => this.uploads.discard(left));
    const percent = Math.floor((100 * sent) / Math.max(1, size));
    const text = ` was cut off when the page was left: ${percent} % has arrived. Choose the same files again to go on there.`;
    const line = make("li", "left", "", make("span", "", "", make("b", "", name)), discard);
    line.firstElementChild?.append(text);
    line.setAttribute("role", "alert");
    return line;
  }

  watchLeaving() {
    const { signal } = this.listening;
    window.addEventListener("beforeunload", (event) => {
      if (this.uploads.isBusy) event.preventDefault();
    }, { signal });
    document.addEventListener("click", (event) => this.askBefore(event), { capture: true, signal });
  }

  /**
   * Ask before a link to another page of ours is followed: that unloads nothing, but ends the uploads.
   *
   * @param {MouseEvent} event
   */
  askBefore(event) {
    const link = event.composedPath().find((node) => node instanceof HTMLAnchorElement && node.href);
    if (!(link instanceof HTMLAnchorElement) || !this.uploads.isBusy || link.target === "_blank") return;
    if (event.ctrlKey || event.metaKey || event.shiftKey) return; // a window of its own
    if (window.confirm(QUESTION)) {
      this.uploads.pause();
      return;
    }
    event.preventDefault();
    event.stopImmediatePropagation();
  }

  close() {
    this.listening.abort();
    this.uploads.pause();
    this.tabs.close();
  }
}

/** The base of the server's addresses, which a proxy may have put below a path of its own. */
function baseAddress() {
  const page = /** @type {{ __streamlit?: { BACKEND_BASE_URL?: string } }} */ (/** @type {unknown} */ (window));
  return page.__streamlit?.BACKEND_BASE_URL ?? window.location.origin;
}

/** @param {ComponentArguments<ZoneData>} component of each run of the page, always with the same element */
export default function show({ data, parentElement, setStateValue, setTriggerValue }) {
  const root = find(parentElement, ".drop", HTMLElement);
  const { object, release } = objectOn(root, () => new DropZone(root, data));
  Object.assign(object, { setState: setStateValue, trigger: setTriggerValue });
  object.show(data);
  return release;
}
