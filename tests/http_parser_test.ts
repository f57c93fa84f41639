import { assert, assertEquals, assertInstanceOf, assertThrows } from "@std/assert";
import { HttpError, type Limits, RequestParser, ResponseParser, Step } from "../examples/http/parser.ts";
import { Random } from "./support/random.ts";

// What a parser says must not depend on how its bytes were cut into packets: everything here is fed whole, byte by
// byte, and cut in two at every place.

const SEED = 1;

type AnyParser = RequestParser | ResponseParser;

function bytesOf(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}

function textOf(bytes: Uint8Array): string {
  return String.fromCharCode(...bytes);
}

/** All that a parser says of these packets: its steps as lines, joined pieces of a body, and the error's status. */
function said(parser: AnyParser, packets: Iterable<Uint8Array>, end: boolean): string[] {
  const lines: string[] = [];
  let body = "";
  const steps = () => {
    for (;;) {
      const step = parser.step();
      switch (step) {
        case Step.More:
          return;
        case Step.Head:
          body = "";
          lines.push(
            parser instanceof RequestParser
              ? `${parser.method} ${parser.path} 1.${parser.minorVersion} of ${parser.host}`
              : `${parser.status} ${parser.reason}`,
          );
          for (const [name, value] of parser.fields()) lines.push(`${name}: ${value}`);
          break;
        case Step.Data:
          assert(parser.data.length > 0);
          body += textOf(parser.data);
          break;
        case Step.End:
          if (body !== "") lines.push(`body ${JSON.stringify(body)}`);
          for (const [name, value] of parser.trailers) lines.push(`trailer ${name}: ${value}`);
          lines.push(parser.keepAlive ? "keep-alive" : "close");
          break;
      }
    }
  };
  try {
    for (const packet of packets) {
      for (let taken = 0; taken < packet.length;) {
        const room = parser.room();
        assert(room.length > 0, "there is always room");
        const piece = packet.subarray(taken, taken + room.length);
        room.set(piece);
        parser.filled(piece.length);
        taken += piece.length;
        steps();
      }
    }
    if (end) parser.ended();
    steps();
    if (parser.midMessage) lines.push("...");
  } catch (error) {
    assertInstanceOf(error, HttpError);
    lines.push(`refused with ${error.status}`);
    assertThrows(() => parser.step(), HttpError);
  }
  return lines;
}

interface Feeding extends Limits {
  /** The response is one to this method. */
  method?: string;
  /** The sender ends behind the last byte. */
  end?: boolean;
}

/** Feeds bytes in every way, and returns what the parser says each time. */
function parsed(kind: "request" | "response", text: string, options: Feeding = {}): string[] {
  const { method = "GET", end = false, ...limits } = options;
  const bytes = bytesOf(text);
  const parse = (packets: Iterable<Uint8Array>) => {
    const parser = kind === "request" ? new RequestParser(limits) : new ResponseParser(limits);
    if (parser instanceof ResponseParser) parser.method = method;
    return said(parser, packets, end);
  };
  const whole = parse([bytes]);
  assertEquals(parse(Array.from(bytes, (byte) => Uint8Array.of(byte))), whole, "byte by byte");
  if (bytes.length < 2000) {
    for (let cut = 0; cut <= bytes.length; cut++) {
      assertEquals(parse([bytes.subarray(0, cut), bytes.subarray(cut)]), whole, `cut at ${cut}`);
    }
  }
  return whole;
}

const request = (text: string, options?: Feeding) => parsed("request", text, options);
const response = (text: string, options?: Feeding) => parsed("response", text, options);
/** A request with these lines between its first one and its end. */
const get = (...fields: string[]) => ["GET / HTTP/1.1", "Host: h", ...fields, "", ""].join("\r\n");

