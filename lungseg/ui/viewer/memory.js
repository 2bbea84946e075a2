// Where the reader left a case: it lasts as long as the tab, so that another page or a reload loses nothing. An address
// may name slice, window and lesion (`?case=..&slice=92&window=40,400&lesion=model-2`), for a link that others open.

const LINKED = ["slice", "window", "lesion"];

class Memory {
  constructor(caseId) {
    this.key = `lungseg-viewer-${caseId}`;
    const asked = new URLSearchParams(window.location.search);
    this.link = LINKED.map((name) => asked.get(name) ?? "").join("|");
    const navigation = performance.getEntriesByType("navigation")[0];
    const isFresh = !window.lungsegWasOpened && navigation?.type === "navigate";
    window.lungsegWasOpened = true;
    this.state = this.read();
    this.isLinked = asked.get("case") === caseId && LINKED.some((name) => asked.has(name))
      && (isFresh || !this.state?.links?.includes(this.link));
    this.asked = Object.fromEntries(LINKED.map((name) => [name, asked.get(name)]));
  }

  read() {
    try {
      return JSON.parse(window.sessionStorage.getItem(this.key));
    } catch {
      return null; // storage is switched off, or holds what is not ours
    }
  }

  /** Note a state soon; of many in a row the last one is written. */
  keep(state) {
    this.waiting = { ...this.waiting, ...state };
    this.timer ??= window.setTimeout(() => this.write(), 250);
  }

  write() {
    window.clearTimeout(this.timer);
    this.timer = null;
    if (!this.waiting) return;
    const links = [...new Set([...(this.state?.links ?? []), this.link])];
    this.state = { ...this.state, ...this.waiting, links };
    this.waiting = null;
    try {
      window.sessionStorage.setItem(this.key, JSON.stringify(this.state));
    } catch {
      // what can't be kept is lost at the next page, as it would be without storage
    }
  }
}

/** The window that an address asks for ("40,400"), or null. */
function linkedWindow(text) {
  const numbers = (text ?? "").split(",").map(Number);
  return numbers.length === 2 && numbers.every(Number.isFinite) && numbers[1] >= 1 ? numbers : null;
}

/** The lesion that an address asks for ("model-2", "reference-1" or "2"), or null. */
function linkedLesion(text, masks) {
  const match = /^(?:(model|doubtful|reference)-)?([0-9]+)$/.exec(text ?? "");
  if (!match) return null;
  const kind = match[1] ?? "model";
  const at = masks[kind]?.lesions.findIndex((lesion) => lesion.number === Number(match[2])) ?? -1;
  return at < 0 ? null : { kind, at };
}

/** An address of what is on screen. */
function linkTo(caseId, index, [centre, width], lesion) {
  const address = new URL(window.location.pathname, window.location.origin);
  const parts = { case: caseId, slice: index[2] + 1, window: `${Math.round(centre)},${Math.round(width)}` };
  if (lesion) parts.lesion = lesion;
  address.search = Object.entries(parts).map(([name, value]) => `${name}=${value}`).join("&");
  return address.href;
}

async function copyText(text) {
  if (navigator.clipboard) return navigator.clipboard.writeText(text);
  const field = make("textarea", "", text); // no clipboard without https, other than on this machine
  document.body.append(field);
  field.select();
  const isCopied = document.execCommand("copy");
  field.remove();
  if (!isCopied) throw new Error("the browser allows no copying");
  return null;
}
