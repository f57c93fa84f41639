/**
 * What people run into: no permission, the wrong kind of file, a full disk, an end that is gone, no descriptor to
 * spare. For each operation: the class, the code, the operation and what it was about; and nothing stays open.
 */
import { assertEquals, assertInstanceOf, assertRejects } from "@std/assert";
import {
  chain,
  ChainError,
  type Conn,
  connect,
  connectDatagram,
  copy,
  copyFile,
  create,
  defaultRing,
  type File,
  link,
  listen,
  listenDatagram,
  mkdir,
  open,
  pipe,
  type PipeReader,
  type PipeWriter,
  poll,
  readDir,
  readFile,
  remove,
  rename,
  setXattr,
  socketpair,
  stat,
  symlink,
  type SystemErrorFields,
  tee,
  truncate,
  writeFile,
} from "../mod.ts";
import { assertDescriptors, descriptors } from "./support/descriptors.ts";
import { scratch } from "./support/example.ts";
import * as libc from "./support/libc.ts";
import { library } from "./support/program.ts";
import { settleDefaultRing } from "./support/rings.ts";
import { until, within } from "./support/until.ts";

type Failure = Error & SystemErrorFields & { bytesWritten?: number; bytesCopied?: number };

const bytes = (...values: number[]) => Uint8Array.from(values);
const p = () => new Uint8Array(10);

async function failure(name: string, run: () => Promise<unknown>): Promise<Failure> {
  try {
    await within(name, run());
  } catch (error) {
    return (error instanceof ChainError ? error.cause : error) as Failure;
  }
  throw new Error(`${name} has succeeded`);
}

/** Tries them all, and says of each that fails otherwise how it does. */
async function each<Row extends readonly [name: string, ...unknown[]]>(
  rows: readonly Row[],
  check: (row: Row) => Promise<void>,
): Promise<void> {
  const unexpected: string[] = [];
  for (const row of rows) await check(row).catch((error) => unexpected.push(`${row[0]}: ${error.message}`));
  assertEquals(unexpected.join("\n"), "");
  assertEquals(defaultRing().inFlight, 0);
}

const readings: [operation: string, run: (file: File) => Promise<unknown>][] = [
  ["read", (file) => file.read(p())],
  ["read", (file) => file.readAt(p(), 0)],
  ["readv", (file) => file.readv([p(), p()])],
  ["readv", (file) => file.readv([p()], { position: 0 })],
  ["read", (file) => file.readFull(p())],
  ["read", (file) => file.readAll()],
  ["read", (file) => Array.fromAsync(file.chunks())],
  ["read", (file) => Array.fromAsync(file.lines())],
  ["read", async (file) => await chain().read(file, p())],
];

const writings: [operation: string, run: (file: File) => Promise<unknown>][] = [
  ["write", (file) => file.write(p())],
  ["write", (file) => file.writeAt(p(), 0)],
  ["writev", (file) => file.writev([p(), p()])],
  ["writev", (file) => file.writev([p()], { position: 0 })],
  ["write", (file) => file.writeAll(p())],
  ["write", async (file) => await chain().write(file, p())],
];

Deno.test("what is open for writing alone can't be read, nor what is open for reading alone written", async () => {
  using dir = scratch();
  const path = dir.path("f");
  await (await create(path)).close();
  await using source = await open(path);
  await using target = await open(path, { write: true });
  const told = async ([operation, run]: (typeof readings)[number], file: File) => {
    const error = await failure(operation, () => run(file));
    assertInstanceOf(error, Deno.errors.BadResource);
    assertEquals([error.code, error.errno, error.operation, error.path], ["EBADF", 9, operation, path]);
  };
  await each(readings, (row) => told(row, target));
  await each(writings, (row) => told(row, source));
  const { reader, writer } = pipe();
  await writer.writeAll(bytes(1, 2));
  await each(
    [["copy", () => copy(target, writer)], ["copy", () => copy(reader, source, { length: 2 })]],
    async (row) => {
      const error = await failure(row[0], row[1]);
      assertEquals([error.code, error.operation, error.path, error.bytesCopied], ["EBADF", "copy", path, 0]);
    },
  );
  assertEquals(await reader.read(p()), 2, "what could not be copied is still there");
  await reader.close();
  await writer.close();
});

