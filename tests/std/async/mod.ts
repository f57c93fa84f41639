/**
 * The part of `@std/async` that the tests use, so that they run where JSR cannot be reached. `make test-jsr` runs the
 * same tests with the published package: names, signatures and outcomes must stay its own.
 *
 * Plain timers, not `node:timers/promises`: the latter ignores its `signal` on Deno 2.3 and before.
 *
 * @module
 */

/** Options of {@linkcode delay}. */
export interface DelayOptions {
  /** Ends the delay early; it then rejects with the signal's reason. */
  signal?: AbortSignal;
  /** Whether the delay keeps the process alive. Default: true. */
  persistent?: boolean;
}

/** Options of {@linkcode deadline}. */
export interface DeadlineOptions {
  /** Ends the waiting early; it then rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** Resolves after `ms` milliseconds. */
export function delay(ms: number, { signal, persistent = true }: DelayOptions = {}): Promise<void> {
  if (signal?.aborted) return Promise.reject(signal.reason);
  return new Promise((resolve, reject) => {
    const abort = () => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", abort);
      resolve();
    }, ms);
    signal?.addEventListener("abort", abort, { once: true });
    if (!persistent) Deno.unrefTimer(timer);
  });
}

/**
 * Settles as `p` does, or rejects with a `DOMException` "TimeoutError" after `ms` milliseconds. It ends the waiting,
 * not the work.
 */
export function deadline<T>(p: Promise<T>, ms: number, { signal }: DeadlineOptions = {}): Promise<T> {
  if (signal?.aborted) return Promise.reject(signal.reason);
  return new Promise((resolve, reject) => {
    const settle = (conclude: () => void) => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", abort);
      conclude();
    };
    const abort = () => settle(() => reject(signal?.reason));
    const expire = () => settle(() => reject(new DOMException("Signal timed out.", "TimeoutError")));
    // setTimeout knows no infinity: it would fire at once.
    const timer = ms === Infinity ? undefined : setTimeout(expire, ms);
    signal?.addEventListener("abort", abort, { once: true });
    p.then((value) => settle(() => resolve(value)), (error) => settle(() => reject(error)));
  });
}
