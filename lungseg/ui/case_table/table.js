/** The table of cases. Texts are set as text, never as markup: names of cases are the user's. */

const COLUMNS = [
  ["picture", ""], ["name", "Case"], ["state", "State"], ["voxels", "Voxels"], ["lesions", "Lesions"],
  ["volume", "Tumour, ml"], ["added", "Added"], ["menu", ""],
];
const SPOKEN = { picture: "Picture", menu: "Actions" };
const MARKS = { queued: "…", running: "…", failed: "!", cancelled: "–", none: "" };

function make(tag, className, text = "") {
  const node = document.createElement(tag);
  if (className) node.className = className;
  if (text) node.textContent = text;
  return node;
}

function put(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

class Row {
  constructor(table, line) {
    this.root = make("tr");
    this.cells = {};
    for (const [name] of COLUMNS) {
      this.cells[name] = make(name === "name" ? "th" : "td", name);
      this.root.append(this.cells[name]);
    }
    this.cells.name.scope = "row";
    this.link = make("a");
    this.link.addEventListener("click", (event) => {
      if (event.button || event.ctrlKey || event.metaKey || event.shiftKey) return; // a window of its own
      event.preventDefault();
      table.tell("opened", line.id);
    });
    this.cells.name.append(this.link);
    this.said = make("span", "said");
    this.meter = make("i");
    this.meterFrame = make("span", "meter");
    this.meterFrame.append(this.meter);
    this.note = make("p", "note");
    const first = make("div", "first");
    first.append(this.meterFrame, this.said);
    this.cells.state.append(first, this.note);
    this.voxels = make("span");
    this.spacing = make("small");
    this.cells.voxels.append(this.voxels, this.spacing);
    this.button = make("button", "actions", "⋯");
    this.button.type = "button";
    this.button.setAttribute("aria-haspopup", "menu");
    this.button.setAttribute("aria-expanded", "false");
    this.button.addEventListener("click", () => table.menu.toggle(this));
    this.cells.menu.append(this.button);
  }

  show(line) {
    const key = JSON.stringify(line);
    if (key === this.key) return;
    this.key = key;
    this.line = line;
    put(this.link, line.name);
    this.link.href = line.address;
    this.link.title = line.name;
    this.picture(line);
    this.root.dataset.state = line.state;
    this.meterFrame.hidden = line.share === null;
    this.meter.style.width = `${Math.round(100 * (line.share ?? 0))}%`;
    put(this.said, line.said);
    this.said.title = line.exact;
    put(this.note, line.note ? `${line.is_warning ? "⚠ " : ""}${line.note}` : "");
    this.note.title = line.note;
    this.note.hidden = !line.note;
    this.note.classList.toggle("warning", line.is_warning);
    put(this.voxels, line.voxels);
    put(this.spacing, line.spacing);
    put(this.cells.lesions, line.lesions);
    put(this.cells.volume, line.volume);
    put(this.cells.added, line.added);
    this.cells.added.title = line.added_exact;
    this.button.setAttribute("aria-label", `Actions for ${line.name}`);
  }

  picture({ thumbnail, state }) {
    const cell = this.cells.picture;
    if (thumbnail) {
      const known = cell.querySelector("img");
      const image = known ?? make("img", "thumb");
      image.alt = "";
      if (image.getAttribute("src") !== thumbnail) image.src = thumbnail;
      if (!known) cell.replaceChildren(image);
      return;
    }
    const blank = make("div", `thumb ${state}`, MARKS[state] ?? "");
    blank.setAttribute("aria-hidden", "true");
    cell.replaceChildren(blank);
  }
}

class Menu {
  constructor(table, root) {
    this.table = table;
    this.root = make("div", "menu");
    this.root.setAttribute("role", "menu");
    this.root.hidden = true;
    root.append(this.root);
    this.root.addEventListener("keydown", (event) => this.key(event));
    this.root.addEventListener("focusout", (event) => {
      if (!this.root.contains(event.relatedTarget) && event.relatedTarget !== this.row?.button) this.close(false);
    });
    this.onScroll = () => this.close(false);
    window.addEventListener("scroll", this.onScroll, true);
  }

  toggle(row) {
    const wasOpen = this.row === row;
    this.close(false);
    if (wasOpen) return;
    this.row = row;
    const { line, button } = row;
    this.root.setAttribute("aria-label", `Actions for ${line.name}`);
    this.root.replaceChildren(...line.actions.map((what) => {
      const item = make("button", what === "Delete" ? "danger" : "", what);
      item.type = "button";
      item.setAttribute("role", "menuitem");
      item.tabIndex = -1;
      item.addEventListener("click", () => {
        this.close(true);
        this.table.tell("action", { what, id: line.id });
      });
      return item;
    }));
    button.setAttribute("aria-expanded", "true");
    const box = button.getBoundingClientRect();
    this.root.hidden = false;
    const above = box.bottom + this.root.offsetHeight + 4 > window.innerHeight;
    this.root.style.top = `${above ? box.top - this.root.offsetHeight - 2 : box.bottom + 2}px`;
    this.root.style.right = `${document.documentElement.clientWidth - box.right}px`;
    this.root.firstChild.focus();
  }

  close(giveBack) {
    if (!this.row) return;
    const { button } = this.row;
    this.row = null;
    this.root.hidden = true;
    button.setAttribute("aria-expanded", "false");
    if (giveBack) button.focus();
  }

  key(event) {
    const items = [...this.root.children];
    const at = items.indexOf(this.root.getRootNode().activeElement);
    const next = {
      ArrowDown: (at + 1) % items.length,
      ArrowUp: (at - 1 + items.length) % items.length,
      Home: 0,
      End: items.length - 1,
    }[event.key];
    if (next !== undefined) items[next].focus();
    else if (event.key === "Escape" || event.key === "Tab") this.close(true);
    else return;
    event.preventDefault();
    event.stopPropagation();
  }

  end() {
    window.removeEventListener("scroll", this.onScroll, true);
  }
}

/** Turning pages: the same above and below the table. */
class Pager {
  constructor(table) {
    this.table = table;
    this.root = make("nav", "pager");
  }

  show(page, pages, place) {
    this.root.hidden = pages < 2;
    this.root.setAttribute("aria-label", `Pages of cases, ${place} the table`);
    const key = `${page}/${pages}`;
    if (key === this.key) return;
    this.key = key;
    const to = (number, text, label) => {
      const button = make("button", "", text);
      button.type = "button";
      button.disabled = number < 1 || number > pages;
      button.setAttribute("aria-label", label);
      if (number === page) button.setAttribute("aria-current", "page");
      button.addEventListener("click", () => this.table.tell("page", number));
      return button;
    };
    const near = [...Array(pages).keys()].map((n) => n + 1)
      .filter((n) => n === 1 || n === pages || Math.abs(n - page) <= 2);
    const numbers = near.flatMap((n, i) => {
      const button = to(n, `${n}`, `Page ${n}`);
      return i && n - near[i - 1] > 1 ? [make("span", "gap", "…"), button] : [button];
    });
    this.root.replaceChildren(to(page - 1, "‹", "Page before"), ...numbers, to(page + 1, "›", "Next page"));
  }
}

class Table {
  constructor(root) {
    this.rows = new Map();
    this.above = new Pager(this);
    this.below = new Pager(this);
    this.table = make("table");
    this.caption = make("caption", "spoken");
    const head = make("thead");
    const titles = make("tr");
    for (const [name, title] of COLUMNS) {
      const cell = make("th", name);
      cell.scope = "col";
      cell.append(make("span", title ? "" : "spoken", title || SPOKEN[name]));
      if (name === "name") this.title = cell.firstChild;
      titles.append(cell);
    }
    head.append(titles);
    this.body = make("tbody");
    this.table.append(this.caption, head, this.body);
    root.append(this.above.root, this.table, this.below.root);
    this.menu = new Menu(this, root);
  }

  show({ lines, count, page, pages }) {
    put(this.title, `Cases · ${count}`);
    put(this.caption, pages > 1 ? `Cases, page ${page} of ${pages}` : "Cases");
    this.above.show(page, pages, "above");
    this.below.show(page, pages, "below");
    const wanted = new Set(lines.map((line) => line.id));
    for (const [id, row] of this.rows) {
      if (wanted.has(id)) continue;
      if (this.menu.row === row) this.menu.close(false);
      row.root.remove();
      this.rows.delete(id);
    }
    lines.forEach((line, place) => {
      const row = this.rows.get(line.id) ?? new Row(this, line);
      this.rows.set(line.id, row);
      row.show(line);
      if (this.body.children[place] !== row.root) this.body.insertBefore(row.root, this.body.children[place] ?? null);
    });
  }
}

export default function show({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector(".cases");
  root.lungseg ??= new Table(root);
  root.lungseg.tell = setTriggerValue;
  root.lungseg.show(data);
  return () => root.lungseg.menu.end();
}
