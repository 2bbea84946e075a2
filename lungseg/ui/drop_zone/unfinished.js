/**
 * What this browser remembers of uploads that have not been taken in: where they are on the server, so that the same files,
 * chosen again after a reload, go on there. It holds no bytes of them.
 */

const MEMORY = "lungseg.uploads";
const ALIVE_MS = 15_000;
const LONGEST_MS = 8 * 24 * 3600 * 1000;

/**
 * @typedef {object} Memo
 * @property {string} key of the batch
 * @property {string} name
 * @property {string} group what the server knows the batch by
 * @property {number} size in bytes
 * @property {string[]} urls of its parcels; empty for those that were not begun
 * @property {string} tab that uploads it
 * @property {number} at when that tab said so last, in milliseconds
 */

export class Unfinished {
  /**
   * @param {Storage} storage of all tabs
   * @param {string} tab
   */
  constructor(storage, tab) {
    this.storage = storage;
    this.tab = tab;
  }

  /** @returns {Memo[]} */
  list() {
    try {
      const memos = JSON.parse(this.storage.getItem(MEMORY) ?? "[]");
      return memos.filter((/** @type {Memo} */ memo) => Date.now() - memo.at < LONGEST_MS);
    } catch {
      return [];
    }
  }

  /**
   * Return what is remembered of a batch that no other tab is uploading now.
   *
   * @param {string} key
   */
  find(key) {
    return this.list().find((memo) => memo.key === key && !this.isElsewhere(memo)) ?? null;
  }

  /** @param {Memo} memo */
  isElsewhere(memo) {
    return memo.tab !== this.tab && Date.now() - memo.at < ALIVE_MS;
  }

  /** @param {Omit<Memo, "tab" | "at">} memo */
  keep(memo) {
    const others = this.list().filter(({ group }) => group !== memo.group);
    this.write([...others, { ...memo, tab: this.tab, at: Date.now() }]);
  }

  /** @param {string} group */
  forget(group) {
    this.write(this.list().filter((memo) => memo.group !== group));
  }

  /** @param {Memo[]} memos */
  write(memos) {
    try {
      if (memos.length) this.storage.setItem(MEMORY, JSON.stringify(memos));
      else this.storage.removeItem(MEMORY);
    } catch {
      // full or forbidden: the upload goes on, but not after a reload
    }
  }
}
