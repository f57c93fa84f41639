/**
 * Datagrams: UDP, and datagrams between Unix sockets.
 *
 * @module
 */
import type { Driver } from "../ring/driver.ts";
import { Errno } from "../ring/errno.ts";
import { type Subject, systemError } from "../ring/errors.ts";
import { type Operand, OperandWord } from "../ring/operations.ts";
import { Lane, type OperationOptions, type Request } from "../ring/request.ts";
import { driverOf, type Ring } from "../ring/ring.ts";
import { MAX_TRANSFER_BYTES, Op, SQE_WORDS } from "../ring/uring_abi.ts";
import { born } from "../scope/ownership.ts";
import {
  AF_INET,
  AF_INET6,
  AF_UNIX,
  decodeSocketAddress,
  encodeAddress,
  encodeUnixAddress,
  familyOf,
  showAddress,
} from "./address.ts";
import { Descriptor, remaining, socketTraits } from "./descriptor.ts";
import { requireNet, requireUnix } from "./permissions.ts";
import { ADDRESS_BYTES, checkPort, fileRemover, localAddress, resolve } from "./socket_address.ts";
import { type BufferSizeOptions, checkSocketOptions, setSocketOptions } from "./socket_options.ts";

const SOCK_DGRAM = 2;
const SOCK_CLOEXEC = 0o2000000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const IPPROTO_IP = 0;
const IPPROTO_IPV6 = 41;
const IP_MULTICAST_LOOP = 34;
const IP_MULTICAST_TTL = 33;
const IP_ADD_MEMBERSHIP = 35;
const IP_DROP_MEMBERSHIP = 36;
const IPV6_MULTICAST_LOOP = 19;
const IPV6_ADD_MEMBERSHIP = 20;
const IPV6_DROP_MEMBERSHIP = 21;
/** A command of sockets (6.7), and the word of the SQE in which it has the size of the option. */
const SOCKET_URING_OP_SETSOCKOPT = 3;
const OPTION_BYTES_WORD = 11;
const MSG_TRUNC = 0x20;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const POLLOUT = 4;
/** A full receiver is asked again after 1 ms, 2 ms, and so on up to 2 to the power of this. */
const LONGEST_PAUSE_EXPONENT = 5;
/** `struct msghdr` of 64-bit Linux, and where its fields are. */
const MESSAGE_BYTES = 56;
const MessageField = { name: 0, nameBytes: 8, iovec: 16, iovecCount: 24, flags: 48 } as const;
/** `struct iovec`: an address and a length. */
const IOVEC_BYTES = 16;
/** What a request needs in its block besides the datagram. */
const OVERHEAD_BYTES = 64 + IOVEC_BYTES + ADDRESS_BYTES;
/**
 * What is received at once: more than UDP's longest datagram (65,507 bytes) and the longest that a Unix socket sends
 * unless told otherwise (212,960). Untouched pages of it cost nothing.
 */
const RECEIVE_BYTES = (256 << 10) - OVERHEAD_BYTES;
/** What a request can move. */
const MAX_DATAGRAM_BYTES = MAX_TRANSFER_BYTES - OVERHEAD_BYTES;

/** An address of datagrams. */
type DatagramAddr = Deno.NetAddr | Deno.UnixAddr;

/** A datagram and where it came from. */
export type Datagram<Address extends Deno.Addr = Deno.NetAddr> = [data: Uint8Array<ArrayBuffer>, addr: Address];

/**
 * A socket for datagrams, in the shape of `Deno.DatagramConn`. Iterating over it receives one after another until it is
 * closed. A receive that is cancelled takes no datagram.
 */
