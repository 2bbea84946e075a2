// What is written over the planes: orientation letters, slice numbers, place and HU, scale bar, cross.
//
// Elements, not a second canvas: a canvas over the image would be blended with all of it at every slice, which costs a
// software renderer a third of the frame. Each frame is a slider for those who see no picture: its value is the slice.

const LARGE_PX = 420;
const NARROW_PX = 230;
const EDGE_PX = 22;
const BAR_ROOM_PX = 70;
const CROSS_PX = 56;
const BAR_MM = [200, 100, 50, 20, 10, 5, 2];
const CROSS = `<div class="picture"><svg class="cross" width="${CROSS_PX}" height="${CROSS_PX}" viewBox="-28.5 -28.5 56 56" aria-hidden="true">
  <path d="M14 0H26M-14 0H-26M0 14V26M0 -14V-26"/><path d="M14 0H26M-14 0H-26M0 14V26M0 -14V-26"/></svg></div>`;
const FULL = [0, 0, 1, 1];

/**
 * Share a stage of `width` x `height` px out: the axial plane large, the others and 3-D beside it or below, or the pane
 * `enlarged` alone. Returns {planes: [{plane, position, inner}], solid}; `solid` is null where 3-D is not shown.
 */
function panesFor(width, height, enlarged) {
  const one = PLANES.find((plane) => plane.name === enlarged);
  if (one) return { planes: [{ plane: one, position: FULL, inner: FULL }], solid: null };
  const isTall = height > width;
  const side = isTall ? Math.min(0.4, Math.max(0.22, 1 - width / height)) : Math.min(0.36, Math.max(0.24, 1 - height / width));
  const places = [0, 1, 2].map((n) => (isTall ? [n / 3, 1 - side, 1 / 3, side] : [1 - side, n / 3, side, 1 / 3]));
  const large = isTall ? [0, 0, 1, 1 - side] : [0, 0, 1 - side, 1];
  const planes = [large, places[0], places[1]].map((position, at) => (
    { plane: PLANES[at], position, inner: at ? within(position, EDGE_PX / width, EDGE_PX / height) : position }
  ));
  return { planes, solid: enlarged === "solid" ? FULL : places[2] };
}

/** A pane without its edge, where letters and the scale bar stand. */
function within([left, top, width, height], across, along) {
  return [left + across, top + along, Math.max(0.01, width - 2 * across), Math.max(0.01, height - 2 * along)];
}

class Marks {
  constructor(root) {
    this.root = root;
    this.frames = PLANES.map(newFrame); // these stay, hidden or not: an element that is taken out loses the focus
    root.replaceChildren(...this.frames.map(({ box }) => box));
    this.shown = [];
  }

  /** Place the frames of the panes that are on screen; what stays the same until the layout changes is written now. */
  arrange(panes, shape) {
    this.shown = panes.map(({ plane, position: [left, top, width, height] }, number) => {
      const frame = this.frames[PLANES.indexOf(plane)];
      Object.assign(frame.box.style, { left: share(left), top: share(top), width: share(width), height: share(height) });
      const [widthPx, leftPx, topPx] = [width * this.root.clientWidth, left * this.root.clientWidth, top * this.root.clientHeight];
      Object.assign(frame, { widthPx, leftPx, topPx }); // asked of the browser at each draw, these would cost a layout
      frame.isMain = number === 0;
      frame.hasRoom = frame.isMain || widthPx > LARGE_PX;
      frame.box.classList.toggle("narrow", widthPx < NARROW_PX);
      frame.box.classList.toggle("main", frame.isMain);
      frame.count = shape[plane.normal];
      frame.box.ariaValueMax = String(frame.count);
      return frame;
    });
    this.frames.forEach((frame) => { frame.box.hidden = !this.shown.includes(frame); });
  }

  /** Number of the pane whose frame has the focus, or -1. */
  focused(panes) {
    const active = this.root.getRootNode().activeElement;
    return panes.findIndex(({ plane }) => this.frames[PLANES.indexOf(plane)].box === active);
  }

