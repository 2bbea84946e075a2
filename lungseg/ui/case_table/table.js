/** The table of cases. Texts are set as text, never as markup: names of cases are the user's. */

/** @import { ComponentArguments } from "../types.js" */

import { objectOn } from "../component.js";
import { find, focusedBeside, make, makeButton, setText } from "../dom.js";

/**
 * The row of a case: `CaseLine` in `__init__.py`.
 *
 * @typedef {object} Line
 * @property {string} id
 * @property {string} name
 * @property {string} address
 * @property {string} patient
 * @property {string} study
 * @property {string | null} thumbnail
 * @property {string} state
 * @property {string} status
 * @property {string} exact
 * @property {number | null} share
 * @property {string} note
 * @property {boolean} is_warning
 * @property {string} voxels
 * @property {string} spacing
 * @property {string} lesions
 * @property {string} volume
 * @property {string} added
 * @property {string} added_exact
 * @property {string[]} actions
 */
/** @typedef {{ lines: Line[], count: number, page: number, pages: number }} TableData */
/** @typedef {(name: "opened" | "action" | "page" | "patient", value: unknown) => void} Send sends a choice of the reader to the server */

const COLUMNS = /** @type {const} */ ([
  ["picture", ""], ["name", "Case"], ["state", "State"], ["voxels", "Voxels"], ["lesions", "Lesions"],
  ["volume", "Tumour, ml"], ["added", "Added"], ["menu", ""],
]);
/** @type {Record<string, string>} */
const SPOKEN = { picture: "Picture", menu: "Actions" };
/** @type {Record<string, string>} */
const MARKS = { queued: "…", running: "…", failed: "!", cancelled: "–", none: "" };

class Row {
  /**
   * @param {Line} line
   * @param {Send} send
   * @param {(row: Row) => void} onMenu
   */
  constructor(line, send, onMenu) {
    this.line = line;
    this.shown = "";
    this.root = make("tr");
    this.cells = /** @type {Record<typeof COLUMNS[number][0], HTMLTableCellElement>} */ (
      Object.fromEntries(COLUMNS.map(([name]) => [name, make(name === "name" ? "th" : "td", name)]))
    );
    this.root.append(...Object.values(this.cells));
    this.cells.name.scope = "row";
    this.link = make("a");
    this.link.addEventListener("click", (event) => {
      if (event.button || event.ctrlKey || event.metaKey || event.shiftKey) return; // a window of its own
      event.preventDefault();
      send("opened", line.id);
    });
    this.patient = makeButton("patient", "");
    this.patient.addEventListener("click", () => send("patient", this.line.patient));
    this.study = make("span");
    this.examination = make("small", "examination", "", this.patient, this.study);
    this.cells.name.append(this.link, this.examination);
    this.status = make("span", "status");
    this.meter = make("i");
    this.meterFrame = make("span", "meter", "", this.meter);
    this.note = make("p", "note");
    this.cells.state.append(make("div", "first", "", this.meterFrame, this.status), this.note);
    this.voxels = make("span");
    this.spacing = make("small");
    this.cells.voxels.append(this.voxels, this.spacing);
    this.button = makeButton("actions", "⋯");
    this.button.setAttribute("aria-haspopup", "menu");
    this.button.setAttribute("aria-expanded", "false");
    this.button.addEventListener("click", () => onMenu(this));
    this.cells.menu.append(this.button);
  }

  /** @param {Line} line */
  show(line) {
    const content = JSON.stringify(line);
    if (content === this.shown) return;
    this.shown = content;
    this.line = line;
    setText(this.link, line.name);
    Object.assign(this.link, { href: line.address, title: line.name });
    this.showExamination(line);
    this.showPicture(line);
    this.root.dataset.state = line.state;
    this.meterFrame.hidden = line.share === null;
    this.meter.style.width = `${Math.round(100 * (line.share ?? 0))}%`;
    setText(this.status, line.status);
    this.status.title = line.exact;
    setText(this.note, line.note ? `${line.is_warning ? "⚠ " : ""}${line.note}` : "");
    Object.assign(this.note, { title: line.note, hidden: !line.note });
    this.note.classList.toggle("warning", line.is_warning);
    setText(this.voxels, line.voxels);
    setText(this.spacing, line.spacing);
    setText(this.cells.lesions, line.lesions);
    setText(this.cells.volume, line.volume);
    setText(this.cells.added, line.added);
    this.cells.added.title = line.added_exact;
    this.button.setAttribute("aria-label", `Actions for ${line.name}`);
  }