export class DatagramConn<Address extends Deno.Addr = Deno.NetAddr>
  implements AsyncDisposable, Disposable, AsyncIterable<Datagram<Address>> {
  readonly #descriptor: Descriptor;
  readonly #family: number;
  readonly #remoteAddr: Address | null;
  readonly #receiveLane = new Lane();
  /** Datagrams that were received and could not be delivered; the next calls of `receive` do. */
  readonly #undelivered: Datagram<Address>[] = [];
  #addr: Address | null = null;

  /** @ignore They come from {@linkcode listenDatagram} and {@linkcode connectDatagram}. */
  constructor(descriptor: Descriptor, family: number, remoteAddr: Address | null) {
    this.#descriptor = descriptor;
    this.#family = family;
    this.#remoteAddr = remoteAddr;
    descriptor.serveMessage = (request) => this.#serve(request);
  }

  /** The number of the descriptor. */
  get fd(): number {
    return this.#descriptor.fd;
  }

  /** The address it is bound to, with the port that the kernel chose if none was asked for. */
  get addr(): Address {
    return this.#addr ??= localAddress(this.#descriptor.driver, this.fd, "datagram") as Address;
  }

  /** The address it is connected to; `null` if it comes from {@linkcode listenDatagram}. */
  get remoteAddr(): Address | null {
    return this.#remoteAddr;
  }

  /**
   * Waits for a datagram (`IORING_OP_RECVMSG`).
   *
   * @param p Where to. Default: fresh memory, in which there is room for any datagram.
   * @param options `signal` and `timeout`.
   * @returns The part of `p` that the datagram fills, which is empty for an empty one; and where it came from.
   * @throws {RangeError} If the datagram is longer than `p`, or `p` has been detached: the next call of `receive`
   * delivers it. Only one that is longer than 256 KiB, which a Unix socket can send, and longer than `p` is lost.
   * @throws {Deno.errors.ConnectionRefused} If the socket is connected and nobody received what it sent.
   */
  receive(p?: Uint8Array<ArrayBuffer>, options?: OperationOptions): Promise<Datagram<Address>> {
    try {
      if (p !== undefined && !(p instanceof Uint8Array)) throw new TypeError("The buffer must be a Uint8Array");
      const request = this.#descriptor.request(Op.RECVMSG, "receive");
      request.lane = this.#receiveLane;
      if (this.#undelivered.length === 0) return this.#receive(request, p, options);
      this.#descriptor.driver.admit(options);
      return Promise.resolve(this.#deliver(this.#undelivered.shift()!, p));
    } catch (error) {
      return Promise.reject(error);
    }
  }

  #receive(request: Request, p: Uint8Array<ArrayBuffer> | undefined, options?: OperationOptions) {
    const bytes = Math.min(Math.max(RECEIVE_BYTES, p?.byteLength ?? 0), MAX_DATAGRAM_BYTES);
    const message = new Uint8Array(MESSAGE_BYTES);
    const name = new Uint8Array(ADDRESS_BYTES);
    let datagram: Datagram<Address>;
    request.view = p ?? null; // for `#serve`
    request.operands = messageOperands(message, { bytes: ADDRESS_BYTES, output: name }, {
      bytes,
      outputsResult: true,
      // What does not fit must be kept before anybody else has a turn, so it is delivered here.
      inspect: (received) => {
        const view = new DataView(message.buffer);
        const nameBytes = view.getUint32(MessageField.nameBytes, true);
        try {
          if ((view.getUint32(MessageField.flags, true) & MSG_TRUNC) !== 0) throw tooLong(request.result, bytes);
          datagram = this.#deliver([received.slice(), this.#decode(name.subarray(0, nameBytes))], p);
        } catch (error) {
          request.failure = error as RangeError;
        }
      },
    });
    request.length = 1;
    request.opFlags = MSG_TRUNC; // the result is the datagram's own length
    request.pollable = true;
    request.decode = () => datagram;
    return this.#descriptor.driver.start<Datagram<Address>>(request, options);
  }

  /** Serves a receive, whose turn has come, with a datagram that was kept. */
  #serve(request: Request): boolean {
    const kept = this.#undelivered.shift();
    if (kept === undefined) return false;
    request.result = 0;
    try {
      const datagram = this.#deliver(kept, request.view as Uint8Array<ArrayBuffer> ?? undefined);
      request.decode = () => datagram;
    } catch (error) {
      request.failure = error as RangeError;
    }
    return true;
  }

  #deliver(datagram: Datagram<Address>, p: Uint8Array<ArrayBuffer> | undefined): Datagram<Address> {
    const [data, addr] = datagram;
    if (p === undefined) return datagram;
    if (p.byteLength < data.byteLength) {
      this.#undelivered.unshift(datagram);
      throw new RangeError(
        `A datagram of ${data.byteLength} bytes does not fit into a buffer of ${p.byteLength}, which may have been ` +
          "detached or made smaller meanwhile; the next receive delivers it",
      );
    }
    p.set(data);
    return [p.subarray(0, data.byteLength), addr];
  }

  /** From where: the kernel says nothing of Unix sockets without a name. */
  #decode(name: Uint8Array<ArrayBuffer>): Address {
    return (name.byteLength === 0 ? unnamed : decodeSocketAddress(name, "datagram")) as Address;
  }

  /**
   * Sends a datagram, all of it or nothing (`IORING_OP_SENDMSG`). What `p` holds at the time of the call is sent.
   *
   * @param p The datagram; it may be empty.
   * @param addr Where to; to be left out if the socket is connected. A name costs a resolution each time.
   * @returns Bytes sent: `p.byteLength`.
   * @throws An error with code "EMSGSIZE" if it is too long: UDP takes 65,507 bytes over IPv4.
   * @throws {Deno.errors.ConnectionRefused} If the socket is connected and nobody received what it sent before.
   */
  send(p: Uint8Array, addr: Address, options?: OperationOptions): Promise<number>;
  /** Sends a datagram to the address that the socket is connected to. */
  send(p: Uint8Array, addr?: undefined, options?: OperationOptions): Promise<number>;
  async send(p: Uint8Array, addr?: Address, options?: OperationOptions): Promise<number> {
    if (!(p instanceof Uint8Array)) throw new TypeError("The datagram must be a Uint8Array");
    const data = p.slice();
    const name = addr === undefined
      ? null
      : this.#encode(addr as DatagramAddr) ?? await this.#resolve(addr as Deno.NetAddr);
    const subject = addr === undefined ? this.#descriptor.subject : subjectOf(addr as DatagramAddr);
    if (data.byteLength > MAX_DATAGRAM_BYTES) throw systemError(-Errno.EMSGSIZE, "send", subject);
    const { driver } = this.#descriptor;
    driver.admit(options);
    const left = remaining(options, performance.now());
    for (let tries = 0;; tries++) {
      try {
        return await driver.start<number>(this.#sendRequest(data, name, subject), { signal: options?.signal });
      } catch (error) {
        if (!(error instanceof Deno.errors.WouldBlock)) throw error;
      }
      const waiting = name !== null && this.#family === AF_UNIX
        ? this.#pauseRequest(2 ** Math.min(tries, LONGEST_PAUSE_EXPONENT), subject)
        : this.#writableRequest(subject);
      await driver.start(waiting, left());
    }
  }

  /**
   * One that does not wait, because the kernel's way to wait loses bytes: a Unix socket whose receiver is full has taken
   * the bytes from the message when it says so, and what the ring submits again by itself is an empty one (seen with
   * Linux 6.18).
   */
  #sendRequest(data: Uint8Array<ArrayBuffer>, name: Uint8Array<ArrayBuffer> | null, subject?: Subject): Request {
    const request = this.#descriptor.request(Op.SENDMSG, "send");
    request.operands = messageOperands(
      new Uint8Array(MESSAGE_BYTES),
      name === null ? null : { bytes: name.byteLength, input: name },
      { bytes: data.byteLength, input: data },
    );
    request.length = 1;
    request.opFlags = MSG_NOSIGNAL | MSG_DONTWAIT;
    request.subject = subject;
    return request;
  }

  #writableRequest(subject?: Subject): Request {
    const request = this.#descriptor.request(Op.POLL_ADD, "send");
    request.opFlags = POLLOUT;
    request.pollable = true;
    request.subject = subject;
    return request;
  }

  /** The kernel tells when its own socket is full, not when that of another is: one can only ask again. */
  #pauseRequest(durationMs: number, subject?: Subject): Request {
    const request = this.#descriptor.request(Op.TIMEOUT, "send");
    request.fd = -1;
    request.durationMs = durationMs;
    request.pollable = true;
    request.subject = subject;
    return request;
  }

  /** The `sockaddr` of an address that the program may use; `null` if it has a name for the resolver. */
  #encode(addr: DatagramAddr): Uint8Array<ArrayBuffer> | null {
    if ("path" in addr) {
      const encoded = encodeUnixAddress(addr.path);
      requireUnix(addr.path);
      return encoded;
    }
    requireNet(showAddress(addr.hostname, checkPort(addr.port)));
    return encodeAddress(addr.hostname, addr.port);
  }

  async #resolve(addr: Deno.NetAddr): Promise<Uint8Array<ArrayBuffer>> {
    const found = await resolve(addr.hostname, addr.port, "send");
    return found.find((address) => familyOf(address) === this.#family) ?? found[0];
  }

  /**
   * Joins a multicast group of IPv4: what is sent to it is received too. Leaving is in what this returns; closing the
   * socket leaves all groups.
   *
   * @param address The group's address, such as "239.1.2.3".
   * @param networkInterface An address of the network interface; "0.0.0.0" lets the kernel choose.
   * @throws {Deno.errors.NotSupported} Before Linux 6.7 (`SOCKET_URING_OP_SETSOCKOPT`).
   */
  async joinMulticastV4(address: string, networkInterface: string): Promise<MulticastV4Membership> {
    const group = numeric(address, AF_INET).subarray(4, 8);
    const request = new Uint8Array([...group, ...numeric(networkInterface, AF_INET).subarray(4, 8)]); // `struct ip_mreq`
    await this.#setOption("joinMulticastV4", IPPROTO_IP, IP_ADD_MEMBERSHIP, request);
    return {
      leave: () => this.#setOption("leave", IPPROTO_IP, IP_DROP_MEMBERSHIP, request),
      setLoopback: (loopback) => this.#setOption("setLoopback", IPPROTO_IP, IP_MULTICAST_LOOP, integer(+loopback)),
      setTTL: (ttl) => this.#setOption("setTTL", IPPROTO_IP, IP_MULTICAST_TTL, integer(ttl)),
    };
  }

  /**
   * Joins a multicast group of IPv6: what is sent to it is received too. Leaving is in what this returns; closing the
   * socket leaves all groups.
   *
   * @param address The group's address, such as "ff02::114".
   * @param networkInterface The number of the network interface; 0 lets the kernel choose.
   * @throws {Deno.errors.NotSupported} Before Linux 6.7 (`SOCKET_URING_OP_SETSOCKOPT`).
   */
  async joinMulticastV6(address: string, networkInterface: number): Promise<MulticastV6Membership> {
    const group = numeric(address, AF_INET6).subarray(8, 24);
    const request = new Uint8Array([...group, ...integer(networkInterface)]); // `struct ipv6_mreq`
    await this.#setOption("joinMulticastV6", IPPROTO_IPV6, IPV6_ADD_MEMBERSHIP, request);
    return {
      leave: () => this.#setOption("leave", IPPROTO_IPV6, IPV6_DROP_MEMBERSHIP, request),
      setLoopback: (loopback) => this.#setOption("setLoopback", IPPROTO_IPV6, IPV6_MULTICAST_LOOP, integer(+loopback)),
    };
  }

  /** By the ring, whose request can name memory; the helper's call only takes integers. */
  async #setOption(operation: string, level: number, name: number, value: Uint8Array): Promise<void> {
    const request = this.#descriptor.request(Op.URING_CMD, operation);
    request.words = new Uint32Array(SQE_WORDS);
    request.words.set([Op.URING_CMD, this.fd, SOCKET_URING_OP_SETSOCKOPT, 0, level, name]);
    request.words[OPTION_BYTES_WORD] = value.byteLength;
    request.operands = [{ word: OperandWord.Address3, bytes: value.byteLength, input: value }];
    await this.#descriptor.driver.start(request);
  }

  /** Closes the socket; what is in flight on it rejects with `Deno.errors.BadResource`. Twice is once. */
  close(): Promise<void> {
    return this.#descriptor.close();
  }

  /** Has operations in flight keep the process alive, as they do unless {@linkcode DatagramConn.unref} was called. */
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

  /** The same as {@linkcode DatagramConn.close}. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Begins to close the socket, and does not wait for it. */
  [Symbol.dispose](): void {
    this.close();
  }

  /** Receives one datagram after another; ends when the socket is closed. */
  async *[Symbol.asyncIterator](): AsyncIterableIterator<Datagram<Address>> {
    while (!this.#descriptor.closed) {
      let datagram: Datagram<Address>;
      try {
        datagram = await this.receive();
      } catch (error) {
        if (this.#descriptor.closed && error instanceof Deno.errors.BadResource) return;
        throw error;
      }
      yield datagram;
    }
  }
}

