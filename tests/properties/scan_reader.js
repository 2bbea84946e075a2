// Reads scans with the viewer's own modules: a line of JSON in, one out. Nothing is fetched: "sent" names a file with what
// a browser would have been sent, "inflated" one with the answer to ?inflated=1.

/** @import { Grid } from "../../lungseg/ui/viewer/types.js" */

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import { LoadError } from "../../lungseg/ui/viewer/errors.js";
import { fetchVoxels } from "../../lungseg/ui/viewer/nifti_reader.js";
import { halfFloats, RasArray, voxelCountOf } from "../../lungseg/ui/viewer/voxels.js";

/** @typedef {{ sent: string, inflated: string, chunk: number, grid: Grid }} Question */

let taken = 0;

/** @param {Question} question */
function fetchFrom({ sent, inflated, chunk }) {
  return async (/** @type {string | URL | Request} */ url) => {
    const bytes = readFileSync(String(url).endsWith("?inflated=1") ? inflated : sent);
    let at = 0;
    /** @param {ReadableStreamDefaultController<Uint8Array>} controller */
    const pull = (controller) => {
      if (at >= bytes.length) return controller.close();
      const part = Uint8Array.from(bytes.subarray(at, at + chunk));
      at += part.length;
      taken += part.length;
      return controller.enqueue(part);
    };
    return new Response(new ReadableStream({ pull }, { highWaterMark: 0 }));
  };
}

/** @param {Question} question */
async function answer(question) {
  taken = 0;
  globalThis.fetch = fetchFrom(question);
  const { grid } = question;
  const volume = new RasArray(await fetchVoxels("scan", voxelCountOf(grid)), grid);
  const hu = new Float64Array(voxelCountOf(grid));
  const [width, height, depth] = grid.shape;
  let at = 0;
  for (let k = 0; k < depth; k += 1) {
    for (let j = 0; j < height; j += 1) {
      for (let i = 0; i < width; i += 1, at += 1) hu[at] = volume.value([i, j, k]);
    }
  }
  return { hu: Array.from(hu), halves: Array.from(halfFloats(volume)), taken };
}

/** @param {Error} error */
function nameOf(error) {
  return `${error instanceof LoadError ? "LoadError" : error.name}: ${error.message}`;
}

for await (const line of createInterface({ input: process.stdin })) {
  const result = await answer(JSON.parse(line)).catch((error) => ({ error: nameOf(error) }));
  process.stdout.write(`${JSON.stringify(result)}\n`);
}
