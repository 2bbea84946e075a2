// What the reader's hands do with a viewer: mouse, wheel, fingers, keys and the controls beside the picture.

const HU_PER_PIXEL = 2.5;
const TURN = 10; // degrees
const DOUBLE_MS = 500;
const NEAR_PX = 8;
const KEYS_OF_LISTS = /^(Arrow|Page|Home|End)/; // what lists, sliders and the 3-D view do something with themselves
const WITH_ARROWS = "input, .panel, .strip, .turn, .help";
const WITH_KEYS = "[role=menu], [role=listbox], [role=dialog], [role=radiogroup], [role=tablist], [role=combobox], dialog";

class Hands {
  constructor(viewer) {
    this.viewer = viewer;
    this.wheel = new Wheel();
    this.touches = new Touches(viewer, this);
    this.listening = new AbortController();
    this.forget();
    this.listen();
  }

  /** Let go of everything; the pointer is where it is seen next. */
  forget() {
    Object.assign(this, { at: null, drag: null, pressed: null, holdsWindow: false, isByKey: false });
    this.touches.forget();
  }

  close() {
    this.listening.abort();
  }

  /** The pane that keys and wheel mean: that which has the focus of the keyboard, or lies under the pointer; else the first. */
  get pane() {
    const { viewer } = this;
    const focused = viewer.marks.focused(viewer.planes.panes);
    const under = this.at ? viewer.paneOf(this.at) : -1;
    const [first, second] = this.isByKey ? [focused, under] : [under, focused];
    return Math.max(0, first >= 0 ? first : second);
  }

  listen() {
    const { viewer, listening: { signal } } = this;
    const on = (target, name, act, options = {}) => target.addEventListener(name, act, { signal, ...options });
    on(window, "keydown", (event) => this.onKey(event), { capture: true }); // before Streamlit, which has keys of its own
    on(window, "keyup", (event) => { if (event.key === "w") this.holdsWindow = false; });
    on(window, "pagehide", () => viewer.memory?.write());
    on(window, "resize", () => viewer.fit());
    const { root } = viewer.marks;
    on(root, "wheel", (event) => this.onWheel(event), { passive: false });
    on(root, "pointerdown", (event) => this.onPress(event));
    on(root, "pointermove", (event) => this.onMove(event));
    for (const name of ["pointerup", "pointercancel"]) on(root, name, (event) => this.onRelease(event));
    on(root, "pointerleave", () => this.leave());
    on(root, "dblclick", (event) => this.onDouble(event));
    on(root, "contextmenu", (event) => event.preventDefault());
    on(root, "focusin", () => { this.isByKey = root.querySelector(":focus-visible") !== null; viewer.drawSoon(); });
    this.listenToControls(on);
  }

  listenToControls(on) {
    const { viewer } = this;
    const { find, root } = viewer;
    const each = (selector, name, act) => root.querySelectorAll(selector).forEach((one) => on(one, name, () => act(one)));
    each("[data-window]", "click", (button) => viewer.set({ window: button.dataset.window.split(",").map(Number) }));
    each("[data-toggle]", "click", (button) => viewer.toggle(button.dataset.toggle));
    each("[data-act]", "click", (button) => this.act(button.dataset.act));
    each("[data-in=opacity]", "input", (slider) => viewer.set({ opacity: Number(slider.value) / 100 }));
    each("[data-in=centre], [data-in=width]", "input", () => this.typeWindow());
    each("[data-in=threshold]", "input", (slider) => this.showThreshold(Number(slider.value)));
    each("[data-in=threshold]", "change", (slider) => viewer.operate(Number(slider.value)));
    on(find(".solid"), "dblclick", () => viewer.solid && viewer.enlarge("solid"));
    on(find(".strip"), "keydown", (event) => this.onStripKey(event));
    on(find(".solid"), "keydown", (event) => this.onSolidKey(event));
  }

  typeWindow() {
    const [centre, width] = ["centre", "width"].map((name) => this.viewer.find(`[data-in=${name}]`).valueAsNumber);
    if (Number.isFinite(centre) && width >= 1) this.viewer.set({ window: [centre, width] });
  }

  showThreshold(at) {
    showOperation(this.viewer.find(".operation"), this.viewer.data.operation, at);
  }

  act(name) {
    const { viewer } = this;
    const acts = {
      help: () => this.showHelp(viewer.find(".help").hidden),
      panel: () => this.showPanel(!viewer.root.classList.contains("with-panel")),
      opacity: () => { viewer.find("[data-in=opacity]").value = OPACITY * 100; viewer.set({ opacity: OPACITY }); },
      threshold: () => viewer.operate(viewer.data.operation.default),
    };
    const onPicture = {
      enlarge: () => viewer.enlarge(viewer.enlarged ?? (this.isOnSolid ? "solid" : viewer.planes.panes[this.pane].plane.name)),
      reset: () => { Object.assign(viewer.look, { zoom: 1, pan: [0, 0, 0] }); viewer.enlarge(viewer.enlarged); },
      solid: () => viewer.solid || viewer.drawSolid(),
      next: () => viewer.nextLesion(1),
      previous: () => viewer.nextLesion(-1),
      link: () => viewer.copyLink(),
    };
    acts[name]?.();
    if (viewer.isReady) onPicture[name]?.();
  }

