/**
 * The turn of a wheel or trackpad in notches: a notch of a wheel is one, whatever browser and system send for it.
 *
 * Chrome sends 100 or 120 px per notch, divided by its zoom; Firefox sends three lines per notch; a trackpad sends many
 * small amounts, and SMOOTH_PX of them make a notch. On macOS Chrome sends multiples of MAC_PX for a wheel only, at any speed.
 */

const PIXELS = 0; // WheelEvent.DOM_DELTA_PIXEL
const LINES = 1; // WheelEvent.DOM_DELTA_LINE
const LINES_PER_NOTCH = 3;
const NOTCH_UNITS = 120;
const NOTCH_PX = [120, 100];
const USUAL_PX = 110;
const LEAST_PX = { counted: 30, other: 50 };
const MOST_PX = 135;
const MAC_PX = 4.000244140625;
const SMOOTH_PX = 100;
const STREAM_MS = 200;

/** @typedef {Pick<WheelEvent, "deltaY" | "deltaMode" | "timeStamp"> & { wheelDeltaY?: number }} Turn */

export class Wheel {
  constructor() {
    this.rest = 0;
    this.streamEnds = -Infinity;
  }

  /**
   * Whole notches that an event adds, downward positive; parts of a notch wait for the next one.
   *
   * @param {Turn} event
   */
  notches(event) {
    const { turned, isWhole } = this.read(event);
    if (isWhole) return turned;
    if (Math.sign(this.rest) !== Math.sign(turned)) this.rest = 0;
    this.rest += turned;
    const whole = Math.trunc(this.rest + Math.sign(turned) * 1e-6);
    this.rest -= whole;
    return whole;
  }

  /**
   * The factor by which an event with Ctrl, or a pinch on a trackpad, zooms.
   *
   * @param {Turn} event
   */
  zoom(event) {
    const { turned, isWhole } = this.read(event);
    return isWhole ? 1.15 ** -turned : Math.exp(-turned);
  }

  /**
   * @param {Turn} event
   * @returns {{ turned: number, isWhole: boolean }}
   */
  read(event) {
    const size = Math.abs(event.deltaY);
    const sign = Math.sign(event.deltaY);
    if (!size) return { turned: 0, isWhole: false };
    if (event.deltaMode !== PIXELS) {
      const count = size / (event.deltaMode === LINES ? LINES_PER_NOTCH : 1);
      const isWhole = size >= 1;
      return { turned: sign * (isWhole ? Math.max(1, Math.round(count)) : count), isWhole };
    }
    if (size % MAC_PX === 0) return { turned: sign, isWhole: true };
    const units = Math.abs(event.wheelDeltaY ?? 0) / NOTCH_UNITS;
    const counted = Number.isInteger(units) && units > 0 ? units : 0;
    const isInStream = event.timeStamp < this.streamEnds;
    if (!isInStream && size >= (counted ? LEAST_PX.counted : LEAST_PX.other)) {
      return { turned: sign * notchesIn(size, counted), isWhole: true };
    }
    this.streamEnds = event.timeStamp + STREAM_MS;
    return { turned: (sign * size) / SMOOTH_PX, isWhole: false };
  }
}

/**
 * Notches in `size` px; `counted` is the browser's number, which holds where it is plausible.
 *
 * @param {number} size
 * @param {number} counted
 */
function notchesIn(size, counted) {
  if (counted && size / counted >= LEAST_PX.counted && size / counted <= MOST_PX) return counted;
  const exact = NOTCH_PX.find((px) => size % px === 0);
  return Math.max(1, Math.round(size / (exact ?? USUAL_PX)));
}
