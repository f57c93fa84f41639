#!/usr/bin/env -S deno run --allow-ffi --allow-write
/**
 * Copies standard input to standard output and to files, as tee does: `tee.ts [-a] FILE...`; `-a` appends. All are
 * written at once, while the next block is read. Run it with `deno run --allow-ffi --allow-write examples/tee.ts FILE`.
 */
import { all, type File, open, scope, shield, stdin, stdout } from "../mod.ts";

const BLOCK_BYTES = 64 << 10;

const append = Deno.args[0] === "-a";
const names = Deno.args.slice(append ? 1 : 0);
if (names.some((name) => name.startsWith("-"))) {
  console.error("usage: tee.ts [-a] FILE...");
  Deno.exit(2);
}

/** Where the bytes go; one that fails is dropped, and the others go on. */
const outputs = new Map<File, string>([[stdout, "standard output"]]);

function drop(output: File, error: unknown): void {
  const name = outputs.get(output);
  outputs.delete(output);
  console.error(`tee: ${name}: ${error instanceof Error ? error.message : error}`);
  Deno.exitCode = 1;
}

async function write(output: File, bytes: Uint8Array): Promise<void> {
  try {
    await output.writeAll(bytes);
  } catch (error) {
    drop(output, error);
  }
}

await scope(async (s) => {
  for (const name of names) {
    try {
      const file = await open(name, { write: true, create: true, append, truncate: !append });
      outputs.set(file, name);
      s.defer(() => file.close());
    } catch (error) {
      console.error(`tee: ${error instanceof Error ? error.message : error}`);
      Deno.exitCode = 1;
    }
  }
  let current = new Uint8Array(BLOCK_BYTES);
  let next = new Uint8Array(BLOCK_BYTES);
  for (let n = await stdin.read(current); n !== null && outputs.size > 0;) {
    const block = current.subarray(0, n);
    const writes = () => shield(() => all(Array.from(outputs.keys(), (output) => () => write(output, block))));
    [n] = await all([() => stdin.read(next), writes]);
    [current, next] = [next, current];
  }
});
