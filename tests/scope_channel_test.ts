import { assert, assertEquals, assertRejects, assertStrictEquals, assertThrows } from "@std/assert";
import { defaultRing, pipe, sleep } from "../mod.ts";
import { type Channel, channel, ChannelClosedError, race, scope, timeout } from "../scope/mod.ts";
import { CancelToken } from "../scope/cancel_token.ts";
import { born } from "../scope/ownership.ts";
import { Random } from "./support/random.ts";
import {
  countListeners,
  forever,
  manualClock,
  Operation,
  Resource,
  turn,
  unhandledRejections,
  watch,
} from "./_scope.ts";

const of = <T>(value: T) => ({ state: "fulfilled" as const, value: { done: false, value } });

Deno.test("send waits while the channel is full, receive while it is empty", async () => {
  const numbers = channel<number>(2);
  const sends = [1, 2, 3, 4].map((n) => watch(numbers.send(n)));
  await turn();
  assertEquals(sends.map(({ state }) => state), ["fulfilled", "fulfilled", "pending", "pending"]);
  assertEquals([numbers.length, numbers.capacity], [2, 2]);
  assertEquals(await numbers.receive(), { done: false, value: 1 });
  await turn();
  assertEquals(sends.map(({ state }) => state), ["fulfilled", "fulfilled", "fulfilled", "pending"]);
  for (const n of [2, 3, 4]) assertEquals((await numbers.receive()).value, n);
  const receive = watch(numbers.receive());
  await turn();
  assertEquals([receive.state, numbers.length], ["pending", 0]);
  await numbers.send(5);
  await turn();
  assertEquals(receive, of(5));
});

Deno.test("capacity 0: send waits until its value is received", async () => {
  const numbers = channel<number>();
  const sends = [1, 2].map((n) => watch(numbers.send(n)));
  await turn();
  assertEquals([sends.map(({ state }) => state), numbers.length], [["pending", "pending"], 0]);
  assertEquals((await numbers.receive()).value, 1);
  await turn();
  assertEquals(sends.map(({ state }) => state), ["fulfilled", "pending"]);
  assertEquals((await numbers.receive()).value, 2);
  const receive = watch(numbers.receive());
  await numbers.send(3);
  await turn();
  assertEquals(receive, of(3));
});

Deno.test("senders and receivers are served in the order in which they came", async () => {
  for (const capacity of [0, 1, 5]) {
    const letters = channel<string>(capacity);
    const receives = [1, 2, 3].map(() => watch(letters.receive()));
    for (const letter of "abc") await letters.send(letter);
    await turn();
    assertEquals(receives, [of("a"), of("b"), of("c")]);
    const sends = [..."defghij"].map((letter) => letters.send(letter));
    const received = [];
    for (const _ of sends) received.push((await letters.receive()).value);
    assertEquals(received.join(""), "defghij");
    await Promise.all(sends);
  }
});

Deno.test("many producers and consumers: each value is received once, those of a producer in order", async () => {
  const [producers, values] = [7, 300];
  for (const capacity of [0, 1, 10]) {
    const received: [number, number][] = [];
    await scope(async (s) => {
      const pairs = channel<[number, number]>(capacity);
      const tasks = Array.from({ length: producers }, (_, p) =>
        s.spawn(async () => {
          for (let i = 0; i < values; i++) {
            await pairs.send([p, i]);
            if (i % 100 === p) await turn();
          }
        }));
      for (let c = 0; c < 5; c++) {
        s.spawn(async () => {
          for await (const pair of pairs) received.push(pair);
        });
      }
      for (const task of tasks) await task;
      pairs.close();
    });
    assertEquals(received.length, producers * values);
    for (let p = 0; p < producers; p++) {
      assertEquals(received.filter(([of]) => of === p).map(([, i]) => i), Array.from({ length: values }, (_, i) => i));
    }
  }
});

Deno.test("a cancelled receive takes no value", async () => {
  const clock = manualClock();
  const letters = channel<string>(1);
  const first = assertRejects(() => timeout(5, () => letters.receive()), DOMException, "Timed out");
  const controller = new AbortController();
  const listeners = countListeners(controller.signal);
  const second = watch(letters.receive(controller));
  const third = watch(letters.receive());
  assertEquals(listeners.now, 1);
  await clock.advance(5);
  await first;
  const reason = new Error("enough");
  controller.abort(reason);
  await turn();
  assertStrictEquals(second.value, reason);
  assertEquals(listeners.now, 0);
  await letters.send("a");
  await letters.send("b");
  await turn();
  assertEquals(third, of("a"));
  assertStrictEquals(await assertRejects(() => letters.receive(controller)), reason);
  assertEquals([letters.length, (await letters.receive()).value], [1, "b"]);
});

