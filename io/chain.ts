/**
 * Chains: calls that the kernel runs one after another without coming back in between. Each call is one linked SQE,
 * and all go in one submission.
 *
 * @module
 */
import type { Block } from "../ring/arena.ts";
import { DIRECT_DESCRIPTORS } from "../ring/direct_descriptors.ts";
import { type Driver, milliseconds, skipped } from "../ring/driver.ts";
import { systemError } from "../ring/errors.ts";
import { Cause, type OperationOptions, type Request } from "../ring/request.ts";
import { driverOf, type Ring } from "../ring/ring.ts";
import { AT_FDCWD, CURRENT_POSITION, MAX_TRANSFER_BYTES, Op, Sqe } from "../ring/uring_abi.ts";
import { timeout } from "../scope/timeout.ts";
import { Descriptor } from "./descriptor.ts";
import { creationMode, describeOpen, descriptorOfFile, File, openFlags, requireOpen } from "./file.ts";
import { toPath } from "./path.ts";
import { descriptorOfPipeEnd, PipeReader, PipeWriter } from "./pipe.ts";
import { Conn, descriptorOfConn } from "./tcp.ts";

/** What a chain can read from, besides the file it has opened itself. */
export type ChainSource = File | Conn<Deno.Addr> | PipeReader;
/** What a chain can write to, besides the file it has opened itself. */
export type ChainTarget = File | Conn<Deno.Addr> | PipeWriter;

/** Options of {@linkcode chain}; `timeout` is for the whole chain. */
export interface ChainOptions extends OperationOptions {
  /** The ring it runs on. Default: that of the first file or connection in it, else the default ring. */
  ring?: Ring;
}

/** Options of a chain's reads and writes. */
export interface ChainTransferOptions {
  /** Bytes from the start of the file. Default: the file's own position, which moves on. */
  position?: number;
}

/** What became of one link of a chain. */
export type LinkOutcome =
  | { readonly operation: string; readonly status: "fulfilled"; readonly value: unknown }
  | { readonly operation: string; readonly status: "failed"; readonly error: unknown }
  | { readonly operation: string; readonly status: "skipped" };

/**
 * A chain that did not run to its end. `links` says of every link what became of it; `cause` is the first failed
 * link's error, and absent where a short read ended the chain.
 *
 * @example
 * ```ts
 * import { chain, ChainError } from "@ringscope/ringscope";
 *
 * try {
 *   await chain().open("/nonexistent").read(new Uint8Array(10)).close();
 * } catch (error) {
 *   if (!(error instanceof ChainError)) throw error;
 *   console.log(error.links.map((link) => link.status)); // ["failed", "skipped", "skipped"]
 * }
 * ```
 */
export class ChainError extends Error {
  /** The class's name. */
  override readonly name = "ChainError";
  /** One for each link, in the order of the calls. */
  readonly links: readonly LinkOutcome[];

  /** Made by the library; programs only catch it. */
  constructor(message: string, links: readonly LinkOutcome[], options?: ErrorOptions) {
    super(message, options);
    this.links = links;
  }
}

/** A link as it was asked for: it becomes a request when the chain runs. */
interface Link {
  readonly operation: string;
  readonly opcode: number;
  /** Where it works: an open descriptor, or the number of an `open` in this chain, or nothing. */
  readonly on: Descriptor | number | null;
  readonly buffer?: Uint8Array;
  readonly position?: number;
  readonly path?: string;
  readonly flags?: number;
  readonly mode?: number;
  readonly durationMs?: number;
  timeoutMs: number;
  hard: boolean;
}

const MSG_WAITALL = 0x100;
const MSG_NOSIGNAL = 0x4000;
const IORING_TIMEOUT_ETIME_SUCCESS = 1 << 5;

/**
 * Begins a chain. It runs when it is awaited, once.
 *
 * @param options `signal`, a `timeout` in milliseconds for the whole chain, and the ring.
 *
 * @example Open, read and close, in one submission
 * ```ts
 * import { chain } from "@ringscope/ringscope";
 *
 * const buffer = new Uint8Array(4);
 * const [, n] = await chain().open("/proc/self/exe").read(buffer).close();
 * console.log(n); // 4
 * ```
 */
