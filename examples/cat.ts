#!/usr/bin/env -S deno run --allow-ffi --allow-read
/**
 * Copies files to standard output, byte for byte, as cat does: `cat.ts [FILE...]`, where `-` is standard input.
 */
import { type File, open, stderr, stdin, stdout } from "../mod.ts";

const BLOCK_BYTES = 256 << 10;

/** Reads the next block while the last one is written. */
async function copy(from: File): Promise<void> {
  let [current, next] = [new Uint8Array(BLOCK_BYTES), new Uint8Array(BLOCK_BYTES)];
  let n = await from.read(current);
  while (n !== null) {
    const [, following] = await Promise.all([stdout.writeAll(current.subarray(0, n)), from.read(next)]);
    [current, next] = [next, current];
    n = following;
  }
}

async function complain(name: string, error: unknown): Promise<void> {
  const message = error instanceof Error ? error.message : String(error);
  await stderr.writeAll(new TextEncoder().encode(`cat: ${name}: ${message}\n`));
}

let status = 0;
for (const name of Deno.args.length > 0 ? Deno.args : ["-"]) {
  try {
    if (name === "-") {
      await copy(stdin);
    } else {
      await using file = await open(name);
      await copy(file);
    }
  } catch (error) {
    if (error instanceof Deno.errors.BrokenPipe) Deno.exit(0); // whoever reads has seen enough
    await complain(name, error);
    status = 1;
  }
}
Deno.exit(status);
