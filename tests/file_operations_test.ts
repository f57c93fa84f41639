/** What is done with open files, besides reading and writing at their position. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { open, pipe, Ring, stdin, type SystemErrorFields } from "../mod.ts";
import { assertDescriptors, descriptors } from "./support/descriptors.ts";
import { assertSameBytes, noise, scratch } from "./support/example.ts";
import { Random } from "./support/random.ts";
import { settleDefaultRing } from "./support/rings.ts";
import { loopTurn, within } from "./support/until.ts";

const encoder = new TextEncoder();
const readWrite = { read: true, write: true, create: true };

async function codeOf(run: () => Promise<unknown>): Promise<string> {
  const error = await assertRejects(run) as Error & SystemErrorFields;
  return error.code;
}

// --- Vectored ---

Deno.test("readv fills one buffer after another, and writev writes them", async () => {
  using dir = scratch();
  await using file = await open(dir.path("f"), readWrite);
  const data = noise(100_000);
  const cut = (...at: number[]) => at.map((from, i) => data.subarray(from, at[i + 1] ?? data.length));
  assertEquals(await file.writev(cut(0, 1, 1, 5000, 70_000)), data.length);
  assertEquals(await file.readv([new Uint8Array(1)]), null, "the position is at the end");
  await file.seek(0, Deno.SeekMode.Start);
  const views = [3, 0, 50_000, 60_000].map((length) => new Uint8Array(length));
  assertEquals(await file.readv(views), data.length);
  assertSameBytes(views[0], data.subarray(0, 3));
  assertSameBytes(views[2], data.subarray(3, 50_003));
  assertSameBytes(views[3].subarray(0, 49_997), data.subarray(50_003));
  assertEquals(await file.writev([new Uint8Array([1]), new Uint8Array([2])], { position: 10 }), 2);
  const two = [new Uint8Array(1), new Uint8Array(1)];
  assertEquals(await file.readv(two, { position: 10 }), 2);
  assertEquals(two.map(([byte]) => byte), [1, 2]);
  assertEquals([await file.readv([]), await file.writev([new Uint8Array(0)])], [0, 0]);
});

Deno.test("writev of many at once keeps each in one piece, in append mode", async () => {
  using dir = scratch();
  await Promise.all(Array.from({ length: 200 }, async (_, i) => {
    await using file = await open(dir.path("log"), { append: true, create: true });
    const parts = [`<${i}`, ":".repeat(i), `${i}>\n`].map((part) => encoder.encode(part));
    assertEquals(await file.writev(parts), parts.reduce((sum, part) => sum + part.length, 0));
  }));
  const lines = Deno.readTextFileSync(dir.path("log")).trimEnd().split("\n");
  assertEquals(lines.length, 200);
  for (const line of lines) {
    const [, i] = /^<(\d+):*\1>$/.exec(line)!;
    assertEquals(line, `<${i}${":".repeat(Number(i))}${i}>`);
  }
});

Deno.test("readv that lost one of its buffers loses no bytes", async () => {
  const ends = pipe();
  const views = [new Uint8Array(4), new Uint8Array(4)];
  await using file = await open(`/proc/self/fd/${ends.reader.fd}`);
  const reading = file.readv(views);
  await loopTurn();
  structuredClone(null, { transfer: [views[0].buffer] });
  await ends.writer.writeAll(encoder.encode("12345678"));
  await assertRejects(() => reading, TypeError, "8 bytes had arrived");
  const p = new Uint8Array(8);
  assertEquals(await file.read(p), 8);
  assertEquals(new TextDecoder().decode(p), "12345678");
  await ends.reader.close();
  await ends.writer.close();
});

// --- The position ---

Deno.test("seek moves the position from the start, the position and the end, and tells it", async () => {
  using dir = scratch();
  Deno.writeTextFileSync(dir.path("f"), "0123456789");
  await using file = await open(dir.path("f"));
  const at = async () =>
    String.fromCharCode(...await Promise.resolve(new Uint8Array(1)).then(async (p) => (await file.read(p), p)));
  assertEquals(await file.seek(3, Deno.SeekMode.Start), 3);
  assertEquals(await at(), "3");
  assertEquals(await file.seek(2n, Deno.SeekMode.Current), 6);
  assertEquals(await at(), "6");
  assertEquals(await file.seek(-1, Deno.SeekMode.End), 9);
  assertEquals(await at(), "9");
  assertEquals(await file.seek(2 ** 40, Deno.SeekMode.Start), 2 ** 40);
  assertEquals(await codeOf(() => file.seek(-1, Deno.SeekMode.Start)), "EINVAL");
  for (const offset of [0.5, NaN, 2n ** 60n, null, "5", []]) {
    await assertRejects(() => file.seek(offset as number, Deno.SeekMode.Start), RangeError);
  }
  await assertRejects(() => file.seek(0, 7 as Deno.SeekMode), TypeError);
});

Deno.test("seek takes its turn among reads and writes", async () => {
  using dir = scratch();
  await using file = await open(dir.path("f"), readWrite);
  const p = new Uint8Array(3);
  const [, , position, n] = await Promise.all([
    file.writeAll(encoder.encode("abc")),
    file.writeAll(encoder.encode("def")),
    file.seek(1, Deno.SeekMode.Start),
    file.read(p),
    file.writeAll(encoder.encode("!")),
  ]);
  assertEquals([position, n, new TextDecoder().decode(p)], [1, 3, "bcd"]);
  assertEquals(Deno.readTextFileSync(dir.path("f")), "abcd!f");
});

Deno.test("a read behind a seek does not get what was kept from before it", async () => {
  using dir = scratch();
  Deno.writeTextFileSync(dir.path("f"), "0123456789");
  await using ring = Ring.open();
  await using file = await open(dir.path("f"), { ring });
  const lost = new Uint8Array(3);
  // The bytes are delivered after the ring's observer has been told: they find no buffer.
  ring.onCompletion = () => void (lost.byteLength > 0 && structuredClone(null, { transfer: [lost.buffer] }));
  await assertRejects(() => file.read(lost), TypeError, "3 bytes had arrived");
  const p = new Uint8Array(3);
  assertEquals(await Promise.all([file.seek(7, Deno.SeekMode.Start), file.read(p)]), [7, 3]);
  assertEquals(new TextDecoder().decode(p), "789");
});

Deno.test("what has no position says so", async () => {
  const { reader, writer } = pipe();
  await using file = await open(`/proc/self/fd/${reader.fd}`);
  assertEquals(await codeOf(() => file.seek(0, Deno.SeekMode.Start)), "ESPIPE");
  await reader.close();
  await writer.close();
});

Deno.test("append mode writes to the end, wherever the position is", async () => {
  using dir = scratch();
  Deno.writeTextFileSync(dir.path("f"), "one");
  await using file = await open(dir.path("f"), { read: true, append: true });
  await file.seek(0, Deno.SeekMode.Start);
  await file.writeAll(encoder.encode(" two"));
  await file.seek(0, Deno.SeekMode.Start);
  await file.writev([encoder.encode(" three")]);
  assertEquals(Deno.readTextFileSync(dir.path("f")), "one two three");
});

// --- About the file ---

Deno.test("stat tells about the open file, not about its path", async () => {
  using dir = scratch();
  await using file = await open(dir.path("f"), readWrite);
  await file.writeAll(new Uint8Array(1000));
  Deno.renameSync(dir.path("f"), dir.path("g"));
  const [mine, theirs] = [await file.stat(), Deno.statSync(dir.path("g"))];
  assertEquals([mine.size, mine.ino, mine.isFile], [1000, theirs.ino, true]);
});

for (const kernel of [undefined, "6.8"]) {
  Deno.test(`truncate cuts the file, and leaves the position${kernel ? `, also as Linux ${kernel} does it` : ""}`, async () => {
    using dir = scratch();
    await using ring = Ring.open({ kernel });
    await using file = await open(dir.path("f"), { ...readWrite, ring });
    await file.writeAll(encoder.encode("123456"));
    await file.truncate(2);
    assertEquals((await file.stat()).size, 2);
    await file.writeAll(encoder.encode("x"));
    assertEquals(Deno.readTextFileSync(dir.path("f")), "12\0\0\0\0x");
    await file.truncate();
    assertEquals((await file.stat()).size, 0);
    await assertRejects(() => file.truncate(-1), RangeError);
    await using readOnly = await open(dir.path("f"), { ring });
    assertEquals(await codeOf(() => readOnly.truncate(1)), "EINVAL");
    const signal = AbortSignal.abort(new Error("enough"));
    await assertRejects(() => file.truncate(1, { signal }), Error, "enough");
    assertEquals((await file.stat()).size, 0);
    await file.close();
    await assertRejects(() => file.truncate(1), Deno.errors.BadResource, "closed");
  });
}

Deno.test("allocate reserves room, with or without a larger size", async () => {
  using dir = scratch();
  await using file = await open(dir.path("f"), readWrite);
  await file.allocate(0, 100_000, { keepSize: true });
  assertEquals((await file.stat()).size, 0);
  assert((await file.stat()).blocks! * 512 >= 100_000);
  await file.allocate(50_000, 100_000);
  assertEquals((await file.stat()).size, 150_000);
  await assertRejects(() => file.allocate(0, 0), RangeError);
  await assertRejects(() => file.allocate(-1, 1), RangeError);
  await using readOnly = await open(dir.path("f"));
  assertEquals(await codeOf(() => readOnly.allocate(0, 1)), "EBADF");
});

Deno.test("sync, syncData and advise are taken by files and refused where they can't be", async () => {
  using dir = scratch();
  await using file = await open(dir.path("f"), readWrite);
  await file.writeAll(new Uint8Array(10_000));
  await file.sync();
  await file.syncData();
  for (const advice of ["normal", "sequential", "random", "noreuse", "willneed", "dontneed"] as const) {
    await file.advise(advice);
    await file.advise(advice, 4096, 4096);
  }
  await assertRejects(() => file.advise("fast" as "random"), TypeError, "fast");
  const { reader, writer } = pipe();
  await using fifo = await open(`/proc/self/fd/${reader.fd}`);
  assertEquals(await codeOf(() => fifo.sync()), "EINVAL");
  assertEquals(await codeOf(() => fifo.advise("random")), "ESPIPE");
  await reader.close();
  await writer.close();
});

Deno.test("isTerminal tells a terminal from others", async () => {
  await using file = await open("/proc/self/status");
  assertEquals(file.isTerminal(), false);
  await using terminal = await open("/dev/ptmx", { read: true, write: true });
  assertEquals(terminal.isTerminal(), true);
  assertEquals(stdin.isTerminal(), Deno.stdin.isTerminal());
  const closed = await open("/proc/self/status");
  await closed.close();
  assertThrows(() => closed.isTerminal(), Deno.errors.BadResource);
});

// --- Reading on ---

Deno.test("readFull fills the buffer or meets the end, and a cancel loses nothing", async () => {
  const { reader, writer } = pipe();
  await using file = await open(`/proc/self/fd/${reader.fd}`);
  const p = new Uint8Array(10);
  const reading = file.readFull(p);
  for (const part of ["ab", "cd", "efghij"]) {
    await writer.writeAll(encoder.encode(part));
    await loopTurn();
  }
  assertEquals([await reading, new TextDecoder().decode(p)], [10, "abcdefghij"]);
  const controller = new AbortController();
  const cut = file.readFull(p, { signal: controller.signal });
  await writer.writeAll(encoder.encode("kl"));
  await loopTurn();
  controller.abort(new Error("enough"));
  await assertRejects(() => cut, Error, "enough");
  await writer.writeAll(encoder.encode("mn"));
  await writer.close();
  assertEquals([await file.readFull(p), new TextDecoder().decode(p.subarray(0, 4))], [4, "klmn"]);
  assertEquals(await file.readFull(p), 0);
  await reader.close();
});

Deno.test("a read that waits behind a cancelled readFull begins with what that had read", async () => {
  const { reader, writer } = pipe();
  await using file = await open(`/proc/self/fd/${reader.fd}`);
  const controller = new AbortController();
  const cut = file.readFull(new Uint8Array(10), { signal: controller.signal });
  await writer.writeAll(encoder.encode("ab"));
  await loopTurn();
  const p = new Uint8Array(2);
  const waiting = file.read(p);
  controller.abort(new Error("enough"));
  await assertRejects(() => cut, Error, "enough");
  assertEquals([await within("what was kept", waiting), new TextDecoder().decode(p)], [2, "ab"]);
  await reader.close();
  await writer.close();
});

Deno.test("readFull into a buffer that becomes smaller fails, and keeps what had arrived", async () => {
  const { reader, writer } = pipe();
  await using file = await open(`/proc/self/fd/${reader.fd}`);
  const buffer = new ArrayBuffer(4, { maxByteLength: 4 });
  const filling = file.readFull(new Uint8Array(buffer));
  await loopTurn();
  buffer.resize(2);
  await writer.writeAll(encoder.encode("ab"));
  await assertRejects(() => filling, TypeError, "smaller");
  const p = new Uint8Array(4);
  assertEquals([await file.read(p), new TextDecoder().decode(p.subarray(0, 2))], [2, "ab"]);
  await reader.close();
  await writer.close();
});

Deno.test("lines are whole, however the bytes were cut", async () => {
  using dir = scratch();
  const random = new Random(3);
  const letters = ["a", "ü", "世", "😀", "\r", " "];
  const lines = Array.from({ length: 300 }, (_, i) => {
    const length = random.oneIn(20) ? 100_000 : random.below(60);
    return Array.from({ length }, () => letters[random.below(letters.length)]).join("").replace(/\r$/, "") + i;
  });
  for (const [end, last] of [["\n", "\n"], ["\r\n", "\r\n"], ["\n", ""]]) {
    Deno.writeTextFileSync(dir.path("f"), lines.join(end) + last);
    await using file = await open(dir.path("f"));
    assertEquals(await Array.fromAsync(file.lines()), lines);
  }
  Deno.writeTextFileSync(dir.path("f"), "\n\nx\n\n");
  await using file = await open(dir.path("f"));
  assertEquals(await Array.fromAsync(file.lines()), ["", "", "x", ""]);
  Deno.writeTextFileSync(dir.path("f"), "");
  await using empty = await open(dir.path("f"));
  assertEquals(await Array.fromAsync(empty.lines()), []);
});

Deno.test("chunks are all the bytes, of regular files and of pipes", async () => {
  using dir = scratch();
  const data = noise(300_000);
  Deno.writeFileSync(dir.path("f"), data);
  await using file = await open(dir.path("f"));
  const chunks = await Array.fromAsync(file.chunks());
  assertSameBytes(new Uint8Array(await new Blob(chunks).arrayBuffer()), data);
  assertEquals(new Set(chunks.map(({ buffer }) => buffer)).size, chunks.length, "each is an array of its own");
});

// --- Streams ---

await settleDefaultRing();

Deno.test("readable reads the file and closes it, also into a reader's own buffer", async () => {
  using dir = scratch();
  const data = noise(300_000);
  Deno.writeFileSync(dir.path("f"), data);
  const before = descriptors();
  const file = await open(dir.path("f"));
  assertSameBytes(new Uint8Array(await new Response(file.readable).arrayBuffer()), data);
  await assertDescriptors(before);

  const other = await open(dir.path("f"));
  const reader = other.readable.getReader({ mode: "byob" });
  let filled = 0;
  for (let p = new Uint8Array(1000);;) {
    const { done, value } = await reader.read(p);
    if (done) break;
    assertSameBytes(value, data.subarray(filled, filled + value.length));
    filled += value.length;
    p = new Uint8Array(value.buffer);
  }
  assertEquals(filled, data.length);
  await assertDescriptors(before);

  const third = await open(dir.path("f"));
  await third.readable.cancel();
  await assertDescriptors(before);
});

Deno.test("writable writes the file and closes it", async () => {
  using dir = scratch();
  const data = noise(300_000);
  const before = descriptors();
  const file = await open(dir.path("f"), readWrite);
  await within("the pipe", new Blob([data]).stream().pipeTo(file.writable));
  assertSameBytes(Deno.readFileSync(dir.path("f")), data);
  await assertDescriptors(before);
  const full = await open("/dev/full", { write: true });
  await assertRejects(() => new Blob([data]).stream().pipeTo(full.writable), Error, "No space left");
  await assertDescriptors(before);
});
