/**
 * Requests that complete again and again (accept, receive, poll, timeout), as an iterator over what they bring.
 *
 * @module
 */
import { Cancellable, CancelToken, tokenOf } from "../scope/cancel_token.ts";
import type { Driver } from "./driver.ts";
import { Cause, type Lane, type Request, SignalLink } from "./request.ts";
import { Op } from "./uring_abi.ts";

/** What one kind of multishot request is about. */
export interface MultishotSource<T> {
  /** Makes the request anew: the first time, and whenever the kernel has ended it. */
  request(): Request;
  /**
   * What a result, which is not negative, stands for; `undefined` for the end of them all. `served` is what its owner
   * had kept, where the kernel was not asked.
   */
  decode(result: number, cqeFlags: number, served: Uint8Array<ArrayBuffer> | null): T | undefined;
  /** Takes what was brought and nobody has come for. */
  discard(value: T): unknown;
  /** Takes what has ended the request, where nobody has come for that. */
  discardError?(error: unknown): void;
  /** Whether the end of the request is the end of the iteration, unless it is this side that has stopped it. */
  readonly once?: boolean;
  /** After how many milliseconds the request is to be made anew, if this final, negative result shall be survived. */
  retryAfter?(result: number): number | undefined;
}

/** How many values may wait for someone to come, before the kernel is asked to stop bringing more. */
const BACKLOG = 64;

/**
 * The values of a multishot request, one at a time. The request is made by the first `next`, and belongs to the scope
 * that the iteration was begun in: when that scope is left, the request is stopped and what it has brought is discarded.
 * A `next` belongs to the scope of its call, which may be an inner one. The request is stopped when that is cancelled,
 * and made anew by the next `next`.
 */
export class Multishot<T> implements AsyncIterableIterator<T> {
  readonly #driver: Driver;
  readonly #source: MultishotSource<T>;
  readonly #values: T[] = [];
  readonly #waiters: Waiter<T>[] = [];
  readonly #custodian: Custodian;
  readonly #scope: CancelToken | undefined;
  readonly #signal: AbortSignal | undefined;
  #request: Request | null = null;
  /** Settles when the request is back; never rejects. */
  #ended: Promise<void> = Promise.resolve();
  #done = false;
  /** What ended the request while nobody waited: the `next` after the values that came before it rejects with it. */
  #failure: { readonly error: unknown } | null = null;
  /** The lane it reads in: its own until what the request has brought is taken, or given back. */
  #lane: Lane | null = null;
  /** How often it is being cleared. */
  #clearing = 0;

  /** @param signal Stops the request and rejects every `next` from then on, as a cancelled scope does. */
  constructor(driver: Driver, source: MultishotSource<T>, signal?: AbortSignal) {
    this.#driver = driver;
    this.#source = source;
    this.#signal = signal;
    this.#scope = CancelToken.current();
    this.#custodian = new Custodian((reason) => this.#clear(reason));
  }

