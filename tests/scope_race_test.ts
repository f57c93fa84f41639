import { assert, assertEquals, assertInstanceOf, assertRejects, assertStrictEquals } from "@std/assert";
import { all, any, race, scope, settled, shield } from "../scope/mod.ts";
import { forever, Operation, turn, unhandledRejections, watch } from "./_scope.ts";

Deno.test("race() settles like the first function that settles", async () => {
  const operations: Operation<string>[] = [];
  const wait = (i: number) => () => (operations[i] = new Operation()).promise;
  const value = watch(race([wait(0), wait(1), wait(2)]));
  operations[1].complete("first");
  await turn();
  assertEquals(value, { state: "fulfilled", value: "first" });
  assertEquals(operations.map(({ cancels }) => cancels), [1, 0, 1]);

  const error = new Error("real");
  assertStrictEquals(await assertRejects(() => race([forever, () => Promise.reject(error)])), error);
});

Deno.test("race() settles only when the losers have come back", async () => {
  let winner: Operation<string> | undefined;
  let loser: Operation | undefined;
  const outcome = watch(race([
    () => (winner = new Operation<string>()).promise,
    () => (loser = new Operation({ lingers: true })).promise,
  ]));
  winner!.complete("winner");
  await turn();
  assertEquals([loser!.cancels, outcome.state], [1, "pending"]);
  loser!.end();
  await turn();
  assertEquals(outcome, { state: "fulfilled", value: "winner" });
});

Deno.test("race(): the losers' reason is an AbortError", async () => {
  let reason: unknown;
  await race([turn, () => forever().catch((error) => reason = error)]);
  assertInstanceOf(reason, DOMException);
  assertEquals(reason.name, "AbortError");
});

Deno.test("race(): a loser's value is dropped", async () => {
  const value = await race([
    () => "winner",
    async () => {
      await forever().catch(() => {});
      return "loser";
    },
  ]);
  assertEquals(value, "winner");
});

Deno.test("race(): a loser's real error is not swallowed", async () => {
  const error = new Error("in cleanup");
  const thrown = await assertRejects(() =>
    race([
      () => "winner",
      async () => {
        try {
          await forever();
        } finally {
          await shield(() => Promise.reject(error));
        }
      },
    ])
  );
  assertStrictEquals(thrown, error);
});

Deno.test("race(): several real errors are thrown as an AggregateError, in the order in which they happened", async () => {
  const errors = [new Error("first"), new Error("second")];
  const thrown = await assertRejects(() =>
    race([
      () =>
        forever().catch(() => {
          throw errors[1];
        }),
      () => Promise.reject(errors[0]),
    ])
  );
  assertInstanceOf(thrown, AggregateError);
  assertStrictEquals(thrown.errors[0], errors[0]);
  assertStrictEquals(thrown.errors[1], errors[1]);
});

Deno.test("race(): an error that passes twice is one error", async () => {
  const error = new Error("real");
  const fail = () => Promise.reject(error);
  assertStrictEquals(await assertRejects(() => race([fail, () => forever().catch(fail)])), error);
});

Deno.test("race() in a cancelled scope rejects with the scope's reason", async () => {
  const reason = new Error("stop");
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      queueMicrotask(() => s.cancel(reason));
      await race([forever, forever]);
    })
  );
  assertStrictEquals(thrown, reason);
});

Deno.test("race(): a function that was cancelled from outside has not won: a value beats the cancel", async () => {
  const controller = new AbortController();
  let slow: Operation<string> | undefined;
  const outcome = watch(race([
    forever,
    () => (slow = new Operation<string>({ lingers: true })).promise,
  ], { signal: controller.signal }));
  controller.abort();
  await turn();
  assertEquals(outcome.state, "pending");
  slow!.complete("was done before");
  await turn();
  assertEquals(outcome, { state: "fulfilled", value: "was done before" });
});

