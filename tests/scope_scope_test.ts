import { assert, assertEquals, assertInstanceOf, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { Scope, scope, shield, Task } from "../scope/mod.ts";
import { born } from "../scope/ownership.ts";
import { forever, Operation, Resource, turn, unhandledRejections, watch } from "./_scope.ts";

Deno.test("a scope's value is its function's", async () => {
  const value: number = await scope(() => 1);
  const later: string = await scope(async () => (await turn(), "later"));
  assertEquals([value, later], [1, "later"]);
});

Deno.test("a scope waits for all children", async () => {
  const first = new Operation();
  const second = new Operation();
  const left = watch(scope((s) => {
    s.spawn(() => first.promise);
    s.spawn(() => second.promise);
    return "value";
  }));
  first.complete();
  await turn();
  assertEquals(left.state, "pending");
  second.complete();
  await turn();
  assertEquals(left, { state: "fulfilled", value: "value" });
});

Deno.test("a scope waits for children of children, and for those that a child spawns into it late", async () => {
  const operations: Operation[] = [];
  const wait = () => {
    const operation = new Operation();
    operations.push(operation);
    return operation.promise;
  };
  const left = watch(scope((s) => {
    s.spawn(async () => {
      await wait();
      s.spawn(() => scope((inner) => void inner.spawn(wait)));
    });
  }));
  operations[0].complete();
  await turn();
  assertEquals([operations.length, left.state], [2, "pending"]);
  operations[1].complete();
  await turn();
  assertEquals(left.state, "fulfilled");
});

Deno.test("a scope cancels operations that nobody awaits, and waits for them", async () => {
  let operation: Operation | undefined;
  const left = watch(scope(() => {
    operation = new Operation({ lingers: true });
    return 1;
  }));
  await turn();
  assertEquals([operation!.cancels, left.state], [1, "pending"]);
  operation!.end();
  await turn();
  assertEquals(left, { state: "fulfilled", value: 1 });
});

Deno.test("a cancelled scope is not left before every operation in it has come back", async () => {
  const slow: Operation[] = [];
  const quick: Operation[] = [];
  const reason = new Error("stop");
  let cancel: (() => void) | undefined;
  const left = watch(scope((s) => {
    cancel = () => s.cancel(reason);
    slow.push(new Operation({ lingers: true }));
    quick.push(new Operation());
    // The first rejection ends the waiting of Promise.all, not the other operation.
    return Promise.all([...slow, ...quick].map((operation) => operation.promise));
  }));
  cancel!();
  await turn();
  assert(quick[0].back);
  assertEquals(left.state, "pending");
  slow[0].end();
  await turn();
  assertEquals(left.state, "rejected");
  assertStrictEquals(left.value, reason);
});

Deno.test("a failing function's operations that nobody awaits are cancelled and waited for", async () => {
  const error = new Error("real");
  let operation: Operation | undefined;
  const left = watch(scope(() => {
    operation = new Operation({ lingers: true });
    operation.promise.catch(() => {});
    throw error;
  }));
  await turn();
  assertEquals([operation!.cancels, left.state], [1, "pending"]);
  operation!.end();
  await turn();
  assertStrictEquals(left.value, error);
});

Deno.test("a task settles when the operations that it has not awaited are cancelled and back", async () => {
  let operation: Operation | undefined;
  await scope(async (s) => {
    const task = watch(s.spawn(() => {
      operation = new Operation({ lingers: true });
      return 1;
    }));
    await turn();
    assertEquals([operation!.cancels, task.state], [1, "pending"]);
    operation!.end();
    await turn();
    assertEquals(task, { state: "fulfilled", value: 1 });
  });
});

Deno.test("a child starts at once, up to its first await", async () => {
  const events: string[] = [];
  await scope((s) => {
    s.spawn(async () => {
      events.push("child");
      await turn();
      events.push("child goes on");
    });
    events.push("spawned");
  });
  assertEquals(events, ["child", "spawned", "child goes on"]);
});

Deno.test("awaiting a task gives the child's value or error", async () => {
  const error = new Error("real");
  await scope(async (s) => {
    const task: Task<number> = s.spawn(async () => (await turn(), 42));
    assertInstanceOf(task, Task);
    assertEquals(await task, 42);
    assertEquals(await task.then((value) => value + 1), 43);
    assertEquals(await Promise.all([task, task.finally(() => {})]), [42, 42]);
  });
  await assertRejects(() =>
    scope(async (s) => {
      const task = s.spawn(() => Promise.reject(error));
      assertStrictEquals(await assertRejects(async () => await task), error);
      assertStrictEquals(await task.catch((reason) => reason), error);
    })
  );
});

Deno.test("the first real error cancels the rest, with the error as the cause", async () => {
  const error = new Error("real");
  const operations: Operation[] = [];
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      s.spawn(() => (operations[0] = new Operation()).promise);
      s.spawn(async () => {
        await turn();
        throw error;
      });
      await (operations[1] = new Operation()).promise;
    })
  );
  assertStrictEquals(thrown, error);
  for (const { cancels, reason } of operations) {
    assertEquals(cancels, 1);
    assertInstanceOf(reason, DOMException);
    assertEquals(reason.name, "AbortError");
    assertStrictEquals(reason.cause, error);
  }
});

