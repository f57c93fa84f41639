import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import {
  type Conn,
  connect,
  connectDatagram,
  copy,
  defaultRing,
  listen,
  listenDatagram,
  type OperationOptions,
  pipe,
  Ring,
  scope,
  socketpair,
  type SystemErrorFields,
  timeout,
} from "../mod.ts";
import { assertDescriptors, descriptors, sockets } from "./support/descriptors.ts";
import * as libc from "./support/libc.ts";
import { Random } from "./support/random.ts";
import { loopTurn, turns, until, within } from "./support/until.ts";

function pattern(bytes: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: bytes }, (_, i) => i * 11 + (i >> 10));
}

async function connected(hostname = "127.0.0.1"): Promise<{ client: Conn; server: Conn } & AsyncDisposable> {
  await using listener = await listen({ hostname, port: 0 });
  const accepted = listener.accept();
  const client = await connect({ hostname, port: listener.addr.port });
  const server = await accepted;
  return {
    client,
    server,
    async [Symbol.asyncDispose]() {
      await client.close();
      await server.close();
    },
  };
}

for (const hostname of ["127.0.0.1", "::1"]) {
  Deno.test(`TCP over ${hostname}: addresses, bytes both ways, half closing`, async () => {
    await using pair = await connected(hostname);
    const { client, server } = pair;
    assertEquals(client.remoteAddr.hostname, hostname);
    assertEquals(client.localAddr, server.remoteAddr);
    assertEquals(server.localAddr, client.remoteAddr);
    assertEquals(client.localAddr.transport, "tcp");
    await client.writeAll(pattern(100));
    const p = new Uint8Array(200);
    assertEquals(await server.read(p), 100);
    assertEquals(p.subarray(0, 100), pattern(100));
    await client.closeWrite();
    assertEquals(await server.read(p), null);
    await server.writeAll(pattern(50));
    await server.closeWrite();
    assertEquals(await client.readAll(), pattern(50));
  });
}

Deno.test("connect resolves names, and tries each address", async () => {
  await using listener = await listen({ hostname: "localhost", port: 0 });
  const accepted = listener.accept();
  await using client = await connect({ hostname: "localhost", port: listener.addr.port });
  await using _server = await accepted;
  assertEquals(client.remoteAddr.port, listener.addr.port);
});

Deno.test("a writeAll of 20 MB arrives whole at a slow reader, and several do not mix", async () => {
  await using pair = await connected();
  const { client, server } = pair;
  const sizes = [10_000_000, 3, 6_000_000, 4_000_000];
  const sending = Promise.all(sizes.map((bytes, i) => client.writeAll(new Uint8Array(bytes).fill(i + 1))))
    .then(() => client.closeWrite());
  let total = 0;
  const p = new Uint8Array(300_000);
  const bounds = sizes.map((_, i) => sizes.slice(0, i + 1).reduce((sum, bytes) => sum + bytes));
  for (let n: number | null; (n = await server.read(p)) !== null;) {
    for (let i = 0; i < n; i += 1000) {
      assertEquals(p[i], bounds.findIndex((bound) => total + i < bound) + 1);
    }
    total += n;
  }
  await sending;
  assertEquals(total, bounds.at(-1));
});

Deno.test("reads of one connection are served in the order of the calls", async () => {
  const [left, right] = socketpair();
  const buffers = Array.from({ length: 20 }, () => new Uint8Array(1));
  const reads = buffers.map((p) => right.read(p));
  for (let i = 0; i < 20; i++) await left.write(new Uint8Array([i]));
  assertEquals(await Promise.all(reads), new Array(20).fill(1));
  assertEquals(buffers.map(([byte]) => byte), Array.from({ length: 20 }, (_, i) => i));
  await left.close();
  await right.close();
});

Deno.test("a writeAll whose buffer is detached before it is submitted lets the next one have its turn", async () => {
  const [left, right] = socketpair();
  const waiting = right.read(new Uint8Array(100));
  const gone = new Uint8Array(10);
  const refused = assertRejects(() => left.writeAll(gone), TypeError, "detached");
  gone.buffer.transfer();
  await refused;
  await within("the next writeAll", left.writeAll(new Uint8Array(3)));
  assertEquals(await waiting, 3);
  await left.close();
  await right.close();
});

