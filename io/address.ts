/**
 * Socket addresses: between what people write and the kernel's `struct sockaddr`.
 *
 * @module
 */

export const AF_UNIX = 1;
export const AF_INET = 2;
export const AF_INET6 = 10;

/** The four bytes of an IPv4 address, or `null` if it is not one. */
function parseIpv4(text: string): number[] | null {
  const match = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/.exec(text);
  if (match === null) return null;
  const bytes = match.slice(1).map(Number);
  return bytes.every((byte) => byte <= 255) ? bytes : null;
}

/** The eight groups of an IPv6 address (RFC 4291, 2.2), or `null` if it is not one. */
function parseIpv6(text: string): number[] | null {
  let source = text;
  const lastColon = source.lastIndexOf(":");
  const ipv4 = parseIpv4(source.slice(lastColon + 1));
  if (ipv4 !== null) {
    const groups = [ipv4[0] << 8 | ipv4[1], ipv4[2] << 8 | ipv4[3]];
    source = source.slice(0, lastColon + 1) + groups.map((group) => group.toString(16)).join(":");
  }
  const halves = source.split("::");
  if (halves.length > 2) return null;
  const [head, tail] = halves.map((half) => half === "" ? [] : half.split(":"));
  const given = [...head, ...(tail ?? [])];
  if (!given.every((group) => /^[0-9a-f]{1,4}$/i.test(group))) return null;
  const missing = 8 - given.length;
  if (tail === undefined ? missing !== 0 : missing < 1) return null;
  const zeros = new Array<string>(missing).fill("0");
  return [...head, ...zeros, ...(tail ?? [])].map((group) => parseInt(group, 16));
}

/** A host as people call it: an IPv6 address in brackets, as in URLs, is the one within. */
function withoutBrackets(hostname: string): string {
  return /^\[(.*:.*)\]$/.exec(hostname)?.[1] ?? hostname;
}

/** The `sockaddr` of a numeric address, `null` if it is not one. An IPv6 address may end in `%` and a scope's number. */
export function encodeAddress(hostname: string, port: number): Uint8Array<ArrayBuffer> | null {
  const ipv4 = parseIpv4(hostname);
  if (ipv4 !== null) {
    const bytes = new Uint8Array(16);
    const view = new DataView(bytes.buffer);
    view.setUint16(0, AF_INET, true);
    view.setUint16(2, port);
    bytes.set(ipv4, 4);
    return bytes;
  }
  const [text, zone] = withoutBrackets(hostname).split("%");
  const ipv6 = parseIpv6(text);
  if (ipv6 === null || (zone !== undefined && !/^\d+$/.test(zone))) return null;
  const bytes = new Uint8Array(28);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, AF_INET6, true);
  view.setUint16(2, port);
  ipv6.forEach((group, i) => view.setUint16(8 + 2 * i, group));
  view.setUint32(24, Number(zone ?? 0), true);
  return bytes;
}

/** The family of an encoded address. */
export function familyOf(address: Uint8Array): number {
  return address[0] | address[1] << 8;
}

/** What a `sockaddr` of TCP or UDP says, as Deno puts it. */
export function decodeAddress(bytes: Uint8Array, transport: "tcp" | "udp" = "tcp"): Deno.NetAddr {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const port = bytes.byteLength < 4 ? 0 : view.getUint16(2);
  const hostname = familyOf(bytes) === AF_INET6 ? formatIpv6(view) : bytes.subarray(4, 8).join(".");
  return { transport, hostname, port };
}

/** The bytes of `sun_path`. */
const UNIX_PATH_BYTES = 108;

/**
 * The `sockaddr_un` of a path, or of a name in the abstract namespace (`unix(7)`), which begins with NUL. Its length
 * belongs to it: an abstract name ends where the address does.
 */
export function encodeUnixAddress(path: string): Uint8Array<ArrayBuffer> {
  if (typeof path !== "string" || path === "") {
    throw new TypeError("The path of a Unix socket must be a string, not empty");
  }
  const name = new TextEncoder().encode(path);
  const abstract = isAbstract(path);
  if (!abstract && name.includes(0)) {
    throw new TypeError("The path of a Unix socket can contain NUL only at its beginning");
  }
  const terminator = abstract ? 0 : 1;
  if (name.byteLength + terminator > UNIX_PATH_BYTES) {
    throw new RangeError(
      `The path of a Unix socket can have ${UNIX_PATH_BYTES - terminator} bytes, and this has ${name.byteLength}: ` +
        `'${path}'. Take a shorter one, or one relative to the working directory.`,
    );
  }
  const bytes = new Uint8Array(2 + name.byteLength + terminator);
  new DataView(bytes.buffer).setUint16(0, AF_UNIX, true);
  bytes.set(name, 2);
  return bytes;
}

/** What a `sockaddr_un` of exactly these bytes says; the path of a socket without a name is empty. */
export function decodeUnixAddress(bytes: Uint8Array, transport: "unix" | "unixpacket" = "unix"): Deno.UnixAddr {
  const name = bytes.subarray(2);
  const end = name[0] === 0 ? -1 : name.indexOf(0);
  return { transport, path: new TextDecoder().decode(end < 0 ? name : name.subarray(0, end)) };
}

/** What the `sockaddr`, of exactly these bytes, of a stream's or a datagram socket says. */
export function decodeSocketAddress(
  bytes: Uint8Array,
  kind: "stream" | "datagram" = "stream",
): Deno.NetAddr | Deno.UnixAddr {
  const stream = kind === "stream";
  if (familyOf(bytes) === AF_UNIX) return decodeUnixAddress(bytes, stream ? "unix" : "unixpacket");
  return decodeAddress(bytes, stream ? "tcp" : "udp");
}

/** Whether it is a name in the abstract namespace, which has nothing to do with files. */
export function isAbstract(path: string): boolean {
  return path.startsWith("\0");
}

/** RFC 5952: lower case, no leading zeros, the longest run of two zero groups or more as `::`. */
function formatIpv6(view: DataView): string {
  const groups = Array.from({ length: 8 }, (_, i) => view.getUint16(8 + 2 * i));
  const scope = view.getUint32(24, true);
  const zone = scope === 0 ? "" : `%${scope}`;
  const mapped = groups.slice(0, 5).every((group) => group === 0) && groups[5] === 0xffff;
  if (mapped) {
    const ipv4 = [groups[6] >> 8, groups[6] & 255, groups[7] >> 8, groups[7] & 255];
    return `::ffff:${ipv4.join(".")}${zone}`;
  }
  let start = 0;
  let length = 1;
  for (let i = 0; i < 8; i++) {
    let end = i;
    while (end < 8 && groups[end] === 0) end++;
    if (end - i > length) [start, length] = [i, end - i];
  }
  const hex = groups.map((group) => group.toString(16));
  if (length === 1) return hex.join(":") + zone;
  return `${hex.slice(0, start).join(":")}::${hex.slice(start + length).join(":")}${zone}`;
}

/** An address in messages and permissions: `127.0.0.1:80`, `[::1]:80`. */
export function showAddress(hostname: string, port: number): string {
  if (typeof hostname !== "string") throw new TypeError(`hostname must be a string, not ${typeof hostname}`);
  return hostname.includes(":") ? `[${withoutBrackets(hostname)}]:${port}` : `${hostname}:${port}`;
}