Deno.test("a directory can be opened and not be read", async () => {
  using dir = scratch();
  await using directory = await open(dir.path("."));
  await each(readings, async ([operation, run]) => {
    const error = await failure(operation, () => run(directory));
    assertInstanceOf(error, Deno.errors.IsADirectory);
    assertEquals([error.code, error.operation, error.path], ["EISDIR", operation, dir.path(".")]);
  });
  const { reader, writer } = pipe();
  const error = await failure("copy", () => copy(directory, writer));
  assertEquals([error.code, error.operation, error.path], ["EISDIR", "copy", dir.path(".")]);
  await reader.close();
  await writer.close();
});

Deno.test("a full disk is ENOSPC for everything that writes, and says how much went", async () => {
  await using full = await open("/dev/full", { write: true });
  await each(writings, async ([operation, run]) => {
    const error = await failure(operation, () => run(full));
    assertEquals([error.code, error.operation, error.path], ["ENOSPC", operation, "/dev/full"]);
  });
  const { reader, writer } = pipe();
  await writer.writeAll(bytes(1, 2, 3));
  const error = await failure("copy", () => copy(reader, full, { length: 3 }));
  assertEquals([error.code, error.operation, error.path, error.bytesCopied], ["ENOSPC", "copy", "/dev/full", 0]);
  assertEquals(await reader.read(p()), 3, "what could not be copied is still there");
  await reader.close();
  await writer.close();
});

Deno.test("what has no positions is ESPIPE for everything that names one", async () => {
  const { reader, writer } = pipe();
  await using source = await open(`/proc/self/fd/${reader.fd}`);
  await using target = await open(`/proc/self/fd/${writer.fd}`, { write: true });
  const rows: [operation: string, run: () => Promise<unknown>][] = [
    ["read", () => source.readAt(p(), 1)],
    ["readv", () => source.readv([p()], { position: 1 })],
    ["write", () => target.writeAt(p(), 1)],
    ["writev", () => target.writev([p()], { position: 1 })],
    ["seek", () => source.seek(0, Deno.SeekMode.Start)],
    ["seek", () => target.seek(0, Deno.SeekMode.Current)],
    ["allocate", () => target.allocate(0, 10)],
    ["advise", () => source.advise("random")],
  ];
  await each(rows, async ([operation, run]) => {
    const error = await failure(operation, run);
    assertEquals([error.code, error.operation, error.path?.slice(0, 14)], ["ESPIPE", operation, "/proc/self/fd/"]);
  });
  assertEquals(libc.readable(reader.fd), 0);
  await reader.close();
  await writer.close();
});

Deno.test("where nobody reads any more, everything that writes is BrokenPipe, and no signal ends the process", async () => {
  const gone = pipe();
  await using file = await open(`/proc/self/fd/${gone.writer.fd}`, { write: true });
  const [conn, other] = socketpair();
  const { reader, writer } = pipe();
  await writer.writeAll(bytes(1, 2));
  await gone.reader.close();
  await other.close();
  const broken: PipeWriter = gone.writer;
  const rows: [operation: string, run: () => Promise<unknown>][] = [
    ["write", () => broken.write(p())],
    ["write", () => broken.writeAll(p())],
    ["write", () => file.write(p())],
    ["write", () => file.writeAll(p())],
    ["writev", () => file.writev([p(), p()])],
    ["write", () => conn.write(p())],
    ["write", () => conn.writeAll(p())],
    ["write", () => conn.writeAll(new Uint8Array(3_000_000))],
    ["write", async () => await chain().write(broken, p())],
    ["write", async () => await chain().write(conn, p())],
    ["copy", () => copy(reader, broken, { length: 2 })],
    ["copy", () => copy(reader, conn, { length: 2 })],
    ["tee", () => tee(reader, broken)],
  ];
  await each(rows, async ([operation, run]) => {
    const error = await failure(operation, run);
    assertInstanceOf(error, Deno.errors.BrokenPipe);
    assertEquals([error.code, error.operation], ["EPIPE", operation]);
    assertEquals([error.bytesWritten ?? 0, error.bytesCopied ?? 0], [0, 0]);
  });
  assertEquals(await reader.read(p()), 2, "what could not be copied is still there");
  for (const end of [broken, conn, reader, writer]) await end.close();
});

