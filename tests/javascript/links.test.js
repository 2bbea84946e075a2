import assert from "node:assert/strict";
import { test } from "node:test";

import { linkedLesion, linkedSlice, linkedWindow, linkTo, nameOfLink, targetIn } from "../../lungseg/ui/viewer/links.js";
import { layer, lesion, mask } from "./cases.js";

const LAYERS = [layer("model", { mask: mask(lesion(1, [0, 0, 0]), lesion(4, [0, 0, 0])) }), layer("edit", { mask: mask(lesion(2, [0, 0, 0])) })];

test("a link names what it was made of", () => {
  const page = new URL("http://here/viewer?case=b");
  const link = linkTo(page, { caseId: "a", index: [1, 2, 30], window: [40.2, 400], lesion: "edit-2" });
  assert.equal(link, "http://here/viewer?case=a&slice=31&window=40,400&lesion=edit-2");
  const target = targetIn(new URL(link).search);
  assert.ok(target);
  assert.deepEqual([target.caseId, linkedSlice(target.slice), linkedWindow(target.window)], ["a", 30, [40, 400]]);
  assert.deepEqual(linkedLesion(target.lesion, LAYERS), { layer: "edit", at: 0 });
});

test("a link without a layer means the first one", () => {
  assert.deepEqual(linkedLesion("4", LAYERS), { layer: "model", at: 1 });
});

test("a senseless target is null", () => {
  for (const text of [null, "", "x", "9", "none-1", "model-9", "model-"]) assert.equal(linkedLesion(text, LAYERS), null, `${text}`);
  for (const text of [null, "", "1", "40,-3", "40,0.5", "a,b", "1,2,3"]) assert.equal(linkedWindow(text), null, `${text}`);
  for (const text of [null, "", "0", "x", "-4"]) assert.equal(linkedSlice(text), null, `${text}`);
  assert.equal(targetIn("?case=a"), null);
});

test("links with different targets have different names", () => {
  assert.notEqual(nameOfLink(targetIn("?case=a&slice=1")), nameOfLink(targetIn("?case=a&slice=2")));
  assert.equal(nameOfLink(null), "||");
});
