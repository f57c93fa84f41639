import {
  assert,
  assertEquals,
  assertRejects,
  assertStrictEquals,
  assertStringIncludes,
  assertThrows,
} from "@std/assert";
import { connect, defaultRing, listen, sleep } from "../mod.ts";
import { all, retry, type Scope, scope, shield, timeout } from "../scope/mod.ts";
import { clock as installed, installClock } from "../scope/clock.ts";
import { forever, manualClock, Operation, turn, watch } from "./_scope.ts";

const kernelClock = installed();

const turns = async (n = 5) => {
  for (let i = 0; i < n; i++) await turn();
};

/** An operation that a signal ends, as those of io/ do. */
function waitFor(signal: AbortSignal): Promise<void> {
  return new Promise((_, reject) => {
    if (signal.aborted) reject(signal.reason);
    else signal.addEventListener("abort", () => reject(signal.reason), { once: true });
  });
}

Deno.test("s.cancel(reason, { grace }) asks first, and cuts off what is left when the grace is over", async () => {
  const clock = manualClock();
  const reason = new Error("stop");
  let operation: Operation | undefined;
  let s: Scope | undefined;
  const outcome = watch(scope(async (inner) => {
    s = inner;
    await (operation = new Operation()).promise;
  }));
  const { stopping, signal } = s!;
  s!.cancel(reason, { grace: 10 });
  assertEquals([stopping.aborted, signal.aborted, s!.cancelled], [true, false, false]);
  assertStrictEquals(stopping.reason, reason);
  await clock.advance(9);
  assertEquals([operation!.cancels, outcome.state], [0, "pending"]);
  await clock.advance(1);
  await turns();
  assertEquals([operation!.cancels, signal.aborted], [1, true]);
  assertStrictEquals(outcome.value, reason);
  assertEquals(clock.pending, []);
});

Deno.test("what ends within the grace is never cut off: the value is the scope's, and no alarm is left", async () => {
  const clock = manualClock();
  const operations: Operation[] = [];
  const outcome = watch(scope(async (s) => {
    s.spawn(async () => {
      while (!s.stopping.aborted) {
        operations.push(new Operation());
        await operations.at(-1)!.promise;
      }
    });
    turn().then(() => s.cancel(undefined, { grace: 10 }));
    await turns();
    assertEquals((s.stopping.reason as Error).name, "AbortError");
    // Nothing is refused during the grace.
    s.spawn(() => (operations.push(new Operation()), operations.at(-1)!.promise));
    return "value";
  }));
  await turns(8);
  assertEquals(operations.map(({ started, cancels }) => [started, cancels]), [[true, 0], [true, 0]]);
  operations[1].complete();
  await turns();
  assertEquals(outcome.state, "pending");
  operations[0].complete();
  await turns();
  assertEquals(outcome, { state: "fulfilled", value: "value" });
  assertEquals([operations.length, clock.pending.length, clock.stops], [2, 0, 1]);
});

Deno.test("a child that ends with the reason of stopping has done as it was told: no error, and nothing is cancelled", async () => {
  manualClock();
  let sibling: Operation | undefined;
  const outcome = watch(scope((s) => {
    s.spawn(() => waitFor(s.stopping));
    s.spawn(() => scope((inner) => void inner.spawn(() => waitFor(inner.stopping))));
    s.spawn(() => all([() => waitFor(s.stopping), () => 1]));
    s.spawn(() => (sibling = new Operation()).promise);
    turn().then(() => s.cancel("enough", { grace: 10 }));
    return "value";
  }));
  await turns();
  assertEquals([sibling!.cancels, outcome.state], [0, "pending"]);
  sibling!.complete();
  await turns();
  assertEquals(outcome, { state: "fulfilled", value: "value" });
});

Deno.test("a function that ends with the reason of stopping lets its scope reject with it", async () => {
  manualClock();
  const reason = new Error("stop");
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      turn().then(() => s.cancel(reason, { grace: 10 }));
      await waitFor(s.stopping);
    })
  );
  assertStrictEquals(thrown, reason);
});

Deno.test("a value after the grace is a value: the scope was cancelled by itself", async () => {
  const clock = manualClock();
  const outcome = watch(scope(async (s) => {
    s.spawn(forever);
    s.cancel("enough", { grace: 10 });
    await forever().catch(() => {});
    return "value";
  }));
  await clock.advance(10);
  await turns();
  assertEquals(outcome, { state: "fulfilled", value: "value" });
});

