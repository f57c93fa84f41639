/**
 * What becomes of each of several.
 *
 * @module
 */
import type { AllOptions } from "./all.ts";
import { CancelToken } from "./cancel_token.ts";
import { isCancellation, joinSignal, oneOrAll, reportedReason, runUnder } from "./cancellation.ts";
import { functionsOf, inLanes, requireConcurrency } from "./functions.ts";
import { disposeUnclaimed } from "./ownership.ts";

/**
 * Runs functions beside each other, and gives what has become of each: a value or an error. An error cancels none of
 * the others.
 *
 * A cancel from around them is no result: if it has cut one short, or come before one was started, `settled` rejects
 * with the reason when all have come back. Values that were there by then are dropped, and closed if they are resources
 * that came to be in their function.
 *
 * @param fns Functions. (A promise already runs, and could not be cancelled.)
 * @param options `concurrency` bounds how many run at a time; `signal` joins a signal from outside.
 * @returns Their results as of `Promise.allSettled`, a tuple in the order of the functions.
 * @throws {TypeError} If something among them is not a function; none is started then.
 * @throws {RangeError} If `concurrency` is not an integer of 1 or more, or `Infinity`.
 *
 * @example
 * ```ts
 * import { settled, sleep } from "@ringscope/ringscope";
 *
 * const [one, two] = await settled([
 *   async () => (await sleep(1), 1),
 *   () => Promise.reject(new Error("no")),
 * ]);
 * console.log(one); // { status: "fulfilled", value: 1 }
 * console.log(two.status); // "rejected"
 * ```
 */
export async function settled<const Fns extends readonly (() => unknown)[]>(
  fns: Fns,
  options: AllOptions = {},
): Promise<{ -readonly [Key in keyof Fns]: PromiseSettledResult<Awaited<ReturnType<Fns[Key]>>> }> {
  const list = functionsOf("settled", fns);
  const { concurrency = Infinity } = options;
  requireConcurrency(concurrency);
  const token = new CancelToken(CancelToken.current() ?? null);
  const results: PromiseSettledResult<unknown>[] = new Array(list.length);
  const fulfilled: CancelToken[] = new Array(list.length);
  let completed = 0;

  const runOne = async (i: number) => {
    const own = new CancelToken(token);
    try {
      results[i] = { status: "fulfilled", value: await runUnder(own, list[i]) };
      fulfilled[i] = own;
    } catch (error) {
      if (isCancellation(error, own)) return;
      results[i] = { status: "rejected", reason: error };
    }
    completed++;
  };
  try {
    const leaveSignal = joinSignal(token, options.signal);
    await inLanes(list.length, concurrency, token, runOne);
    leaveSignal();
    if (completed === list.length) {
      return results as { -readonly [Key in keyof Fns]: PromiseSettledResult<Awaited<ReturnType<Fns[Key]>>> };
    }
    const errors: unknown[] = [];
    for (const i of fulfilled.keys()) {
      if (fulfilled[i] === undefined) continue;
      const { value } = results[i] as PromiseFulfilledResult<unknown>;
      await disposeUnclaimed(value, fulfilled[i]).catch((error) => errors.push(error));
    }
    throw errors.length > 0 ? oneOrAll(errors) : reportedReason(token);
  } finally {
    token.release();
  }
}