/** Membership of a multicast group of IPv4, in the shape of Deno's. */
export interface MulticastV4Membership {
  /** Leaves the group. */
  leave: () => Promise<void>;
  /** Says whether what this socket sends to a group comes back to this host. */
  setLoopback: (loopback: boolean) => Promise<void>;
  /** Says through how many routers what this socket sends to a group goes: 1 to 255. */
  setTTL: (ttl: number) => Promise<void>;
}

/** Membership of a multicast group of IPv6, in the shape of Deno's. */
export interface MulticastV6Membership {
  /** Leaves the group. */
  leave: () => Promise<void>;
  /** Says whether what this socket sends to a group comes back to this host. */
  setLoopback: (loopback: boolean) => Promise<void>;
}

function numeric(address: string, family: number): Uint8Array {
  const encoded = encodeAddress(address, 0);
  if (encoded !== null && familyOf(encoded) === family) return encoded;
  throw new TypeError(`Not an address of IPv${family === AF_INET ? 4 : 6}: ${JSON.stringify(address)}`);
}

function integer(value: number): Uint8Array {
  return new Uint8Array(new Int32Array([value]).buffer);
}

function tooLong(bytes: number, room: number): RangeError {
  return new RangeError(
    `A datagram of ${bytes} bytes is lost: there was room for ${room}. Give receive a longer buffer`,
  );
}

