/**
 * Children of scopes.
 *
 * @module
 */
import type { CancelToken } from "./cancel_token.ts";
import { abortError } from "./cancellation.ts";

/**
 * A child of a scope, which `Scope.spawn` returns. Awaiting it gives its function's value or error; not awaiting it is
 * fine, since the scope waits for it and reports its error in any case.
 *
 * @example
 * ```ts
 * import { scope, sleep } from "@ringscope/ringscope";
 *
 * await scope(async (s) => {
 *   const task = s.spawn(async () => (await sleep(1), "done"));
 *   console.log(await task); // "done"
 * });
 * ```
 */
export class Task<T> implements PromiseLike<T> {
  readonly #promise: Promise<T>;
  readonly #token: CancelToken;

  /** @ignore Tasks come from `Scope.spawn`. */
  constructor(promise: Promise<T>, token: CancelToken) {
    this.#promise = promise;
    this.#token = token;
  }

  /**
   * Cancels this child alone. Its operations reject with the reason, and so does the task, if the child lets it pass;
   * that is no error of the scope. Does nothing to a child that has settled or is cancelled.
   *
   * @param reason Default: a `DOMException` named "AbortError".
   */
  cancel(reason: unknown = abortError("The task was cancelled")): void {
    this.#token.cancel(reason);
  }

  /** As a promise's. */
  then<Fulfilled = T, Rejected = never>(
    onFulfilled?: ((value: T) => Fulfilled | PromiseLike<Fulfilled>) | null,
    onRejected?: ((reason: unknown) => Rejected | PromiseLike<Rejected>) | null,
  ): Promise<Fulfilled | Rejected> {
    return this.#promise.then(onFulfilled, onRejected);
  }

  /** As a promise's. */
  catch<Rejected = never>(
    onRejected?: ((reason: unknown) => Rejected | PromiseLike<Rejected>) | null,
  ): Promise<T | Rejected> {
    return this.#promise.catch(onRejected);
  }

  /** As a promise's. */
  finally(onFinally?: (() => void) | null): Promise<T> {
    return this.#promise.finally(onFinally);
  }
}