Deno.test("a request's method, path, host and fields are what was sent", () => {
  assertEquals(request("GET /a%20b?c=d HTTP/1.1\r\nHost: h:80\r\nX: \t one  two \t\r\nX-Empty:\r\n\r\n"), [
    "GET /a%20b?c=d 1.1 of h:80",
    "Host: h:80",
    "X: one  two",
    "X-Empty: ",
    "keep-alive",
  ]);
  assertEquals(request("GET / HTTP/1.1\r\nHost: h\r\nx: \xe4\r\n\r\n").at(2), "x: \xe4");
});

Deno.test("fields are found by name in any case, and joined where there are several", () => {
  const parser = new RequestParser();
  const bytes = bytesOf(get("ACCEPT: a", "x: 1", "accept: b", "Empty:"));
  parser.room().set(bytes);
  parser.filled(bytes.length);
  assertEquals(parser.step(), Step.Head);
  assertEquals([parser.field("accept"), parser.field("empty"), parser.field("accep")], ["a, b", "", null]);
});

Deno.test("the head can be asked for until the body has ended, through any number of packets", () => {
  const parser = new RequestParser({ headBytes: 256 });
  // Behind another request, so that the head does not begin where the buffer does.
  const bytes = bytesOf(
    get("X: " + "y".repeat(100)) + "POST /up HTTP/1.1\r\nHost: h\r\nX-Name: kept\r\nContent-Length: 50000\r\n\r\n",
  );
  parser.room().set(bytes);
  parser.filled(bytes.length);
  assertEquals([parser.step(), parser.step(), parser.step(), parser.step()], [
    Step.Head,
    Step.End,
    Step.Head,
    Step.More,
  ]);
  for (let sent = 0; sent < 50_000;) {
    const n = Math.min(parser.room().length, 50_000 - sent, 1 + sent % 700);
    parser.filled(n);
    sent += n;
    assertEquals(parser.step(), Step.Data);
    assertEquals(parser.data.length, n);
    assertEquals([parser.method, parser.path, parser.field("x-name")], ["POST", "/up", "kept"]);
    if (sent < 50_000) assertEquals(parser.step(), Step.More);
  }
  assertEquals([parser.step(), parser.path], [Step.End, "/up"]);
});

Deno.test("requests that follow each other are all seen, in order, bodies included", () => {
  const post = "POST /2 HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello";
  const chunked = "POST /3 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
  assertEquals(request(get() + post + chunked + get()), [
    ...["GET / 1.1 of h", "Host: h", "keep-alive"],
    ...["POST /2 1.1 of h", "Host: h", "Content-Length: 5", 'body "hello"', "keep-alive"],
    ...["POST /3 1.1 of h", "Host: h", "Transfer-Encoding: Chunked", 'body "abc"', "keep-alive"],
    ...["GET / 1.1 of h", "Host: h", "keep-alive"],
  ]);
});

Deno.test("a connection is kept by the defaults of its version, and by what Connection says", () => {
  const kept = (version: string, ...fields: string[]) =>
    request([`GET / HTTP/${version}`, "Host: h", ...fields, "", ""].join("\r\n")).at(-1);
  assertEquals(kept("1.1"), "keep-alive");
  assertEquals(kept("1.1", "Connection: close"), "close");
  assertEquals(kept("1.1", "Connection: te, CLOSE ,x"), "close");
  assertEquals(kept("1.1", "Connection: te", "connection: close"), "close");
  assertEquals(kept("1.1", "Connection: closed"), "keep-alive");
  assertEquals(kept("1.0"), "close");
  assertEquals(kept("1.0", "Connection: Keep-Alive"), "keep-alive");
  assertEquals(kept("1.0", "Connection: keep-alive, close"), "close");
  assertEquals(kept("1.2"), "keep-alive"); // a later minor version is to be taken as the latest one known
});

