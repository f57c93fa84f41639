/**
 * The ring as programs see it.
 *
 * @module
 */
import { requireIoUring } from "./availability.ts";
import type { DoorbellKind } from "./doorbell.ts";
import { type Completion, Driver } from "./driver.ts";
import { Errno, errnoTable } from "./errno.ts";
import { IoUringUnavailableError } from "./errors.ts";
import { sendMessage } from "./messages.ts";
import type { OperationOptions } from "./request.ts";
import { type RawCompletion, type RawRequest, submit, submitMultishot } from "./submit.ts";
import { Op, type OpcodeName } from "./uring_abi.ts";

/** How a ring is set up. */
export interface RingOptions {
  /**
   * SQEs that one submission holds, 2 to 32768; the kernel rounds up to a power of two. More requests at once take
   * several submissions. Default: 1024.
   */
  entries?: number;
  /**
   * CQEs that can wait to be seen, from `entries` to 65536, rounded up as well. While more requests than this are in
   * flight, further ones wait in order as long as any of the others completes. Default: four times `entries`.
   */
  completionEntries?: number;
  /** A kernel thread polls the submission queue, so that a busy ring needs no system call. Default: `false`. */
  sqpoll?: boolean;
  /** Milliseconds that this thread polls an empty queue before it sleeps. Default: 100. */
  sqpollIdleMs?: number;
  /**
   * What wakes the event loop: `"pipe"` (the kernel writes to a pipe that the loop watches) or `"thread"` (a thread of
   * the runtime's pool waits). Default: the pipe where the runtime can adopt one, else the thread.
   */
  doorbell?: DoorbellKind;
  /**
   * Up to how many open files and connections are registered with the ring, which the kernel then finds faster. That
   * takes two system calls for each of them, so it is done only after some reads and writes. Those beyond this number, or
   * beyond the limit of open files, do without. 0 to 16384. Default: 4096.
   */
  registeredFiles?: number;
  /**
   * Whether the memory that transfers go through is registered with the ring, so that its pages are pinned once and not
   * for each request: for files opened with O_DIRECT, and many large ones at a time. It counts as locked memory, and is
   * done without where the limit on that is too small. Default: `false`.
   */
  registeredBuffers?: boolean;
  /** Use nothing that is younger than this release of Linux, such as `"5.19"`: for testing what older kernels do. */
  kernel?: string;
}

/** Gives the library the driver of a ring, which programs don't see. */
let driverOfRing: (ring: Ring) => Driver;

/**
 * An io_uring with its event loop. A default one opens on first use; others are for tests, benchmarks and programs
 * that want options of their own. A ring belongs to the thread that opened it.
 *
 * @example
 * ```ts
 * import { Ring, sleep } from "@ringscope/ringscope";
 *
 * await using ring = Ring.open({ entries: 64 });
 * await sleep(1, { ring });
 * console.log(ring.inFlight); // 0
 * ```
 */
export class Ring implements AsyncDisposable {
  readonly #driver: Driver;

  static {
    driverOfRing = (ring) => ring.#driver;
  }

  private constructor(driver: Driver) {
    this.#driver = driver;
  }

  /**
   * Sets a ring up.
   *
   * @param options Sizes and flags; every field has a default.
   * @throws {IoUringUnavailableError} Where io_uring is not to be had; it names the cause and the remedy.
   * @throws {Deno.errors.NotCapable} Without `--allow-ffi`.
   * @throws {RangeError} If a size is out of its bounds.
   */
  static open(options: RingOptions = {}): Ring {
    const entries = integerWithin("entries", options.entries ?? 1024, MIN_ENTRIES, MAX_ENTRIES);
    const cqEntries = integerWithin(
      "completionEntries",
      options.completionEntries ?? Math.min(4 * entries, MAX_COMPLETION_ENTRIES),
      entries,
      MAX_COMPLETION_ENTRIES,
    );
    const sqpollIdleMs = integerWithin("sqpollIdleMs", options.sqpollIdleMs ?? 100, 1, 2 ** 31 - 1);
    const registeredFiles = integerWithin("registeredFiles", options.registeredFiles ?? 4096, 0, MAX_REGISTERED_FILES);
    const { doorbell, sqpoll = false, registeredBuffers = false, kernel } = options;
    if (kernel !== undefined && !/^\d+\.\d+$/.test(kernel)) {
      throw new TypeError(`kernel must be a release such as "5.19", not ${JSON.stringify(kernel)}`);
    }
    if (doorbell !== undefined && doorbell !== "pipe" && doorbell !== "thread") {
      throw new TypeError(`doorbell must be "pipe" or "thread", not ${JSON.stringify(doorbell)}`);
    }
    requireIoUring();
    const uring = { entries, cqEntries, sqpoll, sqpollIdleMs, kernel };
    return new Ring(new Driver({ ...uring, registeredFiles, registeredBuffers }, doorbell));
  }

