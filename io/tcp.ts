/**
 * Streams over sockets: TCP, Unix, and pairs of connected sockets.
 *
 * @module
 */
import type { Driver } from "../ring/driver.ts";
import { Errno } from "../ring/errno.ts";
import { type Subject, systemError } from "../ring/errors.ts";
import { Multishot } from "../ring/multishot.ts";
import { OperandWord } from "../ring/operations.ts";
import type { OperationOptions } from "../ring/request.ts";
import { driverOf, type Ring } from "../ring/ring.ts";
import { CURRENT_POSITION, Op, SocketFlag } from "../ring/uring_abi.ts";
import { born } from "../scope/ownership.ts";
import { AF_UNIX, decodeSocketAddress, encodeUnixAddress, familyOf, showAddress } from "./address.ts";
import { Descriptor, socketTraits } from "./descriptor.ts";
import { requireNet, requireUnix } from "./permissions.ts";
import { ADDRESS_BYTES, checkPort, fileRemover, localAddress, resolve } from "./socket_address.ts";
import {
  type BufferSizeOptions,
  checkSocketOptions,
  type KeepAliveOptions,
  setKeepAlive,
  setNoDelay,
  setSocketOptions,
  type TcpOptions,
} from "./socket_options.ts";
import { readableStream, writableStream } from "./streams.ts";

const SOCK_STREAM = 1;
const SOCK_CLOEXEC = 0o2000000;
const IPPROTO_TCP = 6;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const DEFAULT_BACKLOG = 511;

/** For want of descriptors or memory, how long to wait for others to give some back, in milliseconds. */
const SHORTAGE_PAUSE_MS = 20;
/**
 * Failures of accepting after which the next connection may well be good, and the milliseconds to wait. accept(2): the
 * error of a connection that was broken before it was accepted is to be passed over.
 */
const ACCEPT_RETRIES = new Map<number, number>([
  [Errno.EMFILE, SHORTAGE_PAUSE_MS],
  [Errno.ENFILE, SHORTAGE_PAUSE_MS],
  [Errno.ENOMEM, SHORTAGE_PAUSE_MS],
  [Errno.ENOBUFS, SHORTAGE_PAUSE_MS],
  [Errno.EPERM, 0],
  [Errno.EPROTO, 0],
  [Errno.ENETDOWN, 0],
  [Errno.ENETUNREACH, 0],
  [Errno.ECONNABORTED, 0],
  [Errno.EHOSTUNREACH, 0],
]);

/** Gives the library the descriptor of a connection, which programs don't see. */
export let descriptorOfConn: (conn: Conn<Deno.Addr>) => Descriptor;

/** A connection: a stream of bytes each way. */
export class Conn<Address extends Deno.Addr = Deno.NetAddr> implements AsyncDisposable, Disposable {
  readonly #descriptor: Descriptor;
  #localAddr: Address | null;
  readonly #remoteAddr: Address;
  #readable: ReadableStream<Uint8Array<ArrayBuffer>> | undefined;
  #writable: WritableStream<Uint8Array> | undefined;
  #endedStreams = 0;

  static {
    descriptorOfConn = (conn) => conn.#descriptor;
  }

  /** @ignore Connections come from {@linkcode connect}, {@linkcode Listener.accept} and {@linkcode socketpair}. */
  constructor(descriptor: Descriptor, localAddr: Address | null, remoteAddr: Address) {
    this.#descriptor = descriptor;
    this.#localAddr = localAddr;
    this.#remoteAddr = remoteAddr;
  }

  /** The number of the descriptor. */
  get fd(): number {
    return this.#descriptor.fd;
  }

  /** This end's address. */
  get localAddr(): Address {
    return this.#localAddr ??= localAddress(this.#descriptor.driver, this.fd) as Address;
  }

  /** The other end's address. */
  get remoteAddr(): Address {
    return this.#remoteAddr;
  }

