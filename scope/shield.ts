/**
 * Holding cancellation off.
 *
 * @module
 */
import { CancelToken } from "./cancel_token.ts";
import { runUnder } from "./cancellation.ts";

/**
 * Runs a function that no cancellation from around it reaches, for cleanup that takes operations. What was held off is
 * delivered afterwards: `shield` gives the function's value, and the next operation rejects. Deadlines and scopes
 * inside the shield work as ever.
 *
 * @param fn Keep it short: whoever cancels waits for it.
 *
 * @example
 * ```ts
 * import { shield, sleep, timeout } from "@ringscope/ringscope";
 *
 * await timeout(5, async () => {
 *   try {
 *     await sleep(10_000);
 *   } finally {
 *     await shield(() => sleep(1)); // unshielded, it would reject at once
 *   }
 * }).catch((error) => console.log(error.name)); // "TimeoutError"
 * ```
 */
export async function shield<T>(fn: () => T | PromiseLike<T>): Promise<T> {
  if (typeof fn !== "function") throw new TypeError("shield takes a function");
  return await runUnder(new CancelToken(CancelToken.current() ?? null, { shielded: true }), fn);
}
