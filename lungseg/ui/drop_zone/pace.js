/** How quickly an upload goes, how long it will take, and how that is said. */

const WINDOW_MS = 8000;
const UNITS = ["bytes", "kB", "MB", "GB", "TB"];

export class Pace {
  constructor() {
    /** @type {{ at: number, bytes: number }[]} */
    this.samples = [];
  }

  /**
   * @param {number} bytes sent so far
   * @param {number} at in milliseconds
   */
  note(bytes, at) {
    if (this.samples.length && bytes < this.samples[this.samples.length - 1].bytes) this.samples = [];
    this.samples.push({ at, bytes });
    while (this.samples.length > 2 && at - this.samples[1].at >= WINDOW_MS) this.samples.shift();
  }

  /** Forget what came before a pause. */
  rest() {
    this.samples = [];
  }

  /** Bytes per second over the last seconds; null where too little is known. */
  get rate() {
    const [first, last] = [this.samples[0], this.samples[this.samples.length - 1]];
    if (!first || last.at - first.at < 500 || last.bytes <= first.bytes) return null;
    return (1000 * (last.bytes - first.bytes)) / (last.at - first.at);
  }

  /**
   * Say how far it is: `1.2 of 3.0 GB · 35 MB/s · 51 s left`.
   *
   * @param {number} sent
   * @param {number} size
   */
  text(sent, size) {
    const { rate } = this;
    const parts = [`${sizeText(sent)} of ${sizeText(size)}`];
    if (rate) parts.push(`${sizeText(rate)}/s`, `${timeText((size - sent) / rate)} left`);
    return parts.join(" · ");
  }
}

/** @param {number} bytes */
export function sizeText(bytes) {
  const power = Math.min(UNITS.length - 1, Math.floor(Math.log10(Math.max(1, bytes)) / 3));
  const value = bytes / 1000 ** power;
  return `${value.toFixed(power && value < 100 ? 1 : 0)} ${UNITS[power]}`;
}

/** @param {number} seconds */
export function timeText(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min`;
  return `${(seconds / 3600).toFixed(1)} h`;
}
