/**
 * The viewer of one case: it joins the load (`loading.js`), the state of the view (`view_state.js`), the pictures
 * (`picture.js`, `rendering_pane.js`) and the input (`pointer_input.js`, `keyboard_input.js`, `controls.js`).
 */

/** @import { ComponentArguments } from "../types.js" */
/** @import { Act, Commands } from "./keyboard.js" */
/** @import { CaseData, Reading } from "./types.js" */
/** @import { ThresholdChoice } from "./threshold_slider.js" */

import { objectOn } from "../component.js";
import { find } from "../dom.js";
import { percent, titled } from "./annotations.js";
import { copyText } from "./clipboard.js";
import { Controls } from "./controls.js";
import { LoadError, messageOf, NoWebGLError } from "./errors.js";
import { placeText } from "./geometry.js";
import { KeyboardInput } from "./keyboard_input.js";
import { keyMapOf, shortcutsFor } from "./keyboard.js";
import { RENDERING } from "./layout.js";
import { linkedLesion, linkedSlice, linkedWindow, linkTo } from "./links.js";
import { CaseLoad } from "./loading.js";
import { Memory } from "./memory.js";
import { markCurrent, showAlarm, showFindings, showLesions, showProvenance } from "./panels.js";
import { Picture } from "./picture.js";
import { PointerInput } from "./pointer_input.js";
import { RenderingPane } from "./rendering_pane.js";
import { Speech } from "./speech.js";
import { Strip } from "./strip.js";
import { ThresholdSlider } from "./threshold_slider.js";
import { ViewState } from "./view_state.js";

export class Viewer {
  /**
   * @param {HTMLElement} root
   * @param {CaseData} data
   * @param {(name: string, value: unknown) => void} setState sends a value to the server; each run of the page has its own
   */
  constructor(root, data, setState) {
    this.root = root;
    this.setState = setState;
    this.listening = new AbortController();
    const { signal } = this.listening;
    this.state = new ViewState(data, () => this.drawSoon());
    this.picture = new Picture(find(root, ".stage", HTMLElement), this.state);
    this.lesions = find(root, ".lesions", HTMLElement);
    this.speech = new Speech(find(root, ".spoken", HTMLElement));
    this.rendering = new RenderingPane(find(root, ".rendering", HTMLElement), () => this.enlarge(RENDERING), signal);
    this.strip = new Strip(find(root, ".strip", HTMLCanvasElement), (k) => this.goToSlice(k), signal);
    this.threshold = new ThresholdSlider(find(root, ".threshold", HTMLElement), (choice) => this.requestThreshold(choice), signal);
    this.pointer = new PointerInput(this, this.picture.annotations.root, signal);
    this.controls = new Controls(root, this.state, this.actions, signal);
    /** @type {Map<string, Act>} */
    this.keyMap = new Map();
    this.keyboard = new KeyboardInput(root, this.commands, {
      keyMap: () => this.keyMap, isReady: () => this.isReady, onRelease: () => { this.pointer.holdsWindow = false; },
    }, signal);
    window.addEventListener("pagehide", () => this.remember(), { signal });
    window.addEventListener("resize", () => this.fit(), { signal });
    this.sizes = new ResizeObserver(() => this.arrange());
    this.sizes.observe(this.picture.stage);
    /** @type {CaseLoad | null} */
    this.load = null;
    /** @type {Memory | null} */
    this.memory = null;
    this.frame = 0;
    // For the console and the browser tests, which only read it.
    Object.defineProperty(root, "lungsegViewer", { value: this, configurable: true });
  }

  get isReady() {
    return this.load?.isReady ?? false;
  }