Deno.test("operations of every kind, one after another in 3,000 orders, know nothing of those before them", async () => {
  const random = new Random(3000);
  const before = descriptors();
  {
    await using ring = Ring.open();
    const [left, right] = socketpair({ ring });
    const [busy, idle] = socketpair({ ring });
    const waiting = busy.read(new Uint8Array(1)); // something is always in flight, so that requests are used again
    let sent = 0;
    let received = 0;
    const next = () => new Uint8Array([sent++]);
    const readOne = async (p = new Uint8Array(1), options?: OperationOptions) => {
      assertEquals(await right.read(p, options), 1);
      assertEquals(p[0], received++ & 255);
    };
    const kinds: (() => Promise<unknown>)[] = [
      () => Promise.all([left.writeAll(next()), readOne()]),
      () => Promise.all([readOne(), left.write(next())]),
      () => Promise.all([left.writeAll(next(), { timeout: 60_000 }), readOne(undefined, { timeout: 60_000 })]),
      () => assertRejects(() => right.read(new Uint8Array(1), { timeout: 0 }), DOMException, "timed out"),
      () => {
        const controller = new AbortController();
        const { signal } = controller;
        const aborted = assertRejects(() => right.read(new Uint8Array(1), { signal }), Error, "aborted");
        if (random.oneIn(2)) controller.abort(new Error("aborted"));
        else queueMicrotask(() => queueMicrotask(() => controller.abort(new Error("aborted"))));
        return aborted;
      },
      () =>
        scope(async (s) => {
          const child = s.spawn(() => right.read(new Uint8Array(1)));
          if (random.oneIn(2)) await loopTurn();
          child.cancel(new Error("cancelled"));
          await assertRejects(() => child, Error, "cancelled");
        }),
      () =>
        assertRejects(
          () => left.writeAll(new Uint8Array(1), { signal: AbortSignal.abort(new Error("already")) }),
          Error,
          "already",
        ),
      () =>
        scope(async (s) => {
          s.cancel(new Error("already"));
          await assertRejects(() => right.read(new Uint8Array(1)), Error, "already");
        }),
      async () => {
        const gone = new Uint8Array(1);
        const refused = assertRejects(() => left.writeAll(gone), TypeError, "detached");
        gone.buffer.transfer();
        await refused;
      },
      async () => {
        const gone = new Uint8Array(1);
        const refused = assertRejects(() => right.read(gone), TypeError, "detached");
        await turns(3); // it has been submitted
        gone.buffer.transfer();
        await left.writeAll(next());
        await refused;
        await readOne();
      },
      async () => {
        const [reader, writer] = socketpair({ ring });
        await writer.close();
        assertEquals(await reader.read(new Uint8Array(1)), null);
        await assertRejects(() => reader.writeAll(new Uint8Array(1)), Deno.errors.BrokenPipe);
        await reader.close();
      },
    ];
    for (let i = 0; i < 3000; i++) await within(`operation ${i}`, kinds[random.below(kinds.length)]());
    assertEquals(ring.inFlight, 1);
    await idle.writeAll(new Uint8Array(1));
    assertEquals(await waiting, 1);
    for (const conn of [left, right, busy, idle]) await conn.close();
  }
  await assertDescriptors(before);
});

Deno.test("bytes of a buffer that was detached meanwhile go to the read that waits, before any later ones", async () => {
  const [left, right] = socketpair();
  const buffers = Array.from({ length: 4 }, () => new Uint8Array(2));
  const [first, ...others] = buffers.map((p) => right.read(p));
  const refused = assertRejects(() => first, TypeError, "detached");
  await until("they wait", () => defaultRing().inFlight === 4);
  buffers[0].buffer.transfer();
  await left.writeAll(new Uint8Array([1, 2]));
  await refused;
  assertEquals([await within("the second read", others[0]), buffers[1]], [2, new Uint8Array([1, 2])]);
  buffers[2].buffer.transfer();
  await left.writeAll(new Uint8Array([3, 4]));
  await assertRejects(() => others[1], TypeError, "detached");
  await left.writeAll(new Uint8Array([5, 6]));
  assertEquals([await others[2], buffers[3]], [2, new Uint8Array([3, 4])]);
  assertEquals([await right.read(buffers[1]), buffers[1]], [2, new Uint8Array([5, 6])]);
  await left.close();
  await right.close();
});

Deno.test("a readAll that is aborted loses nothing: the next read delivers it", async () => {
  const [left, right] = socketpair();
  const controller = new AbortController();
  const all = right.readAll({ signal: controller.signal });
  await left.writeAll(pattern(1000));
  // The bytes have been taken from the socket when the next ones have been too.
  await left.writeAll(new Uint8Array([1]));
  await defaultRingTurns();
  controller.abort(new Error("enough"));
  await assertRejects(() => all, Error, "enough");
  await left.closeWrite();
  const expected = new Uint8Array(1001);
  expected.set(pattern(1000));
  expected[1000] = 1;
  assertEquals(await right.readAll(), expected);
  await left.close();
  await right.close();
});

