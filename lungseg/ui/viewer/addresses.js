/**
 * The whole address of a path on the server. The page knows where the server's addresses begin (`web/page.py`), so that a
 * proxy may put the server below a path of its own.
 *
 * @param {string} path begins with a slash
 * @returns {string}
 */
export function absolute(path) {
  const { __streamlit: page } = /** @type {{ __streamlit?: { BACKEND_BASE_URL: string } }} */ (window);
  return new URL(path.replace(/^\//, ""), page?.BACKEND_BASE_URL ?? window.location.origin).href;
}
