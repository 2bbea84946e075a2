/**
 * The annotations over the planes: orientation letters, slice numbers, place and HU, scale bar, cross.
 *
 * They are elements, because a second canvas would be blended with the whole image at every slice, which costs a software
 * renderer a third of the frame. For screen readers each frame is a slider whose value is the slice.
 */

/** @import { Pane, Plane, Reading, Triple } from "./types.js" */
/** @import { Planes } from "./planes.js" */

import { find, focusedBeside, make, setText } from "../dom.js";
import { placeText, PLANES, shareOf } from "./geometry.js";

const LARGE_PX = 420;
const NARROW_PX = 230;
const BAR_ROOM_PX = 70;
const CROSS_PX = 56;
const BAR_MM = [200, 100, 50, 20, 10, 5, 2];
const CROSS = `<div class="picture"><svg class="cross" width="${CROSS_PX}" height="${CROSS_PX}" viewBox="-28.5 -28.5 56 56" aria-hidden="true">
  <path d="M14 0H26M-14 0H-26M0 14V26M0 -14V-26"/><path d="M14 0H26M-14 0H-26M0 14V26M0 -14V-26"/></svg></div>`;
const TEXTS = /** @type {const} */ (["number", "window", "hu", "place", "bar"]);

/** @typedef {Record<typeof TEXTS[number], HTMLElement>} Texts */
/**
 * The measures of a frame from when it was placed: to read them at each draw would cost a layout.
 *
 * @typedef {{ frame: Frame, plane: Plane, count: number, isMain: boolean, widthPx: number, leftPx: number, topPx: number }} Placed
 */
/**
 * @typedef {object} Shown
 * @property {Triple} index
 * @property {[number, number]} window
 * @property {(Reading & { pane: number }) | null} pointer what lies under the pointer
 * @property {Reading} cross what lies under the cross
 */

export class Annotations {
  /** @param {HTMLElement} root */
  constructor(root) {
    this.root = root;
    // They stay in the page when hidden: an element that is removed loses the focus.
    this.frames = new Map(PLANES.map((plane) => [plane.name, new Frame(plane)]));
    root.replaceChildren(...[...this.frames.values()].map(({ box }) => box));
    /** @type {Placed[]} */
    this.shown = [];
  }

  /**
   * Place the frames of the panes on screen, and write what stays the same until the layout changes.
   *
   * @param {Pane[]} panes
   * @param {Triple} shape
   */
  arrange(panes, shape) {
    const { clientWidth, clientHeight } = this.root;
    this.shown = panes.map(({ plane, position: [left, top, width, height] }, n) => {
      const frame = /** @type {Frame} */ (this.frames.get(plane.name));
      const widthPx = width * clientWidth;
      Object.assign(frame.box.style, { left: percent(left), top: percent(top), width: percent(width), height: percent(height) });
      frame.box.classList.toggle("narrow", widthPx < NARROW_PX);
      frame.box.classList.toggle("main", n === 0);
      frame.box.ariaValueMax = String(shape[plane.normal]);
      return {
        frame, plane, count: shape[plane.normal], isMain: n === 0, widthPx,
        leftPx: left * clientWidth, topPx: top * clientHeight,
      };
    });
    this.frames.forEach((frame) => { frame.box.hidden = !this.shown.some((placed) => placed.frame === frame); });
  }

  /** Number of the pane whose frame has the focus, or null. */
  get focused() {
    const active = focusedBeside(this.root);
    const number = this.shown.findIndex(({ frame }) => frame.box === active);
    return number < 0 ? null : number;
  }