/** Some turns of the event loop, so that what is ready has been delivered. */
async function defaultRingTurns(): Promise<void> {
  for (let i = 0; i < 5; i++) await new Promise((resolve) => setTimeout(resolve));
}

Deno.test("an aborted writeAll tells bytesWritten, which is what arrives", async () => {
  const [left, right] = socketpair();
  const controller = new AbortController();
  const writing = left.writeAll(new Uint8Array(8_000_000), { signal: controller.signal });
  await defaultRingTurns(); // the socket's buffer is full
  const reason = new Error("enough");
  controller.abort(reason);
  const error = await assertRejects(() => writing) as Error & { bytesWritten: number };
  assert(error === reason);
  await left.close();
  const arrived = await right.readAll();
  assertEquals(arrived.byteLength, error.bytesWritten);
  assert(error.bytesWritten > 0);
  await right.close();
});

Deno.test("what a writeAll writes later belongs to the scope it was called in, not to whoever is served then", async () => {
  const [left, right] = socketpair();
  const bytes = 8_000_000;
  const writing = scope(() => left.writeAll(new Uint8Array(bytes)));
  // Another scope's operations come and go, and the short writes are gone on with in between.
  let total = 0;
  while (total < bytes) {
    total += await scope(() => timeout(10_000, async () => await right.read(new Uint8Array(300_000)) ?? 0));
  }
  await writing;
  const enough = new Error("enough");
  const cancelled = assertRejects(() =>
    scope(async (s) => {
      s.spawn(async () => {
        await defaultRingTurns();
        s.cancel(enough);
      });
      await left.writeAll(new Uint8Array(bytes));
    })
  );
  assert(await cancelled === enough);
  await left.close();
  await right.close();
});

Deno.test("a refused connection is ConnectionRefused with the address, and leaks nothing", async () => {
  const listener = await listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  await listener.close();
  const count = () => Array.from(Deno.readDirSync("/proc/self/fd")).length;
  const before = count();
  for (let i = 0; i < 20; i++) {
    const error = await assertRejects(() => connect({ port })) as Error & SystemErrorFields;
    assertInstanceOf(error, Deno.errors.ConnectionRefused);
    assertEquals([error.code, error.operation, error.address], ["ECONNREFUSED", "connect", `127.0.0.1:${port}`]);
  }
  assertEquals(count(), before);
});

Deno.test("a reset connection is ConnectionReset for the read, BrokenPipe or ConnectionReset for the write", async () => {
  await using pair = await connected();
  const { client, server } = pair;
  await client.writeAll(pattern(100));
  await server.read(new Uint8Array(1)); // the rest has arrived too
  await server.close(); // with unread bytes: a reset
  await assertRejects(() => client.read(new Uint8Array(1)), Deno.errors.ConnectionReset);
  const error = await assertRejects(() => client.write(new Uint8Array(1)));
  assert(error instanceof Deno.errors.BrokenPipe || error instanceof Deno.errors.ConnectionReset);
});

Deno.test("a reset (RST) ends a read in flight, or a write, with its errno and the address, and leaks nothing", async () => {
  const before = sockets();
  const reset = async (operation: (conn: Conn) => Promise<unknown>) => {
    await using pair = await connected();
    const { client, server } = pair;
    const rejected = assertRejects(() => operation(client));
    await until("it is in flight", () => defaultRing().inFlight === 1);
    libc.resetOnClose(server.fd);
    await server.close();
    const error = await rejected as Error & SystemErrorFields & { bytesWritten?: number };
    assertEquals(error.address, `127.0.0.1:${client.remoteAddr.port}`);
    return error;
  };
  const read = await reset((conn) => conn.read(new Uint8Array(1)));
  assertInstanceOf(read, Deno.errors.ConnectionReset);
  assertEquals([read.code, read.operation], ["ECONNRESET", "read"]);
  const write = await reset((conn) => conn.writeAll(new Uint8Array(20_000_000)));
  assert(["ECONNRESET", "EPIPE"].includes(write.code) && write.operation === "write");
  assert(write.bytesWritten! > 0 && write.bytesWritten! < 20_000_000);
  await assertDescriptors(before, sockets);
});

