/**
 * Readiness: waiting until a descriptor can be read or written, without reading or writing.
 *
 * @module
 */
import { Multishot } from "../ring/multishot.ts";
import type { OperationOptions, Request } from "../ring/request.ts";
import { driverOf, type Ring } from "../ring/ring.ts";
import { Op } from "../ring/uring_abi.ts";
import type { Descriptor } from "./descriptor.ts";
import { descriptorOfFile, File } from "./file.ts";
import { descriptorOfPipeEnd, PipeReader, PipeWriter } from "./pipe.ts";
import { Conn, descriptorOfConn } from "./tcp.ts";

/** What can be asked of a descriptor, in the terms of `poll(2)` without `POLL`. */
export type PollInterest = "in" | "out" | "pri" | "rdhup";
/** What a descriptor can say: what was asked, and three things that need not be asked for. */
export type PollEvent = PollInterest | "err" | "hup" | "nval";
/** What can be polled; a number is that of any descriptor, which must stay open meanwhile. */
export type PollSource = File | Conn<Deno.Addr> | PipeReader | PipeWriter | number;

/** Options of {@linkcode poll}. */
export interface PollOptions extends OperationOptions {
  /** The ring that waits. Default: that of the file or connection; for a number, the default ring. */
  ring?: Ring;
}

const eventBits: readonly (readonly [PollEvent, number])[] = [
  ["in", 1],
  ["pri", 2],
  ["out", 4],
  ["err", 8],
  ["hup", 0x10],
  ["nval", 0x20],
  ["rdhup", 0x2000],
];
const interests: readonly string[] = ["in", "out", "pri", "rdhup"] satisfies PollInterest[];
const POLLIN = 1;
const IORING_POLL_ADD_MULTI = 1;

/**
 * Waits until a descriptor is ready (`IORING_OP_POLL_ADD`). A regular file always is.
 *
 * @param source A file, a connection, the end of a pipe, or the number of a descriptor.
 * @param events What to wait for: `"in"` (bytes, a connection, or the end), `"out"` (room), `"pri"`, `"rdhup"`.
 * @param options `signal`, `timeout`, and the ring.
 * @returns What it is ready for: of what was asked, and `"hup"` and `"err"` besides.
 * @throws {Deno.errors.BadResource} If it is closed, before or meanwhile. (A number's close is not noticed.)
 *
 * @example
 * ```ts
 * import { poll, socketpair } from "@ringscope/ringscope";
 *
 * const [left, right] = socketpair();
 * await right.writeAll(new Uint8Array(1));
 * const events = await poll(left, ["in", "rdhup"]);
 * console.log(events.has("in"), events.has("rdhup")); // true false
 * await left.close();
 * await right.close();
 * ```
 */
export async function poll(
  source: PollSource,
  events: Iterable<PollInterest>,
  options: PollOptions = {},
): Promise<ReadonlySet<PollEvent>> {
  const mask = maskOf(events);
  const descriptor = descriptorOf(source);
  if (descriptor !== null && (mask & POLLIN) !== 0 && descriptor.holdsUnread) {
    descriptor.admit("poll", options);
    return new Set<PollEvent>(["in"]);
  }
  const driver = descriptor?.driver ?? driverOf(options.ring);
  const request = pollRequest(source, mask, options.ring);
  request.decode = ({ result }) => eventsOf(result);
  return await driver.start<ReadonlySet<PollEvent>>(request, options);
}

/**
 * Readiness again and again, by one multishot request: a value for each time that something has come about, such as
 * further bytes. It tells of news, not of a state: what was ready before and has not been consumed is not told again.
 *
 * @param source As for {@linkcode poll}.
 * @param events As for {@linkcode poll}.
 * @param options A `signal`, with whose reason `next` then rejects; and the ring.
 * @returns An iterator; it belongs to the scope it is made in. Leaving the loop ends the request.
 *
 * @example
 * ```ts
 * import { pipe, pollEvents } from "@ringscope/ringscope";
 *
 * const { reader, writer } = pipe();
 * await writer.writeAll(new Uint8Array(3));
 * for await (const events of pollEvents(reader, ["in"])) {
 *   console.log([...events]); // ["in"]
 *   break;
 * }
 * await reader.close();
 * await writer.close();
 * ```
 */
export function pollEvents(
  source: PollSource,
  events: Iterable<PollInterest>,
  options: Omit<PollOptions, "timeout"> = {},
): AsyncIterableIterator<ReadonlySet<PollEvent>> {
  const mask = maskOf(events);
  const driver = descriptorOf(source)?.driver ?? driverOf(options.ring);
  return new Multishot<ReadonlySet<PollEvent>>(driver, {
    request: () => {
      const request = pollRequest(source, mask, options.ring);
      request.length = IORING_POLL_ADD_MULTI;
      return request;
    },
    decode: eventsOf,
    discard: () => {},
  }, options.signal);
}

function pollRequest(source: PollSource, mask: number, ring: Ring | undefined): Request {
  const descriptor = descriptorOf(source);
  const request = descriptor?.request(Op.POLL_ADD, "poll") ?? driverOf(ring).request(Op.POLL_ADD, "poll");
  if (typeof source === "number") request.fd = source;
  request.opFlags = mask;
  request.pollable = true;
  return request;
}

function descriptorOf(source: PollSource): Descriptor | null {
  if (source instanceof File) return descriptorOfFile(source);
  if (source instanceof Conn) return descriptorOfConn(source);
  if (source instanceof PipeReader || source instanceof PipeWriter) return descriptorOfPipeEnd(source);
  if (Number.isInteger(source) && source >= 0) return null;
  throw new TypeError("poll takes a File, a Conn, the end of a pipe, or the number of a descriptor");
}

function maskOf(events: Iterable<PollInterest>): number {
  let mask = 0;
  for (const event of events) {
    if (!interests.includes(event)) throw new TypeError(`poll knows no event named ${JSON.stringify(event)}`);
    mask |= eventBits.find(([name]) => name === event)![1];
  }
  if (mask === 0) throw new TypeError("poll needs at least one event to wait for");
  return mask;
}

function eventsOf(mask: number): ReadonlySet<PollEvent> {
  return new Set(eventBits.filter(([, bit]) => (mask & bit) !== 0).map(([name]) => name));
}