const unnamed: Deno.UnixAddr = { transport: "unixpacket", path: "" };

/** A message of one buffer, and from or to whom: `msghdr`, its `iovec`, the address, the bytes. */
function messageOperands(message: Uint8Array<ArrayBuffer>, name: Operand | null, data: Operand): Operand[] {
  const view = new DataView(message.buffer);
  view.setUint32(MessageField.nameBytes, name?.bytes ?? 0, true);
  view.setUint32(MessageField.iovecCount, 1, true);
  const iovec = new Uint8Array(IOVEC_BYTES);
  new DataView(iovec.buffer).setUint32(8, data.bytes, true);
  const pointers: [number, number][] = [[MessageField.iovec, 1]];
  if (name !== null) pointers.push([MessageField.name, 2]);
  return [
    { word: OperandWord.Address, bytes: MESSAGE_BYTES, input: message, output: message, pointers },
    { bytes: IOVEC_BYTES, input: iovec, pointers: [[0, name === null ? 2 : 3]] },
    ...(name === null ? [] : [name]),
    data,
  ];
}

function subjectOf(addr: DatagramAddr): Subject {
  return "path" in addr ? { path: addr.path } : { address: showAddress(addr.hostname, addr.port) };
}

/** Options of {@linkcode listenDatagram} for UDP: those of `Deno.listenDatagram`, and the socket's. */
export interface UdpListenOptions extends BufferSizeOptions {
  /** UDP. */
  transport: "udp";
  /** A numeric address, or a name for the system's resolver. Default: "0.0.0.0", every IPv4 address. */
  hostname?: string;
  /** 0 to 65535. Default: 0, which lets the kernel choose. */
  port?: number;
  /** Lets others that say so too have the same address; the last one gets what comes. Default: `false`. */
  reuseAddress?: boolean;
  /** Lets several sockets share the port; the kernel spreads senders over them. Default: `false`. */
  reusePort?: boolean;
  /** Whether what is sent to a multicast group comes back to this host. Default: `false`, as Deno's. */
  loopback?: boolean;
  /** The ring of the socket's operations. Default: the default ring. */
  ring?: Ring;
}

