/**
 * Every operation, whether it waits or not, is refused without a trace where it can't be: in a cancelled scope, for an
 * aborted signal, with a deadline or a signal that is none, on what is closed, on a ring that is closed.
 */
import { assertEquals, assertInstanceOf, assertRejects, assertStrictEquals, assertStringIncludes } from "@std/assert";
import {
  chain,
  type Conn,
  connect,
  connectDatagram,
  copy,
  copyFile,
  type DatagramConn,
  type File,
  futexWait,
  futexWake,
  interval,
  link,
  listen,
  listenDatagram,
  type Listener,
  listXattr,
  lstat,
  mkdir,
  open,
  type OperationOptions,
  pipe,
  type PipeReader,
  type PipeWriter,
  poll,
  pollEvents,
  readDir,
  readFile,
  remove,
  rename,
  Ring,
  scope,
  sleep,
  socketpair,
  stat,
  symlink,
  tee,
  truncate,
  waitProcess,
  writeFile,
} from "../mod.ts";
import { descriptors } from "./support/descriptors.ts";
import { scratch } from "./support/example.ts";
import * as libc from "./support/libc.ts";

/** What operations are made on: bytes are everywhere to be read, and there is room everywhere. */
interface World {
  ring: Ring;
  path: string;
  file: File;
  /** Have bytes that an earlier read could not deliver. */
  kept: File;
  keptConn: Conn<Deno.Addr>;
  reader: PipeReader;
  writer: PipeWriter;
  conn: Conn<Deno.Addr>;
  listener: Listener;
  socket: DatagramConn;
  words: Int32Array<SharedArrayBuffer>;
}

type Options = OperationOptions & { ring?: Ring };
/** Awaited, it is over; what it has made is closed. */
type Run = (world: World, options?: Options) => PromiseLike<unknown>;

const data = Uint8Array.from({ length: 100 }, (_, i) => i);
const p = () => new Uint8Array(10);

async function closing(resource: Promise<AsyncDisposable>): Promise<void> {
  await (await resource)[Symbol.asyncDispose]();
}

async function first<T>(iterable: AsyncIterable<T>): Promise<T | undefined> {
  for await (const value of iterable) return value;
}

/** On what, and whether `signal` and `timeout` are taken. */
type Row = [name: string, on: keyof World, takes: "both" | "signal" | "neither", run: Run];

