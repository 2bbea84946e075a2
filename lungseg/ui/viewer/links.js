/** Addresses that name slice, window and lesion: `?case=..&slice=92&window=40,400&lesion=model-2`. */

/** @import { Layer, LesionPlace, Triple } from "./types.js" */

/** @typedef {{ caseId: string | null, slice: string | null, window: string | null, lesion: string | null }} Target */

/**
 * What the query of an address names; null where that is no more than a case.
 *
 * @param {string} search
 * @returns {Target | null}
 */
export function targetIn(search) {
  const parameters = new URLSearchParams(search);
  const [slice, window, lesion] = ["slice", "window", "lesion"].map((name) => parameters.get(name));
  return [slice, window, lesion].some((value) => value !== null)
    ? { caseId: parameters.get("case"), slice, window, lesion }
    : null;
}

/**
 * A text that differs for links with different targets.
 *
 * @param {Target | null} target
 */
export function nameOfLink(target) {
  return [target?.slice, target?.window, target?.lesion].map((value) => value ?? "").join("|");
}

/**
 * The window of an address ("40,400"), or null.
 *
 * @param {string | null} text
 * @returns {[number, number] | null}
 */
export function linkedWindow(text) {
  const [centre, width, ...more] = (text ?? "").split(",").map(Number);
  return Number.isFinite(centre) && Number.isFinite(width) && width >= 1 && !more.length ? [centre, width] : null;
}

/**
 * The lesion of an address ("model-2", "reference-1", or "2" of the first layer), or null.
 *
 * @param {string | null} text
 * @param {Layer[]} layers
 * @returns {LesionPlace | null}
 */
export function linkedLesion(text, layers) {
  const [, key, number] = /^(?:([a-z]+)-)?([0-9]+)$/.exec(text ?? "") ?? [];
  const layer = key ? layers.find((candidate) => candidate.key === key) : layers[0];
  const at = layer?.mask?.lesions.findIndex((lesion) => lesion.number === Number(number)) ?? -1;
  return layer && at >= 0 ? { layer: layer.key, at } : null;
}

/**
 * The slice of an address, from 0, or null.
 *
 * @param {string | null} text
 */
export function linkedSlice(text) {
  const slice = Number(text);
  return slice >= 1 ? slice - 1 : null;
}

/**
 * The address of what is on screen.
 *
 * @param {URL} page
 * @param {{ caseId: string, index: Triple, window: [number, number], lesion: string | null }} shown
 */
export function linkTo(page, { caseId, index, window: [centre, width], lesion }) {
  const address = new URL(page.pathname, page.origin);
  const parts = [`case=${caseId}`, `slice=${index[2] + 1}`, `window=${Math.round(centre)},${Math.round(width)}`];
  address.search = [...parts, ...(lesion ? [`lesion=${lesion}`] : [])].join("&");
  return address.href;
}
