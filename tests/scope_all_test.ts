import { assert, assertEquals, assertInstanceOf, assertRejects, assertStrictEquals } from "@std/assert";
import { all, scope } from "../scope/mod.ts";
import { forever, Operation, turn, unhandledRejections, watch } from "./_scope.ts";

Deno.test("all() gives a tuple in the order of the functions", async () => {
  const values: [number, string, void] = await all([
    async () => (await turn(), 1),
    () => "two",
    async () => await turn(),
  ]);
  assertEquals(values, [1, "two", undefined]);
  const none: [] = await all([]);
  assertEquals(none, []);
  const numbers: number[] = await all([1, 2, 3].map((n) => () => n));
  assertEquals(numbers, [1, 2, 3]);
});

Deno.test("all() cancels the rest at the first error, and rejects when they have come back", async () => {
  const error = new Error("real");
  let slow: Operation | undefined;
  const outcome = watch(all([
    () => (slow = new Operation({ lingers: true })).promise,
    () => Promise.reject(error),
    forever,
  ]));
  await turn();
  assertEquals([slow!.cancels, outcome.state], [1, "pending"]);
  assertStrictEquals((slow!.reason as Error).cause, error);
  slow!.end();
  await turn();
  assertStrictEquals(outcome.value, error);
});

Deno.test("all(): several real errors are thrown as an AggregateError, in the order in which they happened", async () => {
  const errors = [new Error("first"), new Error("second")];
  const thrown = await assertRejects(() =>
    all([
      () => forever().catch(() => Promise.reject(errors[1])),
      () => Promise.reject(errors[0]),
    ])
  );
  assertInstanceOf(thrown, AggregateError);
  assertStrictEquals(thrown.errors[0], errors[0]);
  assertStrictEquals(thrown.errors[1], errors[1]);
});

Deno.test("all(..., { concurrency }) bounds what runs at a time, and starts in order", async () => {
  for (const concurrency of [1, 3, 10, Infinity]) {
    const running: Operation<number>[] = [];
    let started = 0;
    let most = 0;
    const values = watch(all(
      Array.from({ length: 10 }, (_, i) => async () => {
        assertEquals(started++, i);
        const operation = new Operation<number>();
        running.push(operation);
        most = Math.max(most, running.length);
        return await operation.promise;
      }),
      { concurrency },
    ));
    assertEquals(running.length, Math.min(10, concurrency));
    for (let i = 0; i < 10; i++) {
      running.shift()!.complete(i);
      await turn();
    }
    assertEquals(most, Math.min(10, concurrency));
    assertEquals(values, { state: "fulfilled", value: [0, 1, 2, 3, 4, 5, 6, 7, 8, 9] });
  }
});

Deno.test("all(): after an error or a cancel, no further function is started", async () => {
  const error = new Error("real");
  let started = 0;
  const count = () => {
    started++;
    return forever();
  };
  const fail = () => Promise.reject(error);
  assertStrictEquals(await assertRejects(() => all([fail, count, count], { concurrency: 1 })), error);
  assertEquals(started, 0);

  const controller = new AbortController();
  const outcome = watch(all([count, count, count, count], { concurrency: 2, signal: controller.signal }));
  const reason = new Error("outside");
  controller.abort(reason);
  await turn();
  assertStrictEquals(outcome.value, reason);
  assertEquals(started, 2);
});

Deno.test("all(): values beat a cancel that came too late", async () => {
  const controller = new AbortController();
  const value = watch(all([turn, () => "value"], { signal: controller.signal }));
  controller.abort();
  await turn();
  await turn();
  assertEquals(value, { state: "fulfilled", value: [undefined, "value"] });
});

Deno.test("all(): an error that passes twice is one error", async () => {
  const error = new Error("real");
  const fail = () => Promise.reject(error);
  assertStrictEquals(await assertRejects(() => all([fail, () => forever().catch(fail)])), error);
});

Deno.test("all() in a cancelled scope rejects with the scope's reason", async () => {
  const reason = new Error("stop");
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      queueMicrotask(() => s.cancel(reason));
      await all([forever, () => 1]);
    })
  );
  assertStrictEquals(thrown, reason);
});

Deno.test("all(): a promise among the functions is a type error and a TypeError, and none is started", async () => {
  let started = false;
  const start = () => {
    started = true;
  };
  // @ts-expect-error: it takes functions
  await assertRejects(() => all([start, Promise.resolve(1)]), TypeError, "element 1");
  // @ts-expect-error: it takes an array
  await assertRejects(() => all(start), TypeError, "takes an array");
  // @ts-expect-error: it takes an AbortSignal
  await assertRejects(() => all([start], { signal: {} }), TypeError, "AbortSignal");
  for (const concurrency of [0, -1, 1.5, NaN, "2" as unknown as number]) {
    await assertRejects(() => all([start], { concurrency }), RangeError, "concurrency");
  }
  assertEquals(started, false);
});

Deno.test("all(): nothing is an unhandled rejection", async () => {
  const unhandled = await unhandledRejections(() =>
    all([
      () => Promise.reject(new Error("first")),
      () => Promise.reject(new Error("second")),
      () => forever().catch(() => Promise.reject(new Error("third"))),
      forever,
    ]).catch(() => {})
  );
  assertEquals(unhandled, []);
});

Deno.test("all(): errors lead to the caller's line", async () => {
  async function theCaller() {
    return await all([forever, async () => {
      await turn();
      throw new Error("real");
    }]);
  }
  const error = await assertRejects(theCaller, Error);
  assert(error.stack!.includes("theCaller"), error.stack);
});

Deno.test("all() of 100,000 functions, some at a time", async () => {
  const values = await all(Array.from({ length: 100_000 }, (_, i) => () => i), { concurrency: 7 });
  assertEquals(values.length, 100_000);
  assertEquals(values[99_999], 99_999);
});
