// Reads scans with the viewer's own `scan.js`, whose path is the first argument: a line of JSON in, one out. Nothing is
// fetched: "sent" names a file with what a browser would have been sent, "inflated" one with the answer to ?inflated=1.

const fs = require("node:fs");
const readline = require("node:readline");
const vm = require("node:vm");

vm.runInThisContext(fs.readFileSync(process.argv[2], "utf8")); // gives fetchVoxels, halfFloats, LoadError, RasArray

let asked = null;

globalThis.fetch = async (url) => {
  const bytes = fs.readFileSync(url.endsWith("?inflated=1") ? asked.inflated : asked.sent);
  let at = 0;
  const pull = (controller) => {
    if (at >= bytes.length) return controller.close();
    const part = Uint8Array.from(bytes.subarray(at, at + asked.chunk));
    at += part.length;
    asked.taken += part.length;
    return controller.enqueue(part);
  };
  return { status: 200, ok: true, body: new ReadableStream({ pull }, { highWaterMark: 0 }) };
};

async function answer(question) {
  asked = { ...question, taken: 0 };
  const { grid } = question;
  const [width, height, depth] = grid.shape;
  const volume = new RasArray(await fetchVoxels("scan", width * height * depth), grid);
  const hu = new Float64Array(width * height * depth);
  let at = 0;
  for (let k = 0; k < depth; k += 1) {
    for (let j = 0; j < height; j += 1) {
      for (let i = 0; i < width; i += 1, at += 1) hu[at] = volume.value([i, j, k]);
    }
  }
  return { hu: Array.from(hu), halves: Array.from(halfFloats(volume)), taken: asked.taken };
}

function nameOf(error) {
  return `${error instanceof LoadError ? "LoadError" : error.name}: ${error.message}`;
}

(async () => {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    const result = await answer(JSON.parse(line)).catch((error) => ({ error: nameOf(error) }));
    process.stdout.write(`${JSON.stringify(result)}\n`);
  }
})();
