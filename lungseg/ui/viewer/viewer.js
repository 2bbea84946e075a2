// The viewer of one case: what is shown, and what the reader's hands do with it.
//
// Streamlit calls the default export at every run of the page with the same element; a viewer lives on that element,
// and loads only what has another sha256 than what it holds. For tests and for the console, `window.lungsegViewer` is
// the viewer on screen: isReady (a slice is drawn), hasMasks, timings, index, look, lesion, goTo(index), jump(kind, at).

const PRESETS = { 1: [-600, 1500], 2: [40, 400], 3: [400, 1800] };
const FULL = [0, 0, 1, 1];
const HU_PER_PIXEL = 2.5;
const WHEEL_NOTCH = 40;

class Viewer {
  constructor(root, tell) {
    this.root = root;
    this.tell = tell;
    this.began = performance.now();
    this.find = (selector) => root.querySelector(selector);
    this.stage = this.find(".stage");
    this.marks = new Marks(this.find(".marks"));
    this.strip = new Strip(this.find(".strip"), (k) => this.goTo([this.index[0], this.index[1], k]));
    this.look = { window: PRESETS[1], opacity: 0.35, isContour: false, showsModel: true, showsReference: true,
      zoom: 1, pan: [0, 0, 0] };
    this.hovered = 0;
    this.listening = new AbortController();
    this.listen();
    fillHelp(this.find(".help"));
    window.lungsegViewer = this;
  }

  /** Show what the server says of a case; volumes that are held already stay as they are. */
  show(data) {
    const isOther = this.data?.scan.sha !== data.scan.sha;
    if (this.data?.masks.model?.sha !== data.masks.model?.sha) this.lesion = null;
    this.data = data;
    this.look.colours = data.colours;
    requestAnimationFrame(() => this.fit());
    for (const kind of ["model", "reference"]) this.root.style.setProperty(`--${kind}`, css(data.colours[kind]));
    showLesions(this.find(".lesions"), data.masks, data.note, (kind, at) => this.jump(kind, at));
    this.asked = data.operation?.at;
    this.find(".lesions").classList.remove("waiting");
    showOperation(this.find(".operation"), data.operation, data.operation?.at);
    showFindings(this.find(".findings"), data.findings);
    showProvenance(this.find(".provenance"), data.provenance);
    if (isOther) this.load().catch((error) => this.fail(error));
    else if (this.isReady) this.loadMasks().catch((error) => this.fail(error));
  }

  /** Fill the window from where the viewer begins. */
  fit() {
    this.root.style.setProperty("--above", `${Math.round(this.root.getBoundingClientRect().top) + 8}px`);
  }

  async load() {
    this.unload();
    const loader = new Loader();
    this.loader = loader;
    const { grid, scan } = this.data;
    this.grid = grid;
    this.index = this.firstIndex();
    this.say("Loading the scan …");
    if (!document.createElement("canvas").getContext("webgl2")) {
      this.tell("webgl2", "missing");
      throw new LoadError("This browser has no WebGL2.");
    }
    const scanned = loader.ask("scan", { url: absolute(scan.url), grid }, (bytes) => {
      this.say(`Loading the scan … ${(bytes / 1e6).toFixed(0)} MB`);
    });
    scanned.then(() => this.lap("voxelsMs"), () => {});
    const library = await import(absolute(this.data.bundleUrl));
    this.lap("libraryMs");
    const canvas = make("canvas");
    this.find(".planes").replaceChildren(canvas);
    const planes = await Planes.open(library, canvas, grid);
    this.lap("planesMs");
    if (this.loader !== loader) return planes.close();
    this.library = library;
    this.planes = planes;
    this.arrange();
    const { voxels, halves } = await scanned;
    if (this.loader !== loader) return null;
    this.volume = new RasArray(voxels, grid);
    planes.setScan(halves);
    this.firstSlice();
    return this.loadMasks();
  }

  firstSlice() {
    this.say("");
    this.isReady = true;
    this.root.dataset.state = "ready";
    this.draw();
    this.lap("firstSliceMs");
  }