/** Options of {@linkcode listenDatagram} for Unix sockets. */
export interface UnixListenDatagramOptions extends BufferSizeOptions {
  /** Datagrams between Unix sockets (`SOCK_DGRAM`), by Deno's name for them. */
  transport: "unixpacket";
  /**
   * Where the socket is made; closing removes it. What is there already is an address in use, also a socket that a
   * process left which did not close it: remove it first. Or, beginning with NUL, a name in the abstract namespace (`unix(7)`), which is gone with the socket.
   */
  path: string;
  /** The ring of the socket's operations. Default: the default ring. */
  ring?: Ring;
}

/**
 * Makes a socket that receives datagrams, and can send some. Other than `Deno.listenDatagram` it returns a promise,
 * because a name may have to be resolved.
 *
 * @param options Where; and `reuseAddress`, `reusePort`, `loopback`, `ring`.
 * @returns The socket; close it, or hold it with `await using`.
 * @throws {Deno.errors.AddrInUse} And the other classes of `Deno.errors`, with `code`, `errno`, `operation` and
 * `address` or `path`.
 * @throws {Deno.errors.NotCapable} Without `--allow-net`; for Unix also without `--allow-read` and `--allow-write` of the path.
 *
 * @example
 * ```ts
 * import { listenDatagram } from "@ringscope/ringscope";
 *
 * await using here = await listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
 * await using there = await listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
 * await there.send(new TextEncoder().encode("hello"), here.addr);
 * const [data, from] = await here.receive(undefined, { timeout: 1000 });
 * console.log(new TextDecoder().decode(data), from.port === there.addr.port); // "hello", true
 * ```
 */
