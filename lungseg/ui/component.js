/**
 * One object for each element of a component. Streamlit calls a component's script at every run of the page with the same
 * element, and may call the clean-up of an earlier call after a later one has begun: only the newest one ends the object.
 */

/** @type {WeakMap<Element, { object: { close(): void }, calls: number }>} */
const lives = new WeakMap();

/**
 * Give the object that lives on an element, made by `create` where there is none, and what ends it.
 *
 * @template {{ close(): void }} Kind
 * @param {Element} element
 * @param {() => Kind} create
 * @returns {{ object: Kind, release: () => void }}
 */
export function objectOn(element, create) {
  const life = lives.get(element) ?? { object: create(), calls: 0 };
  lives.set(element, life);
  life.calls += 1;
  const call = life.calls;
  const release = () => {
    if (lives.get(element) !== life || life.calls !== call) return;
    lives.delete(element);
    life.object.close();
  };
  return { object: /** @type {Kind} */ (life.object), release };
}
