/** The tools beside the picture (windows, masks, view, help), and the panel as a drawer in narrow windows. */

/** @import { CaseData, Layer, WindowPreset } from "./types.js" */
/** @import { Shortcut } from "./keyboard.js" */
/** @import { ViewState } from "./view_state.js" */

import { find, focusedBeside, make, makeButton } from "../dom.js";
import { css, panelLabel } from "./panels.js";
import { OPACITY } from "./view_state.js";

/** @typedef {Record<"enlarge" | "reset" | "rendering" | "next" | "previous" | "link" | "threshold", () => void>} Actions */

export class Controls {
  /**
   * @param {HTMLElement} root of the viewer
   * @param {ViewState} state
   * @param {Actions} actions of buttons that concern more than the view
   * @param {AbortSignal} signal ends it
   */
  constructor(root, state, actions, signal) {
    this.root = root;
    this.state = state;
    this.built = "";
    this.opacity = find(root, "[data-in=opacity]", HTMLInputElement);
    this.fields = ["centre", "width"].map((name) => find(root, `[data-in=${name}]`, HTMLInputElement));
    this.help = find(root, ".help", HTMLElement);
    const all = {
      ...actions,
      help: () => this.showHelp(this.help.hidden),
      panel: () => this.showPanel(!root.classList.contains("with-panel")),
      opacity: () => this.setOpacity(OPACITY),
      contour: () => this.toggleContours(),
    };
    root.querySelectorAll(/** @type {"button"} */ ("[data-act]")).forEach((button) => {
      button.addEventListener("click", () => all[/** @type {keyof typeof all} */ (button.dataset.act)](), { signal });
    });
    this.opacity.addEventListener("input", () => this.state.set({ opacity: this.opacity.valueAsNumber / 100 }), { signal });
    this.fields.forEach((field) => field.addEventListener("input", () => this.typeWindow(), { signal }));
  }

  /**
   * Make the buttons of windows and layers, and the help, where they have changed.
   *
   * @param {CaseData} data
   * @param {Shortcut[]} shortcuts
   */
  build(data, shortcuts) {
    find(this.root, ".controls [data-act=panel]", HTMLElement).textContent = panelLabel(data);
    const layers = data.layers.filter((layer) => layer.shownWith === null);
    const content = JSON.stringify([data.windows, layers.map((layer) => ({ ...layer, mask: null }))]);
    if (content === this.built) return;
    this.built = content;
    find(this.root, ".windows", HTMLElement).replaceChildren(...data.windows.map((preset) => this.windowButton(preset)));
    find(this.root, ".layers", HTMLElement).replaceChildren(...layers.map((layer) => this.layerButton(layer)));
    find(this.help, "dl", HTMLElement).replaceChildren(...shortcuts.flatMap(({ shown, meaning }) => (
      [make("dt", "", shown), make("dd", "", meaning)]
    )));
  }

  /** @param {WindowPreset} preset */
  windowButton({ name, label, centre, width, shortcut }) {
    const button = makeButton("", label, make("kbd", "", shortcut));
    button.title = `${label}: centre ${centre}, width ${width} HU (key ${shortcut})`;
    button.dataset.window = name;
    button.addEventListener("click", () => this.state.set({ window: [centre, width] }));
    return button;
  }

  /** @param {Layer} layer */
  layerButton(layer) {
    const { key, label, name, colour, shortcut } = layer;
    const keys = shortcut === null ? [] : [make("kbd", "", shortcut)];
    const button = makeButton("mask", "", make("i"), document.createTextNode(label), ...keys);
    button.title = `Show or hide ${name}${shortcut === null ? "" : ` (key ${shortcut})`}`;
    button.dataset.layer = key;
    button.style.setProperty("--layer", css(colour));
    button.addEventListener("click", () => this.state.toggle(layer));
    return button;
  }

  /** Show the state of the view. */
  show() {
    const { view, data, isMoved, enlarged } = this.state;
    const [centre, width] = view.window.map(Math.round);
    this.fields.forEach((field, n) => {
      const value = String([centre, width][n]);
      if (field !== focusedBeside(field) && field.value !== value) field.value = value;
    });
    for (const preset of data.windows) {
      const button = this.root.querySelector(`[data-window="${preset.name}"]`);
      if (button) button.ariaPressed = String(preset.centre === centre && preset.width === width);
    }
    this.root.querySelectorAll(/** @type {"button"} */ ("button[data-layer]")).forEach((button) => {
      const { layer: key = "" } = button.dataset;
      button.disabled = !this.state.layer(key)?.mask;
      button.ariaPressed = String(view.visible[key] && !button.disabled);
    });
    find(this.root, "[data-act=contour]", HTMLElement).ariaPressed = String(view.isContour);
    find(this.root, "[data-act=opacity]", HTMLElement).hidden = view.opacity === OPACITY;
    find(this.root, "[data-act=reset]", HTMLButtonElement).disabled = !isMoved && !enlarged;
  }

  typeWindow() {
    const [centre, width] = this.fields.map((field) => field.valueAsNumber);
    if (Number.isFinite(centre) && width >= 1) this.state.set({ window: [centre, width] });
  }

  /** @param {number} opacity */
  setOpacity(opacity) {
    this.opacity.value = String(Math.round(opacity * 100));
    this.state.set({ opacity });
  }

  toggleContours() {
    this.state.set({ isContour: !this.state.view.isContour });
  }

  /** @param {boolean} isShown */
  showHelp(isShown) {
    if (isShown === !this.help.hidden) return;
    this.help.hidden = !isShown;
    if (isShown) this.before = focusedBeside(this.root);
    const next = isShown ? this.help.querySelector("button") : this.before;
    if (next instanceof HTMLElement) next.focus();
  }

  /** @param {boolean} isShown whether the panel is open, where it is a drawer */
  showPanel(isShown) {
    this.root.classList.toggle("with-panel", isShown);
    find(this.root, ".controls [data-act=panel]", HTMLElement).ariaExpanded = String(isShown);
  }
}
