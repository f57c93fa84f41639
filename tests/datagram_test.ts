import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import {
  connectDatagram,
  type DatagramConn,
  defaultRing,
  listenDatagram,
  type OperationOptions,
  race,
  scope,
  type SystemErrorFields,
  timeout,
} from "../mod.ts";
import { assertDescriptors, sockets } from "./support/descriptors.ts";
import * as libc from "./support/libc.ts";
import { until, within } from "./support/until.ts";

const bytes = (text: string) => new TextEncoder().encode(text);
const text = (data: Uint8Array) => new TextDecoder().decode(data);

function pattern(count: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: count }, (_, i) => i * 13 + (i >> 8));
}

function udp(hostname = "127.0.0.1"): Promise<DatagramConn> {
  return listenDatagram({ transport: "udp", hostname, port: 0 });
}

/** Waits until a receive is in the kernel. */
const waiting = (count: number) => until(`${count} in flight`, () => defaultRing().inFlight === count);

for (const hostname of ["127.0.0.1", "::1"]) {
  Deno.test(`UDP over ${hostname}: addresses, datagrams each way, none runs into another`, async () => {
    await using here = await udp(hostname);
    await using there = await udp(hostname);
    assertEquals(here.addr, { transport: "udp", hostname, port: here.addr.port });
    assertEquals(here.remoteAddr, null);
    for (const message of ["one", "", "three"]) {
      assertEquals(await there.send(bytes(message), here.addr), message.length);
    }
    for (const message of ["one", "", "three"]) {
      const [data, from] = await here.receive();
      assertEquals([text(data), from], [message, there.addr]);
      assertEquals(data.buffer.byteLength, data.byteLength);
    }
    await here.send(bytes("back"), there.addr);
    const p = new Uint8Array(10);
    const [data, from] = await there.receive(p);
    assertEquals([text(data), from, data.buffer === p.buffer], ["back", here.addr, true]);
  });
}

Deno.test("a name is resolved for the family of the socket", async () => {
  await using here = await udp();
  await using there = await udp();
  await there.send(bytes("hello"), { transport: "udp", hostname: "localhost", port: here.addr.port });
  assertEquals(text((await here.receive())[0]), "hello");
});

Deno.test("the longest datagram goes whole, a longer one is EMSGSIZE and nothing of it arrives", async () => {
  await using here = await udp();
  await using there = await udp();
  const longest = pattern(65_507);
  assertEquals(await there.send(longest, here.addr), 65_507);
  assertEquals((await here.receive())[0], longest);
  for (const count of [65_508, 1 << 20, 3 << 20]) {
    const error = await assertRejects(() => there.send(new Uint8Array(count), here.addr)) as Error & SystemErrorFields;
    assertEquals([error.code, error.operation, error.address], ["EMSGSIZE", "send", `127.0.0.1:${here.addr.port}`]);
  }
  await there.send(bytes("next"), here.addr);
  assertEquals(text((await here.receive())[0]), "next");
});

Deno.test("a datagram that does not fit is told, and the next receive delivers all of it", async () => {
  await using here = await udp();
  await using there = await udp();
  const data = pattern(1000);
  await there.send(data, here.addr);
  await there.send(bytes("second"), here.addr);
  await assertRejects(() => here.receive(new Uint8Array(999)), RangeError, "1000 bytes does not fit");
  await assertRejects(() => here.receive(new Uint8Array(0)), RangeError, "1000 bytes does not fit");
  const controller = new AbortController();
  controller.abort(new Error("enough"));
  await assertRejects(() => here.receive(undefined, { signal: controller.signal }), Error, "enough");
  assertEquals(await within("what was kept", here.receive(new Uint8Array(1000))), [data, there.addr]);
  assertEquals(text((await here.receive())[0]), "second");
});

Deno.test("a datagram that does not fit goes to the receive that waits, before any later one", async () => {
  await using here = await udp();
  await using there = await udp();
  const small = [1, 2].map((size) => assertRejects(() => here.receive(new Uint8Array(size)), RangeError));
  const large = [10, 10].map((size) => here.receive(new Uint8Array(size)));
  await waiting(4);
  await there.send(bytes("first"), here.addr);
  await Promise.all(small);
  assertEquals(text((await within("the first", large[0]))[0]), "first");
  await there.send(bytes("second"), here.addr);
  assertEquals(text((await large[1])[0]), "second");
});

Deno.test("a buffer that is detached during a receive loses no datagram", async () => {
  await using here = await udp();
  await using there = await udp();
  const p = new Uint8Array(100);
  const receiving = here.receive(p);
  await waiting(1);
  p.buffer.transfer();
  await there.send(bytes("kept"), here.addr);
  await assertRejects(() => receiving, RangeError, "detached");
  assertEquals(text((await here.receive())[0]), "kept");
});

