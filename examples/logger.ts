#!/usr/bin/env -S deno run --allow-ffi --allow-write
/**
 * A logger that many tasks share: what they log while a write is under way goes with the next one, all of it as one
 * scatter-gather write to the end of the file. `logger.ts FILE [TASKS [LINES]]` logs LINES lines (default 1000) from each
 * of TASKS tasks (default 100). Run it with `deno run --allow-ffi --allow-write examples/logger.ts FILE`.
 */
import { type File, open, scope, sleep } from "../mod.ts";

/** Appends lines to a file, each in one piece and each task's in their order. */
class Logger {
  readonly #file: File;
  readonly #encoder = new TextEncoder();
  #waiting: Uint8Array[] = [];
  #writing: Promise<void> | null = null;
  lines = 0;
  bytes = 0;
  writes = 0;

  constructor(file: File) {
    this.#file = file;
  }

  /** Settles when the line is in the file. */
  async log(line: string): Promise<void> {
    const bytes = this.#encoder.encode(line + "\n");
    this.lines++;
    this.bytes += bytes.length;
    this.#waiting.push(bytes);
    // The write under way goes without this line: it is in the next one.
    if (this.#writing !== null) await this.#writing;
    await (this.#writing ??= this.#write());
  }

  async #write(): Promise<void> {
    let batch: readonly Uint8Array[] = this.#waiting;
    this.#waiting = [];
    try {
      while (batch.length > 0) {
        this.writes++;
        batch = behind(batch, await this.#file.writev(batch));
      }
    } finally {
      this.#writing = null;
    }
  }
}

/** What is left of a batch when some of its bytes have been written. */
function behind(batch: readonly Uint8Array[], written: number): readonly Uint8Array[] {
  let i = 0;
  for (; i < batch.length && batch[i].length <= written; i++) written -= batch[i].length;
  return i === batch.length ? [] : [batch[i].subarray(written), ...batch.slice(i + 1)];
}

const [path, ...counts] = Deno.args;
const [tasks = 100, lines = 1000] = counts.map(Number);
if (path === undefined || !(Number.isInteger(tasks) && Number.isInteger(lines) && tasks >= 0 && lines >= 0)) {
  console.error("usage: logger.ts FILE [TASKS [LINES]]");
  Deno.exit(2);
}
await using file = await open(path, { append: true, create: true });
const logger = new Logger(file);
await scope((s) => {
  for (let task = 0; task < tasks; task++) {
    s.spawn(async () => {
      for (let line = 0; line < lines; line++) {
        await logger.log(`task ${task}, line ${line}`);
        if (line % 100 === 99) await sleep(task % 3); // they do other things too
      }
    });
  }
});
console.log(`${logger.lines} lines, ${logger.bytes} bytes, by ${logger.writes} writes`);