  /** @param {Line} line */
  showExamination({ patient, study }) {
    this.examination.hidden = !patient && !study;
    this.patient.hidden = !patient;
    setText(this.patient, patient);
    this.patient.title = `Show the scans of ${patient} alone, or all again`;
    setText(this.study, patient && study ? ` · ${study}` : study);
  }

  /** @param {Line} line */
  showPicture({ thumbnail, state }) {
    const cell = this.cells.picture;
    if (thumbnail) {
      const image = cell.querySelector("img") ?? Object.assign(make("img", "thumb"), { alt: "" });
      if (image.getAttribute("src") !== thumbnail) image.src = thumbnail;
      if (!image.parentNode) cell.replaceChildren(image);
      return;
    }
    const blank = make("div", `thumb ${state}`, MARKS[state] ?? "");
    blank.setAttribute("aria-hidden", "true");
    cell.replaceChildren(blank);
  }
}

class Menu {
  /**
   * @param {Element} root
   * @param {Send} send
   */
  constructor(root, send) {
    this.send = send;
    /** @type {Row | null} */
    this.row = null;
    this.root = make("div", "menu");
    this.root.setAttribute("role", "menu");
    this.root.hidden = true;
    root.append(this.root);
    this.root.addEventListener("keydown", (event) => this.onKey(event));
    this.root.addEventListener("focusout", ({ relatedTarget: next }) => {
      if (!(next instanceof Node && this.root.contains(next)) && next !== this.row?.button) this.close(false);
    });
    this.listening = new AbortController();
    window.addEventListener("scroll", () => this.close(false), { capture: true, signal: this.listening.signal });
  }

  /** @param {Row} row */
  toggle(row) {
    const wasOpen = this.row === row;
    this.close(false);
    if (wasOpen) return;
    this.row = row;
    const { line, button } = row;
    this.root.setAttribute("aria-label", `Actions for ${line.name}`);
    this.root.replaceChildren(...line.actions.map((what) => this.item(what, line.id)));
    button.setAttribute("aria-expanded", "true");
    const box = button.getBoundingClientRect();
    this.root.hidden = false;
    const isAbove = box.bottom + this.root.offsetHeight + 4 > window.innerHeight;
    this.root.style.top = `${isAbove ? box.top - this.root.offsetHeight - 2 : box.bottom + 2}px`;
    this.root.style.right = `${document.documentElement.clientWidth - box.right}px`;
    this.root.querySelector("button")?.focus();
  }

  /**
   * @param {string} what
   * @param {string} id
   */
  item(what, id) {
    const item = makeButton(what === "Delete" ? "danger" : "", what);
    item.setAttribute("role", "menuitem");
    item.tabIndex = -1;
    item.addEventListener("click", () => {
      this.close(true);
      this.send("action", { what, id });
    });
    return item;
  }

  /** @param {boolean} returnsFocus whether the focus goes back to the button */
  close(returnsFocus) {
    if (!this.row) return;
    const { button } = this.row;
    this.row = null;
    this.root.hidden = true;
    button.setAttribute("aria-expanded", "false");
    if (returnsFocus) button.focus();
  }

  /** @param {KeyboardEvent} event */
  onKey(event) {
    const items = [...this.root.querySelectorAll("button")];
    const { length } = items;
    const current = items.findIndex((item) => item === focusedBeside(this.root));
    /** @type {Record<string, number>} */
    const targets = { ArrowDown: (current + 1) % length, ArrowUp: (current - 1 + length) % length, Home: 0, End: length - 1 };
    if (event.key in targets) items[targets[event.key]].focus();
    else if (event.key === "Escape" || event.key === "Tab") this.close(true);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }
}

