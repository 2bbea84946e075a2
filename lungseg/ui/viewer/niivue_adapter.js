/**
 * The only module that knows NiiVue and its internals. NiiVue lays the planes out and places them in space, where a slice
 * shader of ours colours them, and it draws 3-D. [`tests/browser/test_viewer_niivue.py`]
 */

/** @import { Box, ColourMap, Grid, Niivue, NiivueLibrary, PlaneName, Tile, Triple } from "./types.js" */

import { LoadError, NoWebGLError } from "./errors.js";

/** @type {Record<PlaneName, number>} */
const SLICE_TYPES = { axial: 0, coronal: 1, sagittal: 2 };
const MULTIPLANAR = 3;
const RENDER = 4;
const METHODS = /** @type {const} */ ([
  "attachToCanvas", "setCustomSliceShader", "setCustomLayout", "addVolume", "addColormap", "setVolumeRenderIllumination",
  "setRenderAzimuthElevation", "resizeListener", "drawScene", "cleanup",
]);
const FIELDS = /** @type {const} */ (["customSliceShader", "screenSlices", "scene"]);
const SCENE = /** @type {const} */ (["crosshairPos", "pan2Dxyzmm", "renderAzimuth", "renderElevation"]);
const QUIET = {
  isOrientationTextVisible: false, crosshairWidth: 0, loadingText: "", logLevel: "error", dragAndDropEnabled: false,
};
const EMPTY_SHADER = {
  vertex: "#version 300 es\nvoid main() { gl_Position = vec4(0.0); }",
  fragment: "#version 300 es\nout lowp vec4 none; void main() { none = vec4(0.0); }",
};

/**
 * Name the parts that the viewer needs and a release of NiiVue lacks.
 *
 * @param {Partial<NiivueLibrary>} library
 * @returns {string[]}
 */
export function lackOf({ Niivue: Kind, NVImage }) {
  const lack = typeof NVImage?.new === "function" ? [] : ["NVImage.new"];
  if (typeof Kind !== "function") return ["Niivue", ...lack];
  const nv = new Kind(QUIET);
  return [
    ...lack,
    ...METHODS.filter((name) => typeof nv[name] !== "function"),
    ...FIELDS.filter((name) => !(name in nv)),
    ...SCENE.filter((name) => !(name in (nv.scene ?? {}))).map((name) => `scene.${name}`),
  ];
}

/** The planes on one canvas. */
export class NiivuePlanes {
  /**
   * @param {Niivue} nv
   * @param {WebGL2RenderingContext} gl
   */
  constructor(nv, gl) {
    this.nv = nv;
    this.gl = gl;
    /** @type {Map<string, WebGLUniformLocation | null>} */
    this.locations = new Map();
  }

  /**
   * Start NiiVue on a canvas that stands in the page.
   *
   * @param {NiivueLibrary} library
   * @param {HTMLCanvasElement} canvas
   * @param {Grid} grid of the scan
   */
  static async open(library, canvas, grid) {
    const lack = lackOf(library);
    if (lack.length) throw new LoadError(`The NiiVue that is installed lacks ${lack.join(", ")}. Run lungseg setup.`);
    // NiiVue takes the existing context: one without alpha and depth is cheaper to put on the screen.
    const gl = canvas.getContext("webgl2", { alpha: false, depth: false, antialias: false });
    if (!gl) throw new NoWebGLError();
    const nv = new library.Niivue({
      ...QUIET, interactive: false, isRadiologicalConvention: true, sagittalNoseLeft: true, sliceType: MULTIPLANAR,
    });
    await withoutShaders(gl, () => nv.attachToCanvas(canvas, false));
    nv.addVolume(await library.NVImage.new(boxNifti(grid), "box.nii"));
    return new NiivuePlanes(nv, gl);
  }

  /** @param {string} source of a fragment shader for the slices; its `texPos` is the place in the scan's box */
  setShader(source) {
    this.nv.setCustomSliceShader(source);
    this.locations.clear();
  }

  /**
   * Return the location of a uniform, and make its shader the current one.
   *
   * @param {string} name
   */
  uniform(name) {
    const shader = this.nv.customSliceShader;
    if (!shader) throw new Error("The slices have no shader yet.");
    this.gl.useProgram(shader.program);
    if (!this.locations.has(name)) this.locations.set(name, this.gl.getUniformLocation(shader.program, name));
    return this.locations.get(name) ?? null;
  }

  /** @param {{ name: PlaneName, box: Box }[]} planes each in a box of the canvas (as shares of it) */
  setLayout(planes) {
    this.nv.setCustomLayout(planes.map(({ name, box }) => ({ sliceType: SLICE_TYPES[name], position: box })));
  }

  /**
   * Draw the planes through a place of the scan's box, moved by millimetres along its axes and zoomed.
   *
   * @param {Triple} share
   * @param {Triple} panMm
   * @param {number} zoom
   */
  draw(share, panMm, zoom) {
    this.nv.scene.crosshairPos = share;
    this.nv.scene.pan2Dxyzmm = [...panMm, zoom];
    this.nv.drawScene();
  }

