/** The strip along the slices: a row per slice, superior on top, with a bar for the voxels of each mask. */

/** @import { Layer } from "./types.js" */

import { css } from "./panels.js";

const LEAST_SHARE = 0.35;
const MARK = "#f2f5f8";
/** @type {Record<string, number>} */
const STEPS = {
  ArrowUp: 1, ArrowRight: 1, ArrowDown: -1, ArrowLeft: -1, PageUp: 10, PageDown: -10, Home: -Infinity, End: Infinity,
};

export class Strip {
  /**
   * @param {HTMLCanvasElement} canvas
   * @param {(slice: number) => void} onSlice gets the chosen slice, from 0; it may lie beyond the scan
   * @param {AbortSignal} signal ends it
   */
  constructor(canvas, onSlice, signal) {
    this.canvas = canvas;
    canvas.ariaValueMin = "1";
    this.pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext("2d"));
    this.depth = 0;
    this.current = 0;
    /** @param {PointerEvent} event */
    const follow = (event) => { if (this.depth) onSlice(this.sliceAt(event.offsetY)); };
    canvas.addEventListener("pointerdown", (event) => {
      canvas.setPointerCapture(event.pointerId);
      follow(event);
    }, { signal });
    canvas.addEventListener("pointermove", (event) => { if (event.buttons === 1) follow(event); }, { signal });
    canvas.addEventListener("keydown", (event) => {
      if (!(event.key in STEPS) || !this.depth) return;
      event.preventDefault();
      onSlice(this.current + STEPS[event.key]);
    }, { signal });
  }

  /** @param {number} y */
  sliceAt(y) {
    const k = this.depth - 1 - Math.floor((y / this.canvas.clientHeight) * this.depth);
    return Math.max(0, Math.min(this.depth - 1, k));
  }

  /**
   * @param {number} depth slices of the scan
   * @param {number} current slice on show, from 0
   * @param {Layer[]} layers
   */
  draw(depth, current, layers) {
    Object.assign(this, { depth, current });
    Object.assign(this.canvas, {
      ariaValueMax: String(depth), ariaValueNow: String(current + 1), ariaValueText: `${current + 1} of ${depth}`,
    });
    const { pen, canvas: { clientWidth: width, clientHeight: height } } = this;
    this.clear(width, height);
    const columns = layers.filter((layer) => layer.shownWith === null);
    columns.forEach((layer, column) => {
      pen.fillStyle = css(layer.colour);
      barsOf(layer.mask?.sliceVoxels ?? [], column, columns.length, width).forEach(({ k, left, length }) => {
        pen.fillRect(left, height - ((k + 1) * height) / depth, length, Math.max(1, height / depth));
      });
    });
    const y = Math.round(height - ((current + 0.5) * height) / depth) + 0.5;
    pen.strokeStyle = MARK;
    pen.beginPath();
    pen.moveTo(0, y);
    pen.lineTo(width, y);
    pen.stroke();
  }

  /**
   * @param {number} width
   * @param {number} height
   */
  clear(width, height) {
    const ratio = window.devicePixelRatio;
    const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
    if (this.canvas.width !== wide || this.canvas.height !== high) Object.assign(this.canvas, { width: wide, height: high });
    this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.pen.clearRect(0, 0, width, height);
  }
}

/**
 * The bars of one of several columns; they grow away from the middle of the strip.
 *
 * @param {number[]} counts voxels of each slice
 * @param {number} column
 * @param {number} columns
 * @param {number} width of the strip
 * @returns {{ k: number, left: number, length: number }[]}
 */
export function barsOf(counts, column, columns, width) {
  const most = counts.reduce((a, b) => Math.max(a, b), 1);
  const [start, end] = [column, column + 1].map((n) => (n / columns) * width);
  const growsLeft = column + 0.5 < columns / 2;
  return counts.flatMap((count, k) => {
    if (!count) return [];
    const length = (end - start - 2) * (LEAST_SHARE + (1 - LEAST_SHARE) * Math.sqrt(count / most));
    return [{ k, left: growsLeft ? end - 0.5 - length : start + 0.5, length }];
  });
}
