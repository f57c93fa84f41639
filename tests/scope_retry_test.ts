import { assert, assertEquals, assertRejects, assertStrictEquals } from "@std/assert";
import { connect, defaultRing, listen, type Listener } from "../mod.ts";
import { retry, type RetryOptions, scope, timeout } from "../scope/mod.ts";
import { clock as installed, installClock } from "../scope/clock.ts";
import { forever, manualClock, Operation, turn, unhandledRejections, watch } from "./_scope.ts";

const kernelClock = installed();

const turns = async (n = 5) => {
  for (let i = 0; i < n; i++) await turn();
};

/** A function that fails so many times, and what it was called with. */
function failing(times: number) {
  const errors = Array.from({ length: times }, (_, i) => new Error(`attempt ${i + 1}`));
  const attempts: number[] = [];
  const fn = async (attempt: number) => {
    attempts.push(attempt);
    await turn();
    if (attempt <= times) throw errors[attempt - 1];
    return "value";
  };
  return { fn, errors, attempts };
}

/** The lengths of the pauses that are made. */
async function pausesOf(options: RetryOptions, random = 0): Promise<number[]> {
  const clock = manualClock();
  const before = Math.random;
  Math.random = () => random;
  try {
    const pauses: number[] = [];
    const outcome = watch(retry(failing(6).fn, { attempts: 7, ...options }));
    while (outcome.state === "pending") {
      await turn();
      if (clock.pending.length === 0) continue;
      pauses.push(clock.pending[0].at - clock.now());
      await clock.advance(pauses.at(-1)!);
    }
    return pauses;
  } finally {
    Math.random = before;
  }
}

Deno.test("retry() gives the first value, and tells the function the number of its attempt", async () => {
  const clock = manualClock();
  const { fn, attempts } = failing(2);
  const outcome = watch(retry(fn, { backoff: { initial: 10, jitter: 0 } }));
  await turns();
  assertEquals(attempts, [1]);
  await clock.advance(9);
  assertEquals(attempts, [1]);
  await clock.advance(1);
  await turns();
  assertEquals(attempts, [1, 2]);
  await clock.advance(20);
  await turns();
  assertEquals([attempts, outcome.value], [[1, 2, 3], "value"]);
  assertEquals([clock.pending.length, clock.timesSet], [0, 2]);
  assertEquals(await retry(() => "at once"), "at once");
});

Deno.test("retry() throws the error of the last attempt as it is, and pauses no more", async () => {
  const clock = manualClock();
  const { fn, errors, attempts } = failing(9);
  const outcome = watch(retry(fn, { attempts: 3, backoff: { initial: 0 } }));
  for (let i = 0; i < 5; i++) {
    await clock.advance(1);
    await turns();
  }
  assertEquals([attempts, clock.timesSet], [[1, 2, 3], 2]);
  assertStrictEquals(outcome.value, errors[2]);
  const once = failing(1);
  assertStrictEquals(await assertRejects(() => retry(once.fn, { attempts: 1 })), once.errors[0]);
});

Deno.test("retry(): the pauses grow by their factor up to their maximum, less what is left to chance", async () => {
  assertEquals(await pausesOf({ backoff: { initial: 10, factor: 2, max: 100, jitter: 0 } }), [
    10,
    20,
    40,
    80,
    100,
    100,
  ]);
  assertEquals(await pausesOf({ backoff: { initial: 8, jitter: 0.25 } }, 0.5), [7, 14, 28, 56, 112, 224]);
  assertEquals(await pausesOf({ backoff: { factor: 10 } }, 1), [50, 500, 5000, 15_000, 15_000, 15_000]);
  assertEquals(await pausesOf({ backoff: { initial: 5, factor: 1, max: 3, jitter: 1 } }, 0), [3, 3, 3, 3, 3, 3]);
});

Deno.test("retry(..., { when }) is asked about each error, and its own error is thrown", async () => {
  const clock = manualClock();
  const { fn, errors, attempts } = failing(4);
  const asked: unknown[] = [];
  const outcome = watch(retry(fn, {
    backoff: { initial: 1, factor: 1 },
    when: async (error, attempt) => {
      await turn();
      asked.push([error, attempt]);
      return attempt < 2;
    },
  }));
  for (let i = 0; i < 4; i++) {
    await turns();
    await clock.advance(1);
  }
  assertEquals(attempts, [1, 2]);
  assertEquals(asked, [[errors[0], 1], [errors[1], 2]]);
  assertStrictEquals(outcome.value, errors[1]);
  const error = new Error("in when");
  const thrown = await assertRejects(() =>
    retry(failing(1).fn, {
      when() {
        throw error;
      },
    })
  );
  assertStrictEquals(thrown, error);
});

Deno.test("retry(): a cancellation is never retried", async () => {
  const clock = manualClock();
  const reason = new Error("stop");
  for (const during of ["attempt", "pause"]) {
    let attempts = 0;
    const outcome = watch(scope(async (s) => {
      turns(2).then(() => s.cancel(reason));
      await retry(() => {
        attempts++;
        return during === "attempt" ? forever() : Promise.reject(new Error("real"));
      });
    }));
    await turns();
    assertStrictEquals(outcome.value, reason);
    assertEquals([attempts, clock.pending.length], [1, 0]);
  }
  const asked = await assertRejects(() =>
    scope(async (s) => {
      await retry(failing(9).fn, { when: () => (s.cancel(reason), true) });
    })
  );
  assertStrictEquals(asked, reason);
  assertEquals(clock.timesSet, 1);
  const controller = new AbortController();
  const outcome = watch(retry(() => forever(), controller));
  controller.abort(reason);
  await turns();
  assertStrictEquals(outcome.value, reason);
});

