import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { defaultRing, interval, Ring, scope, sleep, timeout } from "../mod.ts";
import { until, within } from "./support/until.ts";

/** A ring by multishot timeouts, and one by a timeout for each tick. */
const kernels = [undefined, "6.3"];

/** Keeps the event loop from turning. */
function block(ms: number): void {
  for (const end = performance.now() + ms; performance.now() < end;);
}

Deno.test("ticks are numbered, keep to the time of the first, and end with the count", async () => {
  for (const kernel of kernels) {
    await using ring = Ring.open({ kernel });
    const startedMs = performance.now();
    let last = -1;
    for await (const tick of interval(2, { count: 100, ring })) {
      assert(tick > last, `tick ${tick} after ${last}`);
      assert(performance.now() - startedMs >= (tick + 1) * 2 - 0.5, "early");
      last = tick;
    }
    assertEquals(last, 99);
    assertEquals(ring.inFlight, 0);
  }
});

Deno.test("one request brings many ticks where the kernel has multishot timeouts", async () => {
  await using ring = Ring.open();
  let requests = 0;
  const completions: number[] = [];
  ring.onCompletion = ({ result }) => completions.push(result);
  const ticks = interval(20, { ring });
  for (let i = 0; i < 5; i++) await ticks.next();
  requests = ring.inFlight;
  await ticks.return!();
  assertEquals(requests, 1);
  const ETIME = -62;
  assert(completions.filter((result) => result === ETIME).length >= 5);
});

Deno.test("who comes late gets the last tick, and its number says how many were missed", async () => {
  for (const kernel of kernels) {
    await using ring = Ring.open({ kernel });
    const ticks = interval(1, { ring });
    assertEquals((await ticks.next()).value! < 10, true);
    block(50);
    await sleep(2, { ring });
    const { value: late } = await ticks.next();
    assert(late! >= 49, `tick ${late}`);
    const { value: following } = await ticks.next();
    assert(following! > late!);
    await ticks.return!();
  }
});

Deno.test("the kernel's timer, which falls behind a little each time, is set anew in time", async () => {
  await using ring = Ring.open();
  let cancels = 0;
  ring.onCompletion = ({ of }) => {
    if (of === "cancel") cancels++;
  };
  let lateMs = 0;
  const startedMs = performance.now();
  const ticks = interval(1, { ring });
  // Until it has fallen behind twice: by that, its ticks are no later than at first.
  for (let value: number | undefined = 0; cancels < 2;) {
    ({ value } = await within("a tick", ticks.next()));
    lateMs = performance.now() - startedMs - (value! + 1);
    assert(value! < 10_000, "it falls behind, and nothing is done");
  }
  assert(lateMs >= -0.5);
  await ticks.return!();
});

Deno.test("a loop that is left, a signal, a scope and a close end the timer", async () => {
  await using ring = Ring.open();
  for await (const _ of interval(0.5, { ring })) break;
  assertEquals(ring.inFlight, 0);

  const controller = new AbortController();
  const ticks = interval(1e6, { ring, signal: controller.signal });
  const next = ticks.next();
  controller.abort("enough");
  assertEquals(await next.catch((error) => error), "enough");
  assertEquals(ring.inFlight, 0);
  assertEquals(await ticks.next().catch((error) => error), "enough");

  const idle = new AbortController();
  const between = interval(1, { ring, signal: idle.signal });
  await between.next();
  idle.abort();
  await until("the timer stops though nobody waits", () => ring.inFlight === 0, 2000);
  await between.return!();
  assertEquals(ring.inFlight, 0);

  await assertRejects(() => timeout(5, () => interval(1e6, { ring }).next()), DOMException, "5 ms");
  assertEquals(ring.inFlight, 0);
  await scope((s) => {
    s.spawn(async () => {
      for await (const _ of interval(1, { ring }));
    }, { background: true });
  });
  assertEquals(ring.inFlight, 0);
});

Deno.test("periods and counts that are none are refused", async () => {
  for (const ms of [0, -1, NaN, Infinity]) assertThrows(() => interval(ms), RangeError);
  for (const count of [-1, 1.5, NaN]) assertThrows(() => interval(1, { count }), RangeError);
  assertEquals(await interval(1, { count: 0 }).next(), { done: true, value: undefined });
  assertEquals(defaultRing().inFlight, 0);
});
