/**
 * Files.
 *
 * @module
 */
import type { Driver } from "../ring/driver.ts";
import { Errno } from "../ring/errno.ts";
import { systemError, type SystemErrorFields } from "../ring/errors.ts";
import { OperandWord } from "../ring/operations.ts";
import type { OperationOptions, Request } from "../ring/request.ts";
import { driverOf, type Ring } from "../ring/ring.ts";
import { AT_FDCWD, CURRENT_POSITION, Op, Sqe } from "../ring/uring_abi.ts";
import { shown } from "../scope/cancellation.ts";
import { born } from "../scope/ownership.ts";
import { Descriptor, fstat, isFileType, isTerminal, traitsOf } from "./descriptor.ts";
import { describeStat, StatKind } from "./file_info.ts";
import { linesOf } from "./lines.ts";
import { readableStream, writableStream } from "./streams.ts";
import { pathOperand, toPath } from "./path.ts";
import { requirePath } from "./permissions.ts";

/** Options of {@linkcode open}: those of `Deno.open`, and the operation's own. */
export interface OpenOptions extends Deno.OpenOptions, OperationOptions {
  /** The ring of the file's operations. Default: the default ring. */
  ring?: Ring;
}

const O_WRONLY = 1;
const O_RDWR = 2;
const O_ACCMODE = 3;
const O_CREAT = 0o100;
const O_EXCL = 0o200;
const O_TRUNC = 0o1000;
const O_APPEND = 0o2000;
const O_CLOEXEC = 0o2000000;
/** What is no directory is not opened: ENOTDIR. */
export const O_DIRECTORY = Deno.build.arch === "aarch64" ? 0o40000 : 0o200000;
/** A symbolic link is not followed: ELOOP, or ENOTDIR with `O_DIRECTORY`. */
export const O_NOFOLLOW = Deno.build.arch === "aarch64" ? 0o100000 : 0o400000;
/** It is not opened to be read: that needs no permission, and never waits. */
export const O_PATH = 0o10000000;
const S_IFDIR = 0o040000;
const IORING_FSYNC_DATASYNC = 1;
/** `POSIX_FADV_*`. */
const advices: Record<FileAdvice, number> = {
  normal: 0,
  random: 1,
  sequential: 2,
  willneed: 3,
  dontneed: 4,
  noreuse: 5,
};
const FALLOC_FL_KEEP_SIZE = 1;

/** The flags of `open(2)` that `Deno.OpenOptions` ask for. Throws a `TypeError` if they contradict each other. */
export function openFlags(options: Deno.OpenOptions): number {
  const { read, write, append, truncate, create, createNew } = options;
  const given = [read, write, append, truncate, create, createNew].some((option) => option !== undefined);
  const reading = given ? read === true : true;
  const writing = write === true || append === true;
  if (!reading && !writing) throw new TypeError("open needs at least one of read, write and append");
  if (truncate && (!write || append)) throw new TypeError("truncate needs write, and does not go with append");
  if ((create || createNew) && !writing) throw new TypeError("create and createNew need write or append");
  let flags = reading && writing ? O_RDWR : writing ? O_WRONLY : 0;
  if (append) flags |= O_APPEND;
  if (truncate) flags |= O_TRUNC;
  if (createNew) flags |= O_CREAT | O_EXCL;
  else if (create) flags |= O_CREAT;
  return flags;
}

/** The permission bits that a created file gets, less the umask; 0 where nothing is created. */
export function creationMode(flags: number, mode: number | undefined): number {
  const bits = permissionBits(mode ?? 0o666);
  return (flags & O_CREAT) === 0 ? 0 : bits;
}

/** The permission bits of a mode, which may be one that `stat` gave. */
export function permissionBits(mode: number): number {
  if (Number.isInteger(mode) && mode >= 0 && mode <= 0o177777) return mode & 0o7777;
  throw new RangeError(`mode must be an integer from 0 to 0o7777: ${shown(mode)}`);
}

/** Asks for the permissions that opening with these flags takes. */
export function requireOpen(path: string, flags: number): void {
  const access = flags & O_ACCMODE;
  if (access !== O_WRONLY) requirePath("read", path);
  if (access !== 0) requirePath("write", path);
}