Deno.test("a cancelled send leaves no value", async () => {
  const clock = manualClock();
  for (const capacity of [0, 1]) {
    const letters = channel<string>(capacity);
    if (capacity === 1) await letters.send("first");
    const controller = new AbortController();
    const first = assertRejects(() => timeout(5, () => letters.send("a")), DOMException, "Timed out");
    const second = watch(letters.send("b", controller));
    const third = watch(letters.send("c"));
    await clock.advance(5);
    await first;
    controller.abort();
    await assertRejects(() => letters.send("d", controller), DOMException, "aborted");
    if (capacity === 1) assertEquals((await letters.receive()).value, "first");
    assertEquals((await letters.receive()).value, "c");
    await turn();
    assertEquals([second.state, third.state, letters.length], ["rejected", "fulfilled", 0]);
  }
});

Deno.test("a value that was handed over beats a cancel that came too late", async () => {
  const letters = channel<string>();
  const received = await scope(async (s) => {
    const receive = s.spawn(() => letters.receive());
    await letters.send("a");
    s.cancel();
    return await receive;
  });
  assertEquals(received, { done: false, value: "a" });
  const controller = new AbortController();
  const send = letters.send("b", controller);
  const receive = letters.receive();
  controller.abort();
  await send;
  assertEquals((await receive).value, "b");
});

Deno.test("nothing is lost or doubled: what was sent is received, whatever is cancelled meanwhile", async () => {
  const random = new Random(1);
  for (const capacity of [0, 1, 3]) {
    const numbers = channel<number>(capacity);
    const sent: number[] = [];
    const received: number[] = [];
    const cancelling = async (operation: (options: { signal: AbortSignal }) => Promise<void>) => {
      const controller = new AbortController();
      const settled = operation(controller).catch((error) => assertEquals(error, "enough"));
      if (random.oneIn(2)) await null;
      if (random.oneIn(2)) controller.abort("enough");
      if (random.oneIn(4)) await turn();
      return settled;
    };
    const sending: Promise<void>[] = [];
    const receiving: Promise<void>[] = [];
    for (let i = 0; i < 600; i++) {
      if (random.oneIn(2)) {
        sending.push(cancelling(async (options) => (await numbers.send(i, options), void sent.push(i))));
      } else receiving.push(cancelling(async (options) => void received.push((await numbers.receive(options)).value!)));
      if (random.oneIn(5)) await turn();
    }
    // Those that wait to receive are served, then what is left is taken.
    const last = receiving.length;
    for (let i = 0; i < last; i++) sending.push(numbers.send(-1));
    await Promise.all(receiving);
    numbers.close();
    await Promise.allSettled(sending);
    for await (const n of numbers) received.push(n);
    assertEquals(received.filter((n) => n >= 0).toSorted((a, b) => a - b), sent.toSorted((a, b) => a - b));
    assert(sent.length > 50, `only ${sent.length} were sent`);
  }
});

Deno.test("in a cancelled scope send and receive reject at once, though they would not have to wait", async () => {
  const letters = channel<string>(2);
  await letters.send("a");
  const reason = new Error("stop");
  await scope(async (s) => {
    s.cancel(reason);
    assertStrictEquals(await assertRejects(() => letters.send("b")), reason);
    assertStrictEquals(await assertRejects(() => letters.receive()), reason);
    assertStrictEquals(assertThrows(() => channel()), reason);
  });
  assertEquals(letters.length, 1);
});

Deno.test("after a close receivers get what the channel holds, then the end", async () => {
  const letters = channel<string | undefined>(2);
  await letters.send("a");
  await letters.send(undefined);
  letters.close();
  letters.close();
  assertEquals(letters.closed, true);
  await assertRejects(() => letters.send("b"), ChannelClosedError, "not sent");
  assertEquals(await letters.receive(), { done: false, value: "a" });
  assertEquals(await letters.receive(), { done: false, value: undefined });
  assertEquals(await letters.receive(), { done: true, value: undefined });
  assertEquals(await Array.fromAsync(letters), []);
});

Deno.test("a close ends the waiting: senders reject and keep their values, receivers get the end", async () => {
  const letters = channel<string>(1);
  await letters.send("a");
  const sends = [watch(letters.send("b")), watch(letters.send("c"))];
  letters.close();
  await turn();
  for (const send of sends) assertEquals((send.value as Error).name, "ChannelClosedError");
  assertEquals(await Array.fromAsync(letters), ["a"]);

  let receive: ReturnType<typeof watch> | undefined;
  {
    using more = channel<string>(1);
    receive = watch(more.receive());
  }
  await turn();
  assertEquals(receive.value, { done: true, value: undefined });
});

Deno.test("a loop that is left early leaves the channel open, and the rest in it", async () => {
  const letters = channel<string>(3);
  for (const letter of "abc") await letters.send(letter);
  for await (const letter of letters) if (letter === "b") break;
  letters.close();
  assertEquals(await Array.fromAsync(letters), ["c"]);
});

Deno.test("a channel ends with its scope's cancel: what waits elsewhere rejects with the reason, and so does what comes", async () => {
  const reason = new Error("stop");
  let letters: Channel<string> | undefined;
  let full: Channel<string> | undefined;
  let s: { cancel(reason: unknown): void } | undefined;
  const outcome = watch(scope(async (inner) => {
    s = inner;
    letters = channel();
    full = channel(1);
    await forever();
  }));
  const receive = watch(letters!.receive());
  await full!.send("a");
  const send = watch(full!.send("b"));
  s!.cancel(reason);
  await turn();
  for (const { value } of [receive, send, outcome]) assertStrictEquals(value, reason);
  for (const late of [letters!.receive(), letters!.send("c"), full!.receive(), full!.send("d")]) {
    assertStrictEquals(await assertRejects(() => late), reason);
  }
  assertEquals([full!.length, full!.closed], [0, true]);
});

