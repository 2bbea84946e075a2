import assert from "node:assert/strict";
import { test } from "node:test";

import { objectOn } from "../../lungseg/ui/component.js";

/** What `objectOn` knows of an element is which one it is. */
function element() {
  return /** @type {Element} */ (/** @type {unknown} */ ({}));
}

function living() {
  return { isClosed: false, close() { this.isClosed = true; } };
}

test("an element keeps its object until the newest call is cleaned up", () => {
  const root = element();
  const first = objectOn(root, living);
  const second = objectOn(root, living);
  assert.equal(first.object, second.object);
  first.release();
  assert.equal(first.object.isClosed, false);
  second.release();
  assert.equal(first.object.isClosed, true);
  const third = objectOn(root, living);
  assert.notEqual(third.object, first.object);
  second.release();
  assert.equal(third.object.isClosed, false);
});
