/** Fingers: one scrolls through the slices, a tap moves the cross, two zoom and move the picture. */

/** @import { PointerInput } from "./pointer_input.js" */
/** @import { Viewer } from "./viewer.js" */

/** A finger or hand moves by so much unintentionally. */
export const NEAR_PX = 8;

/** @typedef {{ kind: "tap" | "scroll", pane: number | null, x: number, y: number }} Single */
/** @typedef {{ kind: "pinch", pane: number | null, middle: [number, number], apart: number }} Pinch */

export class Touches {
  /**
   * @param {Viewer} viewer
   * @param {PointerInput} pointer
   */
  constructor(viewer, pointer) {
    this.viewer = viewer;
    this.pointer = pointer;
    /** @type {Map<number, [number, number]>} */
    this.fingers = new Map();
    /** @type {Single | Pinch | null} */
    this.gesture = null;
  }

  forget() {
    this.fingers.clear();
    this.gesture = null;
  }

  /** @param {PointerEvent} event */
  press(event) {
    this.fingers.set(event.pointerId, [event.clientX, event.clientY]);
    const pane = this.viewer.picture.paneOf(event);
    this.gesture = this.fingers.size === 1
      ? { kind: "tap", pane, x: event.clientX, y: event.clientY }
      : { kind: "pinch", pane: this.gesture?.pane ?? pane, ...this.spread() };
  }

  /** @param {PointerEvent} event */
  move(event) {
    const { gesture, fingers } = this;
    if (!gesture || !fingers.has(event.pointerId)) return;
    fingers.set(event.pointerId, [event.clientX, event.clientY]);
    if (gesture.kind === "pinch") {
      if (fingers.size > 1) this.pinch(gesture);
      return;
    }
    const isAway = Math.hypot(event.clientX - gesture.x, event.clientY - gesture.y) > NEAR_PX;
    if (gesture.kind === "tap" && isAway) Object.assign(gesture, { kind: "scroll", y: event.clientY });
    if (gesture.kind === "scroll" && gesture.pane !== null) this.scroll(gesture, gesture.pane, event.clientY);
  }

  /**
   * @param {Single} gesture
   * @param {number} pane
   * @param {number} y
   */
  scroll(gesture, pane, y) {
    const height = this.viewer.picture.slicePixels(pane);
    const slices = Math.trunc((y - gesture.y) / height);
    gesture.y += slices * height;
    if (slices) this.viewer.step(-slices, pane);
  }

  /** @param {Pinch} gesture */
  pinch(gesture) {
    const { middle, apart } = this.spread();
    this.viewer.state.zoom(apart / gesture.apart);
    this.viewer.picture.pan(gesture.pane, [middle[0] - gesture.middle[0], middle[1] - gesture.middle[1]]);
    Object.assign(gesture, { middle, apart });
  }

  /** @returns {{ middle: [number, number], apart: number }} */
  spread() {
    const [[x, y], [u, v]] = [...this.fingers.values()];
    return { middle: [(x + u) / 2, (y + v) / 2], apart: Math.max(1, Math.hypot(x - u, y - v)) };
  }

  /** @param {PointerEvent} event taps are counted here, because not every browser makes a double click of two */
  release(event) {
    const { gesture } = this;
    this.fingers.delete(event.pointerId);
    const isTap = gesture?.kind === "tap";
    if (isTap && event.type === "pointerup" && gesture.pane !== null && this.pointer.point(event, gesture.pane)) {
      this.pointer.onDouble(event);
    }
    if (isTap || !this.fingers.size) this.gesture = null;
  }
}
