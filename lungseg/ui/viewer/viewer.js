// The viewer of one case: what is shown, and where the reader stands in it. What hands do with it is in `hands.js`.
//
// Streamlit calls the default export at every run of the page with the same element; a viewer lives on that element,
// and loads only what has another sha256 than what it holds. For tests and for the console, `window.lungsegViewer` is
// the viewer on screen: isReady (a slice is drawn), hasMasks, timings, index, look, lesion, pointer (what lies under
// it, as drawn), goTo(index), jump(kind, at).

const PRESETS = { 1: [-600, 1500], 2: [40, 400], 3: [400, 1800] };
const PRESET_NAMES = { "-600,1500": "lung", "40,400": "mediastinum", "400,1800": "bone" };
const OPACITY = 0.35;
const LOOK_KEPT = ["window", "opacity", "isContour", "showsModel", "showsReference", "zoom", "pan"];

class Viewer {
  constructor(root, tell) {
    this.root = root;
    this.tell = tell;
    this.began = performance.now();
    this.find = (selector) => root.querySelector(selector);
    this.stage = this.find(".stage");
    this.marks = new Marks(this.find(".marks"));
    this.strip = new Strip(this.find(".strip"), (k) => this.goTo([this.index[0], this.index[1], k]));
    this.speech = new Speech(this.find(".spoken"));
    this.look = { window: PRESETS[1], opacity: OPACITY, isContour: false, showsModel: true, showsReference: true,
      zoom: 1, pan: [0, 0, 0] };
    this.hands = new Hands(this);
    this.sizes = new ResizeObserver(() => this.planes && this.arrange());
    this.sizes.observe(this.stage);
    fillHelp(this.find(".help dl"));
    window.lungsegViewer = this;
  }

  /** Show what the server says of a case; volumes that are held already stay as they are. */
  show(data) {
    const isOther = this.data?.scan.sha !== data.scan.sha || this.data?.caseId !== data.caseId;
    if (this.data?.masks.model?.sha !== data.masks.model?.sha) this.lesion = null;
    if (isOther) this.memory?.write();
    this.data = data;
    this.look.colours = data.colours;
    requestAnimationFrame(() => this.fit());
    for (const kind of ["model", "reference", "doubtful"]) this.root.style.setProperty(`--${kind}`, css(data.colours[kind]));
    showLesions(this.find(".lesions"), data.masks, data.note, (kind, at) => this.jump(kind, at));
    this.asked = data.operation?.at;
    this.find(".lesions").classList.remove("waiting");
    showOperation(this.find(".operation"), data.operation, data.operation?.at);
    showAlarm(this.find(".alarm"), data.caution, data.findings);
    showFindings(this.find(".findings"), data.findings);
    showProvenance(this.find(".provenance"), data.provenance);
    this.find(".controls [data-act=panel]").textContent = panelLabel(data);
    if (isOther) this.load().catch((error) => this.fail(error));
    else if (this.isReady) this.loadMasks().catch((error) => this.fail(error));
  }

  /** Fill the window from where the viewer begins. */
  fit() {
    this.root.style.setProperty("--above", `${Math.round(this.root.getBoundingClientRect().top + window.scrollY) + 8}px`);
  }

  async load() {
    this.unload();
    const loader = new Loader();
    this.loader = loader;
    const { grid, scan } = this.data;
    this.grid = grid;
    this.index = this.firstIndex();
    this.recall();
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
    canvas.setAttribute("aria-hidden", "true");
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
    const masks = ["model", "reference", "doubtful"].map((kind) => this.data.masks[kind]);
    const content = masks.map((mask) => mask?.sha).join();
    if (this.content === content) return;
    this.content = content;
    this.hasMasks = false;
    const { loader, grid } = this;
    const wanted = masks.map((mask) => mask?.url && { url: absolute(mask.url), sliceVoxels: mask.sliceVoxels, mark: mask.mark });
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
    const mask = this.data.masks[this.firstKind()];
    return [...(mask?.lesions[0]?.centreIndex ?? this.grid.shape.map((n) => Math.floor(n / 2)))];
  }

  unload() {
    this.memory?.write();
    this.loader?.close();
    this.solid?.close();
    this.planes?.close();
    Object.assign(this, { planes: null, solid: null, loader: null, volume: null, packed: null, content: null, isReady: false,
      hasMasks: false, timings: {}, enlarged: null, lesion: null, memory: null });
    this.hands.forget();
    Object.assign(this.look, { zoom: 1, pan: [0, 0, 0] });
    this.began = performance.now();
    this.root.dataset.state = "loading";
  }