Deno.test("a channel keeps no scope open: it ends when its scope is left", async () => {
  const letters = await scope(async () => {
    const letters = channel<string>(1);
    await letters.send("a");
    return letters;
  });
  await assertRejects(() => letters.receive(), DOMException, "ended with the scope");
  assertEquals(letters.closed, true);
});

Deno.test("a closed and empty channel has left its scope", async () => {
  const token = new CancelToken();
  await token.run(async () => {
    const letters = channel<string>(1);
    assertEquals(token.idle, false);
    await letters.send("a");
    letters.close();
    assertEquals(token.idle, false);
    await letters.receive();
    assertEquals(token.idle, true);
    channel().close();
    assertEquals(token.idle, true);
    const closed = channel<string>();
    const waiting = closed.receive();
    closed.close();
    await waiting;
    assertEquals(token.idle, true);
  });
});

Deno.test("resources in a channel that ends are closed before its scope settles; those from elsewhere stay open", async () => {
  const [inside, received, closing] = [
    new Resource(turn),
    new Resource(),
    new Resource(() => Promise.reject(new Error())),
  ];
  const elsewhere = born(new Resource());
  await scope(async () => {
    const resources = channel<Resource>(4);
    for (const resource of [received, closing, inside]) await resources.send(born(resource));
    await resources.send(elsewhere);
    await resources.receive();
  });
  assertEquals([inside, received, closing, elsewhere].map(({ disposed }) => disposed), [1, 0, 1, 0]);
});

Deno.test("the loser of a race that waited for a channel has taken nothing", async () => {
  const letters = channel<string>();
  for (let i = 0; i < 3; i++) await race([() => letters.receive(), turn]);
  const send = letters.send("a");
  assertEquals((await letters.receive()).value, "a");
  await send;
});

Deno.test("what waits for a channel does not outlive the scope it waits in", async () => {
  const letters = channel<string>(1);
  let operation: Operation | undefined;
  await scope(() => {
    letters.receive().catch(() => operation = new Operation());
  });
  await letters.send("a");
  assertEquals([letters.length, operation!.started], [1, true]);
});

Deno.test("a capacity that is none is an error", () => {
  for (const capacity of [-1, 1.5, NaN, "1" as unknown as number]) {
    assertThrows(() => channel(capacity), RangeError, "capacity");
  }
  assertEquals(channel(Infinity).capacity, Infinity);
});

Deno.test("a signal that is none is an error, and nothing is sent", async () => {
  const letters = channel<string>(1);
  // @ts-expect-error: it takes an AbortSignal
  await assertRejects(() => letters.send("a", { signal: {} }), TypeError, "AbortSignal");
  assertEquals(letters.length, 0);
});

Deno.test("channels: nothing is an unhandled rejection, and no order of 100,000 waiting is slow", async () => {
  const unhandled = await unhandledRejections(async () => {
    const numbers = channel<number>();
    const controller = new AbortController();
    const sends = Array.from({ length: 100_000 }, (_, i) => numbers.send(i, i % 2 === 0 ? controller : {}));
    const settled = Promise.allSettled(sends);
    controller.abort();
    for (let i = 0; i < 50_000; i++) assertEquals((await numbers.receive()).value, 2 * i + 1);
    assertEquals((await settled).filter(({ status }) => status === "rejected").length, 50_000);
  });
  assertEquals(unhandled, []);
});

Deno.test("a channel between two parts of a pipeline: each waits for the other, and a failure of one ends both", async () => {
  const { reader, writer } = await pipe();
  const lengths: number[] = [];
  const error = new Error("enough");
  const thrown = await assertRejects(() =>
    scope(async (s) => {
      s.use(reader);
      s.use(writer);
      const chunks = channel<Uint8Array>(1);
      s.spawn(async () => {
        const buffer = new Uint8Array(4);
        for (let n; (n = await reader.read(buffer)) !== null;) await chunks.send(buffer.slice(0, n));
      });
      s.spawn(async () => {
        for await (const chunk of chunks) {
          lengths.push(chunk.length);
          await sleep(1);
          if (lengths.length === 3) throw error;
        }
      });
      for (;;) await writer.write(new Uint8Array(10_000));
    })
  );
  assertStrictEquals(thrown, error);
  assertEquals([lengths, defaultRing().inFlight], [[4, 4, 4], 0]);
});

Deno.test("a channel whose scope was left says so to who comes later", async () => {
  let ended!: Channel<number>;
  await scope(() => void (ended = channel(1)));
  for (const use of [() => ended.send(1), () => ended.receive()]) {
    const error = await assertRejects(use, DOMException, "ended with the scope that it was opened in");
    assertEquals(error.name, "AbortError");
  }
});