/**
 * Opens a file (`IORING_OP_OPENAT2`).
 *
 * @param path A path, relative to the working directory, or a `file:` URL.
 * @param options As for `Deno.open`, by default `{ read: true }`; and `signal`, `timeout`, `ring`.
 * @returns The open file; close it, or hold it with `await using`.
 * @throws {Deno.errors.NotFound} And the other classes of `Deno.errors`, with `code`, `errno`, `operation` and `path`.
 * @throws {Deno.errors.NotCapable} Without `--allow-read` or `--allow-write`, as the options need.
 *
 * @example
 * ```ts
 * import { open } from "@ringscope/ringscope";
 *
 * await using file = await open("/etc/hostname");
 * const buffer = new Uint8Array(1024);
 * const n = await file.read(buffer); // a number of bytes, or null at the end
 * ```
 */
export async function open(path: string | URL, options: OpenOptions = {}): Promise<File> {
  const name = toPath(path);
  const flags = openFlags(options);
  requireOpen(name, flags);
  const driver = driverOf(options.ring);
  const mode = creationMode(flags, options.mode);
  let fd: number;
  try {
    fd = await startOpen(driver, name, flags, mode, 0, options);
  } catch (error) {
    // Opened without waiting, a FIFO has no reader yet; a worker waits for one, as open(2) does.
    if (!(flags & O_WRONLY) || (error as Partial<SystemErrorFields>)?.errno !== Errno.ENXIO) throw error;
    fd = await startOpen(driver, name, flags, mode, Sqe.ASYNC, options);
  }
  let status = fstat(driver, fd);
  if (isFileType(status.mode, "fifo") && (flags & O_ACCMODE) === 0) {
    // Likewise the kernel did not wait for a writer. This descriptor stays until the waiting one is there, so that
    // a writer who has seen a reader does not lose it again.
    try {
      const waited = await startOpen(driver, name, flags, mode, Sqe.ASYNC, options);
      driver.native.rs_close(fd);
      fd = waited;
      status = fstat(driver, fd);
    } catch (error) {
      driver.native.rs_close(fd);
      throw error;
    }
  }
  const descriptor = new Descriptor(fd, "file", options.ring, traitsOf(status.mode), { path: name });
  return born(new File(descriptor));
}

/** Opens a directory as seen from the directory `fd`, or with `O_PATH` anything; `path` is what people call it. */
export async function openAt(
  fd: number,
  name: string | Uint8Array,
  path: string,
  flags: number,
  options: OperationOptions & { ring?: Ring } = {},
): Promise<Descriptor & AsyncDisposable> {
  const driver = driverOf(options.ring);
  const request = driver.request(Op.OPENAT2, "open");
  request.fd = fd;
  describeOpen(request, name, flags | O_CLOEXEC, 0);
  request.subject = { path };
  const opened = await driver.start<number>(request, options);
  const directory = new Descriptor(opened, "directory", options.ring, traitsOf(S_IFDIR), { path });
  return Object.assign(directory, { [Symbol.asyncDispose]: () => directory.close() });
}

function startOpen(
  driver: Driver,
  path: string,
  flags: number,
  mode: number,
  sqeFlags: number,
  options: OpenOptions,
): Promise<number> {
  const request = driver.request(Op.OPENAT2, "open");
  request.fd = AT_FDCWD;
  describeOpen(request, path, flags | O_CLOEXEC, mode);
  request.sqeFlags = sqeFlags;
  return driver.start(request, options);
}

/** Makes a request that of opening a path. */
export function describeOpen(request: Request, path: string | Uint8Array, flags: number, mode: number): void {
  const OPEN_HOW_BYTES = 24;
  const how = new BigUint64Array([BigInt(flags), BigInt(mode), 0n]);
  request.operands = [
    pathOperand(path),
    { word: OperandWord.Address2, bytes: OPEN_HOW_BYTES, input: new Uint8Array(how.buffer) },
  ];
  request.length = OPEN_HOW_BYTES;
  if (typeof path === "string") request.subject = { path };
}

/** How a part of a file will be used, see {@linkcode File.advise}. */
export type FileAdvice = "normal" | "random" | "sequential" | "willneed" | "dontneed" | "noreuse";

/** Options of {@linkcode File.readv} and {@linkcode File.writev}. */
export interface VectoredOptions extends OperationOptions {
  /** Bytes from the start of the file. Default: the file's own position, which moves on. */
  position?: number;
}

/** Gives the library the descriptor of a file, which programs don't see. */
export let descriptorOfFile: (file: File) => Descriptor;

/**
 * An open file, whatever is behind it: a regular file, a FIFO, a terminal, a device.
 *
 * Reads and writes without a position move the file's own and take turns with each other, in the order of the calls.
 */