Deno.test("an error of the function cancels the children", async () => {
  const error = new Error("real");
  let operation: Operation | undefined;
  const thrown = await assertRejects(() =>
    scope((s) => {
      s.spawn(() => (operation = new Operation()).promise);
      throw error;
    })
  );
  assertStrictEquals(thrown, error);
  assertEquals(operation!.cancels, 1);
});

Deno.test("one real error is thrown as it is, though it passes twice", async () => {
  const error = new Error("real");
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      const task = s.spawn(() => Promise.reject(error));
      s.spawn(async () => await task);
      await task;
    })
  );
  assertStrictEquals(thrown, error);
});

Deno.test("several real errors are thrown as an AggregateError, in the order in which they happened", async () => {
  const errors = [new Error("first"), new Error("second"), new Error("third")];
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      s.spawn(async () => {
        await forever().catch(() => {});
        await shield(turn);
        throw errors[1];
      });
      s.spawn(() => Promise.reject(errors[0]));
      s.defer(() => Promise.reject(errors[2]));
      await forever();
    })
  );
  assertInstanceOf(thrown, AggregateError);
  assertEquals(thrown.errors.length, 3);
  thrown.errors.forEach((error, i) => assertStrictEquals(error, errors[i]));
});

Deno.test("cancellations are never among the errors", async () => {
  const error = new Error("real");
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      for (let i = 0; i < 10; i++) s.spawn(forever);
      s.spawn(forever, { background: true });
      s.spawn(() => scope((inner) => void inner.spawn(forever)));
      s.spawn(() => Promise.reject(error));
      await forever();
    })
  );
  assertStrictEquals(thrown, error);
});

Deno.test("a cancellation is known by identity: an AbortError of another origin is a real error", async () => {
  const alien = new DOMException("alien", "AbortError");
  let sibling: Operation | undefined;
  const thrown = await assertRejects(() =>
    scope((s) => {
      s.spawn(() => (sibling = new Operation()).promise);
      s.spawn(() => Promise.reject(alien));
    })
  );
  assertStrictEquals(thrown, alien);
  assertEquals(sibling!.cancels, 1);
});

Deno.test("the reason of a token that does not reach here is a real error", async () => {
  const reason = new Error("of the outer scope");
  const thrown = await assertRejects(() =>
    scope((outer) => {
      outer.cancel(reason);
      // The child rejects with the outer reason, in a place that the outer cancel does not reach.
      return shield(() => scope((inner) => void inner.spawn(() => Promise.reject(reason))));
    })
  );
  assertStrictEquals(thrown, reason);
});

