import { assertEquals, assertInstanceOf, assertRejects, assertStrictEquals } from "@std/assert";
import { all, race, scope, timeout } from "../scope/mod.ts";
import { born } from "../scope/ownership.ts";
import { forever, manualClock, Operation, Resource, turn } from "./_scope.ts";

/** Is cancelled, and comes to a resource all the same. */
async function openLate(resource: Resource): Promise<Resource> {
  await forever().catch(() => {});
  return born(resource);
}

Deno.test("a loser's resource is disposed of before race() settles, the winner's is not", async () => {
  const [winner, loser] = [new Resource(), new Resource(turn)];
  const value = await race([() => born(winner), () => openLate(loser)]);
  assertStrictEquals(value, winner);
  assertEquals([winner.disposed, loser.disposed], [0, 1]);
});

Deno.test("a resource born in a timeout or child of the loser is the loser's", async () => {
  manualClock();
  const resource = new Resource();
  await race([
    () => 1,
    () => scope(async (s) => await s.spawn(() => timeout(100, () => openLate(resource)))),
  ]);
  assertEquals(resource.disposed, 1);
});

Deno.test("a resource that a loser merely returns lives elsewhere, and stays open", async () => {
  const elsewhere = born(new Resource());
  const unknown = new Resource();
  await scope(async () => {
    const around = born(new Resource());
    for (const resource of [elsewhere, unknown, around]) {
      await race([() => 1, () => forever().catch(() => resource)]);
      assertEquals(resource.disposed, 0);
    }
  });
});

Deno.test("a resource that the winner has too stays open", async () => {
  const shared = new Resource();
  let made: Resource | undefined;
  const value = await race([
    async () => {
      while (made === undefined) await turn();
      return [made];
    },
    async () => {
      made = born(shared);
      await forever().catch(() => {});
      return made;
    },
  ]);
  assertEquals([value, shared.disposed], [[shared], 0]);
});

Deno.test("the resources of an array and of a plain object are found, as those of a pipe", async () => {
  const [reader, writer, left, right] = Array.from({ length: 4 }, () => new Resource());
  const waitFor = async <T>(fn: () => T) => (await forever().catch(() => {}), fn());
  await race([
    () => 1,
    () => waitFor(() => ({ reader: born(reader), writer: born(writer), size: 1, none: null })),
    () => waitFor(() => [born(left), born(right), "text", undefined]),
  ]);
  assertEquals([reader, writer, left, right].map(({ disposed }) => disposed), [1, 1, 1, 1]);
});

Deno.test("a resource that is dropped twice is disposed of once", async () => {
  const resource = new Resource();
  await race([
    () => 1,
    async () => {
      await forever().catch(() => {});
      born(resource);
      return [resource, resource];
    },
  ]);
  assertEquals(resource.disposed, 1);
});

Deno.test("values that are dropped and no resources do no harm", async () => {
  for (const value of [undefined, null, 1, "text", Symbol("s"), () => {}, Object.create(null), new Map(), []]) {
    assertEquals(await race([() => "winner", () => forever().catch(() => value)]), "winner");
  }
});

Deno.test("a resource with Symbol.dispose alone is disposed of", async () => {
  let disposed = 0;
  const resource = { [Symbol.dispose]: () => void disposed++ };
  class Plain {
    [Symbol.dispose] = resource[Symbol.dispose];
  }
  await race([() => 1, () => forever().catch(() => born(new Plain()))]);
  assertEquals(disposed, 1);
});

Deno.test("disposal is shielded from cancellation", async () => {
  let operation: Operation | undefined;
  const resource = new Resource(async () => {
    operation = new Operation();
    await turn();
    operation.complete();
    await operation.promise;
  });
  await assertRejects(() =>
    scope(async (s) => {
      queueMicrotask(() => s.cancel());
      await race([() => 1, () => openLate(resource)]);
      await forever();
    })
  );
  assertEquals([operation!.started, operation!.cancels, resource.disposed], [true, 0, 1]);
});

Deno.test("an error of a disposal is a real error, for which the winner's resource is disposed of too", async () => {
  const error = new Error("disposal");
  const winner = new Resource();
  const thrown = await assertRejects(() =>
    race([() => born(winner), () => openLate(new Resource(() => Promise.reject(error)))])
  );
  assertStrictEquals(thrown, error);
  assertEquals(winner.disposed, 1);
});

Deno.test("the winner's resource is disposed of when a loser's real error is thrown", async () => {
  const error = new Error("real");
  const winner = new Resource(() => Promise.reject(new Error("disposal")));
  const thrown = await assertRejects(() =>
    race([() => born(winner), () => forever().catch(() => Promise.reject(error))])
  );
  assertInstanceOf(thrown, AggregateError);
  assertStrictEquals(thrown.errors[0], error);
  assertEquals([thrown.errors.length, winner.disposed], [2, 1]);
});

Deno.test("the resources of all() are disposed of when another function fails or is cancelled", async () => {
  const resources = Array.from({ length: 4 }, () => new Resource());
  const elsewhere = born(new Resource());
  const error = new Error("real");
  const thrown = await assertRejects(() =>
    all([
      () => born(resources[0]),
      () => elsewhere,
      () => openLate(resources[1]),
      async () => {
        await turn();
        throw error;
      },
    ])
  );
  assertStrictEquals(thrown, error);
  const controller = new AbortController();
  queueMicrotask(() => controller.abort());
  await assertRejects(() => all([() => born(resources[2]), forever], { signal: controller.signal }));
  assertEquals(resources.map(({ disposed }) => disposed), [1, 1, 1, 0]);
  assertEquals(elsewhere.disposed, 0);
  assertEquals(await all([() => born(resources[3]), () => 1]), [resources[3], 1]);
  assertEquals(resources[3].disposed, 0);
});

Deno.test("a scope's value is disposed of when the scope fails all the same, after its cleanups", async () => {
  const error = new Error("real");
  const events: string[] = [];
  const resource = new Resource(() => events.push("disposed"));
  const elsewhere = born(new Resource());
  for (const value of [resource, elsewhere]) {
    const thrown = await assertRejects(() =>
      scope((s) => {
        s.defer(() => events.push("cleanup"));
        s.spawn(async () => {
          await turn();
          throw error;
        });
        return value === resource ? born(value) : value;
      })
    );
    assertStrictEquals(thrown, error);
  }
  assertEquals(events, ["cleanup", "disposed", "cleanup"]);
  assertEquals(elsewhere.disposed, 0);
});

Deno.test("a value that is delivered is not disposed of", async () => {
  manualClock();
  const resource = new Resource();
  const value = await scope((s) => timeout(100, () => scope(() => (s.cancel(), born(resource)))));
  assertStrictEquals(value, resource);
  assertEquals(resource.disposed, 0);
});
