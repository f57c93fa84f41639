/**
 * A request: what is asked of the kernel, by whom, and where it stands. The ring moves it from state to state; what its
 * opcode means is in `operations.ts`.
 *
 * @module
 */
import { Cancellable, type CancelToken } from "../scope/cancel_token.ts";
import type { Block } from "./arena.ts";
import type { Subject } from "./errors.ts";
import type { Operand } from "./operations.ts";

/**
 * The life of a request, in order. Cancelling is not a state of its own: it is asked for (`cause`) of a request in any
 * state before `Completed`, and only the request's own CQE says whether it came in time.
 */
export enum RequestState {
  /** Made; waits in the queue for room in the SQ. Holds no memory and no slot. */
  Queued,
  /** Written into the SQ: the kernel may read and write its memory from here on. */
  Submitted,
  /** Its final CQE is in, and the kernel is done with its memory; CQEs of its timer or cancel are still to come. */
  Completed,
  /** All its CQEs are in, its slot is free, and its promise has been settled. */
  Settled,
}

/** Why a request was asked to stop. The first cause stands. */
export enum Cause {
  None,
  /** A token was cancelled, a descriptor or the ring is closing: `reason` says with what to reject. */
  Cancelled,
  /** Its own deadline has passed. */
  TimedOut,
}

/** What every operation takes. */
export interface OperationOptions {
  /** Cancels the operation in the kernel when it aborts; the promise then rejects with `signal.reason`. */
  signal?: AbortSignal;
  /** Milliseconds until the operation is cancelled with a `DOMException` named "TimeoutError". Default: none. */
  timeout?: number;
}

/** Among the options of one of several requests that share a `timeout`, of which theirs is what is left: all of it. */
export const wholeTimeout: unique symbol = Symbol("wholeTimeout");

/** The same options, as the library gives them to itself. */
export interface SharedOptions extends OperationOptions {
  /** The `timeout` that the program gave. */
  [wholeTimeout]?: number;
}

/** Whose requests these are: an open file or socket that must know when the last one is back. */
export interface RequestOwner {
  /** Requests in flight on it. Kept by the ring. */
  pending: number;
  /** Whether requests in flight on it keep the process alive; see `Driver.reference`. */
  referenced: boolean;
  /** Called when `pending` has come down to 0, if set. */
  onIdle: (() => void) | null;
  /** Called when a request at the file's own position has moved `bytes` of the `asked`, before the next one starts. */
  moved(bytes: number, asked: number): void;
  /** Takes bytes that were read but could not be delivered, to deliver them to the next read. */
  unread(bytes: Uint8Array<ArrayBuffer>): void;
  /**
   * Whether a request whose turn has come can be served by what was kept: then its result is set, and the kernel is not
   * asked.
   */
  serve(request: Request): boolean;
}

/**
 * Keeps requests in order that must not overtake each other: reads of one stream, or all that moves one file's
 * position. The lane belongs to one request at a time, or to a holder's several in a row.
 */
export class Lane {
  /** The request or the holder whose turn it is. */
  turn: object | null = null;
  /** Those whose turn will come, the settled among them to be passed over. */
  readonly waiting: Request[] = [];
}

/** What a request needs of its ring when it is told to stop. */
export interface RequestHost {
  cancelRequest(request: Request, cause: Cause, reason: unknown): void;
}

/**
 * One request. Fields are set once by whoever makes it, up to `decode`; the rest is the ring's. Plain transfers are used
 * again: at some hundred thousand of them a second, fresh memory is what costs most, and memory far apart what comes next.
 */
export class Request extends Cancellable {
  // What a simple transfer needs lies together.
  opcode: number;
  /** Whether it is a transfer on its own, made by `Driver.transfer`. */
  renewable = false;
  /** Whether it is that, and nothing but its own CQE and its scope has to do with it: no deadline, signal or cancel. */
  simple = false;
  state = RequestState.Queued;
  slot = -1;
  fd = -1;
  /** The SQE's `IOSQE_*` flags; linking is added by the ring. */
  sqeFlags = 0;
  /** The SQE's `len`, where the opcode does not derive it from `view`. */
  length = 0;
  /** The SQE's `off`: a transfer's position, or `CURRENT_POSITION` for the file's own and for what has none. */
  offset = 0;
  /** The SQE's 32 bits of flags that belong to the opcode. */
  opFlags = 0;
  /** Where read bytes go to, or written ones come from. */
  view: Uint8Array | null = null;
  block: Block | null = null;
  /** CQEs that are still to come: its own, its timer's, its cancels'. */
  outstanding = 0;
  result = 0;
  owner: RequestOwner | null = null;
  /** The lane it waits in for its turn, and in whose name, if not its own. */
  lane: Lane | null = null;
  laneHolder: object | null = null;
  /** Whether the lane stays its own if it is a success of fewer bytes than asked for: the holder of what follows. */
  keepsLaneIfShort = false;
  /** A failure on this side of the kernel, such as a buffer that was detached meanwhile. */
  failure: Error | null = null;
  /** Makes the promise's value of the result, which is not negative. Default: the result. */
  decode: ((request: Request) => unknown) | null = null;
  resolve!: (value: unknown) => void;
  reject!: (reason: unknown) => void;
  /** The token of the scope it belongs to. */
  token: CancelToken | undefined = undefined;
  /** The operation's name in errors, such as `"read"`. */
  operation: string;
  subject: Subject | undefined = undefined;
  /** Whether it waits by poll, where a LINK_TIMEOUT reaches it; one that blocks in a worker needs a TIMEOUT. */
  pollable = false;

