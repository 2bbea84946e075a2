/** The view of a case: place, lesion, window, masks, zoom. It knows no page; `onChange` is called at each change. */

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
   * Take new data of the case; the lesion is dropped where another one has its place in the list now.
   *
   * @param {CaseData} data
   */
  update(data) {
    const before = JSON.stringify(this.lesionAt(this.lesion));
    this.data = data;
    if (JSON.stringify(this.lesionAt(this.lesion)) !== before) this.lesion = null;
    for (const { key, visible } of data.layers) this.view.visible[key] ??= visible;
  }

  /** @param {CaseData} data of another case, shown at its largest lesion; window and visible masks stay */
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

  /** @param {Remembered} remembered view, restored as far as it fits the case */
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
   * @param {number} axis
   * @param {number} by number of slices
   */
  step(axis, by) {
    this.goTo(byAxis((n) => this.index[n] + (n === axis ? by : 0)));
  }

  /** @param {LesionPlace} place of the lesion to go to */
  jump(place) {
    const lesion = this.lesionAt(place);
    if (!lesion) return;
    this.lesion = place;
    this.goTo(lesion.centreIndex);
    this.onChange();
  }

  /** @param {1 | -1} by to the next or previous lesion of the layer; at first to its first one */
  nextLesion(by) {
    const layer = this.lesion ? this.layer(this.lesion.layer) : this.firstListed();
    const count = layer?.mask?.lesions.length ?? 0;
    if (layer && count) this.jump({ layer: layer.key, at: this.lesion ? (this.lesion.at + by + count) % count : 0 });
  }

  /** @param {number} factor by which all planes zoom about the cross */
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