Deno.test("race(): a signal from outside cancels all functions with its reason", async () => {
  const controller = new AbortController();
  const reason = new Error("outside");
  const outcome = watch(race([forever, forever], { signal: controller.signal }));
  controller.abort(reason);
  await turn();
  assertStrictEquals(outcome.value, reason);
  assertStrictEquals(await assertRejects(() => race([forever], { signal: controller.signal })), reason);
});

Deno.test("race() starts all functions before any of them can have settled", async () => {
  const started: number[] = [];
  assertEquals(
    await race([() => started.push(1), () => Promise.resolve(void started.push(2)), () => started.push(3)]),
    1,
  );
  assertEquals(started, [1, 2, 3]);
});

Deno.test("race(): what the winner goes on with later is not cancelled", async () => {
  let later: Operation | undefined;
  await race([() => void setTimeout(() => later = new Operation()), forever]);
  await turn();
  await turn();
  assertEquals(later!.started, true);
});

Deno.test("race() of nothing rejects instead of hanging", async () => {
  await assertRejects(() => race([]), TypeError, "at least one function");
});

Deno.test("race(): a promise among the functions is a type error and a TypeError, and none is started", async () => {
  let started = false;
  const start = () => {
    started = true;
  };
  // @ts-expect-error: it takes functions
  await assertRejects(() => race([start, Promise.resolve(1)]), TypeError, "element 1");
  // @ts-expect-error: it takes functions
  await assertRejects(() => race([start, 1]), TypeError, "takes functions");
  // @ts-expect-error: it takes an array
  await assertRejects(() => race(start), TypeError, "takes an array");
  // @ts-expect-error: it takes an AbortSignal
  await assertRejects(() => race([start], { signal: {} }), TypeError, "AbortSignal");
  assertEquals(started, false);
});

Deno.test("race(): its type is the union of the functions'", async () => {
  const value: number | string = await race([() => 1, async () => await Promise.resolve("two")]);
  assertEquals(value, 1);
  const fns: (() => Promise<boolean>)[] = [() => Promise.resolve(true)];
  const boolean: boolean = await race(fns);
  assertEquals(boolean, true);
});

Deno.test("race(): nothing is an unhandled rejection", async () => {
  const unhandled = await unhandledRejections(async () => {
    await race([() => 1, forever, () => forever().catch(() => Promise.reject(new Error("loser"))), forever])
      .catch(() => {});
    await race([() => Promise.reject(new Error("first")), () => Promise.reject(new Error("second"))]).catch(() => {});
  });
  assertEquals(unhandled, []);
});

Deno.test("race(): errors lead to the caller's line", async () => {
  async function theCaller() {
    return await race([forever, async () => {
      await turn();
      throw new Error("real");
    }]);
  }
  async function theMisuser() {
    return await race([]);
  }
  const error = await assertRejects(theCaller, Error);
  assert(error.stack!.includes("theCaller"), error.stack);
  const misuse = await assertRejects(theMisuser, TypeError);
  assert(misuse.stack!.includes("theMisuser"), misuse.stack);
});

for (const [name, run] of Object.entries({ race, any, all, settled })) {
  Deno.test(`${name}(): what a function has left behind belongs to the scope around, and ends with it`, async () => {
    const go = Promise.withResolvers<void>();
    const other = new Operation({ lingers: true });
    const [later, slow] = [[] as Operation[], [] as Operation[]];
    const reason = new Error("stop");
    const left = watch(scope(async (s) => {
      const startLater = async () => {
        await go.promise;
        later.push(new Operation());
        slow.push(new Operation({ lingers: true }));
      };
      await run([() => void startLater(), () => other.promise.catch(() => {})]);
      s.cancel(reason);
      await forever();
    }));
    await turn();
    go.resolve();
    await turn();
    assertEquals([later[0].started, later[0].cancels, left.state], [true, 0, "pending"]);
    other.complete();
    await turn();
    assertEquals([later[0].back, later[0].reason, left.state], [true, reason, "pending"]);
    slow[0].end();
    await turn();
    assertStrictEquals(left.value, reason);
  });
}
