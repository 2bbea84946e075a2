/**
 * One load of a case: scan, library, planes, masks, 3-D. When another load replaces it, it is closed and draws nothing any
 * more: its pending steps end with `Superseded`.
 */

/** @import { CaseData, Layer, NiivueLibrary, PackedMasks } from "./types.js" */
/** @import { NiivueRendering } from "./niivue_adapter.js" */

import { make } from "../dom.js";
import { absolute } from "./addresses.js";
import { NoWebGLError, Superseded } from "./errors.js";
import { Loader } from "./loader.js";
import { Planes } from "./planes.js";
import { openRendering } from "./volume_rendering.js";
import { RasArray } from "./voxels.js";

export class CaseLoad {
  /** @param {CaseData} data */
  constructor(data) {
    this.data = data;
    this.began = performance.now();
    this.isClosed = false;
    this.isReady = false; // a slice can be drawn
    this.hasMasks = false; // the newest masks are on the screen
    /** @type {Record<string, number>} */
    this.timings = {};
    /** @type {NiivueLibrary | null} */
    this.library = null;
    /** @type {Planes | null} */
    this.planes = null;
    /** @type {RasArray | null} */
    this.volume = null;
    /** @type {PackedMasks | null} */
    this.packed = null;
    /** @type {Layer[]} */
    this.layers = [];
    this.content = "";
    /** @type {NiivueRendering | null} */
    this.rendering = null;
    this.loader = new Loader();
  }

  /**
   * Load scan and library at the same time, until a slice can be drawn.
   *
   * @param {HTMLElement} container where the canvas of the planes goes
   * @param {(bytes: number) => void} onProgress gets the number of bytes of the scan received so far
   * @param {() => void} onPlanes is called when the planes are there, before their scan
   * @throws {Superseded} it was closed meanwhile
   */
  async open(container, onProgress, onPlanes) {
    const { scan, grid, layers, bundleUrl } = this.data;
    if (!document.createElement("canvas").getContext("webgl2")) throw new NoWebGLError();
    const scanned = this.loader.scan(absolute(scan.url), grid, onProgress);
    scanned.then(() => this.markTime("voxelsMs"), () => {});
    const library = this.current(await import(absolute(bundleUrl)));
    this.markTime("libraryMs");
    const canvas = make("canvas");
    canvas.setAttribute("aria-hidden", "true");
    container.replaceChildren(canvas);
    const planes = this.current(await Planes.open(library, canvas, grid, keysOf(layers)));
    this.markTime("planesMs");
    Object.assign(this, { library, planes });
    onPlanes();
    const { voxels, halves } = this.current(await scanned);
    this.volume = new RasArray(voxels, grid);
    planes.setScan(halves);
    this.isReady = true;
  }

  /**
   * Load the masks of layers, unless these are loaded or loading already.
   *
   * @param {Layer[]} layers
   * @returns {Promise<boolean>} whether there are new masks
   */
  async loadMasks(layers) {
    const content = JSON.stringify(layers.map(({ key, mask }) => [key, mask?.sha ?? null]));
    if (this.content === content || !this.planes) return false;
    this.content = content;
    this.hasMasks = false;
    const packed = await this.loader.masks(layers.map(requestOf), this.data.grid);
    if (this.isClosed || this.content !== content) return false;
    this.planes.setMasks(packed, keysOf(layers));
    Object.assign(this, { packed, layers, hasMasks: true });
    this.markTime("masksMs");
    return true;
  }

  /**
   * Draw scan and masks in 3-D.
   *
   * @param {HTMLCanvasElement} canvas stands in the page
   * @throws {Superseded} other masks were loaded meanwhile, or it was closed
   */
  async openRendering(canvas) {
    const { library, volume, packed, layers, content, data: { grid } } = this;
    if (!library || !volume) throw new Superseded("There is no scan yet.");
    const rendering = this.current(await openRendering(library, canvas, { volume, grid, packed, layers }));
    if (this.content !== content) {
      rendering.close();
      throw new Superseded("Other masks were loaded.");
    }
    this.rendering = rendering;
    this.markTime("renderingMs");
  }

  closeRendering() {
    this.rendering?.close();
    this.rendering = null;
  }

  /**
   * Return a loaded part, or close it where this load is closed.
   *
   * @template Kind
   * @param {Kind} part
   * @returns {Kind}
   */
  current(part) {
    if (!this.isClosed) return part;
    if (part instanceof Object && "close" in part && typeof part.close === "function") part.close();
    throw new Superseded("A newer load has replaced it.");
  }

  /** @param {string} name of the time since the load began */
  markTime(name) {
    this.timings[name] = performance.now() - this.began;
  }

  close() {
    this.isClosed = true;
    this.loader.close();
    this.closeRendering();
    this.planes?.close();
  }
}

/** @param {Layer[]} layers */
function keysOf(layers) {
  return layers.map(({ key }) => key);
}

/** @param {Layer} layer */
function requestOf({ mask }) {
  return mask?.url ? { url: absolute(mask.url), sliceVoxels: mask.sliceVoxels, mark: mask.mark } : null;
}
