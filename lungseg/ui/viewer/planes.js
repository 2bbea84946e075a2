/**
 * The three planes, coloured by a slice shader of ours.
 *
 * At each change of the window NiiVue draws the whole volume again, with a gradient for 3-D lighting: about seven seconds
 * for 512 x 512 x 133 voxels in a software renderer. Here NiiVue gets the scan's box as a volume of 2 x 2 x 2 voxels, and
 * the shader reads HU from a half-float texture and masks from small ones: window, opacity and contours are then uniforms,
 * and a slice costs one draw.
 */

/** @import { Grid, Layer, NiivueLibrary, PackedMasks, Pane, Triple, View } from "./types.js" */

import { LoadError } from "./errors.js";
import { byAxis, pointOf, shareOf, shareUnder, sideMm } from "./geometry.js";
import { CHANNELS } from "./masks.js";
import { NiivuePlanes } from "./niivue_adapter.js";

const SCAN_UNIT = 12; // NiiVue uses those below
const MASKS_UNIT = 13;
const UNITS = 16; // every WebGL2 has as many
export const MOST_LAYERS = CHANNELS * (UNITS - MASKS_UNIT);
const NO_MASKS = { low: /** @type {Triple} */ ([0, 0, 0]), size: /** @type {Triple} */ ([1, 1, 1]) };

/**
 * The shader for a number of layers: the last one is painted first, the first one over all others.
 *
 * @param {number} count
 */
export function shaderFor(count) {
  const textures = [...Array(Math.ceil(count / CHANNELS)).keys()];
  const layers = [...Array(count).keys()].reverse();
  const inside = textures.map((t) => `vec4 inside${t}(vec3 place) {
  return textureLod(masks${t}, (place - boxLow) / boxSize, 0.0);
}`);
  const steepness = textures.map((t) => `
    vec4 within${t} = inside${t}(texPos);
    vec4 across${t} = inside${t}(texPos + right) - inside${t}(texPos - right);
    vec4 along${t} = inside${t}(texPos + up) - inside${t}(texPos - up);
    vec4 steepness${t} = 0.5 * sqrt(across${t} * across${t} + along${t} * along${t});`);
  const paint = layers.map((n) => {
    const [t, channel] = [Math.floor(n / CHANNELS), "rgba"[n % CHANNELS]];
    return `
    below = paint(below, within${t}.${channel}, steepness${t}.${channel}, colours[${n}], lines[${n}]);`;
  });
  return `#version 300 es
precision highp int;
precision highp float;
precision highp sampler3D;
uniform sampler3D scan;
${textures.map((t) => `uniform sampler3D masks${t};`).join("\n")}
uniform vec2 hu;
uniform vec3 boxLow;
uniform vec3 boxSize;
uniform vec4 colours[${count}];
uniform float lines[${count}];
in vec3 texPos;
out vec4 color;
${inside.join("\n")}
vec3 paint(vec3 below, float within, float steepness, vec4 colour, float line) {
  float away = (within - 0.5) / max(steepness, 0.02);
  float fill = clamp(away + 0.5, 0.0, 1.0) * colour.a;
  float edge = (1.0 - smoothstep(0.4, 1.3, abs(away))) * line;
  return mix(mix(below, colour.rgb, fill), colour.rgb, edge);
}
void main() {
  vec3 right = dFdx(texPos);
  vec3 up = dFdy(texPos);
  vec3 below = vec3(clamp((texture(scan, texPos).r - hu.x) * hu.y, 0.0, 1.0));
  vec3 from = (texPos - boxLow) / boxSize;
  if (all(greaterThan(from, vec3(-0.1))) && all(lessThan(from, vec3(1.1)))) {${steepness.join("")}${paint.join("")}
  }
  color = vec4(below, 1.0);
}`;
}

/**
 * The uniforms of a layer: its colour with the opacity of its filled voxels, and whether its outline is drawn.
 *
 * @param {Layer | undefined} layer undefined for one that has gone: nothing of it is painted
 * @param {View} view
 * @returns {{ colour: [number, number, number, number], line: number }}
 */
export function paintOf(layer, view) {
  if (!layer) return { colour: [0, 0, 0, 0], line: 0 };
  const isShown = view.visible[layer.shownWith ?? layer.key];
  return { colour: [...layer.colour, isShown && !view.isContour ? view.opacity * layer.fill : 0], line: Number(isShown) };
}

export class Planes {
  /**
   * @param {NiivuePlanes} niivue
   * @param {HTMLCanvasElement} canvas
   * @param {Grid} grid
   */
  constructor(niivue, canvas, grid) {
    this.niivue = niivue;
    this.gl = niivue.gl;
    this.canvas = canvas;
    this.grid = grid;
    /** @type {string[] | null} */
    this.keys = null; // of the layers whose masks the textures hold
    /** @type {Triple} */
    this.drawnAt = [0.5, 0.5, 0.5];
    /** @type {Pane[]} */
    this.panes = [];
    /** @type {WebGLTexture[]} */
    this.maskTextures = [];
  }

  /**
   * @param {NiivueLibrary} library
   * @param {HTMLCanvasElement} canvas stands in the page
   * @param {Grid} grid
   * @param {string[]} keys of the layers whose masks will follow
   */
  static async open(library, canvas, grid, keys) {
    const planes = new Planes(await NiivuePlanes.open(library, canvas, grid), canvas, grid);
    const longest = planes.gl.getParameter(planes.gl.MAX_3D_TEXTURE_SIZE);
    if (Math.max(...grid.shape) > longest) {
      throw new LoadError(`This browser's graphics can hold ${longest} voxels along an axis, the scan has more.`);
    }
    planes.setMasks(null, keys);
    return planes;
  }

