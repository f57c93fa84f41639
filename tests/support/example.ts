/** Examples, run as a user would run them: each a process of its own, with the flags of its first line and no others. */
import { assert, assertEquals } from "@std/assert";

/** The folder. */
export const examples = new URL("../../examples/", import.meta.url).pathname;

/** How long an example may take before it counts as hung. */
const GUARD_MS = 60_000;

/** The flags in an example's first line. */
export function flagsOf(example: string): string[] {
  const [first] = Deno.readTextFileSync(examples + example).split("\n", 1);
  const match = /^#!\/usr\/bin\/env -S deno run((?: --\S+)+)$/.exec(first);
  assert(match !== null, `${example} begins with ${first}`);
  return match[1].trim().split(" ");
}

/** How to run an example. */
export interface RunOptions {
  args?: string[];
  flags?: string[];
  /** What a shell does with the example, whose command is `"$@"`. */
  shell?: string;
  env?: Record<string, string>;
}

/** The command that runs an example. */
export function commandOf(example: string, { args = [], flags = flagsOf(example) }: RunOptions = {}): string[] {
  return [Deno.execPath(), "run", "--no-prompt", ...flags, examples + example, ...args];
}

/** Starts an example; its process is killed when it hangs. */
export function start(example: string, stdin: "null" | "piped", options: RunOptions = {}): Deno.ChildProcess {
  const { shell = 'exec "$@"', env } = options;
  const child = new Deno.Command("sh", {
    args: ["-c", shell, "sh", ...commandOf(example, options)],
    env: { NO_COLOR: "1", ...env },
    stdin,
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const guard = setTimeout(() => child.kill("SIGKILL"), GUARD_MS);
  child.status.then(() => clearTimeout(guard));
  return child;
}

/** What became of an example. */
export interface Outcome {
  code: number;
  bytes: Uint8Array;
  out: string;
  err: string;
}

/** Runs an example to its end. */
export async function run(example: string, options?: RunOptions): Promise<Outcome> {
  const { code, stdout, stderr } = await start(example, "null", options).output();
  return { code, bytes: stdout, out: text(stdout), err: text(stderr) };
}

/** UTF-8. */
export function text(bytes: Uint8Array): string {
  return new TextDecoder().decode(bytes);
}

/** Reads on until the text has come; returns all that was read. */
export async function readUntil(reader: ReadableStreamDefaultReader<Uint8Array>, expected: string): Promise<string> {
  let read = "";
  while (!read.includes(expected)) {
    const { done, value } = await reader.read();
    assert(!done, `It ended without ${JSON.stringify(expected)} after ${JSON.stringify(read)}`);
    read += text(value);
  }
  return read;
}

/** A directory that is gone again when the test is. */
export function scratch(): { path(name: string): string; [Symbol.dispose](): void } {
  const directory = Deno.makeTempDirSync();
  return {
    path: (name) => `${directory}/${name}`,
    [Symbol.dispose]: () => Deno.removeSync(directory, { recursive: true }),
  };
}

/** Bytes without a period that a block size could hide in. */
export function noise(length: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(Math.ceil(length / 4));
  for (let i = 0, x = 2463534242; i < words.length; i++) {
    x ^= x << 13;
    x ^= x >>> 17;
    words[i] = x ^= x << 5;
  }
  return new Uint8Array(words.buffer, 0, length);
}

/** `assertEquals` for millions of bytes. */
export function assertSameBytes(actual: Uint8Array, expected: Uint8Array): void {
  assertEquals(actual.length, expected.length);
  const different = actual.findIndex((byte, i) => byte !== expected[i]);
  assertEquals(different, -1, `The bytes differ from byte ${different} on`);
}

/** One after another. */
export function joined(...parts: Uint8Array[]): Uint8Array {
  return new Uint8Array(parts.flatMap((part) => [...part]));
}