Deno.test("a target may be absolute, whose host goes before that of Host; OPTIONS takes *, CONNECT an authority", () => {
  const first = (line: string) => request(`${line}\r\nHost: h\r\n\r\n`)[0];
  assertEquals(first("GET http://other:8080/a?b HTTP/1.1"), "GET /a?b 1.1 of other:8080");
  assertEquals(first("GET HTTP://other HTTP/1.1"), "GET / 1.1 of other");
  assertEquals(first("GET http://other?q HTTP/1.1"), "GET /?q 1.1 of other");
  assertEquals(first("OPTIONS * HTTP/1.1"), "OPTIONS * 1.1 of h");
  assertEquals(first("CONNECT other:443 HTTP/1.1"), "CONNECT other:443 1.1 of h");
});

Deno.test("one empty line before a request is passed over, for clients that end a body with one", () => {
  assertEquals(request(`\r\n${get()}\r\n${get()}`).length, 6);
  assertEquals(request(`\r\n\r\n${get()}`), ["refused with 400"]);
});

Deno.test("chunks are joined, extensions passed over, trailers kept apart from the head", () => {
  const head = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n";
  const body =
    '5\r\nhello\r\n00a;name="value;";x\r\n, 10 bytes\r\n1 ; y\r\n!\r\n0\r\nX-Sum: 1\r\ncontent-length: 7\r\n\r\n';
  assertEquals(request(head + body + get()), [
    ...["POST / 1.1 of h", "Host: h", "Transfer-Encoding: chunked"],
    'body "hello, 10 bytes!"',
    ...["trailer X-Sum: 1", "trailer content-length: 7", "keep-alive"],
    ...["GET / 1.1 of h", "Host: h", "keep-alive"],
  ]);
});

// --- What is refused ---

