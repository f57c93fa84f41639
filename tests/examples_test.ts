import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { connect } from "../mod.ts";
import {
  assertSameBytes,
  examples,
  flagsOf,
  joined,
  noise,
  type Outcome,
  readUntil,
  run,
  scratch,
  start,
  text,
} from "./support/example.ts";

const MIB = 1 << 20;

// --- First lines ---

/** What a program needs to be given before it comes to what needs a flag. */
function argumentsOf(name: string): string[] {
  switch (name) {
    case "cat.ts":
    case "linked_cat.ts":
      return [examples + name];
    case "file_server.ts":
      return [examples];
    case "http_client.ts":
      return ["http://127.0.0.1:1/"];
    case "http_stress_client.ts":
      return ["--connections", "1", "--requests", "1", "http://127.0.0.1:1/"];
    case "copy_tree.ts":
      return [`${examples}http`, Deno.makeTempDirSync()];
    case "proxy.ts":
      return ["0", "127.0.0.1:1"];
    case "logger.ts":
    case "tee.ts":
      return [Deno.makeTempFileSync()];
    default:
      return [];
  }
}

for (const { name, isFile } of Deno.readDirSync(examples)) {
  if (!isFile) continue; // what several of them share
  Deno.test(`${name} can be executed and names its flags`, () => {
    assert(flagsOf(name).every((flag) => flag.startsWith("--allow-")), "no flag but permissions");
    assert((Deno.statSync(examples + name).mode! & 0o111) !== 0, "it has the executable bit");
  });

  Deno.test(`${name} needs every flag of its first line`, async () => {
    const flags = flagsOf(name);
    for (const flag of flags) {
      const args = argumentsOf(name);
      const { code, err } = await run(name, { args, flags: flags.filter((other) => other !== flag) });
      assertEquals(code, 1);
      assertStringIncludes(err, `run again with the ${flag.replace(/=.*/, "")} flag`);
    }
  });
}

// --- timeout_race ---

/** A part of timeout_race's output: who won, when, and the kernel's results as [what, result]. */
function parsePart(part: string): { winner: string; elapsed: number; results: [string, number][] } {
  const won = /^ {3}won by +(.+), after (\d+\.\d) ms$/m.exec(part);
  assert(won !== null, part);
  assertMatch(part, /^ {3}in flight +0 requests$/m);
  const lines = part.matchAll(/^ {3}(?:kernel| {6}) +([a-z ]+?) +(-?\d+)(?: .*)?$/gm);
  return {
    winner: won[1],
    elapsed: Number(won[2]),
    results: Array.from(lines, ([, what, result]) => [what, Number(result)]),
  };
}

Deno.test("timeout_race shows who won, the kernel's -ECANCELED for each loser, and nothing in flight", async () => {
  const { code, out, err } = await run("timeout_race.ts");
  assertEquals(err, "");
  assertEquals(code, 0);
  assertEquals(out.replace(/[^\n\x20-\x7e]/g, "?"), out, "plain text");
  const [before, first, second, third, fourth] = out.split(/^\d\. .*$/m);
  assertEquals(before, "");
  const sorted = (results: [string, number][]) => results.map(([what, result]) => `${what} ${result}`).sort();

  const race = parsePart(first);
  assertEquals(race.winner, "the timer");
  assert(race.elapsed >= 50, first);
  assertEquals(sorted(race.results), ["cancel of read 0", "read -125", "sleep -62"]);
  assertStringIncludes(first, "-125  -ECANCELED");

  const deadline = parsePart(second);
  assertEquals(deadline.winner, 'the deadline: "Timed out after 80 ms"');
  assert(deadline.elapsed >= 80, second);
  const losers = sorted(deadline.results).filter((line) => line.endsWith(" -125"));
  assertEquals(losers, ["read -125", "read -125", "sleep -125"]);

  const linked = parsePart(third);
  assertEquals(linked.winner, 'the deadline: "read timed out after 30 ms"');
  assert(linked.elapsed >= 30, third);
  // No cancel of ours: the kernel's link did it.
  assertEquals(sorted(linked.results), ["deadline of read -62", "read -125"]);

  const inTime = parsePart(fourth);
  assertEquals(inTime.winner, 'the read: "in time"');
  assert(inTime.elapsed >= 20 && inTime.elapsed < 10_000, fourth);
  assertEquals(sorted(inTime.results), ["cancel of sleep 0", "read 7", "sleep -125", "sleep -62", "write 7"]);
  assertMatch(fourth, /\nAll closed: 0 requests in flight\.\n$/);
});

