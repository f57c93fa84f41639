/**
 * Pipes.
 *
 * @module
 */
import { systemError } from "../ring/errors.ts";
import type { OperationOptions } from "../ring/request.ts";
import { driverOf, type Ring } from "../ring/ring.ts";
import { CURRENT_POSITION } from "../ring/uring_abi.ts";
import { born } from "../scope/ownership.ts";
import { Descriptor, pipeTraits } from "./descriptor.ts";

let descriptorOfReader: (reader: PipeReader) => Descriptor;
let descriptorOfWriter: (writer: PipeWriter) => Descriptor;

/** The descriptor of a pipe's end, which programs don't see. */
export function descriptorOfPipeEnd(end: PipeReader | PipeWriter): Descriptor {
  return end instanceof PipeReader ? descriptorOfReader(end) : descriptorOfWriter(end);
}

/** The end of a pipe that bytes come out of. */
export class PipeReader implements AsyncDisposable, Disposable {
  readonly #descriptor: Descriptor;

  static {
    descriptorOfReader = (reader) => reader.#descriptor;
  }

  /** @ignore Ends come from {@linkcode pipe}. */
  constructor(descriptor: Descriptor) {
    this.#descriptor = descriptor;
  }

  /** The number of the descriptor. */
  get fd(): number {
    return this.#descriptor.fd;
  }

  /**
   * Reads what is there, or waits for it.
   *
   * @returns Bytes read, 1 to `p.byteLength`; `null` when all writers are closed and the pipe is empty.
   */
  read(p: Uint8Array, options?: OperationOptions): Promise<number | null> {
    return this.#descriptor.read(p, CURRENT_POSITION, options);
  }

  /** Reads until all writers are closed. If it rejects, what it had read comes with the next read. */
  readAll(options?: OperationOptions): Promise<Uint8Array<ArrayBuffer>> {
    return this.#descriptor.readAll(options);
  }

  /** Closes this end; what is in flight on it rejects with `Deno.errors.BadResource`. Closing twice is closing once. */
  close(): Promise<void> {
    return this.#descriptor.close();
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Begins to close this end, and does not wait for it: `await using` does. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** The end of a pipe that bytes go into. */
export class PipeWriter implements AsyncDisposable, Disposable {
  readonly #descriptor: Descriptor;

  static {
    descriptorOfWriter = (writer) => writer.#descriptor;
  }

  /** @ignore Ends come from {@linkcode pipe}. */
  constructor(descriptor: Descriptor) {
    this.#descriptor = descriptor;
  }

  /** The number of the descriptor. */
  get fd(): number {
    return this.#descriptor.fd;
  }

  /**
   * Writes as much as there is room for, waiting for some.
   *
   * @returns Bytes written, which may be fewer than `p` holds.
   * @throws {Deno.errors.BrokenPipe} If the reader is closed.
   */
  write(p: Uint8Array, options?: OperationOptions): Promise<number> {
    return this.#descriptor.write(p, CURRENT_POSITION, options);
  }

  /**
   * Writes all of `p`; no other write comes in between.
   *
   * @throws An error that tells `bytesWritten`, if it is an object.
   */
  writeAll(p: Uint8Array, options?: OperationOptions): Promise<void> {
    return this.#descriptor.writeAll(p, options);
  }

  /** Closes this end; what is in flight on it rejects with `Deno.errors.BadResource`. Closing twice is closing once. */
  close(): Promise<void> {
    return this.#descriptor.close();
  }

  /** The same as `close`. */
  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }

  /** Begins to close this end, and does not wait for it: `await using` does. */
  [Symbol.dispose](): void {
    this.close();
  }
}

/** Options of {@linkcode pipe}. */
export interface PipeOptions {
  /** The ring of both ends. Default: the default ring. */
  ring?: Ring;
}

const O_CLOEXEC = 0o2000000;

/**
 * Makes a pipe (`pipe2`).
 *
 * @returns Its two ends; close each, or hold them with `await using`.
 * @throws An error with code "EMFILE" if the process has too many open files.
 *
 * @example
 * ```ts
 * import { pipe } from "@ringscope/ringscope";
 *
 * const { reader, writer } = pipe();
 * await writer.writeAll(new TextEncoder().encode("hello"));
 * await writer.close();
 * console.log(new TextDecoder().decode(await reader.readAll())); // "hello"
 * await reader.close();
 * ```
 */
export function pipe(options: PipeOptions = {}): { reader: PipeReader; writer: PipeWriter } {
  const fds = new Int32Array(2);
  const result = driverOf(options.ring).native.rs_pipe(fds, O_CLOEXEC);
  if (result < 0) throw systemError(result, "pipe");
  const [reader, writer] = fds;
  return {
    reader: born(new PipeReader(new Descriptor(reader, "pipe", options.ring, pipeTraits))),
    writer: born(new PipeWriter(new Descriptor(writer, "pipe", options.ring, pipeTraits))),
  };
}
