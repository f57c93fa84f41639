/**
 * The doorbell: lets the event loop sleep while requests are in flight, and wakes it when the ring has a completion.
 *
 * `PipeBell` is a second, tiny ring with two SQEs that never change: POLL_ADD on the main ring, linked to a WRITE of
 * one byte into a pipe whose other end is a socket of the event loop. The kernel itself rings, in 3 us. `ThreadBell` is
 * the fallback where the runtime can't adopt a pipe (Deno before 2.8, mostly): a thread of its pool waits, which takes 30 us.
 * It also serves the first few times, because loading node:net takes 30 ms, and a short program need not pay that.
 *
 * @module
 */
import type net from "node:net";
import { waitDefinition } from "../ffi/abi.ts";
import type { Native } from "../ffi/load.ts";
import { systemError } from "./errors.ts";
import { Op, Sqe } from "./uring_abi.ts";
import { Uring } from "./uring.ts";

/** Which doorbell a ring has. */
export type DoorbellKind = "pipe" | "thread";

/** Times the loop sleeps by the thread before the pipe is worth its price. */
const SLEEPS_BEFORE_PIPE = 16;

/** The doorbell of a ring: of the kind asked for, or the best for as often as it has rung. */
export class Doorbell {
  readonly #native: Native;
  readonly #watched: Uring;
  readonly #ring: () => void;
  readonly #wanted: DoorbellKind | undefined;
  #bell: Bell;
  #sleeps = 0;

  /**
   * `ring` is called on the event loop, in no one's call tree. It hangs at once: what stands in its way (a runtime that
   * can't adopt a pipe, no descriptor to spare) is better known before anything is in flight.
   */
  constructor(native: Native, watched: Uring, ring: () => void, wanted?: DoorbellKind) {
    this.#native = native;
    this.#watched = watched;
    this.#ring = ring;
    this.#wanted = wanted;
    this.#bell = this.#hang(wanted ?? "thread");
  }

  /** What hangs now. */
  get kind(): DoorbellKind {
    return this.#bell.kind;
  }

  /**
   * Rings once when there is a completion, and keeps the process alive meanwhile, if it is to; one that is armed already
   * stays so. Returns 0, or the negative errno of a refusal that passes (EAGAIN): then it is not armed. A thread that
   * waits always keeps the process alive.
   */
  arm(keepAlive: boolean): number {
    if (this.#wanted === undefined && ++this.#sleeps === SLEEPS_BEFORE_PIPE) this.#improve();
    if (!keepAlive && this.#wanted === undefined && this.#sleeps < SLEEPS_BEFORE_PIPE) {
      this.#sleeps = SLEEPS_BEFORE_PIPE;
      this.#improve();
    }
    return this.#bell.arm(keepAlive);
  }

  /**
   * Nothing is in flight: the process need not stay alive for this ring. `true` if that takes effect only with the
   * next ring, which comes soon.
   */
  rest(): boolean {
    return this.#bell.rest();
  }

  close(): void {
    this.#bell.close();
  }

  #hang(kind: DoorbellKind): Bell {
    const Bell = kind === "pipe" ? PipeBell : ThreadBell;
    return new Bell(this.#native, this.#watched, this.#ring);
  }

  #improve(): void {
    if (!hasSpareDescriptors(this.#native)) {
      this.#sleeps = 0; // later
      return;
    }
    let pipe: Bell;
    try {
      pipe = this.#hang("pipe");
    } catch {
      return; // this runtime can't adopt a pipe, or there is no descriptor left for one: the thread goes on
    }
    this.#bell.close();
    this.#bell = pipe;
  }
}

/** One way to wake the event loop. */
interface Bell {
  readonly kind: DoorbellKind;
  arm(keepAlive: boolean): number;
  rest(): boolean;
  close(): void;
}

const O_NONBLOCK = 0o4000;
const O_CLOEXEC = 0o2000000;
const POLLIN = 1;

function openPipe(native: Native, flags: number): [reader: number, writer: number] {
  const fds = new Int32Array(2);
  const result = native.rs_pipe(fds, flags | O_CLOEXEC);
  if (result < 0) throw systemError(result, "pipe2");
  return [fds[0], fds[1]];
}

/**
 * Whether the process can open some more files. Deno panics where it loads a module of its own and cannot (it reads
 * /proc/self/maps for that), so `node:net` is not loaded then.
 */
function hasSpareDescriptors(native: Native): boolean {
  const fds = new Int32Array(6);
  let opened = 0;
  while (opened < fds.length && native.rs_pipe(fds.subarray(opened), O_CLOEXEC) === 0) opened += 2;
  for (let i = 0; i < opened; i++) native.rs_close(fds[i]);
  return opened === fds.length;
}

/** `node:net`, taken only when a bell is first hung: loading it costs tens of milliseconds. */
function socketClass(): typeof net.Socket {
  // deno-lint-ignore no-process-global -- importing node:process would load it at once
  return (process.getBuiltinModule("node:net") as typeof net).Socket;
}

class PipeBell implements Bell {
  readonly kind = "pipe";
  readonly #native: Native;
  readonly #bell: Uring;
  readonly #socket: net.Socket;
  readonly #writer: number;
  #armed = false;
  #referenced = true;