Deno.test("what send is given may be changed or detached at once", async () => {
  await using here = await udp();
  await using there = await udp();
  const p = bytes("as it was");
  const sending = there.send(p, here.addr);
  p.fill(0);
  p.buffer.transfer();
  assertEquals(await sending, 9);
  assertEquals(text((await here.receive())[0]), "as it was");
});

Deno.test("a cancelled receive takes no datagram: by a signal, a timeout, a scope, a race", async () => {
  await using here = await udp();
  await using there = await udp();
  const controller = new AbortController();
  const reason = new Error("enough");
  const aborted = assertRejects(() => here.receive(undefined, { signal: controller.signal }));
  await waiting(1);
  controller.abort(reason);
  assert(await aborted === reason);
  const overdue = await assertRejects(() => here.receive(undefined, { timeout: 5 }), DOMException);
  assertEquals(overdue.name, "TimeoutError");
  await assertRejects(() => timeout(5, () => here.receive()), DOMException);
  await assertRejects(() =>
    scope((s) => {
      s.spawn(() => here.receive());
      throw reason;
    })
  );
  assertEquals(await race([() => here.receive().then(() => "datagram"), () => Promise.resolve("other")]), "other");
  assertEquals(defaultRing().inFlight, 0);
  for (const message of ["a", "b", "c"]) await there.send(bytes(message), here.addr);
  for (const message of ["a", "b", "c"]) assertEquals(text((await here.receive())[0]), message);
});

Deno.test("cancels that race with arrivals lose no datagram and double none", async () => {
  await using here = await udp();
  await using there = await udp();
  const received: number[] = [];
  for (let i = 0; i < 300; i++) {
    const controller = new AbortController();
    const receiving = here.receive(undefined, { signal: controller.signal }).then(
      ([data]) => void received.push(data[0] | data[1] << 8),
      () => {},
    );
    const sending = there.send(new Uint8Array([i, i >> 8]), here.addr);
    for (let turn = 0; turn < i % 12; turn++) await null;
    controller.abort();
    await Promise.all([receiving, sending]);
  }
  while (received.length < 300) {
    const [data] = await here.receive(undefined, { timeout: 5000 });
    received.push(data[0] | data[1] << 8);
  }
  assertEquals(received, Array.from({ length: 300 }, (_, i) => i));
});

Deno.test("receives are served in the order of the calls", async () => {
  await using here = await udp();
  await using there = await udp();
  const receives = Array.from({ length: 10 }, () => here.receive());
  for (let i = 0; i < 10; i++) await there.send(new Uint8Array([i]), here.addr);
  assertEquals((await Promise.all(receives)).map(([data]) => data[0]), Array.from({ length: 10 }, (_, i) => i));
});

Deno.test("a connected socket needs no address, and hears the one it is connected to alone", async () => {
  await using server = await udp();
  await using client = await connectDatagram({ port: server.addr.port });
  await using stranger = await udp();
  assertEquals(client.remoteAddr, server.addr);
  await stranger.send(bytes("psst"), client.addr);
  await client.send(bytes("ping"));
  const [ping, from] = await server.receive();
  assertEquals([text(ping), from], ["ping", client.addr]);
  await server.send(bytes("pong"), from);
  assertEquals(await client.receive(), [bytes("pong"), server.addr]);
});

Deno.test("that nobody is there is ConnectionRefused for the receive in flight and for the next send", async () => {
  const before = sockets();
  const gone = await udp();
  const { port } = gone.addr;
  await gone.close();
  const client = await connectDatagram({ port });
  await client.send(bytes("anybody?"));
  const receive = await assertRejects(() => client.receive()) as Error & SystemErrorFields;
  assertInstanceOf(receive, Deno.errors.ConnectionRefused);
  assertEquals([receive.code, receive.operation, receive.address], ["ECONNREFUSED", "receive", `127.0.0.1:${port}`]);
  await client.send(bytes("anybody?"));
  await assertRejects(() => client.send(bytes("really?")), Deno.errors.ConnectionRefused, "send");
  await client.close();
  await assertDescriptors(before, sockets);
});

Deno.test("without an address and not connected, send fails with EDESTADDRREQ", async () => {
  await using here = await udp();
  const error = await assertRejects(() => here.send(bytes("whither?"))) as Error & SystemErrorFields;
  assertEquals(error.code, "EDESTADDRREQ");
});

