/** The line that shows how far the uploads of a page are. */

/** @import { Uploads } from "./uploads.js" */

import { make, makeButton, setText } from "../dom.js";

export class ProgressLine {
  /** @param {() => Uploads} uploads */
  constructor(uploads) {
    this.title = make("span", "title");
    this.meter = make("i");
    this.frame = make("span", "meter", "", this.meter);
    this.frame.setAttribute("role", "progressbar");
    this.frame.setAttribute("aria-label", "Upload");
    this.figures = make("span", "figures");
    this.pause = makeButton("pause", "Pause");
    this.pause.addEventListener("click", () => (uploads().isPaused ? uploads().resume() : uploads().pause()));
    const cancel = makeButton("cancel", "Cancel");
    cancel.addEventListener("click", () => uploads().cancel());
    this.root = make("div", "now", "", this.title, this.frame, this.figures, this.pause, cancel);
    this.root.hidden = true;
    this.spoken = make("span", "spoken"); // says what changes, not each figure
    this.spoken.setAttribute("role", "status");
  }

  /** @param {Uploads} uploads */
  show({ current, isPaused, isLost, total, pace, tasks }) {
    this.root.hidden = !current;
    if (!current) {
      setText(this.spoken, tasks.some(({ state }) => state === "arrived") ? "All files have arrived." : "");
      return;
    }
    const number = tasks.filter(({ state }) => state !== "failed").indexOf(current) + 1;
    setText(this.title, total.count > 1 ? `${current.batch.name} (${number} of ${total.count})` : current.batch.name);
    this.title.title = current.batch.name;
    const share = total.size ? total.sent / total.size : 1;
    this.meter.style.width = `${(100 * share).toFixed(1)}%`;
    this.frame.setAttribute("aria-valuenow", `${Math.floor(100 * share)}`);
    const state = stateText(isPaused, isLost);
    setText(this.figures, `${pace.text(total.sent, total.size)}${state && ` · ${state}`}`);
    setText(this.pause, isPaused ? "Go on" : "Pause");
    setText(this.spoken, state || "Uploading");
  }
}

/**
 * @param {boolean} isPaused
 * @param {boolean} isLost
 */
function stateText(isPaused, isLost) {
  if (isPaused) return "paused";
  return isLost ? "no connection, trying again" : "";
}