/** A connection that its other end resets, while `run` waits for its bytes, or before. */
async function reset(early: boolean, run: (conn: Conn) => Promise<unknown>): Promise<Failure> {
  await using listener = await listen({ hostname: "127.0.0.1", port: 0 });
  await using conn = await connect({ port: listener.addr.port });
  await using other = await listener.accept();
  libc.resetOnClose(other.fd);
  if (early) {
    await other.close();
    assertEquals((await poll(conn, ["in"])).has("err"), true, "poll tells of a reset");
  }
  const failed = failure("a reset connection", () => run(conn));
  if (!early) {
    await until("it waits", () => defaultRing().inFlight > 0);
    await other.close();
  }
  return await failed;
}

Deno.test("a reset ends whatever waits for a connection's bytes, or comes to wait, with ConnectionReset and the address", async () => {
  const { reader, writer }: { reader: PipeReader; writer: PipeWriter } = pipe();
  const rows: [operation: string, run: (conn: Conn) => Promise<unknown>][] = [
    ["read", (conn) => conn.read(p())],
    ["read", (conn) => conn.readAll()],
    ["read", (conn) => Array.fromAsync(conn.chunks())],
    ["read", async (conn) => await chain().read(conn, p())],
    ["copy", (conn) => copy(conn, writer)],
  ];
  for (const early of [false, true]) {
    await each(rows, async ([operation, run]) => {
      const error = await reset(early, run);
      assertInstanceOf(error, Deno.errors.ConnectionReset);
      assertEquals([error.code, error.operation], ["ECONNRESET", operation]);
      assertEquals(error.address?.startsWith("127.0.0.1:"), true);
    });
  }
  const ended = await reset(true, (conn) => conn.closeWrite());
  assertInstanceOf(ended, Deno.errors.NotConnected);
  assertEquals([ended.code, ended.operation], ["ENOTCONN", "closeWrite"]);
  await reader.close();
  await writer.close();
});

Deno.test("who may not is PermissionDenied, by every function that goes by a path, and nothing stays open", async () => {
  using dir = scratch();
  const [file, locked] = [dir.path("file"), dir.path("locked")];
  const inside = `${locked}/file`;
  Deno.writeTextFileSync(file, "x");
  Deno.mkdirSync(locked);
  Deno.writeTextFileSync(inside, "x");
  const unix = { transport: "unix", path: `${locked}/socket` } as const;
  const unixpacket = { transport: "unixpacket", path: `${locked}/packet` } as const;
  await using _listener = await listen(unix);
  await using _socket = await listenDatagram(unixpacket);
  await using sender = await listenDatagram({ transport: "unixpacket", path: `\0ringscope ${Deno.pid} denied` });
  const rows: [operation: string, run: () => Promise<unknown>, path?: string][] = [
    ["open", () => open(inside)],
    ["open", () => open(inside, { write: true })],
    ["open", () => open(`${locked}/new`, { write: true, createNew: true }), `${locked}/new`],
    ["open", () => create(`${locked}/new`), `${locked}/new`],
    ["open", async () => await chain().open(inside).read(p()).close()],
    ["readFile", () => readFile(inside)],
    ["open", () => writeFile(inside, p())],
    ["open", () => truncate(inside, 0)],
    ["open", () => copyFile(inside, `${file}2`)],
    ["open", () => Array.fromAsync(readDir(locked)), locked],
    ["stat", () => stat(inside)],
    ["rename", () => rename(inside, `${file}2`)],
    ["remove", () => remove(inside)],
    ["mkdir", () => mkdir(`${locked}/new`), `${locked}/new`],
    ["link", () => link(inside, `${file}2`)],
    ["symlink", () => symlink("x", `${locked}/new`)],
    ["setXattr", () => setXattr(inside, "user.x", p())],
    ["connect", () => connect(unix), unix.path],
    ["listen", () => listen({ ...unix, path: `${locked}/new` }), `${locked}/new`],
    ["connectDatagram", () => connectDatagram(unixpacket), unixpacket.path],
    ["listenDatagram", () => listenDatagram({ ...unixpacket, path: `${locked}/new` }), `${locked}/new`],
    ["send", () => sender.send(p(), unixpacket), unixpacket.path],
  ];
  await settleDefaultRing();
  const before = descriptors();
  Deno.chmodSync(locked, 0o000);
  const nobody = 65534;
  const self = libc.setFileUser(nobody); // for root nothing is locked
  try {
    await each(rows, async ([operation, run, path = inside]) => {
      const error = await failure(operation, run);
      assertInstanceOf(error, Deno.errors.PermissionDenied, `${error}`);
      assertEquals([error.code, error.errno, error.operation], ["EACCES", 13, operation]);
      if (operation !== "symlink") assertEquals(error.path, path);
    });
  } finally {
    libc.setFileUser(self);
    Deno.chmodSync(locked, 0o755);
  }
  assertEquals(Array.from(Deno.readDirSync(locked), ({ name }) => name).sort(), ["file", "packet", "socket"]);
  await assertDescriptors(before);
});

