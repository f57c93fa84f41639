import { assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { open } from "../mod.ts";
import { race, type Scope, scope } from "../scope/mod.ts";
import { born } from "../scope/ownership.ts";
import { forever, Operation, Resource, turn } from "./_scope.ts";

Deno.test("s.use() returns the resource, and disposes of it in reverse order with the cleanups", async () => {
  const order: string[] = [];
  await scope((s) => {
    s.defer(() => order.push("first cleanup"));
    const resource = new Resource(async () => (await turn(), order.push("resource")));
    assertStrictEquals(s.use(resource), resource);
    s.defer(() => order.push("second cleanup"));
    s.spawn(async () => (await turn(), order.push("child")));
  });
  assertEquals(order, ["child", "second cleanup", "resource", "first cleanup"]);
});

Deno.test("s.use() takes Disposable and AsyncDisposable, of both the asynchronous one, once", async () => {
  const order: string[] = [];
  const both = {
    order,
    [Symbol.dispose]() {
      this.order.push("sync of both");
    },
    async [Symbol.asyncDispose]() {
      await turn();
      this.order.push("async of both");
    },
  };
  await scope((s) => {
    s.use(both);
    using sync = s.use({ [Symbol.dispose]: () => void order.push("sync") });
    void sync;
    s.use(Object.assign(() => {}, { [Symbol.dispose]: () => void order.push("a function") }));
  });
  assertEquals(order, ["sync", "a function", "sync", "async of both"]);
});

Deno.test("s.use(): the resource is disposed of when the scope fails or is cancelled, shielded", async () => {
  const reason = new Error("stop");
  const operations: Operation[] = [];
  const closeSlowly = () => {
    operations.push(new Operation());
    operations.at(-1)!.complete();
    return operations.at(-1)!.promise;
  };
  const [failed, cancelled] = [new Resource(closeSlowly), new Resource(closeSlowly)];
  assertStrictEquals(
    await assertRejects(() => scope((s) => (s.use(failed), Promise.reject(reason)))),
    reason,
  );
  assertStrictEquals(
    await assertRejects(() =>
      scope(async (s) => {
        s.cancel(reason);
        s.use(cancelled);
        await forever();
      })
    ),
    reason,
  );
  assertEquals([failed.disposed, cancelled.disposed], [1, 1]);
  assertEquals(operations.map(({ started }) => started), [true, true]);
});

Deno.test("s.use(): an error of the disposal is the scope's, and does not stop the others", async () => {
  const error = new Error("in close");
  const other = new Resource();
  const thrown = await assertRejects(() =>
    scope((s) => {
      s.use(other);
      s.use(new Resource(() => Promise.reject(error)));
    })
  );
  assertStrictEquals(thrown, error);
  assertEquals(other.disposed, 1);
});

Deno.test("s.use(): nobody else disposes of the resource, and the scope does once", async () => {
  const [value, loser] = [new Resource(), new Resource()];
  await assertRejects(() =>
    scope((s) => {
      s.defer(() => Promise.reject(new Error("so that the value is dropped")));
      return s.use(born(value));
    })
  );
  assertEquals(value.disposed, 1);
  await scope(async (s) => {
    await race([() => 1, () => forever().catch(() => s.use(born(loser)))]);
    assertEquals(loser.disposed, 0);
  });
  assertEquals(loser.disposed, 1);
});

Deno.test("s.use(): what is not disposable is a type error and a TypeError", async () => {
  await scope((s) => {
    // @ts-expect-error: it takes something disposable
    assertThrows(() => s.use({}), TypeError, "disposable");
    // @ts-expect-error: it takes something disposable
    assertThrows(() => s.use(null), TypeError, "disposable");
    // @ts-expect-error: it takes something disposable
    assertThrows(() => s.use({ [Symbol.dispose]: 1 }), TypeError, "disposable");
    // @ts-expect-error: it takes something disposable
    assertThrows(() => s.use(Promise.resolve(new Resource())), TypeError, "disposable");
  });
});

Deno.test("s.use() in a settled scope throws, and leaves the resource alone", async () => {
  let s: Scope | undefined;
  const resource = new Resource();
  await scope((inner) => void (s = inner));
  assertThrows(() => s!.use(resource), TypeError, "too late");
  assertEquals(resource.disposed, 0);
});

Deno.test("s.use(): a block's resources live as long as its scope", async () => {
  const resource = new Resource();
  {
    await using s = scope();
    s.use(resource);
    await turn();
    assertEquals(resource.disposed, 0);
  }
  assertEquals(resource.disposed, 1);
});

Deno.test("s.use() of a file: it is open until the last child has ended, and closed then", async () => {
  const file = await scope(async (s) => {
    const file = s.use(await open("/proc/self/exe"));
    s.spawn(async () => {
      await turn();
      assertEquals(await file.readAt(new Uint8Array(4), 0), 4);
    });
    return file;
  });
  await assertRejects(() => file.readAt(new Uint8Array(4), 0), Deno.errors.BadResource);
});
