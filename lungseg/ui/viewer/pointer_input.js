/** Mouse, wheel and pen over the planes; fingers go to `touches.js`. */

/** @import { Triple } from "./types.js" */
/** @import { Viewer } from "./viewer.js" */

import { NEAR_PX, Touches } from "./touches.js";
import { Wheel } from "./wheel.js";

const HU_PER_PIXEL = 2.5;
const DOUBLE_MS = 500;

/** @typedef {{ clientX: number, clientY: number }} Place */
/** @typedef {{ kind: "window" | "pan" | "cross", pane: number | null, x: number, y: number }} Drag */

export class PointerInput {
  /**
   * @param {Viewer} viewer
   * @param {HTMLElement} surface over the planes
   * @param {AbortSignal} signal ends it
   */
  constructor(viewer, surface, signal) {
    this.viewer = viewer;
    this.surface = surface;
    this.wheel = new Wheel();
    this.touches = new Touches(viewer, this);
    /** @type {Place | null} of the pointer */
    this.place = null;
    /** @type {Drag | null} */
    this.drag = null;
    /** @type {{ time: number, x: number, y: number, from: Triple } | null} */
    this.pressed = null;
    this.holdsWindow = false;
    this.isByKey = false; // the keyboard was used last
    surface.addEventListener("wheel", (event) => this.onWheel(event), { passive: false, signal });
    surface.addEventListener("pointerdown", (event) => this.onPress(event), { signal });
    surface.addEventListener("pointermove", (event) => this.onMove(event), { signal });
    for (const name of /** @type {const} */ (["pointerup", "pointercancel"])) {
      surface.addEventListener(name, (event) => this.onRelease(event), { signal });
    }
    surface.addEventListener("pointerleave", () => {
      this.place = null;
      viewer.drawSoon();
    }, { signal });
    surface.addEventListener("dblclick", (event) => this.onDouble(event), { signal });
    surface.addEventListener("contextmenu", (event) => event.preventDefault(), { signal });
    surface.addEventListener("focusin", () => {
      this.isByKey = surface.querySelector(":focus-visible") !== null;
      viewer.drawSoon();
    }, { signal });
  }

  /** Let go of everything, as if no pointer were there. */
  forget() {
    Object.assign(this, { place: null, drag: null, pressed: null, holdsWindow: false, isByKey: false });
    this.touches.forget();
  }

  /** The pane on which keys act: the one with the focus of the keyboard or under the pointer; else the first. */
  get pane() {
    const { picture } = this.viewer;
    const under = this.place && picture.paneOf(this.place);
    const { focused } = picture;
    return (this.isByKey ? focused ?? under : under ?? focused) ?? 0;
  }

  /** @param {WheelEvent} event */
  onWheel(event) {
    const { viewer } = this;
    if (!viewer.isReady) return;
    event.preventDefault();
    this.setPlace(event);
    if (event.ctrlKey) {
      viewer.state.zoom(this.wheel.zoom(event));
      return;
    }
    const notches = this.wheel.notches(event);
    if (notches) viewer.step(-notches, viewer.picture.paneOf(event) ?? 0);
  }

  /** @param {Place} place of the pointer; the voxel under it is read whenever the picture is drawn */
  setPlace({ clientX, clientY }) {
    this.place = { clientX, clientY };
    this.isByKey = false;
    this.viewer.drawSoon();
  }

  /** @param {PointerEvent} event */
  onPress(event) {
    const { viewer } = this;
    if (!viewer.isReady) return;
    this.isByKey = false;
    this.surface.setPointerCapture(event.pointerId);
    if (event.pointerType === "touch") {
      this.touches.press(event);
      return;
    }
    this.setPlace(event);
    const isWindow = event.button === 2 || (event.button === 0 && this.holdsWindow);
    const kind = isWindow ? "window" : event.shiftKey || event.button === 1 ? "pan" : "cross";
    this.drag = { kind, pane: viewer.picture.paneOf(event), x: event.clientX, y: event.clientY };
    if (kind === "cross") this.point(event, this.drag.pane);
  }

  /**
   * Move the cross to a press, unless it is the second one of a double click; return whether it is.
   *
   * @param {PointerEvent} event
   * @param {number | null} pane
   */
  point(event, pane) {
    const { pressed, viewer } = this;
    const isSecond = pressed !== null && event.timeStamp - pressed.time < DOUBLE_MS
      && Math.hypot(event.clientX - pressed.x, event.clientY - pressed.y) < NEAR_PX;
    const from = isSecond ? pressed.from : viewer.state.index;
    this.pressed = { time: event.timeStamp, x: event.clientX, y: event.clientY, from };
    if (!isSecond) viewer.picture.pointAt(pane, event);
    return isSecond;
  }

  /** @param {PointerEvent} event */
  onMove(event) {
    const { viewer, drag } = this;
    if (!viewer.isReady) return;
    if (event.pointerType === "touch") {
      this.touches.move(event);
      return;
    }
    this.setPlace(event);
    if (!drag || !event.buttons) {
      this.drag = null;
      return;
    }
    const [dx, dy] = [event.clientX - drag.x, event.clientY - drag.y];
    Object.assign(drag, { x: event.clientX, y: event.clientY });
    if (drag.kind === "cross" && (dx || dy)) viewer.picture.pointAt(drag.pane, event);
    if (drag.kind === "window") this.dragWindow(dx, dy);
    if (drag.kind === "pan") viewer.picture.pan(drag.pane, [dx, dy]);
  }

  /** @param {PointerEvent} event */
  onRelease(event) {
    this.drag = null;
    if (event.pointerType === "touch") this.touches.release(event);
  }

  /**
   * @param {number} dx
   * @param {number} dy
   */
  dragWindow(dx, dy) {
    const { state } = this.viewer;
    const [centre, width] = state.view.window;
    state.set({ window: [centre - dy * HU_PER_PIXEL, Math.max(1, width + dx * HU_PER_PIXEL)] });
  }

  /**
   * Enlarge a pane, or show all panes again; the cross goes back to its place before the first click.
   *
   * @param {MouseEvent} event
   */
  onDouble(event) {
    const { viewer, pressed } = this;
    if (!viewer.isReady || !pressed) return; // without a press fingers have done it already
    const pane = viewer.picture.paneOf(event);
    viewer.state.goTo(pressed.from);
    this.pressed = null;
    if (pane !== null) viewer.enlarge(viewer.picture.planeOf(pane).name);
  }
}
