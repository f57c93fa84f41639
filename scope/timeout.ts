/**
 * Deadlines.
 *
 * @module
 */
import { CancelToken } from "./cancel_token.ts";
import {
  type CancelOptions,
  isCancellation,
  joinSignal,
  reportedReason,
  requireMilliseconds,
  runUnder,
  stoppingSignal,
} from "./cancellation.ts";
import { type Alarm, clock } from "./clock.ts";

/** Options of {@linkcode timeout}. */
export interface TimeoutOptions extends CancelOptions {
  /**
   * Milliseconds that the function has after the deadline to come to its end before it is cut off; `Infinity` never
   * cuts it off. Default: none.
   */
  grace?: number;
}

/**
 * Runs a function under a deadline. When it passes, every operation inside is cancelled; `timeout` settles when the
 * function has. A value beats a deadline that passes too late; nested deadlines report the outermost that has passed.
 *
 * @param ms Milliseconds; fractions count, `Infinity` is no deadline.
 * @param fn Operations inside it, at any depth, are under the deadline.
 * @param options `signal` joins a signal from outside.
 * @returns What `fn` returns.
 * @throws {DOMException} Named "TimeoutError", when the deadline has passed and `fn` lets that pass.
 * @throws {RangeError} If `ms` or `grace` is negative or NaN.
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
export function timeout<T>(ms: number, fn: () => T | PromiseLike<T>, options?: CancelOptions): Promise<T>;
/**
 * Runs a function under a deadline with a grace period. When the deadline passes the function is told so, by the signal
 * it gets and by `Scope.stopping` inside it; when the grace has passed as well, every operation inside is cancelled. A
 * value that it comes to before that is a value. What it throws is thrown: the signal's reason is the `TimeoutError`.
 *
 * @param ms Milliseconds; fractions count, `Infinity` is no deadline.
 * @param fn Gets a signal that aborts when the deadline passes, or with a cancel from around it.
 * @param options `grace`, in milliseconds; `signal` joins a signal from outside.
 *
 * @example
 * ```ts
 * import { sleep, timeout } from "@ringscope/ringscope";
 *
 * const pages = await timeout(5, async (stopping) => {
 *   const pages: number[] = [];
 *   for (let page = 0; !stopping.aborted; page++) {
 *     await sleep(2); // a page that was begun is finished
 *     pages.push(page);
 *   }
 *   return pages;
 * }, { grace: 1000 });
 * console.log(pages.length > 0); // true
 * ```
 */
export function timeout<T>(
  ms: number,
  fn: (stopping: AbortSignal) => T | PromiseLike<T>,
  options: TimeoutOptions & { grace: number },
): Promise<T>;
export async function timeout<T>(
  ms: number,
  fn: (stopping: AbortSignal) => T | PromiseLike<T>,
  options: TimeoutOptions = {},
): Promise<T> {
  const { grace = 0, signal } = options;
  requireMilliseconds("ms", ms);
  requireMilliseconds("grace", grace);
  if (typeof fn !== "function") throw new TypeError("timeout takes a function: what already runs can't be cancelled");
  const token = new CancelToken(CancelToken.current() ?? null);
  let overdue: DOMException | undefined;
  token.deadlineReason = () => overdue ??= new DOMException(`Timed out after ${ms} ms`, "TimeoutError");
  const run = options.grace === undefined ? fn as () => T | PromiseLike<T> : () => fn(stoppingSignal(token));
  const alarms: Alarm[] = [];
  let leaveSignal: (() => void) | undefined;
  try {
    try {
      leaveSignal = joinSignal(token, signal);
      const end = ms + grace;
      if (end < Infinity) {
        token.deadline = clock().now() + end;
        alarms.push(
          clock().set(end, () => {
            if (!token.cancelled) token.cancel(token.deadlineReason!());
          }),
        );
      }
      if (grace > 0 && ms < Infinity) alarms.push(clock().set(ms, () => token.stop(token.deadlineReason!())));
      return await runUnder(token, run);
    } finally {
      for (const alarm of alarms) await alarm.stop();
      leaveSignal?.();
      token.release();
    }
  } catch (error) {
    const reason = isCancellation(error, token) ? reportedReason(token) : error;
    // It was made on the event loop; from here its stack leads to the caller.
    if (overdue !== undefined && reason === overdue) Error.captureStackTrace(overdue, timeout);
    throw reason;
  }
}