Deno.test("timeout_race says why there is no io_uring, without a stack trace", async () => {
  const { code, out, err } = await run("timeout_race.ts", {
    flags: [...flagsOf("timeout_race.ts"), "--allow-env=RINGSCOPE_DISABLE"],
    env: { RINGSCOPE_DISABLE: "1" },
  });
  assertEquals([code, out], [1, ""]);
  assertMatch(err, /^.*RINGSCOPE_DISABLE.*\n$/);
});

// --- timer ---

Deno.test("timer wakes each sleeper in its turn and never early, sleeps in between, and ends by itself", async () => {
  const { code, out } = await run("timer.ts");
  assertEquals(code, 0);
  const woken = [...out.matchAll(/^slept +([\d.]+) ms, woke (-?[\d.]+) ms late$/gm)];
  assertEquals(woken.map(([, ms]) => Number(ms)), [2.5, 100, 200, 300, 400]);
  for (const [line, , late] of woken) assert(Number(late) >= 0, line);
  const summary = /^1002\.5 ms of sleep took ([\d.]+) ms; CPU time: (?:([\d.]+) ms|unknown)$/m.exec(out);
  assert(summary !== null, out);
  const [, elapsed, cpu = "0"] = summary;
  assert(Number(elapsed) >= 400, out);
  assert(Number(cpu) < Number(elapsed) / 4, out);
  assertStringIncludes(out, "\n0 requests in flight");
});

// --- ping_pong ---

Deno.test("ping_pong counts every hit of the ball", async () => {
  const { code, out, err } = await run("ping_pong.ts");
  assertEquals([code, err], [0, ""]);
  assertMatch(out, /^50000 rounds, 100000 hits counted\n[\d.]+ s, \d+ rounds per second\n0 requests in flight\n$/);
});

// --- cat and linked_cat ---

