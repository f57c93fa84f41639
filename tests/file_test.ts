import { assert, assertEquals, assertInstanceOf, assertRejects, assertStringIncludes } from "@std/assert";
import {
  defaultRing,
  type File,
  mkdir,
  open,
  pipe,
  readFile,
  Ring,
  stat,
  type SystemErrorFields,
  writeFile,
} from "../mod.ts";

/** A directory that is gone again when the test is. */
function scratch(): { path(name: string): string; [Symbol.dispose](): void } {
  const directory = Deno.makeTempDirSync();
  return {
    path: (name) => `${directory}/${name}`,
    [Symbol.dispose]: () => Deno.removeSync(directory, { recursive: true }),
  };
}

function pattern(bytes: number): Uint8Array<ArrayBuffer> {
  return Uint8Array.from({ length: bytes }, (_, i) => i * 7 + (i >> 8));
}

type Failure = Error & SystemErrorFields & { bytesWritten?: number };

async function failure(run: () => Promise<unknown>): Promise<Failure> {
  return await assertRejects(run) as Failure;
}

Deno.test("read moves the position, readAt does not, and both end with null", async () => {
  using dir = scratch();
  Deno.writeFileSync(dir.path("f"), pattern(10));
  await using file = await open(dir.path("f"));
  const p = new Uint8Array(6);
  assertEquals(await file.read(p), 6);
  assertEquals(p, pattern(6));
  assertEquals(await file.readAt(p, 1), 6);
  assertEquals(p, pattern(10).subarray(1, 7));
  assertEquals(await file.read(p), 4);
  assertEquals(p.subarray(0, 4), pattern(10).subarray(6));
  assertEquals(await file.read(p), null);
  assertEquals(await file.readAt(p, 10), null);
  assertEquals(await file.readAt(p, 2 ** 40), null);
  assertEquals(await file.read(new Uint8Array(0)), 0);
});

Deno.test("write moves the position, writeAt does not", async () => {
  using dir = scratch();
  {
    await using file = await open(dir.path("f"), { write: true, create: true });
    assertEquals(await file.write(pattern(8)), 8);
    assertEquals(await file.writeAt(new Uint8Array([1, 2]), 3), 2);
    assertEquals(await file.write(new Uint8Array([9])), 1);
    assertEquals(await file.write(new Uint8Array(0)), 0);
  }
  const expected = new Uint8Array(9);
  expected.set(pattern(8));
  expected.set([1, 2], 3);
  expected[8] = 9;
  assertEquals(Deno.readFileSync(dir.path("f")), expected);
});

for (const bytes of [0, 1, 4095, 4096, 4097, 65536, 1 << 20, (1 << 20) + 1, 5_000_000]) {
  Deno.test(`writeAll and readAll are exact for ${bytes} bytes`, async () => {
    using dir = scratch();
    const data = pattern(bytes);
    {
      await using file = await open(dir.path("f"), { write: true, createNew: true });
      await file.writeAll(data);
    }
    assertEquals(Deno.readFileSync(dir.path("f")).byteLength, bytes);
    await using file = await open(dir.path("f"));
    const read = await file.readAll();
    assertEquals(read.byteLength, bytes);
    assert(read.every((byte, i) => byte === data[i]));
    assertEquals(await file.readAll(), new Uint8Array(0), "the position is at the end");
  });
}

Deno.test("readAll reads files that tell no size, such as those of /proc", async () => {
  await using file = await open("/proc/self/status");
  assertStringIncludes(new TextDecoder().decode(await file.readAll()), "Name:");
});

Deno.test("reads without a position take turns, in the order of the calls", async () => {
  using dir = scratch();
  const data = pattern(64 * 100);
  Deno.writeFileSync(dir.path("f"), data);
  await using file = await open(dir.path("f"));
  const buffers = Array.from({ length: 100 }, () => new Uint8Array(64));
  const counts = await Promise.all(buffers.map((buffer) => file.read(buffer)));
  assertEquals(counts, new Array(100).fill(64));
  buffers.forEach((buffer, i) => assertEquals(buffer, data.subarray(i * 64, i * 64 + 64)));
});

