#!/usr/bin/env -S deno run --allow-ffi --allow-net=127.0.0.1
/**
 * A web server that says hello: `http_server.ts [PORT [PATIENCE_MS]]`. Each connection is a child of one scope, which
 * Ctrl-C cancels. A client that is silent for longer than the patience, 30 seconds unless told, is sent away.
 * Run it with `deno run --allow-ffi --allow-net=127.0.0.1 examples/http_server.ts 8080`, and ask it with
 * `curl http://127.0.0.1:8080/`.
 *
 * All requests that one read has brought are answered, in their order, by one write.
 */
import { type Conn, defaultRing } from "../mod.ts";
import { type RequestParser, Step } from "./http/parser.ts";
import { leave, patience, portOf, refuse, Requests, serveUntilInterrupted, textResponse } from "./http/server.ts";

const ANSWERS_BYTES = 16 << 10;
const encoder = new TextEncoder();
const goOn = encoder.encode("HTTP/1.1 100 Continue\r\n\r\n");

let connections = 0;
let answered = 0;

/** The answer to most requests, of which only the date changes. */
let hello = new Uint8Array(0);
let helloSecond = 0;

/** The answer to the request that is complete. */
function answer(parser: RequestParser): Uint8Array<ArrayBuffer> {
  answered++;
  const { method } = parser;
  if (method === "GET" && parser.keepAlive && parser.minorVersion > 0) {
    const second = Math.floor(Date.now() / 1000);
    if (second !== helloSecond) {
      helloSecond = second;
      hello = textResponse(200, "Hello, world!\n", parser);
    }
    return hello;
  }
  if (method === "GET" || method === "HEAD") return textResponse(200, "Hello, world!\n", parser);
  return textResponse(405, `${method} is not for here\n`, parser, "Allow: GET, HEAD\r\n");
}

/** Answers that go by one write. */
class Answers {
  readonly #conn: Conn;
  readonly #bytes = new Uint8Array(ANSWERS_BYTES);
  #length = 0;

  constructor(conn: Conn) {
    this.#conn = conn;
  }

  /** Whether there is no room for these as well. */
  full(answer: Uint8Array): boolean {
    return this.#length + answer.length > this.#bytes.length;
  }

  add(answer: Uint8Array): void {
    this.#bytes.set(answer, this.#length);
    this.#length += answer.length;
  }

  async send(): Promise<void> {
    if (this.#length === 0) return;
    const bytes = this.#bytes.subarray(0, this.#length);
    this.#length = 0;
    await this.#conn.writeAll(bytes, patience);
  }
}

async function serve(conn: Conn): Promise<void> {
  connections++;
  const requests = new Requests(conn);
  const { parser } = requests;
  const answers = new Answers(conn);
  try {
    while (await requests.more()) {
      for (let step = parser.step(); step !== Step.More; step = parser.step()) {
        const asks = step === Step.Head && parser.expectsContinue;
        if (!asks && step !== Step.End) continue; // nobody wants the body
        const bytes = asks ? goOn : answer(parser);
        if (answers.full(bytes)) await answers.send();
        answers.add(bytes);
        if (asks || parser.keepAlive) continue;
        await answers.send();
        return await leave(conn);
      }
      await answers.send();
    }
  } catch (error) {
    await answers.send();
    await refuse(conn, error);
  }
}

const [port, patienceMs] = Deno.args;
if (patienceMs !== undefined) patience.timeout = Number(patienceMs);
if (!(patience.timeout > 0)) {
  console.error("usage: http_server.ts [PORT [PATIENCE_MS]]");
  Deno.exit(2);
}
await serveUntilInterrupted(portOf(port), serve);
console.log(`Answered ${answered} requests over ${connections} connections`);
console.log(`${defaultRing().inFlight} requests in flight`);
