/**
 * Connections as streams of Node's: for `node:tls`, and for libraries that take a stream.
 *
 * @module
 */
import type stream from "node:stream";
import type { Duplex } from "node:stream";
import { CancelToken } from "../scope/cancel_token.ts";
import type { KeepAliveOptions } from "./socket_options.ts";
import { Conn } from "./tcp.ts";

const CHUNK_BYTES = 64 << 10;

/** What a Node stream over a connection has besides: what libraries ask of a `net.Socket`. */
export interface ConnDuplex extends Duplex {
  /** As of `net.Socket`; it does nothing where the connection is not TCP. */
  setNoDelay(noDelay?: boolean): this;
  /** As of `net.Socket`; the delay is in milliseconds. */
  setKeepAlive(enable?: boolean, initialDelay?: number): this;
  /** As of `net.Socket`: emits "timeout" when nothing has been read or written for so many milliseconds; 0 ends that. */
  setTimeout(ms: number, listener?: () => void): this;
  /** Has operations in flight keep the process alive. */
  ref(): this;
  /** Has operations in flight not keep the process alive. */
  unref(): this;
}

/**
 * A `Duplex` of `node:stream` over a connection, for `node:tls` and for libraries that take a stream. Ending it half
 * closes the connection; destroying it, or the end of both directions, closes it. Its reads and writes belong to the
 * scope in which it was made: when that is cancelled, it is destroyed with the reason; when the connection is closed, it is
 * destroyed without an error. (`node:stream` is loaded by the
 * first call of this.)
 *
 * @param conn The connection, which is the stream's from now on.
 * @returns The stream.
 * @throws {Deno.errors.NotSupported} Before Deno 2.1; and before 2.8 `node:tls` takes no such stream.
 *
 * @example
 * ```ts
 * import { socketpair, toDuplex } from "@ringscope/ringscope";
 *
 * const [left, right] = socketpair();
 * const stream = toDuplex(left);
 * stream.end("hello");
 * console.log(new TextDecoder().decode(await right.readAll())); // "hello"
 * stream.destroy();
 * await right.close();
 * ```
 */
export function toDuplex(conn: Conn<Deno.Addr>): ConnDuplex {
  if (!(conn instanceof Conn)) throw new TypeError("toDuplex takes a Conn");
  // deno-lint-ignore no-process-global -- importing node:process would load it at once
  const { getBuiltinModule } = process;
  if (getBuiltinModule === undefined) throw new Deno.errors.NotSupported("toDuplex needs Deno 2.1 or later");
  const { Duplex } = getBuiltinModule("node:stream") as typeof stream;
  const token = CancelToken.current();
  const buffer = new Uint8Array(CHUNK_BYTES);
  let idleMs = 0;
  let idleTimer: ReturnType<typeof setTimeout> | undefined;
  const active = () => {
    clearTimeout(idleTimer);
    if (idleMs > 0) idleTimer = setTimeout(() => duplex.emit("timeout"), idleMs);
  };
  /** Runs an operation in the stream's scope, and says how it ended. */
  const run = <T>(operation: () => Promise<T>, then: (value: T) => void, fail: (error: Error) => void) => {
    CancelToken.resume(token, operation).then((value) => {
      active();
      then(value);
    }, (error) => {
      // Who closes the connection has no need to be told.
      if (error instanceof Deno.errors.BadResource) duplex.destroy();
      else fail(error);
    });
  };
  const duplex = new Duplex({
    emitClose: true,
    read() {
      run(
        () => conn.read(buffer),
        (n) => duplex.push(n === null ? null : buffer.slice(0, n)),
        (error) => duplex.destroy(error),
      );
    },
    write(chunk: Uint8Array, _encoding, done) {
      run(() => conn.writeAll(chunk), () => done(), done);
    },
    writev(chunks: { chunk: Uint8Array }[], done) {
      run(() => conn.writeAll(joined(chunks.map(({ chunk }) => chunk))), () => done(), done);
    },
    final(done) {
      run(() => conn.closeWrite(), () => done(), done);
    },
    destroy(error, done) {
      idleMs = 0;
      clearTimeout(idleTimer);
      conn.close().then(() => done(error), done);
    },
  });
  return Object.assign(duplex, {
    setNoDelay(noDelay = true) {
      if (conn.remoteAddr.transport === "tcp") conn.setNoDelay(noDelay);
      return this as unknown as ConnDuplex;
    },
    setKeepAlive(enable = false, initialDelay = 0) {
      const idle: KeepAliveOptions = initialDelay >= 1000 ? { idleSeconds: Math.floor(initialDelay / 1000) } : {};
      if (conn.remoteAddr.transport === "tcp") conn.setKeepAlive(enable && idle);
      return this as unknown as ConnDuplex;
    },
    setTimeout(ms: number, listener?: () => void) {
      idleMs = ms;
      active();
      if (listener !== undefined) duplex.once("timeout", listener);
      return this as unknown as ConnDuplex;
    },
    ref() {
      conn.ref();
      return this as unknown as ConnDuplex;
    },
    unref() {
      conn.unref();
      return this as unknown as ConnDuplex;
    },
  }) as ConnDuplex;
}

function joined(chunks: Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(chunks.reduce((sum, { byteLength }) => sum + byteLength, 0));
  let at = 0;
  for (const chunk of chunks) {
    bytes.set(chunk, at);
    at += chunk.byteLength;
  }
  return bytes;
}
