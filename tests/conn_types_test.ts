/** `Conn` and `Listener` where Deno's are asked for: their types, their streams, `ref` and `unref`, `using`. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  type Conn,
  connect,
  type DatagramConn,
  defaultRing,
  listen,
  type Listener,
  scope,
  socketpair,
} from "../mod.ts";
import { assertDescriptors, sockets } from "./support/descriptors.ts";
import * as libc from "./support/libc.ts";
import { program } from "./support/program.ts";
import { doorbells } from "./support/rings.ts";
import { until, within } from "./support/until.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (data: Uint8Array) => new TextDecoder().decode(data);

function pattern(count: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: count }, (_, i) => i * 7 + (i >> 9));
}

async function connected(): Promise<{ client: Conn; server: Conn } & AsyncDisposable> {
  await using listener = await listen({ hostname: "127.0.0.1", port: 0 });
  const client = await connect({ port: listener.addr.port });
  const server = await listener.accept();
  return {
    client,
    server,
    async [Symbol.asyncDispose]() {
      await client.close();
      await server.close();
    },
  };
}

const closed = (conn: Conn<Deno.Addr>) => assertRejects(() => conn.write(new Uint8Array(1)), Deno.errors.BadResource);

/** These lines are the test: they must compile. */
function assignable(
  conn: Conn,
  listener: Listener,
  datagram: DatagramConn,
  unix: Conn<Deno.UnixAddr>,
  unixListener: Listener<Deno.UnixAddr>,
) {
  const datagrams: Deno.DatagramConn = datagram;
  const conns: [Deno.Conn, Deno.Conn<Deno.NetAddr>, Deno.TcpConn, Deno.UnixConn] = [conn, conn, conn, unix];
  const listeners: [Deno.Listener, Deno.TcpListener, Deno.UnixListener] = [listener, listener, unixListener];
  return [conns, listeners, datagrams];
}

Deno.test("a function that takes Deno.Listener and Deno.Conn takes ours", async () => {
  async function echoOnce(listener: Deno.Listener): Promise<void> {
    for await (using conn of listener) {
      const buffer = new Uint8Array(16);
      const n = await conn.read(buffer);
      await conn.write(buffer.subarray(0, n ?? 0));
      return;
    }
  }
  assertEquals(typeof assignable, "function");
  await using listener = await listen({ hostname: "127.0.0.1", port: 0 });
  const served = echoOnce(listener);
  const client: Deno.Conn = await connect({ port: listener.addr.port });
  await client.write(bytes("hello"));
  const buffer = new Uint8Array(16);
  assertEquals(await client.read(buffer), 5);
  client.close();
  await served;
});

Deno.test("readable: chunks as they arrive, the end at the end, and writing goes on after it", async () => {
  await using pair = await connected();
  const { client, server } = pair;
  assert(server.readable === server.readable);
  const data = pattern(1_000_000);
  const sending = client.writeAll(data).then(() => client.closeWrite());
  const arrived = new Uint8Array(await new Response(server.readable).arrayBuffer());
  await sending;
  assertEquals(arrived, data);
  await server.writeAll(bytes("still here"));
  assertEquals(await client.read(new Uint8Array(100)), 10);
});

Deno.test("readable: a reader with its own buffer (BYOB) gets its bytes in it, and the end", async () => {
  await using pair = await connected();
  const { client, server } = pair;
  const reader = server.readable.getReader({ mode: "byob" });
  await client.writeAll(bytes("hello"));
  let { value, done } = await reader.read(new Uint8Array(new ArrayBuffer(8), 2, 3));
  assertEquals([text(value!), value!.byteOffset, value!.buffer.byteLength, done], ["hel", 2, 8, false]);
  ({ value, done } = await reader.read(new Uint8Array(100)));
  assertEquals(text(value!), "lo");
  await client.closeWrite();
  assertEquals((await reader.read(new Uint8Array(10))).done, true);
});

Deno.test("readable: nothing is read ahead, so read and readable may take turns", async () => {
  await using pair = await connected();
  const { client, server } = pair;
  const reader = server.readable.getReader();
  await client.writeAll(bytes("one"));
  assertEquals(text((await reader.read()).value!), "one");
  await client.writeAll(bytes("two"));
  await until("it has arrived", () => libc.readable(server.fd) === 3);
  assertEquals(defaultRing().inFlight, 0);
  const p = new Uint8Array(10);
  assertEquals(await server.read(p), 3);
});

Deno.test("readable: cancel closes the connection, a read in flight included", async () => {
  await using pair = await connected();
  const reader = pair.server.readable.getReader();
  const reading = reader.read();
  await until("the read is in flight", () => defaultRing().inFlight === 1);
  await reader.cancel();
  assertEquals((await reading).done, true);
  assertEquals(defaultRing().inFlight, 0);
  await closed(pair.server);
  assertEquals(await pair.client.read(new Uint8Array(1)), null);
});

Deno.test("readable: a reset is the stream's error, and closes the connection", async () => {
  await using pair = await connected();
  const reading = assertRejects(() => pair.server.readable.getReader().read(), Deno.errors.ConnectionReset);
  await until("the read is in flight", () => defaultRing().inFlight === 1);
  libc.resetOnClose(pair.client.fd);
  await pair.client.close();
  await reading;
  await closed(pair.server);
});