Deno.test("what is thrown need not be an error: undefined is thrown as it is", async () => {
  const none = Symbol("nothing was thrown");
  const thrown = async (fn: () => Promise<unknown>) => {
    try {
      await fn();
    } catch (error) {
      return error;
    }
    return none;
  };
  assertEquals(await thrown(() => scope((s) => void s.spawn(() => Promise.reject(undefined)))), undefined);
  assertEquals(await thrown(() => scope(() => Promise.reject(undefined))), undefined);
  assertEquals(await thrown(() => scope((s) => s.defer(() => Promise.reject(null)))), null);
  assertEquals(
    await thrown(() =>
      scope((s) => {
        s.spawn(() => {
          throw "one";
        });
        s.spawn(() => Promise.reject(NaN));
        throw NaN;
      })
    ).then((error) => (error as AggregateError).errors),
    ["one", NaN],
  );
});

Deno.test("s.cancel(reason) cancels everything inside, and the scope rejects with the reason", async () => {
  const reason = { any: "value" };
  const operations: Operation[] = [];
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      s.spawn(() => (operations[0] = new Operation()).promise);
      s.spawn(() => scope(() => (operations[1] = new Operation()).promise));
      s.cancel(reason);
      assertEquals([s.cancelled, s.reason], [true, reason]);
      await (operations[2] = new Operation()).promise;
    })
  );
  assertStrictEquals(thrown, reason);
  assertEquals(operations.map(({ cancels }) => cancels), [1, 1, 0]);
  for (const { reason: told } of operations.slice(0, 2)) assertStrictEquals(told, reason);
});

Deno.test("s.cancel() without a reason has a fresh AbortError, with the line of the cancel in its stack", async () => {
  const reasons: unknown[] = [];
  for (const _ of [1, 2]) {
    reasons.push(
      await assertRejects(() =>
        scope(async function theCanceller(s) {
          assertEquals([s.cancelled, s.reason], [false, undefined]);
          s.cancel();
          await forever();
        })
      ),
    );
  }
  for (const reason of reasons) {
    assertInstanceOf(reason, DOMException);
    assertEquals(reason.name, "AbortError");
    assert(reason.stack!.includes("theCanceller"), reason.stack);
  }
  assert(reasons[0] !== reasons[1]);
});

Deno.test("cancelling twice sends one cancel, and the first reason stands", async () => {
  const first = new Error("first");
  let operation: Operation | undefined;
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      operation = new Operation({ lingers: true });
      s.cancel(first);
      s.cancel(new Error("second"));
      operation.end();
      await operation.promise;
    })
  );
  assertStrictEquals(thrown, first);
  assertEquals(operation!.cancels, 1);
});

Deno.test("cancellation is level-triggered: every further operation rejects at once and is not started", async () => {
  const reason = new Error("stop");
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      s.cancel(reason);
      for (let i = 0; i < 3; i++) {
        const operation = new Operation();
        assertEquals(operation.started, false);
        assertStrictEquals(await assertRejects(() => operation.promise), reason);
      }
      await scope(forever);
    })
  );
  assertStrictEquals(thrown, reason);
});

Deno.test("a child spawned into a cancelled scope starts, and its first operation rejects", async () => {
  const reason = new Error("stop");
  const events: string[] = [];
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      s.cancel(reason);
      const task = s.spawn(async () => {
        events.push("started");
        try {
          await forever();
        } finally {
          events.push("released");
        }
      });
      assertStrictEquals(await assertRejects(async () => await task), reason);
      await task;
    })
  );
  assertStrictEquals(thrown, reason);
  assertEquals(events, ["started", "released"]);
});

Deno.test("spawning into a settled scope throws", async () => {
  let settled: Scope | undefined;
  await scope((s) => void (settled = s));
  const throwing = (fn: () => unknown) => assertThrows(fn, TypeError, "The scope has settled");
  throwing(() => settled!.spawn(() => {}));
  throwing(() => settled!.defer(() => {}));
  await assertRejects(() => settled!.run(() => {}), TypeError, "The scope has settled");
});

Deno.test("cancelling a settled scope changes nothing", async () => {
  let settled: Scope | undefined;
  await scope((s) => void (settled = s));
  settled!.cancel();
  assertEquals([settled!.cancelled, settled!.signal.aborted], [false, false]);
});