  /** Note how long after the viewer was asked for something was there. */
  lap(name) {
    this.timings[name] = performance.now() - this.began;
  }

  async loadMasks() {
    const masks = ["model", "reference"].map((kind) => this.data.masks[kind]);
    const content = masks.map((mask) => mask?.sha).join();
    if (this.content === content) return;
    this.content = content;
    this.hasMasks = false;
    const { loader, grid } = this;
    const wanted = masks.map((mask) => mask && { url: absolute(mask.url), sliceVoxels: mask.sliceVoxels });
    const marks = await loader.ask("masks", { masks: wanted, grid });
    if (this.loader !== loader || this.content !== content) return;
    this.planes.setMarks(marks);
    this.packed = marks;
    this.hasMasks = true;
    this.lap("masksMs");
    this.drawSoon();
    await this.refreshSolid();
  }

  /** The first voxel to show: the largest lesion's middle, or the scan's. */
  firstIndex() {
    const mask = this.data.masks.model ?? this.data.masks.reference;
    return [...(mask?.lesions[0]?.centreIndex ?? this.grid.shape.map((n) => Math.floor(n / 2)))];
  }

  unload() {
    this.loader?.close();
    this.solid?.close();
    this.planes?.close();
    Object.assign(this, { planes: null, solid: null, loader: null, volume: null, packed: null, content: null, isReady: false,
      hasMasks: false, timings: {}, enlarged: null, pointer: null, lesion: null });
    Object.assign(this.look, { zoom: 1, pan: [0, 0, 0] });
    this.began = performance.now();
    this.root.dataset.state = "loading";
  }

  close() {
    this.listening.abort();
    this.sizes.disconnect();
    this.unload();
    if (window.lungsegViewer === this) delete window.lungsegViewer;
  }

  fail(error) {
    this.root.dataset.state = "failed";
    this.say(error instanceof LoadError ? error.message : `The viewer stopped: ${error.message}. Reload the page.`);
  }

  say(text) {
    this.find(".message").textContent = text;
  }

  // Layout and drawing

