import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { defaultRing, listen, open, pipe, poll, pollEvents, scope, socketpair, timeout } from "../mod.ts";
import * as libc from "./support/libc.ts";
import { turns, until } from "./support/until.ts";

const byte = new Uint8Array(1);

Deno.test("poll waits until there is something, takes nothing, and says what there is", async () => {
  const [left, right] = socketpair();
  const readable = poll(left, ["in", "rdhup"]);
  await turns(20);
  assertEquals(defaultRing().inFlight, 1);
  await right.writeAll(byte);
  assertEquals(await readable, new Set(["in"]));
  assertEquals(await poll(left, ["in", "out"]), new Set(["in", "out"]));
  assertEquals(await left.read(new Uint8Array(9)), 1);
  await right.close();
  assertEquals(await poll(left, ["rdhup"]), new Set(["rdhup", "hup"]));
  await left.close();
});

Deno.test("poll takes files, ends of pipes, and the numbers of descriptors", async () => {
  await using file = await open("/proc/self/exe");
  assertEquals(await poll(file, ["in", "out"]), new Set(["in", "out"]));
  const { reader, writer } = pipe();
  assertEquals(await poll(writer, ["out"]), new Set(["out"]));
  await writer.close();
  assertEquals(await poll(reader, ["in"]), new Set(["hup"]));
  await reader.close();
  await using listener = await listen({ hostname: "127.0.0.1", port: 0 });
  const incoming = poll(listener.fd, ["in"]);
  const client = await Deno.connect({ port: listener.addr.port });
  assertEquals(await incoming, new Set(["in"]));
  await (await listener.accept()).close();
  client.close();
});

Deno.test("poll is cancelled by signals, deadlines, scopes and the close of what it polls", async () => {
  const [left, right] = socketpair();
  const controller = new AbortController();
  const aborted = poll(left, ["in"], { signal: controller.signal });
  controller.abort("enough");
  assertEquals(await aborted.catch((error) => error), "enough");
  await assertRejects(() => poll(left, ["in"], { timeout: 1 }), DOMException, "timed out");
  await assertRejects(() => timeout(1, () => poll(left, ["in"])), DOMException);
  const closed = assertRejects(() => poll(left, ["in"]), Deno.errors.BadResource);
  await left.close();
  await closed;
  await assertRejects(() => poll(left, ["in"]), Deno.errors.BadResource);
  await assertRejects(() => poll(1 << 20, ["in"]), Deno.errors.BadResource);
  await right.close();
  assertEquals(defaultRing().inFlight, 0);
});

Deno.test("bytes that were read and kept count as readable", async () => {
  const [left, right] = socketpair();
  await right.writeAll(byte);
  // It has read a byte, waits for more, and gives it back.
  await assertRejects(() => left.readAll({ timeout: 5 }), DOMException);
  assertEquals(libc.readable(left.fd), 0);
  assertEquals(await poll(left, ["in"], { timeout: 1000 }), new Set(["in"]));
  assertEquals(await left.read(byte), 1);
  await assertRejects(() => poll(left, ["in"], { timeout: 1 }), DOMException);
  await left.close();
  await right.close();
});

Deno.test("pollEvents tells of all that comes about, by one request, until the loop is left", async () => {
  const { reader, writer } = pipe();
  const events = pollEvents(reader, ["in"]);
  for (let i = 0; i < 10; i++) {
    const next = events.next();
    await writer.writeAll(byte);
    assertEquals((await next).value, new Set(["in"]));
    assertEquals(defaultRing().inFlight, 1);
    await reader.read(byte);
  }
  await events.return!();
  assertEquals(defaultRing().inFlight, 0);
  await writer.close();
  for await (const event of pollEvents(reader, ["in"])) {
    assertEquals(event, new Set(["hup"]));
    break;
  }
  await reader.close();
});

Deno.test("pollEvents ends with its signal, its scope, and the close of what it polls", async () => {
  const { reader, writer } = pipe();
  const controller = new AbortController();
  const aborted = pollEvents(reader, ["in"], { signal: controller.signal }).next();
  controller.abort("enough");
  assertEquals(await aborted.catch((error) => error), "enough");
  const idle = new AbortController();
  const between = pollEvents(writer, ["out"], { signal: idle.signal });
  await between.next();
  assertEquals(defaultRing().inFlight, 1);
  idle.abort();
  await until("the request is stopped though nobody waits", () => defaultRing().inFlight === 0, 2000);
  await scope((s) => {
    s.spawn(() => pollEvents(reader, ["in"]).next(), { background: true });
  });
  assertEquals(defaultRing().inFlight, 0);
  const next = assertRejects(() => pollEvents(reader, ["in"]).next(), Deno.errors.BadResource);
  await reader.close();
  await next;
  await writer.close();
  assertEquals(defaultRing().inFlight, 0);
});

Deno.test("what can't be polled, or asked for, is refused", async () => {
  for (const events of [[], ["err"], ["POLLIN"]]) {
    await assertRejects(() => poll(0, events as "in"[]), TypeError);
    assertThrows(() => pollEvents(0, events as "in"[]), TypeError);
  }
  for (const source of [-1, 1.5, {}, null]) await assertRejects(() => poll(source as number, ["in"]), TypeError);
});