const operations: Row[] = [
  ["File.read", "file", "both", ({ file }, o) => file.read(p(), o)],
  ["File.read of nothing", "file", "both", ({ file }, o) => file.read(new Uint8Array(0), o)],
  ["File.readAt", "file", "both", ({ file }, o) => file.readAt(p(), 5, o)],
  ["File.readv", "file", "both", ({ file }, o) => file.readv([p(), p()], o)],
  ["File.readv of nothing", "file", "both", ({ file }, o) => file.readv([], o)],
  ["File.readFull", "file", "both", ({ file }, o) => file.readFull(p(), o)],
  ["File.readFull of nothing", "file", "both", ({ file }, o) => file.readFull(new Uint8Array(0), o)],
  ["File.readAll", "file", "both", ({ file }, o) => file.readAll(o)],
  ["File.write", "file", "both", ({ file }, o) => file.write(p(), o)],
  ["File.write of nothing", "file", "both", ({ file }, o) => file.write(new Uint8Array(0), o)],
  ["File.writeAt", "file", "both", ({ file }, o) => file.writeAt(p(), 5, o)],
  ["File.writev", "file", "both", ({ file }, o) => file.writev([p(), p()], o)],
  ["File.writev of nothing", "file", "both", ({ file }, o) => file.writev([], o)],
  ["File.writeAll", "file", "both", ({ file }, o) => file.writeAll(p(), o)],
  ["File.writeAll of nothing", "file", "both", ({ file }, o) => file.writeAll(new Uint8Array(0), o)],
  ["File.seek", "file", "both", ({ file }, o) => file.seek(5, Deno.SeekMode.Start, o)],
  ["File.stat", "file", "both", ({ file }, o) => file.stat(o)],
  ["File.sync", "file", "both", ({ file }, o) => file.sync(o)],
  ["File.syncData", "file", "both", ({ file }, o) => file.syncData(o)],
  ["File.truncate", "file", "both", ({ file }, o) => file.truncate(5, o)],
  ["File.allocate", "file", "both", ({ file }, o) => file.allocate(0, 1000, o)],
  ["File.advise", "file", "both", ({ file }, o) => file.advise("random", 0, 0, o)],
  ["File.chunks", "file", "neither", ({ file }) => first(file.chunks())],
  ["File.lines", "file", "neither", ({ file }) => first(file.lines())],
  ["File.read of kept bytes", "kept", "both", ({ kept }, o) => kept.read(p(), o)],
  ["File.readv of kept bytes", "kept", "both", ({ kept }, o) => kept.readv([p()], o)],
  ["File.readFull of kept bytes", "kept", "both", ({ kept }, o) => kept.readFull(new Uint8Array(1), o)],
  ["File.readAll of kept bytes", "kept", "both", ({ kept }, o) => kept.readAll(o)],
  ["File.chunks of kept bytes", "kept", "neither", ({ kept }) => first(kept.chunks())],
  ["Conn.read of kept bytes", "keptConn", "both", ({ keptConn }, o) => keptConn.read(p(), o)],
  ["Conn.chunks of kept bytes", "keptConn", "neither", ({ keptConn }) => first(keptConn.chunks())],
  ["poll of kept bytes", "kept", "both", ({ kept }, o) => poll(kept, ["in"], o)],
  ["copy of kept bytes", "kept", "both", ({ kept, conn }, o) => copy(kept, conn, { ...o, length: 1 })],
  ["PipeReader.read", "reader", "both", ({ reader }, o) => reader.read(p(), o)],
  ["PipeReader.readAll", "reader", "both", ({ reader }, o) => reader.readAll(o)],
  ["PipeWriter.write", "writer", "both", ({ writer }, o) => writer.write(p(), o)],
  ["PipeWriter.writeAll", "writer", "both", ({ writer }, o) => writer.writeAll(p(), o)],
  ["Conn.read", "conn", "both", ({ conn }, o) => conn.read(p(), o)],
  ["Conn.readAll", "conn", "both", ({ conn }, o) => conn.readAll(o)],
  ["Conn.write", "conn", "both", ({ conn }, o) => conn.write(p(), o)],
  ["Conn.writeAll", "conn", "both", ({ conn }, o) => conn.writeAll(p(), o)],
  ["Conn.closeWrite", "conn", "both", ({ conn }, o) => conn.closeWrite(o)],
  ["Conn.chunks", "conn", "neither", ({ conn }) => first(conn.chunks())],
  ["Listener.accept", "listener", "both", ({ listener }, o) => closing(listener.accept(o))],
  ["DatagramConn.receive", "socket", "both", ({ socket }, o) => socket.receive(undefined, o)],
  ["DatagramConn.send", "socket", "both", ({ socket }, o) => socket.send(p(), socket.addr, o)],
  [
    "DatagramConn.joinMulticastV4",
    "socket",
    "neither",
    ({ socket }) => socket.joinMulticastV4("239.255.0.1", "0.0.0.0"),
  ],
  ["poll", "conn", "both", ({ conn }, o) => poll(conn, ["in"], o)],
  ["pollEvents", "conn", "signal", ({ conn }, o) => first(pollEvents(conn, ["in"], o))],
  ["copy from a file", "file", "both", ({ file, conn }, o) => copy(file, conn, o)],
  ["copy to a file", "file", "both", ({ file, reader }, o) => copy(reader, file, { ...o, length: 1 })],
  ["copy from a connection", "conn", "both", ({ conn, writer }, o) => copy(conn, writer, { ...o, length: 1 })],
  ["copy of nothing", "conn", "both", ({ conn, writer }, o) => copy(conn, writer, { ...o, length: 0 })],
  ["tee from", "reader", "both", ({ reader, writer }, o) => tee(reader, writer, o)],
  ["tee to", "writer", "both", ({ reader, writer }, o) => tee(reader, writer, { ...o, length: 1 })],
  ["tee of nothing", "reader", "both", ({ reader, writer }, o) => tee(reader, writer, { ...o, length: 0 })],
  ["chain of writing", "file", "both", ({ file, ring }, o) => chain({ ...o, ring }).write(file, p())],
  [
    "chain of opening",
    "ring",
    "both",
    ({ path, ring }, o) => chain({ ...o, ring }).open(`${path}/new`, { write: true, createNew: true }).close(),
  ],
  ["chain of nothing", "ring", "both", ({ ring }, o) => chain({ ...o, ring })],
  [
    "open",
    "ring",
    "both",
    ({ path, ring }, o) => closing(open(`${path}/new`, { ...o, ring, write: true, createNew: true })),
  ],
  ["stat", "ring", "both", ({ path, ring }, o) => stat(path, { ...o, ring })],
  ["lstat", "ring", "both", ({ path, ring }, o) => lstat(path, { ...o, ring })],
  ["readFile", "ring", "both", ({ path, ring }, o) => readFile(`${path}/file`, { ...o, ring })],
  ["truncate", "ring", "both", ({ path, ring }, o) => truncate(`${path}/file`, 0, { ...o, ring })],
  ["writeFile", "ring", "both", ({ path, ring }, o) => writeFile(`${path}/new`, data, { ...o, ring })],
  ["copyFile", "ring", "both", ({ path, ring }, o) => copyFile(`${path}/file`, `${path}/new`, { ...o, ring })],
  ["mkdir", "ring", "both", ({ path, ring }, o) => mkdir(`${path}/new`, { ...o, ring })],
  ["mkdir of a path", "ring", "both", ({ path, ring }, o) => mkdir(`${path}/new/a`, { ...o, ring, recursive: true })],
  ["readDir", "ring", "both", ({ path, ring }, o) => first(readDir(path, { ...o, ring }))],
  ["rename", "ring", "both", ({ path, ring }, o) => rename(`${path}/file`, `${path}/new`, { ...o, ring })],
  ["link", "ring", "both", ({ path, ring }, o) => link(`${path}/file`, `${path}/new`, { ...o, ring })],
  ["symlink", "ring", "both", ({ path, ring }, o) => symlink("file", `${path}/new`, { ...o, ring })],
  ["listXattr", "ring", "both", ({ path, ring }, o) => listXattr(`${path}/file`, { ...o, ring })],
  ["remove", "ring", "both", ({ path, ring }, o) => remove(`${path}/file`, { ...o, ring })],
  ["remove of a tree", "ring", "both", ({ path, ring }, o) => remove(`${path}/dir`, { ...o, ring, recursive: true })],
  ["connect", "ring", "both", ({ ring, listener }, o) => closing(connect({ ...o, ring, port: listener.addr.port }))],
  [
    "connect to a Unix socket",
    "ring",
    "both",
    ({ ring }, o) => closing(connect({ ...o, ring, transport: "unix", path: `\0ringscope ${Deno.pid} nobody` })),
  ],
  ["connectDatagram", "ring", "both", ({ ring }, o) => closing(connectDatagram({ ...o, ring, port: 9 }))],
  ["listen", "ring", "neither", ({ ring }) => closing(listen({ ring, hostname: "127.0.0.1", port: 0 }))],
  [
    "listen on a Unix socket",
    "ring",
    "neither",
    ({ ring, path }) => closing(listen({ ring, transport: "unix", path: `${path}/new` })),
  ],
  [
    "listenDatagram",
    "ring",
    "neither",
    ({ ring }) => closing(listenDatagram({ ring, transport: "udp", hostname: "127.0.0.1", port: 0 })),
  ],
  ["sleep", "ring", "both", ({ ring }, o) => sleep(0, { ...o, ring })],
  ["interval", "ring", "signal", ({ ring }, o) => first(interval(0.1, { ...o, ring }))],
  ["interval of nothing", "ring", "signal", ({ ring }, o) => interval(1, { ...o, ring, count: 0 }).next()],
  ["waitProcess", "ring", "both", ({ ring }, o) => waitProcess(1, { ...o, ring })],
  ["futexWait", "ring", "both", ({ ring, words }, o) => futexWait(words, 0, 1, { ...o, ring })],
  ["futexWake", "ring", "both", ({ ring, words }, o) => futexWake(words, 0, 1, { ...o, ring })],
  ["Ring.submit", "ring", "both", ({ ring }, o) => ring.submit({ opcode: "NOP" }, o)],
  ["Ring.send", "ring", "both", ({ ring }, o) => ring.send(ring.fd, 1, o)],
  ["Ring.messages", "ring", "signal", ({ ring }, o) => first(ring.messages(o))],
];

