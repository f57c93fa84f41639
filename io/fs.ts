/**
 * What is done to files by their paths. Names, options and results are those of `Deno.*`, so that code moves over by
 * changing an import; every function takes `signal`, `timeout` and `ring` besides. There are none that block (`statSync`
 * and the like): Deno's own do that as well as it can be done.
 *
 * @module
 */
import { Errno } from "../ring/errno.ts";
import { type Driver, milliseconds, skipped } from "../ring/driver.ts";
import { type Subject, systemError, type SystemErrorFields } from "../ring/errors.ts";
import { type Operand, OperandWord } from "../ring/operations.ts";
import type { OperationOptions, Request } from "../ring/request.ts";
import { driverOf, type Ring } from "../ring/ring.ts";
import { AT_FDCWD, CURRENT_POSITION, Op, Sqe } from "../ring/uring_abi.ts";
import { map } from "../scope/map.ts";
import { timeout } from "../scope/timeout.ts";
import { admit, Waiter } from "../scope/waiter.ts";
import { fstat, isFileType, remaining } from "./descriptor.ts";
import {
  describeOpen,
  descriptorOfFile,
  type File,
  O_DIRECTORY,
  O_NOFOLLOW,
  O_PATH,
  open,
  openAt,
  permissionBits,
} from "./file.ts";
import { describeStat, StatKind } from "./file_info.ts";
import { pathOperand, toPath } from "./path.ts";
import { requireEverything, requirePath } from "./permissions.ts";

/** What every function on paths takes. */
export interface FsOptions extends OperationOptions {
  /** The ring that does it. Default: the default ring. */
  ring?: Ring;
}

/** Options of {@linkcode writeFile} and {@linkcode writeTextFile}: those of `Deno.writeFile`, and the operation's own. */
export interface WriteFileOptions extends FsOptions {
  /** Writes to the end of what is there, instead of replacing it. Default: `false`. */
  append?: boolean;
  /** Makes the file if there is none. Default: `true`. */
  create?: boolean;
  /** Fails if there is a file. Default: `false`. */
  createNew?: boolean;
  /** The permission bits that the file gets, whether it is new or not. Default: 0o666 less the umask, for a new one. */
  mode?: number;
}

/** Options of {@linkcode mkdir}: those of `Deno.mkdir`, and the operation's own. */
export interface MkdirOptions extends FsOptions {
  /** Makes the directories above as well, and is content if it is there already. Default: `false`. */
  recursive?: boolean;
  /** The permission bits, less the umask. Default: 0o777. */
  mode?: number;
}

/** Options of {@linkcode remove}: those of `Deno.remove`, and the operation's own. */
export interface RemoveOptions extends FsOptions {
  /** Removes what is in a directory first. Default: `false`. */
  recursive?: boolean;
}

/** Options of {@linkcode symlink}: those of `Deno.symlink` (`type` means something on Windows only). */
export interface SymlinkOptions extends FsOptions {
  /** Ignored, as Deno ignores it on Linux. */
  type?: "file" | "dir" | "junction";
}

/** Options of {@linkcode setXattr}. */
export interface SetXattrOptions extends FsOptions {
  /** Fails if the attribute is there already. Default: `false`. */
  create?: boolean;
  /** Fails if the attribute is not there. Default: `false`. */
  replace?: boolean;
}

const AT_REMOVEDIR = 0x200;
const XATTR_CREATE = 1;
const XATTR_REPLACE = 2;
/** The most that an attribute's value can have, and the names of all of a file's (`XATTR_SIZE_MAX`, `XATTR_LIST_MAX`). */
const XATTR_BYTES = 64 << 10;
/** Files up to here are read by one chain. */
const SMALL_FILE_BYTES = 64 << 10;
/** What `remove` does at a time in one directory. */
const REMOVES_AT_ONCE = 64;
/** Directories that one `remove` goes through at a time, besides the first. */
const DIRECTORIES_AT_ONCE = 15;

/**
 * Makes a file, or empties one, and opens it for reading and writing (`IORING_OP_OPENAT2`).
 *
 * @param path A path, relative to the working directory, or a `file:` URL.
 * @returns The open file; close it, or hold it with `await using`.
 * @throws {Deno.errors.NotCapable} Without `--allow-read` and `--allow-write`.
 *
 * @example
 * ```ts
 * import { create, remove } from "@ringscope/ringscope";
 *
 * const path = await Deno.makeTempDir() + "/new";
 * {
 *   await using file = await create(path);
 *   await file.writeAll(new TextEncoder().encode("hello"));
 * }
 * await remove(path);
 * ```
 */
export function create(path: string | URL, options: FsOptions = {}): Promise<File> {
  return open(path, { ...options, read: true, write: true, create: true, truncate: true });
}

