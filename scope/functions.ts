/**
 * The functions that `race` and `all` take.
 *
 * @module
 */

/** Checks them all before any is started. */
export function functionsOf(caller: string, fns: Iterable<() => unknown>): (() => unknown)[] {
  if (typeof fns !== "object" || fns === null || !(Symbol.iterator in fns)) {
    throw new TypeError(`${caller} takes an array of functions`);
  }
  const list = [...fns];
  list.forEach((fn, i) => {
    if (typeof fn === "function") return;
    throw new TypeError(
      `${caller} takes functions, and element ${i} is none: a promise already runs and can't be cancelled. ` +
        "Write () => promise's call instead.",
    );
  });
  return list;
}