export function listenDatagram(options: UdpListenOptions): Promise<DatagramConn>;
/** Makes a Unix socket that receives datagrams. */
export function listenDatagram(options: UnixListenDatagramOptions): Promise<DatagramConn<Deno.UnixAddr>>;
export async function listenDatagram(
  options: UdpListenOptions | UnixListenDatagramOptions,
): Promise<DatagramConn | DatagramConn<Deno.UnixAddr>> {
  checkSocketOptions(options);
  if (options.transport === "udp") options = { ...options, port: options.port ?? 0 };
  const hostname = options.transport === "udp" ? options.hostname ?? "0.0.0.0" : "";
  const subject = subjectOfOptions(options, hostname);
  const address = await addressFor(options, hostname, subject, "listenDatagram");
  const driver = driverOf(options.ring);
  driver.admit(undefined);
  const { native } = driver;
  const descriptor = openSocket(driver, address, options, "listenDatagram", subject);
  try {
    const bound = native.rs_bind(descriptor.fd, address, address.byteLength);
    if (bound < 0) throw systemError(bound, "listenDatagram", subject);
    if (subject.path !== undefined) descriptor.onClose = fileRemover(subject.path);
    const conn = new DatagramConn<Deno.NetAddr>(descriptor, familyOf(address), null);
    descriptor.subject = subjectOf(conn.addr);
    return born(conn);
  } catch (error) {
    native.rs_close(descriptor.fd);
    throw error;
  }
}

/** Options of {@linkcode connectDatagram} for UDP. */
export interface UdpConnectOptions extends OperationOptions, BufferSizeOptions {
  /** UDP, the default. */
  transport?: "udp";
  /** A numeric address, or a name for the system's resolver. Default: "127.0.0.1". */
  hostname?: string;
  /** 0 to 65535. */
  port: number;
  /** The ring of the socket's operations. Default: the default ring. */
  ring?: Ring;
}

/** Options of {@linkcode connectDatagram} for Unix sockets. */
export interface UnixConnectDatagramOptions extends OperationOptions, BufferSizeOptions {
  /** Datagrams between Unix sockets. */
  transport: "unixpacket";
  /** The path of the receiver's socket; or, beginning with NUL, its name in the abstract namespace. */
  path: string;
  /** The ring of the socket's operations. Default: the default ring. */
  ring?: Ring;
}

