/**
 * Where sockets are and go: names resolved, ports checked, the kernel asked.
 *
 * @module
 */
import type { Driver } from "../ring/driver.ts";
import { systemError } from "../ring/errors.ts";
import { decodeSocketAddress, encodeAddress, isAbstract, showAddress } from "./address.ts";

/** The size of `struct sockaddr_storage`. */
export const ADDRESS_BYTES = 128;

/** The address that a socket is bound to. */
export function localAddress(
  driver: Driver,
  fd: number,
  kind: "stream" | "datagram" = "stream",
): Deno.NetAddr | Deno.UnixAddr {
  const bytes = new Uint8Array(ADDRESS_BYTES);
  const length = driver.native.rs_socket_name(fd, 0, bytes, bytes.byteLength);
  if (length < 0) throw systemError(length, "getsockname");
  return decodeSocketAddress(bytes.subarray(0, length), kind);
}

/** Throws unless it is a port. */
export function checkPort(port: number): number {
  if (!Number.isInteger(port) || port < 0 || port > 65535) {
    throw new RangeError(`port must be an integer from 0 to 65535, not ${JSON.stringify(port)}`);
  }
  return port;
}

/** The addresses of a host: the one it is, if it is numeric, else those that the system's resolver knows. */
export async function resolve(hostname: string, port: number, operation: string): Promise<Uint8Array<ArrayBuffer>[]> {
  const numeric = encodeAddress(hostname, port);
  if (numeric !== null) return [numeric];
  if (hostname === "") throw new TypeError("hostname is empty"); // of which the resolver knows no address, and no error
  const { lookup } = await import("node:dns/promises");
  const found = await lookup(hostname, { all: true }).catch((error) => {
    throw Object.assign(error, { operation, address: showAddress(hostname, port) });
  });
  return found.map(({ address }) => encodeAddress(address, port)!);
}

/**
 * What removes the file that a Unix socket has just made at that path, if it is there still: somebody may have removed it
 * and put another one there. It must be called before the socket is closed, which keeps the file's number taken.
 */
export function fileRemover(path: string): () => void {
  if (isAbstract(path)) return () => {};
  const idOf = () => {
    const { dev, ino } = Deno.lstatSync(path);
    return `${dev}:${ino}`;
  };
  const made = idOf();
  return () => {
    try {
      if (idOf() === made) Deno.removeSync(path);
    } catch {
      // It is gone, or is not the program's to remove any more. The socket is closed all the same.
    }
  };
}
