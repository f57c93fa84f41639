/**
 * What the tests of scopes stand on: operations that end when they are told to, and a clock that goes when it is told
 * to. So the laws are tested without the kernel, and in a fixed order of events.
 *
 * @module
 */
import { delay } from "@std/async";
import { Cancellable, CancelToken } from "../scope/cancel_token.ts";
import { type Alarm, type Clock, installClock } from "../scope/clock.ts";

/** An operation as rings make them: it joins the current token, and leaves when it has come back. */
export class Operation<T = void> extends Cancellable {
  readonly promise: Promise<T>;
  /** Whether it was admitted: its scope was not cancelled. */
  readonly started: boolean;
  /** How often it was told to stop. */
  cancels = 0;
  back = false;
  reason: unknown = undefined;
  readonly #lingers: boolean;
  #resolve!: (value: T) => void;
  #reject!: (reason: unknown) => void;

  /** One that `lingers` does not come back at a cancel, but when it is told to. */
  constructor({ lingers = false } = {}) {
    super();
    this.#lingers = lingers;
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    // One that nobody awaits is not what these tests are about.
    this.promise.catch(() => {});
    const token = CancelToken.current();
    this.started = token === undefined || !token.cancelled;
    if (token === undefined) return;
    if (token.cancelled) this.#reject(token.reason);
    else token.join(this);
  }

  complete(value: T): void {
    if (this.#comeBack()) this.#resolve(value);
  }

  fail(error: unknown): void {
    if (this.#comeBack()) this.#reject(error);
  }

  /** The end of one that lingers, after a cancel. */
  end(): void {
    this.fail(this.reason);
  }

  override cancel(reason: unknown): void {
    this.cancels++;
    this.reason = reason;
    if (!this.#lingers) this.end();
  }

  #comeBack(): boolean {
    if (this.back || !this.started) return false;
    this.back = true;
    this.joined?.leave(this);
    return true;
  }
}

/** Waits for a cancel, as an operation that never completes by itself does. */
export function forever(): Promise<void> {
  return new Operation().promise;
}

/** Time that stands still until it is advanced. */
export class ManualClock implements Clock {
  /** Alarms that are set and were neither stopped nor have fired. */
  readonly pending: { at: number; fire: () => void }[] = [];
  /** Alarms ever set. */
  timesSet = 0;
  stops = 0;
  #now = 1000;

  now(): number {
    return this.#now;
  }

  set(ms: number, fire: () => void): Alarm {
    const alarm = { at: this.#now + ms, fire };
    this.pending.push(alarm);
    this.timesSet++;
    return {
      stop: async () => {
        this.#take(alarm);
        await delay(0);
        this.stops++;
      },
    };
  }

  /** Time passes, and the alarms that are due go off, the earliest first. */
  async advance(ms: number): Promise<void> {
    this.skip(ms);
    for (let due = this.#due(); due !== undefined; due = this.#due()) {
      this.#take(due);
      due.fire();
      await turn();
    }
  }

  /** Time passes, and no alarm is heard. */
  skip(ms: number): void {
    this.#now += ms;
  }

  /** The alarm set last goes off, before all others. */
  fireLast(): void {
    this.pending.pop()!.fire();
  }

  #due() {
    return this.pending.filter(({ at }) => at <= this.#now).sort((a, b) => a.at - b.at)[0];
  }

  #take(alarm: { at: number }): void {
    const i = this.pending.findIndex((other) => other === alarm);
    if (i >= 0) this.pending.splice(i, 1);
  }
}

/** Installs a clock of one's own. */
export function manualClock(): ManualClock {
  const clock = new ManualClock();
  installClock(clock);
  return clock;
}

/** Lets everything happen that is not waiting for something else. */
export function turn(): Promise<void> {
  return delay(0);
}

/** What has become of a promise so far. */
export function watch(promise: PromiseLike<unknown>): { state: "pending" | "fulfilled" | "rejected"; value: unknown } {
  const outcome: ReturnType<typeof watch> = { state: "pending", value: undefined };
  promise.then(
    (value) => Object.assign(outcome, { state: "fulfilled", value }),
    (value) => Object.assign(outcome, { state: "rejected", value }),
  );
  return outcome;
}

/** How many "abort" listeners a signal has, from now on. */
export function countListeners(signal: AbortSignal): { now: number; added: number } {
  const listeners = new Set<unknown>();
  const count = { now: 0, added: 0 };
  const { addEventListener, removeEventListener } = signal;
  signal.addEventListener = (type: string, listener: EventListener, options?: AddEventListenerOptions) => {
    listeners.add(listener);
    count.added++;
    count.now = listeners.size;
    addEventListener.call(signal, type, listener, options);
    if (options?.once) addEventListener.call(signal, type, () => drop(listener), { once: true });
  };
  signal.removeEventListener = (type: string, listener: EventListener) => {
    removeEventListener.call(signal, type, listener);
    drop(listener);
  };
  const drop = (listener: unknown) => {
    listeners.delete(listener);
    count.now = listeners.size;
  };
  return count;
}

/** Runs `fn` and gives what was reported as an unhandled rejection meanwhile. */
export async function unhandledRejections(fn: () => Promise<unknown>): Promise<unknown[]> {
  const reasons: unknown[] = [];
  const listener = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    reasons.push(event.reason);
  };
  addEventListener("unhandledrejection", listener);
  try {
    await fn();
    await turn();
    await turn();
  } finally {
    removeEventListener("unhandledrejection", listener);
  }
  return reasons;
}

/** A resource as io/ makes them, which knows whether it was disposed of. */
export class Resource implements AsyncDisposable {
  disposed = 0;
  readonly #onDispose: () => unknown;

  constructor(onDispose: () => unknown = () => {}) {
    this.#onDispose = onDispose;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.disposed++;
    await this.#onDispose();
  }
}