  /** The next value: one that is there already, or the first that comes. */
  next(): Promise<IteratorResult<T, undefined>> {
    try {
      const token = this.#driver.admit({ signal: this.#signal });
      if (this.#values.length > 0) return Promise.resolve({ done: false, value: this.#takeValue() });
      if (this.#failure !== null) {
        const { error } = this.#failure;
        this.#failure = null;
        return Promise.reject(error);
      }
      if (this.#done) return Promise.resolve({ done: true, value: undefined });
      return new Promise((resolve, reject) => {
        const waiter = new Waiter<T>(this, resolve, reject);
        this.#waiters.push(waiter);
        token?.join(waiter);
        waiter.signalLink = this.#link(waiter);
        this.#arm();
      });
    } catch (error) {
      if (this.#driver.closing) this.#clear(error);
      return Promise.reject(error);
    }
  }

  /** Ends the iteration; settles when the kernel is done with the request. */
  async return(): Promise<IteratorResult<T, undefined>> {
    this.#done = true;
    await this.#clear(undefined);
    this.#finish();
    return { done: true, value: undefined };
  }

  /** The same as {@linkcode Multishot.return}. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  /** Ends a `next` whose scope was cancelled. The request must be back by then, or what it brings meanwhile is lost. */
  async cancelWaiter(waiter: Waiter<T>, reason: unknown): Promise<void> {
    await this.#stop(reason);
    const at = this.#waiters.indexOf(waiter);
    if (at < 0) return; // a value beats a cancel that came too late
    this.#waiters.splice(at, 1);
    waiter.fail(reason);
  }

  #takeValue(): T {
    const value = this.#values.shift()!;
    if (this.#values.length === 0) this.#release();
    return value;
  }

  #link(target: Cancellable): SignalLink | null {
    return this.#signal === undefined ? null : new SignalLink(target, tokenOf(this.#signal));
  }

  #arm(): void {
    if (this.#request !== null) return;
    try {
      const token = CancelToken.resume(this.#scope, () => this.#driver.admit(undefined));
      const request = this.#source.request();
      request.onShot = (result, flags) => this.#bring(result, flags);
      request.laneHolder = this;
      this.#lane = request.lane;
      this.#start(request).then((error) => this.#end(request, error));
      if (this.#custodian.joined === null) token?.join(this.#custodian);
      this.#custodian.signalLink ??= this.#link(this.#custodian);
    } catch (error) {
      for (const waiter of this.#waiters.splice(0)) waiter.fail(error);
      this.#release();
    }
  }

  /** Starts a request, in no scope of its own: the custodian is. Resolves with its error, or nothing. */
  #start(request: Request): Promise<unknown> {
    this.#request = request;
    const started = CancelToken.resume(undefined, () => this.#driver.start<number>(request));
    const ended = started.then(() => undefined, (error) => error ?? new Error("No reason was given"));
    this.#ended = ended.then(() => {});
    return ended;
  }

  async #end(request: Request, error: unknown): Promise<void> {
    this.#request = null;
    if (error === undefined) {
      this.#bring(request.result, request.cqeFlags, request.bytes);
      if (this.#source.once) this.#done = true;
    } else if (request.cause === Cause.None) {
      const pause = this.#source.retryAfter?.(request.result);
      if (pause === undefined) this.#fail(error);
      else if (pause > 0) await this.#pause(pause);
    }
    if (this.#done) this.#finish();
    if (this.#driver.closing) this.#clear(undefined); // nobody can do anything with what was brought
    if (this.#waiters.some((waiter) => !waiter.cancelled)) this.#arm();
    else if (this.#values.length === 0) this.#release();
  }

  /** Waits, and can be stopped as the request can. */
  async #pause(milliseconds: number): Promise<void> {
    const timer = this.#driver.request(Op.TIMEOUT, "sleep");
    timer.durationMs = milliseconds;
    timer.pollable = true;
    await this.#start(timer);
    this.#request = null;
  }

  #bring(result: number, flags: number, served: Uint8Array<ArrayBuffer> | null = null): void {
    const value = this.#source.decode(result, flags, served);
    if (value === undefined) {
      this.#done = true;
    } else if (this.#waiters.length > 0) {
      this.#waiters.shift()!.settle({ done: false, value });
    } else if (this.#values.push(value) >= BACKLOG) {
      this.#request?.cancel(undefined);
    }
  }

  #fail(error: unknown): void {
    // The kernel tells some errors only once, such as that a connection was reset.
    if (this.#waiters.length === 0) this.#failure = { error };
    for (const waiter of this.#waiters.splice(0)) waiter.fail(error);
  }

  /** Leaves its scope and its lane, if it has nothing more to do with them. */
  #release(): void {
    if (this.#request !== null || this.#clearing > 0) return;
    this.#custodian.leave();
    if (this.#lane !== null) this.#driver.passLane(this.#lane, this);
  }

  #finish(): void {
    for (const waiter of this.#waiters.splice(0)) waiter.settle({ done: true, value: undefined });
  }

  #stop(reason: unknown): Promise<void> {
    this.#request?.cancel(reason);
    return this.#ended;
  }

  async #clear(reason: unknown): Promise<void> {
    this.#clearing++;
    await this.#stop(reason);
    try {
      await Promise.all(this.#values.splice(0).map((value) => this.#source.discard(value)));
      if (this.#failure !== null) this.#source.discardError?.(this.#failure.error);
      this.#failure = null;
    } finally {
      this.#clearing--;
      this.#release();
    }
  }
}

/** Stands for a multishot request and its backlog in the scope that they belong to. */
class Custodian extends Cancellable {
  signalLink: SignalLink | null = null;
  readonly #clear: (reason: unknown) => void;

  constructor(clear: (reason: unknown) => void) {
    super();
    this.#clear = clear;
  }

  override cancel(reason: unknown): void {
    this.#clear(reason);
  }

  leave(): void {
    this.joined?.leave(this);
    this.signalLink?.joined?.leave(this.signalLink);
    this.signalLink = null;
  }
}

/** One call of `next` that waits; it belongs to the scope it was made in. */
class Waiter<T> extends Cancellable {
  cancelled = false;
  signalLink: SignalLink | null = null;
  readonly #multishot: Multishot<T>;
  readonly #resolve: (result: IteratorResult<T, undefined>) => void;
  readonly #reject: (reason: unknown) => void;

  constructor(
    multishot: Multishot<T>,
    resolve: (result: IteratorResult<T, undefined>) => void,
    reject: (reason: unknown) => void,
  ) {
    super();
    this.#multishot = multishot;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  settle(result: IteratorResult<T, undefined>): void {
    this.#leave();
    this.#resolve(result);
  }

  fail(reason: unknown): void {
    this.#leave();
    this.#reject(reason);
  }

  #leave(): void {
    this.joined?.leave(this);
    this.signalLink?.joined?.leave(this.signalLink);
  }

  override cancel(reason: unknown): void {
    if (this.cancelled) return;
    this.cancelled = true;
    this.#multishot.cancelWaiter(this, reason);
  }
}