  get isOnSolid() {
    return Boolean(this.viewer.solid && this.viewer.find(".turn:focus-within"));
  }

  showHelp(isShown) {
    const help = this.viewer.find(".help");
    if (isShown === !help.hidden) return;
    help.hidden = !isShown;
    if (isShown) this.before = this.viewer.root.getRootNode().activeElement;
    (isShown ? help.querySelector("button") : this.before)?.focus();
  }

  /** The panel as a drawer, in windows that have no room for it beside the picture. */
  showPanel(isShown) {
    const { root } = this.viewer;
    root.classList.toggle("with-panel", isShown);
    this.viewer.find(".controls [data-act=panel]").ariaExpanded = String(isShown);
  }

  // Keys

  onKey(event) {
    const { viewer } = this;
    const focus = event.composedPath()[0];
    const isOurs = event.composedPath().includes(viewer.root);
    const isTyping = focus?.matches?.("input:not([type=range]), textarea, select, [contenteditable=true]");
    if (!isOurs && focus?.closest?.(WITH_KEYS)) return;
    if (event.key === "Escape") this.escape();
    if (isTyping || !viewer.isReady || event.ctrlKey || event.metaKey || event.altKey) return;
    if (isOurs && KEYS_OF_LISTS.test(event.key) && focus.closest(WITH_ARROWS)) return;
    const acts = this.keys();
    if (!acts[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    acts[event.key]();
  }

  keys() {
    const { viewer } = this;
    const preset = (name) => () => viewer.set({ window: PRESETS[name] });
    return {
      ArrowUp: () => viewer.step(1), ArrowDown: () => viewer.step(-1), PageUp: () => viewer.step(10), PageDown: () => viewer.step(-10),
      ArrowRight: () => viewer.step(1), ArrowLeft: () => viewer.step(-1),
      Home: () => viewer.step(-Infinity), End: () => viewer.step(Infinity),
      m: () => viewer.toggle("model"), r: () => viewer.toggle("reference"), c: () => viewer.toggle("contour"),
      n: () => this.act("next"), p: () => this.act("previous"), w: () => { this.holdsWindow = true; },
      f: () => this.act("enlarge"), 0: () => this.act("reset"), "?": () => this.act("help"),
      "+": () => viewer.zoom(1.15), "-": () => viewer.zoom(1 / 1.15),
      1: preset(1), 2: preset(2), 3: preset(3),
    };
  }

  escape() {
    this.showHelp(false);
    this.showPanel(false);
  }

  onStripKey(event) {
    const { viewer } = this;
    const steps = { ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity };
    const by = steps[event.key];
    if (!by || !viewer.isReady) return;
    event.preventDefault();
    viewer.goTo([viewer.index[0], viewer.index[1], viewer.index[2] + by]);
  }

  onSolidKey(event) {
    const turns = { ArrowLeft: [-TURN, 0], ArrowRight: [TURN, 0], ArrowUp: [0, TURN], ArrowDown: [0, -TURN] };
    const turned = turns[event.key];
    if (!turned || !this.viewer.solid) return;
    event.preventDefault();
    this.viewer.solid.turn(...turned);
  }

  // Mouse and pen; fingers are told to `touches`

  onWheel(event) {
    const { viewer } = this;
    if (!viewer.isReady) return;
    event.preventDefault();
    this.see(event);
    if (event.ctrlKey) return void viewer.zoom(this.wheel.zoom(event));
    const notches = this.wheel.notches(event);
    if (notches) viewer.step(-notches, Math.max(0, viewer.paneOf(event)));
  }

  /** Note where the pointer is. What lies there is looked up whenever the picture is drawn. */
  see(event) {
    this.at = { clientX: event.clientX, clientY: event.clientY };
    this.isByKey = false;
    this.viewer.drawSoon();
  }

  leave() {
    this.at = null;
    this.viewer.drawSoon();
  }

  onPress(event) {
    const { viewer } = this;
    if (!viewer.isReady) return;
    this.isByKey = false;
    viewer.marks.root.setPointerCapture(event.pointerId);
    if (event.pointerType === "touch") return void this.touches.press(event);
    this.see(event);
    const isWindow = event.button === 2 || (event.button === 0 && this.holdsWindow);
    const kind = isWindow ? "window" : event.shiftKey || event.button === 1 ? "pan" : "cross";
    this.drag = { kind, pane: viewer.paneOf(event), x: event.clientX, y: event.clientY };
    if (kind === "cross") this.point(event, this.drag.pane);
  }

  /** Move the cross to where was pressed, unless that is the second press of a double one. Tells whether it was. */
  point(event, pane) {
    const { pressed, viewer } = this;
    const isSecond = Boolean(pressed && event.timeStamp - pressed.time < DOUBLE_MS
      && Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) < NEAR_PX);
    this.pressed = { time: event.timeStamp, x: event.clientX, y: event.clientY, from: isSecond ? pressed.from : viewer.index };
    if (!isSecond) viewer.cross(pane, event);
    return isSecond;
  }

  onMove(event) {
    const { viewer, drag } = this;
    if (!viewer.isReady) return;
    if (event.pointerType === "touch") return void this.touches.move(event);
    this.see(event);
    if (!drag || !event.buttons) {
      this.drag = null;
      return;
    }
    const moved = [event.clientX - drag.x, event.clientY - drag.y];
    Object.assign(drag, { x: event.clientX, y: event.clientY });
    if (drag.kind === "cross" && (moved[0] || moved[1])) viewer.cross(drag.pane, event);
    if (drag.kind === "window") this.dragWindow(moved);
    if (drag.kind === "pan") viewer.pan(drag.pane, moved);
  }

  onRelease(event) {
    this.drag = null;
    if (event.pointerType === "touch") this.touches.release(event);
  }

  dragWindow([dx, dy]) {
    const [centre, width] = this.viewer.look.window;
    this.viewer.set({ window: [centre - dy * HU_PER_PIXEL, Math.max(1, width + dx * HU_PER_PIXEL)] });
  }

  /** Enlarge a pane, or give the others their room back; the cross stays where it was before the first click. */
  onDouble(event) {
    const { viewer } = this;
    if (!viewer.isReady) return;
    const pane = viewer.paneOf(event);
    if (!this.pressed) return; // fingers did it already
    viewer.goTo(this.pressed.from);
    this.pressed = null;
    if (pane >= 0) viewer.enlarge(viewer.planes.panes[pane].plane.name);
  }
}

/** Fingers: one scrolls through the slices, a tap moves the cross, two zoom and move the picture. */
class Touches {
  constructor(viewer, hands) {
    this.viewer = viewer;
    this.hands = hands;
    this.forget();
  }