Deno.test("writes without a position, short and long, do not mix", async () => {
  using dir = scratch();
  await using file = await open(dir.path("f"), { read: true, write: true, create: true });
  const sizes = [3_000_000, 5, 1_500_000, 0, 70];
  await Promise.all(sizes.map((bytes, i) => file.writeAll(new Uint8Array(bytes).fill(i + 1))));
  const written = Deno.readFileSync(dir.path("f"));
  let at = 0;
  sizes.forEach((bytes, i) => {
    assert(written.subarray(at, at + bytes).every((byte) => byte === i + 1), `write ${i} is in one piece`);
    at += bytes;
  });
  assertEquals(written.byteLength, at);
});

Deno.test("append writes at the end whatever else happens to the file", async () => {
  using dir = scratch();
  Deno.writeTextFileSync(dir.path("f"), "one\n");
  await using file = await open(dir.path("f"), { append: true });
  await file.writeAll(new TextEncoder().encode("two\n"));
  Deno.writeTextFileSync(dir.path("f"), "three\n", { append: true });
  await file.writeAll(new TextEncoder().encode("four\n"));
  assertEquals(Deno.readTextFileSync(dir.path("f")), "one\ntwo\nthree\nfour\n");
});

Deno.test("open: create, createNew, truncate and mode are Deno.open's", async () => {
  using dir = scratch();
  const name = dir.path("f");
  await (await open(name, { write: true, createNew: true, mode: 0o640 })).close();
  assertEquals(Deno.statSync(name).mode! & 0o777, 0o640 & ~Deno.umask());
  assertInstanceOf(
    await failure(() => open(name, { write: true, createNew: true })),
    Deno.errors.AlreadyExists,
  );
  Deno.writeTextFileSync(name, "something");
  await (await open(name, { write: true, create: true })).close();
  assertEquals(Deno.statSync(name).size, 9);
  await (await open(name, { write: true, truncate: true })).close();
  assertEquals(Deno.statSync(name).size, 0);
  await (await open(new URL(`file://${name}`))).close();
});

Deno.test("open: options that contradict each other, and paths that are none, are TypeErrors", async () => {
  for (const options of [{ read: false }, { truncate: true }, { create: true }, { append: true, truncate: true }]) {
    await assertRejects(() => open("/dev/null", options), TypeError);
  }
  await assertRejects(() => open("a\0b"), TypeError);
  await assertRejects(() => open(new URL("https://example.com/")), TypeError);
  await assertRejects(() => open(new URL("file:///a%2Fb")), TypeError);
});

Deno.test("an error has its class, code, errno, operation and path", async () => {
  using dir = scratch();
  const missing = await failure(() => open(dir.path("missing")));
  assertInstanceOf(missing, Deno.errors.NotFound);
  const { code, errno, operation, path } = missing;
  assertEquals({ code, errno, operation, path }, {
    code: "ENOENT",
    errno: 2,
    operation: "open",
    path: dir.path("missing"),
  });
  assertStringIncludes(missing.message, "No such file or directory (os error 2): open");
  Deno.writeTextFileSync(dir.path("file"), "");
  assertInstanceOf(await failure(() => open(dir.path("file/below"))), Deno.errors.NotADirectory);
  const long = await failure(() => open(dir.path("x".repeat(300))));
  assertEquals(long.code, "ENAMETOOLONG");
  assertEquals((await failure(() => open("/" + "x/".repeat(700_000)))).code, "ENAMETOOLONG");
  await using directory = await open(dir.path("."));
  assertInstanceOf(await failure(() => directory.read(new Uint8Array(1))), Deno.errors.IsADirectory);
  await using readOnly = await open(dir.path("file"));
  const refused = await failure(() => readOnly.write(new Uint8Array(1)));
  assertInstanceOf(refused, Deno.errors.BadResource);
  assertEquals(refused.path, dir.path("file"));
});

