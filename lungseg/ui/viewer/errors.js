/** Errors whose message is for the reader: what is wrong with the scan or the browser, and what to do. */
export class LoadError extends Error {}

/** The browser can't draw the planes. */
export class NoWebGLError extends LoadError {
  constructor() {
    super("This browser has no WebGL2.");
  }
}

/** The file ended before its voxels did. */
export class EndsEarly extends LoadError {}

/** A load that a newer one has taken the place of. */
export class Superseded extends Error {}

/**
 * The message of whatever was thrown.
 *
 * @param {unknown} thrown
 */
export function messageOf(thrown) {
  return thrown instanceof Error ? thrown.message : String(thrown);
}
