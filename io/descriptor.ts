/**
 * An open descriptor and what moves bytes through it. Files, connections and pipes are built on it; programs don't see
 * it.
 *
 * @module
 */
import { type Driver, milliseconds } from "../ring/driver.ts";
import {
  Lane,
  type OperationOptions,
  type Request,
  type RequestOwner,
  type SharedOptions,
  wholeTimeout,
} from "../ring/request.ts";
import { driverOf, type Ring } from "../ring/ring.ts";
import { CancelToken } from "../scope/cancel_token.ts";
import { type Subject, systemError, withBytesWritten } from "../ring/errors.ts";
import { BUFFER_GROUP } from "../ring/buffer_ring.ts";
import { Errno } from "../ring/errno.ts";
import { Multishot } from "../ring/multishot.ts";
import { totalBytes } from "../ring/operations.ts";
import { CURRENT_POSITION, MAX_TRANSFER_BYTES, Op, SocketFlag, Sqe } from "../ring/uring_abi.ts";

/** What reads and writes need to know of what is behind a descriptor. */
export interface DescriptorTraits {
  /** Bytes go by SEND and RECV. */
  readonly socket: boolean;
  /** It waits by poll (sockets, pipes, terminals), where a LINK_TIMEOUT reaches it. */
  readonly pollable: boolean;
  /** Reads and writes move one common position, so they take turns with each other. */
  readonly seekable: boolean;
}

const SEEK_SET = 0;
const SEEK_CUR = 1;
const MSG_WAITALL = 0x100;
const MSG_NOSIGNAL = 0x4000;
/**
 * Reads and writes before a descriptor is registered with its ring: registering it, and taking it out again, costs as
 * much as so many of them save.
 */
const TRANSFERS_BEFORE_REGISTERED = 32;
/** Where `readAll` begins when it can't know the size; doubled from there. */
const FIRST_CHUNK_BYTES = 64 << 10;

/** An open descriptor: whose requests are its own, and which closes once the last of them is back. */
export class Descriptor implements RequestOwner {
  pending = 0;
  referenced = true;
  onIdle: (() => void) | null = null;
  readonly fd: number;
  /** What errors say that it is. */
  subject: Subject | undefined;
  #driver: Driver | null = null;
  #traits: DescriptorTraits | null;
  /** Where it is registered with the ring; -1 for nowhere. */
  #place = -1;
  /** Transfers so far, counted until it is registered. */
  #transfers = 0;
  /** The position of what has one, as far as is known; `null` for unknown. */
  #position: number | null = null;
  #readLane: Lane | null = null;
  #writeLane: Lane | null = null;
  /** As `serve`, for what is received as messages. */
  serveMessage: ((request: Request) => boolean) | null = null;
  /** Bytes that were read and could not be delivered; the next read begins with them. */
  #unread: Uint8Array<ArrayBuffer>[] = [];
  /** An error that the kernel tells once, and that nobody has come for: the next read has it, behind those bytes. */
  #failure: { readonly error: unknown } | null = null;
  #closing: Promise<void> | null = null;
  /** What is to be done when it begins to close. */
  onClose: (() => void) | null = null;
  readonly kind: string;
  readonly #ring: Ring | undefined;

  /**
   * @param kind What it is to people, such as `"file"`.
   * @param traits If not given, the kernel is asked when first needed.
   */
  constructor(fd: number, kind: string, ring?: Ring, traits: DescriptorTraits | null = null, subject?: Subject) {
    this.fd = fd;
    this.kind = kind;
    this.subject = subject;
    this.#ring = ring;
    this.#traits = traits;
  }

  get closed(): boolean {
    return this.#closing !== null;
  }

  /** Whether it keeps bytes for the next read that the kernel does not have any more. */
  get holdsUnread(): boolean {
    return this.#unread.length > 0;
  }

  /** The driver of its ring, which may be opened by this. */
  get driver(): Driver {
    return this.#driver ??= driverOf(this.#ring);
  }

  get traits(): DescriptorTraits {
    return this.#traits ??= askTraits(this.driver, this.fd);
  }