Deno.test("a value beats a cancel that came too late", async () => {
  const value = await scope(async (s) => {
    const operation = new Operation<string>({ lingers: true });
    s.cancel();
    operation.complete("done before the cancel reached it");
    return await operation.promise;
  });
  assertEquals(value, "done before the cancel reached it");
  const late = await scope((s) => {
    s.spawn(forever);
    queueMicrotask(() => s.cancel());
    return "value";
  });
  assertEquals(late, "value");
});

Deno.test("after a value that beat the cancel, the next operation rejects", async () => {
  const reason = new Error("stop");
  let value: number | undefined;
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      const operation = new Operation<number>({ lingers: true });
      s.cancel(reason);
      operation.complete(1);
      value = await operation.promise;
      await forever();
    })
  );
  assertEquals(value, 1);
  assertStrictEquals(thrown, reason);
});

Deno.test("a real error beats the value of the function", async () => {
  const error = new Error("real");
  const thrown = await assertRejects(() =>
    scope((s) => {
      s.spawn(async () => {
        await turn();
        throw error;
      });
      return 1;
    })
  );
  assertStrictEquals(thrown, error);
});

Deno.test("of two cancelled scopes the outermost's reason is reported", async () => {
  const inner = new Error("inner");
  const outer = new Error("outer");
  const seen: unknown[] = [];
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      await scope(async (t) => {
        const operation = new Operation({ lingers: true });
        t.cancel(inner);
        s.cancel(outer);
        operation.end();
        await operation.promise.finally(() => seen.push(operation.reason));
      }).catch((error) => {
        seen.push(error);
        throw error;
      });
    })
  );
  assertStrictEquals(thrown, outer);
  assertStrictEquals(seen[0], inner);
  assertStrictEquals(seen[1], outer);
});

Deno.test("an inner scope's cancel is a rejection like any other to the one around it", async () => {
  const reason = new Error("inner");
  await scope(async (s) => {
    assertStrictEquals(
      await assertRejects(() =>
        scope(async (inner) => {
          inner.cancel(reason);
          await forever();
        })
      ),
      reason,
    );
    const next = new Operation();
    assertEquals([s.cancelled, next.started], [false, true]);
    next.complete();
  });
});

Deno.test("task.cancel() cancels that child alone, and is no error of the scope", async () => {
  const reason = new Error("stop");
  const value = await scope(async (s) => {
    let sibling: Operation | undefined;
    s.spawn(() => (sibling = new Operation()).promise);
    const task = s.spawn(forever);
    task.cancel(reason);
    assertStrictEquals(await assertRejects(async () => await task), reason);
    task.cancel(new Error("too late"));
    assertEquals([s.cancelled, sibling!.cancels], [false, 0]);
    sibling!.complete();
    return "value";
  });
  assertEquals(value, "value");
});

Deno.test("a task's cancellation is a real error to those that awaited it", async () => {
  const reason = new Error("stop");
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      const task = s.spawn(forever);
      task.cancel(reason);
      await task;
    })
  );
  assertStrictEquals(thrown, reason);
});

Deno.test("a task cancelled before its scope rejects with the scope's reason", async () => {
  const outer = new Error("scope");
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      let operation: Operation | undefined;
      const task = s.spawn(() => (operation = new Operation({ lingers: true })).promise);
      task.cancel(new Error("task"));
      s.cancel(outer);
      operation!.end();
      await task;
    })
  );
  assertStrictEquals(thrown, outer);
});

Deno.test("a background child is cancelled when the others are done", async () => {
  const events: string[] = [];
  const foreground = new Operation();
  const left = watch(scope((s) => {
    s.spawn(async () => {
      await forever().finally(() => events.push("background"));
    }, { background: true });
    s.spawn(() => foreground.promise.then(() => events.push("foreground")));
    return 1;
  }));
  await turn();
  assertEquals([events, left.state], [[], "pending"]);
  foreground.complete();
  await turn();
  assertEquals(events, ["foreground", "background"]);
  assertEquals(left, { state: "fulfilled", value: 1 });
});