Deno.test("a full disk is ENOSPC, and writeAll says how many bytes went", async () => {
  await using full = await open("/dev/full", { write: true });
  const error = await failure(() => full.writeAll(new Uint8Array(10)));
  assertEquals([error.code, error.bytesWritten], ["ENOSPC", 0]);
});

Deno.test("arguments that are none are refused and change nothing", async () => {
  await using file = await open("/dev/zero");
  await assertRejects(() => file.read("x" as unknown as Uint8Array), TypeError);
  await assertRejects(() => file.write(new Uint16Array(1) as unknown as Uint8Array), TypeError);
  for (const position of [-1, 0.5, NaN, Infinity, 2 ** 53]) {
    await assertRejects(() => file.readAt(new Uint8Array(1), position), RangeError);
    await assertRejects(() => file.writeAt(new Uint8Array(1), position), RangeError);
  }
  assertEquals(await file.read(new Uint8Array(1)), 1);
});

Deno.test("close rejects what is in flight, and what comes after, with BadResource; twice is once", async () => {
  const { reader, writer } = pipe();
  const waiting = reader.read(new Uint8Array(1));
  await Promise.all([
    reader.close(),
    reader.close(),
    assertRejects(() => waiting, Deno.errors.BadResource, "closed while"),
  ]);
  await assertRejects(() => reader.read(new Uint8Array(1)), Deno.errors.BadResource, "closed");
  await writer.close();
  assertEquals(defaultRing().inFlight, 0);
});

Deno.test("closing leaves no descriptor behind, also on a ring that is closed", async () => {
  const count = () => Array.from(Deno.readDirSync("/proc/self/fd")).length;
  await (await open("/dev/null")).close();
  const before = count();
  for (let i = 0; i < 50; i++) await (await open("/dev/null")).close();
  assertEquals(count(), before);
  const ring = Ring.open({ entries: 4 });
  const file = await open("/dev/null", { ring });
  await ring.close();
  await file.close();
  assertEquals(count(), before);
});

Deno.test("using begins the close of files and pipes; await using has it done", async () => {
  using dir = scratch();
  const { reader, writer } = pipe();
  {
    using _writer = writer;
    using file = await open(dir.path("f"), { write: true, create: true });
    await file.writeAll(pattern(10));
  }
  assertEquals(await reader.read(new Uint8Array(1)), null);
  await assertRejects(() => writer.write(new Uint8Array(1)), Deno.errors.BadResource);
  {
    await using _reader = reader;
  }
  await assertRejects(() => reader.read(new Uint8Array(1)), Deno.errors.BadResource);
  assertEquals(Deno.readFileSync(dir.path("f")), pattern(10));
});

Deno.test("opens that wait for a long time do not keep others from their files, however many CPUs there are", async () => {
  using dir = scratch();
  const waiting = 4 * navigator.hardwareConcurrency + 8; // more than the kernel would let wait by itself
  const fifos = Array.from({ length: waiting }, (_, i) => dir.path(`${i}`));
  new Deno.Command("mkfifo", { args: fifos }).outputSync();
  const controller = new AbortController();
  const opens = fifos.map((path) => open(path, { signal: controller.signal }));
  const settled = Promise.allSettled(opens);
  await new Promise((resolve) => setTimeout(resolve, 0)); // they have been submitted
  await stat("/", { timeout: 5000 });
  assertEquals(defaultRing().inFlight, waiting);
  controller.abort();
  assertEquals((await settled).filter(({ status }) => status === "rejected").length, waiting);
});

Deno.test("a FIFO waits for its other end, as open(2) does", async () => {
  using dir = scratch();
  const name = dir.path("fifo");
  assert((await new Deno.Command("mkfifo", { args: [name] }).output()).success);
  for (let round = 0; round < 5; round++) {
    const order: string[] = [];
    const reading = open(name).then((file) => (order.push("reader"), file));
    // It is in the kernel and waits: a cancelled opening takes the waiting back.
    const cancelled = new AbortController();
    const other = open(name, { signal: cancelled.signal });
    cancelled.abort(new Error("not this one"));
    await assertRejects(() => other, Error, "not this one");
    assertEquals(order, []);
    const writing: Promise<File> = open(name, { write: true });
    await using reader = await reading;
    {
      await using writer = await writing;
      await writer.writeAll(pattern(100));
    }
    assertEquals(await reader.readAll(), pattern(100));
  }
  // And the other way round: the writer comes first.
  const writing = open(name, { write: true });
  await using reader = await open(name);
  await (await writing).close();
  assertEquals(await reader.read(new Uint8Array(1)), null);
});

