import { assert, assertEquals, assertInstanceOf, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { all, defaultRing, pipe, race, scope, shield, sleep, socketpair, type Task, timeout } from "../mod.ts";

/** Never ends by itself; cancelled, it comes back with the reason. */
const forever = () => sleep(1e9);

/** Resolves once everything that is ready in this turn has run. */
const turn = () => new Promise<void>((resolve) => setTimeout(resolve));

Deno.test("the scope waits for all children", async () => {
  const order: string[] = [];
  const value = await scope((s) => {
    s.spawn(async () => (await sleep(3), order.push("slow")));
    s.spawn(async () => (await sleep(1), order.push("fast")));
    order.push("body");
    return "value";
  });
  assertEquals([value, order], ["value", ["body", "fast", "slow"]]);
});

Deno.test("a task gives its child's value, or its error", async () => {
  await scope(async (s) => {
    assertEquals(await s.spawn(async () => (await sleep(1), 7)), 7);
    assertEquals(await Promise.all([s.spawn(() => 1), s.spawn(() => "two")]), [1, "two"]);
  });
  const error = new Error("real");
  let task: Task<never>;
  const caught = await assertRejects(() =>
    scope((s) => {
      task = s.spawn(() => {
        throw error;
      });
    })
  );
  assertStrictEquals(caught, error);
  assertStrictEquals(await assertRejects(async () => await task), error);
});

Deno.test("the first real error cancels the rest, and is thrown as it is", async () => {
  const error = new Error("real");
  const reasons: unknown[] = [];
  const caught = await assertRejects(() =>
    scope(async (s) => {
      s.spawn(() => forever().catch((reason) => (reasons.push(reason), Promise.reject(reason))));
      s.spawn(async () => {
        await sleep(1);
        throw error;
      });
      await forever();
    })
  );
  assertStrictEquals(caught, error);
  const [reason] = reasons as DOMException[];
  assertEquals(reason.name, "AbortError");
  assertStrictEquals((reason as unknown as { cause: unknown }).cause, error);
});

Deno.test("several real errors are an AggregateError in their order, cancellations not among them", async () => {
  const caught = await assertRejects(() =>
    scope((s) => {
      s.spawn(() => Promise.reject("first"));
      s.spawn(async () => {
        await forever().catch(() => {});
        throw "second";
      });
      s.spawn(forever);
    })
  );
  assertInstanceOf(caught, AggregateError);
  assertEquals((caught as AggregateError).errors, ["first", "second"]);
});

Deno.test("an error that the body passes on from its task is one error", async () => {
  const error = new Error("real");
  const caught = await assertRejects(() => scope(async (s) => await s.spawn(() => Promise.reject(error))));
  assertStrictEquals(caught, error);
});

Deno.test("errors that are undefined, or no errors, are real all the same", async () => {
  for (const thrown of [undefined, null, 0, "text"]) {
    let rejected: { with: unknown } | null = null;
    await scope((s) => {
      s.spawn(() => Promise.reject(thrown));
    }).catch((error) => rejected = { with: error });
    assertEquals(rejected, { with: thrown });
  }
});

Deno.test("s.cancel cancels: what passes that on rejects with the reason, a value stays a value", async () => {
  const reason = new Error("enough");
  const cancelled = scope(async (s) => {
    s.cancel(reason);
    await sleep(0);
  });
  assertStrictEquals(await assertRejects(() => cancelled), reason);
  const value = await scope((s) => {
    s.spawn(forever);
    s.cancel(reason);
    return "a value beats a cancel";
  });
  assertEquals(value, "a value beats a cancel");
  const bare = await assertRejects(() => scope((s) => (s.cancel(), sleep(0))));
  assertEquals((bare as DOMException).name, "AbortError");
});

Deno.test("cancellation is level-triggered: every further operation rejects at once, without an SQE", async () => {
  const ring = defaultRing();
  const reason = new Error("enough");
  const [left, right] = socketpair();
  await left.write(new Uint8Array(8));
  const completions: string[] = [];
  await scope(async (s) => {
    s.cancel(reason);
    ring.onCompletion = ({ operation }) => completions.push(operation);
    for (let i = 0; i < 3; i++) {
      assertStrictEquals(await assertRejects(() => sleep(0)), reason);
      assertStrictEquals(await assertRejects(() => right.read(new Uint8Array(8))), reason);
      assertStrictEquals(await assertRejects(() => timeout(5, () => sleep(0))), reason);
      assertStrictEquals(await assertRejects(() => race([() => sleep(0)])), reason);
    }
  });
  ring.onCompletion = null;
  assertEquals(completions.filter((operation) => operation === "read"), []);
  assertEquals(await right.read(new Uint8Array(8)), 8);
  await left.close();
  await right.close();
});

Deno.test("a child spawned into a cancelled scope starts, and its first operation rejects", async () => {
  const reason = new Error("enough");
  const events: unknown[] = [];
  await scope((s) => {
    s.cancel(reason);
    s.spawn(async () => {
      events.push("started");
      await sleep(0).catch((error) => events.push(error));
    });
  });
  assertEquals(events, ["started", reason]);
});

Deno.test("spawning into a settled scope throws, and so do defer and run", async () => {
  const settled = await scope((s) => s);
  assertThrows(() => settled.spawn(() => {}), TypeError, "settled");
  assertThrows(() => settled.defer(() => {}), TypeError, "settled");
  await assertRejects(() => settled.run(() => {}), TypeError, "settled");
  settled.cancel(); // nothing is left that it could reach
});

Deno.test("a value beats a cancel that came too late; the next operation rejects", async () => {
  const reason = new Error("enough");
  const [left, right] = socketpair();
  const buffer = new Uint8Array(4);
  const outcome = await scope(async (s) => {
    // The data and the cancel are both there when the ring is looked at again.
    const reading = right.read(buffer);
    await left.write(new Uint8Array([1, 2, 3, 4]));
    s.cancel(reason);
    const n = await reading;
    return [n, await assertRejects(() => right.read(buffer))];
  });
  assertEquals(outcome, [4, reason]);
  await left.close();
  await right.close();
});

Deno.test("operations belong to the scope in whose call tree they are made, at any depth", async () => {
  const helper = async () => {
    await null;
    await new Promise((resolve) => setTimeout(resolve, 1));
    await forever();
  };
  const started = performance.now();
  const error = await assertRejects(() => timeout(10, () => scope((s) => void s.spawn(() => helper()))));
  assertEquals((error as Error).name, "TimeoutError");
  assert(performance.now() - started < 5000);
  assertEquals(defaultRing().inFlight, 0);
});

Deno.test("{ signal } adds one to the ambient scope: whichever comes first", async () => {
  const [outer, own] = [new AbortController(), new AbortController()];
  for (const [controller, other] of [[outer, own], [own, outer]]) {
    void other;
    const [scopeSignal, ownSignal] = [new AbortController(), new AbortController()];
    const reason = new Error(controller === outer ? "scope" : "own");
    const running = scope(() => sleep(1e9, { signal: ownSignal.signal }), { signal: scopeSignal.signal });
    await turn();
    (controller === outer ? scopeSignal : ownSignal).abort(reason);
    assertStrictEquals(await assertRejects(() => running), reason);
  }
});

Deno.test("a signal from outside has one listener however much it covers, and none afterwards", async () => {
  const controller = new AbortController();
  let [now, most] = [0, 0];
  const { signal } = controller;
  const [add, remove] = [signal.addEventListener.bind(signal), signal.removeEventListener.bind(signal)];
  signal.addEventListener = (...args: unknown[]) => {
    most = Math.max(most, ++now);
    (add as (...args: unknown[]) => void)(...args);
  };
  signal.removeEventListener = (...args: unknown[]) => {
    now--;
    (remove as (...args: unknown[]) => void)(...args);
  };
  await Promise.all(Array.from({ length: 1000 }, () => sleep(1, { signal })));
  await scope((s) => void Array.from({ length: 1000 }, () => s.spawn(() => sleep(1))), { signal });
  await all(Array.from({ length: 10 }, () => () => sleep(1)), { signal });
  await race([() => sleep(1)], { signal });
  await timeout(1000, () => sleep(1), { signal });
  assertEquals([now, most], [0, 1]);
  const aborted = Promise.allSettled(Array.from({ length: 1000 }, () => sleep(1e9, { signal })));
  controller.abort("enough");
  assertEquals(new Set((await aborted).map((one) => (one as PromiseRejectedResult).reason)), new Set(["enough"]));
});

Deno.test("s.signal goes out: it aborts with the scope's reason, also when it is asked for late", async () => {
  const reason = new Error("enough");
  await scope(async (s) => {
    const { signal } = s;
    assertEquals([signal.aborted, s.cancelled], [false, false]);
    const fetched = fetch("data:text/plain,x", { signal });
    await (await fetched).text();
    s.cancel(reason);
    assertStrictEquals(signal.reason, reason);
    assertStrictEquals(s.reason, reason);
  });
  await scope((s) => {
    s.cancel(reason);
    assertStrictEquals(s.signal.reason, reason);
  });
});

Deno.test("an already aborted signal: the function starts, and its first operation rejects", async () => {
  const reason = new Error("enough");
  const signal = AbortSignal.abort(reason);
  let started = 0;
  for (
    const run of [
      () => scope(() => (started++, sleep(0)), { signal }),
      () => timeout(1000, () => (started++, sleep(0)), { signal }),
      () => race([() => (started++, sleep(0))], { signal }),
      () => all([() => (started++, sleep(0))], { signal }),
    ]
  ) {
    assertStrictEquals(await assertRejects(run as () => Promise<unknown>), reason);
  }
  assertEquals(started, 4);
});

Deno.test("race settles only when the losers have come back, with the first that settles", async () => {
  const order: string[] = [];
  const winner = await race([
    async () => (await sleep(1), order.push("winner"), "winner"),
    async () => {
      try {
        await forever();
      } finally {
        await shield(() => sleep(3));
        order.push("loser");
      }
    },
  ]);
  assertEquals([winner, order], ["winner", ["winner", "loser"]]);
  const error = new Error("real");
  const caught = await assertRejects(() => race([forever, () => sleep(1).then(() => Promise.reject(error))]));
  assertStrictEquals(caught, error);
  assertEquals(defaultRing().inFlight, 0);
});

Deno.test("race and all take functions: a promise is a type error and a TypeError, and nothing is started", async () => {
  let started = 0;
  const promise = Promise.resolve(1);
  // @ts-expect-error: a promise already runs
  await assertRejects(() => race([() => started++, promise]), TypeError, "element 1");
  // @ts-expect-error: a promise already runs
  await assertRejects(() => all([() => started++, promise]), TypeError, "element 1");
  await assertRejects(() => race([]), TypeError, "at least one");
  assertEquals(started, 0);
});

Deno.test("all gives a tuple in order, and cancels the rest at the first error", async () => {
  const values: [number, string] = await all([async () => (await sleep(2), 1), async () => (await sleep(1), "two")]);
  assertEquals(values, [1, "two"]);
  assertEquals(await all([]), []);
  const error = new Error("real");
  const order: string[] = [];
  const caught = await assertRejects(() =>
    all([
      () => forever().finally(() => order.push("cancelled")),
      () => sleep(1).then(() => Promise.reject(error)),
    ])
  );
  assertStrictEquals(caught, error);
  assertEquals(order, ["cancelled"]);
});

Deno.test("all with concurrency runs that many at a time, in order, and starts none after an error", async () => {
  let [running, most] = [0, 0];
  const started: number[] = [];
  const fns = Array.from({ length: 50 }, (_, i) => async () => {
    started.push(i);
    most = Math.max(most, ++running);
    await sleep(0.1);
    running--;
    return i;
  });
  assertEquals(await all(fns, { concurrency: 7 }), Array.from({ length: 50 }, (_, i) => i));
  assertEquals([most, started], [7, Array.from({ length: 50 }, (_, i) => i)]);
  started.length = 0;
  const failing = [fns[0], () => Promise.reject("real"), ...fns.slice(1)];
  assertEquals(await all(failing, { concurrency: 1 }).catch((error) => error), "real");
  assertEquals(started, [0]);
  for (const concurrency of [0, -1, 1.5, NaN]) await assertRejects(() => all(fns, { concurrency }), RangeError);
});

Deno.test("what a loser has opened and nobody can take is closed; what lives elsewhere stays open", async () => {
  const count = () => Array.from(Deno.readDirSync("/proc/self/fd")).length;
  const elsewhere = pipe();
  const before = count();
  let made: ReturnType<typeof pipe> | undefined;
  await race([
    () => sleep(1),
    async () => {
      await forever().catch(() => {});
      made = pipe();
      return made.reader;
    },
    async () => {
      await forever().catch(() => {});
      return elsewhere.reader;
    },
  ]);
  await assertRejects(() => made!.reader.read(new Uint8Array(1)), Deno.errors.BadResource);
  await made!.writer.close();
  await elsewhere.writer.write(new Uint8Array(2));
  assertEquals(await elsewhere.reader.read(new Uint8Array(2)), 2);
  await all([() => pipe().reader.close().then(() => pipe().writer), () => Promise.reject("real")]).catch(() => {});
  await elsewhere.reader.close();
  await elsewhere.writer.close();
  assert(count() <= before + 2);
});

Deno.test("nested timeouts: the earliest deadline wins", async () => {
  const messages: string[] = [];
  for (const [outer, inner] of [[5, 1e6], [1e6, 5]]) {
    const error = await assertRejects(() => timeout(outer, () => timeout(inner, forever)));
    messages.push((error as Error).message);
  }
  assertEquals(messages, ["Timed out after 5 ms", "Timed out after 5 ms"]);
});

Deno.test("when two deadlines have passed the outer one is reported", async () => {
  const error = await assertRejects(() =>
    timeout(6, () =>
      timeout(2, async () => {
        const end = performance.now() + 12;
        const waiting = forever();
        while (performance.now() < end); // both pass before the loop can hear of either
        await waiting;
      }))
  );
  assertEquals((error as Error).message, "Timed out after 6 ms");
});

Deno.test("a deadline that passes after the last operation is no timeout", async () => {
  const value = await timeout(2, async () => {
    await sleep(0);
    const end = performance.now() + 6;
    while (performance.now() < end);
    await turn();
    await turn();
    return "value";
  });
  assertEquals(value, "value");
});

Deno.test("timeout: 0 ends what has to wait, Infinity is none, and nonsense is refused", async () => {
  assertEquals((await assertRejects(() => timeout(0, forever)) as Error).name, "TimeoutError");
  assertEquals(await timeout(Infinity, () => sleep(1).then(() => 1)), 1);
  for (const ms of [-1, NaN]) await assertRejects(() => timeout(ms, forever), RangeError);
  await assertRejects(() => timeout("5" as unknown as number, forever), TypeError);
  await assertRejects(() => timeout(5, Promise.resolve() as unknown as () => void), TypeError);
  assertEquals(defaultRing().inFlight, 0);
});

Deno.test("shield holds cancellation off, gives its value, and the next operation rejects", async () => {
  const reason = new Error("enough");
  const events: unknown[] = [];
  await assertRejects(() =>
    scope(async (s) => {
      s.spawn(() => {
        s.cancel(reason);
      });
      events.push(await shield(async () => (await sleep(1), "shielded")));
      await sleep(0).catch((error) => (events.push(error), Promise.reject(error)));
    })
  );
  assertEquals(events, ["shielded", reason]);
  const late = await assertRejects(() => shield(() => timeout(2, forever)));
  assertEquals((late as Error).name, "TimeoutError");
});

Deno.test("cleanups run in reverse order, one after another, shielded; one that throws does not stop the rest", async () => {
  const order: string[] = [];
  const cleanup = (name: string) => async () => {
    order.push(`${name} begins`);
    await sleep(0.5);
    order.push(`${name} ends`);
  };
  const caught = await assertRejects(() =>
    scope(async (s) => {
      s.defer(cleanup("first"));
      s.defer(() => Promise.reject("real"));
      s.defer(cleanup("last"));
      s.cancel();
      await sleep(0);
    })
  );
  assertEquals(caught as unknown, "real");
  assertEquals(order, ["last begins", "last ends", "first begins", "first ends"]);
});

Deno.test("children that a cleanup spawns are waited for, before the next cleanup runs", async () => {
  const order: string[] = [];
  await scope((s) => {
    s.defer(() => {
      s.spawn(async () => (await sleep(1), order.push("child")));
      s.defer(() => void order.push("deferred in cleanup"));
    });
  });
  assertEquals(order, ["child", "deferred in cleanup"]);
});

Deno.test("await using in a cancelled scope closes what it holds", async () => {
  const { reader, writer } = pipe();
  await assertRejects(() =>
    timeout(2, async () => {
      await using held = reader;
      await held.read(new Uint8Array(1));
    })
  );
  await assertRejects(() => reader.read(new Uint8Array(1)), Deno.errors.BadResource);
  await writer.close();
});

Deno.test("a background child does not keep the scope open: it is cancelled when the others are done", async () => {
  const order: string[] = [];
  await scope((s) => {
    s.spawn(() => forever().finally(() => order.push("background")), { background: true });
    s.spawn(async () => (await sleep(2), order.push("foreground")));
  });
  assertEquals(order, ["foreground", "background"]);
});

Deno.test("an operation that nobody waited for is cancelled when its scope is left, and has come back by then", async () => {
  const [left, right] = socketpair();
  const buffer = new Uint8Array(1);
  const lefts: ((start: () => Promise<unknown>) => Promise<unknown>)[] = [
    (start) => scope(() => Promise.race([start(), sleep(1)])),
    (start) => scope((s) => void s.spawn(() => Promise.race([start(), sleep(1)]))),
    (start) => timeout(10_000, () => Promise.race([start(), sleep(1)])),
    (start) => race([() => Promise.race([start(), sleep(1)])]),
    (start) => all([() => Promise.race([start(), sleep(1)])]),
    (start) => shield(() => Promise.race([start(), sleep(1)])),
  ];
  for (const run of lefts) {
    let orphan: Promise<unknown> | undefined;
    await run(() => orphan = left.read(buffer));
    assertEquals(defaultRing().inFlight, 0);
    const error = await assertRejects(() => orphan!);
    assertEquals((error as DOMException).name, "AbortError");
    // So is a whole scope inside that nobody waited for.
    await run(() => orphan = scope((s) => void s.spawn(() => timeout(10_000, () => left.read(buffer)))));
    assertEquals(defaultRing().inFlight, 0);
    await assertRejects(() => orphan!);
  }
  // It was cancelled, not served: the bytes are for the next read.
  await right.write(new Uint8Array(1));
  assertEquals(await left.read(buffer), 1);
  await left.close();
  await right.close();
});

Deno.test("what runs on after its scope was left belongs to the scope around it", async () => {
  const reason = new Error("enough");
  const caught = await assertRejects(() =>
    scope(async (outer) => {
      const later = Promise.withResolvers<void>();
      await scope(() => void setTimeout(() => sleep(1e9).then(later.resolve, later.reject)));
      outer.spawn(async () => {
        await turn();
        await turn();
        outer.cancel(reason);
      });
      await later.promise;
    })
  );
  assertStrictEquals(caught, reason);
});

Deno.test("a task can be cancelled alone, which is no error of the scope", async () => {
  const reason = new Error("only you");
  await scope(async (s) => {
    const task = s.spawn(forever);
    task.cancel(reason);
    assertStrictEquals(await assertRejects(async () => await task), reason);
    await sleep(0);
  });
});

Deno.test("await using s = scope(): leaving the block waits, throws the children's error, runs the cleanups", async () => {
  const order: string[] = [];
  {
    await using s = scope();
    s.defer(() => void order.push("cleanup"));
    s.spawn(async () => (await sleep(1), order.push("child")));
    await s.run(() => sleep(0));
    order.push("block");
  }
  assertEquals(order, ["block", "child", "cleanup"]);
  const caught = await assertRejects(async () => {
    await using s = scope();
    s.spawn(() => Promise.reject("real"));
  });
  assertEquals(caught as unknown, "real");
  assertThrows(() => scope(Promise.resolve() as unknown as undefined), TypeError);
});

Deno.test("cancelling twice sends one cancel, and an already aborted signal sends none", async () => {
  const ring = defaultRing();
  const sent: string[] = [];
  ring.onCompletion = ({ of }) => sent.push(of);
  await assertRejects(() =>
    scope(async (s) => {
      s.spawn(async () => {
        await turn();
        s.cancel();
        s.cancel("again");
      });
      await forever();
    })
  );
  assertEquals(sent, ["cancel", "operation"].sort(), sent.sort().join());
  sent.length = 0;
  await assertRejects(() => sleep(0, { signal: AbortSignal.abort() }));
  ring.onCompletion = null;
  assertEquals(sent, []);
});

Deno.test("a hundred thousand children, and ten thousand scopes inside each other, are cancelled without a deep stack", async () => {
  let back = 0;
  const reason = new Error("enough");
  await scope((s) => {
    for (let i = 0; i < 100_000; i++) s.spawn(() => forever().catch(() => back++));
    s.spawn(async () => {
      await turn();
      s.cancel(reason);
    });
  });
  assertEquals(back, 100_000);
  const nest = (depth: number): Promise<unknown> =>
    depth === 0 ? forever() : scope(async () => (await null, nest(depth - 1)));
  const controller = new AbortController();
  const nested = assertRejects(() => scope(() => nest(10_000), { signal: controller.signal }));
  for (let i = 0; i < 50; i++) await turn();
  controller.abort(reason);
  assertStrictEquals(await nested, reason);
  assertEquals(defaultRing().inFlight, 0);
});

Deno.test("no rejection goes unhandled: the scope has reported it", async () => {
  const unhandled: unknown[] = [];
  const listener = (event: PromiseRejectionEvent) => {
    event.preventDefault();
    unhandled.push(event.reason);
  };
  globalThis.addEventListener("unhandledrejection", listener);
  await scope((s) => {
    s.spawn(() => Promise.reject("one"));
    s.spawn(forever);
    s.spawn(() => Promise.reject("two"), { background: true });
  }).catch(() => {});
  await race([() => sleep(0), forever, () => Promise.reject("three")]).catch(() => {});
  await all([forever, () => Promise.reject("four")]).catch(() => {});
  await timeout(0, forever).catch(() => {});
  for (let i = 0; i < 3; i++) await turn();
  globalThis.removeEventListener("unhandledrejection", listener);
  assertEquals(unhandled, []);
});
