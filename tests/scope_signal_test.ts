import { assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { Cancellable, CancelToken, tokenOf } from "../scope/cancel_token.ts";
import { reportedReason } from "../scope/cancellation.ts";
import { all, race, scope, timeout } from "../scope/mod.ts";
import { countListeners, forever, manualClock, Operation, turn, watch } from "./_scope.ts";

Deno.test("a signal has one listener however much has joined it, and none when all has settled", async () => {
  manualClock();
  const controller = new AbortController();
  const { signal } = controller;
  const listeners = countListeners(signal);
  const operations: Operation[] = [];
  const wait = () => {
    operations.push(new Operation());
    return operations.at(-1)!.promise;
  };
  const settled = Promise.all([
    scope(wait, { signal }),
    scope((s) => void s.spawn(wait), { signal }),
    race([wait, forever], { signal }),
    all([wait, wait], { signal, concurrency: 1 }),
    timeout(1000, wait, { signal }),
  ]);
  assertEquals(listeners, { now: 1, added: 1 });
  while (operations.length < 6) {
    for (const operation of operations) operation.complete();
    await turn();
  }
  for (const operation of operations) operation.complete();
  await settled;
  assertEquals(listeners, { now: 0, added: 1 });
});

Deno.test("a signal has no listener after what failed, nor after its abort", async () => {
  manualClock();
  for (const abort of [false, true]) {
    const controller = new AbortController();
    const { signal } = controller;
    const listeners = countListeners(signal);
    const fail = async () => {
      await turn();
      if (!abort) throw new Error("real");
      await forever();
    };
    const outcomes = [
      scope(fail, { signal }),
      race([fail], { signal }),
      all([fail, fail], { signal }),
      timeout(1000, fail, { signal }),
    ].map(watch);
    assertEquals(listeners.now, 1);
    await turn();
    if (abort) controller.abort();
    await turn();
    await turn();
    assertEquals(outcomes.map(({ state }) => state), Array(4).fill("rejected"));
    assertEquals(listeners.now, 0);
  }
});

Deno.test("an already aborted signal gets no listener", async () => {
  const signal = AbortSignal.abort();
  const listeners = countListeners(signal);
  assertEquals(await scope(() => 1, { signal }), 1);
  await assertRejects(() => race([forever], { signal }));
  assertEquals(listeners, { now: 0, added: 0 });
});

Deno.test("a signal that aborts while nothing has joined it cancels what joins it later", async () => {
  const controller = new AbortController();
  const { signal } = controller;
  const reason = new Error("outside");
  assertEquals(await scope(() => 1, { signal }), 1);
  controller.abort(reason);
  assertStrictEquals(await assertRejects(() => scope(forever, { signal })), reason);
});

Deno.test("a scope within a scope can be given the same signal", async () => {
  const controller = new AbortController();
  const { signal } = controller;
  const listeners = countListeners(signal);
  const reason = new Error("outside");
  let operation: Operation | undefined;
  const left = watch(scope(() => scope(() => (operation = new Operation()).promise, { signal }), { signal }));
  controller.abort(reason);
  await turn();
  assertStrictEquals(left.value, reason);
  assertEquals([operation!.cancels, listeners.now], [1, 0]);
});

class Member extends Cancellable {
  readonly #onCancel: (member: Member) => void;
  cancels = 0;

  constructor(onCancel: (member: Member) => void = () => {}) {
    super();
    this.#onCancel = onCancel;
  }

  override cancel(): void {
    this.cancels++;
    this.#onCancel(this);
  }
}

Deno.test("a token tells each member once, and keeps it until it leaves", () => {
  const token = new CancelToken();
  const [stays, leaves, gone] = [new Member(), new Member((member) => token.leave(member)), new Member()];
  for (const member of [stays, leaves, gone]) token.join(member);
  token.leave(gone);
  token.leave(gone);
  assertEquals(token.idle, false);
  token.cancel(new Error("first"));
  token.cancel(new Error("second"));
  assertEquals([stays.cancels, leaves.cancels, gone.cancels], [1, 1, 0]);
  assertEquals(token.idle, false);
  assertThrows(() => token.join(gone), Error, "BUG");
  token.leave(stays);
  assertEquals(token.idle, true);
});

Deno.test("a member can take others out, and cancel, while it is told", () => {
  const token = new CancelToken();
  const child = new CancelToken(token);
  const others = [new Member(), new Member(), new Member()];
  const inChild = new Member();
  child.join(inChild);
  token.join(others[0]);
  token.join(
    new Member((member) => {
      child.cancel("too late");
      token.cancel("again");
      for (const other of others) token.leave(other);
      token.leave(member);
    }),
  );
  token.join(others[1]);
  token.join(others[2]);
  token.cancel("reason");
  // The oldest are told first; those that had left by then are not told.
  assertEquals(others.map(({ cancels }) => cancels), [1, 0, 0]);
  assertEquals([inChild.cancels, child.reason], [1, "reason"]);
});

Deno.test("all tokens below are cancelled before the first member is told", () => {
  const token = new CancelToken();
  const states: boolean[] = [];
  token.join(new Member(() => states.push(child.cancelled, grandchild.cancelled)));
  const child = new CancelToken(token);
  const grandchild = new CancelToken(child);
  token.join(new Member(() => states.push(child.cancelled, grandchild.cancelled)));
  token.cancel("reason");
  assertEquals(states, [true, true, true, true]);
});

Deno.test("a shielded token is not cancelled, but waited for", () => {
  const token = new CancelToken();
  const shielded = new CancelToken(token, { shielded: true });
  const below = new CancelToken(shielded);
  token.cancel("reason");
  const late = new CancelToken(token, { shielded: true });
  assertEquals([shielded.cancelled, below.cancelled, late.cancelled], [false, false, false]);
  assertEquals(token.idle, false);
  below.release();
  shielded.release();
  late.release();
  late.release();
  assertEquals(token.idle, true);
});

Deno.test("the reported reason is found without a look at each of the scopes that one cancel has reached", () => {
  for (const late of [false, true]) {
    const outer = new CancelToken();
    if (late) outer.cancel("reason");
    let looks = 0;
    let token = outer;
    for (let depth = 0; depth < 100; depth++) {
      token = new CancelToken(token);
      Object.defineProperty(token, "shielded", { get: () => (looks++, false) });
    }
    outer.cancel("reason");
    looks = 0;
    assertEquals([reportedReason(token), looks], ["reason", 0]);
  }
});

Deno.test("the reported reason is that of the outermost cancel, as far as no shield is between", () => {
  const tokens = [new CancelToken()];
  for (let depth = 1; depth < 9; depth++) tokens.push(new CancelToken(tokens[depth - 1], { shielded: depth === 3 }));
  const reasons = () => tokens.map(reportedReason);
  tokens[6].cancel("inner");
  assertEquals(reasons().slice(5), [undefined, "inner", "inner", "inner"]);
  tokens[4].cancel("middle");
  assertEquals(reasons().slice(3), [undefined, "middle", "middle", "middle", "middle", "middle"]);
  tokens[0].cancel("outer");
  assertEquals(reasons(), ["outer", "outer", "outer", undefined, "middle", "middle", "middle", "middle", "middle"]);
});

Deno.test("the token of a signal is one for each signal", () => {
  const { signal } = new AbortController();
  assertStrictEquals(tokenOf(signal), tokenOf(signal));
  assertThrows(() => tokenOf({} as AbortSignal), TypeError, "AbortSignal");
});