Deno.test("without a descriptor to spare, everything that needs one is EMFILE, and works when there is one again", async () => {
  const source = `
    import * as ours from ${JSON.stringify(library)};
    const { open, pipe, socketpair, listen, listenDatagram, connect, connectDatagram, copy, chain, readFile } = ours;
    const { reader, writer } = pipe();
    const [conn, other] = socketpair();
    const path = "\\0ringscope descriptors " + Deno.pid;
    const unix = await listen({ transport: "unix", path });
    const listener = await listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = listener.addr;
    const client = await connect({ port });
    await writer.writeAll(new Uint8Array(3));
    const calls = {
      open: () => open("/dev/null"),
      pipe: async () => pipe(),
      socketpair: async () => socketpair(),
      listen: () => listen({ hostname: "127.0.0.1", port: 0 }),
      listenUnix: () => listen({ transport: "unix", path: path + "2" }),
      listenDatagram: () => listenDatagram({ transport: "udp", port: 0 }),
      connect: () => connect({ port }),
      connectUnix: () => connect({ transport: "unix", path }),
      connectDatagram: () => connectDatagram({ port: 9 }),
      accept: () => listener.accept(),
      copy: () => copy(reader, conn, { length: 3 }),
    };
    const files = [];
    try { for (;;) files.push(Deno.openSync("/dev/null")); } catch {}
    // These use the ring's own places.
    console.log((await readFile("/proc/self/comm")).length > 0, (await chain().open("/dev/zero").read(new Uint8Array(1)))[1]);
    for (const [name, call] of Object.entries(calls)) {
      try {
        await call();
        console.log(name, "has succeeded");
      } catch (error) {
        if (error.code !== "EMFILE" || !name.startsWith(error.operation)) console.log(name, error.message);
      }
    }
    for (const file of files) file.close();
    for (const call of Object.values(calls)) await call();
    console.log("all work again");
    Deno.exit();`;
  const { code, stdout, stderr } = await new Deno.Command("sh", {
    args: ["-c", `ulimit -n 64; printf %s "$1" | "$2" run -A --no-config --no-check -`, "sh", source, Deno.execPath()],
  }).output();
  const text = (output: Uint8Array) => new TextDecoder().decode(output);
  assertEquals([code, text(stdout), text(stderr)], [0, "true 1\nall work again\n", ""]);
});

Deno.test("a file that has gone is told by everything that goes by its path, and by nothing that has it open", async () => {
  using dir = scratch();
  await using file = await open(dir.path("f"), { read: true, write: true, create: true });
  await file.writeAll(bytes(1, 2, 3));
  await remove(dir.path("f"));
  await assertRejects(() => stat(dir.path("f")), Deno.errors.NotFound);
  await assertRejects(() => open(dir.path("f")), Deno.errors.NotFound);
  assertEquals((await file.stat()).nlink, 0);
  assertEquals(await file.readAt(p(), 0), 3);
});
