import {
  assert,
  assertEquals,
  assertInstanceOf,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
} from "@std/assert";
import { race, scope, shield, timeout } from "../scope/mod.ts";
import { installClock } from "../scope/clock.ts";
import { forever, manualClock, Operation, turn, watch } from "./_scope.ts";

function timedOutAfter(error: unknown, ms: number): void {
  assertInstanceOf(error, DOMException);
  assertEquals([error.name, error.message], ["TimeoutError", `Timed out after ${ms} ms`]);
}

Deno.test("timeout() gives the function's value or error", async () => {
  const clock = manualClock();
  const value: number = await timeout(10, async () => (await turn(), 1));
  assertEquals([value, await timeout(10, () => "sync")], [1, "sync"]);
  const error = new Error("real");
  assertStrictEquals(await assertRejects(() => timeout(10, () => Promise.reject(error))), error);
  assertEquals(clock.pending, []);
});

Deno.test("timeout() cancels every operation inside when the deadline passes", async () => {
  const clock = manualClock();
  const operations: Operation[] = [];
  const wait = () => {
    operations.push(new Operation());
    return operations.at(-1)!.promise;
  };
  const outcome = watch(timeout(500, () =>
    scope(async (s) => {
      s.spawn(wait);
      s.spawn(() => race([wait, wait]));
      await wait();
    })));
  await clock.advance(499);
  assertEquals([operations.map(({ cancels }) => cancels), outcome.state], [[0, 0, 0, 0], "pending"]);
  await clock.advance(1);
  await turn();
  assertEquals(operations.map(({ cancels }) => cancels), [1, 1, 1, 1]);
  timedOutAfter(outcome.value, 500);
});

Deno.test("timeout() settles only when the operations inside have come back", async () => {
  const clock = manualClock();
  let operation: Operation | undefined;
  const outcome = watch(timeout(5, () =>
    Promise.all([
      forever(),
      (operation = new Operation({ lingers: true })).promise,
    ])));
  await clock.advance(5);
  await turn();
  assertEquals(outcome.state, "pending");
  operation!.end();
  await turn();
  await turn();
  timedOutAfter(outcome.value, 5);
});

Deno.test("a deadline that passes after the last operation is no timeout", async () => {
  const clock = manualClock();
  let operation: Operation<string> | undefined;
  const outcome = watch(timeout(5, async () => {
    const value = await (operation = new Operation<string>({ lingers: true })).promise;
    await turn();
    return value;
  }));
  operation!.complete("value");
  await clock.advance(10);
  await turn();
  await turn();
  assertEquals(outcome, { state: "fulfilled", value: "value" });
});

Deno.test("a value beats a deadline that cancelled too late", async () => {
  const clock = manualClock();
  let operation: Operation<string> | undefined;
  const outcome = watch(timeout(5, () => (operation = new Operation<string>({ lingers: true })).promise));
  await clock.advance(5);
  assertEquals(operation!.cancels, 1);
  operation!.complete("value");
  await turn();
  await turn();
  assertEquals(outcome, { state: "fulfilled", value: "value" });
});

Deno.test("timeout(): operations after the deadline reject at once", async () => {
  const clock = manualClock();
  let operation: Operation | undefined;
  const outcome = watch(timeout(5, async () => {
    await forever().catch(() => {});
    await (operation = new Operation()).promise;
  }));
  await clock.advance(5);
  await turn();
  await turn();
  assertEquals(operation!.started, false);
  timedOutAfter(outcome.value, 5);
});

Deno.test("timeouts nest: the earliest deadline wins", async () => {
  for (const [outer, inner, winner] of [[10, 5, 5], [5, 10, 5]]) {
    const clock = manualClock();
    const outcome = watch(timeout(outer, () => timeout(inner, forever)));
    await clock.advance(5);
    await turn();
    await turn();
    await turn();
    timedOutAfter(outcome.value, winner);
    assertEquals(clock.pending, []);
  }
});

Deno.test("when two deadlines have passed the outer one is reported, whichever alarm was heard first", async () => {
  for (const outerFirst of [true, false]) {
    const clock = manualClock();
    let operation: Operation | undefined;
    let seen: unknown;
    const outcome = watch(timeout(5, () =>
      timeout(4, () => (operation = new Operation({ lingers: true })).promise)
        .catch((error) => {
          seen = error;
          throw error;
        })));
    if (outerFirst) clock.pending.reverse();
    clock.skip(5);
    for (const { fire } of clock.pending.splice(0)) fire();
    operation!.end();
    for (let i = 0; i < 4; i++) await turn();
    timedOutAfter(outcome.value, 5);
    assertStrictEquals(seen, outcome.value);
  }
});

Deno.test("when two deadlines have passed the outer one is reported, though its alarm was not heard yet", async () => {
  const clock = manualClock();
  const outcome = watch(timeout(7, () => timeout(6, () => scope(() => timeout(5, forever)))));
  clock.skip(7);
  clock.fireLast();
  for (let i = 0; i < 5; i++) await turn();
  timedOutAfter(outcome.value, 7);
  assertEquals(clock.pending, []);
});