Deno.test("an address that is not ours is AddrNotAvailable, and what can't be connected leaks nothing", async () => {
  const before = sockets();
  const error = await assertRejects(() => listen({ hostname: "192.0.2.1", port: 0 })) as Error & SystemErrorFields;
  assertInstanceOf(error, Deno.errors.AddrNotAvailable);
  assertEquals([error.code, error.operation, error.address], ["EADDRNOTAVAIL", "listen", "192.0.2.1:0"]);
  // Broadcast without leave (EACCES), a scope's address without its scope (EINVAL), nobody there (ECONNREFUSED).
  for (const hostname of ["255.255.255.255", "fe80::1", "127.0.0.1"]) {
    const failed = await assertRejects(() => connect({ hostname, port: 1 })) as Error & SystemErrorFields;
    assert(failed.errno > 0, failed.message);
    assertEquals(failed.operation, "connect");
  }
  // @ts-expect-error: no such transport
  await assertRejects(() => connect({ transport: "udp", port: 1 }), TypeError, "transport");
  // @ts-expect-error: no such transport
  await assertRejects(() => listen({ transport: "udp", port: 0 }), TypeError, "transport");
  await assertRejects(() => connect({ port: 1, timeout: -1 }), RangeError);
  await assertDescriptors(before, sockets);
});

Deno.test("an IPv6 address may stand in brackets, as in URLs", async () => {
  await using listener = await listen({ hostname: "[::1]", port: 0 });
  assertEquals(listener.addr.hostname, "::1");
  await using conn = await connect({ hostname: "[::1]", port: listener.addr.port });
  assertEquals(conn.remoteAddr, listener.addr);
  const error = await assertRejects(() => listen({ hostname: "[::1]", port: listener.addr.port })) as
    & Error
    & SystemErrorFields;
  assertEquals(error.address, `[::1]:${listener.addr.port}`);
});

Deno.test("a host without a name is refused with words", async () => {
  await assertRejects(() => connect({ hostname: "", port: 1 }), TypeError, "hostname is empty");
  await assertRejects(() => listen({ hostname: "", port: 0 }), TypeError, "hostname is empty");
  const hostname = 5 as unknown as string;
  await assertRejects(() => connect({ hostname, port: 1 }), TypeError, "hostname must be a string, not number");
  await assertRejects(() => listen({ hostname, port: 0 }), TypeError, "hostname must be a string, not number");
});

Deno.test("an address in use is AddrInUse; reusePort shares it", async () => {
  await using first = await listen({ hostname: "127.0.0.1", port: 0, reusePort: true });
  const { port } = first.addr;
  const error = await assertRejects(() => listen({ hostname: "127.0.0.1", port })) as Error & SystemErrorFields;
  assertInstanceOf(error, Deno.errors.AddrInUse);
  assertEquals(error.address, `127.0.0.1:${port}`);
  await using _second = await listen({ hostname: "127.0.0.1", port, reusePort: true });
});

Deno.test("iterating over a listener ends when it is closed, and not before", async () => {
  const listener = await listen({ hostname: "127.0.0.1", port: 0 });
  const serving = (async () => {
    let served = 0;
    for await (const conn of listener) {
      served++;
      await conn.close();
    }
    return served;
  })();
  for (let i = 0; i < 10; i++) {
    await using client = await connect({ port: listener.addr.port });
    assertEquals(await client.readAll(), new Uint8Array(0));
  }
  await listener.close();
  assertEquals(await serving, 10);
  await assertRejects(() => listener.accept(), Deno.errors.BadResource);
});

Deno.test("ports and host names that are none are refused", async () => {
  for (const port of [-1, 65536, 0.5, NaN]) {
    await assertRejects(() => connect({ port }), RangeError);
    await assertRejects(() => listen({ port }), RangeError);
  }
  const unknown = await assertRejects(() => connect({ hostname: "name.invalid", port: 1 })) as
    & Error
    & SystemErrorFields;
  assertEquals([unknown.operation, unknown.address], ["connect", "name.invalid:1"]);
});