/**
 * Reads a whole file. A small one takes one chain (OPENAT2, two READs, CLOSE, on a direct descriptor), so that any number
 * of them at once goes in few submissions; what is larger, or not there yet (a FIFO), is read to its end.
 *
 * @param path A path, relative to the working directory, or a `file:` URL.
 * @returns Its bytes.
 * @throws {Deno.errors.NotFound} And the other classes of `Deno.errors`, with `code`, `errno`, `operation` and `path`.
 * @throws {Deno.errors.NotCapable} Without `--allow-read`.
 *
 * @example
 * ```ts
 * import { all, readFile } from "@ringscope/ringscope";
 *
 * const paths = ["/proc/self/status", "/proc/self/maps"];
 * const files = await all(paths.map((path) => () => readFile(path, { timeout: 1000 })));
 * console.log(files.map((bytes) => bytes.byteLength));
 * ```
 */
export async function readFile(path: string | URL, options: FsOptions = {}): Promise<Uint8Array<ArrayBuffer>> {
  const name = toPath(path);
  requirePath("read", name);
  const { timeout: ms, ...rest } = options;
  if (ms !== undefined) milliseconds("timeout", ms);
  return await (ms === undefined ? readWhole(name, rest) : timeout(ms, () => readWhole(name, rest)));
}

async function readWhole(path: string, options: FsOptions): Promise<Uint8Array<ArrayBuffer>> {
  const driver = driverOf(options.ring);
  if (driver.uring.entries < READ_LINKS) {
    await using file = await open(path, options);
    return await file.readAll(options);
  }
  const table = driver.directDescriptors;
  const places = await table.take(1, options.signal);
  const [place] = places;
  let stillOpen = false;
  try {
    const links = readLinks(driver, path, place);
    const settled = await Promise.allSettled(driver.startLinked(links, options));
    const [opened, advised, read, ended, closed] = settled;
    stillOpen = opened.status === "fulfilled" && closed.status !== "fulfilled";
    const head = links[2].bytes ?? NOTHING;
    if (read.status === "fulfilled" && ended.status === "fulfilled" && ended.value === 0) return head;
    for (const outcome of [opened, read, ended]) {
      if (outcome.status === "rejected" && outcome.reason !== skipped) throw outcome.reason;
    }
    // A FIFO (it takes no advice), or more than was asked for. What the chain has opened stays open meanwhile, so that
    // a FIFO's writer does not lose its reader.
    await using file = await open(path, options);
    if (advised.status === "rejected" || descriptorOfFile(file).traits.seekable) return await file.readAll(options);
    const parts = [head, links[3].bytes ?? NOTHING, await file.readAll(options)];
    return new Uint8Array(await new Blob(parts).arrayBuffer());
  } finally {
    if (stillOpen && !driver.closing) await driver.start(closeRequest(driver, place));
    table.give(places);
  }
}

const NOTHING = new Uint8Array(0);
/** A chain does not fit a ring that holds fewer. */
const READ_LINKS = 5;

/** Opens a file, sees that it is no FIFO, reads its beginning, sees that there is no more, and closes it. */
function readLinks(driver: Driver, path: string, place: number): Request[] {
  const POSIX_FADV_SEQUENTIAL = 2;
  const open = driver.request(Op.OPENAT2, "readFile");
  open.fd = AT_FDCWD;
  open.fileIndex = place + 1;
  describeOpen(open, path, 0, 0);
  const advise = driver.request(Op.FADVISE, "readFile");
  advise.opFlags = POSIX_FADV_SEQUENTIAL;
  const reads = [SMALL_FILE_BYTES, 1].map((length) => {
    const read = driver.request(Op.READ, "readFile");
    read.length = length;
    read.offset = CURRENT_POSITION;
    read.hardLink = true;
    return read;
  });
  for (const request of [advise, ...reads]) {
    request.fd = place;
    request.sqeFlags = Sqe.FIXED_FILE;
    request.subject = open.subject;
  }
  return [open, advise, ...reads, closeRequest(driver, place)];
}

function closeRequest(driver: Driver, place: number): Request {
  const close = driver.request(Op.CLOSE, "readFile");
  close.fileIndex = place + 1;
  close.fd = 0;
  close.cancellable = false;
  return close;
}

/**
 * Reads a whole file as UTF-8; what is no UTF-8 becomes U+FFFD, as with `Deno.readTextFile`.
 *
 * @example
 * ```ts
 * import { readTextFile } from "@ringscope/ringscope";
 *
 * console.log((await readTextFile("/proc/self/comm")).trim()); // "deno"
 * ```
 */
