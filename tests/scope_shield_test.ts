import { assert, assertEquals, assertRejects, assertStrictEquals, assertStringIncludes } from "@std/assert";
import { scope, shield, timeout } from "../scope/mod.ts";
import { forever, manualClock, Operation, turn, watch } from "./_scope.ts";

Deno.test("shield() holds cancellation off; it is delivered when the shield ends", async () => {
  const reason = new Error("stop");
  let inside: Operation<string> | undefined;
  let value: string | undefined;
  let after: Operation | undefined;
  const left = watch(scope(async (s) => {
    queueMicrotask(() => s.cancel(reason));
    value = await shield(() => (inside = new Operation<string>()).promise);
    await (after = new Operation()).promise;
  }));
  await turn();
  assertEquals([inside!.cancels, left.state], [0, "pending"]);
  inside!.complete("value");
  await turn();
  assertEquals([value, after!.started], ["value", false]);
  assertStrictEquals(left.value, reason);
});

Deno.test("a shield entered in a cancelled scope lets its operations run", async () => {
  const reason = new Error("stop");
  const left = watch(scope(async (s) => {
    s.cancel(reason);
    const operation = shield(() => {
      const operation = new Operation<string>();
      assert(operation.started);
      operation.complete("value");
      return operation.promise;
    });
    assertEquals(await operation, "value");
    await forever();
  }));
  await turn();
  assertStrictEquals(left.value, reason);
});

Deno.test("children spawned inside a shield into a scope of its own are shielded, and into one outside are not", async () => {
  const reason = new Error("stop");
  let shielded: Operation | undefined;
  let outside: Operation | undefined;
  const left = watch(scope(async (s) => {
    s.cancel(reason);
    await shield(() =>
      scope((inner) => {
        inner.spawn(() => (shielded = new Operation()).promise);
        s.spawn(() => (outside = new Operation()).promise);
      })
    );
    await forever();
  }));
  await turn();
  assertEquals([shielded!.started, outside!.started, left.state], [true, false, "pending"]);
  shielded!.complete();
  await turn();
  assertStrictEquals(left.value, reason);
});

Deno.test("a deadline set inside a shield works", async () => {
  const clock = manualClock();
  const left = watch(scope(async (s) => {
    s.cancel();
    const error = await assertRejects(() => shield(() => timeout(5, forever)), DOMException);
    assertEquals(error.name, "TimeoutError");
  }));
  await clock.advance(5);
  await turn();
  await turn();
  assertEquals(left.state, "fulfilled");
});

Deno.test("a scope inside a shield can be cancelled", async () => {
  const reason = new Error("inside");
  await scope(async (s) => {
    s.cancel();
    assertStrictEquals(
      await assertRejects(() =>
        shield(() =>
          scope(async (inner) => {
            inner.cancel(reason);
            await forever();
          })
        )
      ),
      reason,
    );
  });
});

Deno.test("a scope waits for a shield that nobody awaits", async () => {
  let operation: Operation | undefined;
  const left = watch(scope((s) => {
    s.cancel();
    void shield(() => (operation = new Operation()).promise);
  }));
  await turn();
  assertEquals(left.state, "pending");
  operation!.complete();
  await turn();
  assertEquals(left.state, "fulfilled");
});

Deno.test("shield() cancels operations that its function has not awaited, and waits for them", async () => {
  let operation: Operation | undefined;
  const left = watch(shield(() => void (operation = new Operation({ lingers: true }))));
  await turn();
  assertEquals([operation!.cancels, left.state], [1, "pending"]);
  operation!.end();
  await turn();
  assertEquals(left.state, "fulfilled");
});

Deno.test("shield() throws what its function throws, and it leads to the caller's line", async () => {
  async function theCaller() {
    await shield(async () => {
      await turn();
      throw new Error("real");
    });
  }
  assertStringIncludes((await assertRejects(theCaller, Error, "real")).stack!, "theCaller");
  // @ts-expect-error: it takes a function
  await assertRejects(() => shield(Promise.resolve(1)), TypeError, "takes a function");
});
