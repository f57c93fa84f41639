/**
 * Moving bytes from one descriptor to another inside the kernel.
 *
 * @module
 */
import type { Driver } from "../ring/driver.ts";
import { Errno } from "../ring/errno.ts";
import { systemError, type SystemErrorFields } from "../ring/errors.ts";
import type { Lane, OperationOptions, Request } from "../ring/request.ts";
import { CURRENT_POSITION, Op, SQE_WORDS } from "../ring/uring_abi.ts";
import { type Descriptor, remaining } from "./descriptor.ts";
import { descriptorOfFile, File } from "./file.ts";
import { descriptorOfPipeEnd, PipeReader, PipeWriter } from "./pipe.ts";
import { Conn, descriptorOfConn } from "./tcp.ts";

/** What bytes can be copied from. */
export type CopySource = File | Conn<Deno.Addr> | PipeReader;
/** What bytes can be copied to. */
export type CopyTarget = File | Conn<Deno.Addr> | PipeWriter;

/** Options of {@linkcode copy} and {@linkcode tee}. */
export interface CopyOptions extends OperationOptions {
  /** The most bytes to copy. Default: all there are, to the end. */
  length?: number;
}

const O_CLOEXEC = 0o2000000;
const SEEK_CUR = 1;
const POLLIN = 1;
const POLLOUT = 4;
const SPLICE_F_MOVE = 1;
const SPLICE_F_NONBLOCK = 2;
const MSG_NOSIGNAL = 0x4000;
/** What a pipe holds, as the kernel makes them; a full one is what one step moves. */
const STEP_BYTES = 64 << 10;
/** What it is to hold once it has been full: for long copies, each step has its price. */
const LONG_STEP_BYTES = 1 << 20;
/** 64 bits that say: not at a position, but where the descriptor stands. */
const NO_OFFSET = 0xffff_ffff;

/**
 * Copies bytes from one open file, connection or pipe to another, to the end of the first (`IORING_OP_SPLICE` by way of
 * a pipe, so that they do not come through this program; by reading and writing where the kernel refuses to splice, as
 * to a file that is open for appending). Both move on by what was copied. Other reads of the one, and writes of the
 * other, wait until it is done.
 *
 * @param from Where from.
 * @param to Where to.
 * @param options `length`, `signal`, and a `timeout` for all of it.
 * @returns Bytes copied: `length`, or fewer if the end came before.
 * @throws An error that tells `bytesCopied`, if it is an object. Bytes that had left `from` and not reached `to` come
 * with the next read of `from`: none are lost.
 * @throws {TypeError} If they belong to two rings.
 *
 * @example
 * ```ts
 * import { copy, open, pipe } from "@ringscope/ringscope";
 *
 * await using file = await open("/etc/os-release");
 * const { reader, writer } = pipe();
 * console.log(await copy(file, writer, { length: 4 })); // 4
 * await writer.close();
 * console.log((await reader.readAll()).byteLength); // 4
 * await reader.close();
 * ```
 */
export async function copy(from: CopySource, to: CopyTarget, options: CopyOptions = {}): Promise<number> {
  const length = checkLength(options.length);
  const source = sourceOf(from);
  const target = targetOf(to);
  requireOneRing(source, target);
  for (const end of [source, target]) end.admit("copy", options);
  if (length === 0) return 0;
  const copying = new Copy("copy", source, target, length, options);
  return await copying.run();
}

/**
 * Copies what is in a pipe into another one, and leaves it where it is (`IORING_OP_TEE`), once it is there and there
 * is room.
 *
 * @param from The pipe whose bytes stay.
 * @param to The pipe that gets them, too.
 * @param options `length`, `signal`, and `timeout`.
 * @returns Bytes copied, at least 1; `null` when all writers of `from` are closed and it is empty.
 *
 * @example
 * ```ts
 * import { pipe, tee } from "@ringscope/ringscope";
 *
 * const [one, other] = [pipe(), pipe()];
 * await one.writer.writeAll(new TextEncoder().encode("twice"));
 * console.log(await tee(one.reader, other.writer)); // 5
 * for (const { reader, writer } of [one, other]) {
 *   await writer.close();
 *   console.log(new TextDecoder().decode(await reader.readAll())); // "twice"
 *   await reader.close();
 * }
 * ```
 */
