import { assert, assertEquals, assertInstanceOf, assertRejects, assertStrictEquals } from "@std/assert";
import { connect, defaultRing, listen } from "../mod.ts";
import { any, scope } from "../scope/mod.ts";
import { born } from "../scope/ownership.ts";
import { forever, Operation, Resource, turn, unhandledRejections, watch } from "./_scope.ts";

const fail = (message: string) => () => Promise.reject(new Error(message));

Deno.test("any() gives the first value; errors before it don't count", async () => {
  const operations: Operation<string>[] = [];
  const wait = (i: number) => () => (operations[i] = new Operation()).promise;
  const outcome = watch(any([wait(0), fail("first"), wait(2), wait(3)]));
  await turn();
  operations[0].fail(new Error("second"));
  await turn();
  assertEquals([outcome.state, operations[2].cancels], ["pending", 0]);
  operations[3].complete("value");
  await turn();
  assertEquals(outcome, { state: "fulfilled", value: "value" });
  assertEquals([operations[2].cancels, operations[3].cancels], [1, 0]);
});

Deno.test("any() settles only when the losers have come back", async () => {
  let loser: Operation | undefined;
  const outcome = watch(any([() => "winner", () => (loser = new Operation({ lingers: true })).promise]));
  await turn();
  assertEquals([loser!.cancels, outcome.state], [1, "pending"]);
  assertEquals((loser!.reason as Error).name, "AbortError");
  loser!.end();
  await turn();
  assertEquals(outcome, { state: "fulfilled", value: "winner" });
});

Deno.test("any(): when all fail it is an AggregateError of their errors, in the order of the functions", async () => {
  const errors = [new Error("late"), new Error("early"), undefined];
  const thrown = await assertRejects(() =>
    any([
      async () => (await turn(), Promise.reject(errors[0])),
      () => Promise.reject(errors[1]),
      () => Promise.reject(errors[2]),
    ])
  );
  assertInstanceOf(thrown, AggregateError);
  assertEquals(thrown.errors.length, 3);
  thrown.errors.forEach((error, i) => assertStrictEquals(error, errors[i]));
  const same = () => Promise.reject(errors[0]);
  assertEquals((await assertRejects(() => any([same, same]), AggregateError)).errors, [errors[0], errors[0]]);
});

Deno.test("any() of nothing rejects instead of hanging, with an AggregateError of none", async () => {
  assertEquals((await assertRejects(() => any([]), AggregateError, "no function")).errors, []);
});

Deno.test("any(): an error that comes after the value is overlooked as those before", async () => {
  assertEquals(await any([() => 1, () => forever().catch(fail("in cleanup"))]), 1);
});

Deno.test("any(): a loser's resource is disposed of before it settles, the winner's and a shared one are not", async () => {
  const [winner, loser, elsewhere] = [new Resource(), new Resource(turn), born(new Resource())];
  const late = (resource: Resource) => () => forever().catch(() => resource);
  const value = await any([
    () => born(winner),
    () => forever().catch(() => born(loser)),
    late(elsewhere),
    late(winner),
  ]);
  assertStrictEquals(value, winner);
  assertEquals([winner.disposed, loser.disposed, elsewhere.disposed], [0, 1, 0]);
});

Deno.test("any() in a cancelled scope rejects with the scope's reason, failed functions or not", async () => {
  const reason = new Error("stop");
  let operation: Operation | undefined;
  const outcome = watch(scope(async (s) => {
    queueMicrotask(() => s.cancel(reason));
    await any([fail("before"), forever, () => (operation = new Operation({ lingers: true })).promise]);
  }));
  await turn();
  assertEquals([operation!.cancels, outcome.state], [1, "pending"]);
  operation!.end();
  await turn();
  assertStrictEquals(outcome.value, reason);
});

Deno.test("any(): a signal from outside cancels all functions with its reason; a value beats it", async () => {
  const controller = new AbortController();
  const reason = new Error("outside");
  const { signal } = controller;
  let slow: Operation<string> | undefined;
  const cut = watch(any([forever, forever], { signal }));
  const kept = watch(any([forever, () => (slow = new Operation<string>({ lingers: true })).promise], { signal }));
  controller.abort(reason);
  await turn();
  assertStrictEquals(cut.value, reason);
  slow!.complete("was done before");
  await turn();
  assertEquals(kept, { state: "fulfilled", value: "was done before" });
  assertStrictEquals(await assertRejects(() => any([forever], { signal })), reason);
  await assertRejects(() => any([fail("by itself")], { signal }), AggregateError);
});

Deno.test("any(): what the winner goes on with later is not cancelled", async () => {
  let later: Operation | undefined;
  await any([() => void setTimeout(() => later = new Operation()), forever]);
  await turn();
  await turn();
  assertEquals(later!.started, true);
});

Deno.test("any(): a promise among the functions is a type error and a TypeError, and none is started", async () => {
  const start = () => assert(false, "started");
  // @ts-expect-error: it takes functions
  await assertRejects(() => any([start, Promise.resolve(1)]), TypeError, "any takes functions, and element 1");
  // @ts-expect-error: it takes an array
  await assertRejects(() => any(start), TypeError, "takes an array");
  // @ts-expect-error: it takes an AbortSignal
  await assertRejects(() => any([start], { signal: {} }), TypeError, "AbortSignal");
});

Deno.test("any(): its type is the union of the functions'", async () => {
  const value: number | string = await any([() => 1, async () => await Promise.resolve("two")]);
  assertEquals(value, 1);
});

Deno.test("any(): nothing is an unhandled rejection", async () => {
  const unhandled = await unhandledRejections(async () => {
    await any([() => 1, forever, fail("one"), () => forever().catch(fail("two"))]);
    await any([fail("one"), fail("two")]).catch(() => {});
  });
  assertEquals(unhandled, []);
});

Deno.test("any() of connections: the first that comes about, and nothing of the others is left in the kernel", async () => {
  await using listener = await listen({ hostname: "127.0.0.1", port: 0 });
  const refusing = await listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = refusing.addr;
  await refusing.close();
  const read = async () => {
    await using conn = await connect({ port: listener.addr.port });
    throw new Error(`nothing ever comes: ${await conn.read(new Uint8Array(1))}`);
  };
  await using conn = await any([() => connect({ port }), read, () => connect({ port: listener.addr.port })]);
  assertEquals(conn.remoteAddr.port, listener.addr.port);
  assertEquals(defaultRing().inFlight, 0);
});