  /**
   * Reads what is there, or waits for it (`IORING_OP_RECV`).
   *
   * @param p Where to; at most 1 MiB of it is filled by one call.
   * @returns Bytes read, 1 to `p.byteLength` (0 only into no bytes); `null` when the other end has finished sending.
   * @throws {Deno.errors.ConnectionReset} And the other classes of `Deno.errors`, with `code`, `errno`, `operation`.
   */
  read(p: Uint8Array, options?: OperationOptions): Promise<number | null> {
    return this.#descriptor.read(p, CURRENT_POSITION, options);
  }

  /**
   * Writes as much as there is room for, waiting for some (`IORING_OP_SEND`).
   *
   * @returns Bytes taken, which may be fewer than `p` holds; {@linkcode Conn.writeAll} writes all.
   * @throws {Deno.errors.BrokenPipe} If the connection is closed, and the other classes of `Deno.errors`.
   */
  write(p: Uint8Array, options?: OperationOptions): Promise<number> {
    return this.#descriptor.write(p, CURRENT_POSITION, options);
  }

  /**
   * Reads until the other end has finished sending. If it rejects, what it had read comes with the next read.
   *
   * @param options `signal`, and a `timeout` for all of it.
   */
  readAll(options?: OperationOptions): Promise<Uint8Array<ArrayBuffer>> {
    return this.#descriptor.readAll(options);
  }

  /**
   * Writes all of `p`; no other write of this connection comes in between.
   *
   * @param options `signal`, and a `timeout` for all of it.
   * @throws An error that tells `bytesWritten`, if it is an object.
   */
  writeAll(p: Uint8Array, options?: OperationOptions): Promise<void> {
    return this.#descriptor.writeAll(p, options);
  }

  /**
   * What arrives, as it arrives, each chunk an array of its own: by one request for all of it and no buffer of this
   * connection's while it waits (a multishot `IORING_OP_RECV`, Linux 6.0). For connections that are idle most of the
   * time; where bytes keep coming, {@linkcode Conn.read} into one buffer is faster. Ends when the other end has finished
   * sending; reads wait until the iteration has ended, and what has come by then is theirs.
   *
   * @throws {Deno.errors.ConnectionReset} And the other classes of `Deno.errors`, with `code`, `errno`, `operation`.
   *
   * @example
   * ```ts
   * import { socketpair } from "@ringscope/ringscope";
   *
   * const [left, right] = socketpair();
   * await left.writeAll(new Uint8Array(3));
   * await left.close();
   * for await (const chunk of right.chunks()) console.log(chunk.byteLength); // 3
   * await right.close();
   * ```
   */
  chunks(): AsyncIterableIterator<Uint8Array<ArrayBuffer>> {
    return this.#descriptor.chunks();
  }

  /** Tells the other end that no more bytes will come; reading goes on (`IORING_OP_SHUTDOWN`). */
  async closeWrite(options?: OperationOptions): Promise<void> {
    const SHUT_WR = 1;
    const request = this.#descriptor.request(Op.SHUTDOWN, "closeWrite");
    request.length = SHUT_WR;
    await this.#descriptor.driver.start(request, options);
  }

  /**
   * Whether small writes are sent at once, rather than gathered while others are unacknowledged (`TCP_NODELAY`).
   *
   * @param noDelay Default: `true`.
   * @throws {Deno.errors.NotSupported} If this is no TCP connection.
   */
  setNoDelay(noDelay = true): void {
    setNoDelay(this.#descriptor, noDelay);
  }

  /**
   * Whether the other end is probed while nothing is sent (`SO_KEEPALIVE`), so that one that has vanished is noticed.
   *
   * @param keepAlive `false`, or `true`, or after how many seconds and how often. Default: `true`.
   */
  setKeepAlive(keepAlive: boolean | KeepAliveOptions = true): void {
    setKeepAlive(this.#descriptor, keepAlive);
  }

  /**
   * What arrives, as a stream of bytes. It reads only when it is read from. At the end of the bytes it ends, and the
   * connection stays open for what is to be written, until {@linkcode Conn.writable} is closed too; cancelling it, or a
   * read that fails, closes the connection.
   */
  get readable(): ReadableStream<Uint8Array<ArrayBuffer>> {
    return this.#readable ??= readableStream({
      read: (p) => this.read(p),
      end: () => this.#endStream(),
      abandon: () => this.close(),
    });
  }

