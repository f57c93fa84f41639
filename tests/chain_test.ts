import { assert, assertEquals, assertInstanceOf, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { chain, ChainError, defaultRing, open, pipe, Ring, sleep, socketpair } from "../mod.ts";

function scratch(content: Uint8Array<ArrayBuffer>): { path: string; [Symbol.dispose](): void } {
  const path = Deno.makeTempFileSync();
  Deno.writeFileSync(path, content);
  return { path, [Symbol.dispose]: () => Deno.removeSync(path) };
}

function pattern(bytes: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: bytes }, (_, i) => i * 13 + 1);
}

async function chainError(run: () => PromiseLike<unknown>): Promise<ChainError> {
  const error = await assertRejects(async () => await run());
  assertInstanceOf(error, ChainError);
  return error;
}

function statuses(error: ChainError): string[] {
  return error.links.map(({ status }) => status);
}

Deno.test("a chain's value is a tuple typed by its calls", async () => {
  using file = scratch(pattern(100));
  const buffer = new Uint8Array(100);
  const results: [number, number | null, void] = await chain().open(file.path).read(buffer).close();
  assertEquals(results.slice(1), [100, undefined]);
  assertEquals(buffer, pattern(100));
  // @ts-expect-error: three calls are not two
  const _two: [number, number | null] = await chain().open(file.path).read(buffer).close();
  // @ts-expect-error: read gives a number or null
  const _text: [number, string, void] = await chain().open(file.path).read(buffer).close();
  const none: [] = await chain();
  assertEquals(none, []);
});

Deno.test("open, write, sync, close writes a file that was not there", async () => {
  using file = scratch(new Uint8Array(0));
  Deno.removeSync(file.path);
  const results = await chain().open(file.path, { write: true, createNew: true, mode: 0o600 }).write(pattern(5000))
    .sync().close();
  assertEquals(results.slice(1), [5000, undefined, undefined]);
  assertEquals(Deno.readFileSync(file.path), pattern(5000));
});

Deno.test("a write sends what a read before it has brought, although the buffer was never the kernel's", async () => {
  using file = scratch(pattern(3000));
  const { reader, writer } = pipe();
  await using source = await open(file.path);
  const buffer = new Uint8Array(4000);
  const part = buffer.subarray(500, 3500);
  assertEquals(await chain().read(source, part, { position: 0 }).write(writer, part), [3000, 3000]);
  const arrived = new Uint8Array(3000);
  assertEquals(await reader.read(arrived), 3000);
  assertEquals(arrived, pattern(3000));
  assertEquals(part, pattern(3000));
  assertEquals(buffer.subarray(0, 500), new Uint8Array(500));
  // Overlapping views: the write takes the middle of what the read brings, and bytes that were there before.
  buffer.fill(255);
  await chain().read(source, buffer.subarray(10, 20), { position: 100 }).write(writer, buffer.subarray(15, 25));
  assertEquals(await reader.read(arrived), 10);
  assertEquals(arrived.subarray(0, 10), new Uint8Array([...pattern(3000).subarray(105, 110), 255, 255, 255, 255, 255]));
  await reader.close();
  await writer.close();
});

Deno.test("a failed link is failed, those before it fulfilled, those after it skipped", async () => {
  using file = scratch(pattern(10));
  const buffer = new Uint8Array(10);
  const missing = await chainError(() => chain().open("/nonexistent").read(buffer).close());
  assertEquals(statuses(missing), ["failed", "skipped", "skipped"]);
  assertInstanceOf(missing.cause, Deno.errors.NotFound);
  assertStrictEquals((missing.links[0] as { error: unknown }).error, missing.cause);
  const readOnly = await chainError(() => chain().open(file.path).read(buffer).write(buffer).close());
  assertEquals(statuses(readOnly), ["fulfilled", "fulfilled", "failed", "skipped"]);
  assertEquals((readOnly.links[1] as { value: unknown }).value, 10);
  assertInstanceOf(readOnly.cause, Deno.errors.BadResource);
  assert(readOnly.stack!.includes("chain_test.ts"), "the caller's line is in the stack");
});

