/**
 * Messages between rings: MSG_RING puts a CQE into another ring, with a `user_data` that no request ever has.
 *
 * @module
 */
import type { Driver } from "./driver.ts";
import { Multishot } from "./multishot.ts";
import { Cause, type OperationOptions, type Request, RequestState } from "./request.ts";
import { Op, SQE_WORDS } from "./uring_abi.ts";

/** The low word of a message's `user_data`, where a request has its slot; the high word is the message's upper half. */
export const MESSAGE_USER_DATA = 0xffff_ffff;
const IORING_MSG_DATA = 0;
/** About 285,000 years: until it is cancelled. */
const FOREVER_MS = Number.MAX_SAFE_INTEGER;

/** Sends a number to a ring. */
export function sendMessage(
  driver: Driver,
  ringFd: number,
  message: number,
  options?: OperationOptions,
): Promise<number> {
  if (!Number.isSafeInteger(message) || message < 0) {
    throw new RangeError(`A message must be an integer from 0 to 2^53 - 1, not ${message}`);
  }
  if (!Number.isInteger(ringFd)) throw new TypeError("ringFd must be the number of a ring's descriptor");
  const request = driver.request(Op.MSG_RING, "send");
  request.words = new Uint32Array(SQE_WORDS);
  request.words[0] = Op.MSG_RING;
  request.words[1] = ringFd;
  request.words[2] = MESSAGE_USER_DATA;
  request.words[3] = Math.floor(message / 0x1_0000_0000);
  request.words[4] = IORING_MSG_DATA;
  request.words[6] = message >>> 0;
  return driver.start<number>(request, options);
}

/** What has been sent to a ring. */
export class Inbox {
  readonly #driver: Driver;
  /** Messages that nobody waited for, from the oldest. */
  #kept: number[] = [];
  #keptFrom = 0;
  /** What readers had been given and did not take: older than all that is kept. */
  #returned: number[] = [];
  /** Who reads. */
  #reader: Request | null = null;

  constructor(driver: Driver) {
    this.#driver = driver;
  }

  /** Takes a message from a CQE. */
  deliver(result: number, high: number): void {
    const first = this.#kept.length === 0 && this.#returned.length === 0;
    if (first && this.#reading) this.#reader!.onShot!(result, high);
    else this.#kept.push(messageOf(result, high));
  }

  /**
   * The messages, one at a time. Reading stands in the kernel as a timeout that never passes, so that scopes, signals
   * and the ring's close end it as they end all else, and the event loop is woken for this ring.
   */
  messages(signal?: AbortSignal): AsyncIterableIterator<number> {
    return new Multishot<number>(this.#driver, {
      request: () => {
        if (this.#reading) throw new Deno.errors.Busy("Somebody reads this ring's messages already");
        const request = this.#driver.request(Op.TIMEOUT, "messages");
        request.durationMs = FOREVER_MS;
        this.#reader = request;
        queueMicrotask(() => this.#deliverKept());
        return request;
      },
      decode: messageOf,
      discard: (message) => this.#returned.push(message),
    }, signal);
  }

  /** Whether there is a reader that has not been told to stop. */
  get #reading(): boolean {
    const reader = this.#reader;
    return reader !== null && reader.cause === Cause.None && reader.state < RequestState.Completed;
  }

  #deliverKept(): void {
    while (this.#reading && this.#returned.length > 0) this.#hand(this.#returned.shift()!);
    while (this.#reading && this.#keptFrom < this.#kept.length) this.#hand(this.#kept[this.#keptFrom++]);
    if (this.#keptFrom < this.#kept.length) return;
    this.#kept = [];
    this.#keptFrom = 0;
  }

  #hand(message: number): void {
    this.#reader!.onShot!(message | 0, Math.floor(message / 0x1_0000_0000));
  }
}

function messageOf(result: number, high: number): number {
  return high * 0x1_0000_0000 + (result >>> 0);
}