export async function readTextFile(path: string | URL, options?: FsOptions): Promise<string> {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(await readFile(path, options));
}

/**
 * Writes a whole file, which is made if there is none. If it rejects, the file may hold a part of the data.
 *
 * @param path A path, relative to the working directory, or a `file:` URL.
 * @param data Bytes, or a stream of them.
 * @throws {Deno.errors.AlreadyExists} With `createNew`, if there is a file; and the other classes of `Deno.errors`.
 * @throws {Deno.errors.NotCapable} Without `--allow-write`.
 *
 * @example
 * ```ts
 * import { readFile, writeFile } from "@ringscope/ringscope";
 *
 * const path = await Deno.makeTempFile();
 * await writeFile(path, new Uint8Array([1, 2]));
 * await writeFile(path, new Uint8Array([3]), { append: true });
 * console.log(await readFile(path)); // Uint8Array [1, 2, 3]
 * await Deno.remove(path);
 * ```
 */
export async function writeFile(
  path: string | URL,
  data: Uint8Array | ReadableStream<Uint8Array>,
  options: WriteFileOptions = {},
): Promise<void> {
  if (!(data instanceof Uint8Array) && !(data instanceof ReadableStream)) {
    throw new TypeError("The data must be a Uint8Array or a ReadableStream of them; writeTextFile takes text");
  }
  // Taken first: a stream that someone else reads is refused before the file is touched.
  const reader = data instanceof Uint8Array ? null : data.getReader();
  const { timeout: ms, ...rest } = options;
  const write = () => writeWhole(path, reader ?? data as Uint8Array, rest);
  try {
    await (ms === undefined ? write() : timeout(ms, write));
  } catch (error) {
    await reader?.cancel(error).catch(() => {}); // it is told of the first error; one of its own comes too late
    throw error;
  } finally {
    reader?.releaseLock();
  }
}

async function writeWhole(
  path: string | URL,
  data: Uint8Array | ReadableStreamDefaultReader<Uint8Array>,
  options: WriteFileOptions,
): Promise<void> {
  const { append = false, create = true, createNew = false, mode, signal, ring } = options;
  const flags = { write: !append, append, truncate: !append, create, createNew, mode };
  await using file = await open(path, { ...flags, signal, ring });
  if (mode !== undefined) {
    const { driver, fd, subject } = descriptorOfFile(file);
    const result = driver.native.rs_fchmod(fd, permissionBits(mode));
    if (result < 0) throw systemError(result, "writeFile", subject);
  }
  if (data instanceof Uint8Array) {
    await file.writeAll(data, { signal });
    return;
  }
  for (;;) {
    const { done, value } = await nextOf(data, signal);
    if (done) return;
    await file.writeAll(value, { signal });
  }
}

/** The next chunk of a stream. It is not an operation of ours, but waiting for it is, and ends as others do. */
function nextOf<T>(reader: ReadableStreamDefaultReader<T>, signal?: AbortSignal): Promise<ReadableStreamReadResult<T>> {
  admit(signal);
  const waiter = new Waiter<ReadableStreamReadResult<T>>(signal);
  reader.read().then((result) => waiter.resolve(result), (error) => waiter.reject(error));
  return waiter.promise;
}

/**
 * Writes a whole file as UTF-8.
 *
 * @param data Text, or a stream of pieces of it.
 *
 * @example
 * ```ts
 * import { readTextFile, writeTextFile } from "@ringscope/ringscope";
 *
 * const path = await Deno.makeTempFile();
 * await writeTextFile(path, "hello");
 * console.log(await readTextFile(path)); // "hello"
 * await Deno.remove(path);
 * ```
 */
export async function writeTextFile(
  path: string | URL,
  data: string | ReadableStream<string>,
  options?: WriteFileOptions,
): Promise<void> {
  if (typeof data !== "string" && !(data instanceof ReadableStream)) {
    throw new TypeError("The data must be a string or a ReadableStream of strings");
  }
  const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data.pipeThrough(new TextEncoderStream());
  await writeFile(path, bytes, options);
}

/**
 * Tells about a file (`IORING_OP_STATX`), following symbolic links.
 *
 * @returns What `Deno.stat` returns.
 * @throws {Deno.errors.NotFound} And the other classes of `Deno.errors`, with `code`, `errno`, `operation` and `path`.
 * @throws {Deno.errors.NotCapable} Without `--allow-read`.
 *
 * @example
 * ```ts
 * import { stat } from "@ringscope/ringscope";
 *
 * console.log((await stat("/")).isDirectory); // true
 * ```
 */
export async function stat(path: string | URL, options?: FsOptions): Promise<Deno.FileInfo> {
  return await statPath(path, StatKind.Follow, "stat", options);
}