export async function tee(from: PipeReader, to: PipeWriter, options: CopyOptions = {}): Promise<number | null> {
  const length = Math.min(checkLength(options.length), STEP_BYTES);
  if (!(from instanceof PipeReader)) throw new TypeError("tee takes from a PipeReader");
  if (!(to instanceof PipeWriter)) throw new TypeError("tee gives to a PipeWriter");
  const source = descriptorOfPipeEnd(from);
  const target = descriptorOfPipeEnd(to);
  requireOneRing(source, target);
  for (const end of [source, target]) end.admit("tee", options);
  if (length === 0) return 0;
  return await new Copy("tee", source, target, length, options).tee();
}

/** One copy, and the turns it has: that of reading one descriptor, and that of writing another. */
class Copy {
  readonly #operation: "copy" | "tee";
  readonly #driver: Driver;
  readonly #from: Descriptor;
  readonly #to: Descriptor;
  readonly #length: number;
  readonly #remaining: () => OperationOptions | undefined;
  #lanes: Lane[] = [];
  /** The pipe between the two, -1 as long as there is none, and how many bytes are in it. */
  #reader = -1;
  #writer = -1;
  #piped = 0;
  #stepBytes = STEP_BYTES;
  /** Bytes that go through this program: behind them are those in the pipe. */
  #held: Uint8Array<ArrayBuffer>[] = [];
  /** Whether the kernel refuses to splice from the one, or to the other. */
  #reads = false;
  #writes = false;
  /** Bytes that have left `from`, and that have reached `to`. */
  #taken = 0;
  #copied = 0;

  constructor(
    operation: "copy" | "tee",
    from: Descriptor,
    to: Descriptor,
    length: number,
    options: CopyOptions,
  ) {
    this.#operation = operation;
    this.#driver = from.driver;
    this.#from = from;
    this.#to = to;
    this.#length = length;
    this.#remaining = remaining(options, performance.now());
  }

