/**
 * The driver of a ring: takes requests, submits all that one microtask turn brought with one `io_uring_enter`, reaps what has
 * completed, settles each request's promise once all of its CQEs are in, and sleeps on the doorbell in between.
 *
 * @module
 */
import { clearImmediate, setImmediate } from "node:timers";
import { type Native, native } from "../ffi/load.ts";
import { high, low, type Mapping } from "../ffi/memory.ts";
import { type Cancellable, CancelToken, tokenOf } from "../scope/cancel_token.ts";
import { Arena } from "./arena.ts";
import { BufferRing } from "./buffer_ring.ts";
import { DirectDescriptors } from "./direct_descriptors.ts";
import { Doorbell, type DoorbellKind } from "./doorbell.ts";
import { Errno } from "./errno.ts";
import { about, isCancelled, systemError, withBytesWritten } from "./errors.ts";
import { Features } from "./features.ts";
import { Inbox, MESSAGE_USER_DATA } from "./messages.ts";
import { complete, prepare, prepareTransfer, writeTimespec } from "./operations.ts";
import {
  Cause,
  type Lane,
  LinkedRequests,
  type OperationOptions,
  Request,
  type RequestHost,
  type RequestOwner,
  RequestState,
  type SharedOptions,
  SignalLink,
  wholeTimeout,
} from "./request.ts";
import { CqeFlag, Op, Register, Sqe } from "./uring_abi.ts";
import { Uring, type UringOptions } from "./uring.ts";

/** One completion as the kernel reported it; see `Ring.onCompletion`. */
export interface Completion {
  /** The operation, such as `"read"`. */
  readonly operation: string;
  /** Whether it is the operation's own, that of its deadline (LINK_TIMEOUT or TIMEOUT), or that of its cancel. */
  readonly of: "operation" | "deadline" | "cancel";
  /** The CQE's `res`: a value, or a negative errno, such as -125 (`ECANCELED`). */
  readonly result: number;
}

/** What a CQE's `user_data` says it is, in the low bits of the high word; the rest of that word is the generation. */
enum CqeKind {
  Request,
  /** The LINK_TIMEOUT or TIMEOUT that is a request's deadline. */
  Timer,
  Cancel,
  /** A cancel's delay, or the removal of a timer: counted, not looked at. */
  Errand,
}

const KIND_BITS = 2;
const GENERATION_MASK = 2 ** (32 - KIND_BITS) - 1;
/** Empty microtask turns before the loop is put to sleep: a caller several `await`s up may still be about to ask. */
const PATIENCE_TURNS = 6;
/** How long completions may be served without giving the event loop a turn, in milliseconds... */
const LOOP_STARVATION_MS = 4;
/** ...looked at once in this many completions. */
const LOOP_CHECK_COMPLETIONS = 256;
/** Cancels of one request that may find nothing before the next ones wait a little. */
const IMMEDIATE_CANCEL_TRIES = 8;
const CANCEL_RETRY_MS = 1;

/** Opcodes up to this one are in every kernel that we run on. */
const NEWEST_FLOOR_OPCODE = Op.URING_CMD;

/**
 * Threads of the kernel that can wait at once for what only a thread can wait for: the other end of a FIFO that is being
 * opened, a server of files that does not answer. With all of them waiting nothing else gets to a file. The kernel's own
 * limit is four for each CPU; it starts another one only when those there are wait.
 */
const MAX_WORKERS = 256;

/** Mappings of the arena that can be registered: 1 GiB of them. */
const REGISTERED_BUFFERS = 256;
const IORING_RSRC_REGISTER_SPARSE = 1;

const CLOSED = "The ring is closed, and what was opened on it is of no more use";

/** What a link of a chain rejects with that the kernel passed over, because one before it failed or was short. */
export const skipped: unique symbol = Symbol("skipped");

/** What a driver needs to know. */
export interface DriverOptions extends UringOptions {
  /** How many descriptors are to be registered with the ring, at the most. */
  registeredFiles: number;
  /** Whether the memory of transfers is registered with the ring. */
  registeredBuffers: boolean;
}

