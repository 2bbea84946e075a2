/** Makes elements. Text is set as text, never as HTML: names of cases and findings come from outside. */

/**
 * Make an element with a class, a text and children.
 *
 * @template {keyof HTMLElementTagNameMap} Tag
 * @param {Tag} tag
 * @param {string} [className]
 * @param {string | null} [text]
 * @param {...Node} children
 * @returns {HTMLElementTagNameMap[Tag]}
 */
export function make(tag, className = "", text = "", ...children) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  if (text) element.textContent = text;
  element.append(...children);
  return element;
}

/**
 * Make a button that submits nothing.
 *
 * @param {string} className
 * @param {string} text
 * @param {...Node} children
 */
export function makeButton(className, text, ...children) {
  const button = make("button", className, text, ...children);
  button.type = "button";
  return button;
}

/**
 * Set the text of an element where it differs: an unchanged one costs no layout.
 *
 * @param {Element} element
 * @param {string} text
 */
export function setText(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/**
 * Find an element of the component's own markup, of the class given.
 *
 * @template {Element} Kind
 * @param {ParentNode} root
 * @param {string} selector
 * @param {new () => Kind} kind
 * @returns {Kind}
 */
export function find(root, selector, kind) {
  const element = root.querySelector(selector);
  if (!(element instanceof kind)) throw new Error(`The markup has no ${selector}.`);
  return element;
}

/**
 * The element that has the focus among those beside `element`: in its shadow root or document.
 *
 * @param {Element} element
 */
export function focusedBeside(element) {
  const root = element.getRootNode();
  return root instanceof Document || root instanceof ShadowRoot ? root.activeElement : null;
}
