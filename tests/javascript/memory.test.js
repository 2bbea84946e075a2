import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";

import { Memory } from "../../lungseg/ui/viewer/memory.js";

/** @type {Map<string, string>} */
const stored = new Map();
const tab = {
  location: { search: "" }, isFull: false, setTimeout, clearTimeout,
  sessionStorage: {
    getItem: (/** @type {string} */ key) => stored.get(key) ?? null,
    setItem: (/** @type {string} */ key, /** @type {string} */ value) => {
      if (tab.isFull) throw new Error("full");
      stored.set(key, value);
    },
  },
};
Object.assign(globalThis, { window: tab });

beforeEach(() => {
  stored.clear();
  Object.assign(tab, { isFull: false, location: { search: "" } });
});

test("of many states in a row the last one is written, soon, and what was written before stays beside it", (context) => {
  context.mock.timers.enable({ apis: ["setTimeout"] });
  Object.assign(tab, { setTimeout: globalThis.setTimeout, clearTimeout: globalThis.clearTimeout });
  const memory = new Memory("a");
  memory.store({ threshold: { maskId: "m", level: 3 } });
  memory.write();
  for (let k = 0; k < 5; k += 1) memory.store({ index: [0, 0, k] });
  assert.equal(new Memory("a").state?.index, undefined);
  context.mock.timers.tick(300);
  const { state } = new Memory("a");
  assert.deepEqual([state?.index, state?.threshold], [[0, 0, 4], { maskId: "m", level: 3 }]);
  assert.equal(new Memory("b").state, null);
});

test("a link is followed once; whoever went on from there comes back to where that was", () => {
  tab.location.search = "?case=a&slice=5";
  const memory = new Memory("a");
  assert.equal(memory.target?.slice, "5");
  memory.store({ index: [0, 0, 9] });
  memory.write();
  assert.equal(new Memory("a").target, null);
  tab.location.search = "?case=a&slice=6";
  assert.equal(new Memory("a").target?.slice, "6");
  assert.equal(new Memory("b").target, null);
  tab.location.search = "?case=a";
  assert.equal(new Memory("a").target, null);
});

test("storage that is damaged or full is none", () => {
  stored.set("lungseg-viewer-a", "{");
  assert.equal(new Memory("a").state, null);
  const memory = new Memory("a");
  tab.isFull = true;
  memory.store({ index: [1, 1, 1] });
  memory.write();
  assert.deepEqual(memory.state?.index, [1, 1, 1]);
  assert.equal(stored.get("lungseg-viewer-a"), "{");
});
