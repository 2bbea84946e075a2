// What is written over the planes: orientation letters, slice numbers, place and HU, scale bar, crosshair.

const INK = "#c9d3dd";
const FAINT = "rgba(201, 211, 221, 0.55)";
const CROSS = "rgba(232, 236, 140, 0.75)";

class Marks {
  constructor(canvas) {
    this.canvas = canvas;
    this.pen = canvas.getContext("2d");
  }

  /** Draw over `planes`; `view` holds index, look, the pane under the pointer and what lies there. */
  draw(planes, view) {
    const ratio = planes.canvas.width / Math.max(1, this.canvas.clientWidth);
    if (this.canvas.width !== planes.canvas.width || this.canvas.height !== planes.canvas.height) {
      this.canvas.width = planes.canvas.width;
      this.canvas.height = planes.canvas.height;
    }
    this.pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.pen.clearRect(0, 0, this.canvas.width, this.canvas.height);
    this.pen.font = '12px "Source Sans", "Source Sans Pro", system-ui, sans-serif';
    planes.panes.forEach((pane, number) => {
      const [left, top, width, height] = pane.position;
      const frame = [left * this.width, top * this.height, width * this.width, height * this.height];
      this.pen.save();
      this.pen.beginPath();
      this.pen.rect(...frame);
      this.pen.clip();
      this.crosshair(planes, number, view, ratio);
      this.texts(planes, number, view, frame);
      this.scaleBar(planes.pixelsPerMm(number) / ratio, frame);
      this.pen.restore();
      this.pen.strokeStyle = "#1d242c";
      this.pen.strokeRect(frame[0] + 0.5, frame[1] + 0.5, frame[2] - 1, frame[3] - 1);
    });
  }

  get width() {
    return this.canvas.clientWidth;
  }

  get height() {
    return this.canvas.clientHeight;
  }

  crosshair(planes, number, view, ratio) {
    const share = view.index.map((n, axis) => (n + 0.5) / planes.grid.shape[axis]);
    const [x, y] = planes.pointOf(number, share).map((n) => Math.round(n / ratio) + 0.5);
    const gap = 14;
    const reach = 26;
    this.pen.strokeStyle = CROSS;
    this.pen.lineWidth = 1;
    this.pen.beginPath();
    for (const [dx, dy] of [[1, 0], [-1, 0], [0, 1], [0, -1]]) {
      this.pen.moveTo(x + dx * gap, y + dy * gap);
      this.pen.lineTo(x + dx * reach, y + dy * reach);
    }
    this.pen.stroke();
  }

  texts(planes, number, view, [left, top, width, height]) {
    const { plane } = planes.panes[number];
    const count = planes.grid.shape[plane.normal];
    const isLarge = width > 420;
    const name = plane.name[0].toUpperCase() + plane.name.slice(1);
    this.text(left + 8, top + 16, isLarge ? name : name.slice(0, 3), FAINT, "left");
    this.text(left + (isLarge ? 62 : 36), top + 16, `${view.index[plane.normal] + 1} / ${count}`, INK, "left");
    const [toLeft, toRight, toTop, toBottom] = plane.letters;
    this.pen.font = this.pen.font.replace("12px", "13px");
    this.text(left + 7, top + height / 2 + 4, toLeft, INK, "left");
    this.text(left + width - 7, top + height / 2 + 4, toRight, INK, "right");
    this.text(left + width / 2, top + 16, toTop, INK, "center");
    this.text(left + width / 2, top + height - 8, toBottom, INK, "center");
    this.pen.font = this.pen.font.replace("13px", "12px");
    if (isLarge) {
      const [centre, spread] = view.look.window;
      this.text(left + width - 8, top + 16, `C ${Math.round(centre)}  W ${Math.round(spread)}`, FAINT, "right");
    }
    const place = view.pointer?.pane === number ? view.pointer : isLarge && !view.pointer ? view.cross : null;
    if (place) {
      this.text(left + 8, top + height - 24, `${Math.round(place.hu)} HU`, INK, "left");
      this.text(left + 8, top + height - 8, placeText(place.mm), FAINT, "left");
    }
  }

  scaleBar(pixelsPerMm, [left, top, width, height]) {
    const lengthMm = [200, 100, 50, 20, 10, 5].find((mm) => mm * pixelsPerMm <= width * 0.3) ?? 2;
    const right = left + width - 10;
    const base = top + height - 10.5;
    const begin = right - lengthMm * pixelsPerMm;
    this.pen.strokeStyle = INK;
    this.pen.beginPath();
    this.pen.moveTo(begin, base - 4);
    this.pen.lineTo(begin, base);
    this.pen.lineTo(right, base);
    this.pen.lineTo(right, base - 4);
    this.pen.stroke();
    this.text(right, base - 6, lengthMm >= 10 ? `${lengthMm / 10} cm` : `${lengthMm} mm`, FAINT, "right");
  }

  text(x, y, text, colour, align) {
    this.pen.textAlign = align;
    this.pen.lineWidth = 3;
    this.pen.strokeStyle = "rgba(0, 0, 0, 0.75)";
    this.pen.strokeText(text, x, y);
    this.pen.lineWidth = 1;
    this.pen.fillStyle = colour;
    this.pen.fillText(text, x, y);
  }
}

/** Millimetres in RAS+ patient space with the letter of the side they lie on: "L 62.1  P 34.0  I 120.5 mm". */
function placeText(mm, digits = 1) {
  const sides = [["R", "L"], ["A", "P"], ["S", "I"]];
  return `${mm.map((n, axis) => `${sides[axis][n < 0 ? 1 : 0]} ${Math.abs(n).toFixed(digits)}`).join("  ")} mm`;
}
