/**
 * One object per element of a component. Streamlit calls a component's script with the same element at every run of the
 * page, and may call the clean-up of an earlier call after a later one has begun: only the newest one closes the object.
 */

/** @type {WeakMap<Element, { object: { close(): void }, calls: number }>} */
const lives = new WeakMap();

/**
 * Return the object of an element, made by `create` where there is none, and the function that closes it.
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
