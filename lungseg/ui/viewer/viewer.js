/**
 * The viewer of one case: it joins what is loaded (`loading.js`), where the reader stands (`view_state.js`), what is drawn
 * (`planes.js`, `annotations.js`) and what hands do (`pointer_input.js`, `keyboard_input.js`, `controls.js`).
 */

/** @import { ComponentArguments } from "../types.js" */
/** @import { CaseData, Reading, Triple } from "./types.js" */
/** @import { Place } from "./pointer_input.js" */
/** @import { Act } from "./keyboard.js" */

import { objectOn } from "../component.js";
import { find } from "../dom.js";
import { Annotations, percent, titled } from "./annotations.js";
import { copyText } from "./clipboard.js";
import { Controls } from "./controls.js";
import { LoadError, messageOf, NoWebGLError } from "./errors.js";
import { indexAt, isInside, mmOf, placeText } from "./geometry.js";
import { KeyboardInput } from "./keyboard_input.js";
import { keyMapOf, shortcutsFor } from "./keyboard.js";
import { panesFor, RENDERING } from "./layout.js";
import { linkedLesion, linkedSlice, linkedWindow, linkTo } from "./links.js";
import { CaseLoad } from "./loading.js";
import { Memory } from "./memory.js";
import { markCurrent, showAlarm, showFindings, showLesions, showProvenance, showThreshold } from "./panels.js";
import { PointerInput } from "./pointer_input.js";
import { RenderingPane } from "./rendering_pane.js";
import { Speech } from "./speech.js";
import { Strip } from "./strip.js";
import { ViewState } from "./view_state.js";

const MOST_SLICE_PX = 16;
const LEAST_SLICE_PX = 4;

export class Viewer {
  /**
   * @param {HTMLElement} root
   * @param {CaseData} data
   * @param {(name: string, value: unknown) => void} setState tells the server; each run of the page has its own
   */
  constructor(root, data, setState) {
    this.root = root;
    this.setState = setState;
    this.listening = new AbortController();
    const { signal } = this.listening;
    this.stage = find(root, ".stage", HTMLElement);
    this.state = new ViewState(data, () => this.drawSoon());
    this.speech = new Speech(find(root, ".spoken", HTMLElement));
    this.annotations = new Annotations(find(root, ".annotations", HTMLElement));
    this.rendering = new RenderingPane(find(root, ".rendering", HTMLElement), () => this.enlarge(RENDERING), signal);
    this.strip = new Strip(find(root, ".strip", HTMLCanvasElement), (k) => this.goToSlice(k), signal);
    this.pointer = new PointerInput(this, this.annotations.root, signal);
    this.controls = new Controls(root, this.state, this.actions, signal);
    /** @type {Map<string, Act>} */
    this.keyMap = new Map();
    this.keyboard = new KeyboardInput(root, this.commands, {
      keyMap: () => this.keyMap, isReady: () => this.isReady, onRelease: () => { this.pointer.holdsWindow = false; },
    }, signal);
    const slider = find(root, "[data-in=threshold]", HTMLInputElement);
    slider.addEventListener("input", () => this.showThreshold(slider.valueAsNumber), { signal });
    slider.addEventListener("change", () => this.askThreshold(slider.valueAsNumber), { signal });
    window.addEventListener("pagehide", () => this.memory?.write(), { signal });
    window.addEventListener("resize", () => this.fit(), { signal });
    this.sizes = new ResizeObserver(() => this.arrange());
    this.sizes.observe(this.stage);
    /** @type {CaseLoad | null} */
    this.load = null;
    /** @type {Memory | null} */
    this.memory = null;
    /** @type {number | undefined} place of the threshold that was asked for last */
    this.asked = undefined;
    this.frame = 0;
    // For the console and the browser tests: what is on screen, to be looked at, not to be changed.
    Object.defineProperty(root, "lungsegViewer", { value: this, configurable: true });
  }

  get isReady() {
    return this.load?.isReady ?? false;
  }

  get planes() {
    return this.load?.planes ?? null;
  }

  /** What the buttons do that concerns more than the view. */
  get actions() {
    /** @param {() => void} act */
    const onPicture = (act) => () => { if (this.isReady) act(); };
    return {
      enlarge: onPicture(() => this.enlargeMeant()),
      reset: onPicture(() => this.reset()),
      rendering: onPicture(() => this.rendering.draw()),
      next: onPicture(() => this.state.nextLesion(1)),
      previous: onPicture(() => this.state.nextLesion(-1)),
      link: onPicture(() => this.copyLink()),
      threshold: () => this.askThreshold(this.state.data.threshold?.defaultAt ?? 0),
    };
  }