Deno.test("an address in use is AddrInUse, one that is not ours AddrNotAvailable, and nothing is left open", async () => {
  await using first = await udp();
  const { port } = first.addr;
  const before = sockets();
  const again = await assertRejects(() => listenDatagram({ transport: "udp", hostname: "127.0.0.1", port })) as
    & Error
    & SystemErrorFields;
  assertInstanceOf(again, Deno.errors.AddrInUse);
  assertEquals([again.operation, again.address], ["listenDatagram", `127.0.0.1:${port}`]);
  const foreign = { transport: "udp", hostname: "192.0.2.1", port: 0 } as const;
  await assertRejects(() => listenDatagram(foreign), Deno.errors.AddrNotAvailable);
  await assertRejects(() => listenDatagram({ transport: "udp", port: -1 }), RangeError);
  // @ts-expect-error: no such transport
  await assertRejects(() => listenDatagram({ transport: "tcp", port: 0 }), TypeError);
  // @ts-expect-error: not bytes
  await assertRejects(() => first.send("text", first.addr), TypeError);
  // @ts-expect-error: not bytes
  await assertRejects(() => first.receive("text"), TypeError);
  await assertDescriptors(before, sockets);
});

Deno.test("reuseAddress and reusePort share an address", async () => {
  for (const share of [{ reuseAddress: true }, { reusePort: true }]) {
    await using first = await listenDatagram({ transport: "udp", port: 0, ...share });
    await using second = await listenDatagram({ transport: "udp", port: first.addr.port, ...share });
    assertEquals(second.addr, first.addr);
  }
});

Deno.test("iterating ends when the socket is closed; a receive in flight is BadResource", async () => {
  const here = await udp();
  await using there = await udp();
  const received: string[] = [];
  const iterating = (async () => {
    for await (const [data] of here) received.push(text(data));
  })();
  for (const message of ["a", "b"]) await there.send(bytes(message), here.addr);
  await until("two datagrams", () => received.length === 2);
  await here.close();
  await iterating;
  const receiving = assertRejects(() => there.receive(), Deno.errors.BadResource);
  await waiting(1);
  await there.close();
  await receiving;
  await assertRejects(() => there.receive(), Deno.errors.BadResource);
  await assertRejects(() => there.send(bytes("late"), here.addr), Deno.errors.BadResource);
});

Deno.test("Unix datagrams: addresses, up to 200 KB, the unnamed, ENOENT, ECONNREFUSED", async () => {
  const directory = await Deno.makeTempDir();
  const at = (name: string) => ({ transport: "unixpacket", path: `${directory}/${name}` }) as const;
  {
    await using here = await listenDatagram(at("here"));
    await using there = await listenDatagram(at("there"));
    assertEquals(here.addr, at("here"));
    await there.send(bytes("hello"), here.addr);
    assertEquals(await here.receive(), [bytes("hello"), at("there")]);
    const long = pattern(200_000);
    await there.send(long, here.addr);
    assertEquals((await here.receive())[0], long);
    await using longer = await connectDatagram({ ...at("here"), sendBufferSize: 212_992 });
    await longer.send(pattern(400_000));
    await assertRejects(() => here.receive(), RangeError, "400000 bytes is lost");
    await longer.send(pattern(400_000));
    assertEquals((await here.receive(new Uint8Array(400_000)))[0], pattern(400_000));
    await using client = await connectDatagram(at("here"));
    assertEquals(client.remoteAddr, at("here"));
    await client.send(bytes("unnamed"));
    assertEquals(await here.receive(), [bytes("unnamed"), { transport: "unixpacket", path: "" }]);
    const inUse = await assertRejects(() => listenDatagram(at("here"))) as Error & SystemErrorFields;
    assertInstanceOf(inUse, Deno.errors.AddrInUse);
    assertEquals(inUse.path, at("here").path);
    await assertRejects(() => there.send(bytes("x"), at("nobody")), Deno.errors.NotFound, "nobody");
    await Deno.rename(at("here").path, at("nobody").path);
  }
  assertEquals(Array.from(Deno.readDirSync(directory), ({ name }) => name), ["nobody"]); // theirs are gone
  await using last = await listenDatagram({ transport: "unixpacket", path: `\0ringscope ${Deno.pid} datagram_test` });
  assertEquals(last.addr.path, `\0ringscope ${Deno.pid} datagram_test`);
  await assertRejects(() => last.send(bytes("x"), at("nobody")), Deno.errors.ConnectionRefused);
  await Deno.remove(directory, { recursive: true });
});

