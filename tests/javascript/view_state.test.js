import assert from "node:assert/strict";
import { test } from "node:test";

import { paintOf, shaderFor } from "../../lungseg/ui/viewer/planes.js";
import { ViewState } from "../../lungseg/ui/viewer/view_state.js";
import { caseOf, layer, lesion, mask } from "./cases.js";

const LAYERS = [
  layer("model", { mask: mask(lesion(1, [3, 2, 1]), lesion(2, [0, 0, 0])) }),
  layer("doubtful", { shownWith: "model", mask: { ...mask(lesion(3, [1, 1, 1])), sha: null } }),
  layer("edit", { mask: mask(lesion(1, [2, 0, 1])), visible: false, colour: [0, 1, 0], fill: 0.5 }),
];

function stateOf(layers = LAYERS) {
  const changes = /** @type {number[]} */ ([]);
  return { state: new ViewState(caseOf(layers), () => changes.push(1)), changes };
}

test("a case opens at its largest lesion, else in the middle", () => {
  assert.deepEqual(stateOf().state.index, [3, 2, 1]);
  assert.deepEqual(stateOf([layer("model")]).state.index, [2, 1, 1]);
  assert.deepEqual(stateOf([]).state.index, [2, 1, 1]);
});

test("lesions go round within their layer", () => {
  const { state } = stateOf();
  const seen = [1, 1, 1].map((by) => {
    state.nextLesion(/** @type {1} */ (by));
    return state.lesion?.at;
  });
  assert.deepEqual(seen, [0, 1, 0]);
  state.nextLesion(-1);
  assert.deepEqual([state.lesion, state.index], [{ layer: "model", at: 1 }, [0, 0, 0]]);
  state.jump({ layer: "edit", at: 0 });
  assert.deepEqual(state.index, [2, 0, 1]);
  state.jump({ layer: "edit", at: 7 });
  state.jump({ layer: "none", at: 0 });
  assert.deepEqual(state.lesion, { layer: "edit", at: 0 });
});

test("steps end at the scan's ends, and a step that leads nowhere draws nothing", () => {
  const { state, changes } = stateOf();
  state.step(2, 10);
  assert.deepEqual([state.index, changes.length], [[3, 2, 1], 0]);
  state.step(2, -Infinity);
  assert.deepEqual([state.index, changes.length], [[3, 2, 0], 1]);
});

test("the lesion is let go where its place in the list is another's now, and stays where it is the same", () => {
  const { state } = stateOf();
  state.jump({ layer: "model", at: 0 });
  state.update(caseOf([{ ...LAYERS[0], mask: { ...mask(...LAYERS[0].mask?.lesions ?? []), sha: "2" } }]));
  assert.deepEqual(state.lesion, { layer: "model", at: 0 });
  state.update(caseOf([layer("model", { mask: mask(lesion(1, [1, 1, 1])) })]));
  assert.equal(state.lesion, null);
});

test("zoom keeps what lies under the cross, and ends where it began", () => {
  const { state } = stateOf();
  /** @param {number} axis */
  const seenMm = (axis) => {
    const mm = ((state.index[axis] + 0.5) / state.grid.shape[axis] - 0.5) * state.grid.shape[axis] * state.grid.spacingMm[axis];
    return mm * state.view.zoom + state.view.pan[axis];
  };
  const before = [0, 1, 2].map(seenMm);
  state.zoom(3);
  [0, 1, 2].forEach((axis) => assert.ok(Math.abs(seenMm(axis) - before[axis]) < 1e-9));
  assert.ok(state.isMoved);
  state.zoom(100);
  assert.equal(state.view.zoom, 12);
  state.zoom(0);
  assert.deepEqual([state.view.zoom, state.view.pan, state.isMoved], [1, [0, 0, 0], false]);
});

test("what is remembered comes back as far as it fits", () => {
  const { state } = stateOf();
  state.restore({ index: [9, 1, -3], view: { opacity: 0.8, visible: { edit: true } }, enlarged: "oblique", lesion: { layer: "model", at: 9 } });
  assert.deepEqual([state.index, state.view.opacity, state.enlarged, state.lesion], [[3, 1, 0], 0.8, null, null]);
  assert.deepEqual(state.view.visible, { model: true, doubtful: true, edit: true });
  assert.deepEqual(state.view.window, [-600, 1500]);
  state.restore(JSON.parse(JSON.stringify({ look: { showsModel: false }, lesion: { kind: "model", at: 0 }, enlarged: "coronal" })));
  assert.deepEqual([state.view.visible.model, state.enlarged, state.lesion], [true, "coronal", null]);
});

test("each layer is painted in its colour; one without a switch follows another's", () => {
  const { state } = stateOf();
  const paints = () => state.data.layers.map((each) => paintOf(each, state.view));
  assert.deepEqual(paints().map(({ line }) => line), [1, 1, 0]);
  state.toggle(LAYERS[0]);
  state.toggle(LAYERS[2]);
  assert.deepEqual(paints(), [
    { colour: [1, 0.5, 0, 0], line: 0 }, { colour: [1, 0.5, 0, 0], line: 0 }, { colour: [0, 1, 0, 0.175], line: 1 },
  ]);
  state.set({ isContour: true });
  assert.deepEqual(paints()[2], { colour: [0, 1, 0, 0], line: 1 });
  assert.deepEqual(paintOf(undefined, state.view), { colour: [0, 0, 0, 0], line: 0 });
});

test("the shader has a colour for each layer and a texture for four", () => {
  for (const count of [1, 3, 4, 5, 12]) {
    const source = shaderFor(count);
    assert.ok(source.includes(`uniform vec4 colours[${count}];`));
    assert.equal(source.match(/uniform sampler3D masks/g)?.length, Math.ceil(count / 4));
    const order = [...source.matchAll(/colours\[(\d+)\], lines/g)].map(([, n]) => Number(n));
    assert.deepEqual(order, [...Array(count).keys()].reverse());
  }
});
