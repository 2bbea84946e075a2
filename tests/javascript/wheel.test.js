import assert from "node:assert/strict";
import { test } from "node:test";

import { Wheel } from "../../lungseg/ui/viewer/wheel.js";

/**
 * @param {number[]} deltas
 * @param {Partial<import("../../lungseg/ui/viewer/wheel.js").Turn>} [more]
 */
function notchesOf(deltas, more = {}, wheel = new Wheel()) {
  return deltas.reduce((sum, deltaY, at) => sum + wheel.notches({ deltaY, deltaMode: 0, timeStamp: 1000 + 16 * at, ...more }), 0);
}

test("a notch of any wheel is one", () => {
  for (const px of [100, 120, 53, 66.67, 133.33, 4.000244140625]) assert.equal(notchesOf([px]), 1, `${px} px`);
  assert.equal(notchesOf([-120]), -1);
  assert.equal(notchesOf([480]), 4);
  assert.equal(notchesOf([360], { wheelDeltaY: -360 }), 3);
  for (const [lines, notches] of [[3, 1], [1, 1], [9, 3], [-3, -1]]) assert.equal(notchesOf([lines], { deltaMode: 1 }), notches);
  assert.equal(notchesOf([1], { deltaMode: 2 }), 1);
});

test("a trackpad gathers small amounts, the large ones in its stream too", () => {
  assert.equal(notchesOf(Array(24).fill(4)), 0);
  assert.equal(notchesOf(Array(25).fill(4)), 1);
  assert.equal(notchesOf([5, 20, 55, 60, 40, 15, 5]), 2);
  assert.equal(notchesOf([4, 4, -4, -4]), 0);
});

test("turning the other way begins anew", () => {
  const wheel = new Wheel();
  assert.equal(notchesOf([40, 45], {}, wheel), 0);
  assert.equal(notchesOf([-20], {}, wheel), 0);
  assert.equal(notchesOf([40, 45], {}, wheel), 0);
});

test("nothing turned is nothing", () => {
  assert.equal(notchesOf([0, 0, 0]), 0);
  assert.equal(new Wheel().zoom({ deltaY: 0, deltaMode: 0, timeStamp: 0 }), 1);
});

test("a notch with Ctrl zooms in upward, and back", () => {
  const wheel = new Wheel();
  const zoomed = wheel.zoom({ deltaY: -100, deltaMode: 0, timeStamp: 0 });
  assert.equal(zoomed, 1.15);
  assert.ok(Math.abs(zoomed * wheel.zoom({ deltaY: 100, deltaMode: 0, timeStamp: 1000 }) - 1) < 1e-12);
});
