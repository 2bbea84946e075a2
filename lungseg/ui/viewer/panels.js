// Beside the image: the strip along the slices, the list of lesions, findings and provenance.

/** The strip: one row a slice, superior on top; the model's mask in the left half, the reference in the right. */
class Strip {
  constructor(canvas, onSlice) {
    this.canvas = canvas;
    canvas.ariaValueMin = "1";
    this.pen = canvas.getContext("2d");
    const follow = (event) => this.depth && onSlice(this.sliceAt(event.offsetY));
    canvas.addEventListener("pointerdown", (event) => { canvas.setPointerCapture(event.pointerId); follow(event); });
    canvas.addEventListener("pointermove", (event) => event.buttons === 1 && follow(event));
  }

  sliceAt(y) {
    const k = this.depth - 1 - Math.floor((y / this.canvas.clientHeight) * this.depth);
    return Math.max(0, Math.min(this.depth - 1, k));
  }

  draw(depth, current, masks, colours) {
    this.depth = depth;
    Object.assign(this.canvas, { ariaValueMax: String(depth), ariaValueNow: String(current + 1), ariaValueText: `${current + 1} of ${depth}` });
    const { clientWidth: width, clientHeight: height } = this.canvas;
    const ratio = window.devicePixelRatio;
    if (this.canvas.width !== Math.round(width * ratio) || this.canvas.height !== Math.round(height * ratio)) {
      this.canvas.width = Math.round(width * ratio);
      this.canvas.height = Math.round(height * ratio);
    }
    this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.pen.clearRect(0, 0, width, height);
    const row = height / depth;
    ["model", "reference"].forEach((kind, half) => {
      const counts = masks[kind]?.sliceVoxels ?? [];
      const most = counts.reduce((a, b) => Math.max(a, b), 1);
      counts.forEach((count, k) => {
        if (!count) return;
        const share = 0.35 + 0.65 * Math.sqrt(count / most);
        this.pen.fillStyle = css(colours[kind]);
        const half0 = half ? width / 2 + 0.5 : width / 2 - 0.5 - (width / 2 - 2) * share;
        this.pen.fillRect(half0, height - (k + 1) * row, (width / 2 - 2) * share, Math.max(1, row));
      });
    });
    const y = Math.round(height - (current + 0.5) * row) + 0.5;
    this.pen.strokeStyle = "#f2f5f8";
    this.pen.beginPath();
    this.pen.moveTo(0, y);
    this.pen.lineTo(width, y);
    this.pen.stroke();
  }
}

function css([red, green, blue]) {
  return `rgb(${red * 255}, ${green * 255}, ${blue * 255})`;
}

/** Make an element; text is set as text, never as HTML. */
function make(tag, className, text, ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text !== undefined && text !== null) element.textContent = text;
  element.append(...children);
  return element;
}

function showLesions(section, masks, note, onJump) {
  section.replaceChildren();
  for (const [kind, title] of [["model", "Model"], ["doubtful", "Doubtful"], ["reference", "Reference"]]) {
    const mask = masks[kind];
    if (!mask && kind !== "model") continue;
    const total = mask?.lesions.length ? lesionTotal(mask) : "";
    section.append(make("h2", `of-${kind}`, null, make("i"), make("span", "", title), make("small", "", total)));
    if (!mask) section.append(make("p", "note", note));
    else if (!mask.lesions.length) section.append(make("p", "note", mask.statement));
    else if (kind === "doubtful") section.append(make("p", "note", mask.statement), lesionTable(kind, "Doubtful lesions", mask, onJump));
    else section.append(lesionTable(kind, `Lesions: ${title.toLowerCase()}`, mask, onJump));
  }
}

function lesionTotal(mask) {
  const count = mask.lesions.length;
  return `${count} lesion${count === 1 ? "" : "s"} · ${mask.volumeMl.toFixed(2)} ml`;
}

const LESION_COLUMNS = [
  ["No.", "Number, largest first", (lesion) => lesion.number],
  ["ml", "Volume", (lesion) => lesion.volumeMl.toFixed(2)],
  ["Probability", null, (lesion) => lesion.probability?.toFixed(2)],
  ["Size, mm", "Extent right-left x anterior-posterior x superior-inferior",
    (lesion) => lesion.extentMm.map((mm) => Math.round(mm)).join("×")],
];

/** A grid for the keyboard: Tab leads to one of its lesions, arrows to the others, Enter or Space to the place in the scan. */
function lesionTable(kind, label, mask, onJump) {
  const columns = LESION_COLUMNS.filter(([, title]) => title || mask.lesions.some((lesion) => lesion.probability !== null));
  const heads = columns.map(([head, title]) => {
    const cell = make("th", "", head);
    Object.assign(cell, { title: title ?? mask.probabilityMeaning, role: "columnheader", scope: "col" });
    return cell;
  });
  const rows = mask.lesions.map((lesion, at) => lesionRow(lesion, columns, () => onJump(kind, at)));
  if (rows.length) rows[0].tabIndex = 0;
  const head = withRole("thead", "rowgroup", withRole("tr", "row", ...heads));
  const table = make("table", `of-${kind}`, null, head, ...rows);
  Object.assign(table, { role: "grid", ariaLabel: label });
  table.addEventListener("keydown", (event) => moveAlong(rows, event));
  table.addEventListener("focusin", ({ target }) => {
    if (rows.includes(target)) rows.forEach((row) => { row.tabIndex = row === target ? 0 : -1; });
  });
  return table;
}