/** What makes requests go: it knows kernels and slots, and nothing of files and people. */
export class Driver implements RequestHost {
  readonly #native: Native;
  readonly #uring: Uring;
  readonly #arena: Arena;
  readonly #doorbell: Doorbell;
  /** How many descriptors are to be registered with the ring, at the most. */
  readonly registeredFiles: number;
  /** What its kernel can do. */
  readonly features: Features;
  /** What other rings have sent to this one. */
  readonly inbox: Inbox = new Inbox(this);
  #directDescriptors: DirectDescriptors | null = null;
  #bufferRing: BufferRing | null | undefined = undefined;

  /** Requests (of chains, the heads) that wait for room in the SQ, from `#queueHead` on. */
  #queue: Request[] = [];
  #queueHead = 0;
  /** Lanes in which someone waits. */
  readonly #crowdedLanes = new Set<Lane>();
  /** Requests whose cancel is to be sent, and requests whose timer is to be stopped. */
  #cancels: Request[] = [];
  #idleTimers: Request[] = [];

  readonly #slots: (Request | null)[] = [];
  readonly #generations: number[] = [];
  readonly #freeSlots: number[] = [];

  /** Transfers that are to be used again. */
  readonly #spares: Request[] = [];
  #inFlight = 0;
  /** Those of them that don't keep the process alive. */
  #unreferenced = 0;
  /** CQEs that the kernel owes. */
  #owed = 0;
  #flushScheduled = false;
  #idleTurns = 0;
  /** Completions served since the clock was looked at. */
  #served = 0;
  #lastLoopTurn = performance.now();
  /** While the event loop has its turn. */
  #yielding: ReturnType<typeof setImmediate> | null = null;
  #closing: Promise<void> | null = null;
  #closed = false;
  #onIdle: (() => void) | null = null;
  /** Told of every completion, for programs that want to see them. */
  observer: ((completion: Completion) => void) | null = null;
  /**
   * Requests that left nothing in flight, while the doorbell still kept the process alive: their promises wait until it
   * does not, so that who has awaited everything has left nothing behind.
   */
  #lastSettled: Request[] = [];

  constructor(options: DriverOptions, doorbellKind: DoorbellKind | undefined) {
    this.#native = native();
    this.#uring = new Uring(this.#native, options);
    const workers = Uint32Array.of(MAX_WORKERS, 0); // 0 is: as it was
    this.#native.rs_register(this.#uring.fd, Register.IOWQ_MAX_WORKERS, new Uint8Array(workers.buffer), 2);
    this.#arena = new Arena(
      this.#native,
      options.registeredBuffers ? (...call) => this.#registerBuffer(...call) : null,
    );
    this.registeredFiles = options.registeredFiles;
    this.features = new Features(this.#native, this.#uring.fd, options.kernel);
    try {
      this.#doorbell = new Doorbell(this.#native, this.#uring, this.#onDoorbell, doorbellKind);
    } catch (error) {
      this.#uring.close();
      throw error;
    }
  }

  /** Requests that have been made and not settled, whether the kernel has seen them or not. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Whether it takes no further requests. */
  get closing(): boolean {
    return this.#closing !== null;
  }

  /** The ring in the kernel. */
  get uring(): Uring {
    return this.#uring;
  }

  /** Which doorbell hangs. */
  get doorbellKind(): DoorbellKind {
    return this.#doorbell.kind;
  }

  /** Cancels what is in flight, waits until the kernel is done with it, gives the ring back; once. */
  close(): Promise<void> {
    return this.#closing ??= this.#shutDown();
  }

  /** The helper's functions. */
  get native(): Native {
    return this.#native;
  }

  /** Memory for requests. */
  get arena(): Arena {
    return this.#arena;
  }

  /** The table of direct descriptors, registered on first use. */
  get directDescriptors(): DirectDescriptors {
    this.#requireOpen();
    return this.#directDescriptors ??= new DirectDescriptors(this.#native, this.#uring.fd, this.registeredFiles);
  }

  /** Registers a descriptor with the ring; returns its place in the table, or -1 where that can't be. */
  registerFile(fd: number): number {
    if (this.registeredFiles === 0) return -1;
    try {
      return this.directDescriptors.register(fd);
    } catch {
      return -1; // no table: no memory for one, or a limit that leaves no room
    }
  }

