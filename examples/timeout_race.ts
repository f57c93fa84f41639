#!/usr/bin/env -S deno run --allow-ffi
/**
 * Losing a race in the kernel: reads that never complete against kernel timers, and data that comes in time.
 * Run it with `make demo`, or `deno run --allow-ffi examples/timeout_race.ts`.
 *
 * Each part tells who won and when, what the kernel answered to every request (its own results, as they came in), and
 * how many requests are left in flight. An abort or a deadline becomes IORING_OP_ASYNC_CANCEL, and a race settles only
 * when the loser's own completion is in: -125, ECANCELED.
 */
import {
  type Completion,
  defaultRing,
  IoUringUnavailableError,
  pipe,
  race,
  type Ring,
  scope,
  sleep,
  socketpair,
  timeout,
} from "../mod.ts";

const colours = Deno.stdout.isTerminal() && !Deno.noColor;
const bold = (text: string) => colours ? `\x1b[1m${text}\x1b[22m` : text;
const dim = (text: string) => colours ? `\x1b[2m${text}\x1b[22m` : text;

const ring = openRing();
const [left, right] = socketpair();
const { reader, writer } = pipe();
const buffer = () => new Uint8Array(64);
await sleep(1); // the first sleep loads code, which is not to be timed

await show("1. race: a read that never completes, against a kernel timer of 50 ms", () =>
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

await show(
  "2. timeout: 80 ms for a scope of three operations that take longer",
  () =>
    timeout(80, () =>
      scope(async (s) => {
        s.spawn(() => left.read(buffer())); // a socket
        s.spawn(() => reader.read(buffer())); // a pipe
        await sleep(10_000);
        return "the scope";
      })),
);

await show("3. { timeout }: a read with 30 ms of its own, linked to it in the kernel", async () => {
  await left.read(buffer(), { timeout: 30 });
  return "the read";
});

await show("4. The other way round: data that arrives after 20 ms, against a timer of 10 s", () =>
  scope((s) => {
    s.spawn(async () => {
      await sleep(20);
      await right.writeAll(new TextEncoder().encode("in time"));
    });
    return race([
      async () => {
        const bytes = buffer();
        const n = await left.read(bytes);
        return `the read: ${JSON.stringify(new TextDecoder().decode(bytes.subarray(0, n ?? 0)))}`;
      },
      async () => {
        await sleep(10_000);
        return "the timer";
      },
    ]);
  }));

for (const end of [left, right, reader, writer]) await end.close();
console.log(`All closed: ${requests(ring.inFlight)} in flight.`);

/** Runs one part, which gives the winner's name or throws a TimeoutError, and shows how it went. */
async function show(title: string, run: () => Promise<string>): Promise<void> {
  const completions: Completion[] = [];
  ring.onCompletion = (completion) => completions.push(completion);
  const started = performance.now();
  let winner: string;
  try {
    winner = await run();
  } catch (error) {
    if (!(error instanceof DOMException) || error.name !== "TimeoutError") throw error;
    winner = `the deadline: "${error.message}"`;
  }
  const elapsed = performance.now() - started;
  const { inFlight } = ring;
  ring.onCompletion = null;

  console.log(`${bold(title)}\n`);
  line("won by", `${bold(winner)}, after ${elapsed.toFixed(1)} ms`);
  completions.forEach((completion, i) => line(i === 0 ? "kernel" : "", describe(completion)));
  line("in flight", `${requests(inFlight)}\n`);
}

function line(label: string, text: string): void {
  console.log(`   ${dim(label.padEnd(11))}${text}`);
}

function describe({ of, operation, result }: Completion): string {
  const subject = of === "operation" ? operation : `${of} of ${operation}`;
  const [name, meaning] = explain(of, result);
  return `${subject.padEnd(16)}${String(result).padStart(5)}  ${name.padEnd(12)}${dim(meaning)}`.trimEnd();
}

/** The name of an errno, and what it says here. */
function explain(of: Completion["of"], result: number): [name: string, meaning: string] {
  switch (result) {
    case -125:
      return ["-ECANCELED", of === "operation" ? "lost, and has left the kernel" : "was not needed"];
    case -62:
      return ["-ETIME", of === "operation" ? "the timer ran out" : "LINK_TIMEOUT ran out, and cancelled it"];
    case -2:
      return ["-ENOENT", "it was done already"];
    case 0:
      return ["", of === "cancel" ? "ASYNC_CANCEL found it" : ""];
    default:
      return ["", result > 0 ? "bytes" : ""];
  }
}

function requests(count: number): string {
  return `${count} ${count === 1 ? "request" : "requests"}`;
}

/** The default ring; where there can be none, says why and ends. */
function openRing(): Ring {
  try {
    return defaultRing();
  } catch (error) {
    if (!(error instanceof IoUringUnavailableError)) throw error;
    console.error(error.message);
    Deno.exit(1);
  }
}
