/**
 * Requests that complete again and again (accept, receive, poll, timeout), as an iterator over what they bring.
 *
 * @module
 */
import { Cancellable, CancelToken } from "../scope/cancel_token.ts";
import type { Driver } from "./driver.ts";
import { Cause, type Request } from "./request.ts";

/** What one kind of multishot request is about. */
export interface MultishotSource<T> {
  /** Makes the request anew: the first time, and whenever the kernel has ended it. */
  request(): Request;
  /** What a result, which is not negative, stands for; `undefined` for the end of them all. */
  decode(result: number, cqeFlags: number): T | undefined;
  /** Takes what was brought and nobody has come for. */
  discard(value: T): unknown;
  /** Whether the request is to be made anew after this final result, which is negative. */
  survives?(result: number): boolean;
}

/** How many values may wait for someone to come, before the kernel is asked to stop bringing more. */
const BACKLOG = 64;

/**
 * The values of a multishot request, one at a time. The request is made by the first `next`, and belongs to the scope
 * of that call: when that scope is left, the request is stopped and what it has brought is discarded. Stopped, for
 * that or another reason, it is made anew by the next `next`.
 */
export class Multishot<T> implements AsyncIterableIterator<T> {
  readonly #driver: Driver;
  readonly #source: MultishotSource<T>;
  readonly #values: T[] = [];
  readonly #waiters: Waiter<T>[] = [];
  readonly #custodian: Custodian;
  #request: Request | null = null;
  /** Settles when the request is back; never rejects. */
  #ended: Promise<void> = Promise.resolve();
  #done = false;

  constructor(driver: Driver, source: MultishotSource<T>) {
    this.#driver = driver;
    this.#source = source;
    this.#custodian = new Custodian((reason) => this.#clear(reason));
  }

  /** The next value: one that is there already, or the first that comes. */
  next(): Promise<IteratorResult<T, undefined>> {
    try {
      const token = this.#driver.admit(undefined);
      if (this.#values.length > 0) return Promise.resolve({ done: false, value: this.#takeValue() });
      if (this.#done) return Promise.resolve({ done: true, value: undefined });
      return new Promise((resolve, reject) => {
        const waiter = new Waiter<T>(this, token, resolve, reject);
        this.#waiters.push(waiter);
        token?.join(waiter);
        this.#arm(token);
      });
    } catch (error) {
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
    if (this.#values.length === 0 && this.#request === null) this.#custodian.leave();
    return value;
  }

  #arm(token: CancelToken | undefined): void {
    if (this.#request !== null) return;
    try {
      const request = this.#source.request();
      request.onShot = (result, flags) => this.#bring(result, flags);
      this.#request = request;
      // In no scope of its own: the custodian is.
      this.#ended = CancelToken.resume(undefined, () => this.#driver.start<number>(request)).then(
        (result) => this.#end(request, result),
        (error) => this.#end(request, request.result, error),
      );
      if (this.#custodian.joined === null) token?.join(this.#custodian);
    } catch (error) {
      this.#fail(error);
    }
  }

  #end(request: Request, result: number, error?: unknown): void {
    this.#request = null;
    if (error === undefined) this.#bring(result, request.cqeFlags);
    else if (request.cause === Cause.None && !this.#source.survives?.(result)) this.#fail(error);
    if (this.#done) this.#finish();
    const next = this.#waiters.find((waiter) => !waiter.cancelled);
    if (next !== undefined) this.#arm(next.token);
    else if (this.#values.length === 0) this.#custodian.leave();
  }

  #bring(result: number, flags: number): void {
    const value = this.#source.decode(result, flags);
    if (value === undefined) {
      this.#done = true;
    } else if (this.#waiters.length > 0) {
      this.#waiters.shift()!.settle({ done: false, value });
    } else if (this.#values.push(value) >= BACKLOG) {
      this.#request?.cancel(undefined);
    }
  }

  #fail(error: unknown): void {
    for (const waiter of this.#waiters.splice(0)) waiter.fail(error);
  }

  #finish(): void {
    for (const waiter of this.#waiters.splice(0)) waiter.settle({ done: true, value: undefined });
  }

  #stop(reason: unknown): Promise<void> {
    this.#request?.cancel(reason);
    return this.#ended;
  }

  async #clear(reason: unknown): Promise<void> {
    await this.#stop(reason);
    await Promise.all(this.#values.splice(0).map((value) => this.#source.discard(value)));
    this.#custodian.leave();
  }
}

/** Stands for a multishot request and its backlog in the scope that they belong to. */
class Custodian extends Cancellable {
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
  }
}

/** One call of `next` that waits; it belongs to the scope it was made in. */
class Waiter<T> extends Cancellable {
  readonly token: CancelToken | undefined;
  cancelled = false;
  readonly #multishot: Multishot<T>;
  readonly #resolve: (result: IteratorResult<T, undefined>) => void;
  readonly #reject: (reason: unknown) => void;

  constructor(
    multishot: Multishot<T>,
    token: CancelToken | undefined,
    resolve: (result: IteratorResult<T, undefined>) => void,
    reject: (reason: unknown) => void,
  ) {
    super();
    this.#multishot = multishot;
    this.token = token;
    this.#resolve = resolve;
    this.#reject = reject;
  }

  settle(result: IteratorResult<T, undefined>): void {
    this.joined?.leave(this);
    this.#resolve(result);
  }

  fail(reason: unknown): void {
    this.joined?.leave(this);
    this.#reject(reason);
  }

  override cancel(reason: unknown): void {
    this.cancelled = true;
    this.#multishot.cancelWaiter(this, reason);
  }
}