export class File implements AsyncDisposable, Disposable {
  readonly #descriptor: Descriptor;
  #readable: ReadableStream<Uint8Array<ArrayBuffer>> | null = null;
  #writable: WritableStream<Uint8Array> | null = null;

  static {
    descriptorOfFile = (file) => file.#descriptor;
  }

  /** @ignore Files come from {@linkcode open}. */
  constructor(descriptor: Descriptor) {
    this.#descriptor = descriptor;
  }

  /** The number of the descriptor. */
  get fd(): number {
    return this.#descriptor.fd;
  }

  /**
   * Reads at the file's position, which moves on by as much.
   *
   * @param p Where to; at most 1 MiB of it is filled by one call.
   * @returns Bytes read, 1 to `p.byteLength` (0 only into no bytes); `null` at the end.
   * @throws The classes of `Deno.errors`, with `code`, `errno`, `operation` and `path`.
   */
  read(p: Uint8Array, options?: OperationOptions): Promise<number | null> {
    return this.#descriptor.read(p, CURRENT_POSITION, options);
  }

  /**
   * Reads at a position of its own (`pread`); the file's position stays.
   *
   * @param p Where to; at most 1 MiB of it is filled by one call.
   * @param position Bytes from the start of the file.
   * @returns Bytes read, 1 to `p.byteLength`; `null` at or behind the end.
   * @throws {Error} With code "ESPIPE" if the file has no positions, as FIFOs and terminals.
   */
  readAt(p: Uint8Array, position: number, options?: OperationOptions): Promise<number | null> {
    if (!isPosition(position)) return Promise.reject(positionError("position", position));
    return this.#descriptor.read(p, position, options);
  }

  /**
   * Writes at the file's position, which moves on by as much; at the end in append mode.
   *
   * @param p What to write; at most 1 MiB of it goes by one call.
   * @returns Bytes written, which may be fewer than `p` holds; {@linkcode File.writeAll} writes all.
   */
  write(p: Uint8Array, options?: OperationOptions): Promise<number> {
    return this.#descriptor.write(p, CURRENT_POSITION, options);
  }

  /**
   * Writes at a position of its own (`pwrite`); the file's position stays.
   *
   * @param p What to write; at most 1 MiB of it goes by one call.
   * @param position Bytes from the start of the file.
   * @returns Bytes written, which may be fewer than `p` holds.
   * @throws {Error} With code "ESPIPE" if the file has no positions, as FIFOs and terminals.
   */
  writeAt(p: Uint8Array, position: number, options?: OperationOptions): Promise<number> {
    if (!isPosition(position)) return Promise.reject(positionError("position", position));
    return this.#descriptor.write(p, position, options);
  }

  /**
   * Reads into several buffers, one after another, as one read (`readv(2)`).
   *
   * @param views Where to; at most 1 MiB of them is filled by one call.
   * @param options `position` reads there, and leaves the file's own where it is.
   * @returns Bytes read, of all buffers together; `null` at the end.
   *
   * @example
   * ```ts
   * import { open } from "@ringscope/ringscope";
   *
   * await using file = await open("/proc/self/exe");
   * const [magic, rest] = [new Uint8Array(4), new Uint8Array(12)];
   * console.log(await file.readv([magic, rest])); // 16
   * ```
   */
  readv(views: readonly Uint8Array[], options?: VectoredOptions): Promise<number | null> {
    const { position = CURRENT_POSITION } = options ?? {};
    if (options?.position !== undefined && !isPosition(position)) {
      return Promise.reject(positionError("position", position));
    }
    return this.#descriptor.readv(views, position, options);
  }

  /**
   * Writes several buffers, one after another, as one write (`writev(2)`): nothing else comes in between.
   *
   * @param views What to write; at most 1 MiB of them goes by one call.
   * @param options `position` writes there, and leaves the file's own where it is.
   * @returns Bytes written, of all buffers together, which may be fewer than they hold.
   */
  writev(views: readonly Uint8Array[], options?: VectoredOptions): Promise<number> {
    const { position = CURRENT_POSITION } = options ?? {};
    if (options?.position !== undefined && !isPosition(position)) {
      return Promise.reject(positionError("position", position));
    }
    return this.#descriptor.writev(views, position, options);
  }

  /**
   * Reads until `p` is full or the file has ended.
   *
   * @returns Bytes read: fewer than `p` holds only at the end. If it rejects, what it had read comes with the next read.
   */
  readFull(p: Uint8Array, options?: OperationOptions): Promise<number> {
    return this.#descriptor.readFull(p, options);
  }

