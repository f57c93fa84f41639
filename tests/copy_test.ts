import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  all,
  connect,
  copy,
  defaultRing,
  listen,
  open,
  pipe,
  type PipeReader,
  Ring,
  scope,
  sleep,
  socketpair,
  tee,
  timeout,
} from "../mod.ts";
import * as libc from "./support/libc.ts";
import { loopTurn, turns, until, within } from "./support/until.ts";

const LARGE = 3_000_017;
const large = Uint8Array.from({ length: LARGE }, (_, i) => i ^ i >> 8 ^ i >> 16);

async function withFile(bytes: Uint8Array, run: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempFile();
  try {
    await Deno.writeFile(path, bytes);
    await run(path);
  } finally {
    await Deno.remove(path);
  }
}

/** Opened descriptors, without those that the event loop opens and closes by itself. */
function openPipes(): number {
  let count = 0;
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    try {
      if (Deno.readLinkSync(`/proc/self/fd/${name}`).startsWith("pipe:")) count++;
    } catch {
      // the listing's own
    }
  }
  return count;
}

Deno.test("files, sockets and pipes: all that was in the one is in the other, byte by byte", async () => {
  await withFile(large, async (path) => {
    for (let i = 0; i < 20; i++) await sleep(0.1); // from now on the ring has the pipe of its doorbell
    const before = openPipes();
    await using file = await open(path);
    await using listener = await listen({ hostname: "127.0.0.1", port: 0 });
    const accepting = listener.accept();
    await using client = await connect({ port: listener.addr.port });
    await using server = await accepting;
    const [left, right] = socketpair();
    const { reader, writer } = pipe();
    const target = `${path}.copy`;
    {
      await using to = await open(target, { write: true, createNew: true });
      // File to socket, to another socket, to a pipe, to a file.
      const hops = [
        async () => {
          assertEquals(await copy(file, client), LARGE);
          await client.closeWrite();
        },
        async () => {
          assertEquals(await copy(server, left), LARGE);
          await left.closeWrite();
        },
        async () => {
          assertEquals(await copy(right, writer), LARGE);
          await writer.close();
        },
        async () => assertEquals(await copy(reader, to), LARGE),
      ];
      await within("all hops", all(hops));
    }
    assertEquals(await Deno.readFile(target), large);
    await Deno.remove(target);
    await Promise.all([left.close(), right.close(), reader.close()]);
    assertEquals(openPipes(), before);
  });
});

Deno.test("file to file, from where they stand, as many bytes as were said", async () => {
  await withFile(large, async (path) => {
    await using from = await open(path);
    const target = `${path}.copy`;
    await using to = await open(target, { read: true, write: true, createNew: true });
    await Deno.remove(target);
    await to.writeAll(large.subarray(0, 10));
    await from.read(new Uint8Array(10));
    assertEquals(await copy(from, to, { length: 100_000 }), 100_000);
    assertEquals(await copy(from, to, { length: 0 }), 0);
    assertEquals(await copy(from, to), LARGE - 100_010);
    assertEquals(await copy(from, to), 0);
    const copied = new Uint8Array(LARGE + 1);
    let filled = 0;
    for (let n; (n = await to.readAt(copied.subarray(filled), filled)) !== null;) filled += n;
    assertEquals(copied.subarray(0, filled), large);
  });
});

Deno.test("where the kernel refuses to splice, bytes are read and written", async () => {
  await withFile(large, async (path) => {
    const target = `${path}.copy`;
    await Deno.writeFile(target, large.subarray(0, 5));
    await using from = await open(path);
    await using to = await open(target, { append: true }); // EINVAL
    assertEquals(await copy(from, to, { length: 200_000 }), 200_000);
    assertEquals(await Deno.readFile(target), new Uint8Array([...large.subarray(0, 5), ...large.subarray(0, 200_000)]));
    await Deno.remove(target);
    await using status = await open("/proc/self/oom_score_adj"); // not every file of /proc can be spliced from
    const { reader, writer } = pipe();
    assert(await copy(status, writer) > 0);
    await Promise.all([reader.close(), writer.close()]);
  });
});

