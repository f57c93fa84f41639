#!/usr/bin/env -S deno run --allow-ffi --allow-net
/**
 * Keeps a web server busy over many connections at once, and tells how long its answers took:
 * `http_stress_client.ts [--connections N] [--seconds S | --requests N] URL`. Without numbers it uses 64 connections
 * for 5 seconds; Ctrl-C ends it early, with the report. Run it with
 * `deno run --allow-ffi --allow-net examples/http_stress_client.ts --seconds 3 http://127.0.0.1:8080/`.
 */
import { type Conn, connect, defaultRing, scope, sleep } from "../mod.ts";
import { exchange, type Target, targetOf } from "./http/client.ts";
import { ResponseParser } from "./http/parser.ts";

/** How long an answer may take before it counts as an error. */
const PATIENCE_MS = 10_000;
/** How long a connection that failed waits before the next one. */
const PAUSE_MS = 20;

/** Durations, counted in classes that are 1 % wide: any number of them takes the same memory. */
class Histogram {
  readonly #counts = new Uint32Array(2048);
  #total = 0;
  #sum = 0;
  #longest = 0;

  add(ms: number): void {
    this.#counts[Math.max(0, Math.ceil(Math.log(ms * 1000) / Math.log(1.01)))]++;
    this.#total++;
    this.#sum += ms;
    if (ms > this.#longest) this.#longest = ms;
  }

  get total(): number {
    return this.#total;
  }

  get mean(): number {
    return this.#sum / this.#total;
  }

  get longest(): number {
    return this.#longest;
  }

  /** A duration that this share of them does not exceed. */
  percentile(percent: number): number {
    let left = this.#total * percent / 100;
    const at = this.#counts.findIndex((count) => (left -= count) <= 0);
    return Math.min(1.01 ** at / 1000, this.#longest);
  }
}

const usage = "usage: http_stress_client.ts [--connections N] [--seconds S | --requests N] URL";

function misused(message = usage): never {
  console.error(message);
  Deno.exit(2);
}

function targetOrUsage(url: string): Target {
  try {
    return targetOf(url);
  } catch (error) {
    misused(`http_stress_client: ${(error as Error).message}`);
  }
}

const numbers = new Map<string, number>();
const urls: string[] = [];
const args = [...Deno.args];
for (let arg = args.shift(); arg !== undefined; arg = args.shift()) {
  if (["--connections", "--seconds", "--requests"].includes(arg)) numbers.set(arg, Number(args.shift() ?? NaN));
  else urls.push(arg);
}
const connections = numbers.get("--connections") ?? 64;
const requests = numbers.get("--requests") ?? Infinity;
const seconds = numbers.get("--seconds") ?? (requests === Infinity ? 5 : Infinity);
if (urls.length !== 1 || urls[0].startsWith("-") || numbers.has("--seconds") && numbers.has("--requests")) misused();
if (!Number.isInteger(connections) || !(connections > 0 && requests > 0 && seconds > 0)) misused();

const target = targetOrUsage(urls[0]);
const request = target.get();
const durations = new Histogram();
const statuses = new Map<string, number>();
const errors = new Map<string, number>();
let asked = 0;
let connected = 0;
let bytes = 0;

function count(counts: Map<string, number>, what: string): void {
  counts.set(what, (counts.get(what) ?? 0) + 1);
}

/** Whether another request may be made, which is counted then. */
function mayAsk(): boolean {
  return asked < requests && ++asked > 0;
}

/** The end of the time, or Ctrl-C. */
const over = new Error("Over");

/** Keeps one connection busy, and makes a new one when it has ended. */
async function keepAsking(): Promise<void> {
  while (mayAsk()) {
    try {
      await using conn = await connect({ ...target, timeout: PATIENCE_MS });
      connected++;
      await ask(conn);
    } catch (error) {
      if (error === over || error instanceof Deno.errors.NotCapable) throw error;
      count(errors, error instanceof Error ? error.message : String(error));
      await sleep(PAUSE_MS);
    }
  }
}

async function ask(conn: Conn): Promise<void> {
  const response = new ResponseParser();
  const receiver = { data: (data: Uint8Array) => void (bytes += data.length) };
  do {
    const since = performance.now();
    const status = await exchange(conn, response, request, receiver, { timeout: PATIENCE_MS });
    durations.add(performance.now() - since);
    count(statuses, String(status));
  } while (response.keepAlive && mayAsk());
}

const since = performance.now();
try {
  await scope((s) => {
    const interrupt = () => s.cancel(over);
    Deno.addSignalListener("SIGINT", interrupt);
    s.defer(() => Deno.removeSignalListener("SIGINT", interrupt));
    const end = seconds < Infinity ? `${seconds} s` : `${requests} requests`;
    console.log(`${urls[0]}: ${connections} connections for ${end}; Ctrl-C ends`);
    for (let i = 0; i < connections; i++) s.spawn(keepAsking);
    if (seconds === Infinity) return;
    s.spawn(async () => {
      await sleep(seconds * 1000);
      s.cancel(over);
    }, { background: true });
  });
} catch (error) {
  if (error !== over) throw error;
}
const elapsed = (performance.now() - since) / 1000;

const { total } = durations;
console.log(`${total} responses in ${elapsed.toFixed(2)} s, ${connected} connections made`);
console.log(`${Math.round(total / elapsed)} responses and ${Math.round(bytes / elapsed)} bytes of bodies per second`);
for (const [status, times] of [...statuses].sort()) console.log(`status ${status}: ${times}`);
if (total > 0) {
  const ms = (duration: number) => `${duration.toFixed(3)} ms`;
  const shares = [50, 90, 99, 99.9].map((percent) => `${percent} %: ${ms(durations.percentile(percent))}`);
  console.log(`latency: ${shares.join(", ")}, longest: ${ms(durations.longest)}, mean: ${ms(durations.mean)}`);
}
console.log(`${[...errors.values()].reduce((sum, times) => sum + times, 0)} errors`);
for (const [message, times] of errors) console.log(`  ${times} times: ${message}`);
console.log(`${defaultRing().inFlight} requests in flight`);
if (total === 0) Deno.exitCode = 1;
