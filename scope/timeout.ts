/**
 * Deadlines.
 *
 * @module
 */
import { CancelToken } from "./cancel_token.ts";
import { type CancelOptions, isCancellation, joinSignal, reportedReason, runUnder } from "./cancellation.ts";
import { clock } from "./clock.ts";

/**
 * Runs a function under a deadline. When it passes, every operation inside is cancelled; `timeout` settles when the
 * function has. A value beats a deadline that passes too late; nested deadlines report the outermost that has passed.
 *
 * @param ms Milliseconds; fractions count, `Infinity` is no deadline.
 * @param fn Operations inside it, at any depth, are under the deadline.
 * @param options `signal` joins a signal from outside.
 * @returns What `fn` returns.
 * @throws {DOMException} Named "TimeoutError", when the deadline has passed and `fn` lets that pass.
 * @throws {RangeError} If `ms` is negative or NaN.
 *
 * @example
 * ```ts
 * import { sleep, timeout } from "@ringscope/ringscope";
 *
 * try {
 *   await timeout(5, () => sleep(10_000));
 * } catch (error) {
 *   console.log((error as Error).message); // "Timed out after 5 ms"
 * }
 * ```
 */
export async function timeout<T>(ms: number, fn: () => T | PromiseLike<T>, options: CancelOptions = {}): Promise<T> {
  if (typeof ms !== "number") throw new TypeError(`ms must be a number of milliseconds, not ${typeof ms}`);
  if (!(ms >= 0)) throw new RangeError(`ms must not be negative, nor NaN: ${ms}`);
  if (typeof fn !== "function") throw new TypeError("timeout takes a function: what already runs can't be cancelled");
  const token = new CancelToken(CancelToken.current() ?? null);
  let overdue: DOMException | undefined;
  token.deadlineReason = () => overdue = new DOMException(`Timed out after ${ms} ms`, "TimeoutError");
  try {
    const leaveSignal = joinSignal(token, options.signal);
    try {
      if (ms === Infinity) return await runUnder(token, fn);
      token.deadline = clock().now() + ms;
      const alarm = clock().set(ms, () => {
        if (!token.cancelled) token.cancel(token.deadlineReason!());
      });
      try {
        return await runUnder(token, fn);
      } finally {
        await alarm.stop();
      }
    } finally {
      leaveSignal();
      token.release();
    }
  } catch (error) {
    if (!isCancellation(error, token)) throw error;
    const reason = reportedReason(token);
    // It was made on the event loop; from here its stack leads to the caller.
    if (reason === overdue) Error.captureStackTrace(overdue!, timeout);
    throw reason;
  }
}
