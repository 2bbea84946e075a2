/**
 * Keys act while the focus is in the viewer or the pointer is over it, and never while the user types; all other keys
 * belong to the page.
 */

/** @import { Act, Commands } from "./keyboard.js" */

import { HOLDS_WINDOW } from "./keyboard.js";

const OF_LISTS = /^(Arrow|Page|Home|End)/; // lists, sliders and the 3-D view use them themselves
const WITH_ARROWS = "input, .panel, .strip, .turn, .help";
const TYPED_IN = "input:not([type=range]), textarea, select, [contenteditable]:not([contenteditable=false])";
const TAKE_KEYS = `${TYPED_IN}, input, dialog, ${[
  "menu", "listbox", "dialog", "radiogroup", "tablist", "combobox", "slider", "spinbutton", "textbox", "grid", "tree",
].map((role) => `[role=${role}]`).join(", ")}`;

export class KeyboardInput {
  /**
   * @param {HTMLElement} root of the viewer
   * @param {Commands} commands
   * @param {{ keyMap: () => Map<string, Act>, isReady: () => boolean, onRelease: () => void }} handlers the keys of the
   *   case, whether there is a picture, and what to do when the window key is released
   * @param {AbortSignal} signal ends it
   */
  constructor(root, commands, { keyMap, isReady, onRelease }, signal) {
    this.root = root;
    this.commands = commands;
    this.keyMap = keyMap;
    this.isReady = isReady;
    // In the capture phase, before Streamlit, which has keys of its own.
    window.addEventListener("keydown", (event) => this.onKey(event), { capture: true, signal });
    window.addEventListener("keyup", (event) => { if (event.key === HOLDS_WINDOW) onRelease(); }, { signal });
    window.addEventListener("blur", onRelease, { signal });
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const act = this.keyMap().get(event.key);
    if (!act || !this.isForViewer(event)) return;
    const isEscape = event.key === "Escape";
    if (!isEscape && !this.isReady()) return;
    if (!isEscape) {
      event.preventDefault();
      event.stopPropagation();
    }
    act(this.commands);
  }

  /** @param {KeyboardEvent} event */
  isForViewer(event) {
    const [focus] = event.composedPath();
    const isInside = event.composedPath().includes(this.root);
    if (event.ctrlKey || event.metaKey || event.altKey || !(focus instanceof Element)) return false;
    if (!isInside) return this.root.matches(":hover") && !focus.closest(TAKE_KEYS);
    if (event.key === "Escape") return true;
    if (focus.matches(TYPED_IN)) return false;
    return !(OF_LISTS.test(event.key) && focus.closest(WITH_ARROWS));
  }
}
