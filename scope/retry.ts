/**
 * Trying again.
 *
 * @module
 */
import { CancelToken } from "./cancel_token.ts";
import { type CancelOptions, isStop, requireMilliseconds, runUnder, shown } from "./cancellation.ts";
import { clock } from "./clock.ts";
import { timeout } from "./timeout.ts";
import { admit, Waiter } from "./waiter.ts";

/** How long {@linkcode retry} pauses between attempts. */
export interface Backoff {
  /** Milliseconds of the first pause. Default: 100. */
  initial?: number;
  /** Each pause is this many times as long as the one before, 1 or more. Default: 2. */
  factor?: number;
  /** Milliseconds that no pause exceeds. Default: 30,000. */
  max?: number;
  /**
   * The share of each pause that is left to chance, 0 to 1, so that those who have failed together don't come back
   * together: with 0.25 a pause is 75 to 100 per cent as long. Default: 0.5.
   */
  jitter?: number;
}

/** Options of {@linkcode retry}. */
export interface RetryOptions extends CancelOptions {
  /** How many attempts are made at most, 1 or more; `Infinity` for no bound. Default: 5. */
  attempts?: number;
  /** The pauses between them. */
  backoff?: Backoff;
  /** Milliseconds for all attempts and pauses together. Default: no bound. */
  timeout?: number;
  /**
   * Whether an attempt that has failed with this error is to be followed by another. Default: always, also after an error
   * that no attempt can mend, such as a `TypeError` or a permission that is missing.
   */
  when?: (error: unknown, attempt: number) => boolean | PromiseLike<boolean>;
}

/**
 * Runs a function until it has a value, pausing longer each time. An attempt is over when everything it started has
 * come back. A cancellation is never retried, nor is a pause waited out in a cancelled scope.
 *
 * @param fn Gets the number of the attempt, from 1. For a deadline on each attempt put a `timeout` in it.
 * @param options How often, how long, for which errors.
 * @returns The first value.
 * @throws The error of the last attempt, as it is.
 * @throws {DOMException} Named "TimeoutError", when `timeout` has passed; its `cause` is the error of the last attempt
 * that had failed by itself.
 * @throws {RangeError} If a number among the options is out of its range; `fn` is not called then.
 *
 * @example
 * ```ts
 * import { connect, listen, retry } from "@ringscope/ringscope";
 *
 * await using listener = await listen({ hostname: "127.0.0.1", port: 0 });
 * const { port } = listener.addr;
 * await using conn = await retry(() => connect({ port }), {
 *   attempts: 10,
 *   backoff: { initial: 50, max: 1000 },
 *   timeout: 5000,
 *   when: (error) => error instanceof Deno.errors.ConnectionRefused,
 * });
 * console.log(conn.remoteAddr.port === port); // true
 * ```
 */
export async function retry<T>(
  fn: (attempt: number) => T | PromiseLike<T>,
  options: RetryOptions = {},
): Promise<T> {
  const { attempts = 5, backoff = {}, timeout: ms = Infinity, when = () => true, signal } = options;
  if (typeof fn !== "function") throw new TypeError("retry takes a function: a promise can't be tried again");
  if (typeof when !== "function") throw new TypeError("when must be a function");
  if (attempts !== Infinity && !Number.isInteger(attempts)) {
    throw new RangeError(`attempts must be an integer of 1 or more, or Infinity: ${shown(attempts)}`);
  }
  requireRange("attempts", attempts, 1, Infinity);
  requireMilliseconds("timeout", ms);
  const pauses = pausesOf(backoff);
  let failure = null as { error: unknown } | null;

  const attempt = async () => {
    const token = CancelToken.current()!;
    const { deadlineReason } = token;
    // A deadline alone would not say what went wrong until it passed.
    token.deadlineReason = () => {
      const error = deadlineReason!();
      if (failure !== null) Object.defineProperty(error, "cause", { value: failure.error, configurable: true });
      return error;
    };
    for (let number = 1;; number++) {
      try {
        return await runUnder(new CancelToken(token), () => fn(number));
      } catch (error) {
        if (token.cancelled || isStop(error, token)) throw error;
        failure = { error };
        if (number >= attempts || !await when(error, number)) throw error;
      }
      await pause(pauses.next().value);
    }
  };
  return await timeout(ms, attempt, { signal });
}

/** The pauses, without end. */
function pausesOf(backoff: Backoff): Iterator<number, never> {
  const { initial = 100, factor = 2, max = 30_000, jitter = 0.5 } = backoff;
  requireRange("backoff.initial", initial, 0, Number.MAX_VALUE);
  requireRange("backoff.factor", factor, 1, Number.MAX_VALUE);
  requireRange("backoff.max", max, 0, Number.MAX_VALUE);
  requireRange("backoff.jitter", jitter, 0, 1);
  return (function* () {
    for (let ms = Math.min(initial, max);; ms = Math.min(ms * factor, max)) yield ms * (1 - jitter * Math.random());
  })();
}

function requireRange(name: string, value: number, least: number, most: number): void {
  if (typeof value === "number" && value >= least && value <= most) return;
  throw new RangeError(`${name} must be ${least} or more${most === 1 ? ", and 1 at most" : ""}: ${shown(value)}`);
}

async function pause(ms: number): Promise<void> {
  admit();
  // The alarm first: where none can be set, nobody waits.
  const alarm = clock().set(ms, () => waiter.resolve());
  const waiter = new Waiter<void>();
  try {
    await waiter.promise;
  } finally {
    await alarm.stop();
  }
}
