import { assert, assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import { defaultRing, pipe, sleep } from "../mod.ts";
import { scope, settled } from "../scope/mod.ts";
import { born } from "../scope/ownership.ts";
import { forever, Operation, Resource, turn, unhandledRejections, watch } from "./_scope.ts";

Deno.test("settled() gives a tuple of results in the order of the functions", async () => {
  const error = new Error("real");
  const results: [PromiseSettledResult<number>, PromiseSettledResult<string>, PromiseSettledResult<never>] =
    await settled([
      async () => (await turn(), 1),
      () => "two",
      () => Promise.reject<never>(error),
    ]);
  assertEquals(results.slice(0, 2), [{ status: "fulfilled", value: 1 }, { status: "fulfilled", value: "two" }]);
  assertStrictEquals((results[2] as PromiseRejectedResult).reason, error);
  const none: [] = await settled([]);
  assertEquals(none, []);
});

Deno.test("settled(): an error cancels none of the others", async () => {
  let operation: Operation<string> | undefined;
  const outcome = watch(settled([
    () => Promise.reject(undefined),
    () => (operation = new Operation<string>()).promise,
  ]));
  await turn();
  assertEquals([operation!.cancels, outcome.state], [0, "pending"]);
  operation!.complete("value");
  await turn();
  assertEquals(outcome.value, [{ status: "rejected", reason: undefined }, { status: "fulfilled", value: "value" }]);
});

Deno.test("settled(..., { concurrency }) bounds what runs at a time, and starts in order, errors or not", async () => {
  const running: Operation<number>[] = [];
  let started = 0;
  const outcome = watch(settled(
    Array.from({ length: 10 }, (_, i) => async () => {
      assertEquals(started++, i);
      running.push(new Operation<number>());
      return await running.at(-1)!.promise;
    }),
    { concurrency: 3 },
  ));
  for (let i = 0; i < 10; i++) {
    assertEquals(running.length, Math.min(3, 10 - i));
    const operation = running.shift()!;
    if (i % 2 === 0) operation.complete(i);
    else operation.fail(i);
    await turn();
  }
  assertEquals(
    outcome.value,
    Array.from(
      { length: 10 },
      (_, i) => i % 2 === 0 ? { status: "fulfilled", value: i } : { status: "rejected", reason: i },
    ),
  );
});

Deno.test("settled() in a cancelled scope waits for all, and rejects with the scope's reason", async () => {
  const reason = new Error("stop");
  let operation: Operation | undefined;
  let started = 0;
  const outcome = watch(scope(async (s) => {
    turn().then(() => s.cancel(reason));
    await settled([
      () => Promise.reject(new Error("before")),
      () => (operation = new Operation({ lingers: true })).promise,
      () => started++,
    ], { concurrency: 1 });
  }));
  await turn();
  await turn();
  assertEquals([operation?.cancels, outcome.state], [1, "pending"]);
  operation!.end();
  await turn();
  assertStrictEquals(outcome.value, reason);
  assertEquals(started, 0);
});

Deno.test("settled(): a signal from outside cancels with its reason; results that are all there beat it", async () => {
  const controller = new AbortController();
  const { signal } = controller;
  const reason = new Error("outside");
  const cut = watch(settled([forever, () => 1], { signal }));
  const kept = watch(settled([turn, () => forever().catch(() => "value")], { signal }));
  controller.abort(reason);
  await turn();
  await turn();
  assertStrictEquals(cut.value, reason);
  assertEquals(kept.value, [{ status: "fulfilled", value: undefined }, { status: "fulfilled", value: "value" }]);
  assertStrictEquals(await assertRejects(() => settled([forever], { signal })), reason);
});

Deno.test("settled(): resources are disposed of when a cancel leaves nobody to take them, and their errors thrown", async () => {
  const controller = new AbortController();
  const error = new Error("in close");
  const resources = [new Resource(), new Resource(() => Promise.reject(error))];
  const outcome = watch(settled([...resources.map((resource) => () => born(resource)), forever], controller));
  await turn();
  assertEquals(resources.map(({ disposed }) => disposed), [0, 0]);
  controller.abort();
  for (let i = 0; i < 3; i++) await turn();
  assertEquals(resources.map(({ disposed }) => disposed), [1, 1]);
  assertStrictEquals(outcome.value, error);
});

Deno.test("settled(): what is not a function, or no concurrency, is an error, and none is started", async () => {
  const start = () => assert(false, "started");
  // @ts-expect-error: it takes functions
  await assertRejects(() => settled([start, Promise.resolve(1)]), TypeError, "settled takes functions, and element 1");
  for (const concurrency of [0, -1, 1.5, NaN, "2" as unknown as number]) {
    await assertRejects(() => settled([start], { concurrency }), RangeError, "concurrency");
  }
});

Deno.test("settled(): nothing is an unhandled rejection", async () => {
  const fail = () => Promise.reject(new Error("one"));
  assertEquals(await unhandledRejections(() => settled([fail, fail, () => turn().then(fail)])), []);
});

Deno.test("settled() of reads: an error leaves the others in the kernel, an abort ends them there", async () => {
  const { reader, writer } = await pipe();
  await using ends = { [Symbol.asyncDispose]: () => Promise.all([reader.close(), writer.close()]).then(() => {}) };
  void ends;
  const buffer = new Uint8Array(4);
  const results = settled([() => sleep(-1), () => reader.read(buffer)]);
  await sleep(1);
  assertEquals(defaultRing().inFlight, 1);
  await writer.writeAll(new Uint8Array(3));
  const [failed, read] = await results;
  assertEquals([failed.status, read], ["rejected", { status: "fulfilled", value: 3 }]);

  const controller = new AbortController();
  const cut = watch(settled([() => sleep(-1), () => reader.read(buffer)], controller));
  await sleep(1);
  controller.abort("enough");
  while (cut.state === "pending") await turn();
  assertEquals([cut.value, defaultRing().inFlight], ["enough", 0]);
});
