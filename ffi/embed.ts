/**
 * Puts the built helpers into the modules that the package carries, or checks that they are what the sources say.
 * Run by `make embed` and `make check`; not part of the package.
 *
 *     embed.ts write|check FLAGS [CPU COMPILER]...
 *
 * FLAGS are the compile flags; for each CPU whose compiler is installed, COMPILER is the version it reports.
 *
 * @module
 */

const cpus = ["x86_64", "aarch64"];

interface Embedded {
  sourceSha256: string;
  sha256: string;
  compiler: string;
  base64: string;
}

const [mode, flags, ...built] = Deno.args;
const compilers = new Map<string, string>();
for (let i = 0; i < built.length; i += 2) compilers.set(built[i], `${built[i + 1]}: ${flags}`);
const sourceSha256 = await hashSources();

if (mode === "write") {
  for (const [cpu, compiler] of compilers) await write(cpu, compiler);
} else if (mode === "check") {
  const problems = (await Promise.all(cpus.map(check))).filter((problem) => problem !== null);
  for (const problem of problems) console.error(problem);
  if (problems.length > 0) Deno.exit(1);
} else {
  throw new TypeError(`Expected "write" or "check", got ${mode}`);
}

function modulePath(cpu: string): string {
  return `ffi/embedded_${cpu}.ts`;
}

function libraryPath(cpu: string): string {
  return `native/build/libringscope-${cpu}.so`;
}

/** What decides the binary apart from the compiler: the flags, and every source's name and contents. */
async function hashSources(): Promise<string> {
  const entries = [...Deno.readDirSync("native")].map((entry) => entry.name);
  const names = entries.filter((name) => /\.[ch]$/.test(name)).sort();
  const parts = [flags, ...names.flatMap((name) => [name, Deno.readTextFileSync(`native/${name}`)])];
  // Encoded as a list, so that no two sets of sources can read the same.
  return await sha256(new TextEncoder().encode(JSON.stringify(parts)));
}

async function sha256(bytes: Uint8Array<ArrayBuffer>): Promise<string> {
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

async function write(cpu: string, compiler: string): Promise<void> {
  const image = Deno.readFileSync(libraryPath(cpu));
  const base64 = btoa(String.fromCharCode(...image)).replace(/.{1,100}/g, "$&\n");
  const module = `/**
 * The native helper for ${cpu}, made by \`make embed\` from native/: do not edit.
 *
 * @module
 */

/** SHA-256 of the sources and compile flags, which \`make check\` compares with those in the checkout. */
export const sourceSha256: string = "${sourceSha256}";

/** SHA-256 of the binary. */
export const sha256: string = "${await sha256(image)}";

/** What compiled it, and how. */
export const compiler: string = ${JSON.stringify(compiler)};

/** The binary, ${image.byteLength} bytes. \`atob\` skips the line breaks. */
export const base64: string = \`
${base64}\`;
`;
  Deno.writeTextFileSync(modulePath(cpu), module);
  console.log(`${modulePath(cpu)}: ${image.byteLength} bytes`);
}

/** Says what is wrong with the module for a CPU, or null. */
async function check(cpu: string): Promise<string | null> {
  const path = modulePath(cpu);
  const embedded: Embedded = await import(new URL(`../${path}`, import.meta.url).href);
  if (embedded.sourceSha256 !== sourceSha256) {
    const remedy = compilers.has(cpu) ? "run `make embed`" : `install a compiler for ${cpu} and run \`make embed\``;
    return `${path} was not made from native/ and the flags as they stand: ${remedy}`;
  }
  const image = Uint8Array.from(atob(embedded.base64), (character) => character.charCodeAt(0));
  if (await sha256(image) !== embedded.sha256) return `${path} is damaged: its binary does not have its SHA-256`;
  // The same compiler must give the same bytes: a binary in a repository is believed only where it can be rebuilt.
  if (compilers.get(cpu) !== embedded.compiler) {
    console.log(`${path}: fresh; not compared byte for byte, since it was built by ${embedded.compiler.split(":")[0]}`);
    return null;
  }
  if (await sha256(Deno.readFileSync(libraryPath(cpu))) === embedded.sha256) {
    console.log(`${path}: fresh, and the same bytes as ${libraryPath(cpu)}`);
    return null;
  }
  return `${path} differs from ${libraryPath(cpu)}, which the same compiler built from the same sources`;
}