  /** @returns {import("./keyboard.js").Commands} */
  get commands() {
    return {
      step: (by) => this.step(by),
      setWindow: ({ centre, width }) => this.state.set({ window: [centre, width] }),
      toggleLayer: (layer) => this.state.toggle(layer),
      toggleContours: () => this.controls.toggleContours(),
      nextLesion: (by) => this.state.nextLesion(by),
      zoom: (factor) => this.state.zoom(factor),
      holdWindow: () => { this.pointer.holdsWindow = true; },
      enlarge: () => this.enlargeMeant(),
      reset: () => this.reset(),
      toggleHelp: () => this.controls.showHelp(this.controls.help.hidden),
      closeAll: () => { this.controls.showHelp(false); this.controls.showPanel(false); },
    };
  }

  // What the server says

  /**
   * Show what the server says of a case; volumes that are held already stay as they are.
   *
   * @param {CaseData} data
   */
  show(data) {
    const { data: before } = this.state;
    const isOther = !this.load || before.scan.sha !== data.scan.sha || before.caseId !== data.caseId;
    if (isOther) this.unload();
    else this.state.update(data);
    requestAnimationFrame(() => this.fit());
    const shortcuts = shortcutsFor(data.layers, data.windows);
    this.keyMap = keyMapOf(shortcuts);
    this.controls.build(data, shortcuts);
    const lesions = find(this.root, ".lesions", HTMLElement);
    showLesions(lesions, data.layers, (place) => this.state.jump(place));
    lesions.classList.remove("waiting");
    this.asked = data.threshold?.at;
    showThreshold(find(this.root, ".threshold", HTMLElement), data.threshold, data.threshold?.at ?? 0);
    showAlarm(find(this.root, ".alarm", HTMLElement), data);
    showFindings(find(this.root, ".findings", HTMLElement), data.findings);
    showProvenance(find(this.root, ".provenance", HTMLElement), data.provenance);
    if (isOther) this.open(data);
    else if (this.load?.isReady) this.during(this.load, (load) => this.loadMasks(load));
  }

  /** Fill the window from where the viewer begins. */
  fit() {
    const top = this.root.getBoundingClientRect().top + window.scrollY;
    this.root.style.setProperty("--above", `${Math.round(top) + 8}px`);
  }

  /**
   * Begin with a case.
   *
   * @param {CaseData} data
   */
  open(data) {
    this.state.open(data);
    this.recall(data);
    this.load = new CaseLoad(data);
    this.showMessage("Loading the scan …");
    this.during(this.load, async (load) => {
      const container = find(this.root, ".planes", HTMLElement);
      await load.open(container, (bytes) => this.showProgress(load, bytes), () => this.arrange());
      this.showMessage("");
      this.root.dataset.state = "ready";
      this.draw();
      load.markTime("firstSliceMs");
      await this.loadMasks(load);
    });
  }

  /**
   * Do what belongs to a load; what fails of one that has been taken the place of is nobody's concern any more.
   *
   * @param {CaseLoad} load
   * @param {(load: CaseLoad) => Promise<void>} act
   */
  async during(load, act) {
    try {
      await act(load);
    } catch (error) {
      if (load === this.load) this.fail(error);
    }
  }

  /** @param {CaseLoad} load */
  async loadMasks(load) {
    if (!await load.loadMasks(this.state.data.layers)) return;
    this.drawSoon();
    await this.rendering.refresh(load);
  }

  /**
   * @param {CaseLoad} load
   * @param {number} bytes
   */
  showProgress(load, bytes) {
    if (load === this.load) this.showMessage(`Loading the scan … ${(bytes / 1e6).toFixed(0)} MB`);
  }

  /** @param {unknown} error */
  fail(error) {
    this.root.dataset.state = "failed";
    this.showMessage(error instanceof LoadError ? error.message : `The viewer stopped: ${messageOf(error)}. Reload the page.`);
    if (error instanceof NoWebGLError) this.setState("webgl2", "missing");
  }

  /** @param {string} text */
  showMessage(text) {
    find(this.root, ".message", HTMLElement).textContent = text;
  }

  unload() {
    this.memory?.write();
    this.memory = null;
    this.load?.close();
    this.load = null;
    this.rendering.clear();
    this.pointer.forget();
    this.root.dataset.state = "loading";
  }

  close() {
    this.unload();
    this.listening.abort();
    this.sizes.disconnect();
    this.speech.close();
    cancelAnimationFrame(this.frame);
    Reflect.deleteProperty(this.root, "lungsegViewer");
  }