  /** The pool of provided buffers, registered on first use; `null` where the kernel has none. */
  get bufferRing(): BufferRing | null {
    this.#requireOpen();
    if (this.#bufferRing === undefined) {
      const registered = BufferRing.register(this.#native, this.#uring.fd);
      this.#bufferRing = typeof registered === "number" ? null : registered;
    }
    return this.#bufferRing;
  }

  /** Registers a mapping of the arena as a buffer, the first time with a table for all that may come. */
  #registerBuffer(index: number, mapping: Mapping): boolean {
    if (index >= REGISTERED_BUFFERS) return false;
    if (index === 0) {
      // struct io_uring_rsrc_register: nr, flags, resv2, data, tags.
      const table = new Uint32Array(8);
      table[0] = REGISTERED_BUFFERS;
      table[1] = IORING_RSRC_REGISTER_SPARSE;
      if (this.#native.rs_register(this.#uring.fd, Register.BUFFERS2, new Uint8Array(table.buffer), 32) < 0) {
        return false;
      }
    }
    // struct iovec, in the mapping itself before its first use; struct io_uring_rsrc_update2: offset, resv, data, tags,
    // nr, resv2.
    const { address, bytes } = mapping;
    new Uint32Array(mapping.buffer, 0, 4).set([low(address), high(address), bytes, 0]);
    const update = new Uint32Array(8);
    update.set([index, 0, low(address), high(address), 0, 0, 1, 0]);
    return this.#native.rs_register(this.#uring.fd, Register.BUFFERS_UPDATE, new Uint8Array(update.buffer), 32) === 1;
  }

  /** A new request of this ring. */
  request(opcode: number, operation: string): Request {
    return new Request(this, opcode, operation);
  }

  /**
   * A request that moves bytes and is no part of a chain. It may have been another's before: `start` must follow, and all
   * fields that any transfer sets must be set.
   */
  transfer(opcode: number, operation: string): Request {
    const request = this.#spares.pop() ?? new Request(this, opcode, operation);
    request.opcode = opcode;
    request.operation = operation;
    request.renewable = true;
    request.state = RequestState.Queued;
    return request;
  }

  /** Starts a request; settles when its last CQE is in. */
  start<T>(request: Request, options?: OperationOptions): Promise<T> {
    request.simple = request.renewable && options === undefined;
    try {
      if (request.simple) {
        const token = request.token = this.admit(undefined);
        if (token !== undefined) token.join(request);
      } else {
        request.signalLink = this.#admit(request, request, options);
      }
    } catch (error) {
      if (request.renewable) this.#spare(request);
      return Promise.reject(error);
    }
    const promise = promiseOf(request);
    this.#enqueue(request);
    return promise as Promise<T>;
  }

  /**
   * Starts linked requests, all in one submission; each link has a promise of its own, which rejects with `skipped` if
   * the kernel did not come to it. Throws the reason if one of the tokens is cancelled.
   */
  startLinked(links: readonly Request[], options?: OperationOptions): Promise<unknown>[] {
    const group = new LinkedRequests(links);
    group.signalLink = this.#admit(group, links[0], options);
    const promises = links.map((link, i) => {
      link.group = group;
      link.nextLink = links[i + 1] ?? null;
      return promiseOf(link);
    });
    this.#enqueue(links[0]);
    return promises;
  }

  /** Asks a request to stop; the first cause stands. */
  cancelRequest(request: Request, cause: Cause, reason: unknown): void {
    if (request.state >= RequestState.Completed || request.cause !== Cause.None) return;
    request.simple = false;
    request.cause = cause;
    request.reason = reason;
    if (request.state === RequestState.Queued) {
      request.result = -Errno.ECANCELED;
      this.#settle(request);
    } else {
      this.#cancels.push(request);
      this.#schedule();
    }
  }

  /** Ends the turn of `holder` in a lane, if it has it, and begins the next one's. */
  passLane(lane: Lane, holder: object): void {
    if (lane.turn !== holder) return;
    lane.turn = null;
    if (lane.waiting.length > 0) this.#beginNextTurn(lane);
  }