Deno.test("a real error during the grace cancels the rest, and is thrown", async () => {
  const clock = manualClock();
  const error = new Error("real");
  let operation: Operation | undefined;
  const outcome = watch(scope(async (s) => {
    s.spawn(() => (operation = new Operation()).promise);
    s.cancel("enough", { grace: 10 });
    await turn();
    throw error;
  }));
  await turns();
  assertEquals(operation!.cancels, 1);
  assertStrictEquals(outcome.value, error);
  assertEquals(clock.pending, []);
});

Deno.test("a second cancel without grace cuts off at once, with the first reason; a second grace changes nothing", async () => {
  const clock = manualClock();
  let s: Scope | undefined;
  const outcome = watch(scope(async (inner) => {
    s = inner;
    await forever();
  }));
  const first = new Error("first");
  s!.cancel(first, { grace: 10 });
  s!.cancel("second", { grace: 5 });
  await clock.advance(5);
  assertEquals(outcome.state, "pending");
  s!.cancel("third");
  await turns();
  assertStrictEquals(outcome.value, first);
  assertEquals([clock.pending.length, clock.timesSet], [0, 1]);
});

Deno.test("a cancel from around the scope does not wait for the grace", async () => {
  const clock = manualClock();
  const outcome = watch(timeout(5, () =>
    scope(async (s) => {
      s.cancel("enough", { grace: 1000 });
      await forever();
    })));
  await clock.advance(5);
  await turns();
  assertEquals((outcome.value as Error).message, "Timed out after 5 ms");
  assertEquals(clock.pending, []);
});

Deno.test("s.cancel(reason, { grace: Infinity }) only asks; { grace: 0 } is none", async () => {
  const clock = manualClock();
  let operation: Operation | undefined;
  const outcome = watch(scope(async (s) => {
    s.cancel("enough", { grace: Infinity });
    await (operation = new Operation()).promise;
    s.cancel("at once", { grace: 0 });
    await forever();
  }));
  await turns();
  assertEquals([operation!.started, outcome.state], [true, "pending"]);
  operation!.complete();
  await turns();
  assertEquals(outcome, { state: "rejected", value: "enough" });
  assertEquals(clock.timesSet, 0);
});

Deno.test("background children go on during the grace, and are cancelled when the others are done", async () => {
  manualClock();
  let background: Operation | undefined;
  let child: Operation | undefined;
  const outcome = watch(scope((s) => {
    s.spawn(() => (background = new Operation()).promise, { background: true });
    s.spawn(() => (child = new Operation()).promise);
    s.cancel("enough", { grace: 10 });
  }));
  await turns();
  assertEquals([background!.cancels, outcome.state], [0, "pending"]);
  child!.complete();
  await turns();
  assertEquals([background!.cancels, outcome.state], [1, "fulfilled"]);
});

Deno.test("s.stopping aborts with a cancel without grace too, and with one from around, whenever it is asked for", async () => {
  const controller = new AbortController();
  const outcome = watch(scope(async (s) => {
    const early = s.stopping;
    assertEquals([early.aborted, s.signal.aborted], [false, false]);
    await forever().catch(() => {});
    assertEquals([early.reason, s.signal.reason], ["outside", "outside"]);
    await scope((inner) => {
      assertEquals([inner.stopping.aborted, inner.stopping.reason], [true, "outside"]);
    });
    return "value";
  }, controller));
  controller.abort("outside");
  await turns();
  assertEquals(outcome, { state: "fulfilled", value: "value" });
  await scope((s) => {
    const { signal, stopping } = s;
    s.cancel("own");
    assertEquals([signal.reason, stopping.reason], ["own", "own"]);
  });
});

Deno.test("the wish to end reaches scopes further in, those opened later too, but none behind a shield", async () => {
  manualClock();
  const heard: string[] = [];
  const outcome = watch(scope(async (s) => {
    const listen = (name: string) => (inner: Scope) => {
      inner.stopping.addEventListener("abort", () => heard.push(name));
      return turns(4);
    };
    s.spawn(() => scope(() => all([() => scope(listen("further in"))])));
    s.spawn(() => shield(() => scope(listen("shielded"))));
    s.spawn(() => scope((inner) => (inner.cancel("its own", { grace: 10 }), listen("asked before")(inner))));
    await turn();
    s.cancel("enough", { grace: 10 });
    await scope((late) => assertEquals(late.stopping.reason, "enough"));
    await shield(() => scope((late) => assertEquals(late.stopping.aborted, false)));
    return "value";
  }));
  await turns(8);
  assertEquals(outcome, { state: "fulfilled", value: "value" });
  assertEquals(heard, ["further in"]);
});