/**
 * Tells about a file, or about a symbolic link itself (`IORING_OP_STATX`).
 *
 * @returns What `Deno.lstat` returns.
 * @throws {Deno.errors.NotFound} And the other classes of `Deno.errors`, with `code`, `errno`, `operation` and `path`.
 * @throws {Deno.errors.NotCapable} Without `--allow-read`.
 *
 * @example
 * ```ts
 * import { lstat } from "@ringscope/ringscope";
 *
 * console.log((await lstat("/proc/self")).isSymlink); // true
 * ```
 */
export async function lstat(path: string | URL, options?: FsOptions): Promise<Deno.FileInfo> {
  return await statPath(path, StatKind.NoFollow, "lstat", options);
}

async function statPath(path: string | URL, kind: StatKind, operation: string, options?: FsOptions) {
  const name = toPath(path);
  requirePath("read", name);
  return await statOf(driverOf(options?.ring), name, kind, operation, options);
}

function statOf(
  driver: Driver,
  path: string,
  kind: StatKind,
  operation: string,
  options?: OperationOptions,
): Promise<Deno.FileInfo> {
  const request = driver.request(Op.STATX, operation);
  request.fd = AT_FDCWD;
  request.subject = { path };
  describeStat(request, path, kind);
  return driver.start(request, options);
}

/**
 * Gives a file another path (`IORING_OP_RENAMEAT`), on the same file system; what is there is replaced.
 *
 * @throws {Deno.errors.NotFound} And the other classes of `Deno.errors`, with `code`, `errno`, `operation`, `path` and
 * `newPath`.
 * @throws {Deno.errors.NotCapable} Without `--allow-read` and `--allow-write`.
 *
 * @example
 * ```ts
 * import { rename } from "@ringscope/ringscope";
 *
 * const path = await Deno.makeTempFile();
 * await rename(path, `${path}.done`);
 * await Deno.remove(`${path}.done`);
 * ```
 */
export async function rename(oldPath: string | URL, newPath: string | URL, options?: FsOptions): Promise<void> {
  const [from, to] = [toPath(oldPath), toPath(newPath)];
  requirePath("read", from);
  requirePath("write", from);
  requirePath("write", to);
  await act(options, Op.RENAMEAT, "rename", { path: from, newPath: to }, {
    length: AT_FDCWD >>> 0,
    operands: [pathOperand(from), pathOperand(to, OperandWord.Address2)],
  });
}

/**
 * Removes a file, a symbolic link or an empty directory (`IORING_OP_UNLINKAT`), or with `recursive` a directory and all
 * that is in it. Symbolic links are not followed, even if someone puts them there meanwhile.
 *
 * @throws {Deno.errors.NotFound} And the other classes of `Deno.errors`, with `code`, `errno`, `operation` and `path`.
 * @throws {Deno.errors.NotCapable} Without `--allow-write`.
 *
 * @example
 * ```ts
 * import { mkdir, remove } from "@ringscope/ringscope";
 *
 * const directory = await Deno.makeTempDir();
 * await mkdir(`${directory}/a/b`, { recursive: true });
 * await remove(directory, { recursive: true });
 * ```
 */
export async function remove(path: string | URL, options: RemoveOptions = {}): Promise<void> {
  const name = toPath(path);
  requirePath("write", name);
  const { recursive = false, ...rest } = options;
  const left = remaining(rest, performance.now());
  const removal = { options: () => ({ ...rest, ...left() }), room: DIRECTORIES_AT_ONCE };
  if (await unlinkFile(AT_FDCWD, name, name, removal)) return;
  if (recursive) await removeTree(AT_FDCWD, name, name, removal);
  else await removeDirectory(AT_FDCWD, name, name, removal);
}

/** A tree that is being removed. */
interface Removal {
  /** Options for each of its requests. */
  readonly options: () => FsOptions;
  /** How many further directories may be gone through at the same time. */
  room: number;
}

/** Removes `name`, as seen from the directory `fd`, if it is no directory; `path` is what people call it. */
async function unlinkFile(fd: number, name: Name, path: string, { options }: Removal): Promise<boolean> {
  try {
    await act(options(), Op.UNLINKAT, "remove", { path }, { fd, operands: [pathOperand(name)] });
    return true;
  } catch (error) {
    if (errnoOf(error) !== Errno.EISDIR) throw error;
    return false;
  }
}

async function removeDirectory(fd: number, name: Name, path: string, { options }: Removal): Promise<void> {
  await act(options(), Op.UNLINKAT, "remove", { path }, { fd, opFlags: AT_REMOVEDIR, operands: [pathOperand(name)] });
}