  /**
   * Bring the frames up to date with what is drawn.
   *
   * @param {Planes} planes
   * @param {Shown} shown
   */
  draw(planes, { index, window, pointer, cross }) {
    const ratio = planes.canvas.width / Math.max(1, this.root.clientWidth);
    const [centre, width] = window.map(Math.round);
    this.shown.forEach((placed, number) => {
      const { frame, plane, count, isMain, widthPx } = placed;
      const slice = index[plane.normal] + 1;
      const underPointer = pointer?.pane === number ? pointer : null;
      const place = pointer ? underPointer : isMain ? cross : null;
      frame.write("number", `${slice} / ${count}`);
      frame.write("window", isMain || widthPx > LARGE_PX ? `C ${centre}  W ${width}` : "");
      frame.write("hu", place ? `${Math.round(place.hu)} HU` : "");
      frame.write("place", place ? placeText(place.mm) : "");
      frame.box.ariaValueNow = String(slice);
      frame.box.ariaValueText = `${slice} of ${count}`;
      const { box, fieldMm } = planes.tile(number);
      frame.placeBar(widthPx, box[2] / Math.abs(fieldMm[0]) / ratio);
      placeCross(placed, planes, number, index, ratio);
    });
  }
}

/** The frame of one plane. */
class Frame {
  /** @param {Plane} plane */
  constructor({ name, letters: [atLeft, atRight, atTop, atBottom] }) {
    this.box = make("div", "frame");
    this.box.innerHTML = CROSS;
    this.texts = /** @type {Texts} */ (Object.fromEntries(TEXTS.map((text) => [text, make("span", text)])));
    const { number, window, hu, place, bar } = this.texts;
    this.box.append(
      make("div", "corner top-left", "", make("span", "name", titled(name)), number),
      make("div", "corner top-right", "", window),
      make("b", "at-left", atLeft), make("b", "at-right", atRight), make("b", "at-top", atTop), make("b", "at-bottom", atBottom),
      make("div", "corner bottom-left", "", hu, place), make("div", "corner bottom-right", "", bar),
    );
    Object.assign(this.box, {
      tabIndex: 0, role: "slider", ariaLabel: `${titled(name)} slice`, ariaValueMin: "1", ariaOrientation: "vertical",
    });
    this.picture = find(this.box, ".picture", HTMLElement);
    this.cross = find(this.box, ".cross", SVGElement);
  }

  /**
   * @param {typeof TEXTS[number]} name
   * @param {string} text
   */
  write(name, text) {
    setText(this.texts[name], text);
  }

  /**
   * @param {number} widthPx
   * @param {number} pixelsPerMm
   */
  placeBar(widthPx, pixelsPerMm) {
    const roomPx = Math.min(widthPx * 0.3, widthPx / 2 - BAR_ROOM_PX); // beside the letter in the middle
    const lengthMm = BAR_MM.find((mm) => mm * pixelsPerMm <= roomPx) ?? BAR_MM[BAR_MM.length - 1];
    this.texts.bar.style.setProperty("--length", px(lengthMm * pixelsPerMm));
    this.write("bar", lengthMm >= 10 ? `${lengthMm / 10} cm` : `${lengthMm} mm`);
  }
}

/**
 * Show the cross on the picture; a part of it beside the picture is cut off.
 *
 * @param {Placed} placed
 * @param {Planes} planes
 * @param {number} number
 * @param {Triple} index
 * @param {number} ratio device pixels of the canvas per pixel of the page
 */
function placeCross({ frame, leftPx, topPx }, planes, number, index, ratio) {
  const [left, top, width, height] = planes.tile(number).box.map((n) => n / ratio);
  Object.assign(frame.picture.style, { left: px(left - leftPx), top: px(top - topPx), width: px(width), height: px(height) });
  const [x, y] = planes.pointOf(number, shareOf(planes.grid, index)).map((n) => Math.round(n / ratio) - CROSS_PX / 2);
  frame.cross.style.transform = `translate(${x - left}px, ${y - top}px)`;
}

/** @param {string} name */
export function titled(name) {
  return name[0].toUpperCase() + name.slice(1);
}

/** @param {number} share */
export function percent(share) {
  return `${share * 100}%`;
}

/** @param {number} length */
function px(length) {
  return `${length}px`;
}
