/**
 * The side of a peer, in Deno, Node.js and Bun alike: talks with the suite over standard input and output.
 *
 * @module
 */
import process from "node:process";
import { createInterface } from "node:readline";

/** See `suite/workload.ts`. */
export interface Sample {
  operations: number;
  seconds: number;
  latency?: { p50: number; p99: number; p999: number };
  value?: number;
}

/**
 * Serves the suite: prints "ready"; for each line "sample SECONDS" it measures and prints one line of JSON. Exits when
 * standard input ends.
 */
export async function serveSamples(measure: (seconds: number) => Promise<Sample>): Promise<never> {
  console.log("ready");
  for await (const line of createInterface({ input: process.stdin })) {
    const [word, seconds] = line.split(" ");
    if (word !== "sample") throw new Error(`Expected "sample SECONDS", got ${JSON.stringify(line)}`);
    console.log(JSON.stringify(await measure(Number(seconds))));
  }
  process.exit(0);
}

/** A server tells the suite its port, and exits when standard input ends: the suite is done, or gone. */
export function servePort(port: number): void {
  console.log(port);
  process.stdin.on("end", () => process.exit(0)).resume();
}

/** Repeats `operation`, which says how many operations it did, for about so many seconds; looks at the clock each time. */
export async function repeatFor(seconds: number, operation: () => Promise<number>): Promise<Sample> {
  const started = performance.now();
  let operations = 0;
  let elapsed = 0;
  do {
    operations += await operation();
    elapsed = performance.now() - started;
  } while (elapsed < seconds * 1000);
  return { operations, seconds: elapsed / 1000 };
}

/** The percentiles of latencies in microseconds. */
export function latencyOf(micros: number[]): { p50: number; p99: number; p999: number } {
  const sorted = Float64Array.from(micros).sort();
  const at = (fraction: number) => sorted[Math.min(sorted.length - 1, Math.floor(fraction * sorted.length))];
  return { p50: at(0.5), p99: at(0.99), p999: at(0.999) };
}
