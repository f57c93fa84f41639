import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import {
  connect,
  connectDatagram,
  type ConnectOptions,
  listen,
  listenDatagram,
  type ListenOptions,
  socketpair,
  type SystemErrorFields,
} from "../mod.ts";
import { assertDescriptors, sockets } from "./support/descriptors.ts";
import * as libc from "./support/libc.ts";

const TCP = 6;
const SOCKET = 1;

/** What the kernel says of a socket. */
function optionsOf(fd: number) {
  return {
    noDelay: libc.socketOption(fd, TCP, 1),
    keepAlive: libc.socketOption(fd, SOCKET, 9),
    idle: libc.socketOption(fd, TCP, 4),
    interval: libc.socketOption(fd, TCP, 5),
    count: libc.socketOption(fd, TCP, 6),
  };
}

const receiveBuffer = (fd: number) => libc.socketOption(fd, SOCKET, 8);
const sendBuffer = (fd: number) => libc.socketOption(fd, SOCKET, 7);

async function connected(listening: Partial<ListenOptions>, connecting: Partial<ConnectOptions>) {
  await using listener = await listen({ hostname: "127.0.0.1", port: 0, ...listening });
  const client = await connect({ port: listener.addr.port, ...connecting });
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

const keepAlive = { idleSeconds: 11, intervalSeconds: 7, count: 3 };

Deno.test("options of connect hold for the connection", async () => {
  await using pair = await connected({}, {
    noDelay: true,
    keepAlive,
    receiveBufferSize: 20_000,
    sendBufferSize: 30_000,
  });
  const { client, server } = pair;
  assertEquals(optionsOf(client.fd), { noDelay: 1, keepAlive: 1, idle: 11, interval: 7, count: 3 });
  assertEquals([receiveBuffer(client.fd), sendBuffer(client.fd)], [40_000, 60_000]); // the kernel doubles them
  const { noDelay, keepAlive: kept } = optionsOf(server.fd);
  assertEquals([noDelay, kept], [0, 0]);
});

Deno.test("options of listen hold for what is accepted", async () => {
  await using pair = await connected(
    { noDelay: true, keepAlive, receiveBufferSize: 20_000, sendBufferSize: 30_000 },
    {},
  );
  const { client, server } = pair;
  assertEquals(optionsOf(server.fd), { noDelay: 1, keepAlive: 1, idle: 11, interval: 7, count: 3 });
  assertEquals([receiveBuffer(server.fd), sendBuffer(server.fd)], [40_000, 60_000]);
  assertEquals(optionsOf(client.fd).noDelay, 0);
});

Deno.test("setNoDelay and setKeepAlive set, unset, and default to set", async () => {
  await using pair = await connected({}, {});
  const { client } = pair;
  client.setNoDelay();
  client.setKeepAlive();
  let { noDelay, keepAlive: kept } = optionsOf(client.fd);
  assertEquals([noDelay, kept], [1, 1]);
  client.setKeepAlive(keepAlive);
  assertEquals(optionsOf(client.fd), { noDelay: 1, keepAlive: 1, idle: 11, interval: 7, count: 3 });
  client.setNoDelay(false);
  client.setKeepAlive(false);
  ({ noDelay, keepAlive: kept } = optionsOf(client.fd));
  assertEquals([noDelay, kept], [0, 0]);
});

Deno.test("buffer sizes hold for datagrams and Unix sockets too", async () => {
  await using socket = await listenDatagram({
    transport: "udp",
    port: 0,
    receiveBufferSize: 20_000,
    sendBufferSize: 30_000,
  });
  assertEquals([receiveBuffer(socket.fd), sendBuffer(socket.fd)], [40_000, 60_000]);
  await using listener = await listen({ transport: "unix", path: `\0ringscope ${Deno.pid} options` });
  await using conn = await connect({
    transport: "unix",
    path: `\0ringscope ${Deno.pid} options`,
    sendBufferSize: 30_000,
  });
  await using _server = await listener.accept();
  assertEquals(sendBuffer(conn.fd), 60_000);
});

Deno.test("what makes no sense is refused before there is a socket", async () => {
  const before = sockets();
  const bad = [
    { keepAlive: { idleSeconds: 0 } },
    { keepAlive: { intervalSeconds: 0.5 } },
    { keepAlive: { count: 128 } },
    { receiveBufferSize: -1 },
    { sendBufferSize: NaN },
  ];
  for (const options of bad) {
    await assertRejects(() => connect({ port: 9, ...options }), RangeError, "must be an integer");
    await assertRejects(() => listen({ port: 0, ...options }), RangeError, "must be an integer");
  }
  await assertRejects(() => listen({ port: 0, backlog: -1 }), RangeError, "backlog");
  await assertRejects(() => listenDatagram({ transport: "udp", port: 0, sendBufferSize: 0 }), RangeError);
  // deno-lint-ignore no-explicit-any
  for (const run of [connect, listen, listenDatagram, connectDatagram] as any[]) {
    await assertRejects(() => run(), TypeError, "options must be an object");
    await assertRejects(() => run(null), TypeError, "options must be an object");
  }
  await assertDescriptors(before, sockets);
});

Deno.test("without a port a listener has one that the kernel chose, as with Deno's; whom to call must be said", async () => {
  const options = { hostname: "127.0.0.1" } as Deno.TcpListenOptions; // before Deno 2.9 its type asks for a port
  await using listener = await listen(options);
  assert(listener.addr.port > 0);
  await using datagrams = await listenDatagram({ transport: "udp", hostname: "127.0.0.1" });
  assert(datagrams.addr.port > 0);
  // deno-lint-ignore no-explicit-any
  for (const run of [connect, connectDatagram] as any[]) await assertRejects(() => run({}), RangeError, "port must be");
});

Deno.test("an option that the socket does not have is an error with its errno; a closed one is BadResource", async () => {
  const [left, right] = socketpair();
  const error = assertThrows(() => left.setNoDelay()) as Error & SystemErrorFields;
  assertEquals([error.code, error.operation], ["EOPNOTSUPP", "setNoDelay"]);
  assert(error instanceof Deno.errors.NotSupported);
  await left.close();
  await right.close();
  assertThrows(() => left.setKeepAlive(), Deno.errors.BadResource);
});
