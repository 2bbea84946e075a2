/** The slider of the threshold: it asks the server for the mask at another one. */

/** @import { Threshold } from "./types.js" */

import { find } from "../dom.js";

/** @typedef {{ maskId: string, level: number }} Wish */

export class ThresholdSlider {
  /**
   * @param {HTMLElement} section
   * @param {(wish: Wish) => void} onWish
   * @param {AbortSignal} signal ends it
   */
  constructor(section, onWish, signal) {
    this.section = section;
    this.onWish = onWish;
    /** @type {Threshold | null} */
    this.threshold = null;
    this.asked = 0;
    this.slider = find(section, "input", HTMLInputElement);
    this.slider.addEventListener("input", () => this.showAt(this.slider.valueAsNumber), { signal });
    this.slider.addEventListener("change", () => this.ask(this.slider.valueAsNumber), { signal });
  }

  /**
   * Show what the server says: at which threshold the mask is.
   *
   * @param {Threshold | null} threshold
   */
  show(threshold) {
    this.threshold = threshold;
    this.asked = threshold?.at ?? 0;
    this.section.hidden = !threshold;
    this.showAt(this.asked);
  }

  /** @param {number} at place of the choices */
  showAt(at) {
    if (!this.threshold) return;
    const { choices, reason, defaultAt } = this.threshold;
    Object.assign(this.slider, { max: String(choices.length - 1), value: String(at), disabled: Boolean(reason) });
    this.slider.setAttribute("aria-valuetext", `${choices[at].threshold}. ${choices[at].expected}`);
    find(this.section, "output", HTMLElement).textContent = choices[at].threshold;
    find(this.section, "p", HTMLElement).textContent = reason || choices[at].expected;
    const reset = find(this.section, "button", HTMLButtonElement);
    reset.hidden = Boolean(reason) || at === defaultAt;
    reset.textContent = `Back to the checkpoint's ${choices[defaultAt].threshold}`;
  }

  /** @param {number} at place of the choices */
  ask(at) {
    this.showAt(at);
    if (!this.threshold || at === this.asked) return;
    this.asked = at;
    this.onWish({ maskId: this.threshold.maskId, level: this.threshold.choices[at].level });
  }

  /** Ask for the checkpoint's. */
  reset() {
    if (this.threshold) this.ask(this.threshold.defaultAt);
  }

  /**
   * Ask for what was asked for before, where that is of the same mask and can still be had.
   *
   * @param {Wish} wish
   */
  recall({ maskId, level }) {
    if (!this.threshold || this.threshold.reason || this.threshold.maskId !== maskId) return;
    const at = this.threshold.choices.findIndex((choice) => choice.level === level);
    if (at >= 0) this.ask(at);
  }
}