/** Requests that are malformed, or that two servers could take for different ones. */
const refused: Record<string, [status: number, text: string][]> = {
  "two lengths": [
    [400, get("Content-Length: 5", "Transfer-Encoding: chunked")],
    [400, get("Transfer-Encoding: chunked", "Content-Length: 5")],
    [400, get("Content-Length: 5", "Content-Length: 6")],
    [400, get("Content-Length: 5, 6")],
    [400, get("Content-Length: 5, 5")],
  ],
  "lengths that are no numbers": [
    ...["", "+5", "-5", "5.0", "0x5", "5 5", "1e3", "9007199254740993", "99999999999999999999999"].map(
      (length): [number, string] => [400, get(`Content-Length: ${length}`)],
    ),
  ],
  "transfer codings that are unknown, repeated or of HTTP/1.0": [
    [501, get("Transfer-Encoding: gzip")],
    [501, get("Transfer-Encoding: gzip, chunked")],
    [501, get("Transfer-Encoding: chunked, identity")],
    [501, get("Transfer-Encoding: xchunked")],
    [501, get("Transfer-Encoding:")],
    [400, get("Transfer-Encoding: chunked", "Transfer-Encoding: chunked")],
    [400, get("Transfer-Encoding: gzip", "Transfer-Encoding: chunked")],
    [400, "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"],
  ],
  "malformed fields": [
    [400, get("X: a", " folded")],
    [400, get("X: a", "\tfolded")],
    [400, get("Content-Length : 5")],
    [400, get("Content Length: 5")],
    [400, get("no colon")],
    [400, get(": no name")],
    [400, get("X: a\rb")],
    [400, get("X: a\0b")],
    [400, get("X: a\x7fb")],
    [400, get("X\xe4: a")],
    [400, get("Transfer-Encoding:\x0bchunked")],
  ],
  "lines that do not end with CRLF": [
    [400, "GET / HTTP/1.1\nHost: h\n\n"],
    [400, "GET / HTTP/1.1\r\nHost: h\n\r\n"],
    [400, "GET / HTTP/1.1\r\nHost: h\r\n\n"],
    [400, "GET / HTTP/1.1\r\nHost: h\r\r\n\r\n"],
    [400, "\n"],
  ],
  "malformed first lines": [
    ...[
      "GET / HTTP/1.1 ",
      " GET / HTTP/1.1",
      "GET  / HTTP/1.1",
      "GET /  HTTP/1.1",
      "GET\t/ HTTP/1.1",
      "GET /a b HTTP/1.1",
      "GET /",
      "GET",
      "G(T / HTTP/1.1",
      "GET / http/1.1",
      "GET / HTTP/1.11",
      "GET / HTTP/11",
      "GET / HTTP/1,1",
      "GET / HTTP/x.1",
      "GET /\0 HTTP/1.1",
      "GET /\xe4 HTTP/1.1",
      "GET /#fragment HTTP/1.1",
      "GET a HTTP/1.1",
      "GET * HTTP/1.1",
      "GET ftp://h/ HTTP/1.1",
      "GET http:///a HTTP/1.1",
      "GET http://user@h/ HTTP/1.1",
    ].map((line): [number, string] => [400, `${line}\r\nHost: h\r\n\r\n`]),
    [505, "GET / HTTP/2.0\r\nHost: h\r\n\r\n"],
    [505, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
    [400, "\x16\x03\x01\x02\x00\x01\x00\n"], // a TLS client
  ],
  "requests that do not say whose they are": [
    [400, "GET / HTTP/1.1\r\n\r\n"],
    [400, "GET http://h/ HTTP/1.1\r\n\r\n"],
    [400, get("Host: h")],
    [400, get("Host: other")],
    [400, "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"],
    [400, "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n"],
    [400, "GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n"],
  ],
};
for (const [what, cases] of Object.entries(refused)) {
  Deno.test(`refused: ${what}`, () => {
    for (const [status, text] of cases) {
      assertEquals(request(text + get()).slice(0, 1), [`refused with ${status}`], JSON.stringify(text));
    }
  });
}

Deno.test("refused: chunks whose size is malformed or not their own", () => {
  const head = get("Transfer-Encoding: chunked").replace("GET", "POST");
  const cases = [
    "x",
    "",
    "-1",
    "+1",
    "0x1",
    "1 ",
    "1\t",
    " 1",
    "1,",
    "1g",
    "20000000000001",
    "ffffffffffffffffff",
    "1;\0",
  ];
  for (const line of cases) {
    assertEquals(request(`${head}${line}\r\na\r\n0\r\n\r\n`).at(-1), "refused with 400", JSON.stringify(line));
  }
  assertEquals(request(`${head}1\na\r\n0\r\n\r\n`).at(-1), "refused with 400");
  for (const after of ["ab\r\n", "a\n\n", "a\rb", "a\n\r"]) {
    assertEquals(request(`${head}1\r\n${after}0\r\n\r\n`).at(-1), "refused with 400", JSON.stringify(after));
  }
  assertEquals(request(`${head}0\r\nX : y\r\n\r\n`).at(-1), "refused with 400");
  assertEquals(request(`${head}1;${"x".repeat(2000)}\r\na\r\n0\r\n\r\n`).at(-1), "refused with 400");
});

Deno.test("the same length twice is one length", () => {
  const post = get("Content-Length: 2", "Content-Length: 2").replace("GET", "POST");
  assertEquals(request(`${post}ab`).slice(-2), ['body "ab"', "keep-alive"]);
});

Deno.test("everything has a limit: first line, head, fields, body, trailers, extensions", () => {
  const limits = { headBytes: 300, fields: 3, bodyBytes: 10 };
  const status = (text: string) => request(text, limits).at(-1);
  const chunked = get("Transfer-Encoding: chunked").replace("GET", "POST");
  assertEquals(status(`GET /${"a".repeat(300)} HTTP/1.1\r\nHost: h\r\n\r\n`), "refused with 414");
  assertEquals(status("G".repeat(302)), "refused with 414");
  assertEquals(status("G".repeat(299)), "...");
  assertEquals(status(get(`X: ${"a".repeat(300)}`)), "refused with 431");
  assertEquals(status(get("X: " + "a".repeat(300)).slice(0, 302)), "refused with 431");
  assertEquals(status(get("A: a", "B: b")), "keep-alive");
  assertEquals(status(get("A: a", "B: b", "C: c")), "refused with 431");
  assertEquals(status(get("Content-Length: 11")), "refused with 413");
  assertEquals(status(`${chunked}6\r\nabcdef\r\n4\r\nabcd\r\n0\r\n\r\n`), "keep-alive");
  assertEquals(status(`${chunked}6\r\nabcdef\r\n5\r\nabcde\r\n0\r\n\r\n`), "refused with 413");
  assertEquals(status(`${chunked}0\r\nA: a\r\nB: b\r\nC: c\r\n\r\n`), "keep-alive");
  assertEquals(status(`${chunked}0\r\nA: a\r\nB: b\r\nC: c\r\nD: d\r\n\r\n`), "refused with 431");
  assertEquals(status(`${chunked}0\r\nA: ${"a".repeat(300)}\r\n\r\n`), "refused with 431");
  assertEquals(status(`${chunked}${`1;${"x".repeat(99)}\r\na\r\n`.repeat(4)}0\r\n\r\n`), "refused with 431");
});

Deno.test("a head as large as the limit allows, its trailers too, go through one buffer", () => {
  const fill = (text: string, bytes: number) => text.replace("~", "a".repeat(bytes - text.length + 1));
  const head = fill(get("Transfer-Encoding: chunked", "X: ~").replace("GET", "POST"), 8190);
  const trailers = fill("X: ~\r\n\r\n", 8190);
  const lines = request(`${get()}${head}3\r\nabc\r\n0\r\n${trailers}${get()}`);
  assertEquals(lines.filter((line) => line === "keep-alive").length, 3);
});

Deno.test("a megabyte that comes byte by byte is parsed in a time that grows with its length only", () => {
  const parse = (bytes: number) => {
    const parser = new RequestParser({ headBytes: 2 * bytes });
    const started = performance.now();
    const text = bytesOf(`GET / HTTP/1.1\r\nHost: h\r\nX: ${"a".repeat(bytes)}`);
    for (const byte of text) {
      parser.room()[0] = byte;
      parser.filled(1);
      assertEquals(parser.step(), Step.More);
    }
    return performance.now() - started;
  };
  parse(100_000);
  const ratio = parse(1_000_000) / parse(100_000);
  assert(ratio < 40, `ten times the bytes took ${ratio.toFixed(1)} times as long`); // 100 times, if it were quadratic
});

Deno.test("damaged messages are understood or refused in the same way however they are cut", () => {
  const random = new Random(SEED);
  const originals = [
    get("X: y", "Connection: a, close"),
    "\r\nPOST http://h:1/a?b HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello" + get(),
    get("Transfer-Encoding: chunked") + "5;a=b\r\nhello\r\n0a\r\n0123456789\r\n0\r\nT: t\r\n\r\n" + get(),
  ].map(bytesOf);
  const telling = bytesOf("\r\n\t :;,/0158aAzZ\x00\x7f\xff");
  let refusals = 0;
  for (let round = 0; round < 3000; round++) {
    const bytes = [...originals[random.below(originals.length)]];
    for (let damage = 1 + random.below(3); damage > 0; damage--) {
      const at = random.below(bytes.length);
      const byte = telling[random.below(telling.length)];
      switch (random.below(3)) {
        case 0:
          bytes[at] = byte;
          break;
        case 1:
          bytes.splice(at, 0, byte);
          break;
        case 2:
          bytes.splice(at, 1 + random.below(3));
          break;
      }
    }
    const text = textOf(Uint8Array.from(bytes));
    const packets = [];
    for (let at = 0; at < bytes.length;) packets.push(Uint8Array.from(bytes.slice(at, at += 1 + random.below(20))));
    const whole = said(new RequestParser(), [bytesOf(text)], true);
    const name = `seed ${SEED}, round ${round}: ${JSON.stringify(text)}`;
    assertEquals(said(new RequestParser(), packets, true), whole, name);
    assertEquals(said(new RequestParser(), bytes.map((byte) => Uint8Array.of(byte)), true), whole, name);
    if (whole.at(-1)!.startsWith("refused")) refusals++;
  }
  assert(refusals > 1000 && refusals < 3000, `${refusals} of 3000 refused`);
});

// --- Responses ---

Deno.test("a response's body ends by length, by its last chunk, or with the connection", () => {
  assertEquals(
    response("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nabHTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n"),
    [
      ...["200 OK", "Content-Length: 2", 'body "ab"', "keep-alive"],
      ...["404 Not Found", "content-length: 0", "keep-alive"],
    ],
  );
  assertEquals(response("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nT: t\r\n\r\n").slice(2), [
    ...['body "ab"', "trailer T: t", "keep-alive"],
  ]);
  assertEquals(response("HTTP/1.0 200 OK\r\n\r\nab\r\n\r\nc", { end: true }), [
    "200 OK",
    'body "ab\\r\\n\\r\\nc"',
    "close",
  ]);
  assertEquals(response("HTTP/1.1 200 OK\r\n\r\n", { end: true }), ["200 OK", "close"]);
  assertEquals(response("HTTP/1.1 200 OK\r\n\r\nab"), ["200 OK", "..."]);
});

Deno.test("some responses have no body: to HEAD, 204, 304; interim ones are passed over", () => {
  const length = "Content-Length: 5\r\n\r\n";
  assertEquals(response(`HTTP/1.1 200 OK\r\n${length}`, { method: "HEAD" }).at(-1), "keep-alive");
  assertEquals(
    response(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n`, { method: "HEAD" }).at(-1),
    "keep-alive",
  );
  assertEquals(response("HTTP/1.1 204 No Content\r\n\r\n").at(-1), "keep-alive");
  assertEquals(response(`HTTP/1.1 304 Not Modified\r\n${length}`).at(-1), "keep-alive");
  const interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n";
  assertEquals(response(`${interim}HTTP/1.1 200 OK\r\n${length}hello`)[0], "200 OK");
  assertEquals(response("HTTP/1.1 101 Switching Protocols\r\n\r\n"), ["refused with 400"]);
});

Deno.test("a response may give no reason, and may not end before its body does", () => {
  assertEquals(response("HTTP/1.1 200 \r\nContent-Length: 0\r\n\r\n")[0], "200 ");
  assertEquals(response("HTTP/1.1 200\r\nContent-Length: 0\r\n\r\n")[0], "200 ");
  assertEquals(response("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab", { end: true }).at(-1), "refused with 400");
  assertEquals(response("HTTP/1.1 200 OK\r\nConte", { end: true }), ["refused with 400"]);
  const chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
  assertEquals(response(`${chunked}2\r\nab\r\n`, { end: true }).at(-1), "refused with 400");
  assertEquals(response(`${chunked}2\r\nab\r\n0\r\n`, { end: true }).at(-1), "refused with 400");
});

Deno.test("refused: malformed status lines, and responses with two lengths", () => {
  for (
    const line of [
      "HTTP/1.1",
      "HTTP/1.1 20",
      "HTTP/1.1 2000",
      "HTTP/1.1 abc",
      "HTTP/1.1  200",
      "ICY 200 OK",
      "HTTP/1.1 099 x",
    ]
  ) {
    assertEquals(response(`${line}\r\n\r\n`), ["refused with 400"], line);
  }
  assertEquals(response("HTTP/3.0 200 OK\r\n\r\n"), ["refused with 505"]);
  assertEquals(response("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n"), [
    "refused with 400",
  ]);
});
