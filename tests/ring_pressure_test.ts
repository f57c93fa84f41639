/** More than fits: small rings, many requests. Slower, never wrong. */
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { setImmediate } from "node:timers";
import { chain, ChainError, type Conn, listen, open, pipe, Ring, type RingOptions, sleep, socketpair } from "../mod.ts";
import { assertDescriptors, descriptors } from "./support/descriptors.ts";
import * as libc from "./support/libc.ts";
import { ringKinds } from "./support/rings.ts";
import { loopTurn, turns, until, within } from "./support/until.ts";

const MANY = 10_000;
/** Socket pairs that the limit on descriptors allows, which is mostly more than `MANY`. */
const PAIRS = Math.min(MANY, Math.floor((openFilesLimit() - 200) / 2));

function openFilesLimit(): number {
  return Number(/^Max open files\s+(\d+)/m.exec(Deno.readTextFileSync("/proc/self/limits"))![1]);
}

/** A file of ascending bytes, gone when the test is. */
function ascending(bytes: number): { path: string; [Symbol.dispose](): void } {
  const path = Deno.makeTempFileSync();
  Deno.writeFileSync(path, Uint8Array.from({ length: bytes }, (_, i) => i));
  return { path, [Symbol.dispose]: () => Deno.removeSync(path) };
}

/** Runs on a ring, and sees that it leaves nothing behind. */
async function onRing(options: RingOptions, run: (ring: Ring) => Promise<void>): Promise<void> {
  const before = descriptors();
  {
    await using ring = Ring.open(options);
    await within("the requests", run(ring));
    assertEquals(ring.inFlight, 0);
  }
  await assertDescriptors(before);
}

for (const [kind, options] of ringKinds) {
  const small = { ...options, entries: 8 };

  Deno.test(`10,000 sleeps at once on 8 entries, ${kind}`, () =>
    onRing(small, async (ring) => {
      const slept = await Promise.all(Array.from({ length: MANY }, (_, i) => sleep(i % 3, { ring })));
      assertEquals(slept.length, MANY);
    }));

  Deno.test(`10,000 file reads at once on 8 entries, ${kind}`, () =>
    onRing(small, async (ring) => {
      using file = ascending(MANY + 16);
      await using opened = await open(file.path, { ring });
      const order: number[] = [];
      await Promise.all(Array.from({ length: MANY }, async (_, i) => {
        const p = new Uint8Array(1 + i % 16);
        assertEquals(await opened.readAt(p, i), p.byteLength);
        assert(p.every((byte, at) => byte === (i + at & 255)));
        order.push(i);
      }));
      // What the kernel has at hand completes as it is submitted: in the order of the calls.
      assert(order.every((i, at) => i === at));
    }));

  Deno.test(`10,000 socket reads at once on 8 entries, ${kind}`, () =>
    onRing(small, async (ring) => {
      const pairs = Array.from({ length: 100 }, () => socketpair({ ring }));
      const received = Promise.all(pairs.map(async ([left]) => {
        const bytes = Array.from({ length: MANY / 100 }, () => new Uint8Array(1));
        assertEquals(await Promise.all(bytes.map((p) => left.read(p))), bytes.map(() => 1));
        return bytes.map(([byte]) => byte);
      }));
      const sent = Array.from({ length: MANY / 100 }, (_, i) => i);
      await Promise.all(pairs.map(([, right]) => right.writeAll(new Uint8Array(sent))));
      for (const bytes of await received) assertEquals(bytes, sent);
      await Promise.all(pairs.flat().map((conn) => conn.close()));
    }));

  Deno.test(`10,000 reads wait for writes that are queued behind them, on 16 CQEs, ${kind}`, () =>
    onRing({ ...small, completionEntries: 16 }, async (ring) => {
      const pairs = Array.from({ length: PAIRS }, () => socketpair({ ring }));
      const reads = pairs.map(([left]) => left.read(new Uint8Array(1)));
      const writes = pairs.map(([, right]) => right.write(new Uint8Array(1)));
      assertEquals(ring.inFlight, 2 * PAIRS);
      await Promise.all(writes);
      await Promise.all(reads);
      await Promise.all(pairs.flat().map((conn) => conn.close()));
    }));

  Deno.test(`completions that do not fit the CQ are held back and come, ${kind}`, () =>
    onRing({ ...small, completionEntries: 16 }, async (ring) => {
      const pairs = Array.from({ length: 500 }, () => socketpair({ ring }));
      const reads = pairs.map(([left]) => left.read(new Uint8Array(1)));
      const accounts = () => Deno.readTextFileSync(`/proc/self/fdinfo/${ring.fd}`);
      for (let i = 0; i < 5; i++) await loopTurn();
      // All at once and without the ring, while nobody looks at the CQ.
      for (const [, right] of pairs) libc.write(right.fd, new Uint8Array(1));
      // Linux 5.19 and later tell what is held back; an SQPOLL thread may still be at it.
      if (accounts().includes("CqOverflowList:")) {
        for (let looks = 0; looks < 1e6 && !/CqOverflowList:\s+user_data/.test(accounts());) looks++;
        assert(/CqOverflowList:\s+user_data/.test(accounts()), accounts());
      }
      assertEquals(await Promise.all(reads), pairs.map(() => 1));
      await Promise.all(pairs.flat().map((conn) => conn.close()));
    }));

  // With 8 entries an SQPOLL thread and this one hand over to each other so often that a busy machine takes seconds.
  Deno.test(`10,000 operations of one signal end with it, whether they fitted or not, ${kind}`, () =>
    onRing({ ...small, entries: options.sqpoll ? 512 : 8, completionEntries: 512 }, async (ring) => {
      const controller = new AbortController();
      const { signal } = controller;
      await using listener = await listen({ hostname: "127.0.0.1", port: 0, ring });
      const parked = Array.from(
        { length: MANY },
        (_, i) => i % 2 ? listener.accept({ signal }) : sleep(1e9, { ring, signal }),
      );
      const settled = Promise.allSettled(parked);
      await turns(3);
      const reason = new Error("enough");
      controller.abort(reason);
      for (const outcome of await settled) assertEquals(outcome, { status: "rejected", reason });
    }));

  Deno.test(`a chain is never split, however full the submission queue is, ${kind}`, () =>
    onRing(small, async (ring) => {
      const { reader, writer } = pipe({ ring });
      const failing = () => {
        const links = chain({ ring }).open("/nonexistent");
        for (let i = 0; i < 6; i++) links.write(writer, new Uint8Array(1));
        return links.close();
      };
      // Each has 8 links, and finds the queue filled differently. Were its tail submitted apart, that would run.
      for (let before = 0; before < 10; before++) {
        const sleeps = Array.from({ length: before }, () => sleep(0, { ring }));
        const error = await assertRejects(() => failing().then(), ChainError);
        const fates = error.links.map(({ status }) => status);
        assertEquals(fates, ["failed", ...Array.from({ length: 7 }, () => "skipped" as const)]);
        await Promise.all(sleeps);
      }
      assertEquals(libc.readable(reader.fd), 0);
      await reader.close();
      await writer.close();
    }));

  Deno.test(`a chain that is longer than the submission queue is refused, and harms nothing, ${kind}`, () =>
    onRing(small, async (ring) => {
      const slept = sleep(1, { ring });
      const links = chain({ ring });
      for (let i = 0; i < 9; i++) links.sleep(0);
      const error = await assertRejects(() => links.then());
      assertStringIncludes(String(error), "A chain of 9 SQEs does not fit a ring of 8");
      // Deadlines count: each may take an SQE.
      const timed = chain({ ring });
      for (let i = 0; i < 5; i++) timed.sleep(0).timeout(1000);
      assertStringIncludes(String(await assertRejects(() => timed.then())), "A chain of 10 SQEs");
      await slept;
      await sleep(0, { ring });
    }));
}