Deno.test("a copy that waits for bytes, or for room, is cancelled at once and takes nothing with it", async () => {
  const empty = pipe();
  const full = pipe();
  const [left, right] = socketpair();
  const cancelled = async (run: (signal: AbortSignal) => Promise<unknown>) => {
    const controller = new AbortController();
    const running = run(controller.signal);
    await turns(100);
    await new Promise((resolve) => setTimeout(resolve, 5)); // whatever is going to block, blocks
    const reason = new Error("enough");
    controller.abort(reason);
    const error = await within("the cancelled copy", running.catch((error) => error));
    assertEquals(error, reason);
    assertEquals(defaultRing().inFlight, 0);
    return (reason as Error & { bytesCopied: number }).bytesCopied;
  };
  assertEquals(await cancelled((signal) => copy(empty.reader, left, { signal })), 0);
  assertEquals(await cancelled((signal) => copy(right, full.writer, { signal })), 0);

  // Both the target and the pipe in between are full: what is in between comes back.
  await withFile(large, async (path) => {
    for (const to of [full.writer, left]) {
      await using file = await open(path);
      const copied = await cancelled((signal) => copy(file, to, { signal }));
      assert(copied > 0 && copied < LARGE, `${copied} bytes`);
      const from = to === left ? right : full.reader;
      const received = new Uint8Array(LARGE);
      for (let n = 0; n < copied;) n += (await from.read(received.subarray(n, copied)))!;
      assertEquals(libc.readable(from.fd), 0);
      assertEquals(received.subarray(0, copied), large.subarray(0, copied));
      const next = new Uint8Array(100);
      await file.read(next);
      assertEquals(next, large.subarray(copied, copied + 100));
    }
  });
  await Promise.all([empty, full].flatMap(({ reader, writer }) => [reader.close(), writer.close()]));
  await Promise.all([left.close(), right.close()]);
});

/** Reads `count` bytes. */
async function readFully(from: PipeReader | { read: PipeReader["read"] }, count: number): Promise<Uint8Array> {
  const bytes = new Uint8Array(count);
  for (let n = 0; n < count;) n += (await from.read(bytes.subarray(n)))!;
  return bytes;
}

Deno.test("copies that wait for bytes do nothing meanwhile: each is one poll", async () => {
  const COPIES = 50;
  await using ring = Ring.open();
  const controller = new AbortController();
  const pipes = Array.from({ length: COPIES }, () => [pipe({ ring }), pipe({ ring })]);
  let completions = 0;
  ring.onCompletion = () => completions++;
  const copies = pipes.map(([from, to]) => copy(from.reader, to.writer, { signal: controller.signal }));
  const TURNS = 2 * COPIES; // each has two turns to take: that of the reads, and that of the writes
  await until("all have their turns", () => completions >= TURNS);
  for (let i = 0; i < 10; i++) await loopTurn();
  assertEquals([completions, ring.inFlight], [TURNS, COPIES]);
  controller.abort();
  await Promise.allSettled(copies);
  await Promise.all(pipes.flat().flatMap(({ reader, writer }) => [reader.close(), writer.close()]));
});

Deno.test("a stream loses nothing, however often a copy of it is cancelled", async () => {
  const [source, feeder] = socketpair();
  const { reader, writer } = pipe();
  let received = 0;
  let interrupted = 0;
  await scope(async (s) => {
    s.spawn(async () => {
      await feeder.writeAll(large);
      await feeder.closeWrite();
    });
    for (let over = false; !over;) {
      let copied: number;
      try {
        copied = await copy(source, writer, { timeout: 2 });
        over = true;
      } catch (error) {
        if (!(error instanceof DOMException)) throw error;
        ({ bytesCopied: copied } = error as DOMException & { bytesCopied: number });
        interrupted++;
      }
      const bytes = await readFully(reader, copied);
      assertEquals(bytes, large.subarray(received, received + copied));
      received += copied;
    }
  });
  assertEquals(received, LARGE);
  assert(interrupted > 2, `${interrupted} times`);
  await Promise.all([source.close(), feeder.close(), reader.close(), writer.close()]);
});