  #beginNextTurn(lane: Lane): void {
    for (let next = lane.waiting.shift(); next !== undefined; next = lane.waiting.shift()) {
      if (next.state !== RequestState.Queued) continue;
      if (next.owner?.serve(next)) {
        lane.turn = next.laneHolder;
        this.#settle(next);
        if (lane.turn !== null) break;
        continue;
      }
      lane.turn = next.laneHolder ?? next;
      this.#send(next);
      break;
    }
    if (lane.waiting.length === 0) this.#crowdedLanes.delete(lane);
  }

  /** Says whether an owner's requests, those in flight included, keep the process alive. */
  reference(owner: RequestOwner, referenced: boolean): void {
    if (owner.referenced === referenced) return;
    owner.referenced = referenced;
    this.#unreferenced += referenced ? -owner.pending : owner.pending;
    if (owner.pending > 0) this.#schedule();
  }

  /** Stops all that is in flight on an open file; for its close. */
  cancelOwned(owner: RequestOwner, reason: unknown): void {
    this.#cancelAll(reason, (request) => request.owner === owner);
  }

  async #shutDown(): Promise<void> {
    this.#cancelAll(new DOMException("The ring was closed", "AbortError"), () => true);
    if (this.#inFlight > 0 || this.#lastSettled.length > 0) {
      await new Promise<void>((resolve) => this.#onIdle = resolve);
    }
    this.#closed = true;
    this.#doorbell.close();
    // A request that outlived its last CQE is a bug; its memory is then left to it on purpose.
    if (!this.#uring.close()) return;
    this.#arena.close();
    this.#bufferRing?.unmap();
    this.#directDescriptors?.unmap();
  }

  #cancelAll(reason: unknown, which: (request: Request) => boolean): void {
    const found: Request[] = [...this.#crowdedLanes].flatMap((lane) => lane.waiting);
    for (let i = this.#queueHead; i < this.#queue.length; i++) {
      for (let link: Request | null = this.#queue[i]; link !== null; link = link.nextLink) found.push(link);
    }
    for (const request of this.#slots) if (request !== null) found.push(request);
    for (const request of found) {
      if (request.cancellable && which(request)) (request.group ?? request).cancel(reason);
    }
  }

  /**
   * Throws if an operation with these options is not to start: the reason of its scope or signal, if that is cancelled,
   * or that the ring is closed. Returns the token of the scope.
   */
  admit(options: OperationOptions | undefined): CancelToken | undefined {
    this.#requireOpen();
    const token = CancelToken.current();
    if (token !== undefined && token.cancelled) throw token.reason;
    if (options === undefined) return token;
    if (options.timeout !== undefined) milliseconds("timeout", options.timeout);
    if (options.signal === undefined) return token;
    const signalToken = tokenOf(options.signal);
    if (signalToken.cancelled) throw signalToken.reason;
    return token;
  }

  #requireOpen(): void {
    if (this.#closing !== null) throw new Deno.errors.BadResource(CLOSED);
  }

  /** Joins what is to be cancelled to its tokens, if it is admitted. */
  #admit(target: Cancellable, request: Request, options: OperationOptions | undefined): SignalLink | null {
    if (!request.cancellable) {
      this.#requireOpen();
      return null;
    }
    const token = this.admit(options);
    request.token = token;
    if (token !== undefined) token.join(target);
    if (options === undefined) return null;
    if (options.timeout !== undefined) {
      request.timeoutMs = milliseconds("timeout", options.timeout);
      request.wholeTimeoutMs = (options as SharedOptions)[wholeTimeout];
    }
    return options.signal === undefined ? null : new SignalLink(target, tokenOf(options.signal));
  }

  #enqueue(request: Request): void {
    this.#count(request);
    if (!request.simple) {
      for (let link = request.nextLink; link !== null; link = link.nextLink) this.#count(link);
    }
    const { lane } = request;
    if (lane === null) {
      this.#send(request);
    } else if (lane.turn === null || lane.turn === request.laneHolder) {
      lane.turn = request.laneHolder ?? request;
      this.#send(request);
    } else {
      lane.waiting.push(request);
      this.#crowdedLanes.add(lane);
    }
  }

  #count(request: Request): void {
    const { owner } = request;
    this.#inFlight++;
    if (owner === null) return;
    owner.pending++;
    if (!owner.referenced) this.#unreferenced++;
  }

  #send(request: Request): void {
    this.#queue.push(request);
    this.#idleTurns = 0;
    this.#schedule();
  }

  #schedule(): void {
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    queueMicrotask(this.#flush);
  }

  /** One turn: submit, reap, and see what the loop should do next. */
  readonly #flush = (): void => {
    this.#flushScheduled = false;
    if (this.#closed || this.#yielding !== null) return;
    if (this.#served >= LOOP_CHECK_COMPLETIONS) {
      this.#served = 0;
      if (performance.now() - this.#lastLoopTurn > LOOP_STARVATION_MS) {
        this.#yield();
        return;
      }
    }
    const moved = this.#pump();
    if (this.#yielding !== null) return;
    if (this.#inFlight === 0) {
      this.#doorbell.rest();
    } else if (moved || ++this.#idleTurns < PATIENCE_TURNS) {
      this.#schedule();
    } else {
      const refused = this.#doorbell.arm(this.#inFlight > this.#unreferenced);
      if (refused < 0) this.#onRefusal(refused);
    }
  };

  readonly #onDoorbell = (): void => {
    if (this.#closed) return;
    this.#lastLoopTurn = performance.now();
    this.#idleTurns = 0;
    if (this.#lastSettled.length > 0) {
      for (const request of this.#lastSettled.splice(0)) settlePromise(request);
      if (this.#inFlight === 0) this.#onIdle?.();
    }
    if (this.#yielding === null) this.#uring.reap(this.#onCompletion);
    // After the continuations of what was just settled, so that their requests go with this flush.
    this.#schedule();
  };

  /** Lets the event loop have its turn: other I/O, timers and signals are waiting too. */
  #yield(): void {
    this.#yielding ??= setImmediate(() => {
      this.#yielding = null;
      this.#lastLoopTurn = performance.now();
      this.#schedule();
    });
  }

  /**
   * Submits and reaps until the queues are empty or only the kernel can go on; returns whether anything completed.
   *
   * More requests than the CQ holds wait, so that the kernel need not set completions aside. But they only wait as
   * long as others complete: if those in flight wait for something that the waiting ones would do, it is better to
   * let the kernel set some aside (it does so without a loss) than to stand still.
   */
  #pump(): boolean {
    let moved = false;
    let beyondCq = false;
    for (;;) {
      const written = this.#write(beyondCq);
      const refused = this.#uring.unsubmitted > 0 ? this.#uring.submit() : 0;
      const reaped = this.#uring.reap(this.#onCompletion);
      if (reaped > 0) moved = true;
      this.#served += reaped;
      if (this.#queueHead === this.#queue.length && this.#cancels.length === 0 && this.#idleTimers.length === 0) {
        if (refused < 0) this.#onRefusal(refused);
        return moved;
      }
      if (written || reaped > 0) {
        beyondCq = false;
      } else if (refused < 0) {
        this.#onRefusal(refused);
        return moved;
      } else if (this.#uring.sqpoll && this.#uring.space < this.#uring.entries) {
        this.#uring.waitForSpace();
        beyondCq = true;
      } else {
        beyondCq = true;
      }
    }
  }

  /** The kernel took no SQE for want of memory, or because it holds completions back: both pass. */
  #onRefusal(result: number): void {
    if (result !== -Errno.EAGAIN && result !== -Errno.EBUSY && result !== -Errno.ENOMEM) {
      throw systemError(result, "io_uring_enter");
    }
    this.#yield();
  }

  /** Writes SQEs for all that waits, as far as there is room; returns whether there was any. */
  #write(beyondCq: boolean): boolean {
    const uring = this.#uring;
    let written = false;
    while (this.#idleTimers.length > 0 && uring.space >= 1) {
      const request = this.#idleTimers.pop()!;
      if (!request.timerArmed) continue; // it has fired meanwhile, and the request may be settled
      this.#writeCancel(request, CqeKind.Timer, CqeKind.Errand);
      written = true;
    }
    let sent = 0;
    for (; sent < this.#cancels.length && uring.space >= 2; sent++) {
      const request = this.#cancels[sent];
      if (request.state !== RequestState.Submitted) continue;
      if (++request.cancelTries > IMMEDIATE_CANCEL_TRIES) this.#writeDelay(request);
      this.#writeCancel(request, CqeKind.Request, CqeKind.Cancel);
      written = true;
    }
    if (sent > 0) this.#cancels = this.#cancels.slice(sent);

    const queue = this.#queue;
    for (; this.#queueHead < queue.length; this.#queueHead++) {
      const request = queue[this.#queueHead];
      if (request.state !== RequestState.Queued) continue;
      if (!beyondCq && this.#owed >= uring.cqEntries) return written;
      const fitted = request.simple ? this.#writeSimple(request) : this.#writeLinked(request);
      if (!fitted) return written;
      written = true;
    }
    if (queue.length > 0) {
      queue.length = 0;
      this.#queueHead = 0;
    }
    return written;
  }

  /** Writes a simple transfer; `false` if there is no room for it yet. */
  #writeSimple(request: Request): boolean {
    const uring = this.#uring;
    if (uring.space === 0) return false;
    const result = prepareTransfer(request, uring, this.#arena);
    if (result < 0) {
      this.#failUnsent(request, request.failure ?? systemError(result, request.operation, request.subject));
      return true;
    }
    this.#push(request, CqeKind.Request);
    request.state = RequestState.Submitted;
    return true;
  }

  /** Writes a request with its timer and all that is linked to it; `false` if there is no room for it yet. */
  #writeLinked(head: Request): boolean {
    const uring = this.#uring;
    const alone = head.nextLink === null && head.timeoutMs < 0;
    const needed = alone ? 1 : sqesFor(head);
    if (needed > uring.space) {
      if (needed <= uring.entries) return false;
      this.#failUnsent(head, new RangeError(`A chain of ${needed} SQEs does not fit a ring of ${uring.entries}`));
      return true;
    }
    let pushed = 0;
    for (let link: Request | null = head; link !== null; link = link.nextLink) {
      const known = link.opcode <= NEWEST_FLOOR_OPCODE || this.features.supports(link.opcode);
      if (!known) link.failure = this.features.unsupported(link.opcode, link.operation);
      const result = known ? prepare(link, uring, this.#arena) : -Errno.ENOSYS;
      if (result < 0) {
        uring.rewind(pushed);
        this.#failUnsent(head, link.failure ?? systemError(result, link.operation, link.subject));
        return true;
      }
      if (!alone) pushed += this.#writeLinks(link);
      else this.#push(link, CqeKind.Request);
      link.state = RequestState.Submitted;
    }
    if (!alone) this.#writeTimeouts(head);
    return true;
  }

  /** Links the SQE that has been prepared to its LINK_TIMEOUT and to the next; returns how many were written. */
  #writeLinks(link: Request): number {
    const linkTimeout = link.timeoutMs >= 0 && link.pollable;
    const linking = link.hardLink ? Sqe.IO_HARDLINK : Sqe.IO_LINK;
    const onward = link.nextLink === null ? 0 : linking;
    if (linkTimeout || onward !== 0) this.#uring.addSqeFlags(linking);
    this.#push(link, CqeKind.Request);
    if (!linkTimeout) return 1;
    this.#writeTimer(link, Op.LINK_TIMEOUT, onward);
    return 2;
  }

  /** The deadlines that no LINK_TIMEOUT can keep: TIMEOUTs beside the chain, each of which cancels its link. */
  #writeTimeouts(head: Request): void {
    for (let link: Request | null = head; link !== null; link = link.nextLink) {
      if (link.timeoutMs >= 0 && !link.pollable) this.#writeTimer(link, Op.TIMEOUT, 0);
    }
  }

  #writeTimer(request: Request, opcode: number, sqeFlags: number): void {
    const [addressLow, addressHigh] = writeTimespec(this.#uring, request.timeoutMs);
    this.#uring.writeControl(opcode, sqeFlags, { addressLow, addressHigh, length: 1 });
    request.timerArmed = true;
    this.#push(request, CqeKind.Timer);
  }

  #writeCancel(request: Request, target: CqeKind, kind: CqeKind): void {
    this.#uring.writeControl(Op.ASYNC_CANCEL, 0, {
      addressLow: request.slot,
      addressHigh: this.#userDataHigh(request, target),
    });
    this.#push(request, kind);
  }

  /** Makes the cancel that follows wait a little: its target could not be found, which passes. */
  #writeDelay(request: Request): void {
    const [addressLow, addressHigh] = writeTimespec(this.#uring, CANCEL_RETRY_MS);
    this.#uring.writeControl(Op.TIMEOUT, Sqe.IO_HARDLINK, { addressLow, addressHigh, length: 1 });
    this.#push(request, CqeKind.Errand);
  }

  #push(request: Request, kind: CqeKind): void {
    if (request.slot < 0) {
      request.slot = this.#freeSlots.pop() ?? this.#slots.push(null) - 1;
      this.#slots[request.slot] = request;
      this.#generations[request.slot] ??= 0;
    }
    this.#uring.pushSqe(request.slot, this.#userDataHigh(request, kind));
    request.outstanding++;
    this.#owed++;
  }

  #userDataHigh(request: Request, kind: CqeKind): number {
    return this.#generations[request.slot] << KIND_BITS | kind;
  }

  /** Fails a request, and the links behind it, that could not be written. */
  #failUnsent(head: Request, error: Error): void {
    for (let link: Request | null = head; link !== null; link = link.nextLink) {
      this.#owed -= link.outstanding;
      link.outstanding = 0;
      link.timerArmed = false;
      link.failure = error;
      this.#giveBlock(link);
      this.#settle(link);
    }
  }

  readonly #onCompletion = (userDataLow: number, userDataHigh: number, result: number, flags: number): void => {
    if (userDataLow === MESSAGE_USER_DATA) {
      this.inbox.deliver(result, userDataHigh);
      return;
    }
    const request = this.#slots[userDataLow];
    if (!request || (userDataHigh >>> KIND_BITS) !== this.#generations[userDataLow]) {
      throw new Error(`BUG: a CQE for slot ${userDataLow}, which is not in flight, with result ${result}`);
    }
    const kind: CqeKind = userDataHigh & 2 ** KIND_BITS - 1;
    if (this.observer !== null) observe(this.observer, request.operation, kind, result);
    if (request.simple) {
      request.outstanding--;
      this.#owed--;
      request.result = result;
      complete(request);
      this.#arena.give(request.block!);
      request.block = null;
      this.#settle(request);
      return;
    }
    if ((flags & CqeFlag.MORE) !== 0) {
      if (request.onShot !== null) {
        request.onShot(result, flags);
      } else {
        request.result = result;
        request.sent = true;
      }
      return;
    }
    request.outstanding--;
    this.#owed--;
    switch (kind) {
      case CqeKind.Request:
        if ((flags & CqeFlag.NOTIF) === 0) request.result = result;
        request.cqeFlags = flags;
        request.state = RequestState.Completed;
        complete(request);
        this.#giveBlock(request);
        if (request.timerArmed && !request.pollable) {
          this.#idleTimers.push(request);
          this.#schedule();
        }
        break;
      case CqeKind.Timer:
        request.timerArmed = false;
        if (result === -Errno.ETIME) request.timerFired = true;
        // A LINK_TIMEOUT cancels by itself. But one that says ENOENT or EALREADY has fired and missed: done or not,
        // its operation is asked again.
        if (request.pollable ? !isElapsed(result) : request.timerFired) {
          this.cancelRequest(request, Cause.TimedOut, undefined);
        }
        break;
      case CqeKind.Cancel:
        if (result === -Errno.ENOENT && request.state === RequestState.Submitted && !request.sent) {
          this.#cancels.push(request);
          this.#schedule();
        }
        break;
      case CqeKind.Errand:
        break;
    }
    if (request.outstanding === 0 && request.state === RequestState.Completed) this.#settle(request);
  };

  #giveBlock(request: Request): void {
    if (request.block === null || request.sharesBlock) return;
    this.#arena.give(request.block);
    request.block = null;
  }

  /** The end of a request: its tokens forget it, its promise is settled, its slot is free. */
  #settle(request: Request): void {
    request.state = RequestState.Settled;
    const { slot, lane, owner, simple, holdsLane } = request;
    if (slot >= 0) this.#generations[slot] = this.#generations[slot] + 1 & GENERATION_MASK;
    if (lane !== null && !holdsLane) this.passLane(lane, request);
    if (simple) request.joined?.leave(request);
    else if (request.group === null) leaveTokens(request);
    else if (--request.group.unsettled === 0) leaveTokens(request.group);
    if (owner !== null) {
      if (!owner.referenced) this.#unreferenced--;
      if (--owner.pending === 0) owner.onIdle?.();
    }
    if (--this.#inFlight > 0) {
      const { result, decode } = request;
      if (simple && result >= 0 && request.failure === null && !holdsLane) {
        request.resolve(decode === null ? result : decode(request));
        this.#spare(request);
        return;
      }
      settlePromise(request);
    } else {
      this.#settleLast(request);
    }
    if (slot >= 0) {
      this.#slots[slot] = null;
      this.#freeSlots.push(slot);
    }
  }

  /** Keeps a transfer to be used again, with its slot: nobody refers to it, nor goes on with what it left. */
  #spare(request: Request): void {
    request.state = RequestState.Settled;
    request.view = null;
    this.#spares.push(request);
  }

  /** Nothing is in flight any more. */
  #settleLast(request: Request): void {
    if (this.#yielding !== null) {
      // Nobody waits for what comes after the loop's turn: no timer is left behind for it.
      clearImmediate(this.#yielding);
      this.#yielding = null;
      this.#schedule();
    }
    if (this.#doorbell.rest()) {
      this.#lastSettled.push(request);
    } else {
      settlePromise(request);
      this.#onIdle?.();
    }
  }
}