for (const connected of [false, true]) {
  const how = connected ? "connected" : "by address";
  Deno.test(`senders wait for a Unix receiver that is full, ${how}; a timeout or a cancel ends that`, async () => {
    const path = `\0ringscope ${Deno.pid} full ${connected}`;
    const there = connected ? undefined : { transport: "unixpacket", path } as const;
    await using here = await listenDatagram({ transport: "unixpacket", path });
    await using client = connected
      ? await connectDatagram({ transport: "unixpacket", path })
      : await listenDatagram({ transport: "unixpacket", path: `\0ringscope ${Deno.pid} sender` });
    const send = (i: number, options?: OperationOptions) =>
      there === undefined
        ? client.send(pattern(1000).fill(i, 0, 1), there, options)
        : client.send(pattern(1000).fill(i, 0, 1), there, options);
    let sent = 0;
    const overdue = await assertRejects(async () => {
      for (;; sent++) await send(sent, { timeout: 50 });
    }) as DOMException;
    assertEquals([overdue.name, defaultRing().inFlight], ["TimeoutError", 0]);
    assert(sent > 0);
    await assertRejects(() => timeout(20, () => send(sent)), DOMException);
    const sending = send(sent);
    for (let i = 0; i <= sent; i++) {
      assertEquals((await here.receive(undefined, { timeout: 5000 }))[0], pattern(1000).fill(i, 0, 1));
    }
    await sending;
    assertEquals(defaultRing().inFlight, 0);
  });
}

// Groups are joined by SOCKET_URING_OP_SETSOCKOPT, of Linux 6.7.
const [major, minor] = Deno.osRelease().split(".").map(Number);
const ignore = major < 6 || (major === 6 && minor < 7);

Deno.test("multicast: a member of a group receives what is sent to it, until it leaves", { ignore }, async () => {
  const hostname = "239.255.0.114"; // of this site
  await using member = await listenDatagram({ transport: "udp", port: 0 });
  await using sender = await listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0, loopback: true });
  libc.setSocketOption(sender.fd, 0, 32, 0x0100007f); // IP_MULTICAST_IF: it stays on the loopback interface
  const there = { transport: "udp", hostname, port: member.addr.port } as const;
  const membership = await member.joinMulticastV4(hostname, "127.0.0.1");
  await sender.send(bytes("to all"), there);
  assertEquals(await member.receive(undefined, { timeout: 5000 }), [bytes("to all"), sender.addr]);
  await membership.setLoopback(true);
  await membership.setTTL(3);
  assertEquals(libc.socketOption(member.fd, 0, 33), 3);
  await membership.leave();
  await sender.send(bytes("to the others"), there);
  await sender.send(bytes("to one"), { ...there, hostname: "127.0.0.1" });
  assertEquals(text((await member.receive())[0]), "to one");
  await assertRejects(() => membership.leave(), Deno.errors.AddrNotAvailable, "leave");
  await assertRejects(() => sender.joinMulticastV4("ff02::1", "0.0.0.0"), TypeError, "IPv4");
  const error = await assertRejects(() => sender.joinMulticastV4("10.0.0.1", "0.0.0.0")) as Error & SystemErrorFields;
  assertEquals([error.code, error.operation], ["EINVAL", "joinMulticastV4"]);
});

Deno.test("multicast: the kernel lists the members of a group of IPv6", { ignore }, async () => {
  const id = Deno.pid.toString(16).padStart(8, "0"); // no other process joins this group
  const group = `ff01::1:${id.slice(0, 4)}:${id.slice(4)}`;
  const members = () => Deno.readTextFileSync("/proc/net/igmp6").includes(`ff01${"0".repeat(16)}0001${id}`);
  await using member = await listenDatagram({ transport: "udp", hostname: "::1", port: 0 });
  const membership = await member.joinMulticastV6(group, 1);
  assert(members());
  await membership.setLoopback(true);
  assertEquals(libc.socketOption(member.fd, 41, 19), 1);
  await membership.leave();
  assert(!members());
  await assertRejects(() => membership.leave(), Deno.errors.AddrNotAvailable);
});

Deno.test("Deno's own sockets and ours understand each other", async () => {
  // deno-lint-ignore no-explicit-any -- unstable, and there only with --unstable-net
  const listenTheirs = (Deno as any).listenDatagram;
  if (listenTheirs === undefined) return;
  const theirs = listenTheirs({ transport: "udp", hostname: "127.0.0.1", port: 0 });
  await using ours = await udp();
  await ours.send(bytes("hello"), theirs.addr);
  const [data, from] = await theirs.receive();
  assertEquals([text(data), { ...from }], ["hello", ours.addr]);
  theirs.close();
});