  /** The SQE's `addr`, where it is a number and no memory. */
  address = 0;
  /** The SQE's `ioprio`: flags of the socket opcodes. */
  priority = 0;
  /** The SQE's `buf_group`, or `buf_index`. */
  bufferGroup = 0;
  /** The SQE's `file_index`: slot + 1 of a direct descriptor, or what else the opcode has there. */
  fileIndex = 0;
  /** What was read, where neither `view` nor `views` say where to. */
  bytes: Uint8Array<ArrayBuffer> | null = null;
  /** Instead of `view`, several arrays one after another. */
  views: readonly Uint8Array[] | null = null;
  /** Other memory that the opcode takes by address. */
  operands: readonly Operand[] | null = null;
  /** All 16 words of the SQE, for requests that are written by hand; its user data and operands are filled in. */
  words: Uint32Array | null = null;
  /** Milliseconds a TIMEOUT takes. */
  durationMs = 0;
  /** Milliseconds to its deadline; -1 for none. */
  timeoutMs = -1;
  /** The `timeout` that the program gave, if that is what is left of it. */
  wholeTimeoutMs: number | undefined = undefined;
  /** Whether tokens reach it. A close is not to be cancelled. */
  cancellable = true;
  /** The next link of its chain, and whether that one runs whatever becomes of this one. */
  nextLink: Request | null = null;
  hardLink = false;
  /** What joins the tokens for all links of a chain; `null` outside chains. */
  group: LinkedRequests | null = null;
  /** Takes each result but the last of a request that completes again and again. */
  onShot: ((result: number, cqeFlags: number) => void) | null = null;
  /** What the caller gave, for requests that may have to go on, and since when a `timeout` counts. */
  options: OperationOptions | undefined = undefined;
  startedMs = 0;

  cause = Cause.None;
  reason: unknown = undefined;
  cancelTries = 0;
  timerArmed = false;
  timerFired = false;
  /** Whether a zero-copy send has been done, and only the CQE is to come that frees its memory. */
  sent = false;
  /** The flags of its CQE, `IORING_CQE_F_*`. */
  cqeFlags = 0;
  /** Where in the block its bytes begin: not 0 only where the links of a chain share one. */
  blockOffset = 0;
  /** Whether the block belongs to a chain, which gives it back. */
  sharesBlock = false;
  signalLink: SignalLink | null = null;
  readonly #host: RequestHost;

  constructor(host: RequestHost, opcode: number, operation: string) {
    super();
    this.#host = host;
    this.opcode = opcode;
    this.operation = operation;
  }

  /** Whether somebody goes on with what it left: it is a success of fewer bytes than were asked for. */
  get holdsLane(): boolean {
    return this.keepsLaneIfShort && this.failure === null && this.result >= 0 && this.result < this.length;
  }

  /** Called by the token it has joined. */
  override cancel(reason: unknown): void {
    this.#host.cancelRequest(this, Cause.Cancelled, reason);
  }
}

/** The links of a chain, which tokens cancel together. */
export class LinkedRequests extends Cancellable {
  readonly links: readonly Request[];
  /** Links that have not been settled. */
  unsettled: number;
  signalLink: SignalLink | null = null;

  constructor(links: readonly Request[]) {
    super();
    this.links = links;
    this.unsettled = links.length;
  }

  /** Each link, because which one the kernel has come to can't be known; the cancels of the others find nothing. */
  override cancel(reason: unknown): void {
    for (const link of this.links) link.cancel(reason);
  }
}

/** What joins the token of a `{ signal }`, besides the ambient one, for a request or a chain. */
export class SignalLink extends Cancellable {
  readonly #target: Cancellable;

  constructor(target: Cancellable, token: CancelToken) {
    super();
    this.#target = target;
    token.join(this);
  }

  override cancel(reason: unknown): void {
    this.#target.cancel(reason);
  }
}
