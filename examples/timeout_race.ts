#!/usr/bin/env -S deno run --allow-ffi
/**
 * Losing a race, in the kernel: reads that never complete against kernel timers, and data that comes in time.
 *
 * Each part tells who won and when, what the kernel answered to the operations that lost, and that nothing is left in
 * flight. An abort or a deadline sends IORING_OP_ASYNC_CANCEL, and a race settles only when the loser's own completion
 * is in: result -125, ECANCELED.
 */
import { type Completion, defaultRing, pipe, race, scope, sleep, socketpair, timeout } from "../mod.ts";

const ring = defaultRing();
const colours = Deno.stdout.isTerminal() && !Deno.noColor;
const bold = (text: string) => colours ? `\x1b[1m${text}\x1b[0m` : text;
const say = (label: string, text: string) => console.log(`  ${label.padEnd(10)}${text}`);

/** Runs one part, and shows how it ended. */
async function show(title: string, run: () => Promise<string>): Promise<void> {
  console.log(bold(title));
  const completions: Completion[] = [];
  ring.onCompletion = (completion) => completions.push(completion);
  const started = performance.now();
  let winner: string;
  try {
    winner = await run();
  } catch (error) {
    if (!(error instanceof DOMException)) throw error;
    winner = `the deadline (${error.name}: ${error.message})`;
  }
  const elapsed = performance.now() - started;
  const inFlight = ring.inFlight;
  ring.onCompletion = null;
  say("won", `${winner}, after ${elapsed.toFixed(1)} ms`);
  for (const { of, operation, result } of completions) {
    const subject = of === "cancel"
      ? `cancel of ${operation}`
      : of === "deadline"
      ? `deadline of ${operation}`
      : operation;
    say("kernel", `${subject.padEnd(18)}${String(result).padStart(5)}${meaning(result)}`);
  }
  say("in flight", `${inFlight} requests\n`);
}

function meaning(result: number): string {
  const names: Record<number, string> = { [-125]: "-ECANCELED", [-62]: "-ETIME", [-2]: "-ENOENT" };
  return result in names ? ` = ${names[result]}` : "";
}

const [left, right] = socketpair();
const { reader, writer } = pipe();
const buffer = () => new Uint8Array(64);

await show("A read that never completes races a kernel timer of 50 ms", () =>
  race([
    async () => {
      await left.read(buffer());
      return "the read";
    },
    async () => {
      await sleep(50);
      return "the timer";
    },
  ]));

await show("A deadline of 80 ms around a scope of three operations", () =>
  timeout(80, () =>
    scope(async (s) => {
      s.spawn(() => left.read(buffer()));
      s.spawn(() => reader.read(buffer()));
      await sleep(10_000);
      return "the scope";
    })));

await show("A read with a deadline of its own, 30 ms, linked to it in the kernel (LINK_TIMEOUT)", async () => {
  await left.read(buffer(), { timeout: 30 });
  return "the read";
});

await show("The other way round: data arrives after 20 ms, and beats a timer of 10 s", () =>
  scope((s) => {
    s.spawn(async () => {
      await sleep(20);
      await right.writeAll(new TextEncoder().encode("in time"));
    });
    return race([
      async () => {
        const bytes = buffer();
        const n = await left.read(bytes);
        return `the read (${JSON.stringify(new TextDecoder().decode(bytes.subarray(0, n ?? 0)))})`;
      },
      async () => {
        await sleep(10_000);
        return "the timer";
      },
    ]);
  }));

for (const end of [left, right, reader, writer]) await end.close();
console.log(`Done: ${ring.inFlight} requests remain in flight.`);
