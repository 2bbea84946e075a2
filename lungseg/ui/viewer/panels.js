// Beside the image: the strip along the slices, the list of lesions, findings and provenance.

/** The strip: one row a slice, superior on top; the model's mask in the left half, the reference in the right. */
class Strip {
  constructor(canvas, onSlice) {
    this.canvas = canvas;
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
  for (const [kind, title] of [["model", "Model"], ["reference", "Reference"]]) {
    const mask = masks[kind];
    if (!mask && kind === "reference") continue;
    const total = mask?.lesions.length ? lesionTotal(mask) : "";
    section.append(make("h2", `of-${kind}`, null, make("i"), make("span", "", title), make("small", "", total)));
    if (!mask) section.append(make("p", "note", note));
    else if (!mask.lesions.length) section.append(make("p", "note", mask.statement));
    else section.append(lesionTable(kind, mask, onJump));
  }
}

function lesionTotal(mask) {
  const count = mask.lesions.length;
  return `${count} lesion${count === 1 ? "" : "s"} · ${mask.volumeMl.toFixed(2)} ml`;
}

function lesionTable(kind, mask, onJump) {
  const columns = LESION_COLUMNS.filter(([head]) => head !== "p" || mask.lesions.some((lesion) => lesion.probability !== null));
  const heads = columns.map(([head, title]) => {
    const cell = make("th", "", head);
    cell.title = title ?? mask.probabilityMeaning;
    return cell;
  });
  const rows = mask.lesions.map((lesion, at) => lesionRows(lesion, columns, () => onJump(kind, at)));
  return make("table", `of-${kind}`, null, make("thead", "", null, make("tr", "", null, ...heads)), ...rows);
}

const LESION_COLUMNS = [
  ["", "Number, largest first", (lesion) => lesion.number],
  ["ml", "Volume", (lesion) => lesion.volumeMl.toFixed(2)],
  ["p", null, (lesion) => lesion.probability?.toFixed(2)],
  ["mm", "Extent right-left x anterior-posterior x superior-inferior",
    (lesion) => lesion.extentMm.map((mm) => Math.round(mm)).join("×")],
  ["slices", "First and last axial slice", (lesion) => `${lesion.slices[0] + 1}–${lesion.slices[1] + 1}`],
];

function lesionRows(lesion, columns, onClick) {
  const place = make("td", "", placeText(lesion.centreMm, 0));
  place.colSpan = columns.length - 1;
  const rows = make("tbody", "", null,
    make("tr", "", null, ...columns.map(([, , text]) => make("td", "", text(lesion)))),
    make("tr", "", null, make("td"), place));
  rows.title = "Go to this lesion";
  rows.tabIndex = 0;
  rows.addEventListener("click", onClick);
  rows.addEventListener("keydown", (event) => event.key === "Enter" && onClick());
  return rows;
}

/** The slider of the threshold: place `at` of the choices, most sensitive first, and what is known of it. */
function showOperation(section, operation, at) {
  section.hidden = !operation;
  if (!operation) return;
  const { choices, reason } = operation;
  const slider = section.querySelector("input");
  Object.assign(slider, { max: choices.length - 1, value: at, disabled: Boolean(reason) });
  section.querySelector("output").textContent = choices[at].threshold;
  section.querySelector("p").textContent = reason || choices[at].expected;
}

function showFindings(section, findings) {
  section.replaceChildren(...findings.map(({ severity, text }) => make("p", `finding ${severity.replace(" ", "-")}`, text)));
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
  ["wheel  ↑ ↓", "slice of the pane under the pointer"],
  ["Page ↑ ↓", "ten slices"],
  ["click, drag", "move the cross, the other planes follow"],
  ["w + drag, right drag", "window: across width, up and down centre"],
  ["1  2  3", "lung, mediastinum, bone"],
  ["m  r", "model's mask, reference mask"],
  ["c", "contours only"],
  ["n  p", "next, previous lesion"],
  ["double click, f", "enlarge a pane, and back"],
  ["Ctrl + wheel", "zoom"],
  ["Shift + drag", "move the picture"],
  ["0", "undo zoom and enlarging"],
  ["?", "this list"],
];

function fillHelp(box) {
  const list = make("dl");
  KEYS.forEach(([keys, meaning]) => list.append(make("dt", "", keys), make("dd", "", meaning)));
  box.replaceChildren(make("h2", "", "Keys"), list);
}