async function withWorld(run: (world: World) => Promise<void>): Promise<void> {
  using dir = scratch();
  Deno.writeFileSync(dir.path("file"), data);
  Deno.mkdirSync(dir.path("dir"));
  Deno.writeFileSync(dir.path("dir/file"), data);
  await using ring = Ring.open({ entries: 64 });
  await using file = await open(dir.path("file"), { read: true, write: true, ring });
  const { reader, writer } = pipe({ ring });
  const feeder = pipe({ ring });
  await using kept = await open(`/proc/self/fd/${feeder.reader.fd}`, { ring });
  await feeder.writer.writeAll(data);
  const [keptConn, otherKept] = socketpair({ ring });
  await otherKept.writeAll(data);
  for (const from of [kept, keptConn]) {
    await assertRejects(() => from.readAll({ timeout: 1 }), DOMException); // it gives back what it has read
  }
  const [conn, other] = socketpair({ ring });
  await using listener = await listen({ hostname: "127.0.0.1", port: 0, ring });
  await using socket = await listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0, ring });
  const client = await Deno.connect({ port: listener.addr.port });
  libc.write(writer.fd, data);
  libc.write(other.fd, data);
  await socket.send(data, socket.addr);
  const words = new Int32Array(new SharedArrayBuffer(4));
  const path = dir.path(".");
  try {
    await run({ ring, path, file, kept, keptConn, reader, writer, conn, listener, socket, words });
  } finally {
    client.close();
    for (const end of [reader, writer, feeder.reader, feeder.writer, keptConn, otherKept, conn, other]) {
      await end.close();
    }
  }
}

