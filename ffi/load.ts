/**
 * Finds the helper and loads it, once per thread: a library named by `RINGSCOPE_LIBRARY`, else the checkout's build,
 * else the one the package carries, by way of a memfd. `--allow-ffi` alone is enough for all three.
 *
 * @module
 */
import { ABI_VERSION, symbols } from "./abi.ts";
import { base64 as aarch64 } from "./embedded_aarch64.ts";
import { base64 as x86_64 } from "./embedded_x86_64.ts";

/** The helper's functions. */
export type Native = Deno.DynamicLibrary<typeof symbols>["symbols"];

const embedded: Record<string, string> = { x86_64, aarch64 };

let loaded: Native | null = null;

/** The helper's functions, loaded on first use. Throws what stood in the way. */
export function native(): Native {
  return loaded ??= load();
}

/** The value of an environment variable; `undefined` too where the program may not read it, without a prompt. */
export function environment(variable: string): string | undefined {
  const { state } = Deno.permissions.querySync({ name: "env", variable });
  return state === "granted" ? Deno.env.get(variable) : undefined;
}

function load(): Native {
  const named = environment("RINGSCOPE_LIBRARY");
  if (named) return openLibrary(named);
  const built = new URL(`../native/build/libringscope-${Deno.build.arch}.so`, import.meta.url);
  if (built.protocol === "file:") {
    try {
      return openLibrary(built);
    } catch (error) {
      if (error instanceof Deno.errors.NotCapable) throw error;
      // Not built, or built from other sources: the embedded one fits for certain.
    }
  }
  return openEmbedded();
}

/**
 * Takes the library's functions and closes it at once. It is linked with `-z nodelete`, so its code stays mapped for
 * good, and the runtime counts no open resource (which the resource sanitizer of a user's test would report).
 */
function openLibrary(path: string | URL): Native {
  let library: Deno.DynamicLibrary<typeof symbols>;
  try {
    library = Deno.dlopen(path, symbols);
  } catch (error) {
    if (error instanceof Deno.errors.NotCapable) throw error;
    throw new Error(`Could not load the ringscope helper from ${path}`, { cause: error });
  }
  const functions = library.symbols;
  library.close();
  const version = functions.rs_abi();
  if (version === ABI_VERSION) return functions;
  throw new Error(
    `The ringscope helper at ${path} has ABI ${version}, not ${ABI_VERSION}: build it with "make native"`,
  );
}

/** Opens the embedded helper from an anonymous file in memory, which is gone again when this returns. */
function openEmbedded(): Native {
  const encoded = embedded[Deno.build.arch];
  if (!encoded) throw new Error(`ringscope carries no helper for the CPU ${Deno.build.arch}`);
  const image = Uint8Array.from(atob(encoded), (character) => character.charCodeAt(0));
  const libc = Deno.dlopen("libc.so.6", {
    memfd_create: { parameters: ["buffer", "u32"], result: "i32" },
    write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
    close: { parameters: ["i32"], result: "i32" },
  });
  try {
    const MFD_CLOEXEC = 1;
    const fd = libc.symbols.memfd_create(new TextEncoder().encode("ringscope\0"), MFD_CLOEXEC);
    if (fd < 0) throw new Error("Could not create a memfd for the ringscope helper");
    try {
      const written = Number(libc.symbols.write(fd, image, BigInt(image.byteLength)));
      if (written !== image.byteLength) throw new Error("Could not write the ringscope helper to its memfd");
      return openLibrary(`/proc/self/fd/${fd}`);
    } finally {
      libc.symbols.close(fd);
    }
  } finally {
    libc.close();
  }
}