  /** A request on this descriptor. */
  request(opcode: number, operation: string): Request {
    this.requireOpen(operation);
    return this.#own(this.driver.request(opcode, operation));
  }

  /** A request that moves bytes; `opFlags`, `lane`, `laneHolder` and `decode` are still to be set. */
  #transfer(opcode: number, operation: string, p: Uint8Array, offset: number): Request {
    this.requireOpen(operation);
    this.#requirePosition(operation, offset);
    const { driver } = this;
    if (this.#transfers < TRANSFERS_BEFORE_REGISTERED && ++this.#transfers === TRANSFERS_BEFORE_REGISTERED) {
      this.#place = driver.registerFile(this.fd);
    }
    const request = this.#own(driver.transfer(opcode, operation));
    if (this.#place >= 0) request.fd = this.#place;
    request.sqeFlags = this.#place >= 0 ? Sqe.FIXED_FILE : 0;
    request.view = p;
    request.length = p.byteLength;
    request.offset = offset;
    request.pollable = this.traits.pollable;
    request.keepsLaneIfShort = false;
    return request;
  }

  /** Throws if it is closed. */
  requireOpen(operation: string): void {
    if (this.#closing !== null) throw new Deno.errors.BadResource(`The ${this.kind} is closed: ${operation}`);
  }

  #own(request: Request): Request {
    request.fd = this.fd;
    request.owner = this;
    request.subject = this.subject;
    return request;
  }