  // What lasts

  /**
   * Go back to where the reader left this case in this tab, or to where the address leads.
   *
   * @param {CaseData} data
   */
  recall({ caseId, layers }) {
    const { state } = this;
    this.memory = new Memory(caseId);
    const { state: remembered, asked } = this.memory;
    if (remembered) state.restore(remembered);
    if (remembered?.threshold) this.recallThreshold(remembered.threshold);
    if (asked) {
      state.lesion = linkedLesion(asked.lesion, layers);
      const [i, j, k] = state.lesionAt(state.lesion)?.centreIndex ?? state.index;
      state.goTo([i, j, linkedSlice(asked.slice) ?? k]);
      state.set({ window: linkedWindow(asked.window) ?? state.view.window });
    }
    this.controls.opacity.value = String(state.view.opacity * 100);
  }

  /** @param {{ maskId: string, level: number }} remembered */
  recallThreshold({ maskId, level }) {
    const { threshold } = this.state.data;
    if (!threshold || threshold.reason || threshold.maskId !== maskId) return;
    const at = threshold.choices.findIndex((choice) => choice.level === level);
    if (at >= 0) this.askThreshold(at);
  }

  async copyLink() {
    const { data: { caseId }, index, view, lesion } = this.state;
    const listed = this.state.lesionAt(lesion);
    const named = lesion && listed ? `${lesion.layer}-${listed.number}` : null;
    const place = find(this.root, "[data-out=link]", HTMLElement);
    try {
      await copyText(linkTo(new URL(window.location.href), { caseId, index, window: view.window, lesion: named }));
      this.speech.say("A link to this slice is copied.", place);
    } catch (error) {
      this.speech.say(`The link could not be copied: ${messageOf(error)}.`, place);
    }
  }

  /** @param {number} at place of the choices */
  showThreshold(at) {
    showThreshold(find(this.root, ".threshold", HTMLElement), this.state.data.threshold, at);
  }

  /**
   * Ask the server for the mask at another threshold.
   *
   * @param {number} at place of the choices
   */
  askThreshold(at) {
    const { threshold } = this.state.data;
    this.showThreshold(at);
    if (!threshold || at === this.asked) return;
    this.asked = at;
    find(this.root, ".lesions", HTMLElement).classList.add("waiting");
    const wish = { maskId: threshold.maskId, level: threshold.choices[at].level };
    this.memory?.keep({ threshold: wish });
    this.setState("threshold", wish);
  }

  // Layout and drawing

  /** Place the panes: one large, the other planes and 3-D beside it or, where that leaves more room, below; or one alone. */
  arrange() {
    const { load, planes, stage: { clientWidth, clientHeight }, state: { enlarged, grid } } = this;
    if (!load || !planes) return;
    const { panes, rendering } = panesFor(clientWidth, clientHeight, enlarged);
    const [left, top, width, height] = (rendering ?? [0, 0, 0, 0]).map(percent);
    this.rendering.root.hidden = !rendering;
    Object.assign(this.rendering.root.style, { left, top, width, height });
    planes.setLayout(panes);
    this.annotations.arrange(panes, grid.shape);
    load.rendering?.resize();
    this.drawSoon();
  }

  /** @param {string | null} name of a plane, or 3-D; the one that is enlarged already gives the others their room back */
  enlarge(name) {
    this.state.enlarged = this.state.enlarged === name ? null : name;
    this.arrange();
  }

  /** @param {number} pane */
  enlargePane(pane) {
    const { planes } = this;
    if (planes) this.enlarge(planes.panes[pane].plane.name);
  }

  enlargeMeant() {
    if (this.state.enlarged) this.enlarge(null);
    else if (this.rendering.hasFocus) this.enlarge(RENDERING);
    else this.enlargePane(this.pointer.pane);
  }

  reset() {
    this.state.set({ zoom: 1, pan: [0, 0, 0] });
    this.enlarge(null);
  }

  drawSoon() {
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    const { planes, state, isReady } = this;
    if (!isReady || !planes) return;
    planes.draw(state.index, state.view, state.data.layers);
    this.annotations.root.style.visibility = state.enlarged === RENDERING ? "hidden" : "visible";
    const cross = this.readAt(state.index);
    this.annotations.draw(planes, { index: state.index, window: state.view.window, pointer: this.pointed, cross });
    this.strip.draw(state.grid.shape[2], state.index[2], state.data.layers);
    this.controls.show();
    markCurrent(find(this.root, ".lesions", HTMLElement), state.lesion);
    this.memory?.keep(state.toRemember);
    this.speech.tell(this.spoken(cross));
  }

