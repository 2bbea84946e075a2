// The three planes. NiiVue lays them out and places them in space; a slice shader of ours colours them.
//
// NiiVue windows a volume by drawing all of it again, with a gradient for 3-D lighting: about seven seconds for
// 512 x 512 x 133 voxels in a software renderer, at each change of the window. Here NiiVue is given the scan's box as a
// volume of 2 x 2 x 2 voxels, and the shader (setCustomSliceShader) reads HU from a half-float texture and masks from a
// small one: window, opacity and contours are then uniforms, and a slice costs one draw.

const SCAN_UNIT = 12;
const MARKS_UNIT = 13;
const PLANES = [
  { name: "axial", type: 0, normal: 2, across: [0, 1], letters: ["R", "L", "A", "P"] },
  { name: "sagittal", type: 2, normal: 0, across: [1, 2], letters: ["A", "P", "S", "I"] },
  { name: "coronal", type: 1, normal: 1, across: [0, 2], letters: ["R", "L", "S", "I"] },
];

const SLICE_SHADER = `#version 300 es
precision highp int;
precision highp float;
precision highp sampler3D;
uniform sampler3D scan;
uniform sampler3D marks;
uniform vec2 hu;
uniform vec3 boxLow;
uniform vec3 boxSize;
uniform vec4 modelColour;
uniform vec4 referenceColour;
uniform vec4 doubtfulColour;
uniform vec2 lines;
in vec3 texPos;
out vec4 color;
vec3 inside(vec3 place) {
  return textureLod(marks, (place - boxLow) / boxSize, 0.0).rgb;
}
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
  if (all(greaterThan(from, vec3(-0.1))) && all(lessThan(from, vec3(1.1)))) {
    vec3 within = inside(texPos);
    vec3 across = inside(texPos + right) - inside(texPos - right);
    vec3 along = inside(texPos + up) - inside(texPos - up);
    vec3 steepness = 0.5 * sqrt(across * across + along * along);
    below = paint(below, within.g, steepness.g, referenceColour, lines.y);
    below = paint(below, within.b, steepness.b, doubtfulColour, lines.x);
    below = paint(below, within.r, steepness.r, modelColour, lines.x);
  }
  color = vec4(below, 1.0);
}`;

class Planes {
  static async open(library, canvas, grid) {
    const planes = new Planes();
    planes.grid = grid;
    planes.canvas = canvas;
    planes.nv = new library.Niivue({
      interactive: false, isRadiologicalConvention: true, sagittalNoseLeft: true, crosshairWidth: 0,
      isOrientationTextVisible: false, loadingText: "", logLevel: "error", dragAndDropEnabled: false, sliceType: 3,
    });
    // NiiVue takes the context that is there: without alpha and depth it is cheaper to put on the screen.
    canvas.getContext("webgl2", { alpha: false, depth: false, antialias: false });
    await withoutShaders(() => planes.nv.attachToCanvas(canvas, false));
    planes.nv.setCustomSliceShader(SLICE_SHADER);
    planes.nv.addVolume(await library.NVImage.new(boxNifti(grid), "box.nii"));
    planes.makeTextures();
    return planes;
  }

  get gl() {
    return this.nv.gl;
  }

  makeTextures() {
    const { gl } = this;
    const [width, height, depth] = this.grid.shape;
    const longest = gl.getParameter(gl.MAX_3D_TEXTURE_SIZE);
    if (Math.max(width, height, depth) > longest) {
      throw new LoadError(`This browser's graphics can hold ${longest} voxels along an axis, the scan has more.`);
    }
    this.setMarks(null);
    this.uniform("scan", "uniform1i", SCAN_UNIT);
    this.uniform("marks", "uniform1i", MARKS_UNIT);
  }

