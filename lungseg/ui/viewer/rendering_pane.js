/** The pane of the 3-D view: drawn at once by a graphics card, on request by a processor. */

/** @import { CaseLoad } from "./loading.js" */

import { find, focusedBeside, make } from "../dom.js";
import { messageOf, Superseded } from "./errors.js";

const TURN_DEGREES = 10;
/** @type {Record<string, [number, number]>} */
const TURNS = {
  ArrowLeft: [-TURN_DEGREES, 0], ArrowRight: [TURN_DEGREES, 0], ArrowUp: [0, TURN_DEGREES], ArrowDown: [0, -TURN_DEGREES],
};
const LABEL = "3-D view of lungs and masks: arrows turn it, f enlarges it";

export class RenderingPane {
  /**
   * @param {HTMLElement} root
   * @param {() => void} onDouble enlarges it, or shows all panes again
   * @param {AbortSignal} signal ends it
   */
  constructor(root, onDouble, signal) {
    this.root = root;
    this.hint = find(root, ".hint", HTMLElement);
    this.button = find(root, ".draw", HTMLButtonElement);
    /** @type {CaseLoad | null} */
    this.load = null;
    root.addEventListener("dblclick", () => { if (this.load?.rendering) onDouble(); }, { signal });
    root.addEventListener("keydown", (event) => {
      if (!(event.key in TURNS) || !this.load?.rendering) return;
      event.preventDefault();
      this.load.rendering.turn(...TURNS[event.key]);
    }, { signal });
  }

  /** Whether the keyboard is in the picture. */
  get hasFocus() {
    return Boolean(this.load?.rendering && this.root.querySelector(".turn:focus-within"));
  }

  /** Show nothing, until a load has something to show. */
  clear() {
    this.load = null;
    this.root.querySelector(".turn")?.remove();
    this.hint.textContent = "";
    this.button.hidden = true;
  }

  /** @param {CaseLoad} load to show now; where a processor draws, it waits for a click on the button */
  async refresh(load) {
    const isOpen = Boolean(load.rendering);
    load.closeRendering();
    this.load = load;
    this.button.hidden = isOpen || !load.planes?.isSoftware;
    if (this.button.hidden) await this.open(load);
  }

  /** Draw, after a click on the button. */
  async draw() {
    const { load } = this;
    if (!load || load.rendering) return;
    const hadFocus = focusedBeside(this.root) === this.button;
    this.button.hidden = true;
    await this.open(load);
    if (hadFocus) this.root.querySelector(/** @type {"div"} */ (".turn"))?.focus();
  }

  /** @param {CaseLoad} load */
  async open(load) {
    this.hint.textContent = "3-D …";
    const canvas = make("canvas");
    const turn = make("div", "turn", "", canvas);
    Object.assign(turn, { tabIndex: 0, role: "application", ariaLabel: LABEL });
    this.root.querySelector(".turn")?.remove();
    this.root.append(turn);
    try {
      await new Promise((resume) => { setTimeout(resume, 30); }); // the planes are drawn first
      await load.openRendering(canvas);
      canvas.tabIndex = -1;
      this.hint.textContent = "3-D";
    } catch (error) {
      if (error instanceof Superseded || load !== this.load) return;
      this.hint.textContent = `3-D failed: ${messageOf(error)}`;
      this.button.hidden = false;
    }
  }
}