export function chain(options: ChainOptions = {}): Chain<[]> {
  return new Chain<[]>(options);
}

/** Linked calls; see {@linkcode chain}. Its value is a tuple of its calls' results. */
export class Chain<Results extends readonly unknown[]> implements PromiseLike<Results> {
  readonly #options: ChainOptions;
  readonly #links: Link[] = [];
  #opens = 0;
  #promise: Promise<Results> | null = null;
  #outcomes: readonly LinkOutcome[] = [];

  /** @ignore Chains come from {@linkcode chain}. */
  constructor(options: ChainOptions) {
    this.#options = options;
  }

  /**
   * What became of each link, once the chain has settled. When an abort ended it (a chain rejects with the reason,
   * as every operation does) this tells what had been done by then.
   */
  get links(): readonly LinkOutcome[] {
    return this.#outcomes;
  }

  /**
   * Opens a file as a direct descriptor of the ring; the calls that follow and name nothing else work on it. It is
   * closed when the chain has settled, if not by {@linkcode Chain.close}.
   *
   * @param path A path, relative to the working directory, or a `file:` URL.
   * @param options As for `Deno.open`, by default `{ read: true }`.
   * @returns The chain; this call's result is the file's place in the ring's table.
   * @throws {Deno.errors.NotCapable} Without `--allow-read` or `--allow-write`, as the options need.
   */
  open(path: string | URL, options: Deno.OpenOptions = {}): Chain<[...Results, number]> {
    const name = toPath(path);
    const flags = openFlags(options);
    requireOpen(name, flags);
    if (this.#opens === DIRECT_DESCRIPTORS) {
      throw new RangeError(`A chain can't open more than ${DIRECT_DESCRIPTORS} files`);
    }
    const mode = creationMode(flags, options.mode);
    return this.#add({ operation: "open", opcode: Op.OPENAT2, on: this.#opens++, path: name, flags, mode });
  }

  /**
   * Reads `buffer` full from the file that the chain has opened. A short read is a success, but it ends the chain
   * unless it is the last link, or a hard one: what follows counts on a full buffer.
   *
   * @param buffer Where to; at most 1 MiB.
   * @returns The chain; this call's result is the number of bytes, or `null` at the end.
   */
  read(buffer: Uint8Array, options?: ChainTransferOptions): Chain<[...Results, number | null]>;
  /** Reads `buffer` full from something that is open already. */
  read(from: ChainSource, buffer: Uint8Array, options?: ChainTransferOptions): Chain<[...Results, number | null]>;
  read(
    ...call: [Uint8Array, ChainTransferOptions?] | [ChainSource, Uint8Array, ChainTransferOptions?]
  ): Chain<[...Results, number | null]> {
    return this.#transfer("read", call);
  }

  /**
   * Writes `buffer` to the file that the chain has opened: what is in it when the chain starts, or what an earlier
   * link has read into it by then.
   *
   * @param buffer What to write; at most 1 MiB.
   * @returns The chain; this call's result is the number of bytes.
   */
  write(buffer: Uint8Array, options?: ChainTransferOptions): Chain<[...Results, number]>;
  /** Writes `buffer` to something that is open already. */
  write(to: ChainTarget, buffer: Uint8Array, options?: ChainTransferOptions): Chain<[...Results, number]>;
  write(
    ...call: [Uint8Array, ChainTransferOptions?] | [ChainTarget, Uint8Array, ChainTransferOptions?]
  ): Chain<[...Results, number]> {
    return this.#transfer("write", call);
  }

  /** Brings what was written to the chain's file, or to `file`, to the disk (`fsync`). */
  sync(file?: File): Chain<[...Results, void]> {
    const on = file === undefined ? this.#opened("sync") : descriptorOfFile(file);
    return this.#add({ operation: "sync", opcode: Op.FSYNC, on });
  }

