import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { Buffer } from "node:buffer";
import { createHash } from "node:crypto";
import { ResponseParser, Step } from "../examples/http/parser.ts";
import {
  assertSameBytes,
  commandOf,
  examples,
  noise,
  type Outcome,
  readUntil,
  run,
  scratch,
  start,
  text,
} from "./support/example.ts";
import { isDeno2 } from "./support/runtime.ts";
import { loopTurn, until, within } from "./support/until.ts";

// The HTTP examples as users run them: processes of their own, with the flags of their first line, against curl, wrk,
// nginx, fetch, Deno.serve, and sockets that say what no decent client would.

/** How long a program may take before it counts as hung. */
const GUARD_MS = 60_000;

/** Whether a program is installed. */
function has(program: string): boolean {
  const { success } = new Deno.Command("sh", { args: ["-c", `command -v ${program}`], stdout: "null", stderr: "null" })
    .outputSync();
  return success;
}

/** A test that takes a program from outside: without it, its name says what to install. */
function testWith(program: string, debianPackage: string, name: string, fn: () => Promise<void>): void {
  const present = has(program);
  const note = present ? "" : ` (skipped: needs ${program}; apt-get install ${debianPackage})`;
  Deno.test({ name: name + note, ignore: !present, fn });
}

/** Starts a program; its process is killed when it hangs. */
function spawn(command: string[], stdout: "piped" | "null" = "piped"): Deno.ChildProcess {
  const [program, ...args] = command;
  const child = new Deno.Command(program, { args, env: { NO_COLOR: "1" }, stdin: "null", stdout, stderr: "piped" })
    .spawn();
  const guard = setTimeout(() => child.kill("SIGKILL"), GUARD_MS);
  child.status.then(() => clearTimeout(guard));
  return child;
}

async function outcome(child: Deno.ChildProcess): Promise<Outcome> {
  const { code, stdout, stderr } = await child.output();
  return { code, bytes: stdout, out: text(stdout), err: text(stderr) };
}

function execute(...command: string[]): Promise<Outcome> {
  return outcome(spawn(command));
}

function runExample(example: string, ...args: string[]): Promise<Outcome> {
  return run(example, { args });
}

/** A server among the examples that is running. */
class Server implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #out: ReadableStreamDefaultReader<Uint8Array>;
  /** Such as `http://127.0.0.1:1234`. */
  url = "";
  port = 0;

  private constructor(child: Deno.ChildProcess) {
    this.#child = child;
    this.#out = child.stdout.getReader();
  }

  static async start(example: string, ...args: string[]): Promise<Server> {
    const server = new Server(start(example, "null", { args }));
    const line = await readUntil(server.#out, "\n");
    const match = /^Listening on (http:\/\/127\.0\.0\.1:(\d+))\/; Ctrl-C ends\n$/.exec(line);
    assert(match !== null, line);
    server.url = match[1];
    server.port = Number(match[2]);
    return server;
  }

  get pid(): number {
    return this.#child.pid;
  }

  connect(): Promise<Deno.TcpConn> {
    return Deno.connect({ hostname: "127.0.0.1", port: this.port });
  }

  /** Sends Ctrl-C, and tells how the server ended. */
  interrupt(): Promise<Outcome> {
    this.#child.kill("SIGINT");
    this.#out.releaseLock();
    return outcome(this.#child);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#child.kill("SIGKILL");
    } catch {
      return; // it has ended
    }
    await this.#out.cancel();
    await this.#child.stderr.cancel();
    await this.#child.status;
  }
}

/** Ends a server by Ctrl-C, and asserts that it ends as it should: cleanly, and with a word about it. */
async function endsCleanly(server: Server): Promise<string> {
  const { code, out, err } = await server.interrupt();
  assertEquals([code, err], [0, ""]);
  assertMatch(out, /^Ctrl-C: closing \d+ connections?\n/);
  assertStringIncludes(out, "\n0 requests in flight\n");
  return out;
}

async function writeAll(conn: Deno.Conn, data: string | Uint8Array): Promise<void> {
  const bytes = typeof data === "string" ? Uint8Array.from(data, (character) => character.charCodeAt(0)) : data;
  for (let sent = 0; sent < bytes.length;) sent += await conn.write(bytes.subarray(sent));
}

/** A response as it came. */
interface Answer {
  status: number;
  fields: Map<string, string>;
  body: string;
  keepAlive: boolean;
}

/** Reads responses off a connection. */
class Answers {
  readonly #conn: Deno.Conn;
  readonly #parser = new ResponseParser({ bufferBytes: 256 << 10 });
  /** How many reads it took. */
  reads = 0;

  constructor(conn: Deno.Conn) {
    this.#conn = conn;
  }

