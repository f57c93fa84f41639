/**
 * Values handed from one part of a program to another.
 *
 * @module
 */
import { Cancellable, CancelToken } from "./cancel_token.ts";
import { type CancelOptions, shown } from "./cancellation.ts";
import { disposeUnclaimed } from "./ownership.ts";
import { Queue } from "./queue.ts";
import { admit, Waiter } from "./waiter.ts";

/** What `send` rejects with on a channel that is closed: its value was not taken. */
export class ChannelClosedError extends Error {
  /** "ChannelClosedError" */
  override readonly name = "ChannelClosedError";
}

/**
 * Opens a channel. It holds `capacity` values; a `send` waits while it is full, a `receive` while it is empty. Both
 * queue up fairly, any number of them. Nothing is lost on the way: a cancelled `receive` has taken no value, and a
 * cancelled `send` has left none.
 *
 * The channel belongs to the scope in which it is opened. When that is cancelled or left, the channel ends: what waits
 * or comes later rejects with the scope's reason, or with an "AbortError" that says so, and the values in it are dropped (and closed if they are resources
 * that came to be in that scope). Until then it keeps no scope open and no process running.
 *
 * @param capacity How many values it holds while nobody receives them. Default: 0, so that `send` waits until a
 * `receive` has taken the value.
 * @throws {RangeError} If `capacity` is not an integer of 0 or more, or `Infinity`.
 * @throws The reason, in a cancelled scope.
 *
 * @example
 * ```ts
 * import { channel, scope, sleep } from "@ringscope/ringscope";
 *
 * await scope(async (s) => {
 *   const jobs = channel<string>(2);
 *   for (const worker of [1, 2]) {
 *     s.spawn(async () => {
 *       for await (const job of jobs) {
 *         await sleep(1);
 *         console.log(`worker ${worker}: ${job}`);
 *       }
 *     });
 *   }
 *   for (const job of ["a", "b", "c", "d"]) await jobs.send(job); // waits while both workers and the channel are full
 *   jobs.close(); // the workers take what is left, and end
 * });
 * ```
 */
export function channel<T>(capacity = 0): Channel<T> {
  if (capacity !== Infinity && !(Number.isInteger(capacity) && capacity >= 0)) {
    throw new RangeError(`capacity must be an integer of 0 or more, or Infinity: ${shown(capacity)}`);
  }
  admit();
  return new Channel<T>(capacity);
}

/** A `send` that waits, with its value. */
class Sender<T> extends Waiter<void> {
  readonly value: T;

  constructor(value: T, signal: AbortSignal | undefined) {
    super(signal);
    this.value = value;
  }
}

/** What waits for a value. */
type Receiver<T> = Waiter<IteratorResult<T, undefined>>;

/** A channel; see {@linkcode channel}. */
export class Channel<T> implements AsyncIterable<T>, Disposable {
  /** How many values it holds while nobody receives them. */
  readonly capacity: number;
  readonly #values = new Queue<T>();
  readonly #senders = new Queue<Sender<T>>();
  readonly #receivers = new Queue<Receiver<T>>();
  readonly #membership: Membership;
  #closed = false;
  /** The reason of its scope, once that has ended it. */
  #ended: { reason: unknown } | null = null;

  /** @ignore Channels come from `channel`. */
  constructor(capacity: number) {
    this.capacity = capacity;
    this.#membership = new Membership((reason, token) => this.#end(reason, token));
  }

  /** How many values it holds. */
  get length(): number {
    return this.#values.length;
  }

  /** Whether it was closed, or its scope has ended. */
  get closed(): boolean {
    return this.#closed;
  }