  /** Waits, before the next link starts. */
  sleep(ms: number): Chain<[...Results, void]> {
    const durationMs = milliseconds("ms", ms);
    if (durationMs < 0) throw new RangeError("ms must be finite: Infinity");
    return this.#add({ operation: "sleep", opcode: Op.TIMEOUT, on: null, durationMs });
  }

  /** Closes the file that the chain has opened last. */
  close(): Chain<[...Results, void]> {
    return this.#add({ operation: "close", opcode: Op.CLOSE, on: this.#opened("close") });
  }

  /**
   * Gives the call before it a deadline of its own, from when it starts. (A call that the kernel hands to a worker
   * thread, as some on regular files, counts from when the chain starts.)
   *
   * @param ms Milliseconds.
   */
  timeout(ms: number): this {
    this.#last("timeout").timeoutMs = milliseconds("ms", ms);
    return this;
  }

  /** Lets the chain go on after the call before it, whatever becomes of that (`IOSQE_IO_HARDLINK`). */
  hard(): this {
    this.#last("hard").hard = true;
    return this;
  }

  /** Runs the chain, once, and tells its results. */
  then<Fulfilled = Results, Rejected = never>(
    onFulfilled?: ((results: Results) => Fulfilled | PromiseLike<Fulfilled>) | null,
    onRejected?: ((reason: unknown) => Rejected | PromiseLike<Rejected>) | null,
  ): Promise<Fulfilled | Rejected> {
    return (this.#promise ??= this.#run()).then(onFulfilled, onRejected);
  }

  #transfer<Next extends readonly unknown[]>(
    operation: "read" | "write",
    call:
      | [Uint8Array, ChainTransferOptions?]
      | [ChainSource | ChainTarget, Uint8Array, ChainTransferOptions?],
  ): Chain<Next> {
    const named = !(call[0] instanceof Uint8Array);
    const on = named ? descriptorOf(call[0] as ChainSource, operation) : this.#opened(operation);
    const buffer = (named ? call[1] : call[0]) as Uint8Array;
    const { position } = ((named ? call[2] : call[1]) ?? {}) as ChainTransferOptions;
    if (!(buffer instanceof Uint8Array)) throw new TypeError("The buffer must be a Uint8Array");
    if (buffer.byteLength === 0 || buffer.byteLength > MAX_TRANSFER_BYTES) {
      throw new RangeError(`A chain's buffer must have 1 to ${MAX_TRANSFER_BYTES} bytes, not ${buffer.byteLength}`);
    }
    if (position !== undefined && !(Number.isSafeInteger(position) && position >= 0)) {
      throw new RangeError(`position must be a safe integer, 0 or more: ${position}`);
    }
    const socket = typeof on !== "number" && on.traits.socket;
    if (socket && position !== undefined) throw new TypeError("A connection has no positions");
    const opcode = operation === "read" ? (socket ? Op.RECV : Op.READ) : (socket ? Op.SEND : Op.WRITE);
    return this.#add({ operation, opcode, on, buffer, position });
  }

  #add<Next extends readonly unknown[]>(link: Omit<Link, "timeoutMs" | "hard">): Chain<Next> {
    if (this.#promise !== null) throw new TypeError("The chain has run: begin another with chain()");
    this.#links.push({ ...link, timeoutMs: -1, hard: false });
    return this as unknown as Chain<Next>;
  }