Deno.test("a background child is waited for, and so is what it spawns while it ends", async () => {
  let ending: Operation | undefined;
  let last: Operation | undefined;
  const left = watch(scope((s) => {
    s.spawn(async () => {
      try {
        await forever();
      } finally {
        await shield(() => (ending = new Operation()).promise);
        s.spawn(forever, { background: true });
        s.spawn(() => (last = new Operation()).promise);
      }
    }, { background: true });
  }));
  await turn();
  assertEquals(left.state, "pending");
  ending!.complete();
  await turn();
  assertEquals(left.state, "pending");
  last!.complete();
  await turn();
  assertEquals(left.state, "fulfilled");
});

Deno.test("a background child's real error is the scope's", async () => {
  const error = new Error("real");
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      s.spawn(() => Promise.reject(error), { background: true });
      await forever();
    })
  );
  assertStrictEquals(thrown, error);
});

Deno.test("a background child that ends first keeps nothing open", async () => {
  const background = new Operation();
  const foreground = new Operation();
  const left = watch(scope((s) => {
    s.spawn(() => background.promise, { background: true });
    s.spawn(() => foreground.promise);
  }));
  background.complete();
  await turn();
  assertEquals(left.state, "pending");
  foreground.complete();
  await turn();
  assertEquals(left.state, "fulfilled");
});

Deno.test("cleanup runs in reverse order, one after another, when the children have ended", async () => {
  const events: string[] = [];
  const step = (name: string) => async () => {
    events.push(`${name} begins`);
    await turn();
    events.push(`${name} ends`);
  };
  await scope((s) => {
    s.defer(step("first"));
    s.defer(step("second"));
    s.spawn(step("child"));
  });
  assertEquals(events, ["child begins", "child ends", "second begins", "second ends", "first begins", "first ends"]);
});

Deno.test("a cleanup that throws does not stop the rest, and its error is the scope's", async () => {
  const errors = [new Error("first"), new Error("second")];
  let ran = false;
  const thrown = await assertRejects(() =>
    scope((s) => {
      s.defer(() => void (ran = true));
      s.defer(() => Promise.reject(errors[1]));
      s.defer(() => {
        throw errors[0];
      });
      return 1;
    })
  );
  assert(ran);
  assertInstanceOf(thrown, AggregateError);
  assertStrictEquals(thrown.errors[0], errors[0]);
  assertStrictEquals(thrown.errors[1], errors[1]);
});

Deno.test("cleanup is shielded: its operations run in a cancelled scope", async () => {
  let operation: Operation | undefined;
  const reason = new Error("stop");
  const left = watch(scope(async (s) => {
    s.defer(() => (operation = new Operation()).promise);
    s.cancel(reason);
    await forever();
  }));
  await turn();
  assertEquals([operation!.started, operation!.cancels, left.state], [true, 0, "pending"]);
  operation!.complete();
  await turn();
  assertStrictEquals(left.value, reason);
});

Deno.test("a cancel from outside during the cleanup does not reach it, and the value stands", async () => {
  let operation: Operation | undefined;
  const controller = new AbortController();
  const left = watch(scope((s) => {
    s.defer(() => (operation = new Operation()).promise);
    return 1;
  }, { signal: controller.signal }));
  await turn();
  controller.abort();
  assertEquals(operation!.cancels, 0);
  operation!.complete();
  await turn();
  assertEquals(left, { state: "fulfilled", value: 1 });
});

Deno.test("a cleanup can defer another, which runs next, and spawn a child, which is waited for first", async () => {
  const events: string[] = [];
  let operation: Operation | undefined;
  const left = watch(scope((s) => {
    s.defer(() => void events.push("outer"));
    s.defer(() => {
      s.defer(() => void events.push("deferred in cleanup"));
      s.spawn(() => (operation = new Operation()).promise);
    });
  }));
  await turn();
  assertEquals([events, left.state], [[], "pending"]);
  operation!.complete();
  await turn();
  assertEquals([events, left.state], [["deferred in cleanup", "outer"], "fulfilled"]);
});

Deno.test("a child that the closing of the scope's value spawns is waited for", async () => {
  const error = new Error("real");
  const operations: Operation[] = [];
  const left = watch(scope((s) => {
    s.spawn(() => Promise.reject(error));
    return born(new Resource(() => void s.spawn(() => shield(() => (operations[0] = new Operation()).promise))));
  }));
  await turn();
  assertEquals([operations.length, left.state], [1, "pending"]);
  operations[0].complete();
  await turn();
  assertStrictEquals(left.value, error);
});