async function removeTree(fd: number, name: Name, path: string, removal: Removal): Promise<void> {
  {
    await using directory = await openAt(fd, name, path, O_DIRECTORY | O_NOFOLLOW, removal.options());
    const below = (entry: Entry) => [directory.fd, entry.bytes, `${path}/${entry.name}`, removal] as const;
    // All names first: what is removed while they are listed may hide others.
    const entries = Array.from(entriesOf(directory.driver, directory.fd, path));
    const directories = entries.filter(({ type }) => type === DT_DIR);
    await eachOf(entries.filter(({ type }) => type !== DT_DIR), REMOVES_AT_ONCE, async (entry) => {
      // Some file systems do not tell types.
      if (!await unlinkFile(...below(entry))) directories.push(entry);
    });
    // Each of them stays open until it is empty: without a bound for all together, a wide tree takes all descriptors.
    const more = Math.min(removal.room, Math.max(0, directories.length - 1));
    removal.room -= more;
    try {
      await eachOf(directories, 1 + more, (entry) => removeTree(...below(entry)));
    } finally {
      removal.room += more;
    }
  }
  await removeDirectory(fd, name, path, removal);
}

/** Does something with all entries, some at a time. One that is gone already needs nothing. */
async function eachOf(
  entries: readonly Entry[],
  concurrency: number,
  fn: (entry: Entry) => Promise<void>,
): Promise<void> {
  const unlessGone = async (entry: Entry) => {
    try {
      await fn(entry);
    } catch (error) {
      if (errnoOf(error) !== Errno.ENOENT) throw error;
    }
  };
  for await (const _ of map(entries, unlessGone, { concurrency }));
}

/**
 * Lists a directory, in no order. io_uring has no opcode for that: the directory is opened on the ring, and then a system
 * call that does not wait for others (`getdents64`) gives the entries, some hundreds at a time. Where a file system does
 * not tell types, all of them are `false`.
 *
 * @returns What `Deno.readDir` returns.
 * @throws {Deno.errors.NotFound} And the other classes of `Deno.errors`, with `code`, `errno`, `operation` and `path`.
 * @throws {Deno.errors.NotCapable} Without `--allow-read`.
 *
 * @example
 * ```ts
 * import { readDir } from "@ringscope/ringscope";
 *
 * for await (const { name, isFile } of readDir("/proc/self")) console.log(name, isFile);
 * ```
 */
export async function* readDir(path: string | URL, options?: FsOptions): AsyncIterableIterator<Deno.DirEntry> {
  const name = toPath(path);
  requirePath("read", name);
  await using directory = await openAt(AT_FDCWD, name, name, O_DIRECTORY, options);
  for (const { name: entry, type } of entriesOf(directory.driver, directory.fd, name)) {
    yield { name: entry, isFile: type === DT_REG, isDirectory: type === DT_DIR, isSymlink: type === DT_LNK };
  }
}

/** A path, or the bytes of a name with NUL behind them. */
type Name = string | Uint8Array;

/** What is in a directory. */
interface Entry {
  readonly name: string;
  /** The name as it is, which need not be UTF-8, and NUL behind it. */
  readonly bytes: Uint8Array;
  /** `DT_*`; 0 where the file system does not tell. */
  readonly type: number;
}

const DT_DIR = 4;
const DT_REG = 8;
const DT_LNK = 10;
const DIRENTS_BYTES = 32 << 10;

/** The entries of an open directory, `struct linux_dirent64`. */
function* entriesOf(driver: Driver, fd: number, path: string): Generator<Entry> {
  const bytes = new Uint8Array(DIRENTS_BYTES);
  const view = new DataView(bytes.buffer);
  const decoder = new TextDecoder();
  for (;;) {
    const filled = driver.native.rs_getdents(fd, bytes, bytes.byteLength);
    if (filled < 0) throw systemError(filled, "readDir", { path });
    if (filled === 0) return;
    for (let at = 0; at < filled; at += view.getUint16(at + 16, true)) {
      const nameAt = at + 19;
      const end = bytes.indexOf(0, nameAt);
      const name = decoder.decode(bytes.subarray(nameAt, end));
      if (name === "." || name === "..") continue;
      yield { name, bytes: bytes.slice(nameAt, end + 1), type: bytes[at + 18] };
    }
  }
}

/**
 * Makes a directory (`IORING_OP_MKDIRAT`).
 *
 * @throws {Deno.errors.AlreadyExists} If there is one, and not `recursive`; and the other classes of `Deno.errors`, with
 * `code`, `errno`, `operation` and `path`.
 * @throws {Deno.errors.NotCapable} Without `--allow-write`.
 *
 * @example
 * ```ts
 * import { mkdir } from "@ringscope/ringscope";
 *
 * const directory = await Deno.makeTempDir();
 * await mkdir(`${directory}/a/b/c`, { recursive: true });
 * await Deno.remove(directory, { recursive: true });
 * ```
 */