  /** Requests that have been made and not settled, whether the kernel has seen them or not. */
  get inFlight(): number {
    return this.#driver.inFlight;
  }

  /** System calls (`io_uring_enter`) that this ring has made so far; one submits all that a microtask turn brings. */
  get enters(): number {
    return this.#driver.uring.enters;
  }

  /** The size of the submission queue, as the kernel made it. */
  get entries(): number {
    return this.#driver.uring.entries;
  }

  /** The size of the completion queue, as the kernel made it. */
  get completionEntries(): number {
    return this.#driver.uring.cqEntries;
  }

  /**
   * Whether the kernel knows an opcode of io_uring.
   *
   * @param opcode Its name, such as `"WAITID"`.
   * @throws {TypeError} If there is no such opcode.
   */
  supports(opcode: OpcodeName): boolean {
    if (!Object.hasOwn(Op, opcode)) throw new TypeError(`No opcode is named ${JSON.stringify(opcode)}`);
    return this.#driver.features.supports(Op[opcode]);
  }

  /** Which doorbell this ring has. Unless one was asked for, it is a thread at first, and a pipe after some sleeps. */
  get doorbell(): DoorbellKind {
    return this.#driver.doorbellKind;
  }

  /**
   * Called with every completion as the kernel reports it, before the operation's promise settles: for watching what
   * becomes of cancelled operations, and for measuring. `null`, the default, costs nothing. It must not throw.
   */
  get onCompletion(): ((completion: Completion) => void) | null {
    return this.#driver.observer;
  }
  set onCompletion(observer: ((completion: Completion) => void) | null) {
    this.#driver.observer = observer;
  }

  /** The ring's descriptor, as strace shows it. */
  get fd(): number {
    return this.#driver.uring.fd;
  }