  /** Place the panes: axial large, the other planes and 3-D beside it; or one of them alone. */
  arrange() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    const side = Math.min(0.36, Math.max(0.24, 1 - height / width));
    const third = 1 / 3;
    const places = [[0, 0, 1 - side, 1], [1 - side, 0, side, third], [1 - side, third, side, third]];
    const one = PLANES.findIndex((plane) => plane.name === this.enlarged);
    const panes = one >= 0
      ? [{ plane: PLANES[one], position: FULL }]
      : PLANES.map((plane, at) => ({ plane, position: places[at] }));
    const solid = this.find(".solid");
    const place = this.enlarged === "solid" ? FULL : [1 - side, 2 * third, side, third];
    solid.hidden = one >= 0;
    ["left", "top", "width", "height"].forEach((name, at) => { solid.style[name] = `${place[at] * 100}%`; });
    this.hovered = 0;
    this.planes.setLayout(panes);
    this.marks.arrange(panes);
    this.planes.nv.resizeListener();
    this.drawSoon();
  }

  enlarge(name) {
    this.enlarged = this.enlarged === name ? null : name;
    this.arrange();
    this.solid?.nv.resizeListener();
  }

  drawSoon() {
    this.frame ??= requestAnimationFrame(() => this.draw());
  }

  draw() {
    cancelAnimationFrame(this.frame);
    this.frame = null;
    if (!this.isReady || !this.planes) return;
    this.planes.draw(this.index, this.look);
    this.marks.root.style.visibility = this.enlarged === "solid" ? "hidden" : "visible";
    const cross = { hu: this.volume.value(this.index), mm: this.toMm(this.index) };
    this.marks.draw(this.planes, { index: this.index, look: this.look, pointer: this.pointer, cross });
    this.strip.draw(this.grid.shape[2], this.index[2], this.data.masks, this.data.colours);
    this.showControls();
  }

  showControls() {
    const { window: [centre, width], showsModel, showsReference, isContour } = this.look;
    this.find("[data-out=centre]").textContent = Math.round(centre);
    this.find("[data-out=width]").textContent = Math.round(width);
    for (const button of this.root.querySelectorAll("[data-window]")) {
      button.ariaPressed = String(button.dataset.window === `${centre},${width}`);
    }
    const pressed = { model: showsModel, reference: showsReference, contour: isContour };
    for (const [name, isOn] of Object.entries(pressed)) {
      const button = this.find(`[data-toggle=${name}]`);
      button.disabled = name !== "contour" && !this.data.masks[name];
      button.ariaPressed = String(isOn && !button.disabled);
    }
    for (const kind of ["model", "reference"]) {
      this.root.querySelectorAll(`table.of-${kind} tbody`).forEach((row, at) => {
        row.classList.toggle("current", this.lesion?.kind === kind && this.lesion.at === at);
      });
    }
  }

  async refreshSolid() {
    const isOpen = Boolean(this.solid);
    this.solid?.close();
    this.solid = null;
    const hint = this.find(".solid .hint");
    if (!isOpen && isSoftware(this.planes.gl)) {
      hint.textContent = "3-D · click to draw";
      return;
    }
    hint.textContent = "3-D …";
    await this.openSolid();
  }

  async openSolid() {
    const { loader } = this;
    const canvas = make("canvas");
    const pane = this.find(".solid");
    pane.querySelector(".turn")?.remove();
    pane.append(make("div", "turn", null, canvas));
    await new Promise((resume) => setTimeout(resume, 30));
    const solid = await Solid.open(this.library, canvas, this.volume, this.grid, this.packed, this.data.colours);
    if (this.loader !== loader) return solid.close();
    this.solid = solid;
    this.lap("solidMs");
    this.find(".solid .hint").textContent = "3-D";
    return solid;
  }

  // Where we are

  goTo(index) {
    const { shape } = this.grid;
    const next = index.map((n, axis) => Math.max(0, Math.min(shape[axis] - 1, Math.round(n))));
    if (this.index.every((n, axis) => n === next[axis])) return;
    this.index = next;
    this.drawSoon();
  }

  step(by, pane = this.hovered) {
    const { normal } = this.planes.panes[pane].plane;
    const next = [...this.index];
    next[normal] += by;
    this.goTo(next);
  }

  /** Go to lesion number `at` (from 0) of a mask ("model", "reference"). */
  jump(kind, at) {
    const lesion = this.data.masks[kind]?.lesions[at];
    if (!lesion) return;
    this.lesion = { kind, at };
    this.goTo(lesion.centreIndex);
    this.drawSoon();
  }

  nextLesion(by) {
    const kind = this.lesion?.kind ?? (this.data.masks.model?.lesions.length ? "model" : "reference");
    const count = this.data.masks[kind]?.lesions.length ?? 0;
    if (count) this.jump(kind, this.lesion ? (this.lesion.at + by + count) % count : 0);
  }

  toMm(index) {
    const { affine } = this.grid;
    return [0, 1, 2].map((row) => affine[row][0] * index[0] + affine[row][1] * index[1] + affine[row][2] * index[2] + affine[row][3]);
  }

  // Hands

  listen() {
    const { signal } = this.listening;
    const on = (target, name, act, options = {}) => target.addEventListener(name, act, { signal, ...options });
    on(window, "keydown", (event) => this.onKey(event), { capture: true }); // before Streamlit, which has keys of its own
    on(window, "keyup", (event) => { if (event.key === "w") this.holdsWindow = false; });
    const { root } = this.marks;
    on(root, "wheel", (event) => this.onWheel(event), { passive: false });
    on(root, "pointerdown", (event) => this.onPress(event));
    on(root, "pointermove", (event) => this.onMove(event));
    on(root, "pointerup", () => { this.drag = null; });
    on(root, "pointerleave", () => { this.pointer = null; this.drawSoon(); });
    on(root, "dblclick", (event) => this.isReady && this.enlarge(this.planes.panes[this.paneOf(event)].plane.name));
    on(root, "contextmenu", (event) => event.preventDefault());
    on(this.find(".solid"), "click", () => this.isReady && !this.solid && this.drawSolid());
    on(this.find(".solid"), "dblclick", () => this.solid && this.enlarge("solid"));
    this.root.querySelectorAll("[data-window]").forEach((button) => on(button, "click", () => {
      this.set({ window: button.dataset.window.split(",").map(Number) });
    }));
    this.root.querySelectorAll("[data-toggle]").forEach((button) => on(button, "click", () => this.toggle(button.dataset.toggle)));
    this.root.querySelectorAll("[data-act]").forEach((button) => on(button, "click", () => this.act(button.dataset.act)));
    on(this.find("[data-in=opacity]"), "input", (event) => this.set({ opacity: Number(event.target.value) / 100 }));
    const threshold = this.find("[data-in=threshold]");
    on(threshold, "input", () => showOperation(this.find(".operation"), this.data.operation, Number(threshold.value)));
    on(threshold, "change", () => this.operate(Number(threshold.value)));
    on(threshold, "dblclick", () => this.data.operation.reason || this.operate(this.data.operation.default));
    on(this.find(".help"), "click", () => this.act("help"));
    this.sizes = new ResizeObserver(() => this.planes && this.arrange());
    this.sizes.observe(this.stage);
    on(window, "resize", () => this.fit());
  }

  drawSolid() {
    this.find(".solid .hint").textContent = "3-D …";
    this.openSolid().catch((error) => { this.find(".solid .hint").textContent = `3-D failed: ${error.message}`; });
  }

  set(change) {
    Object.assign(this.look, change);
    this.drawSoon();
  }

  toggle(name) {
    const key = { model: "showsModel", reference: "showsReference", contour: "isContour" }[name];
    this.set({ [key]: !this.look[key] });
  }

  /** Ask the server for the mask at another threshold: place `at` of the choices. */
  operate(at) {
    const { operation } = this.data;
    showOperation(this.find(".operation"), operation, at);
    if (at === this.asked) return;
    this.asked = at;
    this.find(".lesions").classList.add("waiting");
    this.tell("threshold", { maskId: operation.maskId, level: operation.choices[at].level });
  }

  act(name) {
    const help = this.find(".help");
    if (name === "help") help.hidden = !help.hidden;
    if (name === "enlarge" && this.isReady) this.enlarge(this.enlarged ?? this.planes.panes[this.hovered].plane.name);
    if (name === "reset" && this.isReady) {
      Object.assign(this.look, { zoom: 1, pan: [0, 0, 0] });
      this.enlarge(this.enlarged);
    }
  }

  onKey(event) {
    const focus = event.composedPath()[0];
    const isTyping = focus?.matches?.("input:not([type=range]), textarea, select, [contenteditable=true]");
    const isSliding = focus?.type === "range" && event.key.startsWith("Arrow");
    if (isTyping || isSliding || !this.isReady || event.ctrlKey || event.metaKey || event.altKey) return;
    const acts = {
      ArrowUp: () => this.step(1), ArrowDown: () => this.step(-1), PageUp: () => this.step(10), PageDown: () => this.step(-10),
      ArrowRight: () => this.step(1), ArrowLeft: () => this.step(-1),
      m: () => this.toggle("model"), r: () => this.toggle("reference"), c: () => this.toggle("contour"),
      n: () => this.nextLesion(1), p: () => this.nextLesion(-1), w: () => { this.holdsWindow = true; },
      f: () => this.act("enlarge"), 0: () => this.act("reset"), "?": () => this.act("help"),
      Escape: () => { this.find(".help").hidden = true; },
      1: () => this.set({ window: PRESETS[1] }), 2: () => this.set({ window: PRESETS[2] }), 3: () => this.set({ window: PRESETS[3] }),
    };
    if (!acts[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    acts[event.key]();
  }

  onWheel(event) {
    if (!this.isReady) return;
    event.preventDefault();
    const pane = this.paneOf(event);
    if (event.ctrlKey) return void this.zoom(event.deltaY < 0 ? 1.15 : 1 / 1.15);
    this.rolled = (this.rolled ?? 0) + (event.deltaMode ? event.deltaY * WHEEL_NOTCH : event.deltaY);
    const notches = Math.trunc(this.rolled / WHEEL_NOTCH);
    this.rolled -= notches * WHEEL_NOTCH;
    if (notches) this.step(-Math.max(-3, Math.min(3, notches)), pane);
    this.point(event);
  }

  /** Zoom all planes; what lies under the cross stays where it is. */
  zoom(factor) {
    const { look, planes } = this;
    const zoom = Math.max(1, Math.min(12, look.zoom * factor));
    const cross = this.index.map((n, axis) => ((n + 0.5) / this.grid.shape[axis] - 0.5) * planes.sideMm(axis));
    this.set({ zoom, pan: zoom === 1 ? [0, 0, 0] : look.pan.map((mm, axis) => mm + cross[axis] * (look.zoom - zoom)) });
  }

  onPress(event) {
    if (!this.isReady) return;
    this.marks.root.setPointerCapture(event.pointerId);
    this.stage.focus({ preventScroll: true });
    const isWindow = event.button === 2 || (event.button === 0 && this.holdsWindow);
    const kind = isWindow ? "window" : event.shiftKey || event.button === 1 ? "pan" : "cross";
    this.drag = { kind, pane: this.paneOf(event), x: event.clientX, y: event.clientY };
    if (kind === "cross") this.cross(event);
  }

  onMove(event) {
    if (!this.isReady) return;
    const { drag } = this;
    if (!drag || !event.buttons) {
      this.drag = null;
      this.hovered = Math.max(0, this.paneOf(event));
      return void this.point(event);
    }
    const moved = [event.clientX - drag.x, event.clientY - drag.y];
    Object.assign(drag, { x: event.clientX, y: event.clientY });
    if (drag.kind === "cross") this.cross(event);
    if (drag.kind === "window") this.dragWindow(moved);
    if (drag.kind === "pan") this.dragPan(drag.pane, moved);
  }

  dragWindow([dx, dy]) {
    const [centre, width] = this.look.window;
    this.set({ window: [centre - dy * HU_PER_PIXEL, Math.max(1, width + dx * HU_PER_PIXEL)] });
  }

  dragPan(pane, moved) {
    const { planes, look } = this;
    const origin = planes.shareAt(pane, 0, 0);
    const target = planes.shareAt(pane, ...moved.map((n) => n * this.ratio));
    this.set({ pan: look.pan.map((mm, axis) => mm + (target[axis] - origin[axis]) * planes.sideMm(axis) * look.zoom) });
  }

  cross(event) {
    const share = this.planes.shareAt(this.drag.pane, ...this.pixelOf(event));
    this.goTo(share.map((n, axis) => Math.floor(n * this.grid.shape[axis])));
  }

  /** Note what lies under the pointer. */
  point(event) {
    const pane = this.paneOf(event);
    const { shape } = this.grid;
    const index = pane < 0 ? null : this.planes.shareAt(pane, ...this.pixelOf(event)).map((n, axis) => Math.floor(n * shape[axis]));
    const isInside = index?.every((n, axis) => n >= 0 && n < shape[axis]);
    this.pointer = isInside ? { pane, index, hu: this.volume.value(index), mm: this.toMm(index) } : null;
    this.drawSoon();
  }

  get ratio() {
    return this.planes.canvas.width / this.marks.root.clientWidth;
  }

  pixelOf(event) {
    const box = this.marks.root.getBoundingClientRect();
    return [(event.clientX - box.left) * this.ratio, (event.clientY - box.top) * this.ratio];
  }

  paneOf(event) {
    return this.planes.paneAt(...this.pixelOf(event));
  }
}

/** Whether a WebGL context is drawn by the processor. */
function isSoftware(gl) {
  const info = gl.getExtension("WEBGL_debug_renderer_info");
  return /swiftshader|llvmpipe|software/i.test(info ? gl.getParameter(info.UNMASKED_RENDERER_WEBGL) : "");
}

export default function show({ data, parentElement, setStateValue }) {
  const root = parentElement.querySelector(".viewer");
  root.lungseg ??= new Viewer(root, setStateValue);
  root.lungseg.show(data);
  return () => root.lungseg?.close();
}
