// What is written over the planes: orientation letters, slice numbers, place and HU, scale bar, cross.
//
// Elements, not a second canvas: a canvas over the image would be blended with all of it at every slice, which costs a
// software renderer a third of the frame.

const LARGE_PX = 420;
const CROSS_PX = 56;
const BAR_MM = [200, 100, 50, 20, 10, 5, 2];
const CROSS = `<svg class="cross" width="${CROSS_PX}" height="${CROSS_PX}" viewBox="-28.5 -28.5 56 56">
  <path d="M14 0H26M-14 0H-26M0 14V26M0 -14V-26"/><path d="M14 0H26M-14 0H-26M0 14V26M0 -14V-26"/></svg>`;

class Marks {
  constructor(root) {
    this.root = root;
    this.frames = [];
  }

  /** Make a frame for each pane; what stays the same until the layout changes is written now. */
  arrange(panes) {
    this.frames = panes.map(({ plane, position: [left, top, width, height] }) => {
      const frame = make("div", "frame");
      Object.assign(frame.style, { left: share(left), top: share(top), width: share(width), height: share(height) });
      frame.innerHTML = CROSS;
      frame.isLarge = width * this.root.clientWidth > LARGE_PX;
      const name = plane.name[0].toUpperCase() + plane.name.slice(1);
      const [atLeft, atRight, atTop, atBottom] = plane.letters;
      frame.append(
        make("span", "name", frame.isLarge ? name : name.slice(0, 3)), make("span", "number"), make("span", "window"),
        make("b", "at-left", atLeft), make("b", "at-right", atRight), make("b", "at-top", atTop), make("b", "at-bottom", atBottom),
        make("span", "hu"), make("span", "place"), make("span", "bar"),
      );
      return frame;
    });
    this.root.replaceChildren(...this.frames);
  }

  /** Bring the frames up to date; `view` holds index, look, the pane under the pointer and what lies there. */
  draw(planes, view) {
    const ratio = planes.canvas.width / Math.max(1, this.root.clientWidth);
    this.frames.forEach((frame, number) => {
      const { plane } = planes.panes[number];
      const write = (name, text) => {
        const element = frame.querySelector(`.${name}`);
        if (element.textContent !== text) element.textContent = text;
      };
      write("number", `${view.index[plane.normal] + 1} / ${planes.grid.shape[plane.normal]}`);
      const [centre, width] = view.look.window;
      write("window", frame.isLarge ? `C ${Math.round(centre)}  W ${Math.round(width)}` : "");
      const place = view.pointer ? view.pointer.pane === number && view.pointer : frame.isLarge && view.cross;
      write("hu", place ? `${Math.round(place.hu)} HU` : "");
      write("place", place ? placeText(place.mm) : "");
      this.placeBar(frame, planes.pixelsPerMm(number) / ratio, write);
      this.placeCross(frame, planes, number, view.index, ratio);
    });
  }

  placeBar(frame, pixelsPerMm, write) {
    const lengthMm = BAR_MM.find((mm) => mm * pixelsPerMm <= frame.clientWidth * 0.3) ?? BAR_MM.at(-1);
    frame.querySelector(".bar").style.width = `${lengthMm * pixelsPerMm}px`;
    write("bar", lengthMm >= 10 ? `${lengthMm / 10} cm` : `${lengthMm} mm`);
  }

  placeCross(frame, planes, number, index, ratio) {
    const middle = index.map((n, axis) => (n + 0.5) / planes.grid.shape[axis]);
    const [x, y] = planes.pointOf(number, middle).map((n) => Math.round(n / ratio) - CROSS_PX / 2);
    frame.querySelector(".cross").style.transform = `translate(${x - frame.offsetLeft}px, ${y - frame.offsetTop}px)`;
  }
}

function share(part) {
  return `${part * 100}%`;
}

/** Millimetres in RAS+ patient space with the letter of the side they lie on: "L 62.1  P 34.0  I 120.5 mm". */
function placeText(mm, digits = 1) {
  const sides = [["R", "L"], ["A", "P"], ["S", "I"]];
  return `${mm.map((n, axis) => `${sides[axis][n < 0 ? 1 : 0]} ${Math.abs(n).toFixed(digits)}`).join("  ")} mm`;
}