/** The buttons that turn pages: the same above and below the table. */
class Pager {
  /** @param {Send} send */
  constructor(send) {
    this.send = send;
    this.shown = "";
    this.root = make("nav", "pager");
  }

  /**
   * @param {number} page
   * @param {number} pages
   * @param {string} place
   */
  show(page, pages, place) {
    this.root.hidden = pages < 2;
    this.root.setAttribute("aria-label", `Pages of cases, ${place} the table`);
    const content = `${page}/${pages}`;
    if (content === this.shown) return;
    this.shown = content;
    /** @type {(number: number, text: string, label: string) => HTMLButtonElement} */
    const buttonTo = (number, text, label) => {
      const button = makeButton("", text);
      button.disabled = number < 1 || number > pages;
      button.setAttribute("aria-label", label);
      if (number === page) button.setAttribute("aria-current", "page");
      button.addEventListener("click", () => this.send("page", number));
      return button;
    };
    const near = [...Array(pages).keys()].map((n) => n + 1)
      .filter((n) => n === 1 || n === pages || Math.abs(n - page) <= 2);
    const numbers = near.flatMap((n, i) => {
      const button = buttonTo(n, `${n}`, `Page ${n}`);
      return i && n - near[i - 1] > 1 ? [make("span", "gap", "…"), button] : [button];
    });
    this.root.replaceChildren(buttonTo(page - 1, "‹", "Previous page"), ...numbers, buttonTo(page + 1, "›", "Next page"));
  }
}

class Table {
  /**
   * @param {Element} root
   * @param {Send} send of this run of the page; each has its own
   */
  constructor(root, send) {
    this.send = send;
    /** @type {Send} */
    this.sendNow = (name, value) => this.send(name, value);
    /** @type {Map<string, Row>} */
    this.rows = new Map();
    this.above = new Pager(this.sendNow);
    this.below = new Pager(this.sendNow);
    this.caption = make("caption", "spoken");
    this.body = make("tbody");
    const titles = COLUMNS.map(([name, title]) => {
      const cell = make("th", name, "", make("span", title ? "" : "spoken", title || SPOKEN[name]));
      cell.scope = "col";
      return cell;
    });
    const head = make("thead", "", "", make("tr", "", "", ...titles));
    this.title = find(head, ".name span", HTMLElement);
    root.replaceChildren(this.above.root, make("table", "", "", this.caption, head, this.body), this.below.root);
    this.menu = new Menu(root, this.sendNow);
  }

  /** @param {TableData} data */
  show({ lines, count, page, pages }) {
    setText(this.title, `Cases · ${count}`);
    setText(this.caption, pages > 1 ? `Cases, page ${page} of ${pages}` : "Cases");
    this.above.show(page, pages, "above");
    this.below.show(page, pages, "below");
    const ids = new Set(lines.map((line) => line.id));
    for (const [id, row] of this.rows) {
      if (ids.has(id)) continue;
      if (this.menu.row === row) this.menu.close(false);
      row.root.remove();
      this.rows.delete(id);
    }
    lines.forEach((line, place) => {
      const row = this.rows.get(line.id) ?? new Row(line, this.sendNow, (clicked) => this.menu.toggle(clicked));
      this.rows.set(line.id, row);
      row.show(line);
      if (this.body.children[place] !== row.root) this.body.insertBefore(row.root, this.body.children[place] ?? null);
    });
  }

  close() {
    this.menu.listening.abort();
  }
}

/** @param {ComponentArguments<TableData>} component of each run of the page, always with the same element */
export default function show({ data, parentElement, setTriggerValue }) {
  const root = find(parentElement, ".cases", Element);
  const { object, release } = objectOn(root, () => new Table(root, setTriggerValue));
  object.send = setTriggerValue;
  object.show(data);
  return release;
}
