/**
 * Ticks.
 *
 * @module
 */
import { milliseconds } from "../ring/driver.ts";
import type { Driver } from "../ring/driver.ts";
import { Errno } from "../ring/errno.ts";
import { Multishot } from "../ring/multishot.ts";
import type { Request } from "../ring/request.ts";
import { driverOf, type Ring } from "../ring/ring.ts";
import { Op } from "../ring/uring_abi.ts";

/** Options of {@linkcode interval}. */
export interface IntervalOptions {
  /** How many periods it takes: the iteration ends with the tick numbered `count - 1`. Default: no end. */
  count?: number;
  /** Stops it; `next` then rejects with its reason. */
  signal?: AbortSignal;
  /** The ring whose timer it is. Default: the default ring. */
  ring?: Ring;
}

const IORING_TIMEOUT_MULTISHOT = 1 << 6;
/** A tick may come this part of a period late before the kernel's timer, which then runs on late, is set anew. */
const TOLERANCE = 0.25;
/** What the clock's resolution may make of a tick that is in time. */
const CLOCK_GRAIN_MS = 0.01;

/**
 * Ticks every `ms` milliseconds, on a timer of the kernel: one multishot `IORING_OP_TIMEOUT` (6.4; before, one TIMEOUT
 * after another). The first tick comes after `ms`.
 *
 * Ticks keep to the time of the first `next`: their lateness does not add up. Who comes late for a tick gets the last
 * one only, and its number tells how many were missed: tick `n` stands for the end of the period `n`, counted from 0.
 *
 * @param ms Milliseconds, more than 0; fractions count.
 * @param options `count`, `signal`, and the ring.
 * @returns An iterator over the numbers of the ticks; it belongs to the scope it is made in. Leaving the loop stops
 * the timer.
 * @throws {RangeError} If `ms` is not a finite number above 0, or `count` is not an integer of 0 or more.
 *
 * @example
 * ```ts
 * import { interval } from "@ringscope/ringscope";
 *
 * for await (const n of interval(10, { count: 3 })) console.log(n); // 0, 1, 2
 * ```
 */
export function interval(ms: number, options: IntervalOptions = {}): AsyncIterableIterator<number> {
  const { count = Infinity, signal, ring } = options;
  if (milliseconds("ms", ms) <= 0) throw new RangeError(`ms must be finite and more than 0: ${ms}`);
  if (count !== Infinity && !(Number.isInteger(count) && count >= 0)) {
    throw new RangeError(`count must be an integer, 0 or more: ${count}`);
  }
  return new Interval(driverOf(ring), ms, count, signal);
}

class Interval implements AsyncIterableIterator<number> {
  readonly #driver: Driver;
  readonly #ms: number;
  readonly #count: number;
  readonly #signal: AbortSignal | undefined;
  /** What comes of the timer: each is only a reason to look at the clock. */
  readonly #alarms: Multishot<true>;
  #multishot: boolean;
  /** When the interval began: tick `n` is due at `startedMs + (n + 1) * ms`. */
  #startedMs = -1;
  /** The tick that was last taken. */
  #taken = -1;

  constructor(driver: Driver, ms: number, count: number, signal: AbortSignal | undefined) {
    this.#driver = driver;
    this.#ms = ms;
    this.#count = count;
    this.#signal = signal;
    this.#multishot = driver.features.multishotTimeout;
    this.#alarms = new Multishot<true>(driver, {
      request: () => this.#request(),
      decode: () => this.#alarm(),
      discard: () => {},
      retryAfter: (result) => {
        if (result !== -Errno.EINVAL || !this.#multishot) return undefined;
        this.#multishot = false; // an older kernel
        return 0;
      },
    }, signal);
  }

  async next(): Promise<IteratorResult<number, undefined>> {
    this.#driver.admit({ signal: this.#signal });
    if (this.#taken >= this.#count - 1) return await this.return();
    if (this.#startedMs < 0) this.#startedMs = performance.now();
    for (;;) {
      const last = Math.min(Math.floor(this.#periods()), this.#count) - 1;
      if (last > this.#taken) {
        this.#taken = last;
        if (last === this.#count - 1) await this.#alarms.return();
        return { done: false, value: last };
      }
      const { done } = await this.#alarms.next();
      if (done) return { done, value: undefined };
    }
  }

  async return(): Promise<IteratorResult<number, undefined>> {
    this.#taken = Infinity;
    await this.#alarms.return();
    return { done: true, value: undefined };
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.return();
  }

  /** Periods that have passed. */
  #periods(): number {
    return (performance.now() - this.#startedMs + CLOCK_GRAIN_MS) / this.#ms;
  }

  #stop = (): void => {};

  /** A multishot timer at the beginning of a period, else one for the rest of it. */
  #request(): Request {
    const periods = this.#periods();
    const passed = periods - Math.floor(periods);
    const request = this.#driver.request(Op.TIMEOUT, "interval");
    request.pollable = true;
    if (this.#multishot && passed <= TOLERANCE) {
      request.durationMs = this.#ms;
      request.opFlags = IORING_TIMEOUT_MULTISHOT;
    } else {
      request.durationMs = (1 - passed) * this.#ms;
    }
    this.#stop = () => request.cancel(undefined);
    return request;
  }

  /** The kernel counts the next period from when it has served this one: too far behind, the timer is set anew. */
  #alarm(): true {
    const periods = this.#periods();
    if (periods - Math.floor(periods) > TOLERANCE) this.#stop();
    return true;
  }
}