Deno.test("deadlines and scopes end a copy, and the close of either end", async () => {
  const { reader, writer } = pipe();
  const [left, right] = socketpair();
  const overdue = await assertRejects(() => copy(reader, left, { timeout: 1 }), DOMException, "timed out");
  assertEquals((overdue as DOMException & { bytesCopied: number }).bytesCopied, 0);
  await assertRejects(() => timeout(1, () => copy(reader, left)), DOMException);
  assertEquals(defaultRing().inFlight, 0);
  const closed = assertRejects(() => copy(right, writer), Deno.errors.BadResource);
  await turns(30);
  await right.close();
  await within("the copy from a closed connection", closed);
  await writer.writeAll(new Uint8Array(9));
  const broken = await assertRejects(() => copy(reader, left, { length: 9 }), Deno.errors.BrokenPipe);
  assertEquals((broken as Error & { bytesCopied: number }).bytesCopied, 0);
  assertEquals(await reader.read(new Uint8Array(99)), 9); // they came back
  await Promise.all([left.close(), reader.close(), writer.close()]);
});

Deno.test("bytes that were read and kept go first; reads and writes wait until the copy is done", async () => {
  const [left, right] = socketpair();
  const { reader, writer } = pipe();
  await right.writeAll(large.subarray(0, 5));
  await assertRejects(() => left.readAll({ timeout: 5 }), DOMException); // gives 5 bytes back
  const copying = copy(left, writer, { length: 8 });
  const read = left.read(new Uint8Array(9));
  const written = writer.writeAll(large.subarray(8, 9));
  await right.writeAll(large.subarray(5, 8));
  assertEquals(await within("the copy", copying), 8);
  await written;
  await right.writeAll(large.subarray(9, 11));
  assertEquals(await read, 2);
  assertEquals(await readFully(reader, 9), large.subarray(0, 9));
  await right.writeAll(large.subarray(0, 5));
  await assertRejects(() => left.readAll({ timeout: 5 }), DOMException);
  assertEquals(await copy(left, writer, { length: 3 }), 3);
  assertEquals(await readFully(left, 2), large.subarray(3, 5));
  await Promise.all([left.close(), right.close(), reader.close(), writer.close()]);
});

Deno.test("two copies crosswise do not wait for each other for ever", async () => {
  await withFile(large, async (path) => {
    await using one = await open(path, { read: true, write: true });
    await using other = await open("/dev/null", { read: true, write: true });
    const crosswise = Promise.all([copy(one, other, { length: 9 }), copy(other, one, { length: 9 })]);
    assertEquals(await within("both", crosswise), [9, 0]);
  });
});

Deno.test("tee leaves the bytes where they are, waits for some, and knows the end", async () => {
  const one = pipe();
  const other = pipe();
  const waiting = tee(one.reader, other.writer);
  await until("it waits", () => defaultRing().inFlight === 1);
  await one.writer.writeAll(large.subarray(0, 100));
  assertEquals(await waiting, 100);
  assertEquals(await tee(one.reader, other.writer, { length: 10 }), 10);
  assertEquals(
    await readFully(other.reader, 110),
    new Uint8Array([...large.subarray(0, 100), ...large.subarray(0, 10)]),
  );
  assertEquals(await readFully(one.reader, 100), large.subarray(0, 100));
  await assertRejects(() => tee(one.reader, other.writer, { timeout: 1 }), DOMException);
  await one.writer.writeAll(large.subarray(0, 3));
  await assertRejects(() => one.reader.readAll({ timeout: 5 }), DOMException); // gives 3 bytes back
  assertEquals(await tee(one.reader, other.writer), 3);
  assertEquals(await readFully(one.reader, 3), await readFully(other.reader, 3));
  await one.writer.close();
  assertEquals(await tee(one.reader, other.writer), null);
  await Promise.all([one.reader.close(), other.reader.close(), other.writer.close()]);
  assertEquals(defaultRing().inFlight, 0);
});

Deno.test("what can't be copied is refused", async () => {
  const { reader, writer } = pipe();
  await using ring = Ring.open();
  const elsewhere = pipe({ ring });
  await assertRejects(() => copy(reader, elsewhere.writer), TypeError, "one ring");
  await assertRejects(() => copy(writer as unknown as PipeReader, writer), TypeError);
  await assertRejects(() => tee(writer as unknown as PipeReader, writer), TypeError);
  for (const length of [-1, 0.5, NaN]) await assertRejects(() => copy(reader, writer, { length }), RangeError);
  await Promise.all([reader, writer, elsewhere.reader, elsewhere.writer].map((end) => end.close()));
});
