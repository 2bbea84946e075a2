/** The view of a case when the reader left it; it lasts as long as the tab, so that another page or a reload loses nothing. */

/** @import { Remembered } from "./types.js" */

import { nameOfLink, targetIn } from "./links.js";

const SOON_MS = 250;

let wasOpened = false; // since this document was loaded

export class Memory {
  /** @param {string} caseId */
  constructor(caseId) {
    this.key = `lungseg-viewer-${caseId}`;
    const target = targetIn(window.location.search);
    this.link = nameOfLink(target);
    /** @type {Remembered | null} */
    this.state = this.read();
    const [navigation] = /** @type {PerformanceNavigationTiming[]} */ (performance.getEntriesByType("navigation"));
    const isFresh = !wasOpened && navigation?.type === "navigate";
    wasOpened = true;
    const isNew = isFresh || !this.state?.links?.includes(this.link);
    /** What the address names, unless the reader followed this link before and went on from there. */
    this.target = target && target.caseId === caseId && isNew ? target : null;
    /** @type {Remembered | null} */
    this.waiting = null;
    /** @type {number | undefined} */
    this.timer = undefined;
  }

  read() {
    try {
      return JSON.parse(window.sessionStorage.getItem(this.key) ?? "null");
    } catch {
      return null; // storage is switched off, or holds what is not ours
    }
  }

  /** @param {Remembered} state is stored soon; of many in a row the last one is written */
  store(state) {
    this.waiting = { ...this.waiting, ...state };
    this.timer ??= window.setTimeout(() => this.write(), SOON_MS);
  }

  write() {
    window.clearTimeout(this.timer);
    this.timer = undefined;
    if (!this.waiting) return;
    const links = [...new Set([...(this.state?.links ?? []), this.link])];
    this.state = { ...this.state, ...this.waiting, links };
    this.waiting = null;
    try {
      window.sessionStorage.setItem(this.key, JSON.stringify(this.state));
    } catch {
      // without storage the next page begins anew
    }
  }
}