/**
 * Makes a socket that sends datagrams to one address, and receives from that one alone. That nobody is there is
 * reported by a later operation, as `Deno.errors.ConnectionRefused`. (One for Unix has no name of its own, to which
 * something could be sent back.)
 *
 * @param options Where to; and `signal`, `timeout`, `ring`.
 * @returns The socket; close it, or hold it with `await using`.
 * @throws {Deno.errors.NotCapable} Without `--allow-net`; for Unix also without `--allow-read` and `--allow-write` of the path.
 *
 * @example
 * ```ts
 * import { connectDatagram, listenDatagram } from "@ringscope/ringscope";
 *
 * await using server = await listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
 * await using client = await connectDatagram({ port: server.addr.port });
 * await client.send(new TextEncoder().encode("ping"));
 * const [ping, from] = await server.receive();
 * await server.send(ping, from);
 * await client.receive(); // [data, the server's address]
 * ```
 */
export function connectDatagram(options: UdpConnectOptions): Promise<DatagramConn>;
/** Makes a Unix socket that sends datagrams to one other. */
export function connectDatagram(options: UnixConnectDatagramOptions): Promise<DatagramConn<Deno.UnixAddr>>;
export async function connectDatagram(
  options: UdpConnectOptions | UnixConnectDatagramOptions,
): Promise<DatagramConn | DatagramConn<Deno.UnixAddr>> {
  checkSocketOptions(options);
  const hostname = options.transport === "unixpacket" ? "" : options.hostname ?? "127.0.0.1";
  const subject = subjectOfOptions(options, hostname);
  const address = await addressFor(options, hostname, subject, "connectDatagram");
  const driver = driverOf(options.ring);
  driver.admit(options);
  const descriptor = openSocket(driver, address, options, "connectDatagram", subject);
  try {
    const request = descriptor.request(Op.CONNECT, "connectDatagram");
    request.operands = [{ word: OperandWord.Address, bytes: address.byteLength, input: address }];
    request.offset = address.byteLength;
    request.pollable = true;
    await driver.start(request, options);
  } catch (error) {
    await descriptor.close();
    throw error;
  }
  const remoteAddr = decodeSocketAddress(address, "datagram") as Deno.NetAddr;
  return born(new DatagramConn(descriptor, familyOf(address), remoteAddr));
}

type AnyOptions = UdpListenOptions | UnixListenDatagramOptions | UdpConnectOptions | UnixConnectDatagramOptions;

function subjectOfOptions(options: AnyOptions, hostname: string): Subject {
  if (options.transport === "unixpacket") return { path: options.path };
  if (options.transport !== undefined && options.transport !== "udp") {
    throw new TypeError(`transport must be "udp" or "unixpacket", not ${JSON.stringify(options.transport)}`);
  }
  return { address: showAddress(hostname, checkPort(options.port!)) };
}

/** The address of the options, which the program may use. */
async function addressFor(
  options: AnyOptions,
  hostname: string,
  subject: Subject,
  operation: string,
): Promise<Uint8Array<ArrayBuffer>> {
  if (options.transport === "unixpacket") {
    const address = encodeUnixAddress(options.path);
    requireUnix(options.path);
    return address;
  }
  requireNet(subject.address!);
  const [address] = await resolve(hostname, options.port!, operation);
  return address;
}

function openSocket(
  driver: Driver,
  address: Uint8Array,
  options: AnyOptions,
  operation: string,
  subject: Subject,
): Descriptor {
  const { native } = driver;
  const family = familyOf(address);
  const fd = native.rs_socket(family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
  if (fd < 0) throw systemError(fd, operation, subject);
  const set = (level: number, name: number, value: number) => {
    const result = native.rs_set_socket_option(fd, level, name, value);
    if (result < 0) throw systemError(result, operation, subject);
  };
  try {
    const { reuseAddress, loopback } = options as UdpListenOptions;
    if (reuseAddress) set(SOL_SOCKET, SO_REUSEADDR, 1);
    if (family === AF_INET6) set(IPPROTO_IPV6, IPV6_MULTICAST_LOOP, loopback ? 1 : 0);
    else if (family !== AF_UNIX) set(IPPROTO_IP, IP_MULTICAST_LOOP, loopback ? 1 : 0);
    setSocketOptions(native, fd, options, operation, subject);
    return new Descriptor(fd, "socket", options.ring, socketTraits, subject);
  } catch (error) {
    native.rs_close(fd);
    throw error;
  }
}