Deno.test("a cleanup that lets a cancellation of its scope pass is no error", async () => {
  const value = await scope((s) => {
    const task = s.spawn(forever);
    s.defer(async () => {
      await task;
    });
    s.cancel();
    return "value";
  });
  assertEquals(value, "value");
});

Deno.test("a signal from outside cancels the scope with its reason", async () => {
  const controller = new AbortController();
  const reason = new Error("outside");
  const left = watch(scope(forever, { signal: controller.signal }));
  await turn();
  controller.abort(reason);
  await turn();
  assertStrictEquals(left.value, reason);
});

Deno.test("an already aborted signal: the function starts, its first operation rejects, no cancel is sent", async () => {
  const reason = new Error("outside");
  let operation: Operation | undefined;
  const thrown = await assertRejects(() =>
    scope(() => (operation = new Operation()).promise, { signal: AbortSignal.abort(reason) })
  );
  assertStrictEquals(thrown, reason);
  assertEquals([operation!.started, operation!.cancels], [false, 0]);
  assertEquals(await scope(() => 1, { signal: AbortSignal.abort() }), 1);
});

Deno.test("s.signal aborts with the scope's reason, whenever it is asked for", async () => {
  const reason = new Error("stop");
  await scope((s) => {
    const { signal } = s;
    assertStrictEquals(s.signal, signal);
    assertEquals(signal.aborted, false);
    s.cancel(reason);
    assertStrictEquals(signal.reason, reason);
  });
  await scope((s) => {
    s.cancel(reason);
    assertStrictEquals(s.signal.reason, reason);
  });
  await scope(async (outer) => {
    await scope((inner) => {
      const { signal } = inner;
      outer.cancel(reason);
      assertStrictEquals(signal.reason, reason);
    });
  });
});

Deno.test("s.signal stops a fetch, whose rejection is a cancellation", async () => {
  const { promise: response, resolve: respond } = Promise.withResolvers<Response>();
  const server = Deno.serve({ port: 0, hostname: "127.0.0.1", onListen() {} }, () => response);
  const reason = new Error("stop");
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      s.spawn(() => fetch(`http://127.0.0.1:${server.addr.port}/`, { signal: s.signal }));
      await turn();
      s.cancel(reason);
      await forever();
    })
  );
  assertStrictEquals(thrown, reason);
  respond(new Response());
  await server.shutdown();
});

Deno.test("the scope is ambient: what is called from it belongs to it, at any depth", async () => {
  const operations: Operation[] = [];
  const deep = async (levels: number): Promise<void> => {
    await turn();
    if (levels > 0) return await deep(levels - 1);
    operations.push(new Operation());
    await operations.at(-1)!.promise;
  };
  await assertRejects(() =>
    scope(async (s) => {
      s.spawn(() => deep(5));
      for (let i = 0; i < 20; i++) await turn();
      assertEquals(operations.length, 1);
      s.cancel();
      await forever();
    })
  );
  assertEquals(operations[0].cancels, 1);
});

Deno.test("what runs on after a scope was left belongs to the scope around it", async () => {
  let operation: Operation | undefined;
  await assertRejects(() =>
    scope(async (outer) => {
      await scope(() => void setTimeout(() => operation = new Operation()));
      await turn();
      await turn();
      operation!.promise.catch(() => {});
      outer.cancel();
      await forever();
    })
  );
  assertEquals(operation!.cancels, 1);
});

Deno.test("await using: leaving the block waits for the children and runs the cleanups", async () => {
  const events: string[] = [];
  {
    await using s = scope();
    assert(s instanceof Scope);
    s.defer(() => void events.push("cleanup"));
    s.spawn(async () => {
      await turn();
      events.push("child");
    });
    s.spawn(forever, { background: true });
    events.push("block");
  }
  assertEquals(events, ["block", "child", "cleanup"]);
});

