import { assertEquals, assertRejects } from "@std/assert";
import { defaultRing, futexWait, futexWake, Ring, timeout } from "../mod.ts";
import type { Turns } from "./support/futex_worker.ts";
import { program } from "./support/program.ts";
import { turns, until, within } from "./support/until.ts";

const ROUNDS = 500;

/** Starts a worker that takes its turns, and then ends by itself. */
function startWorker(turns: Turns): Promise<unknown> {
  const worker = new Worker(new URL("./support/futex_worker.ts", import.meta.url), { type: "module" });
  worker.postMessage(turns);
  return new Promise((resolve, reject) => {
    worker.onmessage = resolve;
    worker.onerror = reject;
  }).finally(() => worker.terminate());
}

Deno.test("two workers take turns by a word, and no wake is missed", async () => {
  const words = new Int32Array(new SharedArrayBuffer(64));
  const workers = [0, 1].map((mine) => startWorker({ words, index: 5, mine, rounds: ROUNDS }));
  await within("both workers", Promise.all(workers));
  assertEquals(words[0], 2 * ROUNDS);
});

Deno.test("a word that has changed is not waited for", async () => {
  const words = new Int32Array(new SharedArrayBuffer(8));
  words[1] = -5;
  assertEquals(await futexWait(words, 1, 0), "not-equal");
  const waiting = futexWait(words, 1, -5);
  await until("it waits", () => defaultRing().inFlight === 1);
  assertEquals(await futexWake(words, 0), 0);
  assertEquals(await futexWake(words, 1), 1);
  assertEquals(await waiting, "ok");
});

Deno.test("thousands wait, and are woken as many at a time as was said", async () => {
  const words = new Int32Array(new SharedArrayBuffer(4));
  const WAITS = 3000;
  let woken = 0;
  const waits = Array.from({ length: WAITS }, () => futexWait(words, 0, 0).then(() => woken++));
  assertEquals(await futexWake(words, 0, 1), 1);
  await until("one is woken", () => woken === 1);
  assertEquals(await futexWake(words, 0, 999), 999);
  await until("a thousand are woken", () => woken === 1000);
  await turns(50);
  assertEquals(woken, 1000);
  assertEquals(await futexWake(words, 0), WAITS - 1000);
  await within("all of them", Promise.all(waits));
  assertEquals(defaultRing().inFlight, 0);
});

Deno.test("waits end with signals, deadlines and scopes, and are then not woken", async () => {
  const words = new Int32Array(new SharedArrayBuffer(4));
  const controller = new AbortController();
  const aborted = Array.from({ length: 100 }, () => futexWait(words, 0, 0, { signal: controller.signal }));
  const stays = futexWait(words, 0, 0);
  await turns(20);
  controller.abort("enough");
  for (const { status } of await Promise.allSettled(aborted)) assertEquals(status, "rejected");
  await assertRejects(() => futexWait(words, 0, 0, { timeout: 1 }), DOMException, "timed out");
  await assertRejects(() => timeout(1, () => futexWait(words, 0, 0)), DOMException);
  assertEquals(await futexWake(words, 0), 1);
  assertEquals(await stays, "ok");
});

Deno.test("the memory is kept while it is waited for", async () => {
  const { out, err } = await program(
    `import { defaultRing, futexWait } from LIBRARY;
    const collected = [];
    const registry = new FinalizationRegistry((name) => collected.push(name));
    const controller = new AbortController();
    function wait() {
      const words = new Int32Array(new SharedArrayBuffer(4096));
      registry.register(words.buffer, "waited for");
      return futexWait(words, 0, 0, { signal: controller.signal }).catch((reason) => console.log(reason));
    }
    const waiting = wait();
    registry.register(new SharedArrayBuffer(4096), "not waited for");
    while (collected.length === 0) {
      await new Promise((resolve) => setTimeout(resolve, 1));
      gc();
    }
    console.log(collected.join());
    controller.abort("enough");
    await waiting;`,
    { flags: ["-A", "--v8-flags=--expose-gc"] },
  );
  assertEquals(err, "");
  assertEquals(out, "not waited for\nenough\n");
});

Deno.test("what is no futex is refused", async () => {
  const words = new Int32Array(new SharedArrayBuffer(8));
  const own = new Int32Array(8) as unknown as Int32Array<SharedArrayBuffer>;
  await assertRejects(() => futexWait(own, 0, 0), TypeError, "SharedArrayBuffer");
  for (const index of [-1, 2, 0.5]) await assertRejects(() => futexWait(words, index, 0), RangeError);
  for (const expected of [2 ** 31, 0.5, NaN]) await assertRejects(() => futexWait(words, 0, expected), RangeError);
  for (const count of [0, -1, 0.5]) await assertRejects(() => futexWake(words, 0, count), RangeError);
  await using old = Ring.open({ kernel: "6.6" });
  await assertRejects(() => futexWait(words, 0, 0, { ring: old }), Deno.errors.NotSupported, "FUTEX_WAIT");
  await assertRejects(() => futexWake(words, 0, 1, { ring: old }), Deno.errors.NotSupported, "FUTEX_WAKE");
});