Deno.test("a scope whose child ended early, asked from around it, has no value", async () => {
  manualClock();
  let inside: unknown;
  const outcome = watch(scope(async (s) => {
    turn().then(() => s.cancel("enough", { grace: 10 }));
    inside = await assertRejects(() =>
      scope((inner) => {
        inner.spawn(() => waitFor(inner.stopping));
        return "incomplete";
      })
    );
    return "value";
  }));
  await turns();
  assertEquals([inside, outcome.value], ["enough", "value"]);
});

Deno.test("a wish to end is never retried", async () => {
  manualClock();
  let attempts = 0;
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      turn().then(() => s.cancel("enough", { grace: 10 }));
      await retry(() => (attempts++, waitFor(s.stopping)));
    })
  );
  assertEquals([thrown, attempts], ["enough", 1]);
});

Deno.test("timeout(..., { grace }) tells the function at the deadline, and cuts it off when the grace is over", async () => {
  const clock = manualClock();
  let operation: Operation | undefined;
  let stopping: AbortSignal | undefined;
  let further: AbortSignal | undefined;
  const outcome = watch(timeout(5, (signal) => {
    stopping = signal;
    return scope(async (s) => {
      further = s.stopping;
      await (operation = new Operation()).promise;
    });
  }, { grace: 10 }));
  await clock.advance(4);
  assertEquals([stopping!.aborted, further!.aborted], [false, false]);
  await clock.advance(1);
  assertEquals([stopping!.aborted, further!.aborted, operation!.cancels], [true, true, 0]);
  assertStringIncludes(String(stopping!.reason), "Timed out after 5 ms");
  await clock.advance(9);
  assertEquals([operation!.cancels, outcome.state], [0, "pending"]);
  await clock.advance(1);
  await turns();
  assertEquals(operation!.cancels, 1);
  assertStrictEquals(outcome.value, stopping!.reason);
  assertEquals(clock.pending, []);
});

Deno.test("a value within the grace is a value, and what is thrown is thrown", async () => {
  const clock = manualClock();
  const value = watch(timeout(5, (stopping) => waitFor(stopping).catch(() => "what was there"), { grace: 10 }));
  const timedOut = watch(timeout(5, (stopping) => waitFor(stopping), { grace: 10 }));
  const error = new Error("real");
  const failed = watch(timeout(5, (s) => waitFor(s).catch(() => Promise.reject(error)), { grace: 10 }));
  await clock.advance(5);
  await turns();
  assertEquals(value, { state: "fulfilled", value: "what was there" });
  assertEquals((timedOut.value as Error).name, "TimeoutError");
  assertStrictEquals(failed.value, error);
  assertEquals(clock.pending, []);
});

Deno.test("timeouts with grace nest: the earliest end wins, and an outer deadline does not wait for an inner grace", async () => {
  for (const [outer, inner, grace, winner] of [[10, 5, 100, 10], [100, 5, 10, 5], [10, 20, 100, 10]]) {
    const clock = manualClock();
    const outcome = watch(timeout(outer, () => timeout(inner, forever, { grace })));
    for (let i = 0; i < 15; i++) await clock.advance(1);
    await turns();
    assertEquals((outcome.value as Error | undefined)?.message, `Timed out after ${winner} ms`);
    assertEquals(clock.pending, []);
  }
});

Deno.test("when two ends have passed the outer one is reported, graces counted", async () => {
  const clock = manualClock();
  const outcome = watch(timeout(5, () => timeout(6, forever, { grace: 1 }), { grace: 2 }));
  clock.skip(7);
  clock.pending.find(({ at }) => at === 1007)!.fire();
  await turns();
  assertEquals((outcome.value as Error).message, "Timed out after 5 ms");

  const inner = watch(timeout(5, () => timeout(6, forever), { grace: 2 }));
  clock.skip(6);
  clock.pending.find(({ at }) => at === 1013)!.fire();
  await turns();
  assertEquals((inner.value as Error).message, "Timed out after 6 ms");

  const asked = watch(scope(async (s) => {
    s.cancel("enough", { grace: 5 });
    await timeout(4, forever);
  }));
  clock.skip(5);
  clock.fireLast();
  await turns();
  assertEquals(asked.value, "enough");
});