Deno.test("readable: a read belongs to the scope of whoever asks", async () => {
  await using pair = await connected();
  const enough = new Error("enough");
  const reader = pair.server.readable.getReader();
  const error = await assertRejects(() =>
    scope(async (s) => {
      s.spawn(async () => {
        await until("the read is in flight", () => defaultRing().inFlight === 1);
        s.cancel(enough);
      });
      await within("the read", reader.read());
    })
  );
  assert(error === enough);
});

Deno.test("writable: all that is written arrives in order; close ends it, and reading goes on", async () => {
  await using pair = await connected();
  const { client, server } = pair;
  const writer = client.writable.getWriter();
  const chunks = [pattern(300_000), pattern(5), pattern(0), pattern(700_000)];
  const writing = Promise.all(chunks.map((chunk) => writer.write(chunk))).then(() => writer.close());
  const arrived = await server.readAll();
  await writing;
  assertEquals(arrived.byteLength, 1_000_005);
  assertEquals(arrived.subarray(0, 300_000), chunks[0]);
  assertEquals(arrived.subarray(300_005), chunks[3]);
  await server.writeAll(bytes("answer"));
  assertEquals(await client.read(new Uint8Array(10)), 6);
});

Deno.test("writable: abort ends a write that is in flight, and closes the connection", async () => {
  await using pair = await connected();
  const writer = pair.client.writable.getWriter();
  const writing = assertRejects(() => writer.write(new Uint8Array(20_000_000)), Error, "enough");
  await until("the write is in flight", () => defaultRing().inFlight === 1);
  const ended = assertRejects(() => writer.closed, Error, "enough");
  await within("the abort", writer.abort(new Error("enough")));
  await writing;
  await ended;
  assertEquals(defaultRing().inFlight, 0);
  await closed(pair.client);
});

Deno.test("writable: what is not bytes is refused, and a broken connection is the stream's error", async () => {
  const [left, right] = socketpair();
  await right.close();
  const writer = left.writable.getWriter();
  writer.closed.catch(() => {});
  await assertRejects(() => writer.write(new Uint8Array(1)), Deno.errors.BrokenPipe);
  await closed(left);
  const [up, down] = socketpair();
  const other = up.writable.getWriter();
  other.closed.catch(() => {});
  // @ts-expect-error: not bytes
  await assertRejects(() => other.write("text"), TypeError);
  await down.close();
  await closed(up);
});

Deno.test("an echo by readable.pipeTo(writable) leaves nothing open when both sides have ended", async () => {
  const before = sockets();
  const listener = await listen({ hostname: "127.0.0.1", port: 0 });
  const serving = listener.accept().then((conn) => conn.readable.pipeTo(conn.writable));
  const client = await connect({ port: listener.addr.port });
  const data = pattern(500_000);
  const answer = new Response(client.readable).arrayBuffer();
  const writer = client.writable.getWriter();
  await writer.write(data);
  await writer.close();
  assertEquals(new Uint8Array(await answer), data);
  await serving;
  await listener.close();
  await assertDescriptors(before, sockets);
});

Deno.test("using begins the close: the other end sees it", async () => {
  const before = sockets();
  {
    using listener = await listen({ hostname: "127.0.0.1", port: 0 });
    await using client = await connect({ port: listener.addr.port });
    {
      using _server = await listener.accept();
    }
    assertEquals(await client.read(new Uint8Array(1)), null);
  }
  await assertDescriptors(before, sockets);
});

// A thread that waits keeps the process alive: it takes the pipe.
const ignore = !doorbells.includes("pipe");
Deno.test(
  "an accept or a read that is unreferenced lets the process end; referenced again it does not",
  { ignore },
  async () => {
    const start = `
    import { connect, defaultRing, listen, sleep } from LIBRARY;
    const listener = await listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = listener.addr;`;
    const ends = await program(`${start}
    const client = await connect({ port });
    const server = await listener.accept();
    listener.unref();
    client.unref();
    client.read(new Uint8Array(1));
    listener.accept();
    await sleep(20);
    console.log("in flight", defaultRing().inFlight);`);
    assertEquals([ends.code, ends.out], [0, "in flight 2\n"], ends.err);
    const late = await program(`${start}
    listener.accept().then(() => console.log("accepted"));
    await sleep(1);
    listener.unref();
    globalThis.addEventListener("unload", () => console.log("unload"));`);
    assertEquals([late.code, late.out], [0, "unload\n"], late.err);
    const stays = await program(`${start}
    listener.unref();
    const accepted = listener.accept().then(() => console.log("accepted"));
    await sleep(1);
    listener.ref();
    // A connection that comes when this process, but for the accept, has nothing left to wait for.
    new Deno.Command("bash", { args: ["-c", "sleep 0.2; exec 3<>/dev/tcp/127.0.0.1/" + port] }).spawn().unref();`);
    assertEquals([stays.code, stays.out], [0, "accepted\n"], stays.err);
    const alive = await program(`${start}
    listener.unref();
    const accepted = listener.accept();
    await sleep(50); // long enough for the loop to sleep with nothing but an unreferenced accept beside
    const client = await connect({ port });
    console.log((await accepted).remoteAddr.port === client.localAddr.port);
    await client.close();`);
    assertEquals([alive.code, alive.out], [0, "true\n"], alive.err);
    const silent = await program(`
    import { listenDatagram, sleep } from LIBRARY;
    const socket = await listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 });
    socket.receive();
    await sleep(20);
    socket.unref();
    globalThis.addEventListener("unload", () => console.log("unload"));`);
    assertEquals([silent.code, silent.out], [0, "unload\n"], silent.err);
  },
);