Deno.test("without --allow-read and --allow-write paths are refused with NotCapable", async () => {
  const module = JSON.stringify(new URL("../mod.ts", import.meta.url).href);
  const source = `
    const { open, sleep } = await import(${module});
    await sleep(1);
    for (const options of [{ read: true }, { write: true }, { append: true }, { read: true, write: true }]) {
      try {
        await open("/dev/null", options);
        console.log("opened");
      } catch (error) {
        console.log(error.name, /--allow-(read|write)/.exec(error.message)[1]);
      }
    }`;
  const { stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--allow-ffi", `data:application/javascript,${encodeURIComponent(source)}`],
  }).output();
  assertEquals(
    new TextDecoder().decode(stdout),
    "NotCapable read\nNotCapable write\nNotCapable write\nNotCapable read\n",
    new TextDecoder().decode(stderr),
  );
});

Deno.test("a read and its deadline, whichever comes first: one outcome, and nothing is left", async () => {
  using dir = scratch();
  const data = pattern(1 << 19);
  Deno.writeFileSync(dir.path("f"), data);
  // On the smallest ring, where the timer's removal has to wait for room, and the timer may fire meanwhile.
  await using ring = Ring.open({ entries: 8 });
  await using file = await open(dir.path("f"), { ring });
  let [read, late] = [0, 0];
  await Promise.all(Array.from({ length: 40 }, async (_, task) => {
    for (let round = 0; round < 50; round++) {
      const p = new Uint8Array(1 + 4000 * (round % 40));
      const at = task * 1000 + round;
      try {
        const n = await file.readAt(p, at, { timeout: round % 10 / 100 });
        assertEquals(p.subarray(0, 100), data.subarray(at, at + Math.min(n!, 100)));
        read++;
      } catch (error) {
        assertEquals((error as Error).name, "TimeoutError");
        late++;
      }
    }
  }));
  assertEquals([read + late, ring.inFlight], [2000, 0]);
});

Deno.test("a position or a mode that is none is refused with what it was, and moves and makes nothing", async () => {
  using dir = scratch();
  await using file = await open(dir.path("f"), { read: true, write: true, create: true });
  const p = pattern(3);
  for (const [position, said] of [[-1, "-1"], [-2, "-2"], [0.5, "0.5"], [NaN, "NaN"], ["3", '"3"'], [1n, "1n"]]) {
    const at = position as number;
    const uses = [
      () => file.readAt(p, at),
      () => file.writeAt(p, at),
      () => file.readv([p], { position: at }),
      () => file.writev([p], { position: at }),
    ];
    for (const use of uses) {
      await assertRejects(use, RangeError, `position must be a safe integer, 0 or more: ${said}`, `${use}`);
    }
  }
  assertEquals((await file.stat()).size, 0);
  for (const mode of [-1, 1.5, NaN, 1e9, "644" as unknown as number]) {
    const uses = [
      () => open(dir.path("new"), { write: true, create: true, mode }),
      () => writeFile(dir.path("new"), p, { mode }),
      () => mkdir(dir.path("new"), { mode }),
    ];
    for (const use of uses) await assertRejects(use, RangeError, "mode must be an integer from 0 to 0o7777", `${use}`);
  }
  await assertRejects(() => stat(dir.path("new")), Deno.errors.NotFound);
  // What stat says of another file is a mode.
  await writeFile(dir.path("same"), p, { mode: (await stat(dir.path("f"))).mode! });
  await assertRejects(
    () => readFile(dir.path("f"), { timeout: "x" as unknown as number }),
    TypeError,
    "timeout must be",
  );
});
