// The 3-D pane: a small copy of the scan, so that a software renderer turns it too, with the masks inside it.

const LONGEST = 144;
const AIR_HU = -1024;
const HU_PER_STEP = 10;
const BODY_TOP = 199;
const MARK_STEPS = { reference: 228, doubtful: 242, model: 255 };

class Solid {
  static async open(library, canvas, volume, grid, marks, colours) {
    const solid = new Solid();
    const nv = new library.Niivue({
      isOrientationTextVisible: false, crosshairWidth: 0, show3Dcrosshair: false, loadingText: "", logLevel: "error",
      dragAndDropEnabled: false, sliceType: 4, isOrientCube: true,
    });
    solid.nv = nv;
    await nv.attachToCanvas(canvas, false);
    nv.addColormap("chest", chestColours(colours));
    const steps = grid.shape.map((n) => Math.ceil(n / LONGEST));
    const shape = grid.shape.map((n, axis) => Math.floor(n / steps[axis]));
    const covered = { shape: shape.map((n, axis) => n * steps[axis]), spacingMm: grid.spacingMm };
    const voxels = thin(volume, shape, steps, (hu) => Math.min(BODY_TOP, (hu - AIR_HU) / HU_PER_STEP));
    if (marks) addMarks(voxels, shape, steps, marks);
    const file = boxNifti(covered, shape, voxels);
    nv.addVolume(await library.NVImage.new(file, "small.nii", "chest", 1, null, 0, 255, true));
    await nv.setVolumeRenderIllumination(0.6);
    nv.setRenderAzimuthElevation(160, 8);
    return solid;
  }

  /** Turn by degrees: about the body's axis, and toward the reader. */
  turn(across, along) {
    const { renderAzimuth, renderElevation } = this.nv.scene;
    this.nv.setRenderAzimuthElevation(renderAzimuth + across, Math.max(-90, Math.min(90, renderElevation + along)));
  }

  close() {
    this.nv.cleanup();
    this.nv.gl.getExtension("WEBGL_lose_context")?.loseContext();
  }
}

/** Colour and opacity by step: a veil where air meets tissue, bones, and the masks opaque inside. */
function chestColours({ model, reference, doubtful }) {
  const stops = [
    [0, 0, [0, 0, 0]], [38, 0, [90, 120, 150]], [54, 11, [90, 120, 150]], [72, 0, [90, 120, 150]],
    [124, 0, [225, 215, 195]], [150, 50, [225, 215, 195]], [BODY_TOP, 130, [255, 250, 240]], [200, 0, [0, 0, 0]],
    [227, 0, [0, 0, 0]], [228, 190, reference.map((share) => share * 255)], [229, 0, [0, 0, 0]],
    [241, 0, [0, 0, 0]], [242, 220, doubtful.map((share) => share * 255)], [243, 0, [0, 0, 0]],
    [254, 0, [0, 0, 0]], [255, 255, model.map((share) => share * 255)],
  ];
  const [R, G, B] = [0, 1, 2].map((channel) => stops.map((stop) => Math.round(stop[2][channel])));
  return { R, G, B, A: stops.map((stop) => stop[1]), I: stops.map((stop) => stop[0]) };
}

/** One byte a voxel of a coarser grid: the mean of each block of `steps` voxels through `toByte`. */
function thin(volume, shape, steps, toByte) {
  const out = new Uint8Array(shape[0] * shape[1] * shape[2]);
  const [di, dj, dk] = steps;
  let at = 0;
  for (let k = 0; k < shape[2]; k += 1) {
    for (let j = 0; j < shape[1]; j += 1) {
      for (let i = 0; i < shape[0]; i += 1, at += 1) {
        let sum = 0;
        for (let c = 0; c < dk; c += 1) {
          for (let b = 0; b < dj; b += 1) {
            let from = volume.offset([i * di, j * dj + b, k * dk + c]);
            for (let a = 0; a < di; a += 1, from += volume.steps[0]) sum += volume.array[from];
          }
        }
        const hu = (sum / (di * dj * dk)) * volume.slope + volume.intercept;
        out[at] = Math.max(0, Math.min(255, toByte(hu)));
      }
    }
  }
  return out;
}

/** Write masks over a coarser grid: a block with a marked voxel is marked. */
function addMarks(out, shape, steps, { low, size, data }) {
  let at = 0;
  for (let k = 0; k < size[2]; k += 1) {
    for (let j = 0; j < size[1]; j += 1) {
      for (let i = 0; i < size[0]; i += 1, at += 3) {
        const [model, reference, doubtful] = [data[at], data[at + 1], data[at + 2]];
        const step = model ? MARK_STEPS.model : doubtful ? MARK_STEPS.doubtful : reference ? MARK_STEPS.reference : 0;
        if (!step) continue;
        const [x, y, z] = [i, j, k].map((n, axis) => Math.floor((low[axis] + n) / steps[axis]));
        if (x >= shape[0] || y >= shape[1] || z >= shape[2]) continue;
        const to = x + shape[0] * (y + shape[1] * z);
        out[to] = Math.max(out[to], step);
      }
    }
  }
}