  close() {
    this.hands.close();
    this.sizes.disconnect();
    this.speech.close();
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

  // What lasts

  /** Go back to where the reader left this case in this tab, or to where the address leads. */
  recall() {
    this.memory = new Memory(this.data.caseId);
    const { state, asked, isLinked } = this.memory;
    if (state) {
      LOOK_KEPT.filter((name) => state.look?.[name] !== undefined).forEach((name) => { this.look[name] = state.look[name]; });
      if (PLANES.some((plane) => plane.name === state.enlarged)) this.enlarged = state.enlarged;
      if (state.index) this.index = this.clamped(state.index);
      if (this.data.masks[state.lesion?.kind]?.lesions[state.lesion.at]) this.lesion = state.lesion;
      this.recallThreshold(state.threshold);
    }
    if (isLinked) {
      this.lesion = linkedLesion(asked.lesion, this.data.masks);
      if (this.lesion) this.index = [...this.data.masks[this.lesion.kind].lesions[this.lesion.at].centreIndex];
      if (Number(asked.slice) >= 1) this.index = this.clamped([this.index[0], this.index[1], Number(asked.slice) - 1]);
      this.look.window = linkedWindow(asked.window) ?? this.look.window;
    }
    this.find("[data-in=opacity]").value = this.look.opacity * 100;
  }

  recallThreshold(threshold) {
    const { operation } = this.data;
    if (!operation || operation.reason || threshold?.maskId !== operation.maskId) return;
    const at = operation.choices.findIndex((choice) => choice.level === threshold.level);
    if (at >= 0) this.operate(at);
  }

  remember() {
    const look = Object.fromEntries(LOOK_KEPT.map((name) => [name, this.look[name]]));
    this.memory.keep({ index: this.index, look, enlarged: this.enlarged, lesion: this.lesion });
  }

  async copyLink() {
    const { caseId, masks } = this.data;
    const lesion = this.lesion && `${this.lesion.kind}-${masks[this.lesion.kind].lesions[this.lesion.at].number}`;
    try {
      await copyText(linkTo(caseId, this.index, this.look.window, lesion));
      this.speech.say("A link to this slice is copied.", this.find("[data-out=link]"));
    } catch (error) {
      this.speech.say(`The link could not be copied: ${error.message}.`, this.find("[data-out=link]"));
    }
  }

  // Layout and drawing

  /** Place the panes: one large, the other planes and 3-D beside it or, where that leaves more room, below; or one alone. */
  arrange() {
    const { clientWidth: width, clientHeight: height } = this.stage;
    const panes = panesFor(width, height, this.enlarged);
    const solid = this.find(".solid");
    solid.hidden = !panes.solid;
    ["left", "top", "width", "height"].forEach((name, at) => { solid.style[name] = share(panes.solid?.[at] ?? 0); });
    this.planes.setLayout(panes.planes);
    this.marks.arrange(panes.planes, this.grid.shape);
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
    const cross = this.readAt(this.index);
    this.marks.draw(this.planes, { index: this.index, look: this.look, pointer: this.pointer, cross });
    this.strip.draw(this.grid.shape[2], this.index[2], this.data.masks, this.data.colours);
    this.showControls();
    this.remember();
    this.speech.tell(this.spoken(cross));
  }

  /** HU and place of a voxel. */
  readAt(index) {
    return { index, hu: this.volume.value(index), mm: this.toMm(index) };
  }

  /** What lies under the pointer in the picture as it is drawn now, or null. Nothing of it is ever kept. */
  get pointer() {
    const { at } = this.hands;
    if (!at || !this.isReady) return null;
    const pane = this.paneOf(at);
    if (pane < 0) return null;
    const { shape } = this.grid;
    const index = this.planes.shareAt(pane, ...this.pixelOf(at)).map((n, axis) => Math.floor(n * shape[axis]));
    const isInside = index.every((n, axis) => n >= 0 && n < shape[axis]);
    return isInside ? { pane, ...this.readAt(index) } : null;
  }

  /** What a screen reader says of the picture, in parts: only those that have changed are said. */
  spoken(cross) {
    const { plane } = this.planes.panes[this.hands.pane] ?? this.planes.panes[0];
    const [centre, width] = this.look.window.map(Math.round);
    return {
      slice: `${titled(plane.name)} slice ${this.index[plane.normal] + 1} of ${this.grid.shape[plane.normal]}.`,
      cross: `Cross: ${Math.round(cross.hu)} HU, ${placeText(cross.mm, 0)}.`,
      window: `Window ${PRESET_NAMES[`${centre},${width}`] ?? ""} centre ${centre}, width ${width} HU.`,
    };
  }

  showControls() {
    const { window: [centre, width], showsModel, showsReference, isContour, opacity, zoom } = this.look;
    this.showWindow(Math.round(centre), Math.round(width));
    const pressed = { model: showsModel, reference: showsReference, contour: isContour };
    for (const [name, isOn] of Object.entries(pressed)) {
      const button = this.find(`[data-toggle=${name}]`);
      button.disabled = name !== "contour" && !this.data.masks[name];
      button.ariaPressed = String(isOn && !button.disabled);
    }
    this.find("[data-act=opacity]").hidden = opacity === OPACITY;
    this.find("[data-act=reset]").disabled = zoom === 1 && !this.enlarged && this.look.pan.every((mm) => mm === 0);
    markCurrent(this.root, this.lesion);
  }

  showWindow(centre, width) {
    for (const [name, value] of [["centre", centre], ["width", width]]) {
      const field = this.find(`[data-in=${name}]`);
      if (field !== this.root.getRootNode().activeElement && field.value !== String(value)) field.value = value;
    }
    for (const button of this.root.querySelectorAll("[data-window]")) {
      button.ariaPressed = String(button.dataset.window === `${centre},${width}`);
    }
  }

  async refreshSolid() {
    const isOpen = Boolean(this.solid);
    this.solid?.close();
    this.solid = null;
    const isLeft = !isOpen && isSoftware(this.planes.gl);
    this.find(".solid .draw").hidden = !isLeft;
    if (isLeft) return;
    this.find(".solid .hint").textContent = "3-D …";
    await this.openSolid();
  }

  async openSolid() {
    const { loader } = this;
    const canvas = make("canvas");
    const pane = this.find(".solid");
    pane.querySelector(".turn")?.remove();
    const turn = make("div", "turn", null, canvas);
    Object.assign(turn, { tabIndex: 0, role: "application", ariaLabel: "3-D view of lungs and masks: arrows turn it, f enlarges it" });
    pane.append(turn);
    await new Promise((resume) => setTimeout(resume, 30));
    const solid = await Solid.open(this.library, canvas, this.volume, this.grid, this.packed, this.data.colours);
    if (this.loader !== loader) return solid.close();
    canvas.tabIndex = -1;
    this.solid = solid;
    this.lap("solidMs");
    this.find(".solid .hint").textContent = "3-D";
    return solid;
  }

  drawSolid() {
    const [hint, button] = [this.find(".solid .hint"), this.find(".solid .draw")];
    const hadFocus = button === this.root.getRootNode().activeElement;
    button.hidden = true;
    hint.textContent = "3-D …";
    this.openSolid().then(() => hadFocus && this.find(".solid .turn")?.focus()).catch((error) => {
      hint.textContent = `3-D failed: ${error.message}`;
      button.hidden = false;
    });
  }

  // Where we are

  clamped(index) {
    return index.map((n, axis) => Math.max(0, Math.min(this.grid.shape[axis] - 1, Math.round(n))));
  }

  goTo(index) {
    const next = this.clamped(index);
    if (this.index.every((n, axis) => n === next[axis])) return;
    this.index = next;
    this.drawSoon();
  }

  step(by, pane = this.hands.pane) {
    const { normal } = (this.planes.panes[pane] ?? this.planes.panes[0]).plane;
    const next = [...this.index];
    next[normal] += by;
    this.goTo(next);
  }

  /** Go to lesion number `at` (from 0) of a mask ("model", "doubtful", "reference"). */
  jump(kind, at) {
    const lesion = this.data.masks[kind]?.lesions[at];
    if (!lesion) return;
    this.lesion = { kind, at };
    this.goTo(lesion.centreIndex);
    this.drawSoon();
  }

  /** The first mask that has a lesion. */
  firstKind() {
    return ["model", "doubtful", "reference"].find((kind) => this.data.masks[kind]?.lesions.length);
  }

  nextLesion(by) {
    const kind = this.lesion?.kind ?? this.firstKind();
    const count = this.data.masks[kind]?.lesions.length ?? 0;
    if (count) this.jump(kind, this.lesion ? (this.lesion.at + by + count) % count : 0);
  }

  toMm(index) {
    const { affine } = this.grid;
    return [0, 1, 2].map((row) => affine[row][0] * index[0] + affine[row][1] * index[1] + affine[row][2] * index[2] + affine[row][3]);
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
    const { maskId, choices } = operation;
    this.memory?.keep({ threshold: { maskId, level: choices[at].level } });
    this.tell("threshold", { maskId, level: choices[at].level });
  }

  /** Zoom all planes; what lies under the cross stays where it is. */
  zoom(factor) {
    const { look, planes } = this;
    const zoom = Math.max(1, Math.min(12, look.zoom * factor));
    const cross = this.index.map((n, axis) => ((n + 0.5) / this.grid.shape[axis] - 0.5) * planes.sideMm(axis));
    this.set({ zoom, pan: zoom === 1 ? [0, 0, 0] : look.pan.map((mm, axis) => mm + cross[axis] * (look.zoom - zoom)) });
  }

  /** Move the picture by [x, y] pixels of the page, as pane number `pane` shows it. */
  pan(pane, moved) {
    const { planes, look } = this;
    const origin = planes.shareAt(pane, 0, 0);
    const target = planes.shareAt(pane, ...moved.map((n) => n * this.ratio));
    this.set({ pan: look.pan.map((mm, axis) => mm + (target[axis] - origin[axis]) * planes.sideMm(axis) * look.zoom) });
  }

  /** Move the cross to what pane number `pane` shows at a place ({clientX, clientY}). */
  cross(pane, place) {
    const point = this.planes.shareAt(pane, ...this.pixelOf(place));
    this.goTo(point.map((n, axis) => Math.floor(n * this.grid.shape[axis])));
  }

  get ratio() {
    return this.planes.canvas.width / this.marks.root.clientWidth;
  }

  pixelOf(place) {
    const box = this.marks.root.getBoundingClientRect();
    return [(place.clientX - box.left) * this.ratio, (place.clientY - box.top) * this.ratio];
  }

  paneOf(place) {
    return this.planes.paneAt(...this.pixelOf(place));
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
