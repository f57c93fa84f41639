import { assert, assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { chain, defaultRing, open, pipe, Ring, type RingOptions, sleep, socketpair } from "../mod.ts";

const [major, minor] = Deno.version.deno.split(".").map(Number);
/** Whether this runtime can adopt a pipe; the thread serves everywhere. */
const adoptsPipes = major > 2 || minor >= 8;

const kinds: [name: string, options: RingOptions][] = [
  ["the thread's doorbell", { doorbell: "thread" }],
  ["SQPOLL", { sqpoll: true }],
];
if (adoptsPipes) kinds.push(["the pipe's doorbell", { doorbell: "pipe" }]);

for (const [name, options] of kinds) {
  Deno.test(`10,000 requests at once on a ring of 8 entries, ${name}: none is lost`, async () => {
    const path = Deno.makeTempFileSync();
    const data = Uint8Array.from({ length: 10_000 + 64 }, (_, i) => i * 17 + (i >> 8));
    Deno.writeFileSync(path, data);
    {
      await using ring = Ring.open({ ...options, entries: 8 });
      await using file = await open(path, { ring });
      const ends = Array.from({ length: 100 }, () => socketpair({ ring }));
      const work: Promise<unknown>[] = [];
      for (let i = 0; i < 5000; i++) {
        work.push((async () => {
          const p = new Uint8Array(64);
          assertEquals(await file.readAt(p, i), 64);
          assertEquals(p, data.subarray(i, i + 64));
        })());
        work.push(sleep(i % 10, { ring }));
      }
      // Reads that wait for writes queued behind them.
      const received = ends.map(([left]) => Array.from({ length: 20 }, () => left.read(new Uint8Array(1))));
      const sent = ends.map(([, right]) => Array.from({ length: 20 }, () => right.write(new Uint8Array(1))));
      assert(ring.inFlight >= 10_000);
      await Promise.all(work);
      for (const counts of [...received, ...sent]) assertEquals(await Promise.all(counts), new Array(20).fill(1));
      for (const [left, right] of ends) await Promise.all([left.close(), right.close()]);
      assertEquals(ring.inFlight, 0);
    }
    Deno.removeSync(path);
  });

  Deno.test(`reads that wait for writes behind them, more than the CQ holds, do not stand still, ${name}`, async () => {
    await using ring = Ring.open({ ...options, entries: 4, completionEntries: 8 });
    const ends = Array.from({ length: 200 }, () => socketpair({ ring }));
    const reads = ends.map(([left]) => left.read(new Uint8Array(8)));
    // All at once, so that the CQ overflows too.
    const writes = ends.map(([, right]) => right.writeAll(new Uint8Array(8)));
    assertEquals(await Promise.all(reads), new Array(200).fill(8));
    await Promise.all(writes);
    for (const [left, right] of ends) await Promise.all([left.close(), right.close()]);
  });
}

Deno.test("a busy SQPOLL ring goes on after its thread has slept", async () => {
  await using ring = Ring.open({ sqpoll: true, sqpollIdleMs: 1 });
  for (let i = 0; i < 5; i++) {
    await sleep(10); // on the default ring: the other one idles
    const { reader, writer } = pipe({ ring });
    await writer.write(new Uint8Array(3));
    assertEquals(await reader.read(new Uint8Array(9)), 3);
    await Promise.all([reader.close(), writer.close()]);
  }
});

Deno.test("served reads do not keep the event loop from its turn", async () => {
  await using file = await open("/dev/zero");
  const p = new Uint8Array(16);
  let turns = 0;
  const timer = setInterval(() => turns++, 1);
  const end = performance.now() + 200;
  while (performance.now() < end) await file.read(p);
  clearInterval(timer);
  assert(turns > 10, `${turns} turns`);
});

Deno.test("closing a ring rejects what is in flight, chains and waiters included, and leaves nothing", async () => {
  const descriptors = () => Array.from(Deno.readDirSync("/proc/self/fd")).length;
  const mappings = () => Deno.readTextFileSync("/proc/self/maps").split("\n").filter((line) => /io_uring/.test(line));
  await sleep(0);
  const [before, mapped] = [descriptors(), mappings().length];
  for (const [, options] of kinds) {
    const ring = Ring.open({ ...options, entries: 16 });
    assert(mappings().length > mapped);
    const [left, right] = socketpair({ ring });
    const work = [
      ...Array.from({ length: 50 }, () => left.read(new Uint8Array(1))), // in one lane, one behind the other
      ...Array.from({ length: 50 }, () => sleep(1e6, { ring })),
      ...Array.from({ length: 3 }, () => left.read(new Uint8Array(1), { timeout: 1e6 })),
      (async () => await chain({ ring }).open("/dev/null").read(right, new Uint8Array(1)).close())(),
    ];
    const outcomes = work.map(outcomeOf);
    await new Promise((resolve) => setTimeout(resolve, 5));
    outcomes.push(outcomeOf(left.writeAll(new Uint8Array(8_000_000)))); // queued, not submitted
    await Promise.all([ring.close(), ring.close()]);
    assertEquals(await Promise.all(outcomes), new Array(outcomes.length).fill("AbortError"));
    assertEquals(ring.inFlight, 0);
    await assertRejects(() => sleep(0, { ring }), Deno.errors.BadResource, "closed");
    await assertRejects(() => left.read(new Uint8Array(1)), Deno.errors.BadResource, "closed");
    await left.close();
    await right.close();
  }
  assertEquals([descriptors(), mappings().length], [before, mapped]);
});

/** The name of the error a promise rejects with, `null` if it does not. */
function outcomeOf(promise: Promise<unknown>): Promise<string | null> {
  return promise.then(() => null, (error: Error) => error.name);
}

Deno.test("rings tell their sizes, and refuse what is none", async () => {
  await using ring = Ring.open({ entries: 100, completionEntries: 1000 });
  assertEquals([ring.entries, ring.completionEntries], [128, 1024]);
  for (const entries of [0, 1, -1, 1.5, 32769, NaN]) assertThrows(() => Ring.open({ entries }), RangeError, "entries");
  assertThrows(() => Ring.open({ entries: 64, completionEntries: 32 }), RangeError, "completionEntries");
  assertThrows(() => Ring.open({ sqpollIdleMs: -1 }), RangeError, "sqpollIdleMs");
  assertThrows(() => Ring.open({ doorbell: "bell" as "pipe" }), TypeError, "doorbell");
});

Deno.test("the default doorbell is the thread at first, and the pipe once the loop has slept often", async () => {
  await using ring = Ring.open();
  assertEquals(ring.doorbell, undefined);
  await sleep(1, { ring });
  assertEquals(ring.doorbell, "thread");
  for (let i = 0; i < 20; i++) await sleep(0.1, { ring });
  assertEquals(ring.doorbell, adoptsPipes ? "pipe" : "thread");
});

/** Runs the source as a program of its own; it is killed after ten seconds. */
async function program(source: string): Promise<{ code: number; out: string; signal: string | null }> {
  const text = source.replaceAll("LIBRARY", JSON.stringify(new URL("../mod.ts", import.meta.url).href));
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-config", `data:application/javascript,${encodeURIComponent(text)}`],
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const guard = setTimeout(() => child.kill("SIGKILL"), 10_000);
  const { code, stdout, signal } = await child.output();
  clearTimeout(guard);
  return { code, out: new TextDecoder().decode(stdout), signal };
}

for (const [name, options] of [["the default doorbell", {}], ...kinds] as const) {
  Deno.test(`the process stays as long as requests are in flight, and goes when none are, with ${name}`, async () => {
    const { code, out } = await program(`
      const { Ring, sleep, socketpair } = await import(LIBRARY);
      const ring = Ring.open(${JSON.stringify(options)});
      const [left, right] = socketpair({ ring });
      const controller = new AbortController();
      left.read(new Uint8Array(1), { signal: controller.signal }).catch(() => console.log("aborted"));
      for (let i = 0; i < 20; i++) await sleep(0.5, { ring });
      sleep(20, { ring }).then(() => {
        console.log("slept");
        controller.abort();
      });
    `);
    assertEquals([code, out], [0, "slept\naborted\n"]);
  });
}

Deno.test("a read that nothing ends keeps the process alive, and a signal still ends it", async () => {
  const module = JSON.stringify(new URL("../mod.ts", import.meta.url).href);
  const source = `
    const { socketpair } = await import(${module});
    socketpair()[0].read(new Uint8Array(1));
    setTimeout(() => console.log("waiting"), 50);`;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", "--no-config", `data:application/javascript,${encodeURIComponent(source)}`],
    stdout: "piped",
  }).spawn();
  const output = child.stdout.getReader();
  assertStringIncludes(new TextDecoder().decode((await output.read()).value), "waiting");
  child.kill("SIGTERM");
  assertEquals((await child.status).signal, "SIGTERM");
  await output.cancel();
});

