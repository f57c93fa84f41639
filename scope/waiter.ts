/**
 * Waiting for another part of the program, as scopes see it: an operation like those of the kernel, which a cancel
 * ends.
 *
 * @module
 */
import { Cancellable, CancelToken, tokenOf } from "./cancel_token.ts";
import { joinSignal } from "./cancellation.ts";

/** Throws the reason if no operation is to start here: the scope or the signal is cancelled. */
export function admit(signal?: AbortSignal): void {
  const token = CancelToken.current();
  if (token !== undefined && token.cancelled) throw token.reason;
  if (signal === undefined) return;
  const outside = tokenOf(signal);
  if (outside.cancelled) throw outside.reason;
}

/** One that waits in the current scope, which `admit` has been asked about. A cancel rejects its promise at once. */
export class Waiter<T> extends Cancellable {
  readonly promise: Promise<T>;
  readonly #resolve: (value: T) => void;
  readonly #reject: (reason: unknown) => void;
  readonly #leaveSignal: () => void;
  /** Called when a cancel ends the wait: nobody is to settle it any more. */
  onCancel: (() => void) | null = null;

  constructor(signal?: AbortSignal) {
    super();
    const { promise, resolve, reject } = Promise.withResolvers<T>();
    this.promise = promise;
    this.#resolve = resolve;
    this.#reject = reject;
    CancelToken.current()?.join(this);
    this.#leaveSignal = joinSignal(this, signal);
  }

  resolve(value: T): void {
    this.#comeBack();
    this.#resolve(value);
  }

  reject(reason: unknown): void {
    this.#comeBack();
    this.#reject(reason);
  }

  override cancel(reason: unknown): void {
    this.onCancel?.();
    this.reject(reason);
  }

  #comeBack(): void {
    this.joined?.leave(this);
    this.#leaveSignal();
  }
}