  /** The next response; `null` if the connection has ended. */
  async next(method = "GET"): Promise<Answer | null> {
    const parser = this.#parser;
    parser.method = method;
    const body: Uint8Array[] = [];
    let fields = new Map<string, string>();
    for (let over = false;;) {
      switch (parser.step()) {
        case Step.More: {
          if (over) return null;
          this.reads++;
          const n = await within("a response", this.#conn.read(parser.room()));
          if (n === null) parser.ended();
          else parser.filled(n);
          over = n === null;
          break;
        }
        case Step.Head:
          fields = new Map(Array.from(parser.fields(), ([name, value]) => [name.toLowerCase(), value]));
          break;
        case Step.Data:
          body.push(parser.data.slice());
          break;
        case Step.End: {
          const { status, keepAlive } = parser;
          return { status, fields, body: Buffer.concat(body).toString("latin1"), keepAlive };
        }
      }
    }
  }

  /** All responses up to the end of the connection, as their status codes. */
  async statuses(): Promise<number[]> {
    const statuses = [];
    for (let answer = await this.next(); answer !== null; answer = await this.next()) statuses.push(answer.status);
    return statuses;
  }
}

const get = "GET / HTTP/1.1\r\nHost: h\r\n\r\n";

// --- http_server ---

Deno.test("http_server greets fetch, has no body for HEAD, and refuses other methods", async () => {
  await using server = await Server.start("http_server.ts");
  const hello = await fetch(`${server.url}/any/path?query`);
  assertEquals([hello.status, await hello.text()], [200, "Hello, world!\n"]);
  assertEquals(hello.headers.get("content-type"), "text/plain; charset=utf-8");
  assert(Math.abs(Date.parse(hello.headers.get("date")!) - Date.now()) < 10_000);
  const head = await fetch(server.url, { method: "HEAD" });
  assertEquals([head.status, head.headers.get("content-length"), await head.text()], [200, "14", ""]);
  const post = await fetch(server.url, { method: "POST", body: "x".repeat(100_000) });
  assertEquals([post.status, post.headers.get("allow")], [405, "GET, HEAD"]);
  await post.body?.cancel();
  assertStringIncludes(await endsCleanly(server), "Answered 3 requests over ");
});

testWith("curl", "curl", "http_server answers two URLs of curl's over one connection", async () => {
  await using server = await Server.start("http_server.ts");
  const urls = [`${server.url}/one`, `${server.url}/two`];
  const { code, out } = await execute("curl", "-sS", "-w", "%{http_code} %{num_connects}\n", ...urls);
  assertEquals([code, out], [0, "Hello, world!\n200 1\nHello, world!\n200 0\n"]);
  const head = await execute("curl", "-sSI", server.url);
  assertMatch(head.out, /^HTTP\/1\.1 200 OK\r\n(?:.+\r\n)+\r\n$/);
  const upload = ["-H", "Expect: 100-continue", "--data-binary", `@${Deno.execPath()}`, server.url];
  const large = await execute("curl", "-sS", ...upload);
  assertEquals(large.out, "The body is larger than 1048576 bytes\n");
  await endsCleanly(server);
});

Deno.test("http_server answers requests that come together in their order, and by one write", async () => {
  await using server = await Server.start("http_server.ts");
  using conn = await server.connect();
  const post = "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nabc";
  const chunked = "PUT / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nT: t\r\n\r\n";
  const absolute = "GET http://other/ HTTP/1.1\r\nHost: h\r\n\r\n";
  await writeAll(conn, get + post + get.repeat(20) + chunked + absolute);
  const answers = new Answers(conn);
  const statuses = [];
  for (let i = 0; i < 24; i++) statuses.push((await answers.next())?.status);
  assertEquals(statuses, [200, 405, ...Array(20).fill(200), 405, 200]);
  assertEquals(answers.reads, 1); // what is sent as a whole over loopback is there as a whole
});

Deno.test("http_server answers 100,000 pipelined requests to a client that reads them late", async () => {
  await using server = await Server.start("http_server.ts");
  using conn = await server.connect();
  const sent = writeAll(conn, get.repeat(100_000)); // the answers fill all buffers on the way
  await loopTurn();
  const answers = new Answers(conn);
  for (let i = 0; i < 100_000; i++) {
    const answer = await answers.next();
    if (answer?.status !== 200 || answer.body !== "Hello, world!\n") assertEquals(answer, null, `answer ${i}`);
  }
  await sent;
  assertStringIncludes(await endsCleanly(server), "Answered 100000 requests over 1 connections\n");
});

Deno.test("http_server takes a request byte by byte", async () => {
  await using server = await Server.start("http_server.ts");
  using conn = await server.connect();
  conn.setNoDelay();
  const answers = new Answers(conn);
  for (let i = 0; i < 2; i++) {
    for (
      const character of `POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n${get}`
    ) {
      await writeAll(conn, character);
      await loopTurn();
    }
    assertEquals([(await answers.next())?.status, (await answers.next())?.status], [405, 200]);
  }
});

Deno.test("http_server keeps a connection as HTTP/1.0, HTTP/1.1 and Connection want it", async () => {
  await using server = await Server.start("http_server.ts");
  const kept = async (request: string): Promise<string> => {
    using conn = await server.connect();
    await writeAll(conn, request + get);
    const answers = new Answers(conn);
    const first = await answers.next();
    assertEquals(first?.status, 200);
    const connection = first?.fields.get("connection");
    return `${connection}, ${(await answers.next()) === null ? "closed" : "kept"}`;
  };
  assertEquals(await kept(get), "undefined, kept");
  assertEquals(await kept("GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"), "close, closed");
  assertEquals(await kept("GET / HTTP/1.0\r\n\r\n"), "close, closed");
  assertEquals(await kept("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"), "keep-alive, kept");
});

Deno.test("http_server tells a client that asks first to go on", async () => {
  await using server = await Server.start("http_server.ts");
  using conn = await server.connect();
  await writeAll(conn, "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n");
  const buffer = new Uint8Array(1024);
  const n = await within("100 Continue", conn.read(buffer));
  assertEquals(text(buffer.subarray(0, n ?? 0)), "HTTP/1.1 100 Continue\r\n\r\n");
  await writeAll(conn, "abc");
  assertEquals((await new Answers(conn).next())?.status, 405);
});

Deno.test("http_server has room for any number of answers, whether or not clients ask to go on", async () => {
  await using server = await Server.start("http_server.ts");
  using conn = await server.connect();
  const asks = "GET / HTTP/1.1\r\nHost:\r\nExpect:100-continue\r\n\r\n".repeat(2000);
  const [statuses] = await Promise.all([
    new Answers(conn).statuses(),
    writeAll(conn, asks).then(() => conn.closeWrite()),
  ]);
  assertEquals(statuses, new Array(2000).fill(200));
  await endsCleanly(server);
});

Deno.test("http_server refuses what could be smuggled, answers nothing behind it, and closes without a reset", async () => {
  await using server = await Server.start("http_server.ts");
  const hidden = "GET /hidden HTTP/1.1\r\nHost: h\r\n\r\n";
  const cases: [status: number, request: string][] = [
    [400, `POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n${hidden}`],
    [400, `POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n${hidden}`],
    [400, `POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x\r\n\r\n${hidden}`],
    [400, `POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n${hidden}`],
    [501, `POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n${hidden}`],
    [400, `GET / HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n${hidden}`],
    [400, `GET / HTTP/1.1\r\n\r\n${hidden}`],
    [400, `GET / HTTP/1.1\nHost: h\n\n${hidden}`],
    [414, `GET /${"a".repeat(10_000)} HTTP/1.1\r\nHost: h\r\n\r\n${hidden}`],
    [431, `GET / HTTP/1.1\r\nHost: h\r\nX: ${"a".repeat(10_000)}\r\n\r\n${hidden}`],
    [413, `POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 2000000\r\n\r\n${"a".repeat(500_000)}`],
    [505, `GET / HTTP/2.0\r\nHost: h\r\n\r\n${hidden}`],
  ];
  for (const [status, request] of cases) {
    using conn = await server.connect();
    await writeAll(conn, get + request);
    await conn.closeWrite();
    assertEquals(await new Answers(conn).statuses(), [200, status], JSON.stringify(request.slice(0, 100)));
  }
  await endsCleanly(server);
});

Deno.test("http_server sends clients away that are silent, without a word, and those in the middle of a request, with one", async () => {
  await using server = await Server.start("http_server.ts", "0", "200");
  const idle = await server.connect();
  const answers = new Answers(idle);
  await writeAll(idle, get);
  assertEquals((await answers.next())?.status, 200);
  assertEquals(await answers.next(), null);
  idle.close();
  {
    using slow = await server.connect();
    await writeAll(slow, get + get.slice(0, -1));
    assertEquals(await new Answers(slow).statuses(), [200, 408]);
  }
  using trickling = await server.connect();
  trickling.setNoDelay();
  const statuses = new Answers(trickling).statuses();
  let refused = false;
  statuses.then(() => refused = true);
  await writeAll(trickling, get + get.slice(0, -2));
  while (!refused) {
    await writeAll(trickling, "X: y\r\n");
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  assertEquals(await statuses, [200, 408]);
  await endsCleanly(server);
});

Deno.test("http_server ends at Ctrl-C whatever its clients are at, and survives their resets", async () => {
  await using server = await Server.start("http_server.ts");
  const conns = await Promise.all(Array.from({ length: 20 }, () => server.connect()));
  for (const conn of conns) {
    await writeAll(conn, get);
    assertEquals((await new Answers(conn).next())?.status, 200);
  }
  await writeAll(conns[0], get.slice(0, 10)); // in the middle of a request
  conns.pop()!.close();
  const choking = (async () => {
    for (;;) await writeAll(conns[1], get.repeat(1000)); // and never reads
  })().catch((error) => error);
  await until("the server chokes", () => queued(server.port) > 0);
  const out = await endsCleanly(server);
  assertMatch(out, /^Ctrl-C: closing (?:19|20) connections\n/);
  assert(await choking instanceof Error);
  for (const conn of conns) conn.close();
});

/** Bytes that wait in the send queues of a server's sockets, as the kernel tells. */
function queued(port: number): number {
  const local = `:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const rows = Deno.readTextFileSync("/proc/net/tcp").split("\n").map((row) => row.trim().split(/\s+/));
  return rows.filter((row) => row[1]?.endsWith(local) && row[3] === "01")
    .reduce((sum, row) => sum + parseInt(row[4], 16), 0);
}

testWith("wrk", "wrk", "http_server answers wrk over 100 connections, without an error", async () => {
  await using server = await Server.start("http_server.ts");
  const { code, out } = await execute("wrk", "-t1", "-c100", "-d1", `${server.url}/`);
  assertEquals(code, 0);
  assert(!/Socket errors|Non-2xx/.test(out), out);
  const requests = Number(/(\d+) requests in/.exec(out)?.[1]);
  assert(requests > 1000, out);
  const answered = Number(/Answered (\d+) requests/.exec(await endsCleanly(server))?.[1]);
  assert(answered >= requests, `${answered} answered, ${requests} received`);
});

// --- file_server ---

/** A directory of files, and what lies beside it. */
function website(): { root: string; path(name: string): string; [Symbol.dispose](): void } {
  const dir = scratch();
  const root = dir.path("www");
  Deno.mkdirSync(`${root}/sub dir`, { recursive: true });
  Deno.mkdirSync(`${root}/with index`);
  Deno.mkdirSync(`${root}/<b>&"x'`);
  Deno.mkdirSync(dir.path("www-secret"));
  Deno.writeTextFileSync(dir.path("secret.txt"), "secret");
  Deno.writeTextFileSync(dir.path("www-secret/a.txt"), "secret");
  Deno.writeTextFileSync(`${root}/hello.txt`, "hello, files\n");
  Deno.writeTextFileSync(`${root}/page.HTML`, "<p>");
  Deno.writeTextFileSync(`${root}/with index/index.html`, "<p>index");
  Deno.writeTextFileSync(`${root}/sub dir/ünï #?%.txt`, "odd name");
  Deno.symlinkSync("hello.txt", `${root}/inside`);
  Deno.symlinkSync("../secret.txt", `${root}/outside`);
  Deno.symlinkSync("..", `${root}/up`);
  Deno.symlinkSync(dir.path("www-secret"), `${root}/sibling`);
  Deno.symlinkSync("loop", `${root}/loop`);
  return { root, path: (name) => `${root}/${name}`, [Symbol.dispose]: () => dir[Symbol.dispose]() };
}

/** Asks for a target just as it is written. */
async function ask(server: Server, line: string, ...fields: string[]): Promise<Answer> {
  using conn = await server.connect();
  await writeAll(conn, [`${line} HTTP/1.1`, "Host: h", "Connection: close", ...fields, "", ""].join("\r\n"));
  const answers = new Answers(conn);
  const answer = await answers.next(line.split(" ")[0]);
  assert(answer !== null);
  assertEquals(await answers.next(), null); // and not a byte more
  return answer;
}

Deno.test("file_server sends files of every size byte for byte, over one connection", async () => {
  using site = website();
  const sizes = [0, 1, 4095, 4096, 4097, 131_072 - 300, 131_072, 131_073, 1_000_000];
  for (const size of sizes) Deno.writeFileSync(site.path(`${size}`), noise(size));
  await using server = await Server.start("file_server.ts", site.root);
  for (const size of sizes) {
    const response = await fetch(`${server.url}/${size}`);
    assertEquals([response.status, response.headers.get("content-length")], [200, `${size}`]);
    assertEquals(response.headers.get("content-type"), "application/octet-stream");
    assertSameBytes(new Uint8Array(await response.arrayBuffer()), noise(size));
  }
  using conn = await server.connect();
  await writeAll(conn, sizes.map((size) => `GET /${size} HTTP/1.1\r\nHost: h\r\n\r\n`).join(""));
  const answers = new Answers(conn);
  for (const size of sizes) assertEquals((await answers.next())?.body.length, size);
  await endsCleanly(server);
});

Deno.test("file_server knows types, heads, methods, directories and their listings", async () => {
  using site = website();
  await using server = await Server.start("file_server.ts", site.root);
  const asked = async (line: string) => {
    const { status, fields, body } = await ask(server, line);
    return [status, fields.get("content-type") ?? fields.get("allow") ?? fields.get("location"), body];
  };
  assertEquals(await asked("GET /hello.txt?query"), [200, "text/plain; charset=utf-8", "hello, files\n"]);
  assertEquals(await asked("HEAD /hello.txt"), [200, "text/plain; charset=utf-8", ""]);
  assertEquals((await ask(server, "HEAD /hello.txt")).fields.get("content-length"), "13");
  assertEquals(await asked("GET /page.HTML"), [200, "text/html; charset=utf-8", "<p>"]);
  assertEquals(await asked("GET /inside"), [200, "text/plain; charset=utf-8", "hello, files\n"]);
  assertEquals(await asked("GET http://h/hello.txt"), [200, "text/plain; charset=utf-8", "hello, files\n"]);
  assertEquals(await asked("GET /with%20index/"), [200, "text/html; charset=utf-8", "<p>index"]);
  assertEquals((await asked("POST /hello.txt")).slice(0, 2), [405, "GET, HEAD"]);
  assertEquals((await asked("OPTIONS *")).slice(0, 2), [405, "GET, HEAD"]);
  assertEquals((await asked("GET /with%20index?q")).slice(0, 2), [301, "/with%20index/?q"]);
  assertEquals((await asked("GET //sub%20dir")).slice(0, 2), [301, "/sub%20dir/"]); // never to a host "sub dir"
  for (const path of ["/none", "/hello.txt/", "/hello.txt/x", "/none/x", `/${"x".repeat(300)}`, "/loop"]) {
    assertEquals((await asked(`GET ${path}`))[0], 404, path);
  }

  const root = await fetch(`${server.url}/`);
  const page = await root.text();
  assertStringIncludes(page, '<a href="%3Cb%3E%26%22x\'/">&lt;b&gt;&amp;&quot;x&#39;/</a>');
  assertStringIncludes(page, '<a href="sub%20dir/">sub dir/</a>');
  assert(!page.includes("../"), page);
  const listing = await (await fetch(`${server.url}/sub%20dir/`)).text();
  assertStringIncludes(listing, '<a href="../">../</a>');
  const link = /href="([^.]+\.txt)"/.exec(listing)![1];
  assertEquals(await (await fetch(`${server.url}/sub%20dir/${link}`)).text(), "odd name");
  await endsCleanly(server);
});

Deno.test("file_server sends single ranges, and says so where there are no such bytes", async () => {
  using site = website();
  const data = noise(300_000);
  Deno.writeFileSync(site.path("data"), data);
  Deno.writeFileSync(site.path("empty"), new Uint8Array(0));
  await using server = await Server.start("file_server.ts", site.root);
  const range = async (value: string, path = "/data") => {
    const { status, fields, body } = await ask(server, `GET ${path}`, `Range: ${value}`);
    return { status, range: fields.get("content-range"), body: Uint8Array.from(body, (c) => c.charCodeAt(0)) };
  };
  const parts: [value: string, start: number, end: number][] = [
    ["bytes=0-0", 0, 1],
    ["bytes=0-", 0, 300_000],
    ["bytes=100-200", 100, 201],
    ["bytes=100000-299999", 100_000, 300_000],
    ["bytes=299999-", 299_999, 300_000],
    ["bytes=299999-99999999999999999999", 299_999, 300_000],
    ["bytes=-1", 299_999, 300_000],
    ["bytes=-200000", 100_000, 300_000],
    ["bytes=-999999", 0, 300_000],
    ["Bytes= 5-9 ", 5, 10],
  ];
  for (const [value, start, end] of parts) {
    const { status, range: contentRange, body } = await range(value);
    assertEquals([status, contentRange], [206, `bytes ${start}-${end - 1}/300000`], value);
    assertSameBytes(body, data.subarray(start, end));
  }
  for (const value of ["bytes=300000-", "bytes=999999-9999999", "bytes=-0"]) {
    const { status, range: contentRange } = await range(value);
    assertEquals([status, contentRange], [416, "bytes */300000"], value);
  }
  for (const value of ["bytes=0-", "bytes=-5"]) assertEquals((await range(value, "/empty")).status, 416);
  // What can't be read, or is more than one range, is as if it was not there.
  for (const value of ["bytes=5-4", "bytes=-", "bytes=", "bytes=a-b", "lines=1-2", "bytes=0-1,5-6", "bytes=1-2-3"]) {
    const { status, body } = await range(value);
    assertEquals([status, body.length], [200, 300_000], value);
  }
  const head = await ask(server, "HEAD /data", "Range: bytes=0-9");
  assertEquals([head.status, head.fields.get("content-length")], [200, "300000"]);
  await endsCleanly(server);
});

Deno.test("file_server sends nothing again that the client has, and nothing but what it means", async () => {
  using site = website();
  await using server = await Server.start("file_server.ts", site.root);
  const { fields } = await ask(server, "GET /hello.txt");
  const tag = fields.get("etag")!;
  const modified = fields.get("last-modified")!;
  const earlier = new Date(Date.parse(modified) - 1000).toUTCString();
  const status = async (...conditions: string[]) => (await ask(server, "GET /hello.txt", ...conditions)).status;
  assertEquals(await status(`If-None-Match: ${tag}`), 304);
  assertEquals(await status(`If-None-Match: "other", W/${tag}`), 304);
  assertEquals(await status("If-None-Match: *"), 304);
  assertEquals(await status('If-None-Match: "other"', `If-Modified-Since: ${modified}`), 200); // the tag decides
  assertEquals(await status(`If-Modified-Since: ${modified}`), 304);
  assertEquals(await status(`If-Modified-Since: ${earlier}`), 200);
  assertEquals(await status("If-Modified-Since: yesterday"), 200);
  assertEquals(await status("Range: bytes=0-1", `If-Range: ${tag}`), 206);
  assertEquals(await status("Range: bytes=0-1", `If-Range: ${modified}`), 206);
  assertEquals(await status("Range: bytes=0-1", 'If-Range: "other"'), 200);
  assertEquals(await status("Range: bytes=0-1", `If-Range: ${earlier}`), 200);
  assertEquals(await status("Range: bytes=0-1", `If-Match: "other", ${tag}`), 206);
  assertEquals(await status("If-Match: *", `If-Unmodified-Since: ${earlier}`), 200); // the tag decides here too
  assertEquals(await status(`If-Unmodified-Since: ${modified}`), 200);
  assertEquals(await status(`If-Unmodified-Since: ${earlier}`), 412);
  assertEquals(await status("If-Unmodified-Since: yesterday"), 200);
  Deno.writeTextFileSync(site.path("hello.txt"), "hello again, files\n");
  assertEquals(await status(`If-None-Match: ${tag}`), 200);
  assertEquals(await status("Range: bytes=5-", `If-Match: ${tag}`), 412); // half of the one, half of the other
  await endsCleanly(server);
});

Deno.test("file_server sends one file whole, whichever, when others take its place all the time", async () => {
  using site = website();
  const replace = (i: number) => {
    Deno.writeTextFileSync(site.path("next"), String.fromCharCode(97 + i % 26).repeat(1000 + i % 26));
    Deno.renameSync(site.path("next"), site.path("replaced"));
  };
  replace(0);
  await using server = await Server.start("file_server.ts", site.root);
  using conn = await server.connect();
  const answers = new Answers(conn);
  for (let request = 1; request <= 100; request++) {
    await writeAll(conn, "GET /replaced HTTP/1.1\r\nHost: h\r\n\r\n");
    let answered = false;
    const answer = answers.next().finally(() => answered = true);
    for (let i = request; !answered; i++) {
      replace(i);
      await loopTurn();
    }
    const body = (await answer)?.body ?? "";
    assertEquals(body, body[0].repeat(1000 + body.charCodeAt(0) - 97));
  }
  await endsCleanly(server);
});

Deno.test("file_server has nothing outside its directory, nor what is no file", async () => {
  using site = website();
  await execute("mkfifo", site.path("fifo"));
  await using server = await Server.start("file_server.ts", site.root);
  const paths: [status: number, path: string][] = [
    [403, "/../secret.txt"],
    [403, "/sub%20dir/../../secret.txt"],
    [403, "/%2e%2e/secret.txt"],
    [403, "/.%2E/secret.txt"],
    [404, "/..%2fsecret.txt"],
    [404, "/..%2Fwww%2Fhello.txt"],
    [404, "/%2Fetc%2Fpasswd"],
    [403, "/../www-secret/a.txt"],
    [403, "/outside"],
    [403, "/up/secret.txt"],
    [403, "/up/"],
    [403, "/sibling/a.txt"],
    [404, "//etc/passwd"],
    [400, "/hello.txt%00"],
    [400, "/%00/../../secret.txt"],
    [400, "/%"],
    [400, "/%ff"],
    [404, "/..\\secret.txt"],
    [403, "/fifo"],
    [200, "/up/www/hello.txt"], // out and in again is in
    [200, "/./hello.txt"],
  ];
  for (const [status, path] of paths) {
    const answer = await ask(server, `GET ${path}`);
    assertEquals(answer.status, status, path);
    assert(!answer.body.includes("secret\n") && !answer.body.includes(site.root), path);
  }
  if (has("curl")) {
    const url = `${server.url}/../../../../../../etc/passwd`;
    const { out } = await execute("curl", "-sS", "--path-as-is", "-w", "%{http_code}", url);
    assertEquals(out, "The path leads out of the directory\n403");
  }
  await endsCleanly(server);
});

testWith("curl", "curl", "file_server's ranges, heads and connections please curl", async () => {
  using site = website();
  Deno.writeFileSync(site.path("data"), noise(100_000));
  await using server = await Server.start("file_server.ts", site.root);
  const part = await execute("curl", "-sS", "-r", "4096-8191", `${server.url}/data`);
  assertSameBytes(part.bytes, noise(100_000).subarray(4096, 8192));
  Deno.writeFileSync(site.path("resumed"), noise(30_000));
  await execute("curl", "-sS", "-C", "-", "-o", site.path("resumed"), `${server.url}/data`);
  assertSameBytes(Deno.readFileSync(site.path("resumed")), noise(100_000));
  const head = await execute("curl", "-sSI", "-w", "%{http_code}", `${server.url}/data`);
  assertMatch(head.out, /^HTTP\/1\.1 200 OK\r\n(?:.+\r\n)*Content-Length: 100000\r\n(?:.+\r\n)*\r\n200$/);
  const urls = [`${server.url}/hello.txt`, `${server.url}/none`, `${server.url}/hello.txt`];
  const { out } = await execute("curl", "-sS", "-w", "%{http_code} %{num_connects}\n", ...urls);
  assertEquals(out, "hello, files\n200 1\nThere is no such file\n404 0\nhello, files\n200 0\n");
  const followed = await execute("curl", "-sSL", `${server.url}/with%20index`);
  assertEquals(followed.out, "<p>index");
  await endsCleanly(server);
});

Deno.test("file_server's small answers are not held back until the client acknowledges what went before", async () => {
  using site = website();
  await using server = await Server.start("file_server.ts", site.root);
  using conn = await server.connect();
  const answers = new Answers(conn);
  let slow = 0;
  for (let i = 0; i < 40; i++) {
    const started = performance.now();
    await writeAll(conn, "HEAD /hello.txt HTTP/1.1\r\nHost: h\r\n\r\n".repeat(2)); // which are answered by two writes
    for (let j = 0; j < 2; j++) assertEquals((await answers.next("HEAD"))?.status, 200);
    if (performance.now() - started >= 35) slow++; // Linux delays an acknowledgement by 40 ms
  }
  assert(slow < 20, `${slow} of 40 were held back`);
});

/** The most memory a process has had, in bytes. */
function peakMemory(pid: number): number {
  return 1024 * Number(/^VmHWM:\s+(\d+) kB$/m.exec(Deno.readTextFileSync(`/proc/${pid}/status`))?.[1]);
}

Deno.test("file_server sends 100 MB exactly to a fast and to a slow client, in the memory it had before", async () => {
  using site = website();
  const block = noise(1_000_003);
  const expected = createHash("sha256");
  {
    using file = Deno.openSync(site.path("large"), { write: true, create: true });
    for (let i = 0; i < 100; i++) {
      block[0] = i;
      assertEquals(file.writeSync(block), block.length);
      expected.update(block);
    }
  }
  const digest = expected.digest("hex");
  await using server = await Server.start("file_server.ts", site.root);
  await (await fetch(`${server.url}/hello.txt`)).text();
  const before = peakMemory(server.pid);

  // Clients that take a first piece and then nothing more keep the server waiting, and no one else.
  const stalled = await Promise.all(Array.from({ length: 20 }, () => server.connect()));
  for (const conn of stalled) {
    await writeAll(conn, "GET /large HTTP/1.1\r\nHost: h\r\n\r\n");
    assert(await conn.read(new Uint8Array(1000)) !== null);
  }
  const received = async (pauseEvery: number) => {
    const hash = createHash("sha256");
    const response = await fetch(`${server.url}/large`);
    assertEquals(response.headers.get("content-length"), "100000300");
    let bytes = 0;
    let paused = 0;
    for await (const piece of response.body!) {
      hash.update(piece);
      bytes += piece.length;
      if (bytes - paused < pauseEvery) continue;
      paused = bytes;
      // The pauses outlast what buffers hold: the server waits in its writes.
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
    return hash.digest("hex");
  };
  assertEquals(await Promise.all([received(Infinity), received(1_000_000)]), [digest, digest]);
  const growth = peakMemory(server.pid) - before;
  assert(growth < 50e6, `the server has grown by ${(growth / 1e6).toFixed(1)} MB for 22 times 100 MB`);
  assertMatch(await endsCleanly(server), /^Ctrl-C: closing 2\d connections\n/);
  for (const conn of stalled) conn.close();
});

Deno.test("file_server says how it is used, and what is no directory", async () => {
  assertEquals(await runExample("file_server.ts").then(({ code, err }) => [code, err]), [
    2,
    "usage: file_server.ts DIR [PORT]\n",
  ]);
  for (const path of [`${examples}file_server.ts`, `${examples}none`]) {
    const { code, err } = await runExample("file_server.ts", path);
    assertEquals([code, err], [1, `Not a directory: ${path}\n`]);
  }
});

// --- http_client ---

/** Serves with Deno's own server while `fn` runs. */
async function served(handler: (request: Request) => Response, fn: (url: string) => Promise<void>): Promise<void> {
  const controller = new AbortController();
  const { signal } = controller;
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, signal, onListen: () => {} }, handler);
  try {
    await fn(`http://127.0.0.1:${server.addr.port}`);
  } finally {
    controller.abort();
    await server.finished;
  }
}

/** Answers each connection with the same bytes while `fn` runs, and closes it; or keeps it open, if there are none. */
async function answering(bytes: string | null, fn: (url: string) => Promise<void>): Promise<void> {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const conns: Deno.Conn[] = [];
  const accepting = (async () => {
    for await (const conn of listener) {
      conns.push(conn);
      await conn.read(new Uint8Array(10_000));
      if (bytes === null) continue;
      await writeAll(conn, bytes);
      conn.close();
    }
  })();
  try {
    await fn(`http://127.0.0.1:${listener.addr.port}/`);
  } finally {
    listener.close();
    await accepting;
    if (bytes === null) { for (const conn of conns) conn.close(); }
  }
}

Deno.test("http_client writes what Deno.serve sends, byte for byte: chunks, lengths, nothing at all", async () => {
  const data = noise(20_000_001);
  const handler = (request: Request) => {
    switch (new URL(request.url).pathname) {
      case "/chunked": {
        let sent = 0;
        return new Response(
          new ReadableStream({
            pull(controller) {
              const piece = data.slice(sent, sent + 1 + sent % 70_000);
              sent += piece.length;
              if (piece.length > 0) controller.enqueue(piece);
              else controller.close();
            },
          }),
        );
      }
      case "/length":
        return new Response(data);
      case "/empty":
        return new Response(null, { status: 204 });
      default:
        return new Response(`asked for ${new URL(request.url).search}`, { status: 404, headers: { "x-a": "b" } });
    }
  };
  await served(handler, async (url) => {
    for (const path of ["/chunked", "/length"]) {
      const { code, bytes, err } = await runExample("http_client.ts", url + path);
      assertEquals([code, err], [0, ""], path);
      assertSameBytes(bytes, data);
    }
    const empty = await runExample("http_client.ts", "--fail", `${url}/empty`);
    assertEquals([empty.code, empty.out, empty.err], [0, "", ""]);
    const none = await runExample("http_client.ts", "-v", `${url}/none?a=b%20c#d`);
    assertEquals([none.code, none.out], [0, "asked for ?a=b%20c"]);
    assertMatch(none.err, /^HTTP\/1\.1 404 Not Found\n(?:[\w-]+: .+\n)*x-a: b\n(?:[\w-]+: .+\n)*\n$/);
    const failed = await runExample("http_client.ts", "--fail", `${url}/none`);
    assertEquals([failed.code, failed.out], [1, ""]);
    assertEquals(failed.err, "http_client: The server answered 404 Not Found\n");
  });
});

Deno.test("http_client reads to the end of the connection, passes interim answers over, and misses nothing", async () => {
  const responses: [response: string, code: number, out: string, err: RegExp][] = [
    ["HTTP/1.0 200 OK\r\n\r\nto the end\r\n\r\n", 0, "to the end\r\n\r\n", /^$/],
    ["HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab", 0, "ab", /^$/],
    ["HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 2\r\n\r\nno", 0, "no", /^$/],
    ["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", 1, "ab", /ended in the middle of a message\n$/],
    [
      "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
      1,
      "ab",
      /ended in the middle of a message\n$/,
    ],
    ["", 1, "", /closed the connection without an answer\n$/],
    ["SSH-2.0-OpenSSH\r\n", 1, "", /not one of HTTP\/1\.1\n$/],
  ];
  for (const [response, code, out, err] of responses) {
    await answering(response, async (url) => {
      const outcome = await runExample("http_client.ts", url);
      assertEquals([outcome.code, outcome.out], [code, out], response);
      assertMatch(outcome.err, err);
    });
  }
});

Deno.test("http_client gives up when its time is over, and where nobody listens", async () => {
  await answering(null, async (url) => {
    const { code, out, err } = await runExample("http_client.ts", "--timeout", "100", url);
    assertEquals([code, out, err], [1, "", "http_client: Timed out after 100 ms\n"]);
  });
  const refused = await runExample("http_client.ts", "http://127.0.0.1:1/");
  assertEquals(refused.code, 1);
  assertMatch(refused.err, /^http_client: Connection refused .*127\.0\.0\.1:1'\n$/);
  for (const args of [[], ["--timeout", "http://127.0.0.1:1/"], ["a", "b"], ["--unknown"]]) {
    const { code, err } = await runExample("http_client.ts", ...args);
    assertEquals([code, err], [2, "usage: http_client.ts [-v] [--fail] [--timeout MS] URL\n"]);
  }
  const { code, err } = await runExample("http_client.ts", "https://127.0.0.1/");
  assertEquals([code, err], [2, "http_client: Only http: URLs can be fetched, not https:\n"]);
});

Deno.test("http_client ends quietly when whoever reads has seen enough", async () => {
  await served(() => new Response(noise(20_000_000)), async (url) => {
    const command = commandOf("http_client.ts", { args: [url] }).map((word) => `'${word}'`).join(" ");
    const { bytes, err } = await execute("sh", "-c", `{ ${command}; echo "exit $?" >&2; } | head -c 10`);
    assertEquals(bytes, noise(20_000_000).slice(0, 10));
    assertEquals(err, "exit 0\n");
  });
});

testWith("nginx", "nginx-light", "http_client and http_stress_client understand nginx", async () => {
  using dir = scratch();
  const port = freePort();
  const data = noise(10_000_000);
  Deno.mkdirSync(dir.path("www"));
  Deno.writeFileSync(dir.path("www/large"), data);
  Deno.writeTextFileSync(dir.path("www/page.html"), "<p>".repeat(10_000));
  Deno.writeTextFileSync(
    dir.path("nginx.conf"),
    `daemon off; master_process off; pid ${dir.path("pid")}; error_log stderr;
     events { worker_connections 256; }
     http {
       access_log off; gzip off; keepalive_requests 10;
       client_body_temp_path ${dir.path("body")}; proxy_temp_path ${dir.path("proxy")};
       fastcgi_temp_path ${dir.path("fastcgi")}; uwsgi_temp_path ${dir.path("uwsgi")}; scgi_temp_path ${
      dir.path("scgi")
    };
       server {
         listen 127.0.0.1:${port};
         root ${dir.path("www")};
         # An included part makes the length unknown: nginx sends chunks.
         location = /chunked { ssi on; ssi_types *; try_files /page.html =404; }
       }
     }`,
  );
  const nginx = spawn(["nginx", "-p", dir.path(""), "-c", dir.path("nginx.conf")], "null");
  try {
    const url = `http://127.0.0.1:${port}`;
    await until("nginx listens", () => listens(port));
    const large = await runExample("http_client.ts", `${url}/large`);
    assertEquals([large.code, large.err], [0, ""]);
    assertSameBytes(large.bytes, data);
    const chunked = await runExample("http_client.ts", "-v", `${url}/chunked`);
    assertEquals([chunked.code, chunked.out], [0, "<p>".repeat(10_000)]);
    assertStringIncludes(chunked.err, "Transfer-Encoding: chunked\n");
    assertEquals((await runExample("http_client.ts", "--fail", `${url}/none`)).code, 1);
    const stress = await runExample(
      "http_stress_client.ts",
      "--connections",
      "8",
      "--requests",
      "400",
      `${url}/page.html`,
    );
    assertEquals([stress.code, stress.err], [0, ""]);
    // nginx closes each connection after ten requests.
    const made = Number(/^400 responses in .* s, (\d+) connections made$/m.exec(stress.out)?.[1]);
    assert(made >= 40 && made <= 48, stress.out);
    assertStringIncludes(stress.out, "\nstatus 200: 400\n");
    assertStringIncludes(stress.out, "\n0 errors\n");
  } finally {
    nginx.kill("SIGTERM");
    await nginx.stderr.cancel();
    await nginx.status;
  }
});

/** A port that nobody listens on. */
function freePort(): number {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  return listener.addr.port;
}

function listens(port: number): boolean {
  const local = `0100007F:${port.toString(16).toUpperCase().padStart(4, "0")}`;
  const rows = Deno.readTextFileSync("/proc/net/tcp").split("\n").map((row) => row.trim().split(/\s+/));
  return rows.some((row) => row[1] === local && row[3] === "0A");
}

// --- http_stress_client ---

Deno.test("http_stress_client asks as often as it is told to, and counts every answer", async () => {
  let asked = 0;
  const handler = () => new Response("hello", { status: ++asked % 10 === 0 ? 503 : 200 });
  await served(handler, async (url) => {
    const args = ["--connections", "10", "--requests", "500", `${url}/`];
    const { code, out, err } = await runExample("http_stress_client.ts", ...args);
    assertEquals([code, err], [0, ""]);
    assertEquals(asked, 500);
    assertMatch(out, /^500 responses in [\d.]+ s, 10 connections made$/m);
    assertStringIncludes(out, "\nstatus 200: 450\nstatus 503: 50\n");
    const [, ...shares] =
      /^latency: 50 %: ([\d.]+) ms, 90 %: ([\d.]+) ms, 99 %: ([\d.]+) ms, 99.9 %: ([\d.]+) ms, longest: ([\d.]+) ms/m
        .exec(out)!.map(Number);
    assertEquals(shares, shares.toSorted((a, b) => a - b));
    assert(shares[0] > 0, out);
    assertStringIncludes(out, "\n0 errors\n0 requests in flight\n");
  });
});

Deno.test("http_stress_client stops when its time is over, at Ctrl-C before, and counts errors", async () => {
  await served(() => new Response("hello"), async (url) => {
    const timed = await runExample("http_stress_client.ts", "--connections", "4", "--seconds", "0.5", url);
    assertEquals([timed.code, timed.err], [0, ""]);
    assertMatch(timed.out, /^\d+ responses in 0\.\d+ s, 4 connections made$/m);
    const child = start("http_stress_client.ts", "null", { args: ["--seconds", "60", url] });
    const reader = child.stdout.getReader();
    await readUntil(reader, "\n");
    child.kill("SIGINT");
    reader.releaseLock();
    const { code, out, err } = await outcome(child);
    assertEquals([code, err], [out.startsWith("0 responses") ? 1 : 0, ""]);
    assertMatch(out, /^\d+ responses in \d\.\d+ s, \d+ connections made\n/);
    assertStringIncludes(out, "\n0 errors\n0 requests in flight\n");
  });
  const args = ["--connections", "3", "--requests", "5", "http://127.0.0.1:1/"];
  const refused = await runExample("http_stress_client.ts", ...args);
  assertEquals([refused.code, refused.err], [1, ""]);
  assertMatch(refused.out, /^5 errors\n {2}5 times: Connection refused/m);
  await answering("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab", async (url) => {
    const { code, out } = await runExample("http_stress_client.ts", "--connections", "1", "--requests", "2", url);
    assertEquals(code, 1);
    assertMatch(out, /^2 errors\n {2}2 times: The connection ended in the middle of a message$/m);
  });
});

// --- concurrent_downloads ---

/** Temporary directories of the program's. */
function leftovers(): string[] {
  return Array.from(Deno.readDirSync("/tmp"), ({ name }) => name).filter((name) => name.startsWith("downloads-"));
}

Deno.test("concurrent_downloads fetches 100 resources at once, and leaves nothing behind", async () => {
  const before = leftovers();
  const { code, out, err } = await runExample("concurrent_downloads.ts");
  assertEquals([code, err], [0, ""]);
  assertMatch(out, /^100 of 100 connections made at once, in [\d.]+ ms$/m);
  assertStringIncludes(out, "\n100 requests went to the kernel together, by 1 system call\n");
  assertEquals([...out.matchAll(/^(\d+) of 100 ended, [\d.]+ MB$/gm)].map(([, ended]) => ended), [
    "25",
    "50",
    "75",
    "100",
  ]);
  assertMatch(out, /^100 downloaded, 0 failed: 49886200 bytes in [\d.]+ s, \d+ MB\/s; /m);
  assertMatch(out, /\nRemoved .*\/downloads-\w+\n0 requests in flight\n$/);
  assertEquals(leftovers(), before);
});

testWith(
  "strace",
  "strace",
  "concurrent_downloads' 100 files, connects and requests enter the kernel together",
  async () => {
    using dir = scratch();
    await served(() => new Response("hello"), async (url) => {
      const urls = Array.from({ length: 100 }, (_, i) => `${url}/${i}`);
      const trace = ["strace", "-f", "-e", "trace=io_uring_enter", "-o", dir.path("trace")];
      const { code, err } = await execute(...trace, ...commandOf("concurrent_downloads.ts", { args: urls }));
      assertEquals([code, err], [0, ""]);
    });
    const submitted = [...Deno.readTextFileSync(dir.path("trace")).matchAll(/io_uring_enter\(\d+, (\d+), /g)]
      .map(([, count]) => Number(count));
    // Connects and sends come with a LINK_TIMEOUT each.
    assertEquals(submitted.filter((count) => count >= 100).slice(0, 3), [100, 200, 200]);
  },
);

Deno.test("concurrent_downloads fetches the URLs it is given, and says which failed", async () => {
  const handler = (request: Request) =>
    new URL(request.url).pathname === "/none" ? new Response("no", { status: 404 }) : new Response(noise(1_000_000));
  await served(handler, async (url) => {
    const urls = [`${url}/one`, `${url}/none`, "http://127.0.0.1:1/", `${url}/two`];
    const { code, out, err } = await runExample("concurrent_downloads.ts", ...urls);
    assertEquals(code, 1);
    const [none, refused, ...rest] = err.split("\n");
    assertEquals([none, rest], [`${url}/none: The server answered 404 Not Found`, [""]]);
    assertMatch(refused, /^http:\/\/127\.0\.0\.1:1\/: Connection refused /);
    assertMatch(out, /^3 of 4 connections made/m);
    assertMatch(out, /^2 downloaded, 2 failed: 2000000 bytes in /m);
  });
  const { code, err } = await runExample("concurrent_downloads.ts", "nonsense");
  assertEquals(code, 2);
  assertMatch(err, /^concurrent_downloads: .*nonsense.*\n$/);
});

Deno.test("concurrent_downloads removes its files at Ctrl-C too", async () => {
  const before = leftovers();
  await answering(null, async (url) => {
    const child = start("concurrent_downloads.ts", "null", { args: [url] });
    const reader = child.stdout.getReader();
    await readUntil(reader, "by 1 system call\n");
    child.kill("SIGINT");
    reader.releaseLock();
    const { code, out, err } = await outcome(child);
    assertEquals([code, err], [130, ""]);
    assertMatch(out, /Removed .*\n0 requests in flight\n$/);
  });
  assertEquals(leftovers(), before);
});

// Before Deno 2.8 console.log throws when nobody reads any more.
const ignore = !isDeno2(8);
Deno.test(
  "concurrent_downloads downloads all the same when whoever reads its output has seen enough",
  { ignore },
  async () => {
    const before = leftovers();
    const command = commandOf("concurrent_downloads.ts").map((word) => `'${word}'`).join(" ");
    const { out, err } = await execute("sh", "-c", `{ ${command}; echo "exit $?" >&2; } | head -n 1`);
    assertMatch(out, /^Downloading 100 resources into .*\n$/);
    assertEquals([err, leftovers()], ["exit 0\n", before]);
  },
);

testWith("script", "bsdutils", "concurrent_downloads shows its progress in one line of a terminal", async () => {
  const command = commandOf("concurrent_downloads.ts").map((word) => `'${word}'`).join(" ");
  const { code, out } = await execute("script", "-qec", command, "/dev/null");
  assertEquals(code, 0);
  const [, ...shown] = out.split("\r\x1b[K");
  assert(shown.length >= 100, out); // for each that has ended, one
  for (const progress of shown.slice(0, -1)) assertMatch(progress, /^\d+ of 100 ended, [\d.]+ MB$/);
  assert(shown.at(-1)!.startsWith("100 of 100 ended, 49.9 MB\r\n"), out);
});
