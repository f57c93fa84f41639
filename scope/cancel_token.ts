/**
 * The cancel token: the one type that scopes and rings share. A scope owns a token; an operation in flight joins the
 * token that was current where it was made, and is told when that token is cancelled. Tokens form a tree, and a child
 * token is itself something a parent can cancel.
 *
 * What has joined leaves only when it has come back, cancelled or not. So an idle token is the proof that nothing which
 * was started under it is left, and scopes are not left before.
 *
 * @module
 */
import { AsyncLocalStorage } from "node:async_hooks";

/**
 * Something a token can cancel: an operation in flight, or a child token. It is a node of the token's own doubly
 * linked lists, so that joining and leaving allocate nothing (an operation does both once).
 */
export abstract class Cancellable {
  /** The token this is joined to, `null` while it is joined to none. Written by {@linkcode CancelToken} alone. */
  joined: CancelToken | null = null;
  previous: Cancellable | null = null;
  next: Cancellable | null = null;

  /** Called at most once for each time this joined a token. It stays joined until it has come back, and leaves. */
  abstract cancel(reason: unknown): void;
}

/** A place in the tree of cancellation: cancelled at most once, for good, with everything that has joined it. */
export class CancelToken extends Cancellable {
  /** Whether `cancel` was called. Level-triggered: it stays true. */
  cancelled = false;
  /** Whether its owner has settled. */
  #released = false;
  /** Those who have joined and have not been told of a cancel, from the newest to the oldest. */
  #first: Cancellable | null = null;
  #last: Cancellable | null = null;
  /** Those who have been told, and have still to come back. */
  #firstTold: Cancellable | null = null;
  #onIdle: (() => void) | null = null;
  /** The token around this one, whether or not its cancellation reaches in here (see `shielded`). */
  readonly parent: CancelToken | null;
  /** A shielded token does not hear of its parent's cancellation. */
  readonly shielded: boolean;
  /** When this token is to be cancelled by itself, in milliseconds of `Clock.now()`; `Infinity` for never. */
  deadline = Infinity;
  /** The error a passed deadline cancels with. Set together with `deadline`. */
  deadlineReason: (() => unknown) | null = null;
  /** What operations reject with once `cancelled`. */
  reason: unknown = undefined;
  /** Which token's cancellation it is, this one's or one's around it, once `cancelled`. */
  origin: CancelToken = this;
  /** Called when this is cancelled, before those who have joined are told. */
  onCancel: ((reason: unknown) => void) | null = null;
  /** Whether `stop` was called, and why. */
  stopping: { readonly reason: unknown } | null = null;
  /** Called when this, or a token around it that reaches in here, is asked to come to an end. */
  onStop: ((reason: unknown) => void) | null = null;
  /** Called when the scope around this is left, and only this is in its way. */
  onAbandon: (() => void) | null = null;

  constructor(parent: CancelToken | null = null, { shielded = false } = {}) {
    super();
    this.parent = parent;
    this.shielded = shielded;
    if (parent === null) return;
    if (parent.cancelled && !shielded) {
      this.cancelled = true;
      this.reason = parent.reason;
      this.origin = parent.origin;
    }
    // The cancelled and the shielded too: they are not to be told, but to be waited for.
    parent.#add(this);
  }