  /** The actions of buttons that concern more than the view. */
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
      threshold: () => this.threshold.reset(),
    };
  }

  /** @returns {Commands} */
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

  // Data of the server

  /** @param {CaseData} data of a case; loaded volumes stay as they are */
  show(data) {
    const { data: before } = this.state;
    const isOther = !this.load || before.scan.sha !== data.scan.sha || before.caseId !== data.caseId;
    if (isOther) this.unload();
    else this.state.update(data);
    requestAnimationFrame(() => this.fit());
    const shortcuts = shortcutsFor(data.layers, data.windows);
    this.keyMap = keyMapOf(shortcuts);
    this.controls.build(data, shortcuts);
    showLesions(this.lesions, data.layers, (place) => this.state.jump(place));
    this.lesions.classList.remove("waiting");
    this.threshold.show(data.threshold);
    showAlarm(find(this.root, ".alarm", HTMLElement), data);
    showFindings(find(this.root, ".findings", HTMLElement), data.findings);
    showProvenance(find(this.root, ".provenance", HTMLElement), data.provenance);
    if (isOther) this.open(data);
    else if (this.load?.isReady) this.during(this.load, (load) => this.loadMasks(load));
  }

  /** Fill the window below the top of the viewer. */
  fit() {
    const top = this.root.getBoundingClientRect().top + window.scrollY;
    this.root.style.setProperty("--above", `${Math.round(top) + 8}px`);
  }

  /** @param {CaseData} data */
  open(data) {
    this.state.open(data);
    this.restore(data);
    this.load = new CaseLoad(data);
    this.picture.load = this.load;
    this.showMessage("Loading the scan …");
    this.during(this.load, async (load) => {
      const container = find(this.root, ".planes", HTMLElement);
      await load.open(container, (bytes) => this.showProgress(load, bytes), () => this.arrange());
      this.showReady();
      this.draw();
      load.markTime("firstSliceMs");
      await this.loadMasks(load);
    });
  }

  /**
   * Do a step of a load; failures of a load that another one has replaced are ignored.
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
    this.showReady(); // masks of another threshold may have failed before
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

  showReady() {
    this.root.dataset.state = "ready";
    this.showMessage("");
  }

  /** @param {string} text */
  showMessage(text) {
    find(this.root, ".message", HTMLElement).textContent = text;
  }

  unload() {
    this.remember();
    this.memory = null;
    this.load?.close();
    this.load = null;
    this.picture.load = null;
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

  // Memory and links

  /**
   * Go back to the view in which this tab left the case, or to the target of the address.
   *
   * @param {CaseData} data
   */
  restore({ caseId, layers }) {
    const { state } = this;
    this.memory = new Memory(caseId);
    const { state: remembered, target } = this.memory;
    if (remembered) state.restore(remembered);
    if (remembered?.threshold) this.threshold.restore(remembered.threshold);
    if (target) {
      state.lesion = linkedLesion(target.lesion, layers);
      const [i, j, k] = state.lesionAt(state.lesion)?.centreIndex ?? state.index;
      state.goTo([i, j, linkedSlice(target.slice) ?? k]);
      state.set({ window: linkedWindow(target.window) ?? state.view.window });
    }
    this.controls.opacity.value = String(state.view.opacity * 100);
  }

  /** Store the view, drawn already or not. */
  remember() {
    if (this.isReady) this.memory?.store(this.state.toRemember);
    this.memory?.write();
  }

  /** @param {ThresholdChoice} choice */
  requestThreshold(choice) {
    this.lesions.classList.add("waiting");
    this.memory?.store({ threshold: choice });
    this.setState("threshold", choice);
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

  // Layout and drawing

  /** Place the panes, and 3-D where there is room for it. */
  arrange() {
    if (!this.picture.planes) return;
    const box = this.picture.arrange();
    const [left, top, width, height] = (box ?? [0, 0, 0, 0]).map(percent);
    this.rendering.root.hidden = !box;
    Object.assign(this.rendering.root.style, { left, top, width, height });
    this.load?.rendering?.resize();
    this.drawSoon();
  }

  /** @param {string | null} name of a plane, or 3-D; all panes are shown again where it is enlarged already, or null */
  enlarge(name) {
    this.state.enlarged = this.state.enlarged === name ? null : name;
    this.arrange();
  }

  enlargeMeant() {
    if (this.state.enlarged) this.enlarge(null);
    else if (this.rendering.hasFocus) this.enlarge(RENDERING);
    else this.enlarge(this.picture.planeOf(this.pointer.pane).name);
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
    const cross = this.picture.draw(this.pointer.place);
    if (!cross) return;
    const { state } = this;
    this.strip.draw(state.grid.shape[2], state.index[2], state.data.layers);
    this.controls.show();
    markCurrent(this.lesions, state.lesion);
    this.memory?.store(state.toRemember);
    this.speech.describe(this.spoken(cross));
  }

  /**
   * The description of the picture for a screen reader, in parts.
   *
   * @param {Reading} cross
   * @returns {Record<string, string>}
   */
  spoken(cross) {
    const { data: { windows }, index, grid, view } = this.state;
    const { name, normal } = this.picture.planeOf(this.pointer.pane);
    const [centre, width] = view.window.map(Math.round);
    const preset = windows.find((candidate) => candidate.centre === centre && candidate.width === width)?.name ?? "";
    return {
      slice: `${titled(name)} slice ${index[normal] + 1} of ${grid.shape[normal]}.`,
      cross: `Cross: ${Math.round(cross.hu)} HU, ${placeText(cross.mm, 0)}.`,
      window: `Window ${preset} centre ${centre}, width ${width} HU.`,
    };
  }

  /** @param {number} by slices of a pane */
  step(by, pane = this.pointer.pane) {
    if (this.isReady) this.state.step(this.picture.planeOf(pane).normal, by);
  }

  /** @param {number} k */
  goToSlice(k) {
    const { index } = this.state;
    if (this.isReady) this.state.goTo([index[0], index[1], k]);
  }
}

/** @param {ComponentArguments<CaseData>} component of each run of the page, always with the same element */
export default function show({ data, parentElement, setStateValue }) {
  const root = find(parentElement, ".viewer", HTMLElement);
  const { object, release } = objectOn(root, () => new Viewer(root, data, setStateValue));
  object.setState = setStateValue;
  object.show(data);
  return release;
}