Deno.test("await using: leaving the block throws the children's error", async () => {
  const error = new Error("real");
  const thrown = await assertRejects(async () => {
    await using s = scope();
    s.spawn(() => Promise.reject(error));
  });
  assertStrictEquals(thrown, error);
});

Deno.test("await using: the block is not inside the scope, but s.run(fn) is", async () => {
  const reason = new Error("stop");
  await using s = scope();
  const outside = new Operation();
  const inside = watch(s.run(forever));
  s.cancel(reason);
  assertEquals([outside.started, outside.cancels], [true, 0]);
  await turn();
  assertStrictEquals(inside.value, reason);
});

Deno.test("s.run(fn): its value and its error are the caller's, and the scope waits for it", async () => {
  const error = new Error("real");
  let release: (() => void) | undefined;
  const left = watch((async () => {
    await using s = scope();
    assertEquals(await s.run(() => 1), 1);
    assertStrictEquals(await assertRejects(() => s.run(() => Promise.reject(error))), error);
    assertEquals(s.cancelled, false);
    s.run(() => new Promise<void>((resolve) => release = resolve));
  })());
  await turn();
  assertEquals(left.state, "pending");
  release!();
  await turn();
  assertEquals(left.state, "fulfilled");
});

Deno.test("await using: the scope around waits for one that is being left in it", async () => {
  let operation: Operation | undefined;
  const left = watch(scope(() => {
    const opened = scope();
    opened.spawn(() => (operation = new Operation({ lingers: true })).promise).catch(() => {});
    opened[Symbol.asyncDispose]().catch(() => {});
  }));
  await turn();
  assertEquals(left.state, "pending");
  operation!.end();
  await turn();
  assertEquals(left.state, "fulfilled");
});

Deno.test("a scope can be left twice, and before its function has settled", async () => {
  const error = new Error("real");
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      s.spawn(() => Promise.reject(error));
      await assertRejects(() => s[Symbol.asyncDispose]());
      await assertRejects(() => s[Symbol.asyncDispose]());
      assertThrows(() => s.spawn(() => {}), TypeError);
    })
  );
  assertStrictEquals(thrown, error);
});

Deno.test("a scope that is left while it is being left is left once, whoever waits", async () => {
  for (const first of ["function", "child"]) {
    const operations: Operation[] = [];
    const order: string[] = [];
    let disposed: ReturnType<typeof watch> | undefined;
    const left = watch(scope((s) => {
      const leave = () => void (disposed = watch(s[Symbol.asyncDispose]()));
      for (const i of [0, 1]) s.defer(async () => (order.push(`begin ${i}`), await turn(), order.push(`end ${i}`)));
      for (const i of [0, 1]) s.spawn(() => (operations[i] = new Operation()).promise);
      if (first === "function") leave();
      else s.spawn(() => turn().then(leave));
      return 42;
    }));
    for (const i of [0, 1]) {
      await turn();
      operations[i].complete();
    }
    for (let i = 0; i < 4; i++) await turn();
    assertEquals([left.value, disposed!.state], [42, "fulfilled"]);
    assertEquals(order, ["begin 1", "end 1", "begin 0", "end 0"]);
  }
});

Deno.test("a task's rejection that nobody awaits is never an unhandled rejection", async () => {
  const unhandled = await unhandledRejections(async () => {
    await assertRejects(() =>
      scope((s) => {
        s.spawn(() => Promise.reject(new Error("one")));
        s.spawn(() => {
          throw new Error("two");
        });
        s.spawn(forever);
        s.spawn(forever, { background: true }).cancel();
        s.cancel();
      })
    );
    await scope((s) => {
      s.spawn(forever).cancel();
      s.spawn(forever, { background: true });
    });
  });
  assertEquals(unhandled, []);
});