  /**
   * What is to be sent, as a stream. Closing it tells the other end, as {@linkcode Conn.closeWrite} does, and closes the
   * connection if {@linkcode Conn.readable} has ended too; aborting it, or a write that fails, closes the connection.
   */
  get writable(): WritableStream<Uint8Array> {
    return this.#writable ??= writableStream({
      writeAll: (p, options) => this.writeAll(p, options),
      end: async () => {
        await this.closeWrite();
        await this.#endStream();
      },
      abandon: () => this.close(),
    });
  }

  async #endStream(): Promise<void> {
    if (++this.#endedStreams === 2) await this.close();
  }

  /** Has operations in flight keep the process alive, as they do unless {@linkcode Conn.unref} was called. */
  ref(): void {
    this.#descriptor.driver.reference(this.#descriptor, true);
  }

  /**
   * Has operations in flight not keep the process alive. (With the `"thread"` doorbell, which is the only one before
   * Deno 2.8, they do all the same.)
   */
  unref(): void {
    this.#descriptor.driver.reference(this.#descriptor, false);
  }

  /** Closes the connection; what is in flight on it rejects with `Deno.errors.BadResource`. Twice is once. */
  close(): Promise<void> {
    return this.#descriptor.close();
  }

  /** The same as {@linkcode Conn.close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Begins to close the connection, and does not wait for it: `await using` does. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** A socket that waits for connections. Iterating over it accepts one after another until it is closed. */
