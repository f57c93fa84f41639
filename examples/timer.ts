#!/usr/bin/env -S deno run --allow-ffi
/**
 * Parking and waking without any I/O: kernel timers run beside each other while the process sleeps, and when the last
 * one has fired nothing holds the process any more. Run it with `deno run --allow-ffi examples/timer.ts`.
 */
import process from "node:process";
import { all, defaultRing, sleep } from "../mod.ts";

const DURATIONS_MS = [400, 100, 300, 2.5, 200];

await sleep(1); // the first sleep loads code, which is not to be timed
const cpuBefore = process.cpuUsage();
const started = performance.now();

await all(DURATIONS_MS.map((ms) => async () => {
  await sleep(ms);
  const late = performance.now() - started - ms;
  console.log(`slept ${ms.toFixed(1).padStart(6)} ms, woke ${late.toFixed(2)} ms late`);
}));

const elapsed = performance.now() - started;
const { user, system } = process.cpuUsage(cpuBefore); // microseconds; Deno before 2.2 can't tell, and says 0
const cpu = user + system === 0 ? "unknown" : `${((user + system) / 1000).toFixed(1)} ms`;
const slept = DURATIONS_MS.reduce((sum, ms) => sum + ms);
console.log(`${slept} ms of sleep took ${elapsed.toFixed(1)} ms; CPU time: ${cpu}`);
console.log(`${defaultRing().inFlight} requests in flight: the process ends by itself`);
