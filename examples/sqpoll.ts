#!/usr/bin/env -S deno run --allow-ffi --allow-read
/**
 * A kernel thread polls the submission queue (SQPOLL), so that a busy ring needs no system call to submit. Compares two
 * rings that do the same: reads, then an idle time in which the kernel's thread falls asleep, then reads again. Run it
 * with `deno run --allow-ffi --allow-read examples/sqpoll.ts`.
 */
import { open, Ring, sleep } from "../mod.ts";

const READS = 20_000;
const AT_ONCE = 32;
const IDLE_MS = 20;

/** Reads blocks of a file, some at a time. */
async function read(ring: Ring): Promise<void> {
  await using file = await open(Deno.execPath(), { ring });
  await Promise.all(Array.from({ length: AT_ONCE }, async () => {
    const block = new Uint8Array(4096);
    for (let i = 0; i < READS / AT_ONCE; i++) await file.readAt(block, 4096 * (i % 256));
  }));
}

for (const sqpoll of [false, true]) {
  await using ring = Ring.open({ sqpoll, sqpollIdleMs: IDLE_MS / 4 });
  console.log(sqpoll ? "With SQPOLL" : "Without SQPOLL");
  for (const when of ["at first", "after an idle time"]) {
    const before = ring.enters;
    await read(ring);
    console.log(`   ${READS} reads ${when}: ${ring.enters - before} system calls to submit`);
    await sleep(IDLE_MS);
  }
}