/** What the event loop serves besides the ring; each resolves once it has been served. */
const loopWork: [name: string, serve: () => Promise<unknown>][] = [
  ["a timer", () => new Promise((resolve) => setTimeout(resolve, 1))],
  ["setImmediate", () => new Promise((resolve) => setImmediate(resolve))],
  ["Deno's file I/O", () => Deno.readFile("/proc/self/status")],
  ["a message", () => {
    const { port1, port2 } = new MessageChannel();
    port2.postMessage(null);
    return new Promise<void>((resolve) => port1.onmessage = () => resolve()).finally(() => {
      port1.close();
      port2.close();
    });
  }],
  ["another ring", async () => {
    await using ring = Ring.open();
    for (let i = 0; i < 20; i++) await sleep(0.1, { ring });
  }],
  ["the ring's own timer", () => sleep(1)],
];

for (const [name, serve] of loopWork) {
  for (const loops of [1, 32]) {
    Deno.test(`reads that are at hand, ${loops} at a time, do not starve ${name}`, async () => {
      await using file = await open("/proc/self/exe");
      let served = false;
      let reads = 0;
      const serving = serve().then(() => served = true);
      const LIMIT = 2_000_000;
      await Promise.all(Array.from({ length: loops }, async () => {
        const p = new Uint8Array(512);
        for (; !served && reads < LIMIT; reads++) await file.readAt(p, 0);
      }));
      assert(served, `${reads} reads, and still not served`);
      await serving;
    });
  }
}

Deno.test("chains wait for direct descriptors, and one that is cancelled lets those behind it go", () =>
  onRing({ entries: 1024 }, async (ring) => {
    const { reader, writer } = pipe({ ring });
    const opening = (files: number) => {
      const links = chain({ ring });
      for (let i = 0; i < files; i++) links.open("/proc/self/exe").close();
      return links;
    };
    // 200 of the 256 places are taken, and stay so until a byte comes.
    const holding = opening(200).read(reader, new Uint8Array(1)).then();
    const controller = new AbortController();
    const large = chain({ ring, signal: controller.signal });
    for (let i = 0; i < 100; i++) large.open("/proc/self/exe").close();
    const largeRuns = assertRejects(() => large.then(), "cancelled while it waits");
    const behind = opening(10).then();
    for (let i = 0; i < 3; i++) await loopTurn();
    const reason = new Error("no longer");
    controller.abort(reason);
    assertEquals(await largeRuns, reason);
    assertEquals((await within("the chain behind", behind, 5000)).length, 20);
    await writer.write(new Uint8Array(1));
    await holding;
    await reader.close();
    await writer.close();
  }));

Deno.test("the CQ is full of a thousand accepts when the listener is closed: each one rejects", () =>
  onRing({ entries: 8, completionEntries: 16 }, async (ring) => {
    const listener = await listen({ hostname: "127.0.0.1", port: 0, ring });
    const accepts = Array.from({ length: 1000 }, () => listener.accept());
    const settled = Promise.allSettled(accepts);
    await until("the accepts wait", () => ring.inFlight === 1000);
    await listener.close();
    const outcomes: PromiseSettledResult<Conn>[] = await settled;
    assert(outcomes.every((outcome) => outcome.status === "rejected"));
    for (const outcome of outcomes) {
      if (outcome.status === "rejected") assert(outcome.reason instanceof Deno.errors.BadResource);
    }
  }));
