/**
 * The functions that `race`, `any`, `all` and `settled` take, and how many of them run at a time.
 *
 * @module
 */
import type { CancelToken } from "./cancel_token.ts";
import { shown } from "./cancellation.ts";

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
        "Write () => f() in place of f().",
    );
  });
  return list;
}

/** Checks the `concurrency` of functions that are all there. */
export function requireConcurrency(concurrency: number): void {
  if (concurrency === Infinity || Number.isInteger(concurrency) && concurrency >= 1) return;
  throw new RangeError(`concurrency must be an integer of 1 or more, or Infinity: ${shown(concurrency)}`);
}

/**
 * Runs the functions numbered 0 to `count - 1` in order, some at a time, until the token is cancelled. Without a bound
 * they are all started, in a cancelled scope too.
 */
export async function inLanes(
  count: number,
  concurrency: number,
  token: CancelToken,
  runOne: (i: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const runNext = async () => {
    while (next < count && !token.cancelled) await runOne(next++);
  };
  const lanes = Math.min(concurrency, count);
  await Promise.all(Array.from({ length: lanes }, concurrency === Infinity ? (_, i) => runOne(i) : runNext));
}