Deno.test("retry(): an error that comes from a cancelled attempt is thrown, and not retried", async () => {
  manualClock();
  const error = new Error("wrapped");
  let attempts = 0;
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      turn().then(() => s.cancel());
      await retry(() => (attempts++, forever().catch(() => Promise.reject(error))));
    })
  );
  assertStrictEquals(thrown, error);
  assertEquals(attempts, 1);
});

Deno.test("retry(): a deadline of the attempt's own is an error like any other", async () => {
  const clock = manualClock();
  let attempts = 0;
  const outcome = watch(retry(
    async () => {
      attempts++;
      await timeout(5, forever);
    },
    { attempts: 2, backoff: { initial: 1, jitter: 0 } },
  ));
  for (let i = 0; i < 11; i++) {
    await clock.advance(1);
    await turns();
  }
  assertEquals([attempts, (outcome.value as Error).message], [2, "Timed out after 5 ms"]);
  assertEquals(clock.pending, []);
});

Deno.test("retry(..., { timeout }) covers all attempts and pauses, and its error names the last failure as its cause", async () => {
  for (const lastly of ["attempt", "pause"]) {
    const clock = manualClock();
    const error = new Error("real");
    let operation: Operation | undefined;
    const outcome = watch(retry(
      async (attempt) => {
        if (attempt === 1) throw error;
        if (lastly === "pause") throw error;
        await (operation = new Operation()).promise;
      },
      { timeout: 25, backoff: { initial: 10, factor: 10, jitter: 0 } },
    ));
    await turns();
    await clock.advance(10);
    await turns();
    await clock.advance(14);
    assertEquals(outcome.state, "pending");
    await clock.advance(1);
    await turns();
    const thrown = outcome.value as Error;
    assertEquals([thrown.name, thrown.message], ["TimeoutError", "Timed out after 25 ms"]);
    assertStrictEquals(thrown.cause, error);
    assertEquals([operation?.cancels, clock.pending.length], [lastly === "pause" ? undefined : 1, 0]);
  }
  const clock = manualClock();
  const outcome = watch(retry(forever, { timeout: 5 }));
  await clock.advance(5);
  await turns();
  assertEquals(["cause" in (outcome.value as Error), (outcome.value as Error).name], [false, "TimeoutError"]);
});

Deno.test("retry(): an attempt is over when everything that it started has come back", async () => {
  const clock = manualClock();
  let left: Operation | undefined;
  const attempts: number[] = [];
  const outcome = watch(retry(async (attempt) => {
    attempts.push(attempt);
    if (attempt === 2) return "value";
    left = new Operation({ lingers: true });
    await turn();
    throw new Error("real");
  }, { backoff: { initial: 0 } }));
  await turns();
  await clock.advance(0);
  assertEquals([left!.cancels, attempts], [1, [1]]);
  left!.end();
  await turns();
  await clock.advance(0);
  await turns();
  assertEquals([attempts, outcome.value], [[1, 2], "value"]);
});

Deno.test("retry(): options that are none are an error, and the function is not called", async () => {
  manualClock();
  const start = () => assert(false, "started");
  for (const attempts of [0, -1, 1.5, NaN, "2" as unknown as number]) {
    await assertRejects(() => retry(start, { attempts }), RangeError, "attempts");
  }
  for (
    const [name, values] of Object.entries({
      initial: [-1, NaN, Infinity],
      factor: [0.5, NaN],
      max: [-1],
      jitter: [-1, 2],
    })
  ) {
    for (const value of values) {
      await assertRejects(() => retry(start, { backoff: { [name]: value } }), RangeError, `backoff.${name}`);
    }
  }
  await assertRejects(() => retry(start, { timeout: -1 }), RangeError, "timeout");
  // @ts-expect-error: it takes a function
  await assertRejects(() => retry(Promise.resolve(1)), TypeError, "takes a function");
  // @ts-expect-error: it takes a function
  await assertRejects(() => retry(start, { when: true }), TypeError, "when");
});

Deno.test("retry(): where no alarm can be set for a pause it rejects, and nothing is left waiting", async () => {
  const error = new Error("no timer");
  installClock({
    now: () => 0,
    set() {
      throw error;
    },
  });
  const { fn } = failing(1);
  const unhandled = await unhandledRejections(async () => {
    assertStrictEquals(await assertRejects(() => retry(fn)), error);
  });
  assertEquals(unhandled, []);
});

Deno.test("retry() without end goes on until it has a value", async () => {
  const clock = manualClock();
  const { fn, attempts } = failing(100);
  const outcome = watch(retry(fn, { attempts: Infinity, backoff: { initial: 1, max: 1 } }));
  while (outcome.state === "pending") {
    await turn();
    await clock.advance(1);
  }
  assertEquals([outcome.value, attempts.length], ["value", 101]);
});

Deno.test("retry() of a connection, on the kernel's clock: until somebody listens", async () => {
  installClock(kernelClock);
  const before = await listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = before.addr;
  await before.close();
  const refused: number[] = [];
  let listener: Listener | undefined;
  await using conn = await retry(() => connect({ port }), {
    backoff: { initial: 1 },
    timeout: 10_000,
    when: async (error, attempt) => {
      refused.push(attempt);
      if (attempt === 3) listener = await listen({ hostname: "127.0.0.1", port });
      return error instanceof Deno.errors.ConnectionRefused;
    },
  });
  await using _ = listener!;
  assertEquals([refused, conn.remoteAddr.port], [[1, 2, 3], port]);
  assertEquals(defaultRing().inFlight, 0);
});