  /**
   * Where plane number `pane` was drawn last.
   *
   * @param {number} pane
   * @returns {Tile}
   */
  tile(pane) {
    const { leftTopWidthHeight, leftTopMM, fovMM } = this.nv.screenSlices[pane];
    return { box: leftTopWidthHeight, leftBottomMm: [leftTopMM[0], leftTopMM[1]], fieldMm: [fovMM[0], fovMM[1]] };
  }

  /** Take the size of the canvas on the page. */
  resize() {
    this.nv.resizeListener();
  }

  close() {
    end(this.nv, this.gl);
  }
}

/** 3-D on one canvas. */
export class NiivueRendering {
  /** @param {Niivue} nv */
  constructor(nv) {
    this.nv = nv;
  }

  /**
   * Draw a volume of bytes in the colours of `colours`, as seen from the front.
   *
   * @param {NiivueLibrary} library
   * @param {HTMLCanvasElement} canvas stands in the page
   * @param {{ grid: Pick<Grid, "shape" | "spacingMm">, shape: Triple, voxels: Uint8Array, colours: ColourMap }} volume the
   *   box that it fills, its voxels in each direction, and these
   */
  static async open(library, canvas, { grid, shape, voxels, colours }) {
    const nv = new library.Niivue({ ...QUIET, show3Dcrosshair: false, sliceType: RENDER, isOrientCube: true });
    await nv.attachToCanvas(canvas, false);
    nv.addColormap("chest", colours);
    nv.addVolume(await library.NVImage.new(boxNifti(grid, shape, voxels), "small.nii", "chest", 1, null, 0, 255, true));
    await nv.setVolumeRenderIllumination(0.6);
    nv.setRenderAzimuthElevation(160, 8);
    return new NiivueRendering(nv);
  }

  /** Degrees: about the body's axis, and toward the reader. */
  get angles() {
    const { renderAzimuth, renderElevation } = this.nv.scene;
    return [renderAzimuth, renderElevation];
  }

  /**
   * Turn by degrees: about the body's axis, and toward the reader.
   *
   * @param {number} across
   * @param {number} along
   */
  turn(across, along) {
    const [azimuth, elevation] = this.angles;
    this.nv.setRenderAzimuthElevation(azimuth + across, Math.max(-90, Math.min(90, elevation + along)));
  }

  resize() {
    this.nv.resizeListener();
  }

  close() {
    end(this.nv, this.nv.gl);
  }
}

/**
 * @param {Niivue} nv
 * @param {WebGL2RenderingContext} gl
 */
function end(nv, gl) {
  nv.cleanup();
  gl.getExtension("WEBGL_lose_context")?.loseContext();
}

/**
 * Start NiiVue with empty shaders: it compiles 49 programs (meshes, fonts, 3-D ...), which takes a software renderer about
 * a second, while our own shader, set afterwards, draws the planes. Only the context of this canvas is changed.
 *
 * @param {WebGL2RenderingContext} gl
 * @param {() => Promise<unknown>} start
 */
async function withoutShaders(gl, start) {
  const set = gl.shaderSource.bind(gl);
  gl.shaderSource = (shader) => {
    const isVertex = gl.getShaderParameter(shader, gl.SHADER_TYPE) === gl.VERTEX_SHADER;
    set(shader, isVertex ? EMPTY_SHADER.vertex : EMPTY_SHADER.fragment);
  };
  try {
    await start();
  } finally {
    Reflect.deleteProperty(gl, "shaderSource"); // uncovers the method of its class
  }
}

/**
 * A NIfTI file that fills the box of a grid, its centre at the origin; by default of 2 x 2 x 2 different voxels.
 *
 * @param {Pick<Grid, "shape" | "spacingMm">} grid
 * @param {Triple} shape
 * @param {Uint8Array} voxels
 */
function boxNifti(grid, shape = [2, 2, 2], voxels = Uint8Array.from({ length: 8 }, (_, n) => n)) {
  const buffer = new ArrayBuffer(352 + voxels.length);
  const view = new DataView(buffer);
  const spacing = grid.shape.map((n, axis) => (n * grid.spacingMm[axis]) / shape[axis]);
  view.setInt32(0, 348, true);
  [3, ...shape, 1, 1, 1, 1].forEach((n, place) => view.setInt16(40 + 2 * place, n, true));
  view.setInt16(70, 2, true);
  view.setInt16(72, 8, true);
  [1, ...spacing].forEach((mm, place) => view.setFloat32(76 + 4 * place, mm, true));
  view.setFloat32(108, 352, true);
  view.setFloat32(112, 1, true);
  view.setInt16(254, 1, true);
  spacing.forEach((mm, axis) => {
    view.setFloat32(280 + 20 * axis, mm, true);
    view.setFloat32(292 + 16 * axis, (-mm * (shape[axis] - 1)) / 2, true);
  });
  [0x6e, 0x2b, 0x31, 0].forEach((byte, place) => view.setUint8(344 + place, byte));
  new Uint8Array(buffer, 352).set(voxels);
  return buffer;
}