for (const example of ["cat.ts", "linked_cat.ts"]) {
  for (const bytes of [0, 1, 4095, 4096, 4097, 10_000, 65_536, MIB + 1, 20_000_000]) {
    Deno.test(`${example} copies ${bytes} bytes exactly to a pipe, to a file, and to the end of a file`, async () => {
      using dir = scratch();
      const data = noise(bytes);
      const before = noise(10);
      Deno.writeFileSync(dir.path("data"), data);
      Deno.writeFileSync(dir.path("appended"), before);
      const args = [dir.path("data")];
      const outcomes = await Promise.all([
        run(example, { args }),
        run(example, { args, shell: `exec "$@" > '${dir.path("copy")}'` }),
        run(example, { args, shell: `exec "$@" >> '${dir.path("appended")}'` }),
      ]);
      for (const { code, err } of outcomes) assertEquals([code, err], [0, ""]);
      assertSameBytes(outcomes[0].bytes, data);
      assertSameBytes(Deno.readFileSync(dir.path("copy")), data);
      const appended = Deno.readFileSync(dir.path("appended"));
      assertEquals(appended.subarray(0, 10), before);
      assertSameBytes(appended.subarray(10), data);
    });
  }

  Deno.test(`${example} copies 100 MB exactly to a file`, async () => {
    using dir = scratch();
    const data = noise(100_000_000);
    Deno.writeFileSync(dir.path("data"), data);
    const { code, err } = await run(example, { args: [dir.path("data")], shell: `exec "$@" > '${dir.path("copy")}'` });
    assertEquals([code, err], [0, ""]);
    const compared = await new Deno.Command("cmp", { args: [dir.path("data"), dir.path("copy")] }).output();
    assertEquals(compared.code, 0);
  });

  Deno.test(`${example} goes on where a write was short`, async () => {
    using dir = scratch();
    const data = noise(MIB + 1);
    Deno.writeFileSync(dir.path("data"), data);
    // A full pipe that is read in small pieces takes small pieces.
    const shell = '{ "$@"; echo "exit $?" >&2; } | dd bs=5000 status=none';
    const { bytes, err } = await run(example, { args: [dir.path("data")], shell });
    assertEquals(err, "exit 0\n");
    assertSameBytes(bytes, data);
  });

  Deno.test(`${example} leaves the position of its standard output where its bytes end`, async () => {
    using dir = scratch();
    const data = noise(100_000);
    Deno.writeFileSync(dir.path("data"), data);
    const shell = `{ printf '<'; "$@"; printf '>'; } > '${dir.path("copy")}'`;
    const { code, err } = await run(example, { args: [dir.path("data")], shell });
    assertEquals([code, err], [0, ""]);
    const copy = Deno.readFileSync(dir.path("copy"));
    assertEquals(text(copy.subarray(0, 1)) + text(copy.subarray(-1)), "<>");
    assertSameBytes(copy.subarray(1, -1), data);
  });

  Deno.test(`${example} ends quietly when whoever reads has seen enough`, async () => {
    using dir = scratch();
    const data = noise(4 * MIB);
    Deno.writeFileSync(dir.path("data"), data);
    const shell = '{ "$@"; echo "exit $?" >&2; } | head -c 10';
    const { bytes, err } = await run(example, { args: [dir.path("data")], shell });
    assertEquals(bytes, data.subarray(0, 10));
    assertEquals(err, "exit 0\n");
  });

  Deno.test(`${example} reads a FIFO, and passes on what comes when it comes`, async () => {
    using dir = scratch();
    assert((await new Deno.Command("mkfifo", { args: [dir.path("fifo")] }).output()).success);
    const child = start(example, "null", { args: [dir.path("fifo")] });
    const reader = child.stdout.getReader();
    const writer = await Deno.open(dir.path("fifo"), { write: true });
    for (const word of ["one", "two"]) {
      await writer.write(new TextEncoder().encode(word));
      assertEquals(await readUntil(reader, word), word);
    }
    writer.close();
    assertEquals((await reader.read()).done, true);
    assertEquals([(await child.status).code, await new Response(child.stderr).text()], [0, ""]);
  });

  Deno.test(`${example} says what is wrong with a file, and that it could not write`, async () => {
    using dir = scratch();
    const missing = await run(example, { args: [dir.path("missing")] });
    assertEquals([missing.code, missing.out], [1, ""]);
    assertMatch(missing.err, /^(linked_)?cat: No such file or directory .*missing.*\n$/);
    const directory = await run(example, { args: [examples] });
    assertEquals([directory.code, directory.out], [1, ""]);
    assertMatch(directory.err, /^(linked_)?cat: Is a directory .*examples.*\n$/);
    const full = await run(example, { args: [examples + example], shell: 'exec "$@" > /dev/full' });
    assertEquals(full.code, 1);
    assertMatch(full.err, /^(linked_)?cat: No space left on device .*\n$/);
  });

  const scriptWorks = await hasScript();
  Deno.test({
    name: `${example} copies exactly to a terminal${scriptWorks ? "" : " (skipped: needs script of util-linux)"}`,
    ignore: !scriptWorks,
    fn: async () => {
      using dir = scratch();
      const data = noise(300_001);
      Deno.writeFileSync(dir.path("data"), data);
      const { code, bytes } = await run(example, { args: [dir.path("data")], shell: onTerminal("stty raw -echo") });
      assertEquals(code, 0);
      assertSameBytes(bytes, data);
    },
  });
}

/** Whether there is a `script` that takes util-linux's options. */
async function hasScript(): Promise<boolean> {
  try {
    const { success } = await new Deno.Command("script", { args: ["-qec", "stty -a", "/dev/null"], stdin: "null" })
      .output();
    return success;
  } catch (error) {
    if (error instanceof Deno.errors.NotFound) return false;
    throw error;
  }
}

/** Has a shell run the example on a pseudo-terminal, which is made ready by `setUp`. */
function onTerminal(setUp: string): string {
  // script takes one string for its own shell: the command is written to it, quoted.
  return `quoted=; for word in "$@"; do quoted="$quoted '$word'"; done
    SHELL=/bin/sh exec script -qec "${setUp}; exec $quoted" /dev/null`;
}