  /** Hand the scan to the graphics card, as half-precision HU; at once, else the driver first clears what is missing. */
  setScan(halves) {
    const { gl } = this;
    newTexture(gl, SCAN_UNIT, gl.LINEAR);
    gl.texImage3D(gl.TEXTURE_3D, 0, gl.R16F, ...this.grid.shape, 0, gl.RED, gl.HALF_FLOAT, halves);
    if (gl.getError() === gl.OUT_OF_MEMORY) throw new LoadError("This computer's graphics memory can't hold the scan.");
  }

  setMarks(marks) {
    const { gl } = this;
    const { low, size, data } = marks ?? { low: [0, 0, 0], size: [1, 1, 1], data: new Uint8Array(3) };
    if (this.marksTexture) gl.deleteTexture(this.marksTexture);
    this.marksTexture = newTexture(gl, MARKS_UNIT, gl.LINEAR);
    gl.texImage3D(gl.TEXTURE_3D, 0, gl.RGB8, ...size, 0, gl.RGB, gl.UNSIGNED_BYTE, data);
    this.uniform("boxLow", "uniform3fv", low.map((n, axis) => n / this.grid.shape[axis]));
    this.uniform("boxSize", "uniform3fv", size.map((n, axis) => n / this.grid.shape[axis]));
  }

  uniform(name, setter, ...values) {
    const shader = this.nv.customSliceShader;
    shader.use(this.gl);
    this.gl[setter](shader.uniforms[name], ...values);
  }

  /** Place planes: [{plane, position, inner}], the pane and the room for its picture, each [left, top, width, height] as shares of the canvas. */
  setLayout(panes) {
    this.panes = panes;
    this.nv.setCustomLayout(panes.map(({ plane, inner }) => ({ sliceType: plane.type, position: inner })));
  }

  /** Draw the slices through voxel `index` as `look` says. */
  draw(index, look) {
    const { scene } = this.nv;
    scene.crosshairPos = index.map((n, axis) => (n + 0.5) / this.grid.shape[axis]);
    scene.pan2Dxyzmm = [...look.pan, look.zoom];
    const [centre, width] = look.window;
    this.uniform("hu", "uniform2f", centre - width / 2, 1 / width);
    const fill = look.isContour ? 0 : look.opacity;
    const shown = [look.showsModel, look.showsReference].map(Number);
    this.uniform("modelColour", "uniform4f", ...look.colours.model, fill * shown[0]);
    this.uniform("referenceColour", "uniform4f", ...look.colours.reference, fill * 0.6 * shown[1]);
    this.uniform("doubtfulColour", "uniform4f", ...look.colours.doubtful, fill * shown[0]);
    this.uniform("lines", "uniform2f", ...shown);
    this.nv.drawScene();
  }

  /** The pane under a point of the canvas (device pixels), or null. */
  paneAt(x, y) {
    const { width, height } = this.canvas;
    const within = ([left, top, w, h]) =>
      x >= left * width && x < (left + w) * width && y >= top * height && y < (top + h) * height;
    return this.panes.findIndex(({ position }) => within(position));
  }

  /** Place in the scan's box (shares along R, A, S) under a point of pane number `pane`; outside 0..1 off the scan. */
  shareAt(pane, x, y) {
    const tile = this.nv.screenSlices[pane];
    const [left, top, width, height] = tile.leftTopWidthHeight;
    const { across, normal } = this.panes[pane].plane;
    const mm = [
      tile.leftTopMM[0] + ((x - left) / width) * tile.fovMM[0],
      tile.leftTopMM[1] + (1 - (y - top) / height) * tile.fovMM[1],
    ];
    const share = [0, 0, 0];
    share[normal] = this.nv.scene.crosshairPos[normal];
    across.forEach((axis, n) => { share[axis] = mm[n] / this.sideMm(axis) + 0.5; });
    return share;
  }

