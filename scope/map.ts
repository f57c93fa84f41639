/**
 * A function over many things, some at a time.
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
  shown,
} from "./cancellation.ts";
import { disposeUnclaimed } from "./ownership.ts";
import { Queue } from "./queue.ts";
import { admit, Waiter } from "./waiter.ts";

/** Options of {@linkcode map}. */
export interface MapOptions extends CancelOptions {
  /** How many calls are in flight, or done with a result that was not taken yet: 1 or more. Default: 1. */
  concurrency?: number;
}

/**
 * Runs a function over the items of a source, some at a time, and gives the results in the order of the items. Nothing
 * is taken from the source before the first `next`, and then no more than there is room for; a result makes room when the
 * one after it is asked for, so that with a concurrency of 1 it goes like a plain loop.
 *
 * The iteration belongs to the scope in which the first `next` is called: when that is cancelled or left, the calls are
 * cancelled and waited for. A `next` that is cancelled by a scope further in takes no result; the one after it does.
 * Leaving the loop early cancels what is in flight, waits for it, and closes the source (shielded, as cleanups are).
 *
 * The first error, of a call or of the source, cancels the rest as in `all`, whatever place its item has in the order,
 * and is thrown when all has come back: by the `next` that waits, or the one after, or by leaving the loop with `break`.
 * If nobody has come for it when the scope is left, it is an unhandled rejection. Results that nobody takes are dropped,
 * and closed if they are resources that came to be in their call.
 *
 * @param source Something iterable, also asynchronously. Its own operations belong to the iteration as well.
 * @param fn Gets an item and its number, from 0.
 * @param options `concurrency` bounds the calls; `signal` joins a signal from outside.
 * @returns The results, to be iterated once.
 * @throws {TypeError} If the source is not iterable, or `fn` not a function.
 * @throws {RangeError} If `concurrency` is not an integer of 1 or more.
 *
 * @example
 * ```ts
 * import { map, sleep } from "@ringscope/ringscope";
 *
 * const squares = map([3, 2, 1], async (n) => (await sleep(n), n * n), { concurrency: 3 });
 * for await (const square of squares) console.log(square); // 9, 4, 1
 * ```
 */
export function map<T, R>(
  source: Iterable<T> | AsyncIterable<T>,
  fn: (item: T, index: number) => R,
  options: MapOptions = {},
): AsyncIterableIterator<Awaited<R>, undefined> & AsyncDisposable {
  const { concurrency = 1, signal } = options;
  if (!(Symbol.asyncIterator in Object(source)) && !(Symbol.iterator in Object(source))) {
    throw new TypeError("map takes something iterable");
  }
  if (typeof fn !== "function") throw new TypeError("map takes a function: what already runs can't be cancelled");
  if (!(Number.isInteger(concurrency) && concurrency >= 1)) {
    throw new RangeError(`concurrency must be an integer of 1 or more: ${shown(concurrency)}`);
  }
  return new Mapping(source, fn as (item: T, index: number) => PromiseLike<Awaited<R>>, concurrency, signal);
}

/** A call of the function, until its result is taken. */
interface Call<R> {
  token: CancelToken;
  /** What it has come to. */
  result: { value: R } | null;
}

type Next<R> = Waiter<IteratorResult<R, undefined>>;

/** The phases of an iteration. */
enum Phase {
  /** Nothing was asked for yet. */
  Unstarted,
  /** Calls are made. */
  Going,
  /** No more are made, and those in flight are waited for. */
  Ending,
  /** All has come back. */
  Ended,
}

