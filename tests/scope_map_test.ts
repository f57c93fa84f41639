import { assert, assertEquals, assertInstanceOf, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { connect, defaultRing, listen } from "../mod.ts";
import { channel, map, scope, timeout } from "../scope/mod.ts";
import { born } from "../scope/ownership.ts";
import { forever, manualClock, Operation, Resource, turn, unhandledRejections, watch } from "./_scope.ts";

/** The numbers from 0, and what was done with them. */
class Numbers {
  taken = 0;
  returns = 0;
  readonly #end: number;

  constructor(end = Infinity) {
    this.#end = end;
  }

  [Symbol.iterator](): Iterator<number> {
    return {
      next: () => this.taken < this.#end ? { value: this.taken++ } : { done: true, value: undefined },
      return: () => {
        this.returns++;
        return { done: true, value: undefined };
      },
    };
  }
}

/** The same, asynchronously, and closed by an operation of its own. */
async function* slowly(numbers: Numbers, close: () => Promise<unknown> = turn): AsyncGenerator<number> {
  try {
    for (const n of numbers) {
      await turn();
      yield n;
    }
  } finally {
    await close();
  }
}

/** A function that waits until it is told, and what it was called with. */
function calls({ lingers = false } = {}) {
  const operations: Operation<string>[] = [];
  const fn = async (n: number) => await (operations[n] = new Operation<string>({ lingers })).promise;
  return { operations, fn };
}

Deno.test("map() gives the results in the order of the items, whichever is there first", async () => {
  const { operations, fn } = calls();
  const results = watch(Array.fromAsync(map([0, 1, 2, 3], fn, { concurrency: 4 })));
  for (const n of [2, 3, 0, 1]) {
    operations[n].complete(`result ${n}`);
    await turn();
  }
  assertEquals(results.value, ["result 0", "result 1", "result 2", "result 3"]);
  for (const concurrency of [1, 2, 3, 100]) {
    for (const source of [new Numbers(10), slowly(new Numbers(10))]) {
      const squares = map(source, async (n, i) => (await turn(), assertEquals(n, i), n * n), { concurrency });
      assertEquals(await Array.fromAsync(squares), [0, 1, 4, 9, 16, 25, 36, 49, 64, 81]);
      assertEquals(await squares.next(), { done: true, value: undefined });
    }
  }
  assertEquals(await Array.fromAsync(map([], fn)), []);
});

Deno.test("map() takes nothing before the first next, and then no more than there is room for", async () => {
  for (const concurrency of [1, 3]) {
    const numbers = new Numbers();
    const { operations, fn } = calls();
    const results = map(numbers, fn, { concurrency });
    await turn();
    assertEquals(numbers.taken, 0);
    for (let n = 0; n < 10; n++) {
      const next = watch(results.next());
      assertEquals(numbers.taken, n + concurrency);
      // The last first, so that results are there that nobody has taken.
      for (const operation of operations.toReversed()) {
        operation.complete("done");
        await turn();
      }
      assertEquals(next.state, "fulfilled");
      assertEquals(numbers.taken, n + concurrency);
    }
    await results.return!();
  }
});

Deno.test("map() goes one by one where nothing else was said", async () => {
  const numbers = new Numbers();
  const { operations, fn } = calls();
  const results = map(numbers, fn);
  const next = results.next();
  await turn();
  assertEquals(operations.length, 1);
  operations[0].complete("first");
  assertEquals((await next).value, "first");
  await turn();
  assertEquals(numbers.taken, 1);
  await results.return!();
});

Deno.test("map(): leaving the loop cancels what is in flight, waits for it, and closes the source", async () => {
  const left = new Error("left");
  const leave = [
    (results: AsyncIterable<unknown>) =>
      (async () => {
        for await (const _ of results) break;
      })(),
    (results: AsyncIterable<unknown>) =>
      assertRejects(async () => {
        for await (const _ of results) throw left;
      }),
    async (results: AsyncIterableIterator<unknown, undefined>) => {
      await results.next();
      assertEquals(await results.return!(), { done: true, value: undefined });
    },
    async (results: AsyncIterableIterator<unknown> & AsyncDisposable) => {
      await using owned = results;
      await owned.next();
    },
  ];
  for (const leaving of leave) {
    const numbers = new Numbers();
    const { operations, fn } = calls({ lingers: true });
    const outcome = watch(leaving(map(numbers, fn, { concurrency: 3 })));
    operations[0].complete("first");
    await turn();
    assertEquals(operations.map(({ cancels }) => cancels), [0, 1, 1]);
    assertEquals([numbers.returns, outcome.state], [0, "pending"]);
    operations[1].end();
    await turn();
    assertEquals([numbers.returns, outcome.state], [0, "pending"]);
    operations[2].complete("too late");
    await turn();
    assertEquals([numbers.returns, outcome.state, numbers.taken], [1, "fulfilled", 3]);
  }
});

Deno.test("map(): the source is closed though nothing was taken from it, and not when it has ended", async () => {
  const numbers = new Numbers();
  const results = map(numbers, () => 1);
  await results.return!();
  assertEquals([numbers.taken, numbers.returns], [0, 1]);
  assertEquals(await results.next(), { done: true, value: undefined });
  await results.return!();
  const few = new Numbers(2);
  await Array.fromAsync(map(few, () => 1));
  assertEquals([few.taken, few.returns, numbers.returns], [2, 0, 1]);
});

Deno.test("map(): the source is closed shielded, with operations of its own", async () => {
  const reason = new Error("stop");
  let close: Operation | undefined;
  let s: { cancel(reason: unknown): void } | undefined;
  const outcome = watch(scope(async (inner) => {
    s = inner;
    const source = slowly(new Numbers(), () => (close = new Operation()).promise);
    for await (const _ of map(source, (n) => n === 0 ? n : forever())) continue;
  }));
  for (let i = 0; i < 4; i++) await turn();
  s!.cancel(reason);
  await turn();
  assertEquals([close?.started, close?.cancels, outcome.state], [true, 0, "pending"]);
  close!.complete();
  await turn();
  assertStrictEquals(outcome.value, reason);
});

Deno.test("map(): the first error cancels the rest, and is thrown when all has come back", async () => {
  const error = new Error("real");
  const numbers = new Numbers();
  const { operations, fn } = calls({ lingers: true });
  const results = map(numbers, fn, { concurrency: 3 });
  const first = watch(results.next());
  const second = watch(results.next());
  operations[1].fail(error);
  await turn();
  assertEquals(operations.map(({ cancels }) => cancels), [1, 0, 1]);
  assertStrictEquals((operations[0].reason as Error).cause, error);
  assertEquals([first.state, second.state], ["pending", "pending"]);
  operations[0].end();
  operations[2].complete("dropped");
  await turn();
  assertStrictEquals(first.value, error);
  assertEquals(second.value, { done: true, value: undefined });
  assertEquals([numbers.taken, numbers.returns], [3, 1]);
  assertEquals(await results.next(), { done: true, value: undefined });
});

Deno.test("map(): an error that comes while nobody waits is thrown by the next next, or by leaving", async () => {
  const error = new Error("real");
  for (const last of ["next", "return"] as const) {
    const { operations, fn } = calls();
    const results = map(new Numbers(), fn, { concurrency: 2 });
    const next = results.next();
    operations[0].complete("first");
    assertEquals((await next).value, "first");
    operations[1].fail(error);
    await turn();
    assertStrictEquals(await assertRejects(() => results[last]!()), error);
    assertEquals(await results[last]!(), { done: true, value: undefined });
  }
});

Deno.test("map(): an error that nobody has come for when the scope is left is an unhandled rejection, once", async () => {
  const error = new Error("real");
  for (const failed of ["before", "by"]) {
    const left = Promise.withResolvers<void>();
    const reasons = await unhandledRejections(() =>
      scope(async () => {
        const { operations, fn } = calls({ lingers: true });
        const results = map(new Numbers(), fn, { concurrency: 2 });
        const next = results.next();
        operations[0].complete("first");
        await next;
        if (failed === "before") operations[1].fail(error);
        else void left.promise.then(() => operations[1].fail(error));
        await turn();
        setTimeout(left.resolve);
        return results;
      }).then(async (results) => assertEquals(await results.next(), { done: true, value: undefined }))
    );
    assertEquals(reasons, [error]);
  }
});

Deno.test("map(): a next, or leaving the loop, comes for the error though it came long before", async () => {
  const error = new Error("real");
  for (const last of ["next", "return"] as const) {
    const reasons = await unhandledRejections(() =>
      scope(async () => {
        const { operations, fn } = calls();
        const results = map(new Numbers(), fn, { concurrency: 2 });
        const next = results.next();
        operations[0].complete("first");
        await next;
        operations[1].fail(error);
        await turn();
        assertStrictEquals(await assertRejects(() => results[last]!()), error);
      })
    );
    assertEquals(reasons, []);
  }
});

Deno.test("map(): an error of the source is thrown, and a source that failed is not closed", async () => {
  const error = new Error("in source");
  for (const asynchronous of [false, true]) {
    let returns = 0;
    const next = () => {
      throw error;
    };
    const iterator = { next: asynchronous ? () => Promise.reject(error) : next, return: () => returns++ };
    const source = { [asynchronous ? Symbol.asyncIterator : Symbol.iterator]: () => iterator };
    const results = map(source as unknown as Iterable<number>, forever);
    assertStrictEquals(await assertRejects(() => results.next()), error);
    assertEquals(returns, 0);
  }
});

Deno.test("map(): several real errors are thrown as an AggregateError, that of closing the source among them", async () => {
  const errors = [new Error("first"), new Error("second"), new Error("in close")];
  const results = map(
    slowly(new Numbers(), () => Promise.reject(errors[2])),
    (n) => n === 0 ? forever().catch(() => Promise.reject(errors[1])) : Promise.reject(errors[0]),
    { concurrency: 2 },
  );
  const thrown = await assertRejects(() => results.next());
  assertInstanceOf(thrown, AggregateError);
  assertEquals(thrown.errors.length, 3);
  thrown.errors.forEach((error, i) => assertStrictEquals(error, errors[i]));
});

Deno.test("map() in a scope that is cancelled cancels the calls, and rejects with the reason when they are back", async () => {
  const reason = new Error("stop");
  const { operations, fn } = calls({ lingers: true });
  const numbers = new Numbers();
  let next: ReturnType<typeof watch> | undefined;
  const outcome = watch(scope(async (s) => {
    turn().then(() => s.cancel(reason));
    const results = map(numbers, fn, { concurrency: 2 });
    const first = results.next();
    next = watch(first);
    await first;
  }));
  await turn();
  await turn();
  assertEquals([operations.map(({ cancels }) => cancels), next!.state, outcome.state], [[1, 1], "pending", "pending"]);
  operations[0].end();
  await turn();
  assertEquals(next!.state, "pending");
  operations[1].end();
  await turn();
  assertStrictEquals(next!.value, reason);
  assertStrictEquals(outcome.value, reason);
  assertEquals([numbers.taken, numbers.returns], [2, 1]);
});

Deno.test("map(): a cancel while the source is waited for is no end of the source", async () => {
  const reason = new Error("stop");
  const sources: (() => AsyncIterable<unknown>)[] = [
    () => channel<number>(),
    async function* () {
      yield await forever();
    },
    () => map([1], forever),
  ];
  for (const source of sources) {
    const thrown = await assertRejects(() =>
      scope(async (s) => {
        turn().then(() => s.cancel(reason));
        for await (const _ of map<unknown, number>(source(), () => 1)) continue;
      })
    );
    assertStrictEquals(thrown, reason);
  }
});

Deno.test("map(): a value beats a cancel that came too late; the next next rejects", async () => {
  const controller = new AbortController();
  const { operations, fn } = calls({ lingers: true });
  const results = map(new Numbers(), fn, { signal: controller.signal });
  const next = results.next();
  const reason = new Error("outside");
  controller.abort(reason);
  operations[0].complete("value");
  assertEquals(await next, { done: false, value: "value" });
  assertStrictEquals(await assertRejects(() => results.next()), reason);
  assertEquals(await results.next(), { done: true, value: undefined });
  const late = new Numbers();
  assertStrictEquals(await assertRejects(() => map(late, fn, { signal: controller.signal }).next()), reason);
  assertEquals([late.taken, late.returns], [0, 1]);
});

Deno.test("map(): a next that is cancelled further in takes no result, and cancels no call", async () => {
  const clock = manualClock();
  const { operations, fn } = calls();
  const results = map(new Numbers(3), fn, { concurrency: 2 });
  const first = results.next();
  operations[0].complete("first");
  assertEquals((await first).value, "first");
  const cancelled = assertRejects(() => timeout(5, () => results.next()), DOMException, "Timed out");
  await clock.advance(5);
  await cancelled;
  assertEquals(operations.map(({ cancels }) => cancels), [0, 0, 0]);
  const rest = watch(Array.fromAsync(results));
  operations[1].complete("second");
  operations[2].complete("third");
  await turn();
  assertEquals(rest.value, ["second", "third"]);
});

Deno.test("map(): the reason is that of the time of the cancel, not of a deadline that passes later", async () => {
  const clock = manualClock();
  const controller = new AbortController();
  const results = map(new Numbers(), (n) => n, controller);
  await timeout(5, async () => {
    await results.next();
    controller.abort("first");
  });
  clock.skip(10);
  assertEquals(await results.next().catch((error) => error), "first");
});

Deno.test("map(): a scope that is left cancels an iteration that was left half-way, and waits for it", async () => {
  const numbers = new Numbers();
  const { operations, fn } = calls({ lingers: true });
  let results: AsyncIterableIterator<string> | undefined;
  const outcome = watch(scope(async () => {
    results = map(numbers, fn, { concurrency: 2 });
    const next = results.next();
    operations[0].complete("first");
    await next;
  }));
  await turn();
  assertEquals([operations[1].cancels, outcome.state], [1, "pending"]);
  operations[1].end();
  await turn();
  assertEquals([outcome.state, numbers.returns], ["fulfilled", 1]);

  // And so it is with one that has nothing in flight.
  const idle = new Numbers();
  await scope(async () => void await map(idle, () => 1).next());
  assertEquals([idle.taken, idle.returns], [1, 1]);
  // What was left behind does not give more.
  await assertRejects(() => results!.next(), DOMException, "scope was left");
});

Deno.test("map(): the calls and the source belong to the scope of the first next, whoever calls the others", async () => {
  const reason = new Error("stop");
  const { operations, fn } = calls();
  const outcome = watch(scope(async (s) => {
    const results = map(new Numbers(2), fn);
    const first = s.spawn(() => scope((inner) => (inner.cancel("not this one"), 1)).then(() => results.next()));
    while (operations.length === 0) await turn();
    operations[0].complete("first");
    await first;
    await scope(async (inner) => {
      const second = results.next().catch((error) => error);
      inner.cancel(reason);
      assertStrictEquals(await second, reason);
    });
  }));
  for (let i = 0; i < 4; i++) await turn();
  assertEquals(operations.length, 1, "the child that called the first next has ended, and the iteration with it");
  assertEquals(outcome.state, "rejected");
});

Deno.test("map(): an item that was being taken when the loop was left is closed, and so are results", async () => {
  const [item, result, taken] = [new Resource(), new Resource(), new Resource()];
  async function* source() {
    yield 0;
    yield 1;
    await forever().catch(() => {});
    yield born(item);
  }
  const results = map(source(), (_, i) => born([taken, result][i]), { concurrency: 3 });
  assertStrictEquals((await results.next()).value, taken);
  for (let i = 0; i < 3; i++) await turn();
  await results.return!();
  assertEquals([taken, result, item].map(({ disposed }) => disposed), [0, 1, 1]);
});

Deno.test("map(): what is not iterable, no function or no concurrency is an error", () => {
  // @ts-expect-error: it takes something iterable
  assertThrows(() => map(1, forever), TypeError, "iterable");
  // @ts-expect-error: it takes something iterable
  assertThrows(() => map(null, forever), TypeError, "iterable");
  // @ts-expect-error: it takes a function
  assertThrows(() => map([], Promise.resolve()), TypeError, "takes a function");
  for (const concurrency of [0, -1, 1.5, NaN, Infinity, "2" as unknown as number]) {
    assertThrows(() => map([], forever, { concurrency }), RangeError, "concurrency");
  }
});

Deno.test("map(): nothing is an unhandled rejection", async () => {
  const fail = () => Promise.reject(new Error("one"));
  const unhandled = await unhandledRejections(async () => {
    for await (const _ of map([1, 2, 3], (n) => n === 1 ? n : turn().then(fail), { concurrency: 3 })) await turn();
  }).catch((error) => [error.errors ?? error.message]);
  assert(unhandled.length === 1);
});

Deno.test("map() of 100,000 items, some at a time", async () => {
  let sum = 0;
  for await (const n of map(new Numbers(100_000), (n) => n, { concurrency: 7 })) sum += n;
  assertEquals(sum, 4_999_950_000);
});

Deno.test("map() over a listener: leaving the loop ends the accept and the calls in the kernel", async () => {
  await using listener = await listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const answers = map(listener, async (accepted) => {
    await using conn = accepted;
    return await conn.read(new Uint8Array(8));
  }, { concurrency: 3 });
  await using one = await connect({ port });
  await using two = await connect({ port });
  await two.writeAll(new Uint8Array(2));
  await one.writeAll(new Uint8Array(1));
  assertEquals((await answers.next()).value, 1);
  // It says nothing: its call waits for it, or it for its call, when the loop is left.
  await using silent = await connect({ port });
  for await (const n of answers) {
    assertEquals(n, 2);
    break;
  }
  assertEquals(defaultRing().inFlight, 0);
  assertEquals(await silent.read(new Uint8Array(1)), null);
});