  /**
   * What a voxel holds.
   *
   * @param {Triple} index
   * @returns {Reading}
   */
  readAt(index) {
    return { index, hu: this.load?.volume?.value(index) ?? NaN, mm: mmOf(this.state.grid, index) };
  }

  /** What lies under the pointer in the picture as it is drawn now, or null. Nothing of it is ever kept. */
  get pointed() {
    const { planes, pointer: { at } } = this;
    const pane = at && this.paneOf(at);
    if (!at || !planes || !this.isReady || pane === null) return null;
    const index = indexAt(this.state.grid, planes.shareAt(pane, this.pixelOf(at)));
    return isInside(this.state.grid, index) ? { pane, ...this.readAt(index) } : null;
  }

  /**
   * What a screen reader says of the picture, in parts: only those that have changed are said.
   *
   * @param {Reading} cross
   * @returns {Record<string, string>}
   */
  spoken(cross) {
    const { data: { windows }, index, grid, view } = this.state;
    const { name, normal } = this.planeOf(this.pointer.pane);
    const [centre, width] = view.window.map(Math.round);
    const preset = windows.find((each) => each.centre === centre && each.width === width)?.name ?? "";
    return {
      slice: `${titled(name)} slice ${index[normal] + 1} of ${grid.shape[normal]}.`,
      cross: `Cross: ${Math.round(cross.hu)} HU, ${placeText(cross.mm, 0)}.`,
      window: `Window ${preset} centre ${centre}, width ${width} HU.`,
    };
  }

  // Where things are on the screen

  /** @param {number} pane */
  planeOf(pane) {
    const { shown } = this.annotations;
    return (shown[pane] ?? shown[0]).plane;
  }

  /**
   * Go by slices of a pane; of the one that is meant where none is named.
   *
   * @param {number} by
   */
  step(by, pane = this.pointer.pane) {
    if (this.isReady) this.state.step(this.planeOf(pane).normal, by);
  }

  /** @param {number} k */
  goToSlice(k) {
    const { index, grid } = this.state;
    if (this.isReady) this.state.goTo([index[0], index[1], Math.max(0, Math.min(grid.shape[2] - 1, k))]);
  }

  /**
   * Move the picture by [x, y] pixels of the page, as pane number `pane` shows it.
   *
   * @param {number | null} pane
   * @param {[number, number]} moved
   */
  pan(pane, [x, y]) {
    const { planes, state, ratio } = this;
    if (planes && pane !== null) state.pan(planes.mmOfDrag(pane, [x * ratio, y * ratio], state.view.zoom));
  }

  /**
   * Move the cross to what pane number `pane` shows at a place of the page.
   *
   * @param {number | null} pane
   * @param {Place} place
   */
  pointAt(pane, place) {
    const { planes, state } = this;
    if (planes && pane !== null) state.goTo(indexAt(state.grid, planes.shareAt(pane, this.pixelOf(place))));
  }

  /**
   * By how much a finger moves for a slice: the height of a pane is the scan, as far as fingers are that exact.
   *
   * @param {number} pane
   */
  slicePixels(pane) {
    const { frame: { box }, count } = this.annotations.shown[pane];
    return Math.max(LEAST_SLICE_PX, Math.min(MOST_SLICE_PX, box.clientHeight / count));
  }

  /** Device pixels of the canvas a pixel of the page. */
  get ratio() {
    return (this.planes?.canvas.width ?? 1) / Math.max(1, this.annotations.root.clientWidth);
  }

  /**
   * @param {Place} place
   * @returns {[number, number]} in device pixels of the canvas
   */
  pixelOf({ clientX, clientY }) {
    const { left, top } = this.annotations.root.getBoundingClientRect();
    return [(clientX - left) * this.ratio, (clientY - top) * this.ratio];
  }

  /**
   * Number of the pane at a place of the page, or null.
   *
   * @param {Place} place
   */
  paneOf(place) {
    return this.planes?.paneAt(this.pixelOf(place)) ?? null;
  }
}

/**
 * What Streamlit calls at every run of the page, with the same element.
 *
 * @param {ComponentArguments<CaseData>} component
 */
export default function show({ data, parentElement, setStateValue }) {
  const root = find(parentElement, ".viewer", HTMLElement);
  const { object, release } = objectOn(root, () => new Viewer(root, data, setStateValue));
  object.setState = setStateValue;
  object.show(data);
  return release;
}