export async function mkdir(path: string | URL, options: MkdirOptions = {}): Promise<void> {
  const name = toPath(path);
  requirePath("write", name);
  const { recursive = false, mode = 0o777, ...rest } = options;
  const left = remaining(rest, performance.now());
  const length = permissionBits(mode);
  const make = (directory: string) =>
    act({ ...rest, ...left() }, Op.MKDIRAT, "mkdir", { path: directory }, {
      length,
      operands: [pathOperand(directory)],
    });
  if (!recursive) {
    await make(name);
    return;
  }
  // Upwards until one can be made, and down again.
  const missing = [name];
  while (missing.length > 0) {
    const directory = missing.at(-1)!;
    try {
      await make(directory);
      missing.pop();
    } catch (error) {
      const parent = parentOf(directory);
      if (errnoOf(error) === Errno.ENOENT && parent !== null) missing.push(parent);
      else if (errnoOf(error) === Errno.EEXIST && await isDirectory(directory)) missing.pop();
      else throw error;
    }
  }

  async function isDirectory(directory: string): Promise<boolean> {
    return (await statOf(driverOf(rest.ring), directory, StatKind.Follow, "mkdir", left())).isDirectory;
  }
}

function parentOf(path: string): string | null {
  const parent = path.replace(/\/+$/, "").replace(/[^/]+$/, "").replace(/(?<=.)\/+$/, "");
  return parent === "" || parent === path ? null : parent;
}

/**
 * Makes a symbolic link (`IORING_OP_SYMLINKAT`).
 *
 * @param oldPath What it points to, as it stands: relative to where the link is.
 * @param newPath Where the link is.
 * @throws {Deno.errors.AlreadyExists} And the other classes of `Deno.errors`, with `code`, `errno`, `operation`, `path`
 * and `newPath`.
 * @throws {Deno.errors.NotCapable} Without `--allow-read` and `--allow-write`, each for everything.
 *
 * @example
 * ```ts
 * import { lstat, symlink } from "@ringscope/ringscope";
 *
 * const directory = await Deno.makeTempDir();
 * await symlink("target", `${directory}/link`);
 * console.log((await lstat(`${directory}/link`)).isSymlink); // true
 * await Deno.remove(directory, { recursive: true });
 * ```
 */
export async function symlink(oldPath: string | URL, newPath: string | URL, options?: SymlinkOptions): Promise<void> {
  const [target, to] = [toPath(oldPath), toPath(newPath)];
  requireEverything("read");
  requireEverything("write");
  await act(options, Op.SYMLINKAT, "symlink", { path: target, newPath: to }, {
    operands: [pathOperand(target), pathOperand(to, OperandWord.Address2)],
  });
}

/**
 * Gives a file a second name (`IORING_OP_LINKAT`), on the same file system.
 *
 * @throws {Deno.errors.AlreadyExists} And the other classes of `Deno.errors`, with `code`, `errno`, `operation`, `path`
 * and `newPath`.
 * @throws {Deno.errors.NotCapable} Without `--allow-read` and `--allow-write`.
 *
 * @example
 * ```ts
 * import { link, stat } from "@ringscope/ringscope";
 *
 * const directory = await Deno.makeTempDir();
 * await Deno.writeTextFile(`${directory}/one`, "");
 * await link(`${directory}/one`, `${directory}/two`);
 * console.log((await stat(`${directory}/one`)).nlink); // 2
 * await Deno.remove(directory, { recursive: true });
 * ```
 */
export async function link(oldPath: string | URL, newPath: string | URL, options?: FsOptions): Promise<void> {
  const [from, to] = [toPath(oldPath), toPath(newPath)];
  for (const path of [from, to]) {
    requirePath("read", path);
    requirePath("write", path);
  }
  await act(options, Op.LINKAT, "link", { path: from, newPath: to }, {
    length: AT_FDCWD >>> 0,
    operands: [pathOperand(from), pathOperand(to, OperandWord.Address2)],
  });
}

/**
 * Cuts a file off, or lengthens it with zeros (`IORING_OP_FTRUNCATE`).
 *
 * @param length Bytes. Default: 0.
 * @throws {Deno.errors.NotFound} And the other classes of `Deno.errors`, with `code`, `errno`, `operation` and `path`.
 * @throws {Deno.errors.NotCapable} Without `--allow-write`.
 *
 * @example
 * ```ts
 * import { stat, truncate } from "@ringscope/ringscope";
 *
 * const path = await Deno.makeTempFile();
 * await truncate(path, 1000);
 * console.log((await stat(path)).size); // 1000
 * await Deno.remove(path);
 * ```
 */
