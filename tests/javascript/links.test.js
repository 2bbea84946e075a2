import assert from "node:assert/strict";
import { test } from "node:test";

import { askedIn, linkedLesion, linkedSlice, linkedWindow, linkTo, nameOfLink } from "../../lungseg/ui/viewer/links.js";
import { layer, lesion, mask } from "./cases.js";

const LAYERS = [layer("model", { mask: mask(lesion(1, [0, 0, 0]), lesion(4, [0, 0, 0])) }), layer("edit", { mask: mask(lesion(2, [0, 0, 0])) })];

test("what a link asks for is what it was made of", () => {
  const page = new URL("http://here/viewer?case=b");
  const link = linkTo(page, { caseId: "a", index: [1, 2, 30], window: [40.2, 400], lesion: "edit-2" });
  assert.equal(link, "http://here/viewer?case=a&slice=31&window=40,400&lesion=edit-2");
  const asked = askedIn(new URL(link).search);
  assert.ok(asked);
  assert.deepEqual([asked.caseId, linkedSlice(asked.slice), linkedWindow(asked.window)], ["a", 30, [40, 400]]);
  assert.deepEqual(linkedLesion(asked.lesion, LAYERS), { layer: "edit", at: 0 });
});

test("a link without a word of layer means the first one", () => {
  assert.deepEqual(linkedLesion("4", LAYERS), { layer: "model", at: 1 });
});

test("what makes no sense is nothing", () => {
  for (const text of [null, "", "x", "9", "none-1", "model-9", "model-"]) assert.equal(linkedLesion(text, LAYERS), null, `${text}`);
  for (const text of [null, "", "1", "40,-3", "40,0.5", "a,b", "1,2,3"]) assert.equal(linkedWindow(text), null, `${text}`);
  for (const text of [null, "", "0", "x", "-4"]) assert.equal(linkedSlice(text), null, `${text}`);
  assert.equal(askedIn("?case=a"), null);
});

test("links that ask for something else have another name", () => {
  assert.notEqual(nameOfLink(askedIn("?case=a&slice=1")), nameOfLink(askedIn("?case=a&slice=2")));
  assert.equal(nameOfLink(null), "||");
});