  /**
   * The token of the innermost scope in whose call tree this runs; `undefined` outside of all scopes. What runs on
   * after its scope was left, such as the callback of a timer, belongs to the scope around that.
   */
  static current(): CancelToken | undefined {
    let token = ambient.getStore();
    while (token !== undefined && token.#released && !token.cancelled) token = token.parent ?? undefined;
    return token;
  }

  /** Runs `fn` with this token current, in it and in everything it starts. */
  run<T>(fn: () => T): T {
    return ambient.run(this, fn);
  }

  /** Runs `fn` where `token` was current, which may be outside of all scopes; for what goes on in a later turn. */
  static resume<T>(token: CancelToken | undefined, fn: () => T): T {
    return ambient.run(token!, fn);
  }

  /** Whether all that had joined has come back. */
  get idle(): boolean {
    return this.#first === null && this.#firstTold === null;
  }

  /** Adds to what a cancel reaches. The token must not be cancelled; the caller looks first. */
  join(member: Cancellable): void {
    if (this.cancelled) throw new Error("BUG: joined a cancelled token");
    this.#add(member);
  }

  /** Takes `member` out again: it has come back. Nothing happens if it is not in. */
  leave(member: Cancellable): void {
    if (member.joined !== this) return;
    this.#unlink(member);
    member.joined = null;
    if (this.#onIdle !== null && this.idle) this.#onIdle();
  }

  /**
   * Cancels everything that has joined, once; a second call changes nothing, its reason included. All tokens below are
   * cancelled before anything is told, so that what an abort listener starts can't slip into one of them. They are
   * taken one by one, so that however deep scopes are nested the stack is not.
   */
  override cancel(reason: unknown): void {
    const tokens: CancelToken[] = [];
    this.#mark(reason, this, tokens);
    for (const token of tokens) {
      for (let member = token.#first; member !== null; member = member.next) {
        if (member instanceof CancelToken && !member.shielded) member.#mark(reason, this, tokens);
      }
    }
    // The oldest child first, as within each.
    for (const token of tokens.reverse()) {
      token.onCancel?.(reason);
      token.#tell(reason, null);
    }
  }

  /**
   * Asks for an end of what goes on under this token, once. It is a wish: nothing is cancelled, and a cancel may follow.
   * All tokens below hear of it; those that come later look around themselves.
   */
  stop(reason: unknown): void {
    if (this.stopping !== null) return;
    this.stopping = { reason };
    const tokens: CancelToken[] = [this];
    for (const token of tokens) {
      for (let member = token.#last; member !== null; member = member.previous) {
        if (member instanceof CancelToken && !member.shielded) tokens.push(member);
      }
    }
    for (const token of tokens) token.onStop?.(reason);
  }

  #mark(reason: unknown, origin: CancelToken, tokens: CancelToken[]): void {
    if (this.cancelled) return;
    this.cancelled = true;
    this.reason = reason;
    this.origin = origin;
    tokens.push(this);
  }

  /**
   * Its owner is about to settle: what is in flight under this token that nobody has waited for is cancelled, and
   * resolves when it has come back.
   */
  async abandon(): Promise<void> {
    const reason = new DOMException("Its scope was left while this was in flight: await it, or spawn it", "AbortError");
    while (!this.idle) {
      const tokens: CancelToken[] = [];
      this.#tell(reason, tokens);
      for (const token of tokens) token.cancel(reason);
      for (let member = this.#firstTold; member !== null; member = member.next) {
        if (member instanceof CancelToken) member.onAbandon?.();
      }
      if (!this.idle) await new Promise<void>((resolve) => this.#onIdle = resolve);
      this.#onIdle = null;
    }
  }

  /**
   * Leaves the parent: its owner has settled. What is still under it belongs to the parent from now on, as does what
   * comes later: a function that nobody has waited for may have gone on meanwhile.
   */
  release(): void {
    this.#released = true;
    const around = this.joined;
    if (around === null) return;
    for (let member = this.#last; member !== null; member = this.#last) {
      this.#unlink(member);
      member.joined = null;
      around.#add(member);
    }
    for (let member = this.#firstTold; member !== null; member = this.#firstTold) {
      this.#unlink(member);
      member.joined = around;
      around.#firstTold = push(member, around.#firstTold);
    }
    around.leave(this);
  }

  /**
   * Tells those who have joined, the oldest first; the tokens among them are left to the caller, in `tokens`. (The
   * kernel finds an old timer sooner than a new one: it goes through its list of them for each.)
   */
  #tell(reason: unknown, tokens: CancelToken[] | null): void {
    for (let member = this.#last; member !== null; member = this.#last) {
      this.#unlink(member);
      this.#firstTold = push(member, this.#firstTold);
      if (!(member instanceof CancelToken)) member.cancel(reason);
      else if (!member.shielded) tokens?.push(member);
    }
  }

  #add(member: Cancellable): void {
    if (member.joined !== null) throw new Error("BUG: joined a second token");
    member.joined = this;
    this.#first = push(member, this.#first);
    this.#last ??= member;
  }

  #unlink(member: Cancellable): void {
    const { previous, next } = member;
    if (previous !== null) previous.next = next;
    else if (this.#first === member) this.#first = next;
    else this.#firstTold = next;
    if (next !== null) next.previous = previous;
    else if (this.#last === member) this.#last = previous;
    member.previous = member.next = null;
  }
}

/** Puts `member` before `first`, and returns the new first. */
function push(member: Cancellable, first: Cancellable | null): Cancellable {
  member.next = first;
  if (first !== null) first.previous = member;
  return member;
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
