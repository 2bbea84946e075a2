/** Cases and scans for the tests: small, and told as the server tells them. */

/** @import { CaseData, Grid, Layer, Lesion, Mask, StoredArray, Triple } from "../../lungseg/ui/viewer/types.js" */

/** @type {Grid} */
export const GRID = {
  shape: [4, 3, 2], spacingMm: [2, 3, 5],
  affine: [[2, 0, 0, -10], [0, 3, 0, 20], [0, 0, 5, -30], [0, 0, 0, 1]],
  axes: [0, 1, 2], flips: [false, false, false],
};

/**
 * @param {number} number
 * @param {Triple} centreIndex
 * @returns {Lesion}
 */
export function lesion(number, centreIndex) {
  return { number, volumeMl: 1, probability: 0.5, centreMm: [0, 0, 0], centreIndex, extentMm: [1, 1, 1], slices: [0, 1] };
}

/**
 * @param {Lesion[]} lesions
 * @returns {Mask}
 */
export function mask(...lesions) {
  return {
    url: "/mask", sha: "1", mark: null, volumeMl: 1, sliceVoxels: [1, 1], statement: "", remark: "", probabilityMeaning: "",
    lesions,
  };
}

/**
 * @param {string} key
 * @param {Partial<Layer>} more
 * @returns {Layer}
 */
export function layer(key, more = {}) {
  return {
    key, label: key, name: `the ${key}`, listName: key, colour: [1, 0.5, 0], fill: 1, shortcut: key[0], shownWith: null,
    visible: true, absence: "", mask: null, ...more,
  };
}

/**
 * @param {Layer[]} layers
 * @param {Partial<CaseData>} more
 * @returns {CaseData}
 */
export function caseOf(layers, more = {}) {
  return {
    caseId: "a", bundleUrl: "/bundle", scan: { url: "/scan", sha: "s" }, grid: GRID, layers,
    windows: [
      { name: "lung", label: "Lung", centre: -600, width: 1500, shortcut: "1" },
      { name: "bone", label: "Bone", centre: 400, width: 1800, shortcut: "2" },
    ],
    caution: "", findings: [], threshold: null, provenance: [], ...more,
  };
}

/**
 * A stored array with a value for each voxel of a grid's file, 0, 1, 2 ...
 *
 * @param {new (count: number) => StoredArray} kind
 */
export function counted(kind, count = 24) {
  const array = new kind(count);
  for (let at = 0; at < count; at += 1) array[at] = at;
  return { array, slope: 1, intercept: 0 };
}