Deno.test("an outer deadline that passes once the inner timeout has rejected is not reported", async () => {
  const clock = manualClock();
  let inner: unknown;
  const outcome = watch(timeout(10, async () => {
    inner = await assertRejects(() => timeout(5, forever));
    clock.skip(10);
    throw inner;
  }));
  await clock.advance(5);
  for (let i = 0; i < 4; i++) await turn();
  timedOutAfter(inner, 5);
  assertStrictEquals(outcome.value, inner);
});

Deno.test("an outer deadline does not count behind a shield", async () => {
  const clock = manualClock();
  let inside: unknown;
  const outcome = watch(timeout(4, async () => {
    inside = await shield(() => assertRejects(() => timeout(5, forever)));
    await forever();
  }));
  await clock.advance(4);
  await clock.advance(1);
  for (let i = 0; i < 4; i++) await turn();
  timedOutAfter(inside, 5);
  timedOutAfter(outcome.value, 4);
});

Deno.test("a cancelled scope inside a timeout whose deadline has passed reports the timeout", async () => {
  const clock = manualClock();
  const outcome = watch(timeout(5, () =>
    scope(async (s) => {
      const done = forever();
      clock.skip(5);
      s.cancel(new Error("inner"));
      await done;
    })));
  for (let i = 0; i < 3; i++) await turn();
  timedOutAfter(outcome.value, 5);
});

Deno.test("timeout() leaves no alarm behind, and settles when it is gone", async () => {
  const clock = manualClock();
  await timeout(5, () => 1);
  assertEquals([clock.pending.length, clock.stops], [0, 1]);
  await assertRejects(() => timeout(5, () => Promise.reject(new Error())));
  assertEquals([clock.pending.length, clock.stops], [0, 2]);
  const outcome = watch(timeout(5, forever));
  await clock.advance(5);
  await turn();
  await turn();
  assertEquals([clock.stops, outcome.state], [3, "rejected"]);
});

Deno.test("timeout(Infinity) sets no alarm", async () => {
  const clock = manualClock();
  assertEquals(await timeout(Infinity, () => 1), 1);
  assertEquals(clock.timesSet, 0);
});

Deno.test("timeout(0): the first operation that has to wait rejects, a value does not", async () => {
  const clock = manualClock();
  assertEquals(await timeout(0, () => 1), 1);
  const outcome = watch(timeout(0, forever));
  await clock.advance(0);
  await turn();
  await turn();
  timedOutAfter(outcome.value, 0);
});

Deno.test("timeout(): milliseconds that are none are an error, and the function is not started", async () => {
  const clock = manualClock();
  const started = () => assert(false, "started");
  await assertRejects(() => timeout(NaN, started), RangeError, "NaN");
  await assertRejects(() => timeout(-1, started), RangeError, "-1");
  await assertRejects(() => timeout("1" as unknown as number, started), TypeError, "ms must be a number");
  // @ts-expect-error: it takes a function
  await assertRejects(() => timeout(1, Promise.resolve(1)), TypeError, "takes a function");
  // @ts-expect-error: it takes an AbortSignal
  await assertRejects(() => timeout(1, started, { signal: {} }), TypeError, "AbortSignal");
  assertEquals(clock.timesSet, 0);
});

Deno.test("timeout(): a signal from outside cancels with its reason", async () => {
  const clock = manualClock();
  const controller = new AbortController();
  const reason = new Error("outside");
  const outcome = watch(timeout(5, forever, { signal: controller.signal }));
  controller.abort(reason);
  await turn();
  await turn();
  assertStrictEquals(outcome.value, reason);
  assertEquals(clock.pending, []);
});

Deno.test("where no alarm can be set timeout() rejects, and leaves the scope around it usable", async () => {
  const error = new Error("no timer");
  installClock({
    now: () => 0,
    set() {
      throw error;
    },
  });
  await scope(async () => {
    assertStrictEquals(await assertRejects(() => timeout(5, () => assert(false, "started"))), error);
  });
});

Deno.test("a signal that is none is an error of timeout(), and leaves the scope around it usable", async () => {
  const clock = manualClock();
  const left = watch(scope(async () => {
    const options = { signal: {} as AbortSignal };
    await assertRejects(() => timeout(5, () => assert(false, "started"), options), TypeError, "AbortSignal");
  }));
  await turn();
  assertEquals([left.state, clock.timesSet], ["fulfilled", 0]);
});

Deno.test("a TimeoutError leads to the caller's line", async () => {
  const clock = manualClock();
  async function theCaller() {
    await timeout(5, () => scope(() => timeout(4, forever)));
  }
  const rejected = assertRejects(theCaller, DOMException);
  clock.skip(5);
  clock.fireLast();
  assertStringIncludes((await rejected).stack!, "theCaller");
});

Deno.test("a real error under a deadline leads to the caller's line", async () => {
  manualClock();
  async function theCaller() {
    await timeout(5, async () => {
      await turn();
      throw new Error("real");
    });
  }
  assertStringIncludes((await assertRejects(theCaller, Error)).stack!, "theCaller");
});