  async run(): Promise<number> {
    try {
      await this.#takeTurns(() => this.#takeUnread());
      this.#openPipe();
      do {
        while (this.#held.length > 0) await this.#writeHeld();
        while (this.#piped > 0) await this.#drain();
      } while (this.#taken < this.#length && await this.#fill());
      return this.#copied;
    } catch (error) {
      if (this.#taken > this.#copied) await this.#giveBack();
      if (typeof error === "object" && error !== null && Object.isExtensible(error)) {
        Object.assign(error, { bytesCopied: this.#copied });
      }
      throw error;
    } finally {
      for (const descriptor of [this.#from, this.#to]) if (!descriptor.closed) descriptor.lookUpPosition();
      this.#passTurns();
      for (const fd of [this.#reader, this.#writer]) if (fd >= 0) this.#driver.native.rs_close(fd);
    }
  }

  async tee(): Promise<number | null> {
    try {
      let kept: Uint8Array | undefined;
      await this.#takeTurns(() => {
        for (const bytes of this.#from.takeAllUnread()) {
          kept ??= bytes.subarray(0, this.#length);
          this.#from.unread(bytes);
        }
      });
      if (kept !== undefined) return await this.#write(kept);
      for (;;) {
        await this.#poll(this.#from, POLLIN);
        await this.#poll(this.#to, POLLOUT);
        const n = await this.#splice(Op.TEE, this.#from.fd, this.#to.fd, this.#length, this.#from);
        if (n !== -Errno.EAGAIN) return n === 0 ? null : n;
      }
    } finally {
      this.#passTurns();
    }
  }

  /**
   * Waits for both turns: in the same order always, so that two copies never wait for each other. Where nobody has them
   * they are taken before this first waits, as a read would.
   */
  async #takeTurns(onTurns: () => void): Promise<void> {
    const turns: (readonly [Descriptor, Lane])[] = [
      [this.#from, this.#from.lane("read")],
      [this.#to, this.#to.lane("write")],
    ];
    const take = ([descriptor, lane]: readonly [Descriptor, Lane]) => {
      const request = descriptor.request(Op.NOP, this.#operation);
      request.lane = lane;
      request.laneHolder = this;
      this.#lanes.push(lane);
      return this.#start(request);
    };
    if (turns.every(([, lane]) => lane.turn === null)) {
      const taken = turns.map(take);
      onTurns();
      await Promise.all(taken);
    } else {
      for (const turn of turns.toSorted(([a], [b]) => a.fd - b.fd)) await take(turn);
      onTurns();
    }
  }

  #passTurns(): void {
    for (const lane of this.#lanes) this.#driver.passLane(lane, this);
  }

  /** What an earlier read could not deliver goes first. */
  #takeUnread(): void {
    for (const bytes of this.#from.takeAllUnread()) {
      const wanted = bytes.subarray(0, this.#length - this.#taken);
      if (wanted.byteLength > 0) this.#held.push(wanted);
      if (wanted.byteLength < bytes.byteLength) this.#from.unread(bytes.subarray(wanted.byteLength));
      this.#taken += wanted.byteLength;
    }
  }

  #openPipe(): void {
    const fds = new Int32Array(2);
    const result = this.#driver.native.rs_pipe(fds, O_CLOEXEC);
    if (result < 0) throw systemError(result, this.#operation);
    [this.#reader, this.#writer] = fds;
  }

  #growPipe(): void {
    if (this.#stepBytes > STEP_BYTES) return;
    const bytes = this.#driver.native.rs_grow_pipe(this.#writer, LONG_STEP_BYTES);
    if (bytes > 0) this.#stepBytes = bytes;
  }

  /** Takes a pipeful from the one; `false` at its end. */
  async #fill(): Promise<boolean> {
    const wanted = Math.min(this.#stepBytes, this.#length - this.#taken);
    // A splice that had to wait would block one of the kernel's workers.
    if (this.#from.traits.pollable) await this.#poll(this.#from, POLLIN);
    if (!this.#reads) {
      const n = await this.#splice(Op.SPLICE, this.#from.fd, this.#writer, wanted, this.#from);
      if (n === -Errno.EAGAIN) return true;
      if (n !== -Errno.EINVAL) {
        this.#piped += n;
        this.#taken += n;
        if (n === STEP_BYTES) this.#growPipe();
        return n > 0;
      }
      this.#reads = true;
    }
    const bytes = new Uint8Array(wanted);
    const { socket, pollable } = this.#from.traits;
    const n = await this.#transfer(this.#from.request(socket ? Op.RECV : Op.READ, this.#operation), bytes, pollable);
    if (n > 0) this.#held.push(bytes.subarray(0, n));
    this.#taken += n;
    return n > 0;
  }

  /** Gives what is in the pipe to the other, or some of it. */
  async #drain(): Promise<void> {
    if (!this.#writes) {
      if (this.#to.traits.pollable) await this.#poll(this.#to, POLLOUT);
      const n = await this.#splice(Op.SPLICE, this.#reader, this.#to.fd, this.#piped, this.#to);
      if (n === -Errno.EAGAIN) return;
      if (n !== -Errno.EINVAL) {
        this.#piped -= n;
        this.#copied += n;
        return;
      }
      this.#writes = true;
    }
    await this.#empty();
    while (this.#held.length > 0) await this.#writeHeld();
  }

  /** Brings what is in the pipe into this program: it is there, so nothing is waited for, and nothing cancels it. */
  async #empty(): Promise<void> {
    while (this.#piped > 0) {
      const request = this.#driver.request(Op.READ, this.#operation);
      request.fd = this.#reader;
      request.cancellable = false;
      const bytes = new Uint8Array(this.#piped);
      const n = await this.#transfer(request, bytes, true);
      this.#held.push(bytes.subarray(0, n));
      this.#piped -= n;
    }
  }

  async #writeHeld(): Promise<void> {
    const bytes = this.#held[0];
    const n = await this.#write(bytes);
    if (n === 0) throw new Deno.errors.WriteZero(`The ${this.#to.kind} took no bytes: ${this.#operation}`);
    if (n === bytes.byteLength) this.#held.shift();
    else this.#held[0] = bytes.subarray(n);
    this.#copied += n;
  }

  /** Has `from` deliver again what did not reach `to`. */
  async #giveBack(): Promise<void> {
    if (this.#driver.closing) return;
    await this.#empty();
    const later = this.#from.takeAllUnread();
    if (later.length === 0 && this.#from.traits.seekable) {
      const offset = BigInt64Array.of(BigInt(this.#copied - this.#taken));
      if (this.#driver.native.rs_seek(this.#from.fd, offset, SEEK_CUR) === 0) return;
    }
    for (const bytes of [...this.#held, ...later]) this.#from.unread(bytes);
  }

  #poll(descriptor: Descriptor, events: number): Promise<number> {
    const request = descriptor.request(Op.POLL_ADD, this.#operation);
    request.opFlags = events;
    request.pollable = true;
    return this.#start(request);
  }

  /** The number of bytes; EAGAIN and EINVAL, negative, are for the caller. */
  async #splice(opcode: number, fromFd: number, toFd: number, length: number, owner: Descriptor): Promise<number> {
    const request = owner.request(opcode, this.#operation);
    const words = new Uint32Array(SQE_WORDS);
    words[0] = opcode;
    words[1] = toFd;
    if (opcode === Op.SPLICE) words.fill(NO_OFFSET, 2, 6);
    words[6] = length;
    words[7] = SPLICE_F_NONBLOCK | (opcode === Op.SPLICE ? SPLICE_F_MOVE : 0);
    words[11] = fromFd;
    request.words = words;
    try {
      return await this.#start(request);
    } catch (error) {
      const errno = (error as Partial<SystemErrorFields> | null)?.errno;
      if (errno === Errno.EAGAIN || errno === Errno.EINVAL) return -errno;
      throw error;
    }
  }

  #write(bytes: Uint8Array): Promise<number> {
    const { socket, pollable } = this.#to.traits;
    const request = this.#to.request(socket ? Op.SEND : Op.WRITE, this.#operation);
    if (socket) request.opFlags = MSG_NOSIGNAL;
    return this.#transfer(request, bytes, pollable);
  }

  #transfer(request: Request, bytes: Uint8Array, pollable: boolean): Promise<number> {
    request.view = bytes;
    request.length = bytes.byteLength;
    request.offset = CURRENT_POSITION;
    request.pollable = pollable;
    return this.#start(request);
  }

  #start(request: Request): Promise<number> {
    return this.#driver.start<number>(request, request.cancellable ? this.#remaining() : undefined);
  }
}

function sourceOf(from: CopySource): Descriptor {
  if (from instanceof File) return descriptorOfFile(from);
  if (from instanceof Conn) return descriptorOfConn(from);
  if (from instanceof PipeReader) return descriptorOfPipeEnd(from);
  throw new TypeError("copy takes from a File, a Conn or a PipeReader");
}

function targetOf(to: CopyTarget): Descriptor {
  if (to instanceof File) return descriptorOfFile(to);
  if (to instanceof Conn) return descriptorOfConn(to);
  if (to instanceof PipeWriter) return descriptorOfPipeEnd(to);
  throw new TypeError("copy gives to a File, a Conn or a PipeWriter");
}

function requireOneRing(from: Descriptor, to: Descriptor): void {
  if (from.driver !== to.driver) throw new TypeError("Both must belong to one ring");
}

function checkLength(length = Infinity): number {
  if (length !== Infinity && !(Number.isSafeInteger(length) && length >= 0)) {
    throw new RangeError(`length must be a safe integer, 0 or more: ${length}`);
  }
  return length;
}