Deno.test("onCompletion sees the kernel's results, and what it throws does no harm", async () => {
  await using ring = Ring.open();
  const seen: unknown[] = [];
  ring.onCompletion = ({ of, operation, result }) => seen.push([of, operation, result]);
  await sleep(1, { ring });
  await assertRejects(() => sleep(1e6, { ring, timeout: 1 }), DOMException);
  assertEquals(seen[0], ["operation", "sleep", -62]);
  assertEquals(seen.slice(1).toSorted(), [["deadline", "sleep", -62], ["operation", "sleep", -125]]);
  const reported: unknown[] = [];
  const listener = (event: ErrorEvent) => {
    event.preventDefault();
    reported.push(event.error);
  };
  globalThis.addEventListener("error", listener);
  ring.onCompletion = () => {
    throw "observer";
  };
  await sleep(1, { ring });
  ring.onCompletion = null;
  globalThis.removeEventListener("error", listener);
  assertEquals(reported, ["observer"]);
});

Deno.test("an error, and a timeout, lead to the caller's line", async () => {
  async function caller(run: () => Promise<unknown>): Promise<string> {
    try {
      await run();
    } catch (error) {
      return (error as Error).stack!;
    }
    throw new Error("it did not fail");
  }
  for (const run of [() => open("/nonexistent"), () => sleep(1e6, { timeout: 1 })]) {
    assertStringIncludes(await caller(run), "caller");
    assertStringIncludes(await caller(run), "ring_test.ts");
  }
});

Deno.test("timeouts that are none are refused; Infinity is none, and 0 ends what has to wait", async () => {
  const [left, right] = socketpair();
  const p = new Uint8Array(1);
  for (const timeout of [-1, NaN]) await assertRejects(() => left.read(p, { timeout }), RangeError);
  await assertRejects(() => left.read(p, { timeout: "5" as unknown as number }), TypeError);
  await assertRejects(() => left.read(p, { signal: {} as AbortSignal }), TypeError);
  assertEquals((await assertRejects(() => left.read(p, { timeout: 0 })) as Error).name, "TimeoutError");
  await right.write(p);
  assertEquals(await left.read(p, { timeout: Infinity }), 1);
  for (const ms of [-1, NaN, Infinity]) await assertRejects(() => sleep(ms), RangeError);
  await left.close();
  await right.close();
  assertEquals(defaultRing().inFlight, 0);
});
