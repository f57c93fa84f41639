/** System calls made at once, on this thread, beside the rings: to have things happen at a chosen moment. */

const { symbols } = Deno.dlopen("libc.so.6", {
  close: { parameters: ["i32"], result: "i32" },
  dup: { parameters: ["i32"], result: "i32" },
  getppid: { parameters: [], result: "i32" },
  getsockopt: { parameters: ["i32", "i32", "i32", "buffer", "buffer"], result: "i32" },
  ioctl: { parameters: ["i32", "u64", "buffer"], result: "i32" },
  open: { parameters: ["buffer", "i32"], result: "i32" },
  mkfifo: { parameters: ["buffer", "u32"], result: "i32" },
  pipe2: { parameters: ["buffer", "i32"], result: "i32" },
  posix_fadvise: { parameters: ["i32", "i64", "i64", "i32"], result: "i32" },
  read: { parameters: ["i32", "buffer", "usize"], result: "isize" },
  setfsuid: { parameters: ["u32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  shutdown: { parameters: ["i32", "i32"], result: "i32" },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
});

function checked(call: string, result: number | bigint): number {
  if (result < 0) throw new Error(`${call} failed`);
  return Number(result);
}

/** `close(2)`. */
export function close(fd: number): void {
  checked("close", symbols.close(fd));
}

/** `dup(2)`. */
export function dup(fd: number): number {
  return checked("dup", symbols.dup(fd));
}

/** `getsockopt(2)` of an option that is an integer. */
export function socketOption(fd: number, level: number, name: number): number {
  const value = new Int32Array(1);
  checked("getsockopt", symbols.getsockopt(fd, level, name, value, new Uint32Array([4])));
  return value[0];
}

/** `setfsuid(2)`: as whom this thread, and the requests it submits, see files from now on; returns as whom before. */
export function setFileUser(user: number): number {
  return symbols.setfsuid(user);
}

/** `setsockopt(2)` of an option that is an integer. */
export function setSocketOption(fd: number, level: number, name: number, value: number): void {
  checked("setsockopt", symbols.setsockopt(fd, level, name, new Int32Array([value]), 4));
}

/** A system call that does nothing: the kernel runs what work it has put off for this thread. */
export function enterKernel(): void {
  symbols.getppid();
}

/** Opens a FIFO for writing if somebody reads it, and closes it. */
export function openForAMoment(path: string): void {
  const O_WRONLY_NONBLOCK_CLOEXEC = 0o2004001;
  const fd = symbols.open(new TextEncoder().encode(`${path}\0`), O_WRONLY_NONBLOCK_CLOEXEC);
  if (fd >= 0) close(fd);
}

/** Bytes that wait to be read. */
export function readable(fd: number): number {
  const FIONREAD = 0x541bn;
  const count = new Int32Array(1);
  checked("ioctl", symbols.ioctl(fd, FIONREAD, count));
  return count[0];
}

/** Makes a FIFO. */
export function mkfifo(path: string): void {
  checked("mkfifo", symbols.mkfifo(new TextEncoder().encode(`${path}\0`), 0o600));
}

/** Drops a file's pages, so that the next read goes to the disk. */
export function dropPages(fd: number): void {
  const POSIX_FADV_DONTNEED = 4;
  checked("posix_fadvise", symbols.posix_fadvise(fd, 0n, 0n, POSIX_FADV_DONTNEED));
}

/** Tells the kernel not to read ahead. */
export function readSingly(fd: number): void {
  const POSIX_FADV_RANDOM = 1;
  checked("posix_fadvise", symbols.posix_fadvise(fd, 0n, 0n, POSIX_FADV_RANDOM));
}

/** Reads what is there, without a ring; blocks if nothing is. */
export function read(fd: number, p: Uint8Array<ArrayBuffer>): number {
  return checked("read", symbols.read(fd, p, BigInt(p.byteLength)));
}

/** Writes without a ring, and all at once: for few bytes. */
export function write(fd: number, p: Uint8Array<ArrayBuffer>): void {
  const written = checked("write", symbols.write(fd, p, BigInt(p.byteLength)));
  if (written !== p.byteLength) throw new Error(`write took ${written} bytes of ${p.byteLength}`);
}

/** Has a socket's close reset the connection, so that no port is left in TIME_WAIT. */
export function resetOnClose(fd: number): void {
  const SOL_SOCKET = 1;
  const SO_LINGER = 13;
  checked("setsockopt", symbols.setsockopt(fd, SOL_SOCKET, SO_LINGER, new Int32Array([1, 0]), 8));
}

/** The thread this runs on. */
export function threadId(): number {
  return Number(Deno.readLinkSync("/proc/thread-self").split("/").at(-1));
}