  /** Reads once; `offset` is `CURRENT_POSITION` or a position in the file; `holder` as `Request.laneHolder`. */
  read(
    p: Uint8Array,
    offset: number,
    options?: OperationOptions,
    holder: object | null = null,
  ): Promise<number | null> {
    try {
      checkBuffer(p);
      if (p.byteLength === 0) return this.#moveNothing("read", options);
      if (offset === CURRENT_POSITION && this.#servesAtOnce) return this.#readUnread(p, options);
      if (offset === CURRENT_POSITION && this.#failure !== null) throw this.#takeFailure("read", options);
      return this.#readRequest(p, offset, options, holder);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #readRequest(
    p: Uint8Array,
    offset: number,
    options: OperationOptions | undefined,
    holder: object | null,
  ): Promise<number | null> {
    const request = this.#transfer(this.traits.socket ? Op.RECV : Op.READ, "read", p, offset);
    request.opFlags = 0;
    request.lane = offset === CURRENT_POSITION ? this.#readLane ??= this.#laneOfReads() : null;
    request.laneHolder = holder;
    request.decode = readResult;
    return this.driver.start(request, options);
  }

  /** Where nothing has a position the ring takes any for the current one; pread(2) and pwrite(2) fail. */
  #requirePosition(operation: string, offset: number): void {
    if (offset === CURRENT_POSITION || this.traits.seekable) return;
    const result = this.#seek(0, SEEK_CUR);
    if (result < 0) throw systemError(result, operation, this.subject);
  }

  /** Reads once into several arrays, one after another. */
  readv(views: readonly Uint8Array[], offset: number, options?: OperationOptions): Promise<number | null> {
    try {
      const length = checkViews(views);
      if (length === 0) return this.#moveNothing("readv", options);
      if (offset === CURRENT_POSITION && this.#servesAtOnce) {
        return this.#readUnread(views.find((view) => view.byteLength > 0)!, options);
      }
      if (offset === CURRENT_POSITION && this.#failure !== null) throw this.#takeFailure("readv", options);
      const request = this.#vectored(Op.READ, "readv", views, length, offset);
      request.decode = readResult;
      return this.driver.start(request, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Writes once from several arrays, one after another. */
  writev(views: readonly Uint8Array[], offset: number, options?: OperationOptions): Promise<number> {
    try {
      const length = checkViews(views);
      if (length === 0) return this.#moveNothing("writev", options);
      return this.driver.start(this.#vectored(Op.WRITE, "writev", views, length, offset), options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #vectored(opcode: number, operation: string, views: readonly Uint8Array[], length: number, offset: number): Request {
    const request = this.request(opcode, operation);
    this.#requirePosition(operation, offset);
    request.views = [...views];
    request.length = length;
    request.pollable = this.traits.pollable;
    request.offset = offset;
    if (offset === CURRENT_POSITION) request.lane = opcode === Op.READ ? this.#laneOfReads() : this.#laneOfWrites();
    return request;
  }

  #laneOfReads(): Lane {
    return this.#readLane ??= this.#writeLane !== null && this.traits.seekable ? this.#writeLane : this.#newLane();
  }

  #laneOfWrites(): Lane {
    return this.#writeLane ??= this.#readLane !== null && this.traits.seekable ? this.#readLane : this.#newLane();
  }

  #newLane(): Lane {
    if (this.traits.seekable) this.#position = this.#seek(0, SEEK_CUR);
    return new Lane();
  }

  /** The system call; the new position, or a negative errno. */
  #seek(offset: number, whence: number): number {
    const position = new BigInt64Array([BigInt(offset)]);
    const result = this.driver.native.rs_seek(this.fd, position, whence);
    return result < 0 ? result : Number(position[0]);
  }

  /**
   * Sees that the file's position has moved. A request that the kernel did in two parts, the second of which failed (a
   * full disk), is a short success, but leaves the position where it was (io_uring's rw.c updates it only where the last
   * part succeeded): the next write would go over the same place.
   */
  moved(bytes: number, asked: number): void {
    if (this.#position === null) return;
    const before = this.#position;
    this.#position += bytes;
    if (bytes === asked) return;
    const now = this.#seek(0, SEEK_CUR);
    if (now === before) this.#seek(this.#position, SEEK_SET);
    else this.#position = now;
  }

  /**
   * Moves the position, when all that was asked for before has been done: a NOP takes its turn, and the system call is
   * made when that is back.
   */
  seek(offset: number, whence: number, options?: OperationOptions): Promise<number> {
    try {
      const request = this.request(Op.NOP, "seek");
      const lane = request.lane = this.#laneOfReads();
      // The NOP's 0 is short of this, so that the lane is its own until the position has moved.
      request.length = 1;
      request.keepsLaneIfShort = true;
      request.decode = () => {
        try {
          // What was read and not delivered is ahead of the position that the program knows.
          const undelivered = totalBytes(this.#unread);
          const position = this.#seek(whence === SEEK_CUR ? offset - undelivered : offset, whence);
          if (position < 0) throw systemError(position, "seek", this.subject);
          this.#unread.length = 0;
          return this.#position = position;
        } finally {
          this.driver.passLane(lane, request);
        }
      };
      return this.driver.start(request, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Writes once: some of `p`, not always all of it. */
  write(p: Uint8Array, offset: number, options?: OperationOptions): Promise<number> {
    try {
      checkBuffer(p);
      if (p.byteLength === 0) return this.#moveNothing("write", options);
      const request = this.#writeRequest(p, offset);
      return this.driver.start(request, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Writes all of `p`, without letting another write in between; a rejection says how much went. */
  writeAll(p: Uint8Array, options?: OperationOptions): Promise<void> {
    try {
      checkBuffer(p);
      if (p.byteLength === 0) return this.#moveNothing("write", options).then(() => {});
      const request = this.#writeRequest(p, CURRENT_POSITION);
      if (this.traits.socket) request.opFlags = MSG_NOSIGNAL | MSG_WAITALL;
      request.keepsLaneIfShort = true;
      request.options = options;
      if (options?.timeout !== undefined) request.startedMs = performance.now();
      request.decode = writeAllResult;
      return this.driver.start(request, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Goes on with a `writeAll` whose first request could not write everything. */
  async writeRest(first: Request): Promise<void> {
    const p = first.view!;
    const options = remaining(first.options, first.startedMs);
    let written = first.result;
    try {
      while (written < first.length) {
        const rest = p.subarray(written);
        if (rest.byteLength !== first.length - written) {
          throw new TypeError("The buffer was detached or made smaller while writeAll was in flight");
        }
        const request = this.#writeRequest(rest, CURRENT_POSITION);
        if (this.traits.socket) request.opFlags = MSG_NOSIGNAL | MSG_WAITALL;
        request.laneHolder = first;
        const n = await this.driver.start<number>(request, options());
        if (n === 0) throw new Deno.errors.WriteZero(`The ${this.kind} took no bytes: write`);
        written += n;
      }
    } catch (error) {
      throw withBytesWritten(error, written);
    } finally {
      this.driver.passLane(first.lane!, first);
    }
  }

  #writeRequest(p: Uint8Array, offset: number): Request {
    const { socket } = this.traits;
    const request = this.#transfer(socket ? Op.SEND : Op.WRITE, "write", p, offset);
    request.opFlags = socket ? MSG_NOSIGNAL : 0;
    request.lane = offset === CURRENT_POSITION ? this.#writeLane ??= this.#laneOfWrites() : null;
    request.laneHolder = null;
    request.decode = null;
    return request;
  }

  /** Reads until `p` is full or the end has come. What was read by then is not lost when it rejects. */
  async readFull(p: Uint8Array, options?: OperationOptions): Promise<number> {
    const readOptions = remaining(options, performance.now());
    const { byteLength } = p;
    const holder = {};
    let filled = 0;
    try {
      do {
        const rest = p.subarray(filled);
        if (rest.byteLength !== byteLength - filled) {
          throw new TypeError("The buffer was detached or made smaller while readFull was in flight");
        }
        const n = await this.read(rest, CURRENT_POSITION, readOptions(), holder);
        if (n === null) break;
        filled += n;
      } while (filled < byteLength);
      return filled;
    } catch (error) {
      if (filled > 0) this.#unread.unshift(p.slice(0, filled) as Uint8Array<ArrayBuffer>);
      throw error;
    } finally {
      // Who waits for its turn begins with what has been kept.
      if (this.#readLane !== null) this.driver.passLane(this.#readLane, holder);
    }
  }

  /** Reads to the end. What was read by then is not lost when it rejects: the next read delivers it. */
  async readAll(options?: OperationOptions): Promise<Uint8Array<ArrayBuffer>> {
    const chunkOptions = remaining(options, performance.now());
    const holder = {};
    let bytes = new Uint8Array(this.#sizeHint());
    let filled = 0;
    try {
      for (;;) {
        if (filled === bytes.byteLength) {
          const larger = new Uint8Array(bytes.byteLength * 2);
          larger.set(bytes);
          bytes = larger;
        }
        const room = bytes.subarray(filled, filled + MAX_TRANSFER_BYTES);
        const n = await this.read(room, CURRENT_POSITION, chunkOptions(), holder);
        if (n === null) return filled === bytes.byteLength ? bytes : new Uint8Array(bytes.buffer.transfer(filled));
        filled += n;
      }
    } catch (error) {
      if (filled > 0) this.#unread.unshift(bytes.slice(0, filled));
      throw error;
    } finally {
      if (this.#readLane !== null) this.driver.passLane(this.#readLane, holder);
    }
  }

  /**
   * What arrives, as it arrives. Of sockets it is received by one request for all of it, into buffers that the kernel
   * takes from the ring's pool, where it can do that; else by one read after another.
   */
  chunks(): AsyncIterableIterator<Uint8Array<ArrayBuffer>> {
    const pool = this.traits.socket && this.driver.features.multishotReceive ? this.driver.bufferRing : null;
    if (pool === null) return this.#chunksByRead();
    const received = new Multishot<Uint8Array<ArrayBuffer>>(this.driver, {
      request: () => {
        const request = this.request(Op.RECV, "read");
        request.priority = SocketFlag.RECV_MULTISHOT;
        request.sqeFlags = Sqe.BUFFER_SELECT;
        request.bufferGroup = BUFFER_GROUP;
        request.pollable = true;
        request.lane = this.#readLane ??= new Lane();
        return request;
      },
      decode: (bytes, flags, served) => bytes === 0 ? undefined : served ?? pool.take(flags >>> 16, bytes),
      discard: (bytes) => this.unread(bytes),
      discardError: (error) => this.#failure = { error },
      retryAfter: (result) => result === -Errno.ENOBUFS ? 0 : undefined,
    });
    const chunks = {
      next: async () => {
        if (this.#unread.length === 0 && this.#failure !== null) throw this.#takeFailure("read", undefined);
        if (this.#unread.length === 0) return await received.next();
        // What an earlier read or iteration has left comes first.
        this.admit("read", undefined);
        return { done: false as const, value: this.#unread.shift()! };
      },
      return: () => received.return(),
      [Symbol.asyncIterator]: () => chunks,
    };
    return chunks;
  }

  async *#chunksByRead(): AsyncIterableIterator<Uint8Array<ArrayBuffer>> {
    const buffer = new Uint8Array(FIRST_CHUNK_BYTES);
    for (let n; (n = await this.read(buffer, CURRENT_POSITION)) !== null;) yield buffer.slice(0, n);
  }

  unread(bytes: Uint8Array<ArrayBuffer>): void {
    this.#unread.push(bytes);
  }

  serve(request: Request): boolean {
    if (request.opcode === Op.RECVMSG) return this.serveMessage?.(request) ?? false;
    const reads = request.opcode === Op.RECV || request.opcode === Op.READ;
    if (!reads) return false;
    if (this.#unread.length === 0) {
      if (this.#failure === null) return false;
      request.failure = this.#failure.error as Error;
      this.#failure = null;
      return true;
    }
    if ((request.sqeFlags & Sqe.BUFFER_SELECT) !== 0) {
      request.bytes = this.#unread.shift()!;
      request.result = request.bytes.byteLength;
      return true;
    }
    // A buffer that has been detached meanwhile is refused where it always is.
    const p = request.view ?? request.views?.find((view) => view.byteLength > 0);
    if (!p?.byteLength) return false;
    request.result = this.#takeUnread(p);
    return true;
  }

  /** Cancels what is in flight on it, waits for that, and closes it in the kernel; once. */
  close(): Promise<void> {
    return this.#closing ??= this.#close();
  }

  async #close(): Promise<void> {
    // `#closing` is set only when this first waits, so the caller's next operation is refused already.
    const { driver } = this;
    this.onClose?.();
    if (this.pending > 0) {
      const idle = new Promise<void>((resolve) => this.onIdle = resolve);
      driver.cancelOwned(this, new Deno.errors.BadResource(`The ${this.kind} was closed while this was in flight`));
      await idle;
    }
    this.#unread.length = 0;
    if (driver.closing) {
      driver.native.rs_close(this.fd);
      return;
    }
    if (this.#place >= 0) driver.directDescriptors.unregister(this.#place);
    const request = driver.request(Op.CLOSE, "close");
    request.fd = this.fd;
    request.subject = this.subject;
    request.cancellable = false;
    await driver.start(request);
  }

  /**
   * Whether a read gets what is kept without taking its turn. Not where a seek may come before it, which drops that.
   */
  get #servesAtOnce(): boolean {
    return this.#unread.length > 0 && !(this.traits.seekable && this.#laneOfReads().turn !== null);
  }

  /** Lets go on what the kernel is not asked for, by the same laws as a request: what is closed or cancelled throws. */
  admit(operation: string, options: OperationOptions | undefined): void {
    this.requireOpen(operation);
    this.driver.admit(options);
  }

  #moveNothing(operation: string, options: OperationOptions | undefined): Promise<number> {
    this.admit(operation, options);
    return Promise.resolve(0);
  }

  #takeFailure(operation: string, options: OperationOptions | undefined): unknown {
    this.admit(operation, options);
    const { error } = this.#failure!;
    this.#failure = null;
    return error;
  }

  /** Delivers bytes that were kept. */
  #readUnread(p: Uint8Array, options?: OperationOptions): Promise<number> {
    this.admit("read", options);
    return Promise.resolve(this.#takeUnread(p));
  }

  #takeUnread(p: Uint8Array): number {
    const bytes = this.#unread[0];
    const n = Math.min(p.byteLength, bytes.byteLength);
    p.set(n === bytes.byteLength ? bytes : bytes.subarray(0, n));
    if (n === bytes.byteLength) this.#unread.shift();
    else this.#unread[0] = bytes.subarray(n);
    return n;
  }

  /** One byte more than a regular file holds, so that its end is seen without growing. */
  #sizeHint(): number {
    if (!this.traits.seekable) return FIRST_CHUNK_BYTES;
    const size = fstat(this.driver, this.fd).size;
    return size > 0 && size < 2 ** 31 ? size + 1 : FIRST_CHUNK_BYTES;
  }

  /** Takes what is kept for the next read; what is not used of it must be given back before anything else is read. */
  takeAllUnread(): Uint8Array<ArrayBuffer>[] {
    return this.#unread.splice(0);
  }

  /** The lane of what moves the position, for those who make their requests themselves. */
  lane(direction: "read" | "write"): Lane {
    return direction === "read" ? this.#laneOfReads() : this.#laneOfWrites();
  }

  /** Looks up the position, which others than reads and writes have moved. */
  lookUpPosition(): void {
    if (this.#position !== null) this.#position = this.#seek(0, SEEK_CUR);
  }
}

const S_IFMT = 0o170000;
const fileTypes = {
  fifo: 0o010000,
  charDevice: 0o020000,
  directory: 0o040000,
  blockDevice: 0o060000,
  file: 0o100000,
  symlink: 0o120000,
  socket: 0o140000,
} as const;

/** Whether a mode is that of a type of file. */
export function isFileType(mode: number, type: keyof typeof fileTypes): boolean {
  return (mode & S_IFMT) === fileTypes[type];
}

/** The traits of sockets, which need not be asked for. */
export const socketTraits: DescriptorTraits = { socket: true, pollable: true, seekable: false };
/** The traits of pipes. */
export const pipeTraits: DescriptorTraits = { socket: false, pollable: true, seekable: false };
const fileTraits: DescriptorTraits = { socket: false, pollable: false, seekable: true };

/** What a descriptor tells at once: the inode is in memory. `id` is the same for what is the same file. */
export function fstat(driver: Driver, fd: number): { mode: number; size: number; id: string } {
  const facts = new BigUint64Array(4);
  // What can't be asked (a closed number, mostly) fails by itself when it is used.
  driver.native.rs_fstat(fd, facts);
  return { mode: Number(facts[0]), size: Number(facts[1]), id: `${facts[2]}:${facts[3]}` };
}

/** The traits that go with a file's mode. */
export function traitsOf(mode: number): DescriptorTraits {
  if (isFileType(mode, "socket")) return socketTraits;
  const seekable = isFileType(mode, "file") || isFileType(mode, "blockDevice") || isFileType(mode, "directory");
  return seekable ? fileTraits : pipeTraits;
}

/** Whether a descriptor is a terminal's: whether it can be asked for a terminal's settings. */
export function isTerminal(driver: Driver, fd: number): boolean {
  return driver.native.rs_isatty(fd) === 1;
}

function askTraits(driver: Driver, fd: number): DescriptorTraits {
  return traitsOf(fstat(driver, fd).mode);
}

/** 0 bytes are the end. */
function readResult(request: Request): number | null {
  return request.result === 0 ? null : request.result;
}

function checkBuffer(p: Uint8Array): void {
  if (!(p instanceof Uint8Array)) throw new TypeError("The buffer must be a Uint8Array");
}

/** Checks the arrays; returns how many bytes one request moves. */
function checkViews(views: readonly Uint8Array[]): number {
  if (!Array.isArray(views)) throw new TypeError("The buffers must be an array of Uint8Array");
  for (const view of views) checkBuffer(view);
  return Math.min(totalBytes(views), MAX_TRANSFER_BYTES);
}

/** Options for each of several requests that share one `timeout`, which began at `started`. */
export function remaining(options: OperationOptions | undefined, started: number): () => OperationOptions | undefined {
  const timeout = options?.timeout;
  if (timeout === undefined || milliseconds("timeout", timeout) < 0) return () => options;
  const whole = (options as SharedOptions)[wholeTimeout] ?? timeout;
  return () => ({ ...options, timeout: Math.max(0, started + timeout - performance.now()), [wholeTimeout]: whole });
}

/** Mostly one request is all there is to a `writeAll`. The rest belongs to the caller's scope, as the first part did. */
function writeAllResult(request: Request): Promise<void> | undefined {
  if (request.result === request.length) return;
  return CancelToken.resume(request.token, () => (request.owner as Descriptor).writeRest(request));
}
