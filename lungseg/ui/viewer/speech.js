/** What a screen reader is told: once things rest, and then only what has changed. */

const QUIET_MS = 500;

export class Speech {
  /** @param {HTMLElement} region */
  constructor(region) {
    this.region = region;
    /** @type {Record<string, string>} */
    this.told = {};
    /** @type {Record<string, string>} */
    this.parts = {};
  }

  /**
   * Tell the parts of a state (sentences by name) that differ from what was told last.
   *
   * @param {Record<string, string>} parts
   */
  tell(parts) {
    this.parts = parts;
    window.clearTimeout(this.timer);
    this.timer = window.setTimeout(() => this.speak(), QUIET_MS);
  }

  speak() {
    const news = Object.keys(this.parts).filter((name) => this.told[name] !== this.parts[name]);
    this.told = this.parts;
    if (news.length) this.region.textContent = news.map((name) => this.parts[name]).join(" ");
  }

  /**
   * Say something at once, and write it where those who see look for it.
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
