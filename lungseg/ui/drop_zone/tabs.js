/**
 * The tabs of this browser that show a drop zone: each has an id of its own, and hears which others are there.
 *
 * They talk over a BroadcastChannel, which a duplicated tab does not share by accident as it does a session's storage, and
 * which, unlike the browser's locks, is also there where a page comes by plain HTTP from another machine.
 */

const CHANNEL = "lungseg.tabs";
const ANSWERS_MS = 500;

/** @typedef {{ id: string, says: "who" | "here" | "gone" }} Word */

export class Tabs {
  /** @param {string} id */
  constructor(id) {
    this.id = id;
    /** @type {Set<string>} ids of the others, as far as they have been heard */
    this.others = new Set();
    this.answers = this.others;
    /** @type {() => void} called when another tab has come or gone */
    this.onChange = () => {};
    this.channel = new BroadcastChannel(CHANNEL);
    this.channel.addEventListener("message", ({ data }) => this.hear(data));
  }

  /** @param {Word} word of another tab */
  hear({ id, says }) {
    for (const ids of [this.others, this.answers]) {
      if (says === "gone") ids.delete(id);
      else ids.add(id);
    }
    if (says === "who") this.say("here");
    this.onChange();
  }

  /** @param {Word["says"]} says */
  say(says) {
    this.channel.postMessage({ id: this.id, says });
  }

  /**
   * Ask which others are there: ends when they have had time to answer. One that has crashed does not, and no longer counts.
   * An answer that comes late is heard all the same.
   */
  async call() {
    this.answers = new Set();
    this.say("who");
    await new Promise((resolve) => { setTimeout(resolve, ANSWERS_MS); });
    this.others = this.answers;
  }

  close() {
    this.say("gone");
    this.channel.close();
  }
}