  /**
   * Submits one request of one's own, described field by field: for opcodes that have no face here, and for flags that
   * no face offers. It is FFI by another name: numbers that say something untrue of memory, and descriptors that are
   * not yours, do what they would do in C. Therefore it requires `--allow-ffi` for all of the process, and no other
   * permission is asked for.
   *
   * It takes no turns with reads and writes of the same descriptor. What it opens is yours to close, also where it
   * succeeded although it was to be cancelled.
   *
   * @param request The SQE.
   * @param options `signal`, and a `timeout` in milliseconds.
   * @returns The CQE, if its result is not negative.
   * @throws The errno's class of `Deno.errors`, with `code`, `errno` and `operation`.
   * @throws {TypeError} If the opcode is one that would break the ring; the message says what to use instead.
   * @throws {Deno.errors.NotSupported} If the kernel does not know the opcode.
   * @throws {Deno.errors.NotCapable} Without `--allow-ffi` for all of the process.
   *
   * @example
   * ```ts
   * import { defaultRing } from "@ringscope/ringscope";
   *
   * const path = new TextEncoder().encode("/etc/hostname\0");
   * const statx = { bytes: new Uint8Array(256), output: true };
   * await defaultRing().submit({
   *   opcode: "STATX",
   *   fd: -100, // AT_FDCWD
   *   address: path,
   *   offset: statx, // addr2 shares its place
   *   length: 0x7ff, // STATX_BASIC_STATS
   * });
   * console.log(new DataView(statx.bytes.buffer).getUint16(28, true).toString(8)); // the mode: "100644"
   * ```
   */
  submit(request: RawRequest, options?: OperationOptions): Promise<RawCompletion> {
    return submit(this.#driver, request, options);
  }

  /**
   * Submits one request that completes again and again (`ACCEPT`, `RECV`, `RECVMSG`, `READ_MULTISHOT`, `POLL_ADD`,
   * `TIMEOUT`), with the opcode's multishot flag set. Otherwise as {@linkcode Ring.submit}.
   *
   * The request is made by the first `next`. The iteration ends behind the CQE without `IORING_CQE_F_MORE`. If nobody
   * comes for 64 completions the request is stopped, and made anew by the `next` after them.
   *
   * @param request The SQE.
   * @param options A `signal`: it stops the request, and `next` rejects with its reason.
   * @returns The CQEs; a negative result is thrown, and ends the request.
   */
  submitMultishot(
    request: RawRequest,
    options: Pick<OperationOptions, "signal"> = {},
  ): AsyncIterableIterator<RawCompletion> {
    return submitMultishot(this.#driver, request, options.signal);
  }

  /**
   * Sends a number to another ring of this process (`IORING_OP_MSG_RING`), mostly a worker's, which takes it from its
   * {@linkcode Ring.messages}. No thread is involved: the kernel puts it into the other ring and wakes its event loop.
   *
   * @param ringFd The other ring's {@linkcode Ring.fd}, which a worker can post. It must be open, and a ring of this
   * library: a number that has come to stand for something else is that something else's.
   * @param message An integer from 0 to 2^53 - 1.
   * @throws {Deno.errors.BadResource} If the other ring is closed.
   * @throws An error with code "EBADFD" if the descriptor is not a ring's.
   */
  async send(ringFd: number, message: number, options?: OperationOptions): Promise<void> {
    await sendMessage(this.#driver, ringFd, message, options);
  }

  /**
   * The numbers that other rings send to this one, in order of arrival; what arrives while nobody asks is kept. From the
   * first `next` to `return`, or to the end of the scope or the signal, it keeps the process alive.
   *
   * @param options A `signal`: `next` rejects with its reason.
   *
   * @example
   * ```ts
   * import { Ring } from "@ringscope/ringscope";
   *
   * await using ring = Ring.open();
   * await using other = Ring.open(); // or a worker's
   * await other.send(ring.fd, 42);
   * for await (const message of ring.messages()) {
   *   console.log(message); // 42
   *   break;
   * }
   * ```
   */
  messages(options: Pick<OperationOptions, "signal"> = {}): AsyncIterableIterator<number> {
    return this.#driver.inbox.messages(options.signal);
  }

  /**
   * Cancels what is in flight (it rejects with an "AbortError"), waits until the kernel is done with all of it, and
   * gives the ring back. Closing twice is closing once.
   */
  close(): Promise<void> {
    return this.#driver.close();
  }

  /** The same as {@linkcode Ring.close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/** An operation and its LINK_TIMEOUT, or a cancel and its delay, must fit one submission. */
const MIN_ENTRIES = 2;
/** The kernel's own bounds. */
const MAX_ENTRIES = 32768;
const MAX_COMPLETION_ENTRIES = 65536;

const MAX_REGISTERED_FILES = 16384;

let opened: Ring | null = null;

/**
 * The ring that operations use unless they are told another one: one per thread, opened when it is first asked for.
 * It need not be closed, and keeps the process alive only while requests are in flight. Once it has been closed a new one
 * takes its place, while what was opened on it is of no more use.
 *
 * @throws {IoUringUnavailableError} Where io_uring is not to be had; it names the cause and the remedy.
 * @throws {Deno.errors.NotCapable} Without `--allow-ffi`.
 *
 * @example
 * ```ts
 * import { defaultRing, sleep } from "@ringscope/ringscope";
 *
 * const slept = sleep(1);
 * console.log(defaultRing().inFlight); // 1
 * await slept;
 * ```
 */
export function defaultRing(): Ring {
  if (opened === null || driverOfRing(opened).closing) opened = openLargest();
  return opened;
}

/** The driver behind a ring, or behind the default one. */
export function driverOf(ring?: Ring): Driver {
  return driverOfRing(ring ?? defaultRing());
}

/** Under a tight limit on locked memory (64 KiB was common), a smaller ring is better than none. */
function openLargest(): Ring {
  for (const entries of [1024, 256, 32]) {
    try {
      return Ring.open({ entries });
    } catch (error) {
      const noMemory = error instanceof IoUringUnavailableError && error.code === errnoTable.get(Errno.ENOMEM)!.code;
      if (!noMemory) throw error;
    }
  }
  return Ring.open({ entries: 8 });
}

function integerWithin(name: string, value: number, least: number, most: number): number {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new RangeError(`${name} must be an integer from ${least} to ${most}, not ${value}`);
  }
  return value;
}
