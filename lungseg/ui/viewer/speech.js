/** What a screen reader says: after a pause, and then only what has changed. */

const QUIET_MS = 500;

export class Speech {
  /** @param {HTMLElement} region */
  constructor(region) {
    this.region = region;
    /** @type {Record<string, string>} */
    this.spoken = {};
    /** @type {Record<string, string>} */
    this.parts = {};
  }

  /**
   * Say the parts of a state (sentences by name) that differ from those said last.
   *
   * @param {Record<string, string>} parts
   */
  describe(parts) {
    this.parts = parts;
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.speak(), QUIET_MS);
  }

  speak() {
    const changed = Object.keys(this.parts).filter((name) => this.spoken[name] !== this.parts[name]);
    this.spoken = this.parts;
    if (changed.length) this.region.textContent = changed.map((name) => this.parts[name]).join(" ");
  }

  /**
   * Say a text at once, and show it in a place of the page.
   *
   * @param {string} text
   * @param {HTMLElement} place
   */
  say(text, place) {
    this.region.textContent = text;
    place.textContent = text;
  }

  close() {
    window.clearTimeout(this.timer);
  }
}
