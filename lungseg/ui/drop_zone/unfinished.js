/**
 * What this browser remembers of uploads that have not been taken in: where they are on the server, so that the same files,
 * chosen again after a reload, go on there. It holds no bytes of them.
 */

export const MEMORY = "lungseg.uploads";
const LONGEST_MS = 8 * 24 * 3600 * 1000;

/**
 * @typedef {object} Memo
 * @property {string} key of the batch
 * @property {string} name
 * @property {string} group what the server knows the batch by
 * @property {number} size in bytes
 * @property {string[]} urls of its parcels; empty for those that were not begun
 * @property {string} tab that uploads it, or did so last
 * @property {number} at when that tab said so last, in milliseconds
 */

export class Unfinished {
  /**
   * @param {Storage} storage of all tabs
   * @param {{ id: string, others: Set<string> }} tabs this one, and those that are there besides
   */
  constructor(storage, tabs) {
    this.storage = storage;
    this.tabs = tabs;
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

  /** What no other tab is uploading. */
  get free() {
    return this.list().filter(({ tab }) => !this.tabs.others.has(tab));
  }

  /**
   * Return what is remembered of a batch that no other tab is uploading.
   *
   * @param {string} key
   */
  find(key) {
    return this.free.find((memo) => memo.key === key) ?? null;
  }

  /**
   * Tell whether another tab is uploading a batch.
   *
   * @param {string} key
   */
  isElsewhere(key) {
    return this.list().some((memo) => memo.key === key && this.tabs.others.has(memo.tab));
  }

  /** @param {Omit<Memo, "tab" | "at">} memo */
  keep(memo) {
    const others = this.list().filter(({ group }) => group !== memo.group);
    this.write([...others, { ...memo, tab: this.tabs.id, at: Date.now() }]);
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