Deno.test("a short read is a success that ends a soft chain, and nothing is lost", async () => {
  using file = scratch(pattern(10));
  const buffer = new Uint8Array(20);
  const error = await chainError(() => chain().open(file.path).read(buffer).close());
  assertEquals(statuses(error), ["fulfilled", "fulfilled", "skipped"]);
  assertEquals((error.links[1] as { value: unknown }).value, 10);
  assertEquals(error.cause, undefined);
  assertEquals(buffer.subarray(0, 10), pattern(10));
  // As the last link it ends nothing.
  assertEquals((await chain().open(file.path).read(buffer))[1], 10);
  const [, , atEnd] = await chain().open(file.path).read(buffer.subarray(0, 10)).read(buffer);
  assertEquals(atEnd, null);
});

Deno.test("a short read from a connection ends the chain too", async () => {
  const [left, right] = socketpair();
  const buffer = new Uint8Array(10);
  const running = chainError(() => chain().read(right, buffer).write(right, buffer));
  await left.writeAll(pattern(4));
  await left.closeWrite();
  const error = await running;
  assertEquals(error.links, [
    { operation: "read", status: "fulfilled", value: 4 },
    { operation: "write", status: "skipped" },
  ]);
  await left.close();
  await right.close();
});

Deno.test("a hard link is survived, by a short read as by an error", async () => {
  using file = scratch(pattern(10));
  const buffer = new Uint8Array(20);
  assertEquals((await chain().open(file.path).read(buffer).hard().close()).slice(1), [10, undefined]);
  const { reader, writer } = pipe();
  const error = await chainError(() =>
    chain().open(file.path).write(pattern(1)).hard().write(writer, pattern(5)).close()
  );
  assertEquals(statuses(error), ["fulfilled", "failed", "fulfilled", "fulfilled"]);
  assertEquals(await reader.read(buffer), 5);
  await reader.close();
  await writer.close();
});

Deno.test("timeout gives the call before it a deadline, and the chain ends there", async () => {
  const [left, right] = socketpair();
  const buffer = new Uint8Array(4);
  const error = await chainError(() => chain().sleep(1).read(left, buffer).timeout(5).write(left, buffer));
  assertEquals(statuses(error), ["fulfilled", "failed", "skipped"]);
  assertInstanceOf(error.cause, DOMException);
  assertEquals((error.cause as DOMException).name, "TimeoutError");
  await right.write(pattern(4));
  assertEquals(await chain().read(left, buffer).timeout(10_000).write(left, buffer), [4, 4]);
  assertEquals(defaultRing().inFlight, 0);
  await left.close();
  await right.close();
});

Deno.test("a timeout for the whole chain, and an abort, reject with their reason and tell what had been done", async () => {
  using file = scratch(pattern(10));
  const [left, right] = socketpair();
  const late = chain({ timeout: 5 }).open(file.path).read(new Uint8Array(10)).read(left, new Uint8Array(1)).close();
  const error = await assertRejects(async () => await late) as DOMException;
  assertEquals(error.name, "TimeoutError");
  assertEquals(late.links.map(({ status }) => status), ["fulfilled", "fulfilled", "failed", "skipped"]);
  const controller = new AbortController();
  const reason = new Error("enough");
  const aborted = chain({ signal: controller.signal }).sleep(1).read(left, new Uint8Array(1)).hard().sleep(10_000);
  const running = assertRejects(async () => await aborted);
  await sleep(5);
  controller.abort(reason);
  assertStrictEquals(await running, reason);
  const already = assertRejects(async () => await chain({ signal: controller.signal }).sleep(1));
  assertStrictEquals(await already, reason);
  assertEquals(defaultRing().inFlight, 0);
  await left.close();
  await right.close();
});

Deno.test("a value beats an abort that comes too late", async () => {
  using file = scratch(pattern(10));
  const controller = new AbortController();
  const buffer = new Uint8Array(10);
  const results = await chain({ signal: controller.signal }).open(file.path).read(buffer).close();
  controller.abort();
  assertEquals(results.length, 3);
});

