/** Places in a scan: voxel index, share of the scan's box along R, A and S (0 to 1), and millimetres in patient space. */

/** @import { Grid, Plane, Tile, Triple } from "./types.js" */

/** @type {Plane[]} */
export const PLANES = [
  { name: "axial", normal: 2, across: [0, 1], letters: ["R", "L", "A", "P"] },
  { name: "sagittal", normal: 0, across: [1, 2], letters: ["A", "P", "S", "I"] },
  { name: "coronal", normal: 1, across: [0, 2], letters: ["R", "L", "S", "I"] },
];

/**
 * Make a triple of what a function gives for each axis.
 *
 * @template Value
 * @param {(axis: number) => Value} valueOf
 * @returns {[Value, Value, Value]}
 */
export function byAxis(valueOf) {
  return [valueOf(0), valueOf(1), valueOf(2)];
}

/**
 * RAS+ millimetres of the middle of a voxel.
 *
 * @param {Grid} grid
 * @param {Triple} index
 * @returns {Triple}
 */
export function mmOf({ affine }, [i, j, k]) {
  return byAxis((row) => affine[row][0] * i + affine[row][1] * j + affine[row][2] * k + affine[row][3]);
}

/**
 * Share of the scan's box at which the middle of a voxel lies.
 *
 * @param {Grid} grid
 * @param {Triple} index
 * @returns {Triple}
 */
export function shareOf({ shape }, index) {
  return byAxis((axis) => (index[axis] + 0.5) / shape[axis]);
}

/**
 * Voxel at a share of the scan's box; outside the grid where the share is outside 0..1.
 *
 * @param {Grid} grid
 * @param {Triple} share
 * @returns {Triple}
 */
export function indexAt({ shape }, share) {
  return byAxis((axis) => Math.floor(share[axis] * shape[axis]));
}

/**
 * @param {Grid} grid
 * @param {Triple} index
 */
export function isInside({ shape }, index) {
  return index.every((n, axis) => n >= 0 && n < shape[axis]);
}

/**
 * The voxel of the grid that is nearest to an index.
 *
 * @param {Grid} grid
 * @param {Triple} index
 * @returns {Triple}
 */
export function clamped({ shape }, index) {
  return byAxis((axis) => Math.max(0, Math.min(shape[axis] - 1, Math.round(index[axis]))));
}

/**
 * Length of the scan's box along an axis.
 *
 * @param {Grid} grid
 * @param {number} axis
 */
export function sideMm({ shape, spacingMm }, axis) {
  return shape[axis] * spacingMm[axis];
}

/**
 * Share of the scan's box under a point of the canvas (device pixels), as a tile shows it.
 *
 * @param {Grid} grid
 * @param {Plane} plane
 * @param {Tile} tile
 * @param {[number, number]} point
 * @param {number} depth share along the axis that the plane cuts
 * @returns {Triple}
 */
export function shareUnder(grid, { normal, across }, { box: [left, top, width, height], leftBottomMm, fieldMm }, [x, y], depth) {
  const mm = [leftBottomMm[0] + ((x - left) / width) * fieldMm[0], leftBottomMm[1] + (1 - (y - top) / height) * fieldMm[1]];
  return byAxis((axis) => (axis === normal ? depth : mm[across.indexOf(axis)] / sideMm(grid, axis) + 0.5));
}

/**
 * Point of the canvas (device pixels) at which a tile shows a share of the scan's box.
 *
 * @param {Grid} grid
 * @param {Plane} plane
 * @param {Tile} tile
 * @param {Triple} share
 * @returns {[number, number]}
 */
export function pointOf(grid, { across }, { box: [left, top, width, height], leftBottomMm, fieldMm }, share) {
  const [x, y] = across.map((axis) => (share[axis] - 0.5) * sideMm(grid, axis));
  return [
    left + ((x - leftBottomMm[0]) / fieldMm[0]) * width,
    top + (1 - (y - leftBottomMm[1]) / fieldMm[1]) * height,
  ];
}

/**
 * Millimetres in RAS+ patient space with the letter of the side they lie on: "L 62.1  P 34.0  I 120.5 mm".
 *
 * @param {Triple} mm
 */
export function placeText(mm, digits = 1) {
  const sides = [["R", "L"], ["A", "P"], ["S", "I"]];
  return `${mm.map((n, axis) => `${sides[axis][n < 0 ? 1 : 0]} ${Math.abs(n).toFixed(digits)}`).join("  ")} mm`;
}
