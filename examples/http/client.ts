/**
 * What the HTTP clients have in common: where a URL leads, and one request with its response.
 *
 * @module
 */
import type { Conn, OperationOptions } from "../../mod.ts";
import { HttpError, type ResponseParser, Step } from "./parser.ts";

const encoder = new TextEncoder();

/** Where a URL leads. */
export interface Target {
  /** The host to connect to. */
  hostname: string;
  /** The port to connect to. */
  port: number;
  /** The bytes of a request for it, with these fields besides. */
  get(fields?: Record<string, string>): Uint8Array<ArrayBuffer>;
}

/**
 * Takes an `http:` URL apart.
 *
 * @throws {TypeError} If it is none.
 */
export function targetOf(text: string): Target {
  const url = new URL(text);
  if (url.protocol !== "http:") throw new TypeError(`Only http: URLs can be fetched, not ${url.protocol}`);
  if (url.username !== "" || url.password !== "") throw new TypeError("Users and passwords in URLs are not supported");
  return {
    hostname: url.hostname.replace(/^\[|\]$/g, ""), // brackets are for URLs only
    port: Number(url.port || 80),
    get(fields = {}) {
      const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`).join("");
      return encoder.encode(`GET ${url.pathname}${url.search} HTTP/1.1\r\nHost: ${url.host}\r\n${lines}\r\n`);
    },
  };
}

/** What is to be done with a response as it comes. */
export interface Receiver {
  /** Its head is there. */
  head?(): void;
  /** Some of its body is, in memory that is used again afterwards. */
  data?(bytes: Uint8Array<ArrayBuffer>): Promise<void> | void;
}

/**
 * Sends a request and receives the response to it.
 *
 * @param response Parses it; one and the same for all responses of a connection.
 * @param options A `timeout` is for each read and write.
 * @returns The status.
 * @throws {HttpError} If the response is malformed, and the errors of the connection.
 */
export async function exchange(
  conn: Conn,
  response: ResponseParser,
  request: Uint8Array,
  receiver: Receiver = {},
  options?: OperationOptions,
): Promise<number> {
  if (response.midMessage) throw new HttpError(400, "The server has sent more than it was asked for");
  await conn.writeAll(request, options);
  for (;;) {
    const n = await conn.read(response.room(), options);
    if (n === null) response.ended();
    else response.filled(n);
    for (let step = response.step(); step !== Step.More; step = response.step()) {
      if (step === Step.Head) receiver.head?.();
      else if (step === Step.End) return response.status;
      else await receiver.data?.(response.data);
    }
    if (n === null) throw new Deno.errors.UnexpectedEof("The server closed the connection without an answer");
  }
}