  /**
   * Sends a value, and waits until there is a place for it or someone has received it. A rejected `send` has sent
   * nothing.
   *
   * @param value Any value, `undefined` included.
   * @param options `signal` gives up.
   * @throws {ChannelClosedError} If the channel is closed, or is closed while this waits.
   * @throws The reason, when the scope around this, its signal or the channel's scope is cancelled.
   */
  async send(value: T, options: CancelOptions = {}): Promise<void> {
    admit(options.signal);
    if (this.#closed) throw this.#refusal();
    const receiver = this.#receivers.shift();
    if (receiver !== undefined) return receiver.resolve({ done: false, value });
    if (this.#values.length < this.capacity) return void this.#values.push(value);
    const sender = new Sender(value, options.signal);
    const place = this.#senders.push(sender);
    sender.onCancel = () => place.leave();
    await sender.promise;
  }

  /**
   * Receives the next value, or waits for one.
   *
   * @param options `signal` gives up.
   * @returns As of an iterator's `next`: `{ done: false, value }`; once the channel is closed and empty,
   * `{ done: true, value: undefined }`.
   * @throws The reason, when the scope around this, its signal or the channel's scope is cancelled.
   */
  async receive(options: CancelOptions = {}): Promise<IteratorResult<T, undefined>> {
    admit(options.signal);
    if (this.#ended !== null) throw this.#ended.reason;
    if (this.#values.length > 0) {
      const value = this.#values.shift()!;
      // The place that is free now is the first sender's.
      const next = this.#takeFromSender();
      if (next !== null) this.#values.push(next.value);
      if (this.#closed && this.#values.length === 0) this.#membership.leave();
      return { done: false, value };
    }
    const sent = this.#takeFromSender();
    if (sent !== null) return { done: false, value: sent.value };
    if (this.#closed) return { done: true, value: undefined };
    const receiver: Receiver<T> = new Waiter(options.signal);
    const place = this.#receivers.push(receiver);
    receiver.onCancel = () => place.leave();
    return await receiver.promise;
  }

  /**
   * Nothing can be sent any more: what waits to send rejects with a {@linkcode ChannelClosedError}. What the channel
   * holds can still be received. Closing twice is closing once.
   */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    for (let sender = this.#senders.shift(); sender !== undefined; sender = this.#senders.shift()) {
      sender.reject(this.#refusal());
    }
    for (let receiver = this.#receivers.shift(); receiver !== undefined; receiver = this.#receivers.shift()) {
      receiver.resolve({ done: true, value: undefined });
    }
    if (this.#values.length === 0) this.#membership.leave();
  }

  /** As `close`. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Receives until the channel is closed and empty. Leaving the loop early does not close it: others may receive. */
  [Symbol.asyncIterator](): AsyncIterableIterator<T, undefined> {
    return {
      next: () => this.receive(),
      [Symbol.asyncIterator]() {
        return this;
      },
    };
  }

  #takeFromSender(): { value: T } | null {
    const sender = this.#senders.shift();
    if (sender === undefined) return null;
    sender.resolve();
    return sender;
  }

  #refusal(): unknown {
    if (this.#ended !== null) return this.#ended.reason;
    return new ChannelClosedError("The channel is closed: this value was not sent");
  }

  async #end(reason: unknown, token: CancelToken): Promise<void> {
    this.#ended = { reason };
    this.#closed = true;
    for (let sender = this.#senders.shift(); sender !== undefined; sender = this.#senders.shift()) {
      sender.reject(reason);
    }
    for (let receiver = this.#receivers.shift(); receiver !== undefined; receiver = this.#receivers.shift()) {
      receiver.reject(reason);
    }
    while (this.#values.length > 0) {
      // There is nobody to whom a failure to close what nobody wanted could be told.
      await disposeUnclaimed(this.#values.shift(), token).catch(() => {});
    }
  }
}

/** A channel's place in the scope it belongs to, which waits until the channel has ended. */
class Membership extends Cancellable {
  readonly #end: (reason: unknown, token: CancelToken) => Promise<void>;

  constructor(end: (reason: unknown, token: CancelToken) => Promise<void>) {
    super();
    this.#end = end;
    CancelToken.current()?.join(this);
  }

  override cancel(reason: unknown): void {
    const token = this.joined!;
    const why = token.cancelled ? reason : new DOMException(
      "The channel ended with the scope that it was opened in: open it in one that outlives its users",
      "AbortError",
    );
    this.#end(why, token).finally(() => this.leave());
  }

  leave(): void {
    this.joined?.leave(this);
  }
}
