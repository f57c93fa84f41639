/**
 * The cancel token: the one type that scopes and rings share. A scope owns a token; an operation in flight joins the
 * token that was current where it was made, and is told when that token is cancelled. Tokens form a tree, and a child
 * token is itself something a parent can cancel.
 *
 * @module
 */
import { AsyncLocalStorage } from "node:async_hooks";

/**
 * Something a token can cancel: an operation in flight, or a child token. It is a node of the token's own doubly
 * linked list, so that joining and leaving allocate nothing (an operation does both once).
 */
export abstract class Cancellable {
  /** The token this is joined to, `null` while it is joined to none. Written by {@linkcode CancelToken} alone. */
  joined: CancelToken | null = null;
  previous: Cancellable | null = null;
  next: Cancellable | null = null;

  /** Called at most once for each time this joined a token, after it has left that token's list. */
  abstract cancel(reason: unknown): void;
}

/** A place in the tree of cancellation: cancelled at most once, for good, with everything that has joined it. */
export class CancelToken extends Cancellable {
  /** The token around this one, whether or not its cancellation reaches in here (see `shielded`). */
  readonly parent: CancelToken | null;
  /** A shielded token does not hear of its parent's cancellation. */
  readonly shielded: boolean;
  /** When this token is to be cancelled by itself, in milliseconds of `Clock.now()`; `Infinity` for never. */
  deadline = Infinity;
  /** The error a passed deadline cancels with. Set together with `deadline`. */
  deadlineReason: (() => unknown) | null = null;
  /** Whether `cancel` was called. Level-triggered: it stays true. */
  cancelled = false;
  /** What operations reject with once `cancelled`. */
  reason: unknown = undefined;
  #first: Cancellable | null = null;

  constructor(parent: CancelToken | null = null, { shielded = false } = {}) {
    super();
    this.parent = parent;
    this.shielded = shielded;
    if (parent === null || shielded) return;
    if (parent.cancelled) {
      this.cancelled = true;
      this.reason = parent.reason;
    } else {
      parent.join(this);
    }
  }

  /** The token of the innermost scope in whose call tree this runs; `undefined` outside of all scopes. */
  static current(): CancelToken | undefined {
    return ambient.getStore();
  }

  /** Runs `fn` with this token current, in it and in everything it starts. */
  run<T>(fn: () => T): T {
    return ambient.run(this, fn);
  }

  /** Whether nothing has joined. */
  get idle(): boolean {
    return this.#first === null;
  }

  /** Adds to what a cancel reaches. The token must not be cancelled; the caller looks first. */
  join(member: Cancellable): void {
    if (this.cancelled) throw new Error("BUG: joined a cancelled token");
    if (member.joined !== null) throw new Error("BUG: joined a second token");
    member.joined = this;
    member.previous = null;
    member.next = this.#first;
    if (this.#first !== null) this.#first.previous = member;
    this.#first = member;
  }

  /** Takes `member` out again; nothing happens if a cancel has taken it out already. */
  leave(member: Cancellable): void {
    if (member.joined !== this) return;
    if (member.previous === null) this.#first = member.next;
    else member.previous.next = member.next;
    if (member.next !== null) member.next.previous = member.previous;
    member.joined = member.previous = member.next = null;
  }

  /**
   * Cancels everything that has joined, once; a second call changes nothing, its reason included. Tokens below are
   * taken one by one, so that however deep scopes are nested the stack is not.
   */
  override cancel(reason: unknown): void {
    const tokens: CancelToken[] = [this];
    for (let token = tokens.pop(); token !== undefined; token = tokens.pop()) {
      if (token.cancelled) continue;
      token.cancelled = true;
      token.reason = reason;
      for (let member = token.#first; member !== null; member = token.#first) {
        token.leave(member);
        if (member instanceof CancelToken) tokens.push(member);
        else member.cancel(reason);
      }
    }
  }

  /** Leaves the parent: called when the owner of this token has settled. */
  release(): void {
    this.parent?.leave(this);
  }
}

const ambient = new AsyncLocalStorage<CancelToken>();

/**
 * The token that stands for an `AbortSignal` from outside. It listens to the signal only while something has joined
 * it: one listener for any number of operations, and none that outlives the last of them.
 */
class SignalToken extends CancelToken {
  readonly #signal: AbortSignal;
  readonly #onAbort = () => this.cancel(this.#signal.reason);

  constructor(signal: AbortSignal) {
    super();
    this.#signal = signal;
    if (signal.aborted) this.cancel(signal.reason);
  }

  override join(member: Cancellable): void {
    const first = this.idle;
    super.join(member);
    if (first) this.#signal.addEventListener("abort", this.#onAbort, { once: true });
  }

  override leave(member: Cancellable): void {
    super.leave(member);
    if (this.idle && !this.cancelled) this.#signal.removeEventListener("abort", this.#onAbort);
  }
}

const signalTokens = new WeakMap<AbortSignal, SignalToken>();

/**
 * The token of an outside signal, one for each signal. Throws a `TypeError` for what is not an `AbortSignal`.
 * If the signal has aborted, the token is cancelled with the signal's reason.
 */
export function tokenOf(signal: AbortSignal): CancelToken {
  let token = signalTokens.get(signal);
  if (token === undefined) {
    if (!(signal instanceof AbortSignal)) throw new TypeError("signal must be an AbortSignal");
    token = new SignalToken(signal);
    signalTokens.set(signal, token);
  } else if (signal.aborted) {
    // The listener is not there between operations, so the signal is asked again.
    token.cancel(signal.reason);
  }
  return token;
}