  /**
   * Moves the position, in its turn among the reads and writes.
   *
   * @param offset Bytes, from where `whence` says; -2^53 to 2^53.
   * @param whence From the start, the position or the end of the file.
   * @returns The new position, in bytes from the start.
   * @throws {Error} With code "ESPIPE" if the file has no positions, as FIFOs and terminals.
   *
   * @example
   * ```ts
   * import { open } from "@ringscope/ringscope";
   *
   * await using file = await open("/proc/self/exe");
   * console.log(await file.seek(-4, Deno.SeekMode.End));
   * ```
   */
  seek(offset: number | bigint, whence: Deno.SeekMode, options?: OperationOptions): Promise<number> {
    const bytes = typeof offset === "bigint" ? Number(offset) : offset;
    if (!Number.isSafeInteger(bytes)) return Promise.reject(new RangeError(`offset must be a safe integer: ${offset}`));
    if (whence !== 0 && whence !== 1 && whence !== 2) {
      return Promise.reject(new TypeError(`whence must be a Deno.SeekMode, not ${whence}`));
    }
    return this.#descriptor.seek(bytes, whence, options);
  }

  /** Tells about the file (`IORING_OP_STATX`), as `Deno.FsFile.stat` does. */
  stat(options?: OperationOptions): Promise<Deno.FileInfo> {
    try {
      const request = this.#descriptor.request(Op.STATX, "stat");
      describeStat(request, "", StatKind.Descriptor);
      return this.#descriptor.driver.start(request, options);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** Brings all that was written, and what the system keeps about the file, to the disk (`IORING_OP_FSYNC`). */
  async sync(options?: OperationOptions): Promise<void> {
    await this.#act(Op.FSYNC, "sync", {}, options);
  }

  /** Brings all that was written to the disk, and about the file only what reading it back takes (`fdatasync`). */
  async syncData(options?: OperationOptions): Promise<void> {
    await this.#act(Op.FSYNC, "syncData", { opFlags: IORING_FSYNC_DATASYNC }, options);
  }

  /**
   * Cuts the file off, or lengthens it with zeros (`IORING_OP_FTRUNCATE`, Linux 6.9; `ftruncate` before).
   *
   * @param length Bytes. Default: 0.
   */
  async truncate(length = 0, options?: OperationOptions): Promise<void> {
    if (!isPosition(length)) throw positionError("length", length);
    const { driver, fd, subject } = this.#descriptor;
    if (driver.features.supports(Op.FTRUNCATE)) {
      await this.#act(Op.FTRUNCATE, "truncate", { offset: length }, options);
      return;
    }
    this.#descriptor.admit("truncate", options);
    const result = driver.native.rs_ftruncate(fd, new BigInt64Array([BigInt(length)]));
    if (result < 0) throw systemError(result, "truncate", subject);
  }

  /**
   * Reserves room on the disk, so that writes there can't fail for want of it (`IORING_OP_FALLOCATE`).
   *
   * @param offset Bytes from the start.
   * @param length Bytes, 1 or more.
   * @param options `keepSize` leaves the file's size as it is where the room reaches beyond its end.
   * @throws {Error} With code "ENOSPC" if there is not that much; "EOPNOTSUPP" where the file system can't.
   */
  async allocate(
    offset: number,
    length: number,
    options?: OperationOptions & { keepSize?: boolean },
  ): Promise<void> {
    checkRange(offset, length);
    if (length === 0) throw new RangeError("length must be 1 or more: 0");
    const mode = options?.keepSize ? FALLOC_FL_KEEP_SIZE : 0;
    await this.#act(Op.FALLOCATE, "allocate", { offset, address: length, length: mode }, options);
  }

  /**
   * Tells the system how a part of the file will be used (`IORING_OP_FADVISE`), as `posix_fadvise(2)` does.
   *
   * @param advice `"sequential"`, `"random"`, `"willneed"` (begin to read it), `"dontneed"`, `"noreuse"`, `"normal"`.
   * @param offset Bytes from the start. Default: 0.
   * @param length Bytes, up to 2^32 - 1; 0 is all up to the end. Default: 0.
   */
  async advise(advice: FileAdvice, offset = 0, length = 0, options?: OperationOptions): Promise<void> {
    if (!Object.hasOwn(advices, advice)) throw new TypeError(`No advice is named ${JSON.stringify(advice)}`);
    checkRange(offset, length);
    if (length > 0xffff_ffff) throw new RangeError(`length must be below 2^32: ${length}`);
    await this.#act(Op.FADVISE, "advise", { offset, length, opFlags: advices[advice] }, options);
  }

  /** Whether it is a terminal. */
  isTerminal(): boolean {
    const { driver, fd } = this.#descriptor;
    this.#descriptor.requireOpen("isTerminal");
    return isTerminal(driver, fd);
  }

  /**
   * What is read from the file's position on, chunk by chunk, each an array of its own, of up to 64 KiB.
   *
   * @example
   * ```ts
   * import { open } from "@ringscope/ringscope";
   *
   * await using file = await open("/proc/self/maps");
   * for await (const chunk of file.chunks()) console.log(chunk.byteLength);
   * ```
   */
  chunks(): AsyncIterableIterator<Uint8Array<ArrayBuffer>> {
    return this.#descriptor.chunks();
  }

  /**
   * The lines from the file's position on, as UTF-8, without their ends (`\n` or `\r\n`). What stands behind the
   * last end is a line too: of a file that grows, the part that is there. After an iteration that was left early the
   * position is behind what has been read ahead.
   *
   * @example
   * ```ts
   * import { open } from "@ringscope/ringscope";
   *
   * await using file = await open("/proc/self/status");
   * for await (const line of file.lines()) console.log(line);
   * ```
   */
  lines(): AsyncIterableIterator<string> {
    return linesOf(this.chunks());
  }

  /** A byte stream from the file's position on, which closes the file at its end, as that of `Deno.FsFile` does. */
  get readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    const close = () => this.close();
    return this.#readable ??= readableStream({ read: (p) => this.read(p), end: close, abandon: close });
  }

  /** A stream into the file, which closes it at its end, as that of `Deno.FsFile` does. */
  get writable(): WritableStream<Uint8Array> {
    const close = () => this.close();
    return this.#writable ??= writableStream({ writeAll: (p, o) => this.writeAll(p, o), end: close, abandon: close });
  }

  #act(
    opcode: number,
    operation: string,
    fields: { offset?: number; address?: number; length?: number; opFlags?: number },
    options?: OperationOptions,
  ): Promise<number> {
    const request = this.#descriptor.request(opcode, operation);
    request.offset = fields.offset ?? 0;
    request.address = fields.address ?? 0;
    request.length = fields.length ?? 0;
    request.opFlags = fields.opFlags ?? 0;
    return this.#descriptor.driver.start(request, options);
  }