  /** Point of the canvas (device pixels) at which pane number `pane` shows a place of the scan's box. */
  pointOf(pane, share) {
    const tile = this.nv.screenSlices[pane];
    const [left, top, width, height] = tile.leftTopWidthHeight;
    const mm = this.panes[pane].plane.across.map((axis) => (share[axis] - 0.5) * this.sideMm(axis));
    return [
      left + ((mm[0] - tile.leftTopMM[0]) / tile.fovMM[0]) * width,
      top + (1 - (mm[1] - tile.leftTopMM[1]) / tile.fovMM[1]) * height,
    ];
  }

  /** Where the picture of pane number `pane` lies on the canvas, in device pixels: [left, top, width, height]. */
  pictureOf(pane) {
    return this.nv.screenSlices[pane].leftTopWidthHeight;
  }

  pixelsPerMm(pane) {
    const tile = this.nv.screenSlices[pane];
    return tile.leftTopWidthHeight[2] / Math.abs(tile.fovMM[0]);
  }

  sideMm(axis) {
    return this.grid.shape[axis] * this.grid.spacingMm[axis];
  }

  close() {
    this.nv.cleanup();
    this.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }
}

function newTexture(gl, unit, filter) {
  const texture = gl.createTexture();
  gl.activeTexture(gl.TEXTURE0 + unit);
  gl.bindTexture(gl.TEXTURE_3D, texture);
  gl.pixelStorei(gl.UNPACK_ALIGNMENT, 1);
  gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MIN_FILTER, filter);
  gl.texParameteri(gl.TEXTURE_3D, gl.TEXTURE_MAG_FILTER, filter);
  for (const side of [gl.TEXTURE_WRAP_S, gl.TEXTURE_WRAP_T, gl.TEXTURE_WRAP_R]) {
    gl.texParameteri(gl.TEXTURE_3D, side, gl.CLAMP_TO_EDGE);
  }
  return texture;
}

/**
 * Start NiiVue with empty shaders. It compiles 49 programs (meshes, fonts, 3-D ...), which takes a software renderer about
 * a second; planes are drawn by the one of ours, set afterwards.
 */
async function withoutShaders(start) {
  const context = WebGL2RenderingContext.prototype;
  const { shaderSource } = context;
  context.shaderSource = function emptied(shader) {
    const isVertex = this.getShaderParameter(shader, this.SHADER_TYPE) === this.VERTEX_SHADER;
    const body = isVertex ? "void main() { gl_Position = vec4(0.0); }" : "out lowp vec4 none; void main() { none = vec4(0.0); }";
    shaderSource.call(this, shader, `#version 300 es\n${body}`);
  };
  try {
    return await start();
  } finally {
    context.shaderSource = shaderSource;
  }
}

/** A NIfTI file of 2 x 2 x 2 voxels that fills the box of a grid, its centre at the origin. */
function boxNifti(grid, shape = [2, 2, 2], voxels = null) {
  const count = shape[0] * shape[1] * shape[2];
  const buffer = new ArrayBuffer(352 + count);
  const view = new DataView(buffer);
  const spacing = grid.shape.map((n, axis) => (n * grid.spacingMm[axis]) / shape[axis]);
  view.setInt32(0, 348, true);
  [3, ...shape, 1, 1, 1, 1].forEach((n, at) => view.setInt16(40 + 2 * at, n, true));
  view.setInt16(70, 2, true);
  view.setInt16(72, 8, true);
  [1, ...spacing].forEach((mm, at) => view.setFloat32(76 + 4 * at, mm, true));
  view.setFloat32(108, 352, true);
  view.setFloat32(112, 1, true);
  view.setInt16(254, 1, true);
  spacing.forEach((mm, axis) => {
    view.setFloat32(280 + 20 * axis, mm, true);
    view.setFloat32(292 + 16 * axis, (-mm * (shape[axis] - 1)) / 2, true);
  });
  [0x6e, 0x2b, 0x31, 0].forEach((byte, at) => view.setUint8(344 + at, byte));
  new Uint8Array(buffer, 352).set(voxels ?? Uint8Array.from({ length: count }, (_, at) => at));
  return buffer;
}
