/** What is done to files by their paths. */
import { assert, assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import {
  all,
  copyFile,
  create,
  defaultRing,
  getXattr,
  link,
  listXattr,
  lstat,
  mkdir,
  open,
  readDir,
  readFile,
  readTextFile,
  remove,
  rename,
  Ring,
  scope,
  setXattr,
  stat,
  symlink,
  type SystemErrorFields,
  timeout,
  truncate,
  writeFile,
  writeTextFile,
} from "../mod.ts";
import { assertDescriptors, descriptors } from "./support/descriptors.ts";
import { assertSameBytes, noise, scratch } from "./support/example.ts";
import { library, program } from "./support/program.ts";
import { loopTurn, until, within } from "./support/until.ts";

const root = Deno.uid() === 0;
const encoder = new TextEncoder();

async function codeOf(run: () => Promise<unknown>): Promise<string> {
  const error = await assertRejects(run) as Error & SystemErrorFields;
  return error.code;
}

/** A small file system that is gone again when the test is; root only. */
function smallDisk(): { path(name: string): string; [Symbol.dispose](): void } {
  const directory = Deno.makeTempDirSync();
  const run = (command: string, args: string[]) => {
    const { success, stderr } = new Deno.Command(command, { args }).outputSync();
    if (!success) throw new Error(new TextDecoder().decode(stderr));
  };
  run("mount", ["-t", "tmpfs", "-o", "size=256k", "none", directory]);
  return {
    path: (name) => `${directory}/${name}`,
    [Symbol.dispose]: () => {
      run("umount", [directory]);
      Deno.removeSync(directory);
    },
  };
}

// --- Reading whole files ---

for (const bytes of [0, 1, 4095, 4096, 65535, 65536, 65537, 3_000_000]) {
  Deno.test(`readFile and writeFile are exact for ${bytes} bytes`, async () => {
    using dir = scratch();
    const data = noise(bytes);
    await writeFile(dir.path("f"), data);
    assertSameBytes(Deno.readFileSync(dir.path("f")), data);
    assertSameBytes(await readFile(dir.path("f")), data);
    assertSameBytes(await readFile(new URL(`file://${dir.path("f")}`)), data);
  });
}

Deno.test("readFile reads files that tell no size, and those that cut their reads short", async () => {
  for (
    const path of [
      "/proc/self/limits",
      "/proc/cpuinfo",
      "/proc/filesystems",
      "/sys/kernel/mm/transparent_hugepage/enabled",
    ]
  ) {
    assertEquals(await readTextFile(path), Deno.readTextFileSync(path));
  }
  assertEquals((await readFile("/dev/null")).length, 0);
});

Deno.test("readFile reads on a ring that its chain does not fit", async () => {
  await using ring = Ring.open({ entries: 2 });
  assertEquals(await readFile("/proc/self/comm", { ring }), Deno.readFileSync("/proc/self/comm"));
});

Deno.test("readFile of a FIFO waits for its writer and loses nothing", async () => {
  using dir = scratch();
  const path = dir.path("fifo");
  new Deno.Command("mkfifo", { args: [path] }).outputSync();
  const data = noise(200_000);
  for (const writerFirst of [true, false]) {
    const write = () => new Deno.Command("sh", { args: ["-c", 'exec cat > "$1"', "sh", path], stdin: "piped" }).spawn();
    let writer = writerFirst ? write() : null;
    if (writer !== null) {
      // It waits in its open for a reader.
      await until("it opens", () => Deno.readTextFileSync(`/proc/${writer!.pid}/wchan`).includes("wait_for_partner"));
    }
    const reading = readFile(path);
    if (writer === null) {
      await until("the reader waits", () => defaultRing().inFlight > 0);
      writer = write();
    }
    const stdin = writer.stdin.getWriter();
    await stdin.write(data);
    await stdin.close();
    assertSameBytes(await within("the bytes", reading), data);
    assertEquals((await writer.status).code, 0, "no SIGPIPE");
  }
});

Deno.test("10,000 readFile at once complete, and hold no more descriptors than there are places", async () => {
  using dir = scratch();
  const paths = Array.from({ length: 100 }, (_, i) => dir.path(`${i}`));
  for (const [i, path] of paths.entries()) Deno.writeFileSync(path, new Uint8Array(1000 + i).fill(i));
  const before = descriptors();
  const files = await Promise.all(Array.from({ length: 10_000 }, (_, i) => readFile(paths[i % 100])));
  for (const [i, bytes] of files.entries()) {
    assert(bytes.length === 1000 + i % 100 && bytes.every((byte) => byte === i % 100));
  }
  assertEquals(defaultRing().inFlight, 0);
  await assertDescriptors(before);
});

Deno.test("many small files are read in few submissions", async () => {
  using dir = scratch();
  Deno.writeFileSync(dir.path("f"), new Uint8Array(100));
  await using ring = Ring.open();
  await readFile(dir.path("f"), { ring });
  const before = ring.enters;
  await Promise.all(Array.from({ length: 200 }, () => readFile(dir.path("f"), { ring })));
  assert(ring.enters - before <= 2, `${ring.enters - before} system calls`);
});

Deno.test("readTextFile decodes as Deno's does", async () => {
  using dir = scratch();
  for (
    const bytes of [
      encoder.encode("grüße, 世界"),
      new Uint8Array([0xef, 0xbb, 0xbf, 0x61]),
      new Uint8Array([0xff, 0x61]),
    ]
  ) {
    Deno.writeFileSync(dir.path("f"), bytes);
    assertEquals(await readTextFile(dir.path("f")), await Deno.readTextFile(dir.path("f")));
  }
});

// --- Writing whole files ---

Deno.test("writeFile replaces, appends, creates only if told to, and refuses to replace if told to", async () => {
  using dir = scratch();
  const path = dir.path("f");
  assertEquals(await codeOf(() => writeTextFile(path, "x", { create: false })), "ENOENT");
  await writeTextFile(path, "one two");
  await writeTextFile(path, "three");
  await writeTextFile(path, " four", { append: true });
  assertEquals(Deno.readTextFileSync(path), "three four");
  await writeTextFile(path, "five", { create: false });
  assertEquals(Deno.readTextFileSync(path), "five");
  assertEquals(await codeOf(() => writeTextFile(path, "x", { createNew: true })), "EEXIST");
  await writeTextFile(dir.path("g"), "six", { append: true });
  assertEquals(Deno.readTextFileSync(dir.path("g")), "six");
});

Deno.test("writeFile gives the mode to new files and to old ones, as Deno's does", async () => {
  using dir = scratch();
  for (const write of [writeTextFile, Deno.writeTextFile]) {
    await write(dir.path("f"), "", { mode: 0o604 });
    assertEquals(Deno.statSync(dir.path("f")).mode! & 0o7777, 0o604);
    await write(dir.path("f"), "", { mode: 0o666 });
    assertEquals(Deno.statSync(dir.path("f")).mode! & 0o7777, 0o666);
  }
});

Deno.test("writeFile takes streams", async () => {
  using dir = scratch();
  const data = noise(500_000);
  await writeFile(dir.path("f"), new Blob([data]).stream());
  assertSameBytes(Deno.readFileSync(dir.path("f")), data);
  await writeTextFile(dir.path("f"), ReadableStream.from(["grü", "ße"]));
  assertEquals(Deno.readTextFileSync(dir.path("f")), "grüße");
});

Deno.test("writeFile stops waiting for a stream that brings nothing, and tells it", async () => {
  using dir = scratch();
  const enough = new Error("enough");
  const controller = new AbortController();
  const stops: [(data: ReadableStream<Uint8Array>) => Promise<void>, (error: Error) => boolean][] = [
    [(data) => writeFile(dir.path("f"), data, { signal: controller.signal }), (error) => error === enough],
    [(data) => writeFile(dir.path("f"), data, { timeout: 5 }), ({ name }) => name === "TimeoutError"],
    [(data) => timeout(5, () => writeFile(dir.path("f"), data)), ({ name }) => name === "TimeoutError"],
  ];
  for (const [write, isExpected] of stops) {
    let told: unknown;
    let asked = 0;
    const stream = new ReadableStream<Uint8Array>({
      pull(queue) {
        if (asked++ === 0) return queue.enqueue(encoder.encode("first"));
        controller.abort(enough);
        return new Promise(() => {});
      },
      cancel: (reason) => void (told = reason),
    }, { highWaterMark: 0 });
    const error = await assertRejects(() => within("the stop", write(stream)));
    assert(isExpected(error as Error), `${error}`);
    assertEquals(told, error);
    assertEquals([stream.locked, Deno.readTextFileSync(dir.path("f"))], [false, "first"]);
  }
  assertEquals([...descriptors().values()].filter((what) => what.startsWith(dir.path(""))), []);
});

Deno.test("writeFile leaves the file alone if the stream is someone else's, and tells a stream of its failure", async () => {
  using dir = scratch();
  Deno.writeTextFileSync(dir.path("f"), "old");
  const stream = new ReadableStream<Uint8Array>();
  stream.getReader();
  await assertRejects(() => writeFile(dir.path("f"), stream), TypeError);
  assertEquals(Deno.readTextFileSync(dir.path("f")), "old");
  let told: unknown;
  const unwanted = new ReadableStream<Uint8Array>({ cancel: (reason) => void (told = reason) });
  const error = await assertRejects(() => writeFile(dir.path("none/f"), unwanted), Deno.errors.NotFound);
  assertEquals(told, error);
  const broken = new ReadableStream<Uint8Array>({ start: (queue) => queue.error(new Error("its own")) });
  await assertRejects(() => writeFile(dir.path("f"), broken), Error, "its own");
  const text = ReadableStream.from(["text"]) as unknown as ReadableStream<Uint8Array>;
  await assertRejects(() => writeFile(dir.path("f"), text), TypeError);
});

Deno.test("appending from many at once loses nothing", async () => {
  using dir = scratch();
  const lines = Array.from({ length: 500 }, (_, i) => `line ${i}\n`);
  await all(lines.map((line) => () => writeTextFile(dir.path("log"), line, { append: true })));
  assertEquals(Deno.readTextFileSync(dir.path("log")).split("\n").sort(), lines.join("").split("\n").sort());
});

// --- stat ---

Deno.test("stat and lstat tell what Deno's tell, field by field", async () => {
  using dir = scratch();
  Deno.writeFileSync(dir.path("file"), new Uint8Array(12345));
  Deno.utimeSync(dir.path("file"), 1_234_567.891, 2_345_678.123);
  Deno.symlinkSync("file", dir.path("link"));
  Deno.symlinkSync("nowhere", dir.path("dangling"));
  new Deno.Command("mkfifo", { args: [dir.path("fifo")] }).outputSync();
  const paths = ["file", "link", "dangling", "fifo", "."].map(dir.path);
  for (const path of [...paths, "/dev/null", "/dev/tty", "/proc/self", "/", "/proc/1"]) {
    for (const [ours, denos] of [[stat, Deno.statSync], [lstat, Deno.lstatSync]] as const) {
      if (path.endsWith("dangling") && ours === stat) {
        assertEquals(await codeOf(() => stat(path)), "ENOENT");
        continue;
      }
      const [mine, theirs] = [await ours(path), denos(path)];
      if (path.startsWith("/proc")) {
        mine.atime =
          mine.mtime =
          mine.ctime =
          theirs.atime =
          theirs.mtime =
          theirs.ctime =
            null;
      }
      // Deno's ctime is of whole seconds, and before Deno 2.1 there was none.
      if (!("ctime" in theirs)) Reflect.deleteProperty(mine, "ctime");
      for (const info of [mine, theirs]) info.ctime?.setMilliseconds(0);
      assertEquals({ ...mine }, { ...theirs }, path);
    }
  }
});

// --- Names ---

Deno.test("rename moves, and replaces what is there", async () => {
  using dir = scratch();
  Deno.writeTextFileSync(dir.path("a"), "a");
  Deno.writeTextFileSync(dir.path("b"), "b");
  await rename(dir.path("a"), new URL(`file://${dir.path("b")}`));
  assertEquals([...Deno.readDirSync(dir.path("."))].map(({ name }) => name), ["b"]);
  assertEquals(Deno.readTextFileSync(dir.path("b")), "a");
});

Deno.test("link gives a second name, symlink a pointer", async () => {
  using dir = scratch();
  Deno.writeTextFileSync(dir.path("a"), "text");
  await link(dir.path("a"), dir.path("b"));
  await symlink("a", dir.path("c"));
  assertEquals((await stat(dir.path("a"))).nlink, 2);
  assertEquals(Deno.readLinkSync(dir.path("c")), "a");
  assertEquals(await readTextFile(dir.path("c")), "text");
});

Deno.test("remove takes files, links and empty directories, and trees if told to", async () => {
  using dir = scratch();
  Deno.mkdirSync(dir.path("outside"));
  Deno.writeTextFileSync(dir.path("outside/kept"), "");
  Deno.mkdirSync(dir.path("tree/deep/er"), { recursive: true });
  for (let i = 0; i < 300; i++) Deno.writeTextFileSync(dir.path(`tree/deep/${i}`), "");
  Deno.symlinkSync("../../outside", dir.path("tree/deep/link"));
  Deno.symlinkSync("outside", dir.path("link"));
  Deno.mkdirSync(dir.path("empty"));
  await remove(dir.path("link"), { recursive: true });
  await remove(dir.path("empty"));
  assertEquals(await codeOf(() => remove(dir.path("tree"))), "ENOTEMPTY");
  const before = descriptors();
  await remove(dir.path("tree"), { recursive: true });
  await assertDescriptors(before);
  assertEquals([...Deno.readDirSync(dir.path("."))].map(({ name }) => name), ["outside"]);
  assert(Deno.statSync(dir.path("outside/kept")).isFile, "links are not followed");
});

Deno.test("remove of a wide tree holds few descriptors, and each name may be any bytes", async () => {
  using dir = scratch();
  for (let i = 0; i < 200; i++) Deno.mkdirSync(dir.path(`tree/${i % 20}/${i}/a/b`), { recursive: true });
  const odd = ["-c", `cd "$1" && touch "$(printf 'a\\377\\303 ')x" && ls -d a*x`, "sh", dir.path("tree/7")];
  assert(new Deno.Command("sh", { args: odd }).outputSync().success);
  const before = descriptors();
  let most = 0;
  defaultRing().onCompletion = ({ operation }) => {
    if (operation === "open") most = Math.max(most, descriptors().size);
  };
  try {
    await remove(dir.path("tree"), { recursive: true });
  } finally {
    defaultRing().onCompletion = null;
  }
  assert(most - before.size <= 16 * 5, `${most - before.size} directories were open at once`);
  assertEquals([...Deno.readDirSync(dir.path("."))], []);
  await assertDescriptors(before);
});

Deno.test("two removals of the same tree at once: both are done", async () => {
  using dir = scratch();
  for (let i = 0; i < 300; i++) Deno.mkdirSync(dir.path(`tree/${i % 7}/${i}`), { recursive: true });
  const outcomes = await Promise.allSettled([1, 2].map(() => remove(dir.path("tree"), { recursive: true })));
  assertEquals([...Deno.readDirSync(dir.path("."))], []);
  // The tree itself one of them may find gone, as Deno.remove does.
  for (const outcome of outcomes) {
    if (outcome.status === "rejected") assertInstanceOf(outcome.reason, Deno.errors.NotFound);
  }
});

Deno.test("mkdir makes one directory, or all that are missing", async () => {
  using dir = scratch();
  await mkdir(dir.path("a"), { mode: 0o700 });
  assertEquals(Deno.statSync(dir.path("a")).mode! & 0o777, 0o700);
  assertEquals(await codeOf(() => mkdir(dir.path("a"))), "EEXIST");
  assertEquals(await codeOf(() => mkdir(dir.path("x/y"))), "ENOENT");
  for (const path of ["a/b/c/d", "a/b/c/d", "a//e///f/", "."]) await mkdir(dir.path(path), { recursive: true });
  assert(Deno.statSync(dir.path("a/b/c/d")).isDirectory && Deno.statSync(dir.path("a/e/f")).isDirectory);
  Deno.writeTextFileSync(dir.path("file"), "");
  assertEquals(await codeOf(() => mkdir(dir.path("file"), { recursive: true })), "EEXIST");
  assertEquals(await codeOf(() => mkdir(dir.path("file/x"), { recursive: true })), "ENOTDIR");
  await all(Array.from({ length: 20 }, (_, i) => () => mkdir(dir.path(`same/way/${i % 3}`), { recursive: true })));
});

Deno.test("mkdir goes by the working directory where the path does", async () => {
  using dir = scratch();
  const { out, err } = await program(
    `import { mkdir } from LIBRARY; Deno.chdir(${JSON.stringify(dir.path("."))});
     await mkdir("p/q/r", { recursive: true }); console.log(Deno.statSync("p/q/r").isDirectory);`,
  );
  assertEquals([out, err], ["true\n", ""]);
});

Deno.test("readDir lists what Deno's lists, however many", async () => {
  using dir = scratch();
  for (let i = 0; i < 2000; i++) {
    Deno.writeTextFileSync(dir.path(`file with a rather long name, number ${i}, grüße`), "");
  }
  Deno.mkdirSync(dir.path("directory"));
  Deno.symlinkSync("x", dir.path("link"));
  const byName = (a: Deno.DirEntry, b: Deno.DirEntry) => a.name < b.name ? -1 : 1;
  const before = descriptors();
  const listed = await Array.fromAsync(readDir(dir.path(".")));
  assertEquals(
    listed.sort(byName),
    Array.from(Deno.readDirSync(dir.path(".")), (entry) => ({ ...entry })).sort(byName),
  );
  for await (const _ of readDir(dir.path("."))) break;
  await assertDescriptors(before);
});

Deno.test("truncate cuts off and lengthens", async () => {
  using dir = scratch();
  Deno.writeTextFileSync(dir.path("f"), "12345");
  await truncate(dir.path("f"), 3);
  assertEquals(Deno.readTextFileSync(dir.path("f")), "123");
  await truncate(dir.path("f"), 5);
  assertEquals(Deno.readTextFileSync(dir.path("f")), "123\0\0");
  await truncate(dir.path("f"));
  assertEquals(Deno.readTextFileSync(dir.path("f")), "");
});

for (const bytes of [0, 1, 262_143, 262_144, 5_000_000]) {
  Deno.test(`copyFile copies ${bytes} bytes exactly, and the permission bits`, async () => {
    using dir = scratch();
    const data = noise(bytes);
    Deno.writeFileSync(dir.path("a"), data, { mode: 0o751 });
    Deno.writeFileSync(dir.path("b"), noise(bytes + 100_000));
    for (const to of ["b", "c"]) {
      await copyFile(dir.path("a"), dir.path(to));
      assertSameBytes(Deno.readFileSync(dir.path(to)), data);
      assertEquals(Deno.statSync(dir.path(to)).mode! & 0o7777, 0o751);
    }
  });
}

Deno.test("copyFile keeps holes, wherever they are, and what is between them", async () => {
  using dir = scratch();
  const MIB = 1 << 20;
  const layouts: [size: number, ...dataAt: number[]][] = [
    [5 * MIB], // a hole and nothing else
    [5 * MIB, 0],
    [5 * MIB, 5 * MIB - 4096],
    [5 * MIB + 1, 2 * MIB, 3 * MIB],
    [MIB, 0, 512 << 10],
  ];
  for (const [size, ...dataAt] of layouts) {
    const expected = new Uint8Array(size);
    {
      using file = Deno.openSync(dir.path("a"), { write: true, create: true, truncate: true });
      file.truncateSync(size);
      for (const at of dataAt) {
        expected.set(noise(4096), at);
        file.seekSync(at, Deno.SeekMode.Start);
        file.writeSync(noise(4096));
      }
    }
    Deno.writeFileSync(dir.path("b"), new Uint8Array(6 * MIB).fill(1));
    await copyFile(dir.path("a"), dir.path("b"));
    assertSameBytes(Deno.readFileSync(dir.path("b")), expected);
    const [source, copy] = [Deno.statSync(dir.path("a")), Deno.statSync(dir.path("b"))];
    assert(copy.blocks! <= source.blocks! + 16, `${copy.blocks} blocks, not ${source.blocks}`);
  }
});

Deno.test({
  name: "copyFile leaves the permission bits of a device as they are",
  ignore: !root,
  async fn() {
    using dir = scratch();
    const made = new Deno.Command("mknod", { args: ["-m", "666", dir.path("null"), "c", "1", "3"] }).outputSync();
    assert(made.success);
    Deno.writeFileSync(dir.path("a"), noise(100), { mode: 0o600 });
    await copyFile(dir.path("a"), dir.path("null"));
    assertEquals(Deno.statSync(dir.path("null")).mode! & 0o7777, 0o666);
  },
});

Deno.test("copyFile does not destroy a file by copying it onto itself", async () => {
  using dir = scratch();
  Deno.writeTextFileSync(dir.path("a"), "text");
  Deno.linkSync(dir.path("a"), dir.path("b"));
  Deno.symlinkSync("a", dir.path("c"));
  for (const to of ["a", "b", "c"]) {
    await assertRejects(() => copyFile(dir.path("a"), dir.path(to)), TypeError, "same file");
  }
  assertEquals(Deno.readTextFileSync(dir.path("a")), "text");
});

Deno.test("create makes an empty file that can be read and written", async () => {
  using dir = scratch();
  Deno.writeTextFileSync(dir.path("f"), "old");
  await using file = await create(dir.path("f"));
  await file.writeAll(encoder.encode("new"));
  const p = new Uint8Array(9);
  assertEquals(await file.readAt(p, 0), 3);
});

Deno.test("extended attributes are set, replaced and read", async () => {
  using dir = scratch();
  Deno.writeTextFileSync(dir.path("f"), "");
  try {
    await setXattr(dir.path("f"), "user.probe", new Uint8Array(0));
  } catch (error) {
    console.log(`Skipped, for this file system has none: ${(error as Error).message}`);
    return;
  }
  const value = noise(1000);
  assertEquals(await getXattr(dir.path("f"), "user.x"), null);
  assertEquals(await codeOf(() => setXattr(dir.path("f"), "user.x", value, { replace: true })), "ENODATA");
  await setXattr(dir.path("f"), "user.x", value, { create: true });
  assertEquals(await codeOf(() => setXattr(dir.path("f"), "user.x", value, { create: true })), "EEXIST");
  assertSameBytes((await getXattr(dir.path("f"), "user.x"))!, value);
  await setXattr(dir.path("f"), "user.x", new Uint8Array(0), { replace: true });
  assertEquals((await getXattr(dir.path("f"), "user.x"))!.length, 0);
  const isUsers = (name: string) => name.startsWith("user."); // some systems add "security.selinux"
  assertEquals(await codeOf(() => setXattr(dir.path("f"), "nospace.x", value)), "EOPNOTSUPP");
  await symlink("f", dir.path("to f"));
  Deno.chmodSync(dir.path("f"), 0); // neither following nor listing reads it
  for (const name of ["f", "to f"]) {
    assertEquals((await listXattr(dir.path(name))).filter(isUsers).sort(), ["user.probe", "user.x"]);
  }
  assertEquals((await listXattr(dir.path("."))).filter(isUsers), []);
  await assertRejects(() => setXattr(dir.path("f"), "user.x", new Uint8Array(65537)), RangeError);
  await assertRejects(() => getXattr(dir.path("f"), "user.\0x"), TypeError);
});

// --- Errors ---

const data = new Uint8Array(10);
const failures: [string, string, (path: (name: string) => string) => Promise<unknown>][] = [
  ["open", "EISDIR", (path) => open(path("dir"), { write: true })],
  ["readFile", "ENOENT", (path) => readFile(path("none"))],
  ["readFile", "EISDIR", (path) => readFile(path("dir"))],
  ["readFile", "ENOTDIR", (path) => readFile(path("file/x"))],
  ["readFile", "ELOOP", (path) => readFile(path("loop"))],
  ["readFile", "ENAMETOOLONG", (path) => readFile(path("x".repeat(300)))],
  ["open", "ENOENT", (path) => writeFile(path("none/x"), data)],
  ["open", "EISDIR", (path) => writeFile(path("dir"), data)],
  ["write", "EIO", () => writeFile("/proc/version", data)],
  ["open", "ETXTBSY", () => open(Deno.execPath(), { write: true })],
  ["write", "ENOSPC", () => writeFile("/dev/full", data)],
  ["stat", "ENOENT", (path) => stat(path("none"))],
  ["stat", "ELOOP", (path) => stat(path("loop"))],
  ["lstat", "ENOTDIR", (path) => lstat(path("file/x"))],
  ["rename", "ENOENT", (path) => rename(path("none"), path("x"))],
  ["rename", "ENOTEMPTY", (path) => rename(path("dir"), path("full"))],
  ["rename", "EXDEV", (path) => rename(path("file"), "/dev/shm/ringscope-rename")],
  ["rename", "EISDIR", (path) => rename(path("file"), path("dir"))],
  ["remove", "ENOENT", (path) => remove(path("none"))],
  ["remove", "ENOTEMPTY", (path) => remove(path("full"))],
  ["remove", "ENOTDIR", (path) => remove(path("file/x"), { recursive: true })],
  ["mkdir", "EEXIST", (path) => mkdir(path("file"))],
  ["mkdir", "ENOENT", (path) => mkdir(path("none/x"))],
  ["symlink", "EEXIST", (path) => symlink("x", path("file"))],
  ["symlink", "ENOENT", (path) => symlink("x", path("none/x"))],
  ["link", "ENOENT", (path) => link(path("none"), path("x"))],
  ["link", "EEXIST", (path) => link(path("file"), path("full"))],
  ["link", "EXDEV", (path) => link(path("file"), "/dev/shm/ringscope-link")],
  ["link", "EPERM", (path) => link(path("dir"), path("x"))],
  ["open", "ENOENT", (path) => truncate(path("none"), 1)],
  ["open", "EISDIR", (path) => truncate(path("dir"), 1)],
  ["open", "ENOENT", (path) => copyFile(path("none"), path("x"))],
  ["copyFile", "EISDIR", (path) => copyFile(path("dir"), path("x"))],
  ["open", "EISDIR", (path) => copyFile(path("file"), path("dir"))],
  ["write", "ENOSPC", (path) => copyFile(path("file"), "/dev/full")],
  ["open", "ENOENT", (path) => Array.fromAsync(readDir(path("none")))],
  ["open", "ENOTDIR", (path) => Array.fromAsync(readDir(path("file")))],
  ["getXattr", "ENOENT", (path) => getXattr(path("none"), "user.x")],
  ["open", "ENOENT", (path) => listXattr(path("none"))],
  ["setXattr", "ENOENT", (path) => setXattr(path("none"), "user.x", data)],
];

Deno.test("errors have the code, the operation and the path, and Deno's class where it has one", async () => {
  using dir = scratch();
  Deno.writeFileSync(dir.path("file"), data);
  Deno.mkdirSync(dir.path("dir"));
  Deno.mkdirSync(dir.path("full/x"), { recursive: true });
  Deno.symlinkSync("loop", dir.path("loop"));
  const before = descriptors();
  for (const [operation, code, run] of failures) {
    const error = await assertRejects(() => run(dir.path)) as Error & SystemErrorFields;
    assertEquals([error.operation, error.code], [operation, code], `${error.message}\n${run}`);
    assert(error.path !== undefined && error.message.includes(error.path), error.message);
    // V8 follows asynchronous functions, and no generators.
    assert(error.stack!.includes("fs_test.ts") || `${run}`.includes("readDir"), `no caller's line: ${error.stack}`);
    if (code === "ENOENT") assertInstanceOf(error, Deno.errors.NotFound);
  }
  assertEquals(defaultRing().inFlight, 0);
  await assertDescriptors(before);
});

Deno.test({
  name: "a full disk is told, and what was written by then is there",
  ignore: !root,
  async fn() {
    using disk = smallDisk();
    const full = noise(1 << 20);
    assertEquals(await codeOf(() => writeFile(disk.path("a"), full)), "ENOSPC");
    assertEquals(Deno.readFileSync(disk.path("a")), full.subarray(0, Deno.statSync(disk.path("a")).size));
    Deno.removeSync(disk.path("a"));
    await using file = await create(disk.path("b"));
    assertEquals(await codeOf(() => file.allocate(0, 1 << 20)), "ENOSPC");
    const error = await assertRejects(() => file.writeAll(new Uint8Array(1 << 20))) as Error & { bytesWritten: number };
    assertEquals(error.bytesWritten, Deno.statSync(disk.path("b")).size);
  },
});

Deno.test("bad arguments are refused with a TypeError or a RangeError", async () => {
  // deno-lint-ignore no-explicit-any
  const bad = (value: unknown) => value as any;
  for (const run of [readFile, stat, lstat, remove, mkdir, truncate, create]) {
    await assertRejects(async () => await run(bad(7)), TypeError);
    await assertRejects(async () => await run("a\0b"), TypeError);
    await assertRejects(async () => await run(new URL("https://example.org/")), TypeError);
  }
  await assertRejects(() => rename("a", bad(null)), TypeError);
  await assertRejects(() => writeFile("/dev/null", bad("text")), TypeError);
  await assertRejects(() => writeTextFile("/dev/null", bad(data)), TypeError, "must be a string");
  await assertRejects(() => writeTextFile("/dev/null", bad(undefined)), TypeError, "must be a string");
  await assertRejects(() => truncate("/dev/null", -1), RangeError);
  await assertRejects(() => stat("/", { timeout: -1 }), RangeError);
  await assertRejects(() => stat("/", { signal: bad({}) }), TypeError);
});

// --- Stopping ---

const operations: [string, (path: (name: string) => string, options: { signal?: AbortSignal }) => Promise<unknown>][] =
  [
    ["readFile", (path, options) => readFile(path("file"), options)],
    ["writeFile", (path, options) => writeFile(path("new"), data, options)],
    ["stat", (path, options) => stat(path("file"), options)],
    ["lstat", (path, options) => lstat(path("file"), options)],
    ["rename", (path, options) => rename(path("file"), path("new"), options)],
    ["remove", (path, options) => remove(path("file"), options)],
    ["remove recursive", (path, options) => remove(path("dir"), { ...options, recursive: true })],
    ["mkdir", (path, options) => mkdir(path("new"), options)],
    ["mkdir recursive", (path, options) => mkdir(path("new/x"), { ...options, recursive: true })],
    ["symlink", (path, options) => symlink("x", path("new"), options)],
    ["link", (path, options) => link(path("file"), path("new"), options)],
    ["truncate", (path, options) => truncate(path("file"), 0, options)],
    ["copyFile", (path, options) => copyFile(path("file"), path("new"), options)],
    ["readDir", (path, options) => Array.fromAsync(readDir(path("."), options))],
    ["getXattr", (path, options) => getXattr(path("file"), "user.x", options)],
    ["listXattr", (path, options) => listXattr(path("file"), options)],
    ["setXattr", (path, options) => setXattr(path("file"), "user.x", data, options)],
  ];

for (const [name, run] of operations) {
  Deno.test(`${name} does nothing for an aborted signal, nor in a cancelled scope, and both reject with the reason`, async () => {
    using dir = scratch();
    Deno.writeFileSync(dir.path("file"), data);
    Deno.mkdirSync(dir.path("dir/sub"), { recursive: true });
    const before = descriptors();
    const reason = new Error("enough");
    const rejected = await assertRejects(() => run(dir.path, { signal: AbortSignal.abort(reason) }));
    assertEquals(rejected, reason);
    const inScope = await assertRejects(() =>
      scope(async (s) => {
        s.cancel(reason);
        await run(dir.path, {});
      })
    );
    assertEquals(inScope, reason);
    assertEquals(Deno.readFileSync(dir.path("file")), data);
    assertEquals([...Deno.readDirSync(dir.path("."))].map((entry) => entry.name).sort(), ["dir", "file"]);
    assertEquals(defaultRing().inFlight, 0);
    await assertDescriptors(before);
  });
}

Deno.test("readFile of a silent FIFO is ended by a signal, a timeout and its scope, and leaves nothing", async () => {
  using dir = scratch();
  new Deno.Command("mkfifo", { args: [dir.path("fifo")] }).outputSync();
  await timeout(1000, () => stat("/")); // the clock's first use
  const before = descriptors();
  const reason = new Error("enough");
  const controller = new AbortController();
  const reading = readFile(dir.path("fifo"), { signal: controller.signal });
  await loopTurn();
  controller.abort(reason);
  assertEquals(await assertRejects(() => within("the abort", reading)), reason);
  const overdue = await assertRejects(() => within("the deadline", readFile(dir.path("fifo"), { timeout: 5 })));
  assertEquals((overdue as Error).name, "TimeoutError");
  await assertRejects(() => within("the scope", timeout(5, () => readFile(dir.path("fifo")))), DOMException);
  assertEquals(defaultRing().inFlight, 0);
  await assertDescriptors(before);
});

// --- Permissions ---

Deno.test("each function requires what Deno's function of that name requires", async () => {
  using dir = scratch();
  Deno.writeTextFileSync(dir.path("file"), "");
  const source = `
    import * as ours from ${JSON.stringify(library)};
    const [file] = Deno.args, other = file + ".other";
    const calls = [
      ["readFile", file], ["readTextFile", file], ["stat", file], ["lstat", file],
      ["writeFile", file, new Uint8Array(1)], ["writeTextFile", file, ""], ["truncate", file], ["create", file],
      ["copyFile", file, other], ["rename", other, other + "2"], ["link", file, other], ["symlink", "x", other + "3"],
      ["mkdir", other + "4"], ["remove", other + "4"], ["remove", other + "3"], ["remove", other], ["remove", other + "2"],
    ];
    for (const [name, ...args] of calls) {
      const outcomes = [];
      for (const side of [Deno, ours]) {
        try {
          const value = await side[name](...args);
          await value?.[Symbol.asyncDispose]?.();
          value?.[Symbol.dispose]?.();
          outcomes.push("done");
        } catch (error) {
          outcomes.push(error.name === "NotCapable" ? "NotCapable" : "done");
        }
      }
      if (outcomes[0] !== outcomes[1]) console.log(name, outcomes.join(" but "));
      else console.log(outcomes[0]);
    }`;
  const seen = new Set<string>();
  for (
    const flags of [[], ["--allow-read"], ["--allow-write"], ["--allow-read", "--allow-write"], [
      `--allow-read=${dir.path(".")}`,
      `--allow-write=${dir.path(".")}`,
    ]]
  ) {
    const { out, err } = await program(source, { flags: ["--allow-ffi", ...flags], args: [dir.path("file")] });
    assertEquals(err, "");
    for (const line of out.trim().split("\n")) seen.add(line);
  }
  assertEquals([...seen].sort(), ["NotCapable", "done"]);
});
