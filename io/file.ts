/**
 * Files.
 *
 * @module
 */
import type { Driver } from "../ring/driver.ts";
import { Errno } from "../ring/errno.ts";
import type { SystemErrorFields } from "../ring/errors.ts";
import { OperandWord } from "../ring/operations.ts";
import type { OperationOptions, Request } from "../ring/request.ts";
import { driverOf, type Ring } from "../ring/ring.ts";
import { AT_FDCWD, CURRENT_POSITION, Op, Sqe } from "../ring/uring_abi.ts";
import { born } from "../scope/ownership.ts";
import { Descriptor, fstat, isFifo, traitsOf } from "./descriptor.ts";
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
  return (flags & O_CREAT) === 0 ? 0 : (mode ?? 0o666) & 0o7777;
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
  if (isFifo(status.mode) && (flags & O_ACCMODE) === 0) {
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
export function describeOpen(request: Request, path: string, flags: number, mode: number): void {
  const OPEN_HOW_BYTES = 24;
  const how = new BigUint64Array([BigInt(flags), BigInt(mode), 0n]);
  request.operands = [
    pathOperand(path),
    { word: OperandWord.Address2, bytes: OPEN_HOW_BYTES, input: new Uint8Array(how.buffer) },
  ];
  request.length = OPEN_HOW_BYTES;
  request.subject = { path };
}

/** Gives the library the descriptor of a file, which programs don't see. */
export let descriptorOfFile: (file: File) => Descriptor;

/**
 * An open file, whatever is behind it: a regular file, a FIFO, a terminal, a device.
 *
 * Reads and writes without a position move the file's own and take turns with each other, in the order of the calls.
 */
export class File implements AsyncDisposable {
  readonly #descriptor: Descriptor;

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
   * @returns Bytes read, 1 to `p.byteLength`; `null` at the end.
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
   */
  readAt(p: Uint8Array, position: number, options?: OperationOptions): Promise<number | null> {
    return this.#descriptor.read(p, checkedPosition(position), options);
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
   */
  writeAt(p: Uint8Array, position: number, options?: OperationOptions): Promise<number> {
    return this.#descriptor.write(p, checkedPosition(position), options);
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
}

/** `CURRENT_POSITION` is not a position a program may name. */
function checkedPosition(position: number): number {
  return position === CURRENT_POSITION ? NaN : position;
}

/** Standard input, as a {@linkcode File} on the default ring. */
export const stdin: File = new File(new Descriptor(0, "standard input"));
/** Standard output, as a {@linkcode File} on the default ring. */
export const stdout: File = new File(new Descriptor(1, "standard output"));
/** Standard error, as a {@linkcode File} on the default ring. */
export const stderr: File = new File(new Descriptor(2, "standard error"));
