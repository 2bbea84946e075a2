/** Beside the picture: lesions, findings and provenance. */

/** @import { CaseData, Finding, Layer, Lesion, LesionPlace, Mask, Triple } from "./types.js" */

import { make } from "../dom.js";
import { placeText } from "./geometry.js";

/** @type {{ head: string, title: string | null, text: (lesion: Lesion) => string }[]} */
const COLUMNS = [
  { head: "No.", title: "Number, largest first", text: (lesion) => String(lesion.number) },
  { head: "ml", title: "Volume", text: (lesion) => lesion.volumeMl.toFixed(2) },
  { head: "Probability", title: null, text: (lesion) => lesion.probability?.toFixed(2) ?? "" },
  {
    head: "Size, mm", title: "Extent right-left x anterior-posterior x superior-inferior",
    text: (lesion) => lesion.extentMm.map((mm) => Math.round(mm)).join("×"),
  },
];

/**
 * @param {Triple} colour
 * @returns {string} as style sheets write it
 */
export function css([red, green, blue]) {
  return `rgb(${red * 255}, ${green * 255}, ${blue * 255})`;
}

/**
 * List the lesions of all layers that have a mask, or the reason why there is none.
 *
 * @param {HTMLElement} section
 * @param {Layer[]} layers
 * @param {(place: LesionPlace) => void} onJump
 */
export function showLesions(section, layers, onJump) {
  section.replaceChildren(...layers.filter(({ mask, absence }) => mask || absence).flatMap((layer) => {
    const { key, label, colour, mask, absence } = layer;
    const head = make("h2", `layer of-${key}`, "", make("i"), make("span", "", label), make("small", "", totalOf(mask)));
    head.style.setProperty("--layer", css(colour));
    if (!mask?.lesions.length) return [head, make("p", "note", mask?.statement ?? absence)];
    const remark = mask.remark ? [make("p", "note", mask.remark)] : [];
    return [head, ...remark, lesionTable(layer, mask, onJump)];
  }));
}

/** @param {Mask | null} mask */
function totalOf(mask) {
  const count = mask?.lesions.length ?? 0;
  return mask && count ? `${count} lesion${count === 1 ? "" : "s"} · ${mask.volumeMl.toFixed(2)} ml` : "";
}

/**
 * A table for the keyboard: Tab leads to one of its lesions, arrows to the others, Enter or Space to its place in the scan.
 *
 * @param {Layer} layer
 * @param {Mask} mask
 * @param {(place: LesionPlace) => void} onJump
 */
function lesionTable({ key, listName, colour }, mask, onJump) {
  const columns = COLUMNS.filter(({ title }) => title || mask.lesions.some((lesion) => lesion.probability !== null));
  const heads = columns.map(({ head, title }) => {
    const cell = withRole("th", "columnheader", head);
    Object.assign(cell, { title: title ?? mask.probabilityMeaning, scope: "col" });
    return cell;
  });
  const rows = mask.lesions.map((lesion, at) => lesionRow(lesion, columns, () => onJump({ layer: key, at })));
  rows[0].tabIndex = 0;
  const head = withRole("thead", "rowgroup", "", withRole("tr", "row", "", ...heads));
  const table = withRole("table", "grid", "", head, ...rows);
  table.className = `of-${key}`;
  table.dataset.layer = key;
  table.style.setProperty("--layer", css(colour));
  table.ariaLabel = listName;
  table.addEventListener("keydown", (event) => moveAlong(rows, event));
  table.addEventListener("focusin", ({ target }) => {
    if (rows.some((row) => row === target)) rows.forEach((row) => { row.tabIndex = row === target ? 0 : -1; });
  });
  return table;
}

/**
 * A lesion: one row for a screen reader, two lines for the eye.
 *
 * @param {Lesion} lesion
 * @param {typeof COLUMNS} columns
 * @param {() => void} onChoice
 */