  #last(call: string): Link {
    const last = this.#links.at(-1);
    if (last === undefined) throw new TypeError(`${call} needs a call before it`);
    return last;
  }

  /** The number of the last `open`. */
  #opened(call: string): number {
    if (this.#opens === 0) throw new TypeError(`${call} needs a file: open one in the chain before, or name one`);
    return this.#opens - 1;
  }

  async #run(): Promise<Results> {
    const { timeout: ms, ...options } = this.#options;
    const results = await (ms === undefined ? this.#runLinks(options) : timeout(ms, () => this.#runLinks(options)));
    return results as unknown as Results;
  }

  async #runLinks(options: ChainOptions): Promise<unknown[]> {
    const driver = this.#driver();
    driver.admit(options);
    if (this.#links.length === 0) return [];
    for (const { on, operation } of this.#links) {
      if (operation === "read" && on instanceof Descriptor && on.holdsUnread) {
        throw new TypeError(
          "Bytes that an earlier read or iteration has left wait here: read them before the chain does",
        );
      }
    }
    const table = this.#opens === 0 ? null : driver.directDescriptors;
    const places = table === null ? [] : await table.take(this.#opens, options.signal);
    const blocks: Block[] = [];
    let requests: Request[] = [];
    let outcomes: LinkOutcome[] = [];
    try {
      requests = this.#links.map((link) => makeRequest(driver, link, places));
      lendSharedBlocks(driver, requests, blocks);
      const settled = await Promise.allSettled(driver.startLinked(requests, { signal: options.signal }));
      outcomes = settled.map((result, i) => outcomeOf(this.#links[i].operation, result));
    } finally {
      for (const block of blocks) driver.arena.give(block);
      await closeLeftOpen(driver, this.#links, outcomes, places);
      table?.give(places);
    }
    this.#outcomes = outcomes;
    const ended = outcomes.findIndex(({ status }) => status !== "fulfilled");
    if (ended < 0) return outcomes.map((outcome) => (outcome as { value: unknown }).value);
    const outcome = outcomes[ended];
    if (outcome.status === "failed" && requests[ended].cause === Cause.Cancelled) {
      // An abort asks every link to stop; those behind the one that was running never ran.
      this.#outcomes = outcomes.map((later, i) =>
        i > ended && later.status === "failed" && later.error === outcome.error
          ? { operation: later.operation, status: "skipped" }
          : later
      );
      throw outcome.error;
    }
    throw chainError(outcomes, ended);
  }

  /** The one ring that everything in the chain belongs to. */
  #driver(): Driver {
    const { ring } = this.#options;
    const drivers = this.#links.flatMap(({ on }) => on === null || typeof on === "number" ? [] : [on.driver]);
    const driver = ring === undefined ? drivers[0] ?? driverOf() : driverOf(ring);
    if (drivers.some((other) => other !== driver)) throw new TypeError("All of a chain must belong to one ring");
    return driver;
  }
}

function descriptorOf(from: ChainSource | ChainTarget, operation: "read" | "write"): Descriptor {
  if (from instanceof File) return descriptorOfFile(from);
  if (from instanceof Conn) return descriptorOfConn(from);
  const End = operation === "read" ? PipeReader : PipeWriter;
  if (from instanceof End) return descriptorOfPipeEnd(from);
  throw new TypeError(`A chain can't ${operation} this: it takes a File, a Conn or a ${End.name}`);
}

function makeRequest(driver: Driver, link: Link, places: readonly number[]): Request {
  const { opcode, operation, on } = link;
  let request: Request;
  if (on === null) {
    request = driver.request(opcode, operation);
    request.pollable = true;
  } else if (typeof on === "number") {
    request = driver.request(opcode, operation);
    if (opcode === Op.OPENAT2 || opcode === Op.CLOSE) {
      request.fileIndex = places[on] + 1;
      request.fd = opcode === Op.CLOSE ? 0 : AT_FDCWD;
      request.decode = opcode === Op.CLOSE ? nothing : () => places[on];
    } else {
      request.fd = places[on];
      request.sqeFlags = Sqe.FIXED_FILE;
    }
  } else {
    request = on.request(opcode, operation);
    request.pollable = on.traits.pollable;
  }
  if (link.path !== undefined) {
    describeOpen(request, link.path, link.flags!, link.mode!);
  }
  if (link.buffer !== undefined) {
    request.view = link.buffer;
    request.length = link.buffer.byteLength;
    request.offset = link.position ?? CURRENT_POSITION;
    if (operation === "read") request.decode = (read) => read.result === 0 ? null : read.result;
    if (opcode === Op.RECV) request.opFlags = MSG_WAITALL;
    if (opcode === Op.SEND) request.opFlags = MSG_WAITALL | MSG_NOSIGNAL;
  }
  if (opcode === Op.TIMEOUT) {
    request.durationMs = link.durationMs!;
    request.opFlags = IORING_TIMEOUT_ETIME_SUCCESS;
  }
  if (opcode === Op.TIMEOUT || opcode === Op.FSYNC) request.decode = nothing;
  request.timeoutMs = link.timeoutMs;
  request.hardLink = link.hard;
  return request;
}

function nothing(): void {}

/**
 * Gives links whose buffers overlap one block together, so that a write sends what a read before it has brought: the
 * caller's buffer itself is never the kernel's.
 */
function lendSharedBlocks(driver: Driver, requests: readonly Request[], blocks: Block[]): void {
  const byBuffer = Map.groupBy(requests.filter(({ view }) => view !== null), ({ view }) => view!.buffer);
  for (const [buffer, users] of byBuffer) {
    users.sort((a, b) => a.view!.byteOffset - b.view!.byteOffset);
    for (let first = 0; first < users.length;) {
      const start = users[first].view!.byteOffset;
      let end = start + users[first].length;
      let next = first + 1;
      for (; next < users.length && users[next].view!.byteOffset < end; next++) {
        end = Math.max(end, users[next].view!.byteOffset + users[next].length);
      }
      if (next > first + 1) {
        const sharing = users.slice(first, next);
        if (end - start > MAX_TRANSFER_BYTES) {
          throw new RangeError(`The overlapping buffers of a chain must lie within ${MAX_TRANSFER_BYTES} bytes`);
        }
        const block = driver.arena.take(end - start);
        if (typeof block === "number") throw systemError(block, "chain");
        blocks.push(block);
        block.bytes.set(new Uint8Array(buffer, start, end - start));
        for (const request of sharing) {
          request.block = block;
          request.blockOffset = request.view!.byteOffset - start;
          request.sharesBlock = true;
        }
      }
      first = next;
    }
  }
}

/** Closes what was opened by a chain that did not come to its close. A ring that is closing does it by itself. */
async function closeLeftOpen(
  driver: Driver,
  links: readonly Link[],
  outcomes: readonly LinkOutcome[],
  places: readonly number[],
): Promise<void> {
  if (driver.closing) return;
  const open = new Set<number>();
  outcomes.forEach(({ status }, i) => {
    const { opcode, on } = links[i];
    if (status !== "fulfilled") return;
    if (opcode === Op.OPENAT2) open.add(on as number);
    if (opcode === Op.CLOSE) open.delete(on as number);
  });
  await Promise.all(Array.from(open, (number) => {
    const request = driver.request(Op.CLOSE, "close");
    request.fd = 0;
    request.fileIndex = places[number] + 1;
    request.cancellable = false;
    return driver.start(request);
  }));
}

function outcomeOf(operation: string, settled: PromiseSettledResult<unknown>): LinkOutcome {
  if (settled.status === "fulfilled") return { operation, status: "fulfilled", value: settled.value };
  if (settled.reason === skipped) return { operation, status: "skipped" };
  return { operation, status: "failed", error: settled.reason };
}

function chainError(links: readonly LinkOutcome[], ended: number): ChainError {
  const outcome = links[ended];
  const name = (i: number) => `link ${i + 1} of ${links.length} (${links[i].operation})`;
  const skippedLinks = links.filter(({ status }) => status === "skipped").length;
  const rest = skippedLinks === 0 ? "" : `; ${skippedLinks} after it did not run`;
  if (outcome.status === "failed") {
    const message = outcome.error instanceof Error ? outcome.error.message : String(outcome.error);
    return new ChainError(`${name(ended)} failed: ${message}${rest}`, links, { cause: outcome.error });
  }
  return new ChainError(`${name(ended - 1)} was short, so ${name(ended)} did not run`, links);
}
