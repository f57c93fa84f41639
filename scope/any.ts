/**
 * The first of several that comes to a value.
 *
 * @module
 */
import { CancelToken } from "./cancel_token.ts";
import {
  abortError,
  type CancelOptions,
  isCancellation,
  joinSignal,
  reportedReason,
  runUnder,
} from "./cancellation.ts";
import { functionsOf } from "./functions.ts";
import { disposeUnclaimed } from "./ownership.ts";

/**
 * Runs functions against each other, and gives the first value. The others are cancelled then, and `any` settles when
 * they have come back; a value that one of them has all the same is dropped, and closed if it is a resource that came
 * to be in that function. Errors of the others are overlooked, whenever they come: one value is all that was asked for.
 *
 * @param fns Functions. (A promise already runs, and could not be cancelled.)
 * @param options `signal` joins a signal from outside.
 * @returns The first value.
 * @throws {AggregateError} If all of them fail, with their errors in the order of the functions; so for no functions.
 * @throws The reason, if a cancel from around has cut one of them short and there is no value.
 * @throws {TypeError} If something among them is not a function; none is started then.
 *
 * @example
 * ```ts
 * import { any, sleep } from "@ringscope/ringscope";
 *
 * const answer = await any([
 *   () => Promise.reject(new Error("this mirror is down")),
 *   async () => (await sleep(1), "from the near mirror"),
 *   async () => (await sleep(10_000), "from the far mirror"),
 * ]);
 * console.log(answer); // "from the near mirror"
 * ```
 */
export async function any<const Fns extends readonly (() => unknown)[]>(
  fns: Fns,
  options: CancelOptions = {},
): Promise<Awaited<ReturnType<Fns[number]>>> {
  const list = functionsOf("any", fns);
  const token = new CancelToken(CancelToken.current() ?? null);
  const errors: unknown[] = new Array(list.length);
  let winner = null as { value: unknown } | null;
  let cutShort = false;
  const running = new Set<CancelToken>();

  const runOne = async (fn: () => unknown, i: number) => {
    const own = new CancelToken(token);
    running.add(own);
    try {
      const value = await runUnder(own, fn).finally(() => running.delete(own));
      // A value wins also after a cancel from outside: that came too late for it.
      if (winner !== null) return await disposeUnclaimed(value, own, winner.value);
      winner = { value };
      // Each of the others, not the token around them: what the winner has set up goes on in that.
      const reason = running.size > 0 ? abortError("Another function of any has a value") : undefined;
      for (const loser of running) loser.cancel(reason);
    } catch (error) {
      if (isCancellation(error, own)) cutShort = true;
      else errors[i] = error;
    }
  };
  try {
    const leaveSignal = joinSignal(token, options.signal);
    await Promise.all(list.map(runOne));
    leaveSignal();
    if (winner !== null) return winner.value as Awaited<ReturnType<Fns[number]>>;
    if (cutShort) throw reportedReason(token);
    throw new AggregateError(errors, list.length > 0 ? "No function of any has a value" : "any was given no function");
  } finally {
    token.release();
  }
}
