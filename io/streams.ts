/**
 * Web streams over what reads and writes bytes.
 *
 * @module
 */
import type { OperationOptions } from "../ring/request.ts";
import { CancelToken } from "../scope/cancel_token.ts";

/** What a readable stream reads from. */
export interface ByteSource {
  read(p: Uint8Array<ArrayBuffer>): Promise<number | null>;
  /** Called at the end of the bytes. */
  end(): Promise<void>;
  /** Called when nobody wants the rest, or a read has failed. */
  abandon(): Promise<void>;
}

/** What a writable stream writes to. */
export interface ByteSink {
  writeAll(p: Uint8Array, options: OperationOptions): Promise<void>;
  /** Called when all is written. */
  end(): Promise<void>;
  /** Called when the rest won't come, or a write has failed. */
  abandon(): Promise<void>;
}

const CHUNK_BYTES = 64 << 10;

/**
 * A byte stream. It reads when it is read from and never ahead, so that each read belongs to the scope of whoever asks,
 * and what nobody has asked for is still there for others. A reader's own buffer (BYOB) is read into directly.
 */
export function readableStream(source: ByteSource): ReadableStream<Uint8Array<ArrayBuffer>> {
  let chunk: Uint8Array<ArrayBuffer> | undefined;
  // A stream calls `pull` in the call tree of the read, except right after it was made. So readers tell who asks.
  let asker: { token: CancelToken | undefined } | null = null;
  const stream: ReadableStream<Uint8Array<ArrayBuffer>> = new ReadableStream({
    type: "bytes",
    async pull(controller) {
      const wanted = controller.byobRequest;
      const view = wanted?.view as Uint8Array<ArrayBuffer> | undefined;
      const p = view ?? (chunk ??= new Uint8Array(CHUNK_BYTES));
      let n: number | null;
      try {
        n = await (asker === null ? source.read(p) : CancelToken.resume(asker.token, () => source.read(p)));
      } catch (error) {
        await source.abandon();
        throw error;
      }
      if (n === null) {
        await source.end();
        controller.close();
        wanted?.respond(0);
      } else if (wanted !== null) {
        wanted.respond(n);
      } else {
        controller.enqueue(p.slice(0, n));
      }
    },
    cancel: () => source.abandon(),
  });
  const getReader = stream.getReader as (options?: ReadableStreamGetReaderOptions) => { read: AnyRead };
  Object.defineProperty(stream, "getReader", {
    value(options?: ReadableStreamGetReaderOptions) {
      const reader = getReader.call(stream, options);
      const { read } = reader;
      reader.read = (...args) => {
        asker = { token: CancelToken.current() };
        return read.apply(reader, args);
      };
      return reader;
    },
  });
  return stream;
}

type AnyRead = (...args: unknown[]) => Promise<unknown>;

/** A stream whose `abort` also ends a write that is in flight, in the kernel. */
export function writableStream(sink: ByteSink): WritableStream<Uint8Array> {
  return new WritableStream({
    async write(chunk, controller) {
      try {
        await sink.writeAll(chunk, { signal: controller.signal });
      } catch (error) {
        await sink.abandon();
        throw error;
      }
    },
    close: () => sink.end(),
    abort: () => sink.abandon(),
  });
}
