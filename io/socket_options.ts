/**
 * Options of sockets (`socket(7)`, `tcp(7)`): those that `connect`, `listen` and the like take, and the setters.
 *
 * @module
 */
import type { Native } from "../ffi/load.ts";
import { type Subject, systemError } from "../ring/errors.ts";
import type { Descriptor } from "./descriptor.ts";

const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVBUF = 8;
const SO_KEEPALIVE = 9;
const SO_REUSEPORT = 15;
const IPPROTO_TCP = 6;
const TCP_NODELAY = 1;
const TCP_KEEPIDLE = 4;
const TCP_KEEPINTVL = 5;
const TCP_KEEPCNT = 6;
/** What the kernel holds of these in its own fields. */
const MOST_KEEPALIVE_SECONDS = 32767;
const MOST_KEEPALIVE_PROBES = 127;

/** Sizes of a socket's buffers. The kernel doubles them for its own needs, and has limits (`net.core.rmem_max`). */
export interface BufferSizeOptions {
  /** Bytes that wait to be read, at the most (`SO_RCVBUF`). Default: the kernel's, which grows with the need. */
  receiveBufferSize?: number;
  /** Bytes that wait to be sent, at the most (`SO_SNDBUF`). Default: the kernel's, which grows with the need. */
  sendBufferSize?: number;
}

/** When the other end of an idle connection is probed, and when it is given up. */
export interface KeepAliveOptions {
  /** Seconds without a byte before the first probe, 1 to 32767 (`TCP_KEEPIDLE`). Default: the system's, mostly 7200. */
  idleSeconds?: number;
  /** Seconds between probes, 1 to 32767 (`TCP_KEEPINTVL`). Default: the system's, mostly 75. */
  intervalSeconds?: number;
  /** Unanswered probes until the connection is given up, 1 to 127 (`TCP_KEEPCNT`). Default: the system's, mostly 9. */
  count?: number;
}

/** Options of TCP sockets. */
export interface TcpOptions extends BufferSizeOptions {
  /** Whether small writes are sent at once (`TCP_NODELAY`). Default: `false`, the kernel's. */
  noDelay?: boolean;
  /** Whether an idle connection is probed (`SO_KEEPALIVE`), and how. Default: `false`. */
  keepAlive?: boolean | KeepAliveOptions;
}

/** All that {@linkcode setSocketOptions} knows. */
export interface SocketOptions extends TcpOptions {
  reusePort?: boolean;
}

/** Throws unless the options make sense; before there is a socket. */
export function checkSocketOptions(options: SocketOptions & { backlog?: number }): void {
  if (typeof options !== "object" || options === null) {
    throw new TypeError("The options must be an object that says where: { hostname, port } or { transport, path }");
  }
  checkInteger("backlog", options.backlog, 0, 2 ** 31 - 1);
  checkInteger("receiveBufferSize", options.receiveBufferSize, 1, 2 ** 30);
  checkInteger("sendBufferSize", options.sendBufferSize, 1, 2 ** 30);
  checkKeepAlive(options.keepAlive);
}

function checkKeepAlive(keepAlive: boolean | KeepAliveOptions | undefined): void {
  if (typeof keepAlive !== "object") return;
  checkInteger("idleSeconds", keepAlive.idleSeconds, 1, MOST_KEEPALIVE_SECONDS);
  checkInteger("intervalSeconds", keepAlive.intervalSeconds, 1, MOST_KEEPALIVE_SECONDS);
  checkInteger("count", keepAlive.count, 1, MOST_KEEPALIVE_PROBES);
}

function checkInteger(name: string, value: number | undefined, least: number, most: number): void {
  if (value === undefined || (Number.isInteger(value) && value >= least && value <= most)) return;
  throw new RangeError(`${name} must be an integer from ${least} to ${most}, not ${value}`);
}

type Setting = readonly [level: number, name: number, value: number];

/** Sets those options that are given, on a socket that is not yet bound or connected. */
export function setSocketOptions(
  native: Native,
  fd: number,
  options: SocketOptions,
  operation: string,
  subject?: Subject,
): void {
  const { noDelay, keepAlive, reusePort, receiveBufferSize, sendBufferSize } = options;
  const settings: Setting[] = keepAlive ? keepAliveSettings(keepAlive) : [];
  if (noDelay) settings.push([IPPROTO_TCP, TCP_NODELAY, 1]);
  if (reusePort) settings.push([SOL_SOCKET, SO_REUSEPORT, 1]);
  if (receiveBufferSize !== undefined) settings.push([SOL_SOCKET, SO_RCVBUF, receiveBufferSize]);
  if (sendBufferSize !== undefined) settings.push([SOL_SOCKET, SO_SNDBUF, sendBufferSize]);
  apply(native, fd, settings, operation, subject);
}

/** `Conn.setNoDelay`. */
export function setNoDelay(descriptor: Descriptor, noDelay: boolean): void {
  setOn(descriptor, "setNoDelay", [[IPPROTO_TCP, TCP_NODELAY, noDelay ? 1 : 0]]);
}

/** `Conn.setKeepAlive`. */
export function setKeepAlive(descriptor: Descriptor, keepAlive: boolean | KeepAliveOptions): void {
  checkKeepAlive(keepAlive);
  setOn(descriptor, "setKeepAlive", keepAliveSettings(keepAlive));
}

function keepAliveSettings(keepAlive: boolean | KeepAliveOptions): Setting[] {
  const settings: Setting[] = [[SOL_SOCKET, SO_KEEPALIVE, keepAlive ? 1 : 0]];
  if (typeof keepAlive !== "object") return settings;
  const { idleSeconds, intervalSeconds, count } = keepAlive;
  if (idleSeconds !== undefined) settings.push([IPPROTO_TCP, TCP_KEEPIDLE, idleSeconds]);
  if (intervalSeconds !== undefined) settings.push([IPPROTO_TCP, TCP_KEEPINTVL, intervalSeconds]);
  if (count !== undefined) settings.push([IPPROTO_TCP, TCP_KEEPCNT, count]);
  return settings;
}

function setOn(descriptor: Descriptor, operation: string, settings: Setting[]): void {
  if (descriptor.closed) throw new Deno.errors.BadResource(`The ${descriptor.kind} is closed: ${operation}`);
  apply(descriptor.driver.native, descriptor.fd, settings, operation, descriptor.subject);
}

function apply(native: Native, fd: number, settings: Setting[], operation: string, subject?: Subject): void {
  for (const [level, name, value] of settings) {
    const result = native.rs_set_socket_option(fd, level, name, value);
    if (result < 0) throw systemError(result, operation, subject);
  }
}
