/**
 * What the HTTP servers have in common: accepting until Ctrl-C, waiting for a client with patience that ends, and
 * taking leave of one whose request was refused.
 *
 * @module
 */
import { type Conn, listen, type OperationOptions, scope } from "../../mod.ts";
import { HttpError, RequestParser } from "./parser.ts";

/** How long a client may be silent, take over one request, and over what it is sent at once. */
export const patience: OperationOptions & { timeout: number } = { timeout: 30_000 };
/** How long a client that was refused may take to see why. */
const LEAVE_MS = 1_000;
const LEAVE_BYTES = 1 << 20;

const encoder = new TextEncoder();

/** What the programs' users read for the status codes that they send. */
const reasons: Record<number, string> = {
  200: "OK",
  206: "Partial Content",
  301: "Moved Permanently",
  304: "Not Modified",
  400: "Bad Request",
  403: "Forbidden",
  404: "Not Found",
  405: "Method Not Allowed",
  408: "Request Timeout",
  412: "Precondition Failed",
  413: "Content Too Large",
  414: "URI Too Long",
  416: "Range Not Satisfiable",
  431: "Request Header Fields Too Large",
  500: "Internal Server Error",
  501: "Not Implemented",
  505: "HTTP Version Not Supported",
};

/** What an answer depends on: a {@linkcode RequestParser} after a request. */
export type Asked = Pick<RequestParser, "method" | "minorVersion" | "keepAlive">;

/** The head of a response, with the fields that every one has; `fields` are lines that end with CRLF. */
export function head(status: number, fields: string, { keepAlive, minorVersion }: Asked): string {
  const connection = keepAlive ? minorVersion > 0 ? "" : "Connection: keep-alive\r\n" : "Connection: close\r\n";
  return `HTTP/1.1 ${status} ${reasons[status]}\r\nDate: ${date()}\r\n${fields}${connection}\r\n`;
}

let dateSecond = 0;
let dateText = "";

/** The time as HTTP writes it; made once a second. */
export function date(): string {
  const second = Math.floor(Date.now() / 1000);
  if (second !== dateSecond) {
    dateSecond = second;
    dateText = new Date(second * 1000).toUTCString();
  }
  return dateText;
}

/** The bytes of a response that is a text; without it, if HEAD was asked for. */
export function textResponse(
  status: number,
  text: string,
  asked: Asked,
  fields = "Content-Type: text/plain; charset=utf-8\r\n",
): Uint8Array<ArrayBuffer> {
  const body = encoder.encode(text);
  const start = encoder.encode(head(status, `${fields}Content-Length: ${body.length}\r\n`, asked));
  if (asked.method === "HEAD") return start;
  const bytes = new Uint8Array(start.length + body.length);
  bytes.set(start);
  bytes.set(body, start.length);
  return bytes;
}

/** What a client sends, read with patience that ends: for one that is silent, and for one that trickles. */
export class Requests {
  /** What has been read goes into it. */
  readonly parser: RequestParser = new RequestParser();
  readonly #conn: Conn;
  /** By when the request that has begun must be complete, and how many were complete before it. */
  #deadline = Infinity;
  #completed = 0;

  /** The requests of a connection. */
  constructor(conn: Conn) {
    this.#conn = conn;
  }

  /**
   * Reads on; false at the client's end, and when it has been silent for too long.
   *
   * @throws {HttpError} 408, if that was in the middle of a request, or a request takes too long.
   */
  async more(): Promise<boolean> {
    const { parser } = this;
    let n: number | null;
    try {
      n = await this.#conn.read(parser.room(), parser.midMessage ? this.#remaining() : patience);
    } catch (error) {
      if (!isTimeout(error)) throw error;
      if (parser.midMessage) throw new HttpError(408, `The request has not come within ${patience.timeout} ms`);
      return false;
    }
    if (n === null) return false;
    parser.filled(n);
    return true;
  }

  #remaining(): OperationOptions {
    const now = performance.now();
    if (this.#deadline === Infinity || this.#completed < this.parser.completed) {
      this.#deadline = now + patience.timeout;
      this.#completed = this.parser.completed;
    }
    return { timeout: Math.max(0, this.#deadline - now) };
  }
}

/** Answers a request that can't be understood, and waits for the client to see it before the connection is closed. */
export async function refuse(conn: Conn, error: unknown): Promise<void> {
  if (!(error instanceof HttpError)) throw error;
  const asked = { method: "GET", minorVersion: 1, keepAlive: false };
  await conn.writeAll(textResponse(error.status, `${error.message}\n`, asked), patience);
  await leave(conn);
}

/**
 * Ends a connection whose client may still be sending: closing it with bytes unread would reset it, and take the last
 * answer from under the client's eyes. So we end our side, and read on for a moment until the client has ended its.
 */
export async function leave(conn: Conn): Promise<void> {
  await conn.closeWrite();
  const rest = new Uint8Array(16 << 10);
  const until = performance.now() + LEAVE_MS;
  for (let bytes = 0; bytes < LEAVE_BYTES;) {
    const n = await conn.read(rest, { timeout: Math.max(0, until - performance.now()) });
    if (n === null) return;
    bytes += n;
  }
}

function isTimeout(error: unknown): boolean {
  return error instanceof DOMException && error.name === "TimeoutError";
}

/** Whether an error concerns one connection alone: its other end is gone, or too slow. */
function isOfConnection(error: unknown): boolean {
  return error instanceof Error && "errno" in error || isTimeout(error);
}

/** The port that a program was told, or 0 for any. */
export function portOf(arg: string | undefined): number {
  const port = Number(arg ?? 0);
  if (Number.isInteger(port) && port >= 0 && port <= 65535) return port;
  console.error(`Not a port: ${arg}`);
  Deno.exit(2);
}

/**
 * Serves each connection on its own, as a child of one scope, until Ctrl-C cancels the scope, which ends them all.
 *
 * @param port 0 lets the kernel choose; it is printed.
 * @param serve Serves a connection to its end; the connection is closed then.
 */
export async function serveUntilInterrupted(port: number, serve: (conn: Conn) => Promise<void>): Promise<void> {
  const interrupted = new Error("Interrupted");
  let open = 0;
  try {
    await scope(async (s) => {
      const interrupt = () => {
        console.log(`Ctrl-C: closing ${open} ${open === 1 ? "connection" : "connections"}`);
        s.cancel(interrupted);
      };
      Deno.addSignalListener("SIGINT", interrupt);
      s.defer(() => Deno.removeSignalListener("SIGINT", interrupt));

      await using listener = await listen({ hostname: "127.0.0.1", port });
      console.log(`Listening on http://${listener.addr.hostname}:${listener.addr.port}/; Ctrl-C ends`);
      for await (const accepted of listener) {
        s.spawn(async () => {
          open++;
          try {
            await using conn = accepted;
            conn.setNoDelay();
            await serve(conn);
          } catch (error) {
            if (!isOfConnection(error)) throw error;
          } finally {
            open--;
          }
        });
      }
    });
  } catch (error) {
    if (error !== interrupted) throw error;
  }
}
