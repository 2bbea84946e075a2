/** The keys: one list of what they do, which is the help too. */

/** @import { Layer, WindowPreset } from "./types.js" */

/**
 * The commands of keys.
 *
 * @typedef {object} Commands
 * @property {(by: number) => void} step by slices of the active pane; infinite for the first or last slice
 * @property {(preset: WindowPreset) => void} setWindow
 * @property {(layer: Layer) => void} toggleLayer
 * @property {() => void} toggleContours
 * @property {(by: 1 | -1) => void} nextLesion
 * @property {(factor: number) => void} zoom
 * @property {() => void} holdWindow a drag changes the window until the key is released
 * @property {() => void} enlarge
 * @property {() => void} reset
 * @property {() => void} toggleHelp
 * @property {() => void} closeAll help and panel
 */
/** @typedef {(commands: Commands) => void} Act */
/**
 * A line of the help. `keys` have the names of browsers; a line on mouse or fingers has none.
 *
 * @typedef {{ shown: string, meaning: string, keys: Record<string, Act> }} Shortcut
 */

export const NARROWER = 1 / 1.15;
export const WIDER = 1.15;
export const HOLDS_WINDOW = "w";

/**
 * @param {Layer[]} layers
 * @param {WindowPreset[]} windows
 * @returns {Shortcut[]}
 */
export function shortcutsFor(layers, windows) {
  return [
    {
      shown: "wheel  ↑ ↓ → ←", meaning: "one slice of the pane under the pointer or with the focus",
      keys: { ArrowUp: step(1), ArrowRight: step(1), ArrowDown: step(-1), ArrowLeft: step(-1) },
    },
    { shown: "Page ↑ ↓", meaning: "ten slices", keys: { PageUp: step(10), PageDown: step(-10) } },
    { shown: "Home  End", meaning: "first, last slice", keys: { Home: step(-Infinity), End: step(Infinity) } },
    { shown: "Tab", meaning: "next pane, then the controls", keys: {} },
    { shown: "click, drag", meaning: "move the cross; the other planes follow", keys: {} },
    {
      shown: "w + drag, right drag", meaning: "window: width across, centre up and down",
      keys: { [HOLDS_WINDOW]: (commands) => commands.holdWindow() },
    },
    {
      shown: windows.map(({ shortcut }) => shortcut).join("  "), meaning: windows.map(({ name }) => name).join(", "),
      keys: Object.fromEntries(windows.map((preset) => [preset.shortcut, (commands) => commands.setWindow(preset)])),
    },
    ...layers.flatMap((layer) => (layer.shortcut === null ? [] : [{
      shown: layer.shortcut, meaning: `show or hide ${layer.name}`,
      keys: { [layer.shortcut]: (/** @type {Commands} */ commands) => commands.toggleLayer(layer) },
    }])),
    { shown: "c", meaning: "contours only", keys: { c: (commands) => commands.toggleContours() } },
    {
      shown: "n  p", meaning: "next, previous lesion",
      keys: { n: (commands) => commands.nextLesion(1), p: (commands) => commands.nextLesion(-1) },
    },
    { shown: "double click, f", meaning: "enlarge a pane, or show all again", keys: { f: (commands) => commands.enlarge() } },
    {
      shown: "Ctrl + wheel, + -", meaning: "zoom",
      keys: { "+": (commands) => commands.zoom(WIDER), "-": (commands) => commands.zoom(NARROWER) },
    },
    { shown: "Shift + drag", meaning: "move the picture", keys: {} },
    { shown: "0", meaning: "undo zoom and enlarging", keys: { 0: (commands) => commands.reset() } },
    { shown: "one finger", meaning: "up and down: slices; a tap moves the cross", keys: {} },
    { shown: "two fingers", meaning: "zoom, and move the picture", keys: {} },
    { shown: "?", meaning: "this list", keys: { "?": (commands) => commands.toggleHelp() } },
    { shown: "Esc", meaning: "close this list", keys: { Escape: (commands) => commands.closeAll() } },
  ];
}

/**
 * @param {Shortcut[]} shortcuts
 * @returns {Map<string, Act>}
 */
export function keyMapOf(shortcuts) {
  return new Map(shortcuts.flatMap(({ keys }) => Object.entries(keys)));
}

/**
 * @param {number} by
 * @returns {Act}
 */
function step(by) {
  return (commands) => commands.step(by);
}
