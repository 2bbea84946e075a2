import assert from "node:assert/strict";
import { test } from "node:test";

import { keyMapOf, shortcutsFor } from "../../lungseg/ui/viewer/keyboard.js";
import { caseOf, layer } from "./cases.js";

const { windows } = caseOf([]);
const LAYERS = [layer("model"), layer("doubtful", { shortcut: null, shownWith: "model" }), layer("reference"), layer("edit")];
/** @type {Record<string, string>} */
const SHOWN = { ArrowUp: "↑", ArrowDown: "↓", ArrowLeft: "←", ArrowRight: "→", PageUp: "↑", PageDown: "↓", Escape: "Esc" };

test("every key that acts is in the help, in the line that says what it does", () => {
  for (const { shown, keys } of shortcutsFor(LAYERS, windows)) {
    const words = shown.split(/[\s,]+/);
    Object.keys(keys).forEach((key) => assert.ok(words.includes(SHOWN[key] ?? key), `${key} is not in "${shown}"`));
  }
});

test("no key has two meanings", () => {
  const shortcuts = shortcutsFor(LAYERS, windows);
  const keys = shortcuts.flatMap((shortcut) => Object.keys(shortcut.keys));
  assert.equal(new Set(keys).size, keys.length);
  assert.equal(keyMapOf(shortcuts).size, keys.length);
});

test("a layer has its key without a word about it", () => {
  const toggled = /** @type {string[]} */ ([]);
  const commands = /** @type {import("../../lungseg/ui/viewer/keyboard.js").Commands} */ (
    /** @type {unknown} */ ({ toggleLayer: (/** @type {{ key: string }} */ { key }) => toggled.push(key) })
  );
  const keyMap = keyMapOf(shortcutsFor(LAYERS, windows));
  for (const key of ["m", "r", "e"]) keyMap.get(key)?.(commands);
  assert.deepEqual(toggled, ["model", "reference", "edit"]);
  assert.equal(keyMap.get("d"), undefined);
  assert.ok(shortcutsFor(LAYERS, windows).some(({ meaning }) => meaning === "show or hide the edit"));
});