export async function truncate(path: string | URL, length = 0, options: FsOptions = {}): Promise<void> {
  const rest = remaining(options, performance.now());
  await using file = await open(path, { ...options, ...rest(), write: true });
  await file.truncate(length, rest());
}

/**
 * Copies a file's contents, its holes included, and its permission bits; what is at the other path is replaced. If it
 * rejects, the copy may be a part.
 *
 * @throws {Deno.errors.NotFound} And the other classes of `Deno.errors`, with `code`, `errno`, `operation` and `path`.
 * @throws {TypeError} If both paths are the same file.
 * @throws {Deno.errors.NotCapable} Without `--allow-read` for the one and `--allow-write` for the other.
 *
 * @example
 * ```ts
 * import { copyFile } from "@ringscope/ringscope";
 *
 * const path = await Deno.makeTempFile();
 * await copyFile("/proc/self/status", path);
 * await Deno.remove(path);
 * ```
 */
export async function copyFile(
  fromPath: string | URL,
  targetPath: string | URL,
  options: FsOptions = {},
): Promise<void> {
  const [from, to] = [toPath(fromPath), toPath(targetPath)];
  requirePath("read", from);
  requirePath("write", to);
  const rest = remaining(options, performance.now());
  const now = () => ({ ...options, ...rest() });
  await using source = await open(from, now());
  const { driver } = descriptorOfFile(source);
  const { mode, size, id } = fstat(driver, source.fd);
  if (isFileType(mode, "directory")) throw systemError(-Errno.EISDIR, "copyFile", { path: from, newPath: to });
  await using target = await open(to, { ...now(), write: true, create: true, mode });
  const old = fstat(driver, target.fd);
  if (old.id === id) {
    throw new TypeError(`copyFile '${from}' -> '${to}': both are the same file, which is left as it is`);
  }
  const regular = isFileType(old.mode, "file");
  if (old.size > 0 && regular) await target.truncate(0, rest());
  // What is no file, such as a device, keeps the bits it has.
  const result = regular ? driver.native.rs_fchmod(target.fd, mode & 0o7777) : 0;
  if (result < 0) throw systemError(result, "copyFile", { path: from, newPath: to });
  // Where the size is told, one byte more sees the end.
  const block = new Uint8Array(size > 0 ? Math.min(size + 1, COPY_BYTES) : COPY_BYTES);
  const move = async (bytes: number) => {
    for (let left = bytes; left > 0;) {
      const n = await source.read(left < block.byteLength ? block.subarray(0, left) : block, rest());
      if (n === null) return;
      await target.writeAll(block.subarray(0, n), rest());
      left -= n;
    }
  };
  if (size >= HOLES_FROM_BYTES && regular && isFileType(mode, "file")) {
    await copyAroundHoles(source, target, size, move);
  }
  await move(Infinity);
}

/** Copies what is between the holes of a file, up to its `size`, so that the copy has the same holes. */
async function copyAroundHoles(source: File, target: File, size: number, move: (bytes: number) => Promise<void>) {
  const [from, to] = [descriptorOfFile(source), descriptorOfFile(target)];
  for (let end = 0; end < size;) {
    const start = await from.seek(end, SEEK_DATA).catch((error) => {
      if (errnoOf(error) === Errno.ENXIO) return size; // a hole up to the end
      throw error;
    });
    if (start >= size) await target.truncate(size);
    end = start < size ? await from.seek(start, SEEK_HOLE) : size;
    for (const descriptor of [from, to]) await descriptor.seek(Math.min(start, size), SEEK_SET);
    await move(end - start);
  }
}

const SEEK_SET = 0;
const SEEK_DATA = 3;
const SEEK_HOLE = 4;
/** In smaller files it is not worth looking for holes. */
const HOLES_FROM_BYTES = 1 << 20;
const COPY_BYTES = 256 << 10;

/**
 * Reads an extended attribute (`IORING_OP_GETXATTR`). io_uring has no opcode that removes one.
 *
 * @param name With its name space, such as `"user.origin"`.
 * @returns Its value; `null` if the file has no such attribute.
 * @throws {Deno.errors.NotSupported} Where the file system has no attributes; and the other classes of `Deno.errors`.
 * @throws {Deno.errors.NotCapable} Without `--allow-read`.
 *
 * @example
 * ```ts
 * import { getXattr } from "@ringscope/ringscope";
 *
 * console.log(await getXattr("/tmp", "user.origin")); // null
 * ```
 */