Deno.test("timeout(): Infinity with grace sets no alarm, an infinite grace never cuts off", async () => {
  const clock = manualClock();
  assertEquals(await timeout(Infinity, (stopping) => stopping.aborted, { grace: 5 }), false);
  assertEquals(clock.timesSet, 0);
  const outcome = watch(timeout(5, () => forever(), { grace: Infinity, signal: AbortSignal.abort("outside") }));
  await turns();
  assertEquals([clock.timesSet, outcome.value], [1, "outside"]);
  let operation: Operation<number> | undefined;
  const value = watch(timeout(5, () => (operation = new Operation<number>()).promise, { grace: Infinity }));
  await clock.advance(1e9);
  operation!.complete(1);
  await turns();
  assertEquals(value.value, 1);
});

Deno.test("a grace that is none is an error, and nothing is cancelled or started", async () => {
  manualClock();
  await scope(async (s) => {
    for (const grace of [NaN, -1]) {
      assertThrows(() => s.cancel("x", { grace }), RangeError, "grace");
      await assertRejects(() => timeout(1, () => assert(false, "started"), { grace }), RangeError, "grace");
    }
    assertThrows(() => s.cancel("x", { grace: "1" as unknown as number }), TypeError, "grace must be a number");
    assertEquals([s.cancelled, s.stopping.aborted], [false, false]);
  });
});

Deno.test("where no alarm can be set s.cancel(reason, { grace }) throws, and nobody is asked", async () => {
  const error = new Error("no timer");
  installClock({
    now: () => 0,
    set() {
      throw error;
    },
  });
  await scope((s) => {
    assertStrictEquals(assertThrows(() => s.cancel("x", { grace: 1 })), error);
    assertEquals(s.stopping.aborted, false);
  });
});

Deno.test("ending a scope on purpose: after its own cancel a value is a value, whatever it has cut off", async () => {
  const value = await scope(async (s) => {
    s.spawn(forever);
    s.spawn(() => scope(forever));
    await turn();
    s.cancel();
    return "value";
  });
  assertEquals(value, "value");
});

Deno.test("a TimeoutError that was thrown within the grace leads to the caller's line", async () => {
  const clock = manualClock();
  async function theCaller() {
    await timeout(5, (stopping) => waitFor(stopping), { grace: 10 });
  }
  const rejected = assertRejects(theCaller, DOMException);
  await clock.advance(5);
  assertStringIncludes((await rejected).stack!, "theCaller");
});

Deno.test("a server that is asked to end accepts no more, and finishes what it has begun", async () => {
  installClock(kernelClock);
  await using listener = await listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = listener.addr;
  const serving = Promise.withResolvers<Scope>();
  const served = scope(async (s) => {
    serving.resolve(s);
    for (let served = 0;; served++) {
      let conn;
      try {
        conn = await listener.accept({ signal: s.stopping });
      } catch (error) {
        if (s.stopping.aborted) return served;
        throw error;
      }
      s.spawn(async () => {
        await using echo = conn;
        const buffer = new Uint8Array(8);
        const n = await echo.read(buffer);
        await echo.writeAll(buffer.subarray(0, n!));
      });
    }
  });
  const server = await serving.promise;
  await using client = await connect({ port });
  await client.writeAll(new Uint8Array(3));
  assertEquals(await client.read(new Uint8Array(8)), 3);
  await using late = await connect({ port });
  while (defaultRing().inFlight < 2) await turn();
  server.cancel("maintenance", { grace: 10_000 });
  await sleep(1);
  await late.writeAll(new Uint8Array(5));
  assertEquals(await late.read(new Uint8Array(8)), 5);
  assertEquals([await served, defaultRing().inFlight], [2, 0]);
});

Deno.test("timeout(..., { grace }) on the kernel's clock", async () => {
  installClock(kernelClock);
  const order: string[] = [];
  const thrown = await assertRejects(() =>
    timeout(2, async (stopping) => {
      await sleep(1e9, { signal: stopping }).catch(() => order.push("told"));
      await sleep(1);
      order.push("in the grace");
      await sleep(1e9);
    }, { grace: 10 }), DOMException);
  assertEquals([order, thrown.message], [["told", "in the grace"], "Timed out after 2 ms"]);
  assertEquals(defaultRing().inFlight, 0);
});