Deno.test("cat does the other files after one that it can't read, and takes - for standard input", async () => {
  using dir = scratch();
  const [a, b, c] = [noise(5000), noise(70_000), noise(3)];
  Deno.writeFileSync(dir.path("a"), a);
  Deno.writeFileSync(dir.path("b"), b);
  Deno.writeFileSync(dir.path("c"), c);
  const { code, bytes, err } = await run("cat.ts", {
    args: [dir.path("a"), dir.path("missing"), "-", examples, dir.path("c")],
    shell: `exec "$@" < '${dir.path("b")}'`,
  });
  assertEquals(code, 1);
  assertMatch(err, /^cat: No such file .*missing.*\ncat: Is a directory .*\n$/);
  assertEquals(bytes, joined(a, b, c));
});

Deno.test("cat without a file reads standard input, and passes on what comes when it comes", async () => {
  const child = start("cat.ts", "piped");
  const writer = child.stdin.getWriter();
  const reader = child.stdout.getReader();
  for (const word of ["one", "two"]) {
    await writer.write(new TextEncoder().encode(word));
    assertEquals(await readUntil(reader, word), word);
  }
  await writer.close();
  assertEquals((await reader.read()).done, true);
  assertEquals([(await child.status).code, await new Response(child.stderr).text()], [0, ""]);
});

Deno.test("cat that can no longer write gives up its read of a silent standard input", async () => {
  const child = start("cat.ts", "piped");
  const writer = child.stdin.getWriter();
  const reader = child.stdout.getReader();
  await writer.write(new TextEncoder().encode("one"));
  await readUntil(reader, "one");
  await reader.cancel(); // closes the pipe
  await writer.write(new TextEncoder().encode("two"));
  // It ends although standard input stays open: the write's failure has cancelled the read beside it.
  assertEquals([(await child.status).code, await new Response(child.stderr).text()], [0, ""]);
  await writer.close().catch(() => {}); // nobody is there to take it
});

const scriptWorks = await hasScript();
Deno.test({
  name: `cat reads a terminal${scriptWorks ? "" : " (skipped: needs script of util-linux)"}`,
  ignore: !scriptWorks,
  fn: async () => {
    const child = start("cat.ts", "piped", { shell: onTerminal("stty -echo; echo ready") });
    const writer = child.stdin.getWriter();
    const reader = child.stdout.getReader();
    await readUntil(reader, "ready\r\n");
    for (const line of ["hello", "world"]) {
      await writer.write(new TextEncoder().encode(`${line}\n`));
      assertEquals(await readUntil(reader, "\n"), `${line}\r\n`);
    }
    await writer.write(new Uint8Array([4])); // Ctrl-D
    assertEquals((await reader.read()).done, true);
    assertEquals((await child.status).code, 0);
    await writer.close().catch(() => {}); // nobody is there to take it
    await child.stderr.cancel();
  },
});

// --- echo ---

/** An echo server that is running. */
class EchoServer implements AsyncDisposable {
  readonly #child = start("echo.ts", "null");
  readonly #out = this.#child.stdout.getReader();
  port = 0;

