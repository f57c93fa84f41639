/**
 * All of several.
 *
 * @module
 */
import { CancelToken } from "./cancel_token.ts";
import {
  abortError,
  type CancelOptions,
  isCancellation,
  joinSignal,
  oneOrAll,
  reportedReason,
  runUnder,
} from "./cancellation.ts";
import { functionsOf, inLanes, requireConcurrency } from "./functions.ts";
import { disposeUnclaimed } from "./ownership.ts";

/** Options of {@linkcode all}. */
export interface AllOptions extends CancelOptions {
  /** How many run at a time, 1 or more. Default: all of them. */
  concurrency?: number;
}

/**
 * Runs functions beside each other. The first error cancels the rest, and `all` rejects with it when they have come
 * back; values that were there by then are dropped, and closed if they are resources that came to be in their function.
 *
 * @param fns Functions. (A promise already runs, and could not be cancelled.)
 * @param options `concurrency` bounds how many run at a time; `signal` joins a signal from outside.
 * @returns Their values, a tuple in the order of the functions.
 * @throws {TypeError} If something among them is not a function; none is started then.
 * @throws {RangeError} If `concurrency` is not an integer of 1 or more, or `Infinity`.
 *
 * @example
 * ```ts
 * import { all, sleep } from "@ringscope/ringscope";
 *
 * const [one, two] = await all([
 *   async () => (await sleep(2), 1),
 *   async () => (await sleep(1), "two"),
 * ]);
 * console.log(one, two); // 1 "two"
 * ```
 */
export async function all<const Fns extends readonly (() => unknown)[]>(
  fns: Fns,
  options: AllOptions = {},
): Promise<{ -readonly [Key in keyof Fns]: Awaited<ReturnType<Fns[Key]>> }> {
  const list = functionsOf("all", fns);
  const { concurrency = Infinity } = options;
  requireConcurrency(concurrency);
  const token = new CancelToken(CancelToken.current() ?? null);
  const values: unknown[] = new Array(list.length);
  const fulfilled: CancelToken[] = new Array(list.length);
  const errors = new Set<unknown>();
  let completed = 0;

  const runOne = async (i: number) => {
    const own = new CancelToken(token);
    try {
      values[i] = await runUnder(own, list[i]);
      fulfilled[i] = own;
      completed++;
    } catch (error) {
      if (isCancellation(error, own)) return;
      errors.add(error);
      token.cancel(abortError("Another function of all failed", { cause: error }));
    }
  };
  try {
    const leaveSignal = joinSignal(token, options.signal);
    await inLanes(list.length, concurrency, token, runOne);
    leaveSignal();
    if (completed === list.length) return values as { -readonly [Key in keyof Fns]: Awaited<ReturnType<Fns[Key]>> };
    for (const i of fulfilled.keys()) {
      if (fulfilled[i] !== undefined) {
        await disposeUnclaimed(values[i], fulfilled[i]).catch((error) => errors.add(error));
      }
    }
    throw errors.size > 0 ? oneOrAll(errors) : reportedReason(token);
  } finally {
    token.release();
  }
}
