/**
 * Scopes: what is started in one has ended when it is left.
 *
 * @module
 */
import { CancelToken } from "./cancel_token.ts";
import {
  abortError,
  type CancelOptions,
  isCancellation,
  isStop,
  joinSignal,
  onCancel,
  oneOrAll,
  reportedReason,
  requireMilliseconds,
  runUnder,
  stopOf,
  stoppingSignal,
} from "./cancellation.ts";
import { type Alarm, clock } from "./clock.ts";
import { adopted, disposeUnclaimed } from "./ownership.ts";
import { Task } from "./task.ts";

/** Options of {@linkcode Scope.spawn}. */
export interface SpawnOptions {
  /** It does not keep the scope open: it is cancelled when all other children are done. Default: `false`. */
  background?: boolean;
}

/** Options of {@linkcode Scope.cancel}. */
export interface ScopeCancelOptions {
  /**
   * Milliseconds in which what is going on may come to its end before it is cut off; `Infinity` never cuts it off.
   * Default: 0.
   */
  grace?: number;
}

/**
 * Runs a function in a scope of its own, and settles when that function, every child spawned in the scope and every
 * cleanup have settled. An operation that is in flight by then, because nobody has waited for it, is cancelled and
 * waited for; its promise rejects, which ends the process as any rejection that nobody handles. Promises of others are
 * waited for by who awaits them, and by no cancel.
 *
 * The first real error (of the function, a child or a cleanup) cancels the rest; one real error is thrown as it is,
 * several as an `AggregateError`. Cancellations are never among them. If the scope was cancelled and the function let
 * that pass, the scope rejects with the reason; so it does if a cancel from around it has cut a child short. Where the
 * function has a value all the same, and after the scope's own `cancel`, the value it is.
 *
 * @param fn Gets the scope. Operations inside it, at any depth, belong to the scope.
 * @param options `signal` joins a signal from outside.
 * @returns What `fn` returns.
 *
 * @example
 * ```ts
 * import { scope, sleep } from "@ringscope/ringscope";
 *
 * const answer = await scope(async (s) => {
 *   s.spawn(() => sleep(10_000), { background: true });
 *   const task = s.spawn(async () => (await sleep(1), 42));
 *   return await task;
 * });
 * console.log(answer); // 42
 * ```
 */
export function scope<T>(fn: (scope: Scope) => T | PromiseLike<T>, options?: CancelOptions): Promise<T>;
/**
 * Opens a scope for where a callback does not fit: leaving the block waits for the children, throws their error, and
 * runs the cleanups, as the end of a callback would.
 *
 * The block itself is not in the scope, since nothing tells a block's operations from its caller's: only what goes
 * through `spawn` and `run` is. Nor does the scope know whether the block is left by an error; cancel it in a `catch`
 * if its children would go on for long.
 *
 * @example
 * ```ts
 * import { scope, sleep } from "@ringscope/ringscope";
 *
 * {
 *   await using s = scope();
 *   s.spawn(() => sleep(1));
 * } // waits here
 * ```
 */
export function scope(options?: CancelOptions): Scope;
export function scope<T>(
  ...call: [fn: (scope: Scope) => T | PromiseLike<T>, options?: CancelOptions] | [options?: CancelOptions]
): Promise<T> | Scope {
  const [first, second] = call;
  if (typeof first === "function") return runScope(first, second);
  if (second !== undefined) throw new TypeError("scope takes the function first, then the options");
  if (first !== undefined && (typeof first !== "object" || first === null || "then" in first)) {
    throw new TypeError("scope takes a function: what already runs can't be put in a scope");
  }
  const opened = openScope(first);
  settleIfForgotten(opened);
  return opened;
}

async function runScope<T>(fn: (scope: Scope) => T | PromiseLike<T>, options?: CancelOptions): Promise<T> {
  const opened = openScope(options);
  let value: T | undefined;
  let fulfilled = false;
  try {
    value = await enterScope(opened, fn);
    fulfilled = true;
  } catch (error) {
    failScope(opened, error);
  }
  return await settleScope(opened, fulfilled, value) as T;
}