let promised: Request;

/** The promise of a request. The one executor for all spares each a closure. */
function promiseOf(request: Request): Promise<unknown> {
  promised = request;
  return new Promise(capture);
}

function capture(resolve: (value: unknown) => void, reject: (reason: unknown) => void): void {
  promised.resolve = resolve;
  promised.reject = reject;
}

/** Whether a LINK_TIMEOUT has cancelled its operation, or need not any more. */
function isElapsed(result: number): boolean {
  return result === -Errno.ETIME || result === -Errno.ECANCELED;
}

function sqesFor(head: Request): number {
  let count = 0;
  for (let link: Request | null = head; link !== null; link = link.nextLink) count += link.timeoutMs < 0 ? 1 : 2;
  return count;
}

const observed = { [CqeKind.Request]: "operation", [CqeKind.Timer]: "deadline", [CqeKind.Cancel]: "cancel" } as const;

/** What the observer throws is reported as an event handler's error would be; the ring goes on. */
function observe(observer: (completion: Completion) => void, operation: string, kind: CqeKind, result: number): void {
  if (kind === CqeKind.Errand) return;
  try {
    observer({ operation, of: observed[kind], result });
  } catch (error) {
    reportError(error);
  }
}

function leaveTokens(member: Request | LinkedRequests): void {
  member.joined?.leave(member);
  member.signalLink?.joined?.leave(member.signalLink);
}

