/**
 * The first of several.
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
import { functionsOf } from "./functions.ts";
import { disposeUnclaimed } from "./ownership.ts";

/**
 * Runs functions against each other. The first that settles decides, by value or by error; the others are cancelled,
 * and `race` settles when they have come back.
 *
 * A loser's value is dropped; if it is a resource that came to be in that function (an accepted connection, an opened
 * file), it is closed. An error that a loser fails with, other than its cancellation, is not dropped: it is thrown.
 *
 * @param fns At least one function. (A promise already runs, and could not be cancelled.)
 * @param options `signal` joins a signal from outside.
 * @returns The winner's value.
 * @throws {TypeError} If there is no function, or something else among them; none is started then.
 *
 * @example
 * ```ts
 * import { race, sleep } from "@ringscope/ringscope";
 *
 * const winner = await race([
 *   async () => (await sleep(1), "hare"),
 *   async () => (await sleep(10_000), "tortoise"),
 * ]);
 * console.log(winner); // "hare"
 * ```
 */
export async function race<const Fns extends readonly (() => unknown)[]>(
  fns: Fns,
  options: CancelOptions = {},
): Promise<Awaited<ReturnType<Fns[number]>>> {
  const list = functionsOf("race", fns);
  if (list.length === 0) throw new TypeError("race needs at least one function: none would ever win");
  const token = new CancelToken(CancelToken.current() ?? null);
  const errors = new Set<unknown>();
  let winner = null as { value: unknown } | null;
  const running = new Set<CancelToken>();
  // Each loser, not the token around them: what the winner has set up goes on in that when the race is over.
  const decide = () => {
    if (running.size === 0) return;
    const reason = abortError("The race is decided");
    for (const loser of running) loser.cancel(reason);
  };
  try {
    const leaveSignal = joinSignal(token, options.signal);
    await Promise.all(list.map(async (fn) => {
      const own = new CancelToken(token);
      running.add(own);
      try {
        const value = await runUnder(own, fn).finally(() => running.delete(own));
        // A value decides also after a cancel from outside: that came too late for it.
        if (winner !== null || errors.size > 0) return await disposeUnclaimed(value, own, winner?.value);
        winner = { value };
        decide();
      } catch (error) {
        if (isCancellation(error, own)) return;
        errors.add(error);
        decide();
      }
    }));
    leaveSignal();
    if (errors.size > 0) {
      await disposeUnclaimed(winner?.value, token).catch((error) => errors.add(error));
      throw oneOrAll(errors);
    }
    if (winner === null) throw reportedReason(token);
    return winner.value as Awaited<ReturnType<Fns[number]>>;
  } finally {
    token.release();
  }
}
