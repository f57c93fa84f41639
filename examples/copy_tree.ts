#!/usr/bin/env -S deno run --allow-ffi --allow-read --allow-write
/**
 * Copies a directory with all that is in it: `copy_tree.ts FROM TO`. Some files at a time, with a progress bar on a
 * terminal. Each file is copied under another name first, so that Ctrl-C (which cancels the scope, and with it what is in
 * the kernel) leaves no half files. Run it with `deno run --allow-ffi --allow-read --allow-write examples/copy_tree.ts
 * FROM TO`.
 */
import { copyFile, lstat, map, mkdir, readDir, remove, rename, scope, shield, stdout, symlink } from "../mod.ts";

const FILES_AT_ONCE = 32;

interface Entry {
  from: string;
  to: string;
  info: Deno.FileInfo;
}

/** All entries of a tree, each directory before what is in it. */
async function* walk(from: string, to: string): AsyncGenerator<Entry> {
  const info = await lstat(from);
  yield { from, to, info };
  if (!info.isDirectory) return;
  for await (const { name } of readDir(from)) yield* walk(`${from}/${name}`, `${to}/${name}`);
}

let parts = 0;

/** Copies what is no directory; `false` if it can't be copied. */
async function copyEntry({ from, to, info }: Entry): Promise<boolean> {
  if (!info.isFile && !info.isSymlink) return false;
  // Not the name and more: that may be as long as names can be.
  const part = `${to.slice(0, to.lastIndexOf("/"))}/.part${Deno.pid}-${parts++}`;
  try {
    if (info.isFile) await copyFile(from, part);
    else await symlink(Deno.readLinkSync(from), part);
    await rename(part, to);
  } catch (error) {
    await shield(() => remove(part)).catch(() => {}); // mostly it is not there yet
    throw error;
  }
  return true;
}

class Progress {
  files = 0;
  bytes = 0;
  #shown = "";

  constructor(readonly allFiles: number, readonly allBytes: number) {}

  /** Draws the bar anew, where that is a terminal and something has changed. */
  async show(): Promise<void> {
    if (!stdout.isTerminal()) return;
    const part = this.allBytes === 0 ? 1 : this.bytes / this.allBytes;
    const bar = "#".repeat(Math.floor(part * 40)).padEnd(40, ".");
    const shown = `\r[${bar}] ${this.files} of ${this.allFiles} files, ${Math.floor(part * 100)} %`;
    if (shown === this.#shown) return;
    this.#shown = shown;
    await stdout.writeAll(new TextEncoder().encode(shown));
  }
}

const [from, to, ...more] = Deno.args.map((path) => path.replace(/(?<=.)\/+$/, ""));
if (to === undefined || more.length > 0) {
  console.error("usage: copy_tree.ts FROM TO");
  Deno.exit(2);
}

const interrupted = new Error("Interrupted");
let progress = new Progress(0, 0);
try {
  const home = Deno.realPathSync(from);
  if (!(await lstat(home)).isDirectory) throw new Error(`${from} is no directory`);
  await mkdir(to, { recursive: true });
  // A tree in itself would never end.
  if (`${Deno.realPathSync(to)}/`.startsWith(`${home}/`)) throw new Error(`${to} is in ${from}`);

  await scope(async (s) => {
    const interrupt = () => s.cancel(interrupted);
    Deno.addSignalListener("SIGINT", interrupt);
    s.defer(() => Deno.removeSignalListener("SIGINT", interrupt));

    const entries = await Array.fromAsync(walk(home, to));
    const others = entries.filter(({ info }) => !info.isDirectory);
    progress = new Progress(others.length, others.reduce((sum, { info }) => sum + info.size, 0));
    for (const { to, info } of entries) {
      if (info.isDirectory) await mkdir(to, { recursive: true, mode: info.mode! & 0o7777 | 0o700 });
    }
    const copy = async (entry: Entry) => {
      if (await copyEntry(entry)) progress.files++; // at once: Ctrl-C may come before `map` gives it out
      else console.error(`copy_tree: ${entry.from} is left out: it is no file, directory or link`);
      progress.bytes += entry.info.size;
    };
    for await (const _ of map(others, copy, { concurrency: FILES_AT_ONCE })) await progress.show();
  });
  if (stdout.isTerminal()) console.log();
  console.log(`Copied ${progress.files} files, ${progress.bytes} bytes`);
} catch (error) {
  if (stdout.isTerminal()) console.log();
  if (error === interrupted) {
    console.log(`Ctrl-C: ${progress.files} of ${progress.allFiles} files were copied, none of them by half`);
    Deno.exitCode = 130;
  } else {
    // Several files at once may fail, as on a full disk.
    for (const each of error instanceof AggregateError ? error.errors : [error]) {
      console.error(`copy_tree: ${each instanceof Error ? each.message : each}`);
    }
    Deno.exitCode = 1;
  }
}
