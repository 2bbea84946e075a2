/** An error with a message for the reader: what is wrong with the scan or the browser, and what to do. */
export class LoadError extends Error {}

/** The browser can't draw the planes. */
export class NoWebGLError extends LoadError {
  constructor() {
    super("This browser has no WebGL2.");
  }
}

/** The file ended before its voxels did. */
export class EndsEarly extends LoadError {}

/** A load that a newer one has replaced. */
export class Superseded extends Error {}

/** @param {unknown} thrown */
export function messageOf(thrown) {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