  /**
   * Reads from the file's position to its end.
   *
   * @param options `signal`, and a `timeout` for all of it.
   */
  readAll(options?: OperationOptions): Promise<Uint8Array<ArrayBuffer>> {
    return this.#descriptor.readAll(options);
  }

  /**
   * Writes all of `p`; no other write of this file comes in between.
   *
   * @param options `signal`, and a `timeout` for all of it.
   * @throws An error that tells `bytesWritten`, if it is an object.
   */
  writeAll(p: Uint8Array, options?: OperationOptions): Promise<void> {
    return this.#descriptor.writeAll(p, options);
  }

  /** Closes the file; what is in flight on it rejects with `Deno.errors.BadResource`. Closing twice is closing once. */
  close(): Promise<void> {
    return this.#descriptor.close();
  }

  /** The same as {@linkcode File.close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Begins to close the file, and does not wait for it: `await using` does. */
  [Symbol.dispose](): void {
    this.close();
  }
}

function checkRange(offset: number, length: number): void {
  if (!isPosition(offset)) throw positionError("offset", offset);
  if (!isPosition(length)) throw positionError("length", length);
}

function isPosition(value: number): boolean {
  return Number.isSafeInteger(value) && value >= 0;
}

function positionError(name: string, value: unknown): RangeError {
  return new RangeError(`${name} must be a safe integer, 0 or more: ${shown(value)}`);
}

/** Standard input, as a {@linkcode File} on the default ring. */
export const stdin: File = new File(new Descriptor(0, "standard input", undefined, null, { name: "standard input" }));
/** Standard output, as a {@linkcode File} on the default ring. */
export const stdout: File = new File(
  new Descriptor(1, "standard output", undefined, null, { name: "standard output" }),
);
/** Standard error, as a {@linkcode File} on the default ring. */
export const stderr: File = new File(new Descriptor(2, "standard error", undefined, null, { name: "standard error" }));