/** The outcome, in the order of what is more certain: bytes and descriptors first, then why there are none. */
function settlePromise(request: Request): void {
  const { result, failure } = request;
  if (failure === null && result >= 0) {
    try {
      request.resolve(request.decode === null ? result : request.decode(request));
    } catch (error) {
      request.reject(error);
    }
  } else if (failure === null && request.cause === Cause.Cancelled && isCancelled(result)) {
    request.reject(isWrite(request) ? withBytesWritten(request.reason, 0) : request.reason);
  } else if (failure === null && result === -Errno.ECANCELED && request.group !== null && !isOverdue(request)) {
    request.reject(skipped);
  } else {
    request.resolve(rejectInCallTree(() => {
      const error = failure ?? (isOverdue(request) ? timeoutError(request) : errnoError(request));
      return isWrite(request) ? withBytesWritten(error, 0) : error;
    }));
  }
}

function isWrite(request: Request): boolean {
  return request.opcode === Op.SEND || request.opcode === Op.WRITE;
}

function isOverdue(request: Request): boolean {
  return isCancelled(request.result) && (request.cause === Cause.TimedOut || request.timerFired);
}

function errnoError(request: Request): Error {
  return systemError(request.result, request.operation, request.subject);
}

function timeoutError(request: Request): DOMException {
  return new DOMException(
    `${request.operation}${about(request.subject)} timed out after ${request.wholeTimeoutMs ?? request.timeoutMs} ms`,
    "TimeoutError",
  );
}

/**
 * A promise that rejects with the error `make` makes, and makes it two turns later: by then the caller's promise hangs
 * on this one, so that V8's asynchronous stack trace leads from here to the caller's line. It costs nothing as long
 * as nothing fails.
 */
async function rejectInCallTree(make: () => Error): Promise<never> {
  await null;
  await null;
  throw make();
}

/** Checks a duration; `Infinity` is -1, for none. */
export function milliseconds(name: string, value: number): number {
  if (typeof value !== "number") throw new TypeError(`${name} must be a number of milliseconds, not ${typeof value}`);
  if (!(value >= 0)) throw new RangeError(`${name} must not be negative, nor NaN: ${value}`);
  return value === Infinity ? -1 : value;
}
