import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { isDeno2 } from "./support/runtime.ts";

const root = new URL("../", import.meta.url).pathname;

/** Runs the source as a program of its own, importing the library from `from`. */
async function run(
  source: string,
  { from = root, flags = ["--allow-ffi"], env = {} }: { from?: string; flags?: string[]; env?: Record<string, string> },
): Promise<{ code: number; out: string; err: string }> {
  const program = source.replaceAll("LIBRARY", JSON.stringify(`file://${from}mod.ts`));
  const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
    args: ["run", "--no-prompt", "--no-config", ...flags, `data:application/javascript,${encodeURIComponent(program)}`],
    env: { NO_COLOR: "1", ...env },
  }).output();
  return { code, out: new TextDecoder().decode(stdout), err: new TextDecoder().decode(stderr) };
}

/** A copy of what the package carries: no built helper beside it. */
function packaged(): { path: string; [Symbol.dispose](): void } {
  const path = Deno.makeTempDirSync() + "/";
  Deno.copyFileSync(`${root}mod.ts`, `${path}mod.ts`);
  for (const folder of ["ffi", "ring", "scope", "io"]) {
    Deno.mkdirSync(path + folder);
    for (const { name } of Deno.readDirSync(root + folder)) {
      Deno.copyFileSync(`${root}${folder}/${name}`, `${path}${folder}/${name}`);
    }
  }
  return { path, [Symbol.dispose]: () => Deno.removeSync(path, { recursive: true }) };
}

/** Sleeps on a ring, then tells which helper is mapped. */
const WHICH_HELPER = `
  const { sleep } = await import(LIBRARY);
  await sleep(1);
  const { readTextFileSync } = Deno;
  try {
    console.log(/^.*(libringscope|memfd:ringscope).*$/m.exec(readTextFileSync("/proc/self/maps"))[0]);
  } catch {
    console.log("slept");
  }`;

Deno.test("the checkout's helper is loaded with --allow-ffi alone", async () => {
  assertEquals(await run(WHICH_HELPER, {}), { code: 0, out: "slept\n", err: "" });
  const { out } = await run(WHICH_HELPER, { flags: ["-A"] });
  assertStringIncludes(out, `${root}native/build/libringscope-${Deno.build.arch}.so`);
});

Deno.test("without a checkout the embedded helper is loaded with --allow-ffi alone, and leaves no file", async () => {
  using copy = packaged();
  assertEquals(await run(WHICH_HELPER, { from: copy.path }), { code: 0, out: "slept\n", err: "" });
  const { out } = await run(WHICH_HELPER, { from: copy.path, flags: ["-A"] });
  assertMatch(out, /memfd:ringscope \(deleted\)/);
});

Deno.test("RINGSCOPE_LIBRARY names another helper, where the environment may be read", async () => {
  using copy = packaged();
  const other = `${copy.path}libringscope-other.so`;
  Deno.copyFileSync(`${root}native/build/libringscope-${Deno.build.arch}.so`, other);
  const env = { RINGSCOPE_LIBRARY: other };
  const { out } = await run(WHICH_HELPER, { from: copy.path, flags: ["-A"], env });
  assertStringIncludes(out, other);
  const missing = await run(WHICH_HELPER, { flags: ["-A"], env: { RINGSCOPE_LIBRARY: "/nonexistent.so" } });
  assertEquals(missing.code, 1);
  assertStringIncludes(missing.err, "Could not load the ringscope helper from /nonexistent.so");
  const silent = await run(WHICH_HELPER, { env: { RINGSCOPE_LIBRARY: "/nonexistent.so" } });
  assertEquals(silent, { code: 0, out: "slept\n", err: "" });
});

Deno.test("a file that is no helper beside the checkout does not stand in the way", async () => {
  using copy = packaged();
  Deno.mkdirSync(`${copy.path}native/build`, { recursive: true });
  Deno.writeTextFileSync(`${copy.path}native/build/libringscope-${Deno.build.arch}.so`, "no library");
  assertEquals((await run(WHICH_HELPER, { from: copy.path })).out, "slept\n");
});

Deno.test("importing needs no permission and does nothing; the first use asks for FFI", async () => {
  const { code, out } = await run(
    `
    const { sleep, timeout } = await import(LIBRARY);
    console.log("imported");
    for (const use of [() => sleep(1), () => timeout(5, () => {})]) {
      await use().catch((error) => console.log(error.name));
    }`,
    { flags: [] },
  );
  assertEquals([code, out], [0, "imported\nNotCapable\nNotCapable\n"]);
});

Deno.test("RINGSCOPE_DISABLE switches the attempt off, with an error that says so", async () => {
  const source = `
    const { sleep, IoUringUnavailableError } = await import(LIBRARY);
    await sleep(1).then(() => console.log("slept"), (error) => {
      console.log(error instanceof IoUringUnavailableError, error.code, error.message);
    });`;
  const flags = ["--allow-ffi", "--allow-env"];
  const { out } = await run(source, { flags, env: { RINGSCOPE_DISABLE: "1" } });
  assertMatch(out, /^true DISABLED .*RINGSCOPE_DISABLE=1.*Unset it/);
  for (const off of ["", "0"]) {
    assertEquals((await run(source, { flags, env: { RINGSCOPE_DISABLE: off } })).out, "slept\n");
  }
});

Deno.test("first used inside a test, the library trips no sanitizer, and leaves the next test alone", async () => {
  const directory = Deno.makeTempDirSync();
  try {
    const path = `${directory}/user_test.ts`;
    Deno.writeTextFileSync(
      path,
      `
      Deno.test("inside", async () => {
        const { sleep, socketpair, timeout } = await import("file://${root}mod.ts");
        const [left, right] = socketpair();
        await timeout(5, () => left.read(new Uint8Array(1))).catch(() => {});
        for (let i = 0; i < 40; i++) await sleep(0.1); // both doorbells
        await left.close();
        await right.close();
      });
      Deno.test("after", () => {});
      Deno.test("again", async () => {
        const { sleep } = await import("file://${root}mod.ts");
        await sleep(1);
      });`,
    );
    const sanitizers = isDeno2(8) ? ["--sanitize-ops", "--sanitize-resources"] : [];
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["test", "-A", "--no-check", "--no-config", ...sanitizers, path],
    }).output();
    assert(code === 0, new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr));
  } finally {
    Deno.removeSync(directory, { recursive: true });
  }
});