/** A lesion: one row for a screen reader, two lines for the eye. */
function lesionRow(lesion, columns, onClick) {
  const place = withRole("td", "gridcell", `Slices ${lesion.slices[0] + 1}–${lesion.slices[1] + 1}`, make("span", "", placeText(lesion.centreMm, 0)));
  place.colSpan = columns.length - 1;
  const row = withRole("tbody", "row",
    withRole("tr", "presentation", ...columns.map(([, , text]) => withRole("td", "gridcell", String(text(lesion) ?? "")))),
    withRole("tr", "presentation", withRole("td", "presentation"), place));
  Object.assign(row, { title: "Go to this lesion (Enter)", tabIndex: -1 });
  row.addEventListener("click", onClick);
  row.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" && event.key !== " ") return;
    event.preventDefault();
    onClick();
  });
  return row;
}

function withRole(tag, role, ...children) {
  const element = make(tag, "", null, ...children);
  element.role = role;
  return element;
}

function moveAlong(rows, event) {
  const at = rows.indexOf(event.target);
  const places = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: rows.length - 1 };
  if (at < 0 || !(event.key in places)) return;
  event.preventDefault();
  rows[Math.max(0, Math.min(rows.length - 1, places[event.key]))].focus();
}

/** Mark the rows of the lesion on show. */
function markCurrent(root, current) {
  for (const kind of ["model", "doubtful", "reference"]) {
    root.querySelectorAll(`table.of-${kind} tbody`).forEach((row, at) => {
      const isCurrent = current?.kind === kind && current.at === at;
      if (row.ariaSelected === String(isCurrent)) return;
      row.ariaSelected = String(isCurrent);
      row.classList.toggle("current", isCurrent);
    });
  }
}

/** The slider of the threshold: place `at` of the choices, most sensitive first, and what is known of it. */
function showOperation(section, operation, at) {
  section.hidden = !operation;
  if (!operation) return;
  const { choices, reason } = operation;
  const slider = section.querySelector("input");
  Object.assign(slider, { max: choices.length - 1, value: at, disabled: Boolean(reason) });
  slider.ariaValueText = `${choices[at].threshold}. ${choices[at].expected}`;
  section.querySelector("output").textContent = choices[at].threshold;
  section.querySelector("p").textContent = reason || choices[at].expected;
  const reset = section.querySelector("button");
  reset.hidden = Boolean(reason) || at === operation.default;
  reset.textContent = `Back to the checkpoint's ${choices[operation.default].threshold}`;
}

/** Above all else: that the scan was not understood, why, and what to do. */
function showAlarm(section, caution, findings) {
  const doubts = findings.filter(({ severity }) => severity === "not understood" || severity === "incomplete");
  section.hidden = !caution;
  section.replaceChildren(...(caution ? [make("strong", "", caution), ...doubts.map(findingText)] : []));
}

/** Warnings in full; notes, which change nothing, folded. What the scan was not understood by stands in the alarm. */
function showFindings(section, findings) {
  const of = (severity) => findings.filter((finding) => finding.severity === severity).map(findingText);
  const [warnings, notes] = ["warning", "note"].map(of);
  const folded = make("details", "", null, make("summary", "", `${notes.length} note${notes.length === 1 ? "" : "s"} on the scan`), ...notes);
  const shown = [...warnings, ...(notes.length ? [folded] : [])];
  section.replaceChildren(...(shown.length ? [make("h2", "", "Quality of the scan"), ...shown] : []));
}

function findingText({ severity, text, remedy }) {
  return make("p", `finding ${severity.replace(" ", "-")}`, text, ...(remedy ? [make("small", "", remedy)] : []));
}

/** What the button says that opens the panel, where that is a drawer. */
function panelLabel({ masks, findings }) {
  const count = masks.model?.lesions.length ?? masks.reference?.lesions.length ?? 0;
  const warnings = findings.filter(({ severity }) => severity !== "note").length;
  return `Lesions (${count})${warnings ? `, warnings (${warnings})` : ""}`;
}

function showProvenance(section, rows) {
  const list = make("dl");
  rows.forEach(([label, value, title, address]) => {
    const shown = make("dd", "", address ? null : value);
    shown.title = title;
    if (address) {
      const link = make("a", "", value);
      link.href = address;
      shown.append(link);
    }
    list.append(make("dt", "", label), shown);
  });
  section.replaceChildren(...(rows.length ? [make("h2", "", "Provenance"), list] : []));
}

const KEYS = [
  ["wheel  ↑ ↓", "one slice of the pane under the pointer, or of the one that has the focus"],
  ["Page ↑ ↓", "ten slices; Home, End: first and last"],
  ["Tab", "next pane, then the controls"],
  ["click, drag", "move the cross, the other planes follow"],
  ["w + drag, right drag", "window: across width, up and down centre"],
  ["1  2  3", "lung, mediastinum, bone"],
  ["m  r", "model's mask, reference mask"],
  ["c", "contours only"],
  ["n  p", "next, previous lesion"],
  ["double click, f", "enlarge a pane, and back"],
  ["Ctrl + wheel, + -", "zoom"],
  ["Shift + drag", "move the picture"],
  ["0", "undo zoom and enlarging"],
  ["one finger", "up and down: slices; a tap moves the cross"],
  ["two fingers", "zoom, and move the picture"],
  ["?  Esc", "this list"],
];

function fillHelp(list) {
  KEYS.forEach(([keys, meaning]) => list.append(make("dt", "", keys), make("dd", "", meaning)));
}
