/** The places of the panes on the stage. */

/** @import { Box, Pane } from "./types.js" */

import { PLANES } from "./geometry.js";

export const RENDERING = "rendering";
const EDGE_PX = 22;
/** @type {Box} */
const FULL = [0, 0, 1, 1];

/**
 * Share a stage of `width` x `height` px out: the axial plane large, the others and 3-D beside it or below, or the pane
 * `enlarged` alone. `rendering` is the place of 3-D, null where it is not shown.
 *
 * @param {number} width
 * @param {number} height
 * @param {string | null} enlarged
 * @returns {{ panes: Pane[], rendering: Box | null }}
 */
export function panesFor(width, height, enlarged) {
  const single = PLANES.find((plane) => plane.name === enlarged);
  if (single) return { panes: [{ plane: single, position: FULL, inner: FULL }], rendering: null };
  const isTall = height > width;
  const side = isTall
    ? Math.min(0.4, Math.max(0.22, 1 - width / height))
    : Math.min(0.36, Math.max(0.24, 1 - height / width));
  /** @type {(n: number) => Box} */
  const placeOf = (n) => (isTall ? [n / 3, 1 - side, 1 / 3, side] : [1 - side, n / 3, side, 1 / 3]);
  /** @type {Box} */
  const large = isTall ? [0, 0, 1, 1 - side] : [0, 0, 1 - side, 1];
  const panes = PLANES.map((plane, n) => {
    const position = n ? placeOf(n - 1) : large;
    return { plane, position, inner: n ? within(position, EDGE_PX / width, EDGE_PX / height) : position };
  });
  return { panes, rendering: enlarged === RENDERING ? FULL : placeOf(2) };
}

/**
 * A pane without its edge, where letters and the scale bar stand.
 *
 * @param {Box} pane
 * @param {number} across
 * @param {number} along
 * @returns {Box}
 */
function within([left, top, width, height], across, along) {
  return [left + across, top + along, Math.max(0.01, width - 2 * across), Math.max(0.01, height - 2 * along)];
}

/**
 * Number of the pane at a point of the stage (as shares), or null.
 *
 * @param {Pane[]} panes
 * @param {number} x
 * @param {number} y
 * @returns {number | null}
 */
export function paneAt(panes, x, y) {
  const number = panes.findIndex(({ position: [left, top, width, height] }) => (
    x >= left && x < left + width && y >= top && y < top + height
  ));
  return number < 0 ? null : number;
}