Deno.test("files opened in a chain are closed with it, however it ended", async () => {
  using file = scratch(pattern(10));
  // A writer's end that only this chain's file holds: the reader sees the end when it is closed.
  const fifo = `${file.path}.fifo`;
  assert((await new Deno.Command("mkfifo", { args: [fifo] }).output()).success);
  await using reader = await open(fifo, { read: true, write: true });
  const opened = await chain().open(fifo, { read: true, write: true });
  assertEquals(opened.length, 1);
  await chainError(() => chain().open(fifo, { write: true }).write(pattern(3)).open("/nonexistent").close());
  assertEquals(await reader.read(new Uint8Array(3)), 3);
  Deno.removeSync(fifo);
  // More chains than there are direct descriptors, all at once: none is left taken, or this would not end.
  const buffers = Array.from({ length: 600 }, () => new Uint8Array(20));
  for (let round = 0; round < 2; round++) {
    await Promise.all(buffers.map(async (buffer) => {
      assertEquals((await chain().open(file.path).read(buffer))[1], 10);
    }));
  }
  assertEquals(defaultRing().inFlight, 0);
});

Deno.test("a chain that waits for a direct descriptor can be cancelled", async () => {
  await using ring = Ring.open({ entries: 512 });
  const [left, right] = socketpair({ ring });
  const holding = Array.from({ length: 256 }, () => {
    const holder = chain({ ring }).open("/dev/null").read(left, new Uint8Array(1)).close();
    return holder.then(() => {}, () => {});
  });
  await sleep(1);
  const controller = new AbortController();
  const waiting = assertRejects(async () => await chain({ ring, signal: controller.signal }).open("/dev/null").close());
  await sleep(1);
  const reason = new Error("enough");
  controller.abort(reason);
  assertStrictEquals(await waiting, reason);
  await left.close();
  await right.close();
  await Promise.all(holding);
  assertEquals((await chain({ ring }).open("/dev/null").close()).length, 2);
});

Deno.test("a chain runs once, when it is awaited", async () => {
  using file = scratch(new Uint8Array(0));
  await using target = await open(file.path, { append: true });
  const once = chain().write(target, pattern(3));
  assertEquals(Deno.statSync(file.path).size, 0);
  assertEquals(await once, [3]);
  assertEquals(await once, [3]);
  assertEquals(Deno.statSync(file.path).size, 3);
  assertThrows(() => once.write(target, pattern(1)), TypeError, "has run");
});

Deno.test("calls that make no chain are refused where they are made", async () => {
  const [left, right] = socketpair();
  const { reader, writer } = pipe();
  assertThrows(() => chain().read(new Uint8Array(1)), TypeError, "needs a file");
  assertThrows(() => chain().close(), TypeError, "needs a file");
  assertThrows(() => chain().timeout(1), TypeError, "before it");
  assertThrows(() => chain().hard(), TypeError, "before it");
  assertThrows(() => chain().open("/dev/null").read(new Uint8Array(0)), RangeError);
  assertThrows(() => chain().open("/dev/null").read(new Uint8Array(2 ** 20 + 1)), RangeError);
  assertThrows(() => chain().open("/dev/null").read(new Uint8Array(1), { position: -1 }), RangeError);
  assertThrows(() => chain().read(left, new Uint8Array(1), { position: 0 }), TypeError, "no positions");
  // @ts-expect-error: the writing end can't be read
  assertThrows(() => chain().read(writer, new Uint8Array(1)), TypeError);
  // @ts-expect-error: the reading end can't be written
  assertThrows(() => chain().write(reader, new Uint8Array(1)), TypeError);
  assertThrows(() => chain().sleep(-1), RangeError);
  await using ring = Ring.open({ entries: 4 });
  await assertRejects(async () => await chain({ ring }).read(left, new Uint8Array(1)), TypeError, "one ring");
  for (const end of [left, right, reader, writer]) await end.close();
});

Deno.test("a chain longer than the ring is a RangeError, and the ring goes on", async () => {
  await using ring = Ring.open({ entries: 4 });
  const long = chain({ ring }).sleep(0).sleep(0).sleep(0).sleep(0).sleep(0);
  await assertRejects(async () => await long, Error, "does not fit");
  assertEquals((await chain({ ring }).sleep(0).sleep(0).sleep(0).sleep(0)).length, 4);
  assertEquals(ring.inFlight, 0);
});