class Mapping<T, R> implements AsyncIterableIterator<R, undefined>, AsyncDisposable {
  readonly #source: Iterable<T> | AsyncIterable<T>;
  readonly #fn: (item: T, index: number) => R | PromiseLike<R>;
  readonly #concurrency: number;
  readonly #signal: AbortSignal | undefined;
  #phase = Phase.Unstarted;
  /** Of the iteration, from its start. */
  #token!: CancelToken;
  #leaveSignal!: () => void;
  #iterator!: Iterator<T> | AsyncIterator<T>;
  /** Whether the source has ended, or failed. */
  #exhausted = false;
  #pulling = false;
  /** An item that came when no more calls were made. */
  #unused: { value: T } | null = null;
  /** Items taken. */
  #index = 0;
  /** How often `next` was called. */
  #asked = 0;
  #running = 0;
  /** In the order of their items, those in flight and those whose results were not taken. */
  readonly #calls = new Queue<Call<R>>();
  readonly #nexts = new Queue<Next<R>>();
  /** Real errors that were not thrown yet. */
  #errors: unknown[] = [];
  /** Whether a call, or the source, has ended by the cancellation. */
  #cutShort = false;
  /** The reason of a cancel from around that has cut the iteration short, which was not reported yet. */
  #cut: { reason: unknown } | null = null;
  #onBack: (() => void) | null = null;
  readonly #ended = Promise.withResolvers<void>();

  constructor(
    source: Iterable<T> | AsyncIterable<T>,
    fn: (item: T, index: number) => R | PromiseLike<R>,
    concurrency: number,
    signal: AbortSignal | undefined,
  ) {
    this.#source = source;
    this.#fn = fn;
    this.#concurrency = concurrency;
    this.#signal = signal;
  }

