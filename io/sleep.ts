/**
 * Waiting, in the kernel.
 *
 * @module
 */
import type { Driver } from "../ring/driver.ts";
import { milliseconds } from "../ring/driver.ts";
import type { OperationOptions } from "../ring/request.ts";
import { driverOf, type Ring } from "../ring/ring.ts";
import { Op } from "../ring/uring_abi.ts";
import { type Clock, installClock } from "../scope/clock.ts";
import { CancelToken } from "../scope/cancel_token.ts";
import type { Request } from "../ring/request.ts";

/** Options of {@linkcode sleep}. */
export interface SleepOptions extends OperationOptions {
  /** The ring that waits. Default: the default ring. */
  ring?: Ring;
}

/**
 * Waits for `ms` milliseconds, on a timer of the kernel (`IORING_OP_TIMEOUT`).
 *
 * @param ms Milliseconds; fractions count. 0 comes back as soon as the kernel has looked.
 * @param options `signal`, `timeout`, and the ring.
 * @throws {RangeError} If `ms` is negative, NaN or infinite.
 * @throws The reason, when its signal or the scope around it is cancelled first.
 *
 * @example
 * ```ts
 * import { sleep } from "@ringscope/ringscope";
 *
 * await sleep(2.5);
 * ```
 */
export async function sleep(ms: number, options?: SleepOptions): Promise<void> {
  if (milliseconds("ms", ms) < 0) throw new RangeError("ms must be finite: Infinity");
  const driver = driverOf(options?.ring);
  await driver.start(timer(driver, ms, "sleep"), options);
}

function timer(driver: Driver, ms: number, operation: string): Request {
  const request = driver.request(Op.TIMEOUT, operation);
  request.durationMs = ms;
  request.pollable = true;
  return request;
}

/**
 * Deadlines of scopes run on the default ring, outside of every scope: a scope's end stops its own timer. If that ring is
 * closed meanwhile, they run on the next one.
 */
const clock: Clock = {
  now: () => performance.now(),
  set(ms, fire) {
    const token = new CancelToken();
    const end = performance.now() + ms;
    const run = (ms: number): Promise<void> => {
      const driver = driverOf();
      return token.run(() => driver.start<number>(timer(driver, ms, "timeout"))).then(fire, goOn);
    };
    const goOn = () => token.cancelled ? undefined : run(Math.max(0, end - performance.now()));
    const stopped = run(ms);
    return {
      stop() {
        token.cancel(undefined);
        return stopped;
      },
    };
  },
};

installClock(clock);