  /** Bring the frames up to date; `view` holds index and look, what lies under the pointer and under the cross. */
  draw(planes, view) {
    const ratio = planes.canvas.width / Math.max(1, this.root.clientWidth);
    const [centre, width] = view.look.window.map(Math.round);
    this.shown.forEach((frame, number) => {
      const { plane } = planes.panes[number];
      const slice = view.index[plane.normal] + 1;
      frame.write("number", `${slice} / ${frame.count}`);
      frame.write("window", frame.hasRoom ? `C ${centre}  W ${width}` : "");
      const place = view.pointer ? view.pointer.pane === number && view.pointer : frame.isMain && view.cross;
      frame.write("hu", place ? `${Math.round(place.hu)} HU` : "");
      frame.write("place", place ? placeText(place.mm) : "");
      frame.box.ariaValueNow = String(slice);
      frame.box.ariaValueText = `${slice} of ${frame.count}`;
      this.placeBar(frame, planes.pixelsPerMm(number) / ratio);
      this.placeCross(frame, planes, number, view.index, ratio);
    });
  }

  placeBar(frame, pixelsPerMm) {
    const { widthPx } = frame;
    const roomPx = Math.min(widthPx * 0.3, widthPx / 2 - BAR_ROOM_PX); // beside the letter in the middle
    const lengthMm = BAR_MM.find((mm) => mm * pixelsPerMm <= roomPx) ?? BAR_MM.at(-1);
    frame.parts.bar.style.setProperty("--length", px(lengthMm * pixelsPerMm));
    frame.write("bar", lengthMm >= 10 ? `${lengthMm / 10} cm` : `${lengthMm} mm`);
  }

  /** Show the cross where it lies on the picture; what of it lies beside the picture is cut off. */
  placeCross({ parts, leftPx, topPx }, planes, number, index, ratio) {
    const [left, top, width, height] = planes.pictureOf(number).map((n) => n / ratio);
    Object.assign(parts.picture.style, { left: px(left - leftPx), top: px(top - topPx), width: px(width), height: px(height) });
    const middle = index.map((n, axis) => (n + 0.5) / planes.grid.shape[axis]);
    const [x, y] = planes.pointOf(number, middle).map((n) => Math.round(n / ratio) - CROSS_PX / 2);
    parts.cross.style.transform = `translate(${x - left}px, ${y - top}px)`;
  }
}

function newFrame(plane) {
  const box = make("div", "frame");
  box.innerHTML = CROSS;
  const [atLeft, atRight, atTop, atBottom] = plane.letters;
  const texts = {};
  ["number", "window", "hu", "place", "bar"].forEach((name) => { texts[name] = make("span", name); });
  const name = make("span", "name", titled(plane.name));
  box.append(
    make("div", "corner top-left", null, name, texts.number), make("div", "corner top-right", null, texts.window),
    make("b", "at-left", atLeft), make("b", "at-right", atRight), make("b", "at-top", atTop), make("b", "at-bottom", atBottom),
    make("div", "corner bottom-left", null, texts.hu, texts.place), make("div", "corner bottom-right", null, texts.bar),
  );
  Object.assign(box, { tabIndex: 0, role: "slider", ariaLabel: `${titled(plane.name)} slice`, ariaValueMin: "1", ariaOrientation: "vertical" });
  const parts = { ...texts, picture: box.querySelector(".picture"), cross: box.querySelector(".cross") };
  const write = (part, text) => { if (parts[part].textContent !== text) parts[part].textContent = text; };
  return { box, parts, write };
}

function titled(name) {
  return name[0].toUpperCase() + name.slice(1);
}

function share(part) {
  return `${part * 100}%`;
}

function px(length) {
  return `${length}px`;
}

/** Millimetres in RAS+ patient space with the letter of the side they lie on: "L 62.1  P 34.0  I 120.5 mm". */
function placeText(mm, digits = 1) {
  const sides = [["R", "L"], ["A", "P"], ["S", "I"]];
  return `${mm.map((n, axis) => `${sides[axis][n < 0 ? 1 : 0]} ${Math.abs(n).toFixed(digits)}`).join("  ")} mm`;
}

/** What a screen reader is told: once things rest, and then only what has changed. */
class Speech {
  constructor(region) {
    this.region = region;
    this.told = {};
  }

  /** Tell the parts of a state ({name: sentence}) that differ from what was told last. */
  tell(parts) {
    this.parts = parts;
    clearTimeout(this.timer);
    this.timer = setTimeout(() => this.speak(), QUIET_MS);
  }

  speak() {
    const news = Object.entries(this.parts).filter(([name, text]) => this.told[name] !== text).map(([, text]) => text);
    this.told = this.parts;
    if (news.length) this.region.textContent = news.join(" ");
  }

  /** Say something at once, and write it where those who see look for it. */
  say(text, place) {
    this.region.textContent = text;
    place.textContent = text;
  }

  close() {
    clearTimeout(this.timer);
  }
}

const QUIET_MS = 500;
