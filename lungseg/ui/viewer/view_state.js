/** Where the reader stands in a case, and how it is drawn. Knows no page: whoever holds it is told of each change. */

/** @import { CaseData, LesionPlace, Layer, Remembered, Triple, View } from "./types.js" */

import { byAxis, clamped, PLANES, shareOf, sideMm } from "./geometry.js";

export const OPACITY = 0.35;
const MOST_ZOOM = 12;

export class ViewState {
  /**
   * @param {CaseData} data
   * @param {() => void} onChange
   */
  constructor(data, onChange) {
    this.onChange = onChange;
    this.data = data;
    const [{ centre, width }] = data.windows;
    /** @type {View} */
    this.view = { window: [centre, width], opacity: OPACITY, isContour: false, visible: {}, zoom: 1, pan: [0, 0, 0] };
    this.index = this.firstIndex();
    /** @type {LesionPlace | null} */
    this.lesion = null;
    /** @type {string | null} */
    this.enlarged = null;
    this.update(data);
  }

  get grid() {
    return this.data.grid;
  }

  /** @param {string} key */
  layer(key) {
    return this.data.layers.find((layer) => layer.key === key);
  }

  /** @param {LesionPlace | null} place */
  lesionAt(place) {
    return place ? this.layer(place.layer)?.mask?.lesions[place.at] : undefined;
  }

  /**
   * Take what the server says now of a case; the lesion is let go where its place in the list is another one's now.
   *
   * @param {CaseData} data
   */
  update(data) {
    const before = JSON.stringify(this.lesionAt(this.lesion));
    this.data = data;
    if (JSON.stringify(this.lesionAt(this.lesion)) !== before) this.lesion = null;
    for (const { key, visible } of data.layers) this.view.visible[key] ??= visible;
  }

  /**
   * Begin with another case: at its largest lesion, as near as it is; window and what is shown stay.
   *
   * @param {CaseData} data
   */
  open(data) {
    this.update(data);
    this.index = this.firstIndex();
    this.lesion = null;
    this.enlarged = null;
    Object.assign(this.view, { zoom: 1, pan: [0, 0, 0] });
  }

  /** The first layer with a lesion. */
  firstListed() {
    return this.data.layers.find((layer) => layer.mask?.lesions.length);
  }

  /**
   * The middle of the largest lesion, or of the scan.
   *
   * @returns {Triple}
   */
  firstIndex() {
    const { shape } = this.grid;
    return this.firstListed()?.mask?.lesions[0].centreIndex ?? byAxis((axis) => Math.floor(shape[axis] / 2));
  }

  /**
   * Go back to what is remembered, as far as it still fits.
   *
   * @param {Remembered} remembered
   */
  restore({ index, view, enlarged, lesion }) {
    const { window, opacity, isContour, visible, zoom, pan } = { ...this.view, ...view };
    this.view = { window, opacity, isContour, visible: { ...this.view.visible, ...visible }, zoom, pan };
    if (PLANES.some((plane) => plane.name === enlarged)) this.enlarged = enlarged ?? null;
    if (index) this.index = clamped(this.grid, index);
    if (lesion && this.lesionAt(lesion)) this.lesion = lesion;
  }

  /** @returns {Remembered} */
  get toRemember() {
    const { index, view, enlarged, lesion } = this;
    return { index, view, enlarged, lesion };
  }

  /** @param {Partial<View>} change */
  set(change) {
    Object.assign(this.view, change);
    this.onChange();
  }

  /** @param {Layer} layer one that has a switch */
  toggle({ key }) {
    this.set({ visible: { ...this.view.visible, [key]: !this.view.visible[key] } });
  }

  /** @param {Triple} index */
  goTo(index) {
    const next = clamped(this.grid, index);
    if (this.index.every((n, axis) => n === next[axis])) return;
    this.index = next;
    this.onChange();
  }

  /**
   * Go along an axis by a number of slices.
   *
   * @param {number} axis
   * @param {number} by
   */
  step(axis, by) {
    this.goTo(byAxis((each) => this.index[each] + (each === axis ? by : 0)));
  }

  /**
   * Go to a lesion of the list.
   *
   * @param {LesionPlace} place
   */
  jump(place) {
    const lesion = this.lesionAt(place);
    if (!lesion) return;
    this.lesion = place;
    this.goTo(lesion.centreIndex);
    this.onChange();
  }

  /**
   * Go to the next lesion of the layer, or the one before; to the first one where none was gone to.
   *
   * @param {1 | -1} by
   */
  nextLesion(by) {
    const layer = this.lesion ? this.layer(this.lesion.layer) : this.firstListed();
    const count = layer?.mask?.lesions.length ?? 0;
    if (layer && count) this.jump({ layer: layer.key, at: this.lesion ? (this.lesion.at + by + count) % count : 0 });
  }

  /**
   * Zoom all planes; what lies under the cross stays where it is.
   *
   * @param {number} factor
   */
  zoom(factor) {
    const { view, grid } = this;
    const zoom = Math.max(1, Math.min(MOST_ZOOM, view.zoom * factor));
    const share = shareOf(grid, this.index);
    /** @param {number} axis */
    const moved = (axis) => view.pan[axis] + (share[axis] - 0.5) * sideMm(grid, axis) * (view.zoom - zoom);
    this.set({ zoom, pan: zoom === 1 ? [0, 0, 0] : byAxis(moved) });
  }

  /** @param {Triple} mm by which the picture moves along each axis */
  pan(mm) {
    this.set({ pan: byAxis((axis) => this.view.pan[axis] + mm[axis]) });
  }

  get isMoved() {
    return this.view.zoom !== 1 || this.view.pan.some((mm) => mm !== 0);
  }
}
