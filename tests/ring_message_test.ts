import { assertEquals, assertRejects } from "@std/assert";
import { pipe, Ring, scope, timeout } from "../mod.ts";
import { turns, within } from "./support/until.ts";

/** A worker that sends back each message it gets plus 1, until it gets 0. */
async function startEcho(back: Ring): Promise<{ fd: number; ended: Promise<void> }> {
  const worker = new Worker(new URL("./support/echo_messages_worker.ts", import.meta.url), { type: "module" });
  worker.postMessage(back.fd);
  const said = () => new Promise<MessageEvent>((resolve) => worker.onmessage = resolve);
  const { data: fd } = await within("the worker's ring", said());
  return { fd, ended: said().then(() => worker.terminate()) };
}

Deno.test("10,000 messages arrive in order, kept until somebody asks", async () => {
  await using from = Ring.open({ entries: 64 });
  await using to = Ring.open({ entries: 8, completionEntries: 8 });
  const sent = Array.from({ length: 10_000 }, (_, i) => i % 2 === 0 ? i : 2 ** 53 - 1 - i);
  await Promise.all(sent.map((message) => from.send(to.fd, message)));
  const received: number[] = [];
  for await (const message of to.messages()) {
    if (received.push(message) === sent.length) break;
  }
  assertEquals(received, sent);
  assertEquals([from.inFlight, to.inFlight], [0, 0]);
});

Deno.test("messages wake the event loop of a worker's ring, and its answers this one's", async () => {
  await using ring = Ring.open();
  const echo = await startEcho(ring);
  const answers = ring.messages();
  for (let i = 1; i <= 100; i++) {
    await ring.send(echo.fd, i);
    assertEquals((await within("an answer", answers.next())).value, i + 1);
  }
  const all = Promise.all(Array.from({ length: 10_000 }, (_, i) => ring.send(echo.fd, i + 1)));
  for (let i = 1; i <= 10_000; i++) assertEquals((await answers.next()).value, i + 1);
  await all;
  await ring.send(echo.fd, 0);
  await within("the worker ends", echo.ended);
  await assertRejects(() => ring.send(echo.fd, 1), Deno.errors.BadResource);
  await answers.return!();
});

Deno.test("requests go on among messages, and a ring may write to itself", async () => {
  await using ring = Ring.open({ entries: 8 });
  const { reader, writer } = pipe({ ring });
  const messages = ring.messages();
  for (let i = 0; i < 1000; i++) {
    const read = reader.read(new Uint8Array(1));
    const next = messages.next();
    await Promise.all([ring.send(ring.fd, i), writer.write(new Uint8Array(1))]);
    assertEquals(await read, 1);
    assertEquals((await next).value, i);
  }
  await messages.return!();
  await Promise.all([reader.close(), writer.close()]);
});

Deno.test("what nobody has taken is kept for the next reader, in order", async () => {
  await using ring = Ring.open();
  const messages = ring.messages();
  await ring.send(ring.fd, 0);
  assertEquals((await messages.next()).value, 0);
  for (let i = 1; i <= 200; i++) await ring.send(ring.fd, i);
  assertEquals((await messages.next()).value, 1);
  await messages.return!();
  for (let i = 201; i <= 300; i++) await ring.send(ring.fd, i);
  const others = ring.messages();
  const last = ring.send(ring.fd, 301); // arrives before what was kept has been handed over
  for (let i = 2; i <= 301; i++) assertEquals((await others.next()).value, i);
  await last;
  await others.return!();
});

Deno.test("reading messages ends with its signal, its scope and its ring", async () => {
  const ring = Ring.open();
  const controller = new AbortController();
  const aborted = ring.messages({ signal: controller.signal }).next();
  controller.abort("enough");
  assertEquals(await aborted.catch((error) => error), "enough");
  await assertRejects(() => timeout(1, () => ring.messages().next()), DOMException);
  await scope(async (s) => {
    s.spawn(() => ring.messages().next(), { background: true });
    await turns(10);
  });
  assertEquals(ring.inFlight, 0);
  const first = ring.messages();
  const next = first.next();
  await assertRejects(() => ring.messages().next(), Deno.errors.Busy);
  await ring.send(ring.fd, 7);
  assertEquals((await next).value, 7);
  const last = first.next();
  const closed = assertRejects(() => last, Deno.errors.BadResource, "closed");
  await ring.close();
  await closed;
});

Deno.test("what is no ring, and no message, is refused", async () => {
  await using ring = Ring.open();
  const gone = Ring.open();
  const { fd } = gone;
  await gone.close();
  await assertRejects(() => ring.send(fd, 1), Deno.errors.BadResource);
  const { reader, writer } = pipe({ ring });
  const error = await assertRejects(() => ring.send(reader.fd, 1), Error) as Error & { code: string };
  assertEquals(error.code, "EBADFD");
  for (const message of [-1, 0.5, NaN, 2 ** 53]) await assertRejects(() => ring.send(ring.fd, message), RangeError);
  await Promise.all([reader.close(), writer.close()]);
});