  constructor(native: Native, watched: Uring, ring: () => void) {
    const Socket = socketClass();
    const [reader, writer] = openPipe(native, O_NONBLOCK);
    try {
      this.#socket = new Socket({ fd: reader, readable: true, writable: false });
    } catch (error) {
      native.rs_close(reader);
      native.rs_close(writer);
      throw error;
    }
    this.#native = native;
    this.#writer = writer;
    this.#socket.on("data", () => {
      this.#armed = false;
      ring();
    });
    this.rest();
    try {
      this.#bell = new Uring(native, { entries: 2, cqEntries: 4, sqpoll: false, sqpollIdleMs: 0 });
    } catch (error) {
      this.#socket.destroy();
      native.rs_close(writer);
      throw error;
    }
    this.#bell.writeControl(Op.POLL_ADD, Sqe.IO_LINK, { fd: watched.fd, opFlags: POLLIN });
    this.#bell.pushSqe(0, 0);
    const [addressLow, addressHigh] = this.#bell.scratchAddress();
    this.#bell.writeControl(Op.WRITE, 0, { fd: writer, addressLow, addressHigh, length: 1 });
    this.#bell.pushSqe(0, 0);
    this.#bell.rewind(2);
  }

  arm(keepAlive: boolean): number {
    if (!keepAlive) {
      this.rest();
    } else if (!this.#referenced) {
      this.#referenced = true;
      this.#socket.ref();
    }
    if (this.#armed) return 0;
    // The byte in the pipe means "disarmed", so the two CQEs of the last time are there; nobody needs them.
    this.#bell.discardCompletions();
    // What a refused submission left is submitted now.
    if (this.#bell.unsubmitted === 0) this.#bell.repush(2);
    const result = this.#bell.submit();
    this.#armed = result === 0;
    return result;
  }

  rest(): boolean {
    if (this.#referenced) {
      this.#referenced = false;
      this.#socket.unref();
    }
    return false;
  }

  close(): void {
    this.#bell.close();
    this.#socket.destroy();
    this.#native.rs_close(this.#writer);
  }
}

class ThreadBell implements Bell {
  readonly kind = "thread";
  readonly #native: Native;
  readonly #watched: Uring;
  readonly #ring: () => void;
  readonly #wait: Deno.UnsafeFnPointer<typeof waitDefinition>;
  readonly #pipe: [reader: number, writer: number];
  #waiting = false;
  #kicked = false;
  #closed = false;

  constructor(native: Native, watched: Uring, ring: () => void) {
    this.#native = native;
    this.#watched = watched;
    this.#ring = ring;
    // From its address, because a call off the main thread through the library needs the library to be open.
    const address = native.rs_wait_address() as Deno.PointerObject<typeof waitDefinition>;
    this.#wait = new Deno.UnsafeFnPointer(address, waitDefinition);
    this.#pipe = openPipe(native, 0);
  }

  arm(): number {
    if (this.#waiting) return 0;
    this.#waiting = true;
    this.#kicked = false;
    this.#wait.call(this.#watched.fd, this.#pipe[0]).then(() => {
      this.#waiting = false;
      if (this.#closed) this.#closePipe();
      this.#ring();
    });
    return 0;
  }

  /** The waiting thread keeps the process alive, so it is sent home; when it is back the ring looks whether to wait on. */
  rest(): boolean {
    if (this.#waiting && !this.#kicked) {
      this.#kicked = true;
      this.#native.rs_kick(this.#pipe[1]);
    }
    return this.#waiting;
  }

  close(): void {
    this.#closed = true;
    if (this.#waiting) this.rest();
    else this.#closePipe();
  }

  #closePipe(): void {
    for (const fd of this.#pipe) this.#native.rs_close(fd);
  }
}
