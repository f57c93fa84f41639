#!/usr/bin/env -S deno run --allow-ffi --allow-read
/**
 * Copies a file to standard output by chains: each block is a read linked to a write, which the kernel runs one after
 * the other without coming back in between: `linked_cat.ts FILE`.
 * Run it with `deno run --allow-ffi --allow-read examples/linked_cat.ts FILE`.
 */
import { chain, ChainError, type File, open, stdout } from "../mod.ts";

const BLOCK_BYTES = 64 << 10;

/** Copies one block; returns its bytes, 0 at the end. */
async function copyBlock(from: File, block: Uint8Array): Promise<number> {
  try {
    const [n, written] = await chain().read(from, block).write(stdout, block);
    if (written < block.byteLength) await stdout.writeAll(block.subarray(written));
    return n ?? 0;
  } catch (error) {
    // The last block is not full: the short read has ended its chain, and what it has read is written by itself.
    if (!(error instanceof ChainError) || error.cause !== undefined) throw error;
    const [read] = error.links;
    const n = read.status === "fulfilled" ? read.value as number | null : null;
    if (n !== null) await stdout.writeAll(block.subarray(0, n));
    return n ?? 0;
  }
}

const [name] = Deno.args;
if (name === undefined) {
  console.error("usage: linked_cat.ts FILE");
  Deno.exit(2);
}
try {
  await using file = await open(name);
  const block = new Uint8Array(BLOCK_BYTES);
  while (await copyBlock(file, block) > 0);
} catch (error) {
  const cause = error instanceof ChainError ? error.cause : error;
  if (!(cause instanceof Deno.errors.BrokenPipe)) { // whoever reads has seen enough
    console.error(`linked_cat: ${cause instanceof Error ? cause.message : cause}`);
    Deno.exitCode = 1;
  }
}
