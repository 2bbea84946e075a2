/** The loading worker: it fetches and unpacks scans and masks while the page stays responsive. */

/** @import { Answer, Grid, MaskRequest, Task } from "./types.js" */

import { LoadError, messageOf } from "./errors.js";
import { packMasks } from "./masks.js";
import { fetchVoxels } from "./nifti_reader.js";
import { halfFloats, RasArray, voxelCountOf } from "./voxels.js";

/**
 * @param {Task} task
 * @param {(bytes: number) => void} onProgress
 * @returns {Promise<[result: unknown, moved: ArrayBufferLike[]]>}
 */
async function carryOut(task, onProgress) {
  if (task.task === "scan") {
    const voxels = await fetchVoxels(task.url, voxelCountOf(task.grid), onProgress);
    const halves = halfFloats(new RasArray(voxels, task.grid));
    return [{ voxels, halves }, [voxels.array.buffer, halves.buffer]];
  }
  const packed = packMasks(await Promise.all(task.masks.map((mask) => mask && fetchMask(mask, task.grid))));
  return [packed, packed ? packed.textures.map((texture) => texture.buffer) : []];
}

/**
 * @param {MaskRequest} mask
 * @param {Grid} grid
 */
async function fetchMask({ url, sliceVoxels, mark }, grid) {
  return { volume: new RasArray(await fetchVoxels(url, voxelCountOf(grid)), grid), sliceVoxels, mark };
}

/**
 * @param {Answer} message
 * @param {ArrayBufferLike[]} [moved]
 */
function answer(message, moved = []) {
  self.postMessage(message, { transfer: /** @type {ArrayBuffer[]} */ (moved) });
}

self.addEventListener("message", async (/** @type {MessageEvent<Task & { id: number }>} */ { data: { id, ...task } }) => {
  try {
    const [result, moved] = await carryOut(task, (bytes) => answer({ id, bytes }));
    answer({ id, result }, moved);
  } catch (error) {
    answer({ id, error: messageOf(error), isExpected: error instanceof LoadError });
  }
});
