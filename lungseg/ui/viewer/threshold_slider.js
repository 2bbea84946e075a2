/** The slider of the threshold: it requests the mask at another threshold from the server. */

/** @import { Threshold } from "./types.js" */

import { find } from "../dom.js";

/** @typedef {{ maskId: string, level: number }} ThresholdChoice */

export class ThresholdSlider {
  /**
   * @param {HTMLElement} section
   * @param {(choice: ThresholdChoice) => void} onChoice
   * @param {AbortSignal} signal ends it
   */
  constructor(section, onChoice, signal) {
    this.section = section;
    this.onChoice = onChoice;
    /** @type {Threshold | null} */
    this.threshold = null;
    this.current = 0;
    this.slider = find(section, "input", HTMLInputElement);
    this.slider.addEventListener("input", () => this.showAt(this.slider.valueAsNumber), { signal });
    this.slider.addEventListener("change", () => this.choose(this.slider.valueAsNumber), { signal });
  }

  /** @param {Threshold | null} threshold of the mask, as the server says */
  show(threshold) {
    this.threshold = threshold;
    this.current = threshold?.at ?? 0;
    this.section.hidden = !threshold;
    this.showAt(this.current);
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
  choose(at) {
    this.showAt(at);
    if (!this.threshold || at === this.current) return;
    this.current = at;
    this.onChoice({ maskId: this.threshold.maskId, level: this.threshold.choices[at].level });
  }

  /** Choose the checkpoint's threshold. */
  reset() {
    if (this.threshold) this.choose(this.threshold.defaultAt);
  }

  /**
   * Choose the threshold of an earlier visit, where it is of the same mask and still available.
   *
   * @param {ThresholdChoice} choice
   */
  restore({ maskId, level }) {
    if (!this.threshold || this.threshold.reason || this.threshold.maskId !== maskId) return;
    const at = this.threshold.choices.findIndex((choice) => choice.level === level);
    if (at >= 0) this.choose(at);
  }
}
