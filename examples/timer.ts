#!/usr/bin/env -S deno run --allow-ffi
/**
 * Parking and waking without any I/O: timers of the kernel that run beside each other, while the process sleeps.
 */
import { all, defaultRing, sleep } from "../mod.ts";

await sleep(0); // opens the ring, which is not to be timed
const started = performance.now();

await all([100, 25, 75, 50, 2.5].map((ms) => async () => {
  const began = performance.now();
  await sleep(ms);
  const late = performance.now() - began - ms;
  console.log(`slept ${String(ms).padStart(5)} ms, woke ${late.toFixed(2)} ms late`);
}));

console.log(`all together took ${(performance.now() - started).toFixed(1)} ms; in flight: ${defaultRing().inFlight}`);