Deno.test("a promise in the place of a function is a type error and a TypeError", async () => {
  const promise = Promise.resolve(1);
  // @ts-expect-error: it takes functions
  assertThrows(() => scope(promise), TypeError, "takes a function");
  // @ts-expect-error: it takes functions
  assertThrows(() => scope(1), TypeError, "takes a function");
  await scope(async (s) => {
    // @ts-expect-error: it takes functions
    assertThrows(() => s.spawn(promise), TypeError, "takes a function");
    // @ts-expect-error: it takes functions
    assertThrows(() => s.defer(promise), TypeError, "takes a function");
    // @ts-expect-error: it takes functions
    await assertRejects(() => s.run(promise), TypeError);
  });
  // @ts-expect-error: it takes an AbortSignal
  await assertRejects(() => scope(() => {}, { signal: {} }), TypeError, "AbortSignal");
  // @ts-expect-error: it takes an AbortSignal
  assertThrows(() => scope({ signal: "x" }), TypeError, "AbortSignal");
});

Deno.test("errors lead to the caller's line", async () => {
  async function theCaller() {
    return await scope(async () => {
      await turn();
      throw new Error("real");
    });
  }
  async function theMisuser() {
    // @ts-expect-error: it takes functions
    return await scope(1);
  }
  const error = await assertRejects(theCaller, Error);
  assert(error.stack!.includes("theCaller"), error.stack);
  const misuse = await assertRejects(theMisuser, TypeError);
  assert(misuse.stack!.includes("theMisuser"), misuse.stack);
});

Deno.test("a cancel while a child is being spawned reaches it", async () => {
  const reason = new Error("stop");
  let before: Operation | undefined;
  let after: Operation | undefined;
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      const task = s.spawn(async () => {
        before = new Operation();
        before.promise.catch(() => {});
        s.cancel(reason);
        after = new Operation();
        await after.promise;
      });
      await task;
    })
  );
  assertStrictEquals(thrown, reason);
  assertEquals([before!.cancels, after!.started], [1, false]);
});

Deno.test("a cancel within an abort listener of the same cancel changes nothing", async () => {
  const reason = new Error("outer");
  const thrown = await assertRejects(() =>
    scope(async (outer) => {
      await scope(async (inner) => {
        outer.signal.addEventListener("abort", () => {
          inner.cancel(new Error("inner"));
          outer.cancel(new Error("again"));
          assertStrictEquals(inner.reason, reason);
        });
        outer.cancel(reason);
        await forever();
      });
    })
  );
  assertStrictEquals(thrown, reason);
});

Deno.test("nothing that an abort listener starts slips into a scope that is being cancelled", async () => {
  let operation: Operation | undefined;
  let child: Operation | undefined;
  await scope(async (outer) => {
    await scope(async (inner) => {
      outer.signal.addEventListener("abort", () => {
        inner.run(() => (operation = new Operation()).promise).catch(() => {});
        inner.spawn(() => (child = new Operation()).promise);
      });
      outer.cancel();
      await turn();
    });
  }).catch(() => {});
  assertEquals([operation!.started, child!.started], [false, false]);
});

Deno.test("an opened scope that nobody disposes of does not keep the one around it, cancelled or not", async () => {
  const reason = new Error("stop");
  for (const cancelled of [false, true]) {
    let operation: Operation | undefined;
    const left = watch(scope((s) => {
      const forgotten = scope();
      forgotten.defer(() => scope()); // and one more
      forgotten.spawn(() => (operation = new Operation({ lingers: true })).promise);
      if (cancelled) s.cancel(reason);
    }));
    await turn();
    assertEquals([operation!.cancels, left.state], [1, "pending"]);
    operation!.end();
    await turn();
    assertEquals([left.state, left.value], ["fulfilled", undefined]);
  }
});

Deno.test("what went wrong in an opened scope that nobody disposes of is not lost", async () => {
  const error = new Error("real");
  const unhandled = new Promise<PromiseRejectionEvent>((resolve) => {
    globalThis.addEventListener("unhandledrejection", (event) => (event.preventDefault(), resolve(event)), {
      once: true,
    });
  });
  await scope(() => {
    const forgotten = scope();
    forgotten.spawn(() => {
      throw error;
    });
  });
  assertStrictEquals((await unhandled).reason, error);
});

Deno.test("scope with the options first is refused: it would open a scope, and not run the function", () => {
  const misused = scope as unknown as (options: object, fn: () => void) => void;
  assertThrows(() => misused({}, () => {}), TypeError, "the function first");
});