  forget() {
    this.fingers = new Map();
    this.gesture = null;
  }

  press(event) {
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    const pane = this.viewer.paneOf(event);
    if (this.fingers.size === 1) this.gesture = { kind: "tap", pane, start: [event.clientX, event.clientY], y: event.clientY };
    else this.gesture = { kind: "pinch", pane: this.gesture?.pane ?? pane, ...this.spread() };
  }

  move(event) {
    const { gesture, fingers, viewer } = this;
    if (!gesture || !fingers.has(event.pointerId)) return;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (gesture.kind === "pinch" && fingers.size > 1) this.pinch(gesture);
    const away = Math.hypot(event.clientX - gesture.start?.[0], event.clientY - gesture.start?.[1]);
    if (gesture.kind === "tap" && away > NEAR_PX) Object.assign(gesture, { kind: "scroll", y: event.clientY });
    if (gesture.kind !== "scroll" || gesture.pane < 0) return;
    const slices = Math.trunc((event.clientY - gesture.y) / this.pixelsPerSlice(gesture.pane));
    gesture.y += slices * this.pixelsPerSlice(gesture.pane);
    if (slices) viewer.step(-slices, gesture.pane);
  }

  /** The height of a pane is the scan, as far as fingers are that exact. */
  pixelsPerSlice(pane) {
    const { plane, position } = this.viewer.planes.panes[pane];
    const height = position[3] * this.viewer.stage.clientHeight;
    return Math.max(4, Math.min(16, height / this.viewer.grid.shape[plane.normal]));
  }

  pinch(gesture) {
    const { middle, apart } = this.spread();
    this.viewer.zoom(apart / gesture.apart);
    this.viewer.pan(gesture.pane, [0, 1].map((n) => middle[n] - gesture.middle[n]));
    Object.assign(gesture, { middle, apart });
  }

  spread() {
    const [[x, y], [u, v]] = [...this.fingers.values()];
    return { middle: [(x + u) / 2, (y + v) / 2], apart: Math.max(1, Math.hypot(x - u, y - v)) };
  }

  /** Not every browser makes a double click of two taps, so they are counted here. */
  tap(event, pane) {
    if (this.hands.point(event, pane)) this.hands.onDouble(event);
  }

  release(event) {
    const { gesture } = this;
    this.fingers.delete(event.pointerId);
    if (gesture?.kind === "tap" && event.type === "pointerup" && gesture.pane >= 0) this.tap(event, gesture.pane);
    if (gesture?.kind === "tap" || !this.fingers.size) this.gesture = null;
  }
}