function lesionRow(lesion, columns, onChoice) {
  const slices = `Slices ${lesion.slices[0] + 1}–${lesion.slices[1] + 1}`;
  const place = withRole("td", "gridcell", slices, make("span", "", placeText(lesion.centreMm, 0)));
  place.colSpan = columns.length - 1;
  const row = withRole("tbody", "row", "",
    withRole("tr", "presentation", "", ...columns.map(({ text }) => withRole("td", "gridcell", text(lesion)))),
    withRole("tr", "presentation", "", withRole("td", "presentation"), place));
  Object.assign(row, { title: "Go to this lesion (Enter)", tabIndex: -1 });
  row.addEventListener("click", onChoice);
  row.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    onChoice();
  });
  return row;
}

/**
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {string} role
 * @param {string} [text]
 * @param {...Node} children
 */
function withRole(tag, role, text = "", ...children) {
  const element = make(tag, "", text, ...children);
  element.role = role;
  return element;
}

/**
 * @param {HTMLElement[]} rows
 * @param {KeyboardEvent} event
 */
function moveAlong(rows, event) {
  const current = rows.findIndex((row) => row === event.target);
  /** @type {Record<string, number>} */
  const targets = { ArrowDown: current + 1, ArrowUp: current - 1, Home: 0, End: rows.length - 1 };
  if (current < 0 || !(event.key in targets)) return;
  event.preventDefault();
  rows[Math.max(0, Math.min(rows.length - 1, targets[event.key]))].focus();
}

/**
 * Mark the row of the lesion on show.
 *
 * @param {HTMLElement} section
 * @param {LesionPlace | null} current
 */
export function markCurrent(section, current) {
  for (const table of section.querySelectorAll("table")) {
    [...table.tBodies].forEach((row, at) => {
      const isCurrent = current?.layer === table.dataset.layer && current?.at === at;
      if (row.ariaSelected === String(isCurrent)) return;
      row.ariaSelected = String(isCurrent);
      row.classList.toggle("current", isCurrent);
    });
  }
}

/**
 * Say above all else that the scan was not understood, why, and what to do.
 *
 * @param {HTMLElement} section
 * @param {CaseData} data
 */
export function showAlarm(section, { caution, findings }) {
  const doubts = findings.filter(({ severity }) => severity === "not understood" || severity === "incomplete");
  section.hidden = !caution;
  section.replaceChildren(...(caution ? [make("strong", "", caution), ...doubts.map(findingText)] : []));
}

/**
 * Show warnings in full, and notes, which change nothing, folded; graver findings stand in the alarm.
 *
 * @param {HTMLElement} section
 * @param {Finding[]} findings
 */
export function showFindings(section, findings) {
  const [warnings, notes] = ["warning", "note"].map((severity) => (
    findings.filter((finding) => finding.severity === severity).map(findingText)
  ));
  const summary = make("summary", "", `${notes.length} note${notes.length === 1 ? "" : "s"} on the scan`);
  const shown = [...warnings, ...(notes.length ? [make("details", "", "", summary, ...notes)] : [])];
  section.replaceChildren(...(shown.length ? [make("h2", "", "Quality of the scan"), ...shown] : []));
}

/** @param {Finding} finding */
function findingText({ severity, text, remedy }) {
  return make("p", `finding ${severity.replace(" ", "-")}`, text, ...(remedy ? [make("small", "", remedy)] : []));
}

/**
 * The label of the button that opens the panel, where that is a drawer.
 *
 * @param {CaseData} data
 */
export function panelLabel({ layers, findings }) {
  const count = layers.find(({ mask }) => mask)?.mask?.lesions.length ?? 0;
  const warnings = findings.filter(({ severity }) => severity !== "note").length;
  return `Lesions (${count})${warnings ? `, warnings (${warnings})` : ""}`;
}

/**
 * @param {HTMLElement} section
 * @param {CaseData["provenance"]} rows
 */
export function showProvenance(section, rows) {
  const list = make("dl");
  rows.forEach(([label, value, title, address]) => {
    const content = address ? Object.assign(make("a", "", value), { href: address }) : document.createTextNode(value);
    const entry = make("dd", "", "", content);
    entry.title = title;
    list.append(make("dt", "", label), entry);
  });
  section.replaceChildren(...(rows.length ? [make("h2", "", "Provenance"), list] : []));
}
