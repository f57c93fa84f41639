#!/usr/bin/env -S deno run --allow-ffi --allow-read --allow-write
/**
 * Hundreds of reads in one submission: makes files, opens them all, and reads a block of each with one system call.
 * `concurrent_reads.ts [FILES]`, 300 unless told. Run it with
 * `deno run --allow-ffi --allow-read --allow-write examples/concurrent_reads.ts`.
 */
import { all, defaultRing, open, scope } from "../mod.ts";

const count = Number(Deno.args[0] ?? 300);
const BLOCK_BYTES = 4096;

await scope(async (s) => {
  const directory = Deno.makeTempDirSync();
  s.defer(() => Deno.removeSync(directory, { recursive: true }));
  const paths = Array.from({ length: count }, (_, i) => `${directory}/${i}`);
  for (const [i, path] of paths.entries()) Deno.writeFileSync(path, new Uint8Array(BLOCK_BYTES).fill(i));

  const ring = defaultRing();
  const files = await all(paths.map((path) => () => open(path)));
  s.defer(() => all(files.map((file) => () => file.close())));

  const block = (i: number) => blocks.subarray(i * BLOCK_BYTES, (i + 1) * BLOCK_BYTES);
  const blocks = new Uint8Array(count * BLOCK_BYTES);
  const before = ring.enters;
  const started = performance.now();
  const lengths = await all(files.map((file, i) => () => file.read(block(i))));
  const elapsed = performance.now() - started;

  const right = lengths.filter((n, i) => n === BLOCK_BYTES && block(i).every((byte) => byte === i % 256));
  console.log(`${right.length} of ${count} files read and right, in ${elapsed.toFixed(1)} ms`);
  console.log(`${ring.enters - before} system calls submitted all of them`);
});
console.log(`${defaultRing().inFlight} requests in flight`);