  /** @param {Uint16Array} halves the whole scan as half-precision HU: the driver would first clear a missing part */
  setScan(halves) {
    const { gl } = this;
    newTexture(gl, SCAN_UNIT);
    gl.texImage3D(gl.TEXTURE_3D, 0, gl.R16F, ...this.grid.shape, 0, gl.RED, gl.HALF_FLOAT, halves);
    if (gl.getError() === gl.OUT_OF_MEMORY) throw new LoadError("This computer's graphics memory can't hold the scan.");
  }

  /**
   * Show the masks of layers; null where none has a voxel.
   *
   * @param {PackedMasks | null} packed
   * @param {string[]} keys of the layers
   */
  setMasks(packed, keys) {
    const { gl } = this;
    if (keys.length !== this.keys?.length) this.setShader(keys.length);
    this.keys = keys;
    const { low, size } = packed ?? NO_MASKS;
    const count = Math.ceil(keys.length / CHANNELS);
    this.maskTextures.forEach((texture) => gl.deleteTexture(texture));
    this.maskTextures = [...Array(count).keys()].map((t) => {
      const texture = newTexture(gl, MASKS_UNIT + t);
      const data = packed?.textures[t] ?? new Uint8Array(CHANNELS);
      gl.texImage3D(gl.TEXTURE_3D, 0, gl.RGBA8, ...size, 0, gl.RGBA, gl.UNSIGNED_BYTE, data);
      return texture;
    });
    gl.uniform3fv(this.niivue.uniform("boxLow"), byAxis((axis) => low[axis] / this.grid.shape[axis]));
    gl.uniform3fv(this.niivue.uniform("boxSize"), byAxis((axis) => size[axis] / this.grid.shape[axis]));
  }

  /** @param {number} count of layers */
  setShader(count) {
    const { gl, niivue } = this;
    if (count > MOST_LAYERS) throw new LoadError(`The viewer shows up to ${MOST_LAYERS} masks, not ${count}.`);
    niivue.setShader(shaderFor(count));
    gl.uniform1i(niivue.uniform("scan"), SCAN_UNIT);
    for (let t = 0; t < count / CHANNELS; t += 1) gl.uniform1i(niivue.uniform(`masks${t}`), MASKS_UNIT + t);
  }

  /** @param {Pane[]} panes the places of the planes */
  setLayout(panes) {
    this.panes = panes;
    this.niivue.setLayout(panes.map(({ plane, inner }) => ({ name: plane.name, box: inner })));
    this.niivue.resize();
  }

  /**
   * Draw the slices through a voxel.
   *
   * @param {Triple} index
   * @param {View} view
   * @param {Layer[]} layers of the case; those whose masks were set are shown
   */
  draw(index, view, layers) {
    const { gl, niivue } = this;
    const [centre, width] = view.window;
    const paints = (this.keys ?? []).map((key) => paintOf(layers.find((layer) => layer.key === key), view));
    gl.uniform2f(niivue.uniform("hu"), centre - width / 2, 1 / width);
    gl.uniform4fv(niivue.uniform("colours"), paints.flatMap(({ colour }) => colour));
    gl.uniform1fv(niivue.uniform("lines"), paints.map(({ line }) => line));
    this.drawnAt = shareOf(this.grid, index);
    niivue.draw(this.drawnAt, view.pan, view.zoom);
  }

  /**
   * Place in the scan's box under a point of pane number `pane`; outside 0..1 off the scan.
   *
   * @param {number} pane
   * @param {[number, number]} point device pixels of the canvas
   */
  shareAt(pane, point) {
    const { plane } = this.panes[pane];
    return shareUnder(this.grid, plane, this.niivue.tile(pane), point, this.drawnAt[plane.normal]);
  }

  /**
   * Point of the canvas (device pixels) at which pane number `pane` shows a place of the scan's box.
   *
   * @param {number} pane
   * @param {Triple} share
   */
  pointOf(pane, share) {
    return pointOf(this.grid, this.panes[pane].plane, this.niivue.tile(pane), share);
  }

  /** @param {number} pane the number of one; returns where its picture was drawn last */
  tile(pane) {
    return this.niivue.tile(pane);
  }

  /**
   * The millimetres by which the picture moves along each axis when it is dragged by device pixels, at a zoom.
   *
   * @param {number} pane
   * @param {[number, number]} moved
   * @param {number} zoom
   */
  mmOfDrag(pane, moved, zoom) {
    const [origin, target] = [this.shareAt(pane, [0, 0]), this.shareAt(pane, moved)];
    return byAxis((axis) => (target[axis] - origin[axis]) * sideMm(this.grid, axis) * zoom);
  }

  /** Whether the processor draws, not a graphics card. */
  get isSoftware() {
    const info = this.gl.getExtension("WEBGL_debug_renderer_info");
    return /swiftshader|llvmpipe|software/i.test(info ? this.gl.getParameter(info.UNMASKED_RENDERER_WEBGL) : "");
  }

  close() {
    this.niivue.close();
  }
}

/**
 * @param {WebGL2RenderingContext} gl
 * @param {number} unit
 */
function newTexture(gl, unit) {
  const texture = gl.createTexture();
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_3D, texture);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MIN_FILTER, gl.LINEAR);
  gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MAG_FILTER, gl.LINEAR);
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R]) {
    gl.texParameteri(gl.TEXTURE_3D, side, gl.CLAMP_TO_EDGE);
  }
  return texture;
}
