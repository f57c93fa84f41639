/** Programs of their own: for what ends a process, keeps it alive, or needs flags. */
import { within } from "./until.ts";

/** The library, as a program imports it. */
export const library = new URL("../../mod.ts", import.meta.url).href;

/** What became of a program. */
export interface Ended {
  code: number;
  out: string;
  err: string;
}

/** How to run a program. */
export interface ProgramOptions {
  /** Flags of `deno run`. Default: `-A`. */
  flags?: string[];
  env?: Record<string, string>;
  args?: string[];
}

/** Runs a TypeScript source, in which `LIBRARY` stands for the library, or a file (a URL), to its end. */
export async function program(source: string | URL, options: ProgramOptions = {}): Promise<Ended> {
  const { flags = ["-A"], env = {}, args = [] } = options;
  const specifier = source instanceof URL
    ? source.href
    : `data:application/typescript,${encodeURIComponent(source.replaceAll("LIBRARY", JSON.stringify(library)))}`;
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-config", "--no-check", ...flags, specifier, ...args],
    env: { NO_COLOR: "1", ...env },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const output = child.output();
  try {
    const { code, stdout, stderr } = await within("the program", output);
    const decoder = new TextDecoder();
    return { code, out: decoder.decode(stdout), err: decoder.decode(stderr) };
  } catch (error) {
    child.kill("SIGKILL");
    await output;
    throw error;
  }
}
