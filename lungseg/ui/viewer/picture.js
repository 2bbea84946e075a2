/** The picture on the stage: the planes of a load, the annotations over them, and the voxel at a place of the page. */

/** @import { Place } from "./pointer_input.js" */
/** @import { CaseLoad } from "./loading.js" */
/** @import { Box, Reading, Triple } from "./types.js" */
/** @import { ViewState } from "./view_state.js" */

import { find } from "../dom.js";
import { Annotations } from "./annotations.js";
import { indexAt, isInside, mmOf } from "./geometry.js";
import { paneAt, panesFor, RENDERING } from "./layout.js";

const MOST_SLICE_PX = 16;
const LEAST_SLICE_PX = 4;

export class Picture {
  /**
   * @param {HTMLElement} stage
   * @param {ViewState} state
   */
  constructor(stage, state) {
    this.stage = stage;
    this.state = state;
    this.annotations = new Annotations(find(stage, ".annotations", HTMLElement));
    /** @type {CaseLoad | null} whose scan is shown */
    this.load = null;
  }

  get planes() {
    return this.load?.planes ?? null;
  }

  /** Number of the pane that has the focus of the keyboard, or null. */
  get focused() {
    return this.annotations.focused;
  }

  /**
   * Place the panes.
   *
   * @returns {Box | null} where 3-D goes
   */
  arrange() {
    const { clientWidth, clientHeight } = this.stage;
    const { panes, rendering } = panesFor(clientWidth, clientHeight, this.state.enlarged);
    this.planes?.setLayout(panes);
    this.annotations.arrange(panes, this.state.grid.shape);
    return rendering;
  }

  /**
   * Draw the planes through the cross, and the annotations over them.
   *
   * @param {Place | null} pointer whose voxel is read, if any lies under it
   * @returns {Reading | null} what lies under the cross; null where there is no picture yet
   */
  draw(pointer) {
    const { planes, state: { index, view, data, enlarged } } = this;
    if (!planes || !this.load?.isReady) return null;
    planes.draw(index, view, data.layers);
    this.annotations.root.style.visibility = enlarged === RENDERING ? "hidden" : "visible";
    const cross = this.read(index);
    this.annotations.draw(planes, { index, window: view.window, pointer: pointer && this.readUnder(pointer), cross });
    return cross;
  }

  /**
   * What a voxel holds.
   *
   * @param {Triple} index
   * @returns {Reading}
   */
  read(index) {
    return { index, hu: this.load?.volume?.value(index) ?? NaN, mm: mmOf(this.state.grid, index) };
  }

  /**
   * What lies under a place of the page in the picture as it is drawn now, or null.
   *
   * @param {Place} place
   */
  readUnder(place) {
    const { planes, state: { grid } } = this;
    const pane = this.paneOf(place);
    if (!planes || pane === null) return null;
    const index = indexAt(grid, planes.shareAt(pane, this.pixelOf(place)));
    return isInside(grid, index) ? { pane, ...this.read(index) } : null;
  }

  /** @param {number} pane */
  planeOf(pane) {
    const { shown } = this.annotations;
    return (shown[pane] ?? shown[0]).plane;
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
   * The way of a finger per slice: the height of a pane stands for the whole scan, within the precision of a finger.
   *
   * @param {number} pane
   */
  slicePixels(pane) {
    const { frame: { box }, count } = this.annotations.shown[pane];
    return Math.max(LEAST_SLICE_PX, Math.min(MOST_SLICE_PX, box.clientHeight / count));
  }

  /** Device pixels of the canvas per pixel of the page. */
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
    const { planes } = this;
    const [x, y] = this.pixelOf(place);
    return planes ? paneAt(planes.panes, x / planes.canvas.width, y / planes.canvas.height) : null;
  }
}