// What runScope needs of a scope and programs do not.
let openScope: (options?: CancelOptions) => Scope;
let enterScope: <T>(scope: Scope, fn: (scope: Scope) => T | PromiseLike<T>) => Promise<T>;
let settleIfForgotten: (scope: Scope) => void;
let failScope: (scope: Scope, error: unknown) => void;
let settleScope: (scope: Scope, fulfilled: boolean, value?: unknown) => Promise<unknown>;

/** The phases of a scope's life. */
enum Phase {
  /** Children can be spawned. */
  Open,
  /** All has ended; nothing can be added. */
  Settled,
}

/** A scope; see {@linkcode scope}. */
export class Scope implements AsyncDisposable {
  readonly #token: CancelToken;
  readonly #leaveSignal: () => void;
  /** In the order in which they happened, each once. */
  readonly #errors = new Set<unknown>();
  readonly #cleanups: (() => unknown)[] = [];
  readonly #background = new Set<CancelToken>();
  /** Children that have not settled, the background ones apart, and functions that are run in the scope. */
  #foreground = 0;
  #onChild: (() => void) | null = null;
  /** Whether a child has ended by a cancellation of this scope. */
  #cutShort = false;
  /** Whether it was the scope's own `cancel` that came first. */
  #cancelledItself = false;
  #phase = Phase.Open;
  #controller: AbortController | null = null;
  #stopping: AbortSignal | null = null;
  /** Ends the grace of a cancel. */
  #alarm: Alarm | null = null;
  #disposing: Promise<unknown> | null = null;