export class Listener<Address extends Deno.Addr = Deno.NetAddr>
  implements AsyncDisposable, Disposable, AsyncIterable<Conn<Address>> {
  readonly #descriptor: Descriptor;
  readonly #ring: Ring | undefined;
  /** The address it listens on, with the port that the kernel chose if none was asked for. */
  readonly addr: Address;

  /** @ignore Listeners come from {@linkcode listen}. */
  constructor(descriptor: Descriptor, ring: Ring | undefined, addr: Address) {
    this.#descriptor = descriptor;
    this.#ring = ring;
    this.addr = addr;
  }

  /** The number of the descriptor. */
  get fd(): number {
    return this.#descriptor.fd;
  }

  /**
   * Waits for the next connection (`IORING_OP_ACCEPT`).
   *
   * @throws {Deno.errors.BadResource} If the listener is closed, before or meanwhile.
   */
  async accept(options?: OperationOptions): Promise<Conn<Address>> {
    const request = this.#descriptor.request(Op.ACCEPT, "accept");
    const address = new Uint8Array(ADDRESS_BYTES);
    const length = new Uint32Array([ADDRESS_BYTES]);
    const lengthBytes = new Uint8Array(length.buffer);
    request.operands = [
      { word: OperandWord.Address, bytes: ADDRESS_BYTES, output: address },
      { word: OperandWord.Address2, bytes: 4, input: lengthBytes, output: lengthBytes },
    ];
    request.opFlags = SOCK_CLOEXEC;
    request.pollable = true;
    request.decode = ({ result }) => this.#accepted(result, decodeSocketAddress(address.subarray(0, length[0])));
    return born(await this.#descriptor.driver.start<Conn<Address>>(request, options));
  }

  #accepted(fd: number, remoteAddr: Deno.NetAddr | Deno.UnixAddr): Conn<Address> {
    // The other end of a Unix socket mostly has no name: the listener's says more.
    const subject = remoteAddr.transport === "unix" ? this.#descriptor.subject : subjectOf(remoteAddr);
    const descriptor = new Descriptor(fd, "connection", this.#ring, socketTraits, subject);
    return new Conn(descriptor, null, remoteAddr as Address);
  }

  /** Stops listening; an accept in flight rejects with `Deno.errors.BadResource`. Twice is once. */
  close(): Promise<void> {
    return this.#descriptor.close();
  }

  /** The same as {@linkcode Listener.close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Begins to close the listener, and does not wait for it: `await using` does. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Has an accept in flight keep the process alive, as it does unless {@linkcode Listener.unref} was called. */
  ref(): void {
    this.#descriptor.driver.reference(this.#descriptor, true);
  }

  /**
   * Has an accept in flight not keep the process alive. (With the `"thread"` doorbell, which is the only one before Deno
   * 2.8, it does all the same.)
   */
  unref(): void {
    this.#descriptor.driver.reference(this.#descriptor, false);
  }

  /**
   * Accepts one connection after another, by one request for all of them (a multishot `IORING_OP_ACCEPT`); ends when
   * the listener is closed. While the process has no descriptor to spare (EMFILE, ENFILE) it waits and tries again.
   * Connections that have been accepted and not been come for when the iteration ends are closed.
   */
  [Symbol.asyncIterator](): AsyncIterableIterator<Conn<Address>> {
    const { driver } = this.#descriptor;
    const gone: Deno.NetAddr | Deno.UnixAddr = this.addr.transport === "unix"
      ? { transport: "unix", path: "" }
      : { transport: "tcp", hostname: "0.0.0.0", port: 0 };
    const accepted = new Multishot<Conn<Address>>(driver, {
      request: () => {
        const request = this.#descriptor.request(Op.ACCEPT, "accept");
        request.priority = SocketFlag.ACCEPT_MULTISHOT;
        request.opFlags = SOCK_CLOEXEC;
        request.pollable = true;
        return request;
      },
      decode: (fd) => this.#accepted(fd, peerAddress(driver, fd, gone)),
      discard: (conn) => conn.close(),
      retryAfter: (result) => ACCEPT_RETRIES.get(-result),
    });
    return new Connections(accepted, this.#descriptor);
  }
}

/** The connections of a listener: those of its request, each in the scope that came for it, until the listener closes. */
class Connections<Address extends Deno.Addr> implements AsyncIterableIterator<Conn<Address>> {
  readonly #accepted: Multishot<Conn<Address>>;
  readonly #listener: Descriptor;

  constructor(accepted: Multishot<Conn<Address>>, listener: Descriptor) {
    this.#accepted = accepted;
    this.#listener = listener;
  }

  async next(): Promise<IteratorResult<Conn<Address>, undefined>> {
    try {
      const result = await this.#accepted.next();
      if (!result.done) born(result.value);
      return result;
    } catch (error) {
      if (!this.#listener.closed || !(error instanceof Deno.errors.BadResource)) throw error;
      return await this.return();
    }
  }

  return(): Promise<IteratorResult<Conn<Address>, undefined>> {
    return this.#accepted.return();
  }

  [Symbol.asyncIterator](): this {
    return this;
  }
}

/** The end of a socket that is not ours, or `gone` where it is gone already. */
function peerAddress(driver: Driver, fd: number, gone: Deno.NetAddr | Deno.UnixAddr): Deno.NetAddr | Deno.UnixAddr {
  const bytes = new Uint8Array(ADDRESS_BYTES);
  const length = driver.native.rs_socket_name(fd, 1, bytes, bytes.byteLength);
  return length <= 0 ? gone : decodeSocketAddress(bytes.subarray(0, length));
}

/** Options of {@linkcode connect}: those of `Deno.connect`, the socket's, and the operation's own. */
export interface ConnectOptions extends OperationOptions, TcpOptions {
  /** A numeric address, or a name for the system's resolver. Default: "127.0.0.1". */
  hostname?: string;
  /** 0 to 65535. */
  port: number;
  /** TCP, which is the default; for Unix see {@linkcode UnixConnectOptions}. */
  transport?: "tcp";
  /** The ring of the connection's operations. Default: the default ring. */
  ring?: Ring;
}

/** Options of {@linkcode connect} for Unix sockets: those of `Deno.connect`, and the operation's own. */
export interface UnixConnectOptions extends OperationOptions, BufferSizeOptions {
  /** The path of the listener's socket; or, beginning with NUL, its name in the abstract namespace. */
  path: string;
  /** Unix. */
  transport: "unix";
  /** The ring of the connection's operations. Default: the default ring. */
  ring?: Ring;
}

/**
 * Connects over TCP, or to a Unix socket (`IORING_OP_CONNECT`). A name with several addresses is tried address by
 * address. Resolving a name is the system's work, not the ring's: a cancel or a deadline during it takes effect when it
 * is done.
 *
 * @param options Where to; and `signal`, `timeout` (for all of it), `ring`.
 * @returns The connection; close it, or hold it with `await using`.
 * @throws {Deno.errors.ConnectionRefused} And the other classes of `Deno.errors`, with `code`, `errno`, `operation` and
 * `address` or `path`.
 * @throws {Deno.errors.NotCapable} Without `--allow-net`; for Unix also without `--allow-read` and `--allow-write` of the path.
 *
 * @example
 * ```ts
 * import { connect, listen } from "@ringscope/ringscope";
 *
 * await using listener = await listen({ hostname: "127.0.0.1", port: 0 });
 * const accepted = listener.accept();
 * await using client = await connect({ hostname: "127.0.0.1", port: listener.addr.port });
 * await using server = await accepted;
 * await client.writeAll(new TextEncoder().encode("hello"));
 * await server.read(new Uint8Array(5)); // 5
 * ```
 */
export function connect(options: ConnectOptions): Promise<Conn>;
/**
 * Connects to a Unix socket.
 *
 * @example
 * ```ts
 * import { connect, listen } from "@ringscope/ringscope";
 *
 * const path = `${await Deno.makeTempDir()}/echo.sock`;
 * await using listener = await listen({ transport: "unix", path });
 * await using client = await connect({ transport: "unix", path });
 * await using server = await listener.accept();
 * await client.writeAll(new TextEncoder().encode("hello"));
 * await server.read(new Uint8Array(5)); // 5
 * ```
 */
export function connect(options: UnixConnectOptions): Promise<Conn<Deno.UnixAddr>>;
export async function connect(
  options: ConnectOptions | UnixConnectOptions,
): Promise<Conn | Conn<Deno.UnixAddr>> {
  checkSocketOptions(options);
  if (options.transport === "unix") {
    const address = encodeUnixAddress(options.path);
    requireUnix(options.path);
    const driver = driverOf(options.ring);
    driver.admit(options);
    return born(await connectTo<Deno.UnixAddr>(driver, address, options));
  }
  checkTransport(options.transport);
  const hostname = options.hostname ?? "127.0.0.1";
  const port = checkPort(options.port);
  requireNet(showAddress(hostname, port));
  const driver = driverOf(options.ring);
  driver.admit(options);
  const deadline = options.timeout === undefined ? Infinity : performance.now() + options.timeout;
  let failure: unknown;
  for (const address of await resolve(hostname, port, "connect")) {
    const timeout = deadline === Infinity ? options.timeout : Math.max(0, deadline - performance.now());
    try {
      return born(await connectTo<Deno.NetAddr>(driver, address, { ...options, timeout }));
    } catch (error) {
      // An address that can't be reached is passed over; a cancelled or overdue connect is over.
      if (!(error instanceof Error) || !("errno" in error)) throw error;
      failure ??= error;
    }
  }
  throw failure;
}

async function connectTo<Address extends Deno.Addr>(
  driver: Driver,
  address: Uint8Array,
  options: ConnectOptions | UnixConnectOptions,
): Promise<Conn<Address>> {
  const family = familyOf(address);
  const remoteAddr = decodeSocketAddress(address);
  const subject = subjectOf(remoteAddr);
  const fd = driver.native.rs_socket(family, SOCK_STREAM | SOCK_CLOEXEC, family === AF_UNIX ? 0 : IPPROTO_TCP);
  if (fd < 0) throw systemError(fd, "connect", subject);
  const descriptor = new Descriptor(fd, "connection", options.ring, socketTraits, subject);
  try {
    setSocketOptions(driver.native, fd, options, "connect", subject);
    const request = descriptor.request(Op.CONNECT, "connect");
    request.operands = [{ word: OperandWord.Address, bytes: address.byteLength, input: address }];
    request.offset = address.byteLength;
    // A Unix listener whose backlog is full can't be polled for: a worker waits for it.
    request.pollable = family !== AF_UNIX;
    await driver.start(request, options);
  } catch (error) {
    await descriptor.close();
    throw error;
  }
  return new Conn(descriptor, null, remoteAddr as Address);
}

/** Options of {@linkcode listen}: those of `Deno.listen`, and the socket's, which accepted connections inherit. */
export interface ListenOptions extends TcpOptions {
  /** A numeric address, or a name for the system's resolver. Default: "0.0.0.0", every IPv4 address. */
  hostname?: string;
  /** 0 to 65535. Default: 0, which lets the kernel choose. */
  port?: number;
  /** TCP, which is the default; for Unix see {@linkcode UnixListenOptions}. */
  transport?: "tcp";
  /** Lets several listeners share the port; the kernel spreads connections over them. Default: `false`. */
  reusePort?: boolean;
  /** Connections that wait to be accepted, at the most. Default: 511. */
  backlog?: number;
  /** The ring of the listener and its connections. Default: the default ring. */
  ring?: Ring;
}

/** Options of {@linkcode listen} for Unix sockets. */
export interface UnixListenOptions extends BufferSizeOptions {
  /**
   * Where the socket is made; closing removes it. What is there already is an address in use, also a socket that a
   * process left which did not close it: remove it first. Or, beginning with NUL, a name in the abstract namespace (`unix(7)`), which is gone with the listener.
   */
  path: string;
  /** Unix. */
  transport: "unix";
  /** Connections that wait to be accepted, at the most. Default: 511. */
  backlog?: number;
  /** The ring of the listener and its connections. Default: the default ring. */
  ring?: Ring;
}

/**
 * Listens on TCP, or on a Unix socket. Other than `Deno.listen` it returns a promise, because a name may have to be
 * resolved.
 *
 * @param options Where; and `reusePort`, `backlog`, `ring`.
 * @returns The listener; close it, or hold it with `await using`.
 * @throws {Deno.errors.AddrInUse} And the other classes of `Deno.errors`, with `code`, `errno`, `operation` and
 * `address` or `path`.
 * @throws {Deno.errors.NotCapable} Without `--allow-net`; for Unix also without `--allow-read` and `--allow-write` of the path.
 *
 * @example
 * ```ts
 * import { listen } from "@ringscope/ringscope";
 *
 * await using listener = await listen({ hostname: "::1", port: 0 });
 * console.log(listener.addr.port);
 * ```
 */
export function listen(options: ListenOptions): Promise<Listener>;
/**
 * Listens on a Unix socket.
 *
 * @example
 * ```ts
 * import { listen } from "@ringscope/ringscope";
 *
 * await using listener = await listen({ transport: "unix", path: `\0ringscope example ${Deno.pid}` });
 * console.log(listener.addr.path);
 * ```
 */
export function listen(options: UnixListenOptions): Promise<Listener<Deno.UnixAddr>>;
export async function listen(
  options: ListenOptions | UnixListenOptions,
): Promise<Listener | Listener<Deno.UnixAddr>> {
  checkSocketOptions(options);
  if (options.transport === "unix") {
    const address = encodeUnixAddress(options.path);
    requireUnix(options.path);
    return listenOn<Deno.UnixAddr>(address, options, { path: options.path });
  }
  checkTransport(options.transport);
  const hostname = options.hostname ?? "0.0.0.0";
  const port = checkPort(options.port ?? 0);
  const subject = { address: showAddress(hostname, port) };
  requireNet(subject.address);
  driverOf(options.ring).admit(undefined);
  const [address] = await resolve(hostname, port, "listen");
  return listenOn<Deno.NetAddr>(address, options, subject);
}

function listenOn<Address extends Deno.Addr>(
  address: Uint8Array<ArrayBuffer>,
  options: ListenOptions | UnixListenOptions,
  subject: Subject,
): Listener<Address> {
  const driver = driverOf(options.ring);
  driver.admit(undefined);
  const { native } = driver;
  const family = familyOf(address);
  const fd = native.rs_socket(family, SOCK_STREAM | SOCK_CLOEXEC, family === AF_UNIX ? 0 : IPPROTO_TCP);
  if (fd < 0) throw systemError(fd, "listen", subject);
  const attempt = (result: number) => {
    if (result < 0) throw systemError(result, "listen", subject);
  };
  try {
    if (family !== AF_UNIX) attempt(native.rs_set_socket_option(fd, SOL_SOCKET, SO_REUSEADDR, 1));
    setSocketOptions(native, fd, options, "listen", subject);
    attempt(native.rs_bind(fd, address, address.byteLength));
    const addr = localAddress(driver, fd);
    const descriptor = new Descriptor(fd, "listener", options.ring, socketTraits, subjectOf(addr));
    if (subject.path !== undefined) descriptor.onClose = fileRemover(subject.path);
    attempt(native.rs_listen(fd, options.backlog ?? DEFAULT_BACKLOG));
    return born(new Listener(descriptor, options.ring, addr as Address));
  } catch (error) {
    native.rs_close(fd);
    throw error;
  }
}

/** Options of {@linkcode socketpair}. */
export interface SocketpairOptions {
  /** The ring of both ends. Default: the default ring. */
  ring?: Ring;
}

/**
 * Makes two sockets that are connected to each other (`socketpair`, Unix stream).
 *
 * @returns Both ends; close each, or hold them with `await using`.
 * @throws An error with code "EMFILE" if the process has too many open files.
 *
 * @example
 * ```ts
 * import { socketpair } from "@ringscope/ringscope";
 *
 * const [left, right] = socketpair();
 * await left.writeAll(new TextEncoder().encode("hello"));
 * await right.read(new Uint8Array(5)); // 5
 * await left.close();
 * await right.close();
 * ```
 */
export function socketpair(options: SocketpairOptions = {}): [Conn<Deno.UnixAddr>, Conn<Deno.UnixAddr>] {
  const fds = new Int32Array(2);
  const result = driverOf(options.ring).native.rs_socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, fds);
  if (result < 0) throw systemError(result, "socketpair");
  const unnamed: Deno.UnixAddr = { transport: "unix", path: "" };
  const conn = (fd: number) =>
    born(new Conn(new Descriptor(fd, "connection", options.ring, socketTraits), unnamed, unnamed));
  return [conn(fds[0]), conn(fds[1])];
}

/** What errors say of an address. */
function subjectOf(address: Deno.NetAddr | Deno.UnixAddr): Subject {
  return "path" in address ? { path: address.path } : { address: showAddress(address.hostname, address.port) };
}

function checkTransport(transport: string | undefined): void {
  if (transport === undefined || transport === "tcp") return;
  throw new TypeError(`transport must be "tcp" or "unix", not ${JSON.stringify(transport)}`);
}