  async next(): Promise<IteratorResult<R, undefined>> {
    if (this.#phase === Phase.Unstarted) this.#start();
    if (this.#phase === Phase.Going) {
      admit();
      const next = new NextWaiter<R>(this.#token);
      const place = this.#nexts.push(next);
      this.#asked++;
      next.onCancel = () => place.leave();
      this.#goOn();
      return await next.promise;
    }
    await this.#ended.promise;
    return this.#last();
  }

  async return(): Promise<IteratorResult<R, undefined>> {
    if (this.#phase === Phase.Unstarted) this.#start();
    this.#end();
    await this.#ended.promise;
    // Whoever leaves does not ask for more.
    this.#cut = null;
    return this.#last();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  #start(): void {
    const token = new CancelToken(CancelToken.current() ?? null);
    try {
      this.#leaveSignal = joinSignal(token, this.#signal);
      this.#iterator = token.run(() =>
        Symbol.asyncIterator in this.#source
          ? this.#source[Symbol.asyncIterator]()
          : (this.#source as Iterable<T>)[Symbol.iterator]()
      );
    } catch (error) {
      this.#leaveSignal?.();
      token.release();
      throw error;
    }
    this.#token = token;
    this.#phase = Phase.Going;
    token.onCancel = () => this.#end();
    token.onAbandon = () => void this.#tellUnclaimed();
    if (token.cancelled) this.#end();
  }

  /** Hands out the results that are next in order, and takes as many items as there is room for. */
  #goOn(): void {
    for (let call = this.#calls.peek(); call?.result && this.#nexts.length > 0; call = this.#calls.peek()) {
      this.#calls.shift();
      this.#nexts.shift()!.resolve({ done: false, value: call.result.value });
    }
    while (this.#phase === Phase.Going && !this.#exhausted && !this.#pulling && this.#hasRoom()) this.#pull();
    if (this.#exhausted && this.#calls.length === 0) this.#end();
  }

  /** Whether one more item may be taken. The place of a result that was handed out is free at the next `next`. */
  #hasRoom(): boolean {
    return this.#calls.length < this.#concurrency && this.#index < this.#asked - 1 + this.#concurrency;
  }

  #pull(): void {
    try {
      const step = this.#token.run(() => this.#iterator.next());
      if (Symbol.asyncIterator in this.#source) {
        this.#pulling = true;
        void this.#awaitItem(step as PromiseLike<IteratorResult<T>>);
      } else {
        this.#take(step as IteratorResult<T>);
      }
    } catch (error) {
      this.#exhausted = true;
      this.#fail(error, this.#token);
    }
  }

  async #awaitItem(step: PromiseLike<IteratorResult<T>>): Promise<void> {
    try {
      this.#take(await step);
    } catch (error) {
      this.#exhausted = true;
      this.#fail(error, this.#token);
    }
    this.#pulling = false;
    this.#goOn();
    this.#onBack?.();
  }

  #take(step: IteratorResult<T>): void {
    if (step.done) this.#exhausted = true;
    else if (this.#phase === Phase.Going) void this.#call(step.value);
    else this.#unused = step;
  }

  async #call(item: T): Promise<void> {
    const token = new CancelToken(this.#token);
    const call: Call<R> = { token, result: null };
    const index = this.#index++;
    this.#calls.push(call);
    this.#running++;
    try {
      call.result = { value: await runUnder(token, () => this.#fn(item, index)) };
    } catch (error) {
      this.#fail(error, token);
    }
    this.#running--;
    this.#goOn();
    this.#onBack?.();
  }

  #fail(error: unknown, token: CancelToken): void {
    if (isCancellation(error, token)) this.#cutShort = true;
    else if (!this.#errors.includes(error)) this.#errors.push(error);
    this.#end();
  }

  /** Ends the iteration: what is in flight is cancelled, unless all has been done. */
  #end(): void {
    if (this.#phase !== Phase.Going) return;
    this.#phase = Phase.Ending;
    void this.#windUp();
  }

  async #windUp(): Promise<void> {
    const token = this.#token;
    const fromAround = token.cancelled;
    if (this.#running > 0 || this.#pulling) {
      const options = this.#errors.length > 0 ? { cause: this.#errors[0] } : undefined;
      token.cancel(abortError("The iteration of map has ended", options));
    }
    while (this.#running > 0 || this.#pulling) await new Promise<void>((resolve) => this.#onBack = resolve);
    const complete = this.#exhausted && this.#calls.length === 0 && !this.#cutShort;
    if (fromAround && !complete) this.#cut = { reason: reportedReason(token) };
    if (!this.#exhausted) await this.#cleanUp(async () => void await this.#iterator.return?.());
    for (let call = this.#calls.shift(); call !== undefined; call = this.#calls.shift()) {
      const { token, result } = call;
      await this.#cleanUp(() => disposeUnclaimed(result?.value, token));
    }
    await this.#cleanUp(() => disposeUnclaimed(this.#unused?.value, token));
    if (!token.idle) await token.abandon();
    this.#leaveSignal();
    this.#phase = Phase.Ended;
    for (let next = this.#nexts.shift(); next !== undefined; next = this.#nexts.shift()) {
      try {
        next.resolve(this.#last());
      } catch (error) {
        next.reject(error);
      }
    }
    this.#ended.resolve();
    // With an error that nobody has come for yet it stays where it will be asked for it.
    if (this.#errors.length === 0) token.release();
  }

  async #cleanUp(cleanup: () => Promise<void>): Promise<void> {
    try {
      await runUnder(new CancelToken(this.#token, { shielded: true }), cleanup);
    } catch (error) {
      if (!isCancellation(error, this.#token) && !this.#errors.includes(error)) this.#errors.push(error);
    }
  }

  /** Its scope is left: an error that nobody has come for becomes a rejection that nobody has handled. */
  async #tellUnclaimed(): Promise<void> {
    await this.#ended.promise;
    if (this.#errors.length > 0) this.#last();
  }

  /** How the iteration has ended: an error is told once. */
  #last(): IteratorResult<R, undefined> {
    const errors = this.#errors;
    const cut = this.#cut;
    this.#errors = [];
    this.#cut = null;
    this.#token.release();
    if (errors.length > 0) throw oneOrAll(errors);
    if (cut !== null) throw cut.reason;
    return { done: true, value: undefined };
  }
}

/** A `next` that waits. When the iteration itself is cancelled it waits on, until all has come back. */
class NextWaiter<R> extends Waiter<IteratorResult<R, undefined>> {
  readonly #iteration: CancelToken;

  constructor(iteration: CancelToken) {
    super();
    this.#iteration = iteration;
  }

  override cancel(reason: unknown): void {
    if (!this.#iteration.cancelled) super.cancel(reason);
  }
}