  static {
    openScope = (options) => new Scope(options);
    // One that nobody disposes of would keep the scope around it from ever being left.
    settleIfForgotten = (scope) => {
      scope.#token.onAbandon = () => {
        scope[Symbol.asyncDispose]().catch((error) => {
          if (!isCancellation(error, scope.#token)) throw error;
        });
      };
    };
    // Asynchronous, so that what it throws at once comes after what the children have thrown before.
    enterScope = async (scope, fn) => await scope.#token.run(() => fn(scope));
    failScope = (scope, error) => scope.#fail(error, scope.#token);
    settleScope = (scope, fulfilled, value) => {
      const before = scope.#disposing?.catch(() => {});
      return scope.#disposing = (async () => (await before, await scope.#settle(fulfilled, value)))();
    };
  }

  private constructor(options: CancelOptions = {}) {
    this.#token = new CancelToken(CancelToken.current() ?? null);
    try {
      this.#leaveSignal = joinSignal(this.#token, options.signal);
    } catch (error) {
      this.#token.release();
      throw error;
    }
  }

  /** Whether the scope is cancelled, by itself or from around it. */
  get cancelled(): boolean {
    return this.#token.cancelled;
  }

  /** What the operations of a cancelled scope reject with. */
  get reason(): unknown {
    return this.#token.reason;
  }

  /** A signal that aborts when the scope is cancelled, with the same reason: for `fetch` and others. */
  get signal(): AbortSignal {
    if (this.#controller === null) {
      this.#controller = new AbortController();
      if (this.#token.cancelled) this.#controller.abort(this.#token.reason);
      else onCancel(this.#token, (reason) => this.#controller!.abort(reason));
    }
    return this.#controller.signal;
  }

  /**
   * A signal that aborts when the scope is asked to come to an end, by a cancel with a grace period or by the deadline
   * of one around it: for what is to begin nothing new, and to finish what it has begun. A cancel without grace aborts
   * it too. A child that ends with this signal's reason has done as it was told, and that is no error of the scope.
   *
   * @example
   * ```ts
   * import { scope, sleep } from "@ringscope/ringscope";
   *
   * const rounds = await scope(async (s) => {
   *   s.spawn(async () => (await sleep(5), s.cancel("enough", { grace: 1000 })));
   *   let rounds = 0;
   *   for (; !s.stopping.aborted; rounds++) await sleep(2); // no round is cut off
   *   return rounds;
   * });
   * console.log(rounds > 0); // true
   * ```
   */
  get stopping(): AbortSignal {
    return this.#stopping ??= stoppingSignal(this.#token);
  }

  /**
   * Starts a child; its function runs at once, up to its first `await`. In a cancelled scope too: its first operation
   * then rejects, so that it can release what it was handed.
   *
   * @param fn The child. Operations inside it belong to it, and to the scope.
   * @returns The child's task, which need not be awaited.
   * @throws {TypeError} If `fn` is not a function, or the scope has settled.
   */
  spawn<T>(fn: () => T | PromiseLike<T>, options: SpawnOptions = {}): Task<T> {
    if (typeof fn !== "function") throw new TypeError("spawn takes a function: what already runs can't be cancelled");
    this.#requireOpen("spawn a child");
    const { background = false } = options;
    const token = new CancelToken(this.#token);
    if (background) this.#background.add(token);
    else this.#foreground++;
    const promise = this.#runChild(fn, token);
    // The scope reports the error; that nobody awaits the task must not end the program.
    promise.then(undefined, () => {});
    return new Task(promise, token);
  }

  /**
   * Runs a function in the scope, without making it a child: its error goes to the caller alone. For the operations of
   * a block that opened its scope with `await using`, and for what is to outlive the caller's own scope, such as a
   * connection of a pool. The scope waits for it.
   */
  async run<T>(fn: () => T | PromiseLike<T>): Promise<T> {
    this.#requireOpen("run a function");
    this.#foreground++;
    try {
      return await this.#token.run(fn);
    } finally {
      this.#foreground--;
      this.#onChild?.();
    }
  }

  /**
   * Cancels everything in the scope, for good. Cancelling twice is cancelling once: the first reason stands.
   *
   * With a grace period the scope is asked to come to an end first, by `stopping`: nothing is refused and nothing is
   * cut off before the grace is over, and if all has ended by then, nothing ever is. A cancel without grace, from here
   * or from around the scope, cuts it short; a second grace changes nothing.
   *
   * @param reason What operations reject with. Default: a `DOMException` named "AbortError".
   * @param options `grace`, in milliseconds.
   * @throws {RangeError} If `grace` is negative or NaN.
   */
  cancel(reason: unknown = abortError("The scope was cancelled"), options: ScopeCancelOptions = {}): void {
    const { grace = 0 } = options;
    requireMilliseconds("grace", grace);
    const token = this.#token;
    if (this.#phase === Phase.Settled || token.cancelled) return;
    const asked = token.stopping;
    if (grace === 0) {
      this.#cancelledItself = true;
      token.cancel(asked === null ? reason : asked.reason);
    } else if (asked === null) {
      if (grace < Infinity) {
        this.#alarm = clock().set(grace, () => token.cancel(reason));
        token.deadline = clock().now() + grace;
        token.deadlineReason = () => reason;
      }
      this.#cancelledItself = true;
      token.stop(reason);
    }
  }

  /**
   * Runs a function when all children have ended: in reverse order of these calls, one after another, shielded from
   * cancellation. One that throws does not stop the others; its error is the scope's. Children that a cleanup spawns
   * are waited for as well.
   *
   * @throws {TypeError} If `cleanup` is not a function, or the scope has settled.
   */
  defer(cleanup: () => unknown): void {
    if (typeof cleanup !== "function") throw new TypeError("defer takes a function");
    this.#requireOpen("defer a cleanup");
    this.#cleanups.push(cleanup);
  }

  /**
   * Gives a resource to the scope, which disposes of it when all children have ended: a cleanup as of `defer`, in
   * reverse order with the others. Nobody else does, whoever may be handed the resource meanwhile.
   *
   * @param resource Something with `Symbol.asyncDispose` or `Symbol.dispose`; the first if it has both.
   * @returns The resource.
   * @throws {TypeError} If it is not disposable, or the scope has settled; it is still the caller's then.
   *
   * @example
   * ```ts
   * import { open, scope } from "@ringscope/ringscope";
   *
   * await scope(async (s) => {
   *   const file = s.use(await open("/proc/self/exe"));
   *   s.spawn(() => file.read(new Uint8Array(4)));
   * }); // the file is closed when the child has ended
   * ```
   */
  use<Resource extends AsyncDisposable | Disposable>(resource: Resource): Resource {
    const { [Symbol.asyncDispose]: disposeAsync, [Symbol.dispose]: dispose } = Object(resource);
    const method = disposeAsync ?? dispose;
    if (typeof method !== "function") {
      throw new TypeError("use takes something disposable, with Symbol.asyncDispose or Symbol.dispose");
    }
    this.#requireOpen("use a resource");
    this.#cleanups.push(() => method.call(resource));
    adopted(resource);
    return resource;
  }

  /** Waits for all children and cleanups, and throws their error. */
  async [Symbol.asyncDispose](): Promise<void> {
    await (this.#disposing ??= this.#settle(true));
  }

  #requireOpen(what: string): void {
    if (this.#phase === Phase.Settled) throw new TypeError(`The scope has settled: it is too late to ${what}`);
  }

  async #runChild<T>(fn: () => T | PromiseLike<T>, token: CancelToken): Promise<T> {
    try {
      return await runUnder(token, fn);
    } catch (error) {
      if (isCancellation(error, this.#token) || isStop(error, this.#token)) this.#cutShort = true;
      this.#fail(error, token);
      // In a cancelled scope its own cancellation is no news: whoever awaits it is to see the scope's.
      throw this.#token.cancelled && isCancellation(error, token) ? this.#token.reason : error;
    } finally {
      if (!this.#background.delete(token)) this.#foreground--;
      this.#onChild?.();
    }
  }

  /**
   * Takes note of an error, unless it is a cancellation, the answer to a wish to end, or the same one again, and cancels
   * the rest.
   */
  #fail(error: unknown, token: CancelToken): void {
    if (isCancellation(error, token) || isStop(error, token)) return;
    this.#errors.add(error);
    if (!this.#token.cancelled) {
      this.#token.cancel(abortError("The scope was cancelled because a part of it failed", { cause: error }));
    }
  }

  async #settle(fulfilled: boolean, value?: unknown): Promise<unknown> {
    await this.#allEnds();
    // A value is none if a cancel from around the scope has cut short what was still going on.
    const complete = fulfilled && this.#errors.size === 0 && (!this.#cutShort || this.#cancelledItself);
    if (fulfilled && !complete) {
      this.#cleanups.push(() => disposeUnclaimed(value, this.#token));
      await this.#allEnds();
    }
    this.#phase = Phase.Settled;
    if (this.#alarm !== null) await this.#alarm.stop();
    this.#leaveSignal();
    this.#token.release();
    if (complete) return value;
    if (this.#errors.size > 0) throw oneOrAll(this.#errors);
    throw this.#token.cancelled ? reportedReason(this.#token) : stopOf(this.#token)!.reason;
  }

  /** Waits for the children, and runs the cleanups; before each of those, for the children of the one before. */
  async #allEnds(): Promise<void> {
    for (;;) {
      do {
        await this.#childrenEnd();
        if (!this.#token.idle) await this.#token.abandon();
      } while (this.#foreground > 0 || this.#background.size > 0 || !this.#token.idle);
      const cleanup = this.#cleanups.pop();
      if (cleanup === undefined) return;
      await this.#cleanUp(cleanup);
    }
  }

  async #childrenEnd(): Promise<void> {
    while (this.#foreground > 0) await this.#childEnds();
    const reason = this.#background.size > 0 ? abortError("The scope is done with its background children") : undefined;
    while (this.#foreground > 0 || this.#background.size > 0) {
      for (const token of this.#background) token.cancel(reason);
      await this.#childEnds();
    }
  }

  #childEnds(): Promise<void> {
    return new Promise((resolve) => this.#onChild = resolve);
  }

  async #cleanUp(cleanup: () => unknown): Promise<void> {
    const shield = new CancelToken(this.#token, { shielded: true });
    try {
      await runUnder(shield, cleanup);
    } catch (error) {
      // The scope's cancellation can come by what a cleanup awaits.
      this.#fail(error, this.#token);
    }
  }
}
