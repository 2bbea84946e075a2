/** Where the reader left a case: it lasts as long as the tab, so that another page or a reload loses nothing. */

/** @import { Remembered } from "./types.js" */

import { askedIn, nameOfLink } from "./links.js";

const SOON_MS = 250;

let wasOpened = false; // since this document was loaded

export class Memory {
  /** @param {string} caseId */
  constructor(caseId) {
    this.key = `lungseg-viewer-${caseId}`;
    const asked = askedIn(window.location.search);
    this.link = nameOfLink(asked);
    /** @type {Remembered | null} */
    this.state = this.read();
    const [navigation] = /** @type {PerformanceNavigationTiming[]} */ (performance.getEntriesByType("navigation"));
    const isFresh = !wasOpened && navigation?.type === "navigate";
    wasOpened = true;
    const isNews = isFresh || !this.state?.links?.includes(this.link);
    /** What the address asks for, unless the reader followed this link before and went on from there. */
    this.asked = asked && asked.caseId === caseId && isNews ? asked : null;
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

  /**
   * Note a state soon; of many in a row the last one is written.
   *
   * @param {Remembered} state
   */
  keep(state) {
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
      // what can't be kept is lost at the next page, as it would be without storage
    }
  }
}
