/**
 * What scopes, deadlines and races have in common: which errors are cancellations, which reason is reported, and how a
 * signal from outside comes in.
 *
 * @module
 */
import { Cancellable, type CancelToken, tokenOf } from "./cancel_token.ts";
import { clock } from "./clock.ts";

/** Options of everything that runs functions in a scope. */
export interface CancelOptions {
  /**
   * Cancels all that runs inside when it aborts, with `signal.reason`. If it is aborted already the function still runs,
   * as in any cancelled scope, and its first operation rejects.
   */
  signal?: AbortSignal;
}

/** The reason for a cancel that was given none. */
export function abortError(message: string, options?: ErrorOptions): DOMException {
  const error = new DOMException(message, "AbortError");
  if (options !== undefined) Object.defineProperty(error, "cause", { value: options.cause, configurable: true });
  return error;
}

/**
 * Whether an error is no more than the cancellation of this token or of one around it that reaches in here: by
 * identity. Behind a shield, a reason from outside of it is an error like any other.
 */
export function isCancellation(error: unknown, token: CancelToken): boolean {
  for (let at: CancelToken | null = token; at !== null; at = at.shielded ? null : at.parent) {
    if (at.cancelled && at.reason === error) return true;
  }
  return false;
}

/** The wish to end that reaches a token, of the innermost that was asked; `null` where there is none. */
export function stopOf(token: CancelToken): { readonly reason: unknown } | null {
  for (let at: CancelToken | null = token; at !== null; at = at.shielded ? null : at.parent) {
    if (at.stopping !== null) return at.stopping;
  }
  return null;
}

/** Whether an error is no more than an answer to such a wish: its reason, by identity. */
export function isStop(error: unknown, token: CancelToken): boolean {
  for (let at: CancelToken | null = token; at !== null; at = at.shielded ? null : at.parent) {
    if (at.stopping !== null && at.stopping.reason === error) return true;
  }
  return false;
}

/** A signal that aborts when the token's owner is asked to end, or cancelled without having been asked. */
export function stoppingSignal(token: CancelToken): AbortSignal {
  const controller = new AbortController();
  const stop = stopOf(token);
  if (stop !== null) controller.abort(stop.reason);
  else if (token.cancelled) controller.abort(token.reason);
  else {
    token.onStop = (reason) => controller.abort(reason);
    onCancel(token, token.onStop);
  }
  return controller.signal;
}

/** Adds to what is called when a token is cancelled. */
export function onCancel(token: CancelToken, listener: (reason: unknown) => void): void {
  const before = token.onCancel;
  token.onCancel = before === null ? listener : (reason) => (before(reason), listener(reason));
}

/** A wrong value as errors show it: `"3"` is no 3, nor is `3n`. */
export function shown(value: unknown): string {
  return typeof value === "string" ? JSON.stringify(value) : typeof value === "bigint" ? `${value}n` : String(value);
}

/** Checks a duration. */
export function requireMilliseconds(name: string, ms: number): void {
  if (typeof ms !== "number") throw new TypeError(`${name} must be a number of milliseconds, not ${typeof ms}`);
  if (!(ms >= 0)) throw new RangeError(`${name} must not be negative, nor NaN: ${ms}`);
}

/**
 * The reason that a cancelled scope reports: that of the outermost one whose cancellation reaches in here. A deadline
 * that has passed counts although its timer has not been heard yet.
 */
export function reportedReason(token: CancelToken): unknown {
  let { reason } = token;
  // From origin to origin: of all that one cancel has reached each would look at each, however deep they are.
  for (let at = token.origin; !at.shielded && at.parent !== null;) {
    at = at.parent.origin;
    if (!at.cancelled && at.deadline < Infinity && at.deadline <= clock().now()) at.cancel(at.deadlineReason!());
    if (at.cancelled) reason = at.reason;
  }
  return reason;
}

/** Joins a token, or a wait, to a signal from outside; call what this returns when its owner has settled. */
export function joinSignal(target: Cancellable, signal: AbortSignal | undefined): () => void {
  if (signal === undefined) return nothing;
  const outside = tokenOf(signal);
  if (outside.cancelled) {
    target.cancel(outside.reason);
    return nothing;
  }
  const forward = new Forward(target);
  outside.join(forward);
  return () => outside.leave(forward);
}

/** Carries the cancellation of a signal's token on. */
class Forward extends Cancellable {
  readonly #to: Cancellable;

  constructor(to: Cancellable) {
    super();
    this.#to = to;
  }

  override cancel(reason: unknown): void {
    this.#to.cancel(reason);
  }
}

/**
 * Runs a function under a token that is its own, and settles when nothing that it started is left: what it has not
 * waited for is cancelled. The token is released then.
 */
export async function runUnder<T>(token: CancelToken, fn: () => T | PromiseLike<T>): Promise<T> {
  try {
    return await token.run(fn);
  } finally {
    if (!token.idle) await token.abandon();
    token.release();
  }
}

/** One real error is thrown as it is, several as an `AggregateError`, in the order in which they happened. */
export function oneOrAll(errors: Iterable<unknown>): unknown {
  const list = [...errors];
  return list.length === 1 ? list[0] : new AggregateError(list, `${list.length} errors in one scope`);
}

function nothing(): void {}
