#!/usr/bin/env -S deno run --allow-ffi --allow-read
/**
 * Copies files to standard output, byte for byte, as cat does: `cat.ts [FILE...]`, where `-` is standard input.
 * Run it with `deno run --allow-ffi --allow-read examples/cat.ts FILE...`.
 */
import { all, type File, open, shield, stdin, stdout } from "../mod.ts";

const BLOCK_BYTES = 256 << 10;

/** Reads the next block while the last one is written. */
async function copy(from: File): Promise<void> {
  let current = new Uint8Array(BLOCK_BYTES);
  let next = new Uint8Array(BLOCK_BYTES);
  for (let n = await from.read(current); n !== null;) {
    const filled = current.subarray(0, n);
    // A write that fails cancels the read, for nobody wants its bytes. A read that fails lets the write finish.
    [n] = await all([() => from.read(next), () => shield(() => stdout.writeAll(filled))]);
    [current, next] = [next, current];
  }
}

for (const name of Deno.args.length > 0 ? Deno.args : ["-"]) {
  try {
    if (name === "-") {
      await copy(stdin);
    } else {
      await using file = await open(name);
      await copy(file);
    }
  } catch (error) {
    if (error instanceof Deno.errors.BrokenPipe) break; // whoever reads has seen enough
    console.error(`cat: ${error instanceof Error ? error.message : error}`);
    Deno.exitCode = 1;
  }
}