/** Whatever an operation could have done, written down. */
function traces({ ring, path, file, reader, conn, socket }: World): unknown {
  const position = Number(/pos:\s*(\d+)/.exec(Deno.readTextFileSync(`/proc/self/fdinfo/${file.fd}`))![1]);
  return {
    enters: ring.enters,
    inFlight: ring.inFlight,
    names: [path, `${path}/dir`].map((directory) => Array.from(Deno.readDirSync(directory), ({ name }) => name)),
    content: Deno.readFileSync(`${path}/file`),
    blocks: Deno.statSync(`${path}/file`).blocks,
    position,
    pipe: libc.readable(reader.fd),
    conn: libc.readable(conn.fd),
    socket: libc.readable(socket.fd),
    open: [...descriptors()].map(([fd, what]) => `${fd} ${what}`).filter((what) => !what.includes("/proc")),
  };
}

async function rejection(run: () => PromiseLike<unknown>): Promise<unknown> {
  let value: unknown;
  try {
    value = await run();
  } catch (error) {
    return error;
  }
  throw new Error(`It has resolved: ${Deno.inspect(value)}`);
}

/** Tries them all, and says of each that fails how it does. */
async function each(rows: Row[], check: (row: Row) => Promise<void>): Promise<void> {
  const failures: string[] = [];
  for (const row of rows) await check(row).catch((error) => failures.push(`${row[0]}: ${error.message}`));
  assertEquals(failures.join("\n"), "");
}

const reason = new Error("enough");

Deno.test("each operation rejects in a cancelled scope, with its reason, and leaves no trace", () =>
  withWorld((world) =>
    each(operations, async ([, , , run]) => {
      const before = traces(world);
      const cancelled = scope(async (s) => {
        s.cancel(reason);
        await run(world);
      });
      assertStrictEquals(await rejection(() => cancelled), reason);
      assertEquals(traces(world), before);
    })
  ));

Deno.test("each operation rejects for an aborted signal, with its reason, and leaves no trace", () =>
  withWorld((world) =>
    each(operations.filter(([, , takes]) => takes !== "neither"), async ([, , , run]) => {
      const before = traces(world);
      assertStrictEquals(await rejection(() => run(world, { signal: AbortSignal.abort(reason) })), reason);
      assertEquals(traces(world), before);
    })
  ));

Deno.test("each operation refuses deadlines and signals that are none, and leaves no trace", () =>
  withWorld((world) =>
    each(operations.filter(([, , takes]) => takes !== "neither"), async ([, , takes, run]) => {
      const before = traces(world);
      // deno-lint-ignore no-explicit-any -- what JavaScript may pass
      const wrong: any[] = [{ signal: {} }, { signal: 5 }];
      if (takes === "both") wrong.push({ timeout: -1 }, { timeout: NaN }, { timeout: "5" });
      for (const options of wrong) {
        const error = await rejection(() => run(world, options));
        const expected = typeof options.timeout === "number" ? RangeError : TypeError;
        assertInstanceOf(error, expected, `${Deno.inspect(options)}: ${error}`);
        assertEquals(traces(world), before);
      }
    })
  ));

/** These wait for what nobody brings, or are refused by whom they reach; they are tested in tables of their own. */
const unanswered =
  /^(PipeReader.readAll|File.readAll of kept|Conn.readAll|tee|waitProcess|connect to a Unix|Ring.messages)/;

Deno.test("each operation takes an endless deadline and a signal that does not abort", async () => {
  const { signal } = new AbortController();
  await each(operations.filter(([name]) => !unanswered.test(name)), ([, , takes, run]) =>
    withWorld(async (world) => {
      await run(world, { both: { signal, timeout: Infinity }, signal: { signal }, neither: undefined }[takes]);
      assertEquals(world.ring.inFlight, 0);
    }));
});

Deno.test("each operation on what is closed is BadResource", () =>
  each(operations, ([, on, , run]) =>
    withWorld(async (world) => {
      await (world[on] as AsyncDisposable)[Symbol.asyncDispose]();
      const { enters } = world.ring;
      const error = await rejection(() => run(world));
      // Not by the kernel, which may have given the number to another file by now.
      assertInstanceOf(error, Deno.errors.BadResource, `${error}`);
      assertStringIncludes(error.message, "closed");
      if (on !== "ring") assertEquals(world.ring.enters, enters);
    })));