Deno.test("a cancel while a name is being resolved takes effect when it is, and nothing stays open", async () => {
  await using listener = await listen({ hostname: "localhost", port: 0 });
  await using socket = await listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  const there = { hostname: "localhost", port: listener.addr.port };
  const operations: ((options?: { signal: AbortSignal }) => Promise<unknown>)[] = [
    (options) => connect({ ...there, ...options }),
    (options) => connectDatagram({ ...there, ...options }),
    (options) => socket.send(new Uint8Array(1), { ...there, port: socket.addr.port, transport: "udp" }, options),
    () => listen({ hostname: "localhost", port: 0 }),
    () => listenDatagram({ transport: "udp", hostname: "localhost", port: 0 }),
  ];
  const before = sockets();
  const enough = new Error("enough");
  for (const [i, run] of operations.entries()) {
    const cancelled = scope(async (s) => {
      const running = run();
      s.cancel(enough);
      await running;
    });
    assert(await assertRejects(() => cancelled) === enough, `${run}`);
    if (i > 2) continue; // they take no signal
    const controller = new AbortController();
    const running = assertRejects(() => run({ signal: controller.signal }));
    controller.abort(enough);
    assert(await running === enough, `${run}`);
  }
  await assertDescriptors(before, sockets);
  assertEquals(libc.readable(socket.fd), 0);
});

Deno.test("IPv6 addresses of every spelling reach the same place", async () => {
  await using listener = await listen({ hostname: "::", port: 0 });
  for (const hostname of ["::1", "0:0:0:0:0:0:0:1", "0::1", "::ffff:127.0.0.1", "::FFFF:7f00:1"]) {
    const accepted = listener.accept();
    await using _client = await connect({ hostname, port: listener.addr.port });
    await using server = await accepted;
    assertEquals(server.remoteAddr.hostname, hostname.toLowerCase().includes("ffff") ? "::ffff:127.0.0.1" : "::1");
  }
});

Deno.test("a pipe carries bytes, ends when the writer closes, and breaks when the reader does", async () => {
  const first = pipe();
  const data = pattern(1_000_000);
  const [read] = await Promise.all([
    first.reader.readAll(),
    first.writer.writeAll(data).then(() => first.writer.close()),
  ]);
  assertEquals(read.byteLength, data.byteLength);
  assert(read.every((byte, i) => byte === data[i]));
  await first.reader.close();
  const second = pipe();
  await second.reader.close();
  await assertRejects(() => second.writer.write(new Uint8Array(1)), Deno.errors.BrokenPipe);
  await second.writer.close();
});

Deno.test("Deno's own client and server talk to ours", async () => {
  await using listener = await listen({ hostname: "127.0.0.1", port: 0 });
  const accepted = listener.accept();
  const theirs = await Deno.connect({ port: listener.addr.port });
  await using ours = await accepted;
  await theirs.write(pattern(10));
  const p = new Uint8Array(10);
  assertEquals(await ours.read(p), 10);
  assertEquals(p, pattern(10));
  theirs.close();
  assertEquals(await ours.read(p), null);
  assertEquals(defaultRing().inFlight, 0);
});

Deno.test("a timeout's error says the time that was given, however many requests it went by", async () => {
  const [left, right] = socketpair();
  const { reader, writer } = pipe();
  const big = new Uint8Array(5_000_000);
  const overdue: [string, () => Promise<unknown>][] = [
    ["write", () => left.writeAll(big, { timeout: 25 })],
    ["write", () => writer.writeAll(big, { timeout: 25 })],
    ["read", () => left.readAll({ timeout: 25 })],
    ["copy", () => copy(right, writer, { timeout: 25 })],
  ];
  for (const [operation, run] of overdue) {
    const { message } = await assertRejects(run) as Error;
    assertEquals([message.split(" ")[0], message.slice(-21)], [operation, "timed out after 25 ms"], message);
  }
  await reader.close();
  await writer.close();
  await left.close();
  await right.close();
});

Deno.test("errors of a listener name the port that it has, not the 0 that was asked for", async () => {
  await using listener = await listen({ hostname: "127.0.0.1", port: 0 });
  await using socket = await listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  for (
    const [addr, run] of [
      [listener.addr, () => listener.accept({ timeout: 1 })],
      [socket.addr, () => socket.receive(undefined, { timeout: 1 })],
    ] as const
  ) {
    const { message } = await assertRejects(run) as Error;
    assert(message.includes(`'127.0.0.1:${addr.port}' timed out`), message);
  }
});

Deno.test("without --allow-net addresses are refused with NotCapable", async () => {
  const module = JSON.stringify(new URL("../mod.ts", import.meta.url).href);
  const source = `
    const { connect, listen } = await import(${module});
    for (const run of [() => connect({ port: 9 }), () => listen({ port: 0 })]) {
      await run().catch((error) => console.log(error.name, error.message.includes("--allow-net")));
    }`;
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--allow-ffi", `data:application/javascript,${encodeURIComponent(source)}`],
  }).output();
  assertEquals(
    new TextDecoder().decode(stdout),
    "NotCapable true\nNotCapable true\n",
    new TextDecoder().decode(stderr),
  );
});
