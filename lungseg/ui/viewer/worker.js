// The loading worker: fetches and unpacks, so that neither waits for the page nor the page for it. `scan.js` precedes it.

const TASKS = {
  async scan({ url, grid }, tell) {
    const voxels = await fetchVoxels(url, voxelsOf(grid), tell);
    const halves = halfFloats(new RasArray(voxels, grid));
    return [{ voxels, halves }, [voxels.array.buffer, halves.buffer]];
  },

  async masks({ masks, grid }) {
    const volumes = await Promise.all(masks.map(async (mask) => {
      if (!mask) return null;
      const volume = new RasArray(await fetchVoxels(mask.url, voxelsOf(grid)), grid);
      return { volume, sliceVoxels: mask.sliceVoxels, mark: mask.mark };
    }));
    const marks = packMarks(volumes);
    return [marks, marks ? [marks.data.buffer] : []];
  },
};

function voxelsOf(grid) {
  return grid.shape[0] * grid.shape[1] * grid.shape[2];
}

self.onmessage = async ({ data: { id, task, ...rest } }) => {
  try {
    const [result, moved] = await TASKS[task](rest, (bytes) => self.postMessage({ id, bytes }));
    self.postMessage({ id, result }, moved);
  } catch (error) {
    self.postMessage({ id, error: error.message, isExpected: error instanceof LoadError });
  }
};