  static async start(): Promise<EchoServer> {
    const server = new EchoServer();
    const line = await readUntil(server.#out, "\n");
    server.port = Number(/:(\d+);/.exec(line)?.[1]);
    return server;
  }

  connect(): Promise<Deno.TcpConn> {
    return Deno.connect({ hostname: "127.0.0.1", port: this.port });
  }

  /** How many sockets with its port the server has open, the listener included; the runtime has others of its own. */
  sockets(): number {
    const port = this.port.toString(16).toUpperCase().padStart(4, "0");
    const rows = Deno.readTextFileSync("/proc/net/tcp").split("\n").map((row) => row.trim().split(/\s+/));
    const inodes = rows.filter(([, local]) => local?.endsWith(`:${port}`)).map((row) => `socket:[${row[9]}]`);
    const directory = `/proc/${this.#child.pid}/fd`;
    return Array.from(Deno.readDirSync(directory)).filter(({ name }) => {
      try {
        return inodes.includes(Deno.readLinkSync(`${directory}/${name}`));
      } catch {
        return false; // closed since
      }
    }).length;
  }

  /** Sends Ctrl-C, and tells how the server ended. */
  async interrupt(): Promise<Outcome> {
    this.#child.kill("SIGINT");
    this.#out.releaseLock();
    const { code, stdout, stderr } = await this.#child.output();
    return { code, bytes: stdout, out: text(stdout), err: text(stderr) };
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

/** Sends bytes while reading them back, until as many have come. */
async function roundTrip(conn: Deno.TcpConn, data: Uint8Array): Promise<void> {
  const received = new Uint8Array(data.length);
  const send = async () => {
    for (let sent = 0; sent < data.length;) sent += await conn.write(data.subarray(sent));
  };
  const receive = async () => {
    for (let filled = 0; filled < received.length;) {
      const n = await conn.read(received.subarray(filled));
      assert(n !== null, `The connection ended after ${filled} of ${data.length} bytes`);
      filled += n;
    }
  };
  await Promise.all([send(), receive()]);
  assertSameBytes(received, data);
}

Deno.test("echo gives 1,024 connections at once their own bytes back, and keeps no socket of theirs", async () => {
  await using server = await EchoServer.start();
  assertEquals(server.sockets(), 1);
  const conns = await Promise.all(Array.from({ length: 1024 }, () => server.connect()));
  const data = noise(1024 * 100 + 10_000);
  await Promise.all(conns.map((conn, i) => roundTrip(conn, data.subarray(i * 100, i * 100 + 10_000))));
  assertEquals(server.sockets(), 1 + 1024);
  for (const conn of conns) await conn.closeWrite();
  for (const conn of conns) assertEquals(await conn.read(new Uint8Array(1)), null); // the server has closed it
  assertEquals(server.sockets(), 1);
  for (const conn of conns) conn.close();
  const { code, out, err } = await server.interrupt();
  assertEquals([code, err], [0, ""]);
  assertStringIncludes(out, "Ctrl-C: closing 0 connections\n");
  assertStringIncludes(out, "Echoed 10240000 bytes over 1024 connections; 0 are open\n");
  assertStringIncludes(out, "\n0 requests in flight\n");
});

Deno.test("echo survives a connection that is reset", async () => {
  await using server = await EchoServer.start();
  using other = await server.connect();
  {
    // Not Deno's own, which sends an orderly end before it closes.
    await using resetting = await connect({ hostname: "127.0.0.1", port: server.port });
    await resetting.writeAll(new Uint8Array(2));
    assertEquals(await resetting.read(new Uint8Array(1)), 1);
  } // closed with a byte unread, which resets it
  await roundTrip(other, noise(1000));
  using another = await server.connect();
  await roundTrip(another, noise(1000));
  const { code, out, err } = await server.interrupt();
  assertEquals(code, 0);
  assertMatch(err, /^Connection reset by peer .*127\.0\.0\.1:\d+.*\n$/);
  assertStringIncludes(out, "over 3 connections; 0 are open\n");
});

Deno.test("echo ends at Ctrl-C with connections open: idle ones see the end, and nothing is left", async () => {
  await using server = await EchoServer.start();
  const idle = await Promise.all(Array.from({ length: 20 }, () => server.connect()));
  await Promise.all(idle.map((conn) => roundTrip(conn, noise(100))));
  // One that sends and does not read: the server waits in a write to it.
  using choking = await server.connect();
  const choked = (async () => {
    const data = new Uint8Array(MIB);
    for (;;) await choking.write(data);
  })().catch((error) => error);
  assertEquals(await choking.read(new Uint8Array(1)), 1);

  const ended = server.interrupt();
  for (const conn of idle) assertEquals(await conn.read(new Uint8Array(1)), null);
  const { code, out, err } = await ended;
  assertEquals([code, err], [0, ""]);
  assertStringIncludes(out, "Ctrl-C: closing 21 connections\n");
  assertStringIncludes(out, "over 21 connections; 0 are open\n");
  assertStringIncludes(out, "\n0 requests in flight\n");
  assert(await choked instanceof Error);
  for (const conn of idle) conn.close();
});
