/** Connections as Node's streams, and TLS over them, in both roles. */
import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { once } from "node:events";
import https from "node:https";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import tls from "node:tls";
import { type Conn, connect, defaultRing, listen, scope, socketpair, timeout, toDuplex } from "../mod.ts";
import { certificate, key } from "./support/certificate.ts";
import { assertDescriptors, sockets } from "./support/descriptors.ts";
import { program } from "./support/program.ts";
import { needsDuplex, needsTlsOverStreams } from "./support/runtime.ts";
import { until } from "./support/until.ts";

function pattern(count: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: count }, (_, i) => i * 7 + (i >> 9));
}

async function collect(stream: Duplex): Promise<Uint8Array<ArrayBuffer>> {
  const chunks: Uint8Array<ArrayBuffer>[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return new Uint8Array(await new Blob(chunks).arrayBuffer());
}

async function connected(): Promise<[client: Conn, server: Conn]> {
  await using listener = await listen({ hostname: "127.0.0.1", port: 0 });
  const client = await connect({ port: listener.addr.port });
  return [client, await listener.accept()];
}

/** The end of a stream: its connection is closed then. */
const gone = (stream: Duplex) => stream.closed ? Promise.resolve() : once(stream, "close");

Deno.test(
  "a Duplex carries bytes both ways, half closes, and closes the connection when both ways have ended",
  needsDuplex,
  async () => {
    const before = sockets();
    const [client, server] = await connected();
    const stream = toDuplex(client);
    stream.setNoDelay().setKeepAlive(true, 5000);
    const data = pattern(1_000_000);
    stream.cork();
    for (let at = 0; at < data.length; at += 50_000) stream.write(data.subarray(at, at + 50_000));
    stream.uncork();
    stream.end();
    assertEquals(await server.readAll(), data);
    await server.writeAll(data);
    await server.close();
    assertEquals(await collect(stream), data);
    await gone(stream);
    await assertRejects(() => client.read(new Uint8Array(1)), Deno.errors.BadResource);
    await assertDescriptors(before, sockets);
  },
);

Deno.test("destroying a Duplex ends the read and the write in flight, in the kernel", needsDuplex, async () => {
  const [client, server] = await connected();
  const stream = toDuplex(client);
  stream.on("data", () => {});
  stream.write(new Uint8Array(20_000_000));
  await until("a read and a write are in flight", () => defaultRing().inFlight === 2);
  stream.destroy();
  await gone(stream);
  assertEquals(defaultRing().inFlight, 0);
  await server.close();
});

Deno.test("a Duplex whose scope is cancelled is destroyed with the reason", needsDuplex, async () => {
  const [left, right] = socketpair();
  const enough = new Error("enough");
  const errors: unknown[] = [];
  await assertRejects(() =>
    scope(async (s) => {
      const stream = toDuplex(left);
      stream.on("error", (error) => errors.push(error));
      stream.on("data", () => {});
      await until("the read is in flight", () => defaultRing().inFlight === 1);
      s.cancel(enough);
      await gone(stream);
    })
  );
  assertEquals(errors, [enough]);
  await assertRejects(() => left.read(new Uint8Array(1)), Deno.errors.BadResource);
  await right.close();
});

Deno.test("what is no connection makes no Duplex", () => {
  for (const conn of [undefined, {}, Deno.stdin]) {
    assertThrows(() => toDuplex(conn as unknown as Conn), TypeError, "Conn");
  }
});

Deno.test("closing the connection of a Duplex destroys it, without an error", needsDuplex, async () => {
  const [left, right] = socketpair();
  const stream = toDuplex(left);
  const errors: unknown[] = [];
  stream.on("error", (error) => errors.push(error));
  stream.on("data", () => {});
  stream.write(new Uint8Array(8_000_000));
  await until("a read and a write are in flight", () => defaultRing().inFlight === 2);
  await left.close();
  await gone(stream);
  assertEquals(errors, []);
  await right.close();
});

Deno.test("a Duplex says so when nothing has come or gone for a while", needsDuplex, async () => {
  const [left, right] = socketpair();
  const stream = toDuplex(left);
  await new Promise<void>((resolve) => stream.setTimeout(5, resolve));
  stream.destroy();
  await gone(stream);
  await right.close();
});

Deno.test(
  "HTTPS over a connection: the certificate is verified, megabytes go both ways, nothing stays open",
  needsTlsOverStreams,
  async () => {
    const server = https.createServer({ key, cert: certificate }, async (request, response) => {
      const chunks: Uint8Array<ArrayBuffer>[] = [];
      for await (const chunk of request) chunks.push(chunk);
      response.end(new Uint8Array(await new Blob(chunks).arrayBuffer()));
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const { port } = server.address() as AddressInfo;
    const before = sockets();
    const data = pattern(2_000_000);
    const response = await timeout(20_000, async () => {
      await using conn = await connect({ hostname: "localhost", port });
      const secure = tls.connect({ socket: toDuplex(conn), servername: "localhost", ca: [certificate] });
      await once(secure, "secureConnect");
      assert(secure.authorized);
      secure.write(`POST / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: ${data.length}\r\n\r\n`);
      secure.write(data);
      return await collect(secure);
    });
    assert(new TextDecoder("latin1").decode(response).startsWith("HTTP/1.1 200 OK\r\n"));
    assertEquals(response.subarray(-data.length), data);
    await assertDescriptors(before, sockets);
    server.close();
    await once(server, "close");
  },
);

Deno.test("a server's certificate that nobody vouches for is refused", needsTlsOverStreams, async () => {
  const server = https.createServer({ key, cert: certificate }, (_, response) => void response.end());
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const conn = await connect({ port: (server.address() as AddressInfo).port });
  const secure = tls.connect({ socket: toDuplex(conn), servername: "localhost" });
  const error = await new Promise<Error>((resolve) => secure.once("error", resolve));
  assertStringIncludes(error.message, "self-signed certificate");
  secure.destroy();
  await conn.close();
  server.close();
  await once(server, "close");
});

/** Speaks TLS as the server, and sends back what comes. */
function echoSecurely(conn: Conn): Promise<void> {
  const secure = new tls.TLSSocket(toDuplex(conn), { isServer: true, key, cert: certificate });
  secure.on("error", () => secure.destroy());
  secure.pipe(secure);
  return new Promise((resolve) => secure.once("close", () => resolve()));
}

Deno.test("our listener serves TLS, to Deno's own client and to ours", needsTlsOverStreams, async () => {
  const before = sockets();
  {
    await using listener = await listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = listener.addr;
    const data = pattern(300_000);

    const first = listener.accept().then(echoSecurely);
    const theirs = await Deno.connectTls({ hostname: "localhost", port, caCerts: [certificate] });
    const writer = theirs.writable.getWriter();
    const writing = writer.write(data);
    const echoed = new Uint8Array(data.length);
    for (let at = 0; at < echoed.length;) at += await theirs.read(echoed.subarray(at)) ?? echoed.length;
    await writing;
    assertEquals(echoed, data);
    writer.releaseLock();
    theirs.close();
    await first;

    const second = listener.accept().then(echoSecurely);
    const conn = await connect({ port });
    const ours = tls.connect({ socket: toDuplex(conn), servername: "localhost", ca: [certificate] });
    ours.end(data);
    assertEquals(await collect(ours), data);
    ours.destroy();
    await conn.close();
    await second;
  }
  await assertDescriptors(before, sockets);
});

Deno.test("a deadline ends a handshake that nobody answers", needsTlsOverStreams, async () => {
  const [client, silent] = await connected();
  const error = await assertRejects(() =>
    timeout(20, async () => {
      const secure = tls.connect({ socket: toDuplex(client), servername: "localhost", ca: [certificate] });
      await once(secure, "secureConnect");
    }), DOMException);
  assertEquals([error.name, defaultRing().inFlight], ["TimeoutError", 0]);
  await client.close();
  await silent.close();
});

Deno.test(
  "https_client: fetches a page, and refuses a certificate that nobody vouches for unless told otherwise",
  needsTlsOverStreams,
  async () => {
    const server = https.createServer({ key, cert: certificate }, (request, response) => {
      response.end(`you asked for ${request.url}`);
    });
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    const url = `https://127.0.0.1:${(server.address() as AddressInfo).port}/a?b`;
    const example = new URL("../examples/https_client.ts", import.meta.url);
    const flags = ["--allow-ffi", "--allow-net"];
    const fetched = await program(example, { flags, args: ["--insecure", url] });
    assertEquals(fetched.code, 0, fetched.err);
    assertStringIncludes(fetched.out, "HTTP/1.1 200 OK");
    assertStringIncludes(fetched.out, "you asked for /a?b");
    const refused = await program(example, { flags, args: [url] });
    assertEquals(refused.code, 1);
    assertStringIncludes(refused.err, "self-signed certificate");
    server.close();
    await once(server, "close");
  },
);