export async function getXattr(
  path: string | URL,
  name: string,
  options?: FsOptions,
): Promise<Uint8Array<ArrayBuffer> | null> {
  const file = toPath(path);
  requirePath("read", file);
  const value = new Uint8Array(XATTR_BYTES);
  try {
    const bytes = await act(options, Op.GETXATTR, "getXattr", { path: file }, {
      length: XATTR_BYTES,
      operands: [
        pathOperand(attributeName(name)),
        { word: OperandWord.Address2, bytes: XATTR_BYTES, output: value, outputsResult: true },
        pathOperand(file, OperandWord.Address3),
      ],
    });
    return value.slice(0, bytes);
  } catch (error) {
    if (errnoOf(error) === Errno.ENODATA) return null;
    throw error;
  }
}

/**
 * Sets an extended attribute (`IORING_OP_SETXATTR`).
 *
 * @param name With its name space, such as `"user.origin"`.
 * @param value At most 64 KiB; file systems allow less.
 * @throws {Deno.errors.AlreadyExists} With `create`, if it is there; and the other classes of `Deno.errors`.
 * @throws {Deno.errors.NotCapable} Without `--allow-write`.
 *
 * @example
 * ```ts
 * import { getXattr, setXattr } from "@ringscope/ringscope";
 *
 * const path = await Deno.makeTempFile();
 * try {
 *   await setXattr(path, "user.origin", new TextEncoder().encode("here"));
 *   console.log(await getXattr(path, "user.origin"));
 * } catch (error) {
 *   console.log((error as Error).message); // where the file system has none
 * }
 * await Deno.remove(path);
 * ```
 */
export async function setXattr(
  path: string | URL,
  name: string,
  value: Uint8Array,
  options: SetXattrOptions = {},
): Promise<void> {
  const file = toPath(path);
  requirePath("write", file);
  if (!(value instanceof Uint8Array)) throw new TypeError("The value must be a Uint8Array");
  if (value.byteLength > XATTR_BYTES) throw new RangeError(`The value has more than ${XATTR_BYTES} bytes`);
  const { create = false, replace = false, ...rest } = options;
  if (create && replace) throw new TypeError("create and replace exclude each other");
  await act(rest, Op.SETXATTR, "setXattr", { path: file }, {
    length: value.byteLength,
    opFlags: create ? XATTR_CREATE : replace ? XATTR_REPLACE : 0,
    operands: [
      pathOperand(attributeName(name)),
      { word: OperandWord.Address2, bytes: value.byteLength, input: value },
      pathOperand(file, OperandWord.Address3),
    ],
  });
}

/**
 * Lists the names of a file's extended attributes. io_uring has no opcode for it: the file is found by an
 * `IORING_OP_OPENAT2`, and a system call (`listxattr`) asks it.
 *
 * @returns Names with their name spaces, such as `"user.origin"`, in no order; those that the process may see.
 * @throws {Deno.errors.NotFound} And the other classes of `Deno.errors`, with `code`, `errno`, `operation` and `path`.
 * @throws {Deno.errors.NotCapable} Without `--allow-read`.
 *
 * @example
 * ```ts
 * import { listXattr } from "@ringscope/ringscope";
 *
 * console.log(await listXattr("/tmp")); // []
 * ```
 */
export async function listXattr(path: string | URL, options?: FsOptions): Promise<string[]> {
  const file = toPath(path);
  requirePath("read", file);
  await using found = await openAt(AT_FDCWD, file, file, O_PATH, options);
  const names = new Uint8Array(XATTR_BYTES);
  const link = new TextEncoder().encode(`/proc/self/fd/${found.fd}\0`);
  const bytes = found.driver.native.rs_listxattr(link, names, names.byteLength);
  if (bytes < 0) throw systemError(bytes, "listXattr", { path: file });
  return new TextDecoder().decode(names.subarray(0, bytes)).split("\0").slice(0, -1);
}

function attributeName(name: string): string {
  if (name.includes("\0")) throw new TypeError("An attribute's name can't contain NUL");
  return name;
}

/** The fields of a request on paths; what is not given is 0, and `fd` the working directory. */
interface Action {
  fd?: number;
  length?: number;
  opFlags?: number;
  operands: readonly Operand[];
}

/** Makes one request; resolves with its result. */
function act(
  options: FsOptions | undefined,
  opcode: number,
  operation: string,
  subject: Subject,
  { fd = AT_FDCWD, length = 0, opFlags = 0, operands }: Action,
): Promise<number> {
  const driver = driverOf(options?.ring);
  const request = driver.request(opcode, operation);
  request.fd = fd;
  request.length = length;
  request.opFlags = opFlags;
  request.operands = operands;
  request.subject = subject;
  return driver.start(request, options);
}

function errnoOf(error: unknown): number | undefined {
  return (error as Partial<SystemErrorFields> | null)?.errno;
}
