/**
 * Every operation that can wait, and the same laws for each of them: its signal, its deadline, the scope around it and
 * the close of what it waits for end it, with their reason, once the kernel has given it up; it has taken nothing by
 * then; and afterwards it does its work as if nothing had been.
 */
import { assert, assertEquals, assertInstanceOf, assertStrictEquals } from "@std/assert";
import {
  chain,
  connect,
  connectDatagram,
  copy,
  defaultRing,
  futexWait,
  futexWake,
  interval,
  listen,
  listenDatagram,
  open,
  type OperationOptions,
  pipe,
  poll,
  pollEvents,
  readFile,
  Ring,
  scope,
  sleep,
  socketpair,
  tee,
  timeout,
  waitProcess,
} from "../mod.ts";
import { CountedController } from "./support/counted_signal.ts";
import { assertDescriptors, descriptors } from "./support/descriptors.ts";
import * as libc from "./support/libc.ts";
import { settleDefaultRing } from "./support/rings.ts";
import { loopTurn, until, within } from "./support/until.ts";

interface Waiting {
  /** Begins to wait. */
  wait(options?: OperationOptions): Promise<unknown>;
  /** Which of the options it takes. Default: both. */
  takes?: readonly (keyof OperationOptions)[];
  /** Brings about what it waits for. Default: nothing does, in the time of a test. */
  serve?(): unknown;
  /** What it resolves with when it has been served. */
  value?: unknown;
  /** Closes what it waits for. */
  close?(): Promise<void>;
}

/** Sets up what an operation waits for; what it `keep`s is closed in the end, in reverse order. */
type Prepare = (ring: Ring, keep: Keep) => Waiting | Promise<Waiting>;
type Keep = <T extends AsyncDisposable>(resource: T) => T;

const bytes = (...values: number[]) => Uint8Array.from(values);

/** The first value of an iteration, which is then left. */
async function first<T>(iterable: AsyncIterable<T>): Promise<T | "the end"> {
  for await (const value of iterable) return value;
  return "the end";
}

function pipeIn(ring: Ring, keep: Keep) {
  const { reader, writer } = pipe({ ring });
  return { reader: keep(reader), writer: keep(writer) };
}

function pairIn(ring: Ring, keep: Keep) {
  const [left, right] = socketpair({ ring });
  return [keep(left), keep(right)];
}

/** The reading end of a silent pipe, as a file. */
async function silentFile(ring: Ring, keep: Keep) {
  const { reader, writer } = pipeIn(ring, keep);
  const file = keep(await open(`/proc/self/fd/${reader.fd}`, { ring }));
  await reader.close();
  return { file, writer };
}

const PIPE_BYTES = 65536;

/** A pipe without room. */
function fullPipe(ring: Ring, keep: Keep) {
  const { reader, writer } = pipeIn(ring, keep);
  libc.write(writer.fd, new Uint8Array(PIPE_BYTES));
  const serve = () => {
    assertEquals(libc.readable(reader.fd), PIPE_BYTES, "bytes that were rejected have gone");
    libc.read(reader.fd, new Uint8Array(PIPE_BYTES));
  };
  return { reader, writer, serve };
}

async function fullFile(ring: Ring, keep: Keep) {
  const { writer, serve } = fullPipe(ring, keep);
  return { file: keep(await open(`/proc/self/fd/${writer.fd}`, { write: true, ring })), serve };
}

/** A connection whose other end does not read. */
async function fullPair(ring: Ring, keep: Keep) {
  const [conn, other] = pairIn(ring, keep);
  let sent = 0;
  for (const size of [1 << 20, 1]) {
    for (let room = true; room;) {
      try {
        sent += await conn.write(new Uint8Array(size), { timeout: 1 });
      } catch {
        room = false;
      }
    }
  }
  const serve = () => {
    assertEquals(libc.readable(other.fd), sent, "bytes that were rejected have gone");
    for (const p = new Uint8Array(1 << 20); sent > 0;) sent -= libc.read(other.fd, p);
  };
  return { conn, serve };
}

function fifo(keep: Keep): string {
  const directory = Deno.makeTempDirSync();
  keep({ [Symbol.asyncDispose]: () => Deno.remove(directory, { recursive: true }) });
  const path = `${directory}/fifo`;
  libc.mkfifo(path);
  return path;
}

const operations: [name: string, prepare: Prepare][] = [
  ["File.read", async (ring, keep) => {
    const { file, writer } = await silentFile(ring, keep);
    return {
      wait: (options) => file.read(new Uint8Array(9), options),
      serve: () => libc.write(writer.fd, bytes(1, 2)),
      value: 2,
      close: () => file.close(),
    };
  }],
  ["File.readv", async (ring, keep) => {
    const { file, writer } = await silentFile(ring, keep);
    return {
      wait: (options) => file.readv([new Uint8Array(1), new Uint8Array(9)], options),
      serve: () => libc.write(writer.fd, bytes(1, 2)),
      value: 2,
      close: () => file.close(),
    };
  }],
  ["File.readFull", async (ring, keep) => {
    const { file, writer } = await silentFile(ring, keep);
    return {
      wait: (options) => file.readFull(new Uint8Array(2), options),
      serve: () => libc.write(writer.fd, bytes(1, 2)),
      value: 2,
      close: () => file.close(),
    };
  }],
  ["File.readAll", async (ring, keep) => {
    const { file, writer } = await silentFile(ring, keep);
    return {
      wait: (options) => file.readAll(options),
      async serve() {
        libc.write(writer.fd, bytes(1, 2));
        await writer.close();
      },
      value: bytes(1, 2),
      close: () => file.close(),
    };
  }],
  ["File.chunks", async (ring, keep) => {
    const { file, writer } = await silentFile(ring, keep);
    return {
      wait: () => first(file.chunks()),
      takes: [],
      serve: () => libc.write(writer.fd, bytes(1, 2)),
      value: bytes(1, 2),
      close: () => file.close(),
    };
  }],
  ["File.lines", async (ring, keep) => {
    const { file, writer } = await silentFile(ring, keep);
    return {
      wait: () => first(file.lines()),
      takes: [],
      serve: () => libc.write(writer.fd, new TextEncoder().encode("a\nb")),
      value: "a",
      close: () => file.close(),
    };
  }],
  ["File.write", async (ring, keep) => {
    const { file, serve } = await fullFile(ring, keep);
    return { wait: (options) => file.write(bytes(1), options), serve, value: 1, close: () => file.close() };
  }],
  ["File.writev", async (ring, keep) => {
    const { file, serve } = await fullFile(ring, keep);
    return {
      wait: (options) => file.writev([bytes(1), bytes(2)], options),
      serve,
      value: 2,
      close: () => file.close(),
    };
  }],
  ["File.writeAll", async (ring, keep) => {
    const { file, serve } = await fullFile(ring, keep);
    return { wait: (options) => file.writeAll(bytes(1), options), serve, close: () => file.close() };
  }],
  ["open of a FIFO", (ring, keep) => {
    const path = fifo(keep);
    return {
      wait: async (options) => await (await open(path, { ...options, ring })).close(),
      serve: async () => (await Deno.open(path, { write: true })).close(),
    };
  }],
  ["open of a FIFO for writing", (ring, keep) => {
    const path = fifo(keep);
    return {
      wait: async (options) => await (await open(path, { ...options, write: true, ring })).close(),
      serve: async () => (await Deno.open(path)).close(),
    };
  }],
  ["readFile of a FIFO", (ring, keep) => {
    const path = fifo(keep);
    return {
      wait: (options) => readFile(path, { ...options, ring }),
      serve: () => Deno.writeFile(path, bytes(1, 2), { create: false }),
      value: bytes(1, 2),
    };
  }],
  ["PipeReader.read", (ring, keep) => {
    const { reader, writer } = pipeIn(ring, keep);
    return {
      wait: (options) => reader.read(new Uint8Array(9), options),
      serve: () => libc.write(writer.fd, bytes(1, 2)),
      value: 2,
      close: () => reader.close(),
    };
  }],
  ["PipeReader.readAll", (ring, keep) => {
    const { reader, writer } = pipeIn(ring, keep);
    return {
      wait: (options) => reader.readAll(options),
      async serve() {
        libc.write(writer.fd, bytes(1, 2));
        await writer.close();
      },
      value: bytes(1, 2),
      close: () => reader.close(),
    };
  }],
  ["PipeWriter.write", (ring, keep) => {
    const { writer, serve } = fullPipe(ring, keep);
    return { wait: (options) => writer.write(bytes(1), options), serve, value: 1, close: () => writer.close() };
  }],
  ["PipeWriter.writeAll", (ring, keep) => {
    const { writer, serve } = fullPipe(ring, keep);
    return { wait: (options) => writer.writeAll(bytes(1), options), serve, close: () => writer.close() };
  }],
  ["Conn.read", (ring, keep) => {
    const [conn, other] = pairIn(ring, keep);
    return {
      wait: (options) => conn.read(new Uint8Array(9), options),
      serve: () => libc.write(other.fd, bytes(1, 2)),
      value: 2,
      close: () => conn.close(),
    };
  }],
  ["Conn.readAll", (ring, keep) => {
    const [conn, other] = pairIn(ring, keep);
    return {
      wait: (options) => conn.readAll(options),
      async serve() {
        libc.write(other.fd, bytes(1, 2));
        await other.close();
      },
      value: bytes(1, 2),
      close: () => conn.close(),
    };
  }],
  ["Conn.chunks", (ring, keep) => {
    const [conn, other] = pairIn(ring, keep);
    return {
      wait: () => first(conn.chunks()),
      takes: [],
      serve: () => libc.write(other.fd, bytes(1, 2)),
      value: bytes(1, 2),
      close: () => conn.close(),
    };
  }],
  ["Conn.write", async (ring, keep) => {
    const { conn, serve } = await fullPair(ring, keep);
    return { wait: (options) => conn.write(bytes(1), options), serve, value: 1, close: () => conn.close() };
  }],
  ["Conn.writeAll", async (ring, keep) => {
    const { conn, serve } = await fullPair(ring, keep);
    return { wait: (options) => conn.writeAll(bytes(1), options), serve, close: () => conn.close() };
  }],
  ["connect over TCP", async (ring, keep) => {
    const listener = keep(await listen({ hostname: "127.0.0.1", port: 0, backlog: 0 }));
    const { port } = listener.addr;
    keep(await connect({ port })); // all there is room for; the next one waits for the kernel to ask again, a second later
    return { wait: async (options) => await (await connect({ ...options, port, ring })).close() };
  }],
  ["connect to a Unix socket", async (ring, keep) => {
    const address = { transport: "unix", path: `\0ringscope ${Deno.pid} waiting` } as const;
    const listener = keep(await listen({ ...address, backlog: 0 }));
    keep(await connect(address));
    return {
      wait: async (options) => await (await connect({ ...options, ...address, ring })).close(),
      serve: async () => void keep(await listener.accept()),
    };
  }],
  ["Listener.accept", async (ring, keep) => {
    const listener = keep(await listen({ hostname: "127.0.0.1", port: 0, ring }));
    return {
      wait: async (options) => await (await listener.accept(options)).close(),
      serve: async () => void keep(await connect({ port: listener.addr.port })),
      close: () => listener.close(),
    };
  }],
  ["an iteration over a listener", async (ring, keep) => {
    const listener = keep(await listen({ hostname: "127.0.0.1", port: 0, ring }));
    return {
      async wait() {
        const conn = await first(listener);
        if (typeof conn !== "string") await conn.close();
      },
      takes: [],
      serve: async () => void keep(await connect({ port: listener.addr.port })),
    };
  }],
  ["DatagramConn.receive", async (ring, keep) => {
    const here = keep(await listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0, ring }));
    const there = keep(await connectDatagram({ port: here.addr.port }));
    return {
      wait: async (options) => (await here.receive(undefined, options))[0],
      serve: () => libc.write(there.fd, bytes(1, 2)),
      value: bytes(1, 2),
      close: () => here.close(),
    };
  }],
  ["an iteration over datagrams", async (ring, keep) => {
    const here = keep(await listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0, ring }));
    const there = keep(await connectDatagram({ port: here.addr.port }));
    return {
      wait: async () => (await first(here))[0],
      takes: [],
      serve: () => libc.write(there.fd, bytes(1, 2)),
      value: bytes(1, 2),
    };
  }],
  ["DatagramConn.send", async (ring, keep) => {
    const address = { transport: "unixpacket", path: `\0ringscope ${Deno.pid} waiting` } as const;
    const receiver = keep(await listenDatagram(address));
    const sender = keep(await connectDatagram({ ...address, ring }));
    let sent = 0;
    for (let room = true; room; sent++) {
      await sender.send(bytes(sent), undefined, { timeout: 1 }).catch(() => room = false);
    }
    return {
      wait: (options) => sender.send(bytes(99), undefined, options),
      async serve() {
        for (let i = 0; i < sent - 1; i++) assertEquals((await receiver.receive())[0], bytes(i));
      },
      value: 1,
      close: () => sender.close(),
    };
  }],
  ["poll", (ring, keep) => {
    const [conn, other] = pairIn(ring, keep);
    return {
      wait: (options) => poll(conn, ["in"], options),
      serve: () => libc.write(other.fd, bytes(1)),
      value: new Set(["in"]),
      close: () => conn.close(),
    };
  }],
  ["pollEvents", (ring, keep) => {
    const [conn, other] = pairIn(ring, keep);
    return {
      wait: (options) => first(pollEvents(conn, ["in"], options)),
      takes: ["signal"],
      serve: () => libc.write(other.fd, bytes(1)),
      value: new Set(["in"]),
      close: () => conn.close(),
    };
  }],
  ["copy", (ring, keep) => {
    const { reader, writer } = pipeIn(ring, keep);
    const [left] = pairIn(ring, keep);
    return {
      wait: (options) => copy(reader, left, { ...options, length: 2 }),
      serve: () => libc.write(writer.fd, bytes(1, 2)),
      value: 2,
      close: () => reader.close(),
    };
  }],
  ["copy into what is full", async (ring, keep) => {
    const { reader, writer } = pipeIn(ring, keep);
    const { conn, serve } = await fullPair(ring, keep);
    libc.write(writer.fd, bytes(1, 2));
    return {
      wait: (options) => copy(reader, conn, { ...options, length: 2 }),
      serve,
      value: 2,
      close: () => conn.close(),
    };
  }],
  ["tee", (ring, keep) => {
    const one = pipeIn(ring, keep);
    const other = pipeIn(ring, keep);
    return {
      wait: (options) => tee(one.reader, other.writer, options),
      serve: () => libc.write(one.writer.fd, bytes(1, 2)),
      value: 2,
      close: () => one.reader.close(),
    };
  }],
  ["tee into what is full", (ring, keep) => {
    const { reader, writer } = pipeIn(ring, keep);
    const full = fullPipe(ring, keep);
    libc.write(writer.fd, bytes(1, 2));
    return {
      wait: (options) => tee(reader, full.writer, options),
      serve: full.serve,
      value: 2,
      close: () => full.writer.close(),
    };
  }],
  ["chain", (ring, keep) => {
    const [conn, other] = pairIn(ring, keep);
    return {
      wait: async (options) => await chain({ ...options, ring }).read(conn, new Uint8Array(2)).write(conn, bytes(1)),
      serve: () => libc.write(other.fd, bytes(1, 2)),
      value: [2, 1],
      close: () => conn.close(),
    };
  }],
  ["sleep", (ring) => ({ wait: (options) => sleep(1e6, { ...options, ring }) })],
  ["interval", (ring) => ({ wait: (options) => first(interval(1e6, { ...options, ring })), takes: ["signal"] })],
  ["waitProcess", (ring, keep) => {
    const child = new Deno.Command("/bin/sh", { args: ["-c", "exec sleep 1000"] }).spawn();
    keep({ [Symbol.asyncDispose]: () => child.status.then(() => {}) });
    return {
      wait: (options) => waitProcess(child, { ...options, ring }),
      serve: () => child.kill("SIGTERM"),
      value: { pid: child.pid, code: 143, signal: "SIGTERM" },
    };
  }],
  ["futexWait", (ring) => {
    const words = new Int32Array(new SharedArrayBuffer(4));
    return {
      wait: (options) => futexWait(words, 0, 0, { ...options, ring }),
      serve: async () => assertEquals(await futexWake(words, 0), 1),
      value: "ok",
    };
  }],
  ["Ring.messages", (ring) => ({
    wait: (options) => first(ring.messages(options)),
    takes: ["signal"],
    serve: () => defaultRing().send(ring.fd, 42),
    value: 42,
  })],
  ["Ring.submit", (ring, keep) => {
    const [conn, other] = pairIn(ring, keep);
    return {
      wait: async (options) => (await ring.submit({ opcode: "POLL_ADD", fd: conn.fd, flags: 1 }, options)).result,
      serve: () => libc.write(other.fd, bytes(1)),
      value: 1,
    };
  }],
  ["Ring.submitMultishot", (ring, keep) => {
    const [conn, other] = pairIn(ring, keep);
    const request = { opcode: "POLL_ADD", fd: conn.fd, flags: 1 } as const;
    return {
      async wait(options) {
        const completion = await first(ring.submitMultishot(request, options));
        return typeof completion === "string" ? completion : completion.result;
      },
      takes: ["signal"],
      serve: () => libc.write(other.fd, bytes(1)),
      value: 1,
    };
  }],
];

await settleDefaultRing();

for (const [name, prepare] of operations) {
  Deno.test(`${name} ends with its signal, its deadline and its scope, has taken nothing, and then does its work`, async () => {
    const before = descriptors();
    const kept: AsyncDisposable[] = [];
    const keep: Keep = (resource) => (kept.push(resource), resource);
    const ring = Ring.open({ entries: 64 });
    const { wait, takes = ["signal", "timeout"], serve, value, close } = await prepare(ring, keep);
    assertEquals(ring.inFlight, 0);

    /** The rejection, at whose time nothing may be in flight any more. */
    const rejection = (waiting: Promise<unknown>): Promise<unknown> =>
      within(
        name,
        waiting.then((value) => {
          throw new Error(`It has resolved: ${Deno.inspect(value)}`);
        }, (error) => {
          assertEquals(ring.inFlight, 0, "it has rejected and is still in flight");
          return error;
        }),
      );
    const inTheKernel = async () => {
      await until("it waits", () => ring.inFlight > 0);
      await loopTurn();
      assert(ring.inFlight > 0, "it did not wait");
    };
    const reason = new Error("enough");

    if (takes.includes("signal")) {
      const enters = ring.enters;
      assertStrictEquals(await rejection(wait({ signal: AbortSignal.abort(reason) })), reason);
      assertEquals(ring.enters, enters, "an aborted signal has cost a system call");

      for (const cause of [reason, Object.freeze(new Error("frozen")), "text", null]) {
        const controller = new CountedController();
        const aborted = rejection(wait({ signal: controller.signal }));
        await inTheKernel();
        controller.abort(cause);
        assertStrictEquals(await aborted, cause);
        assertEquals([controller.listeners.size, controller.most], [0, 1]);
      }
    }

    if (takes.includes("timeout")) {
      for (const ms of [0, 2]) {
        const overdue = await rejection(wait({ timeout: ms }));
        assertInstanceOf(overdue, DOMException);
        assertEquals(overdue.name, "TimeoutError");
      }
    }

    const deadline = await rejection(timeout(2, () => wait()));
    assertInstanceOf(deadline, DOMException);
    assertEquals(deadline.name, "TimeoutError");

    const entered = ring.enters;
    const late = rejection(scope(async (s) => {
      s.cancel(reason);
      await wait();
    }));
    assertStrictEquals(await late, reason);
    assertEquals(ring.enters, entered, "a cancelled scope has cost a system call");

    const cancelled = rejection(scope(async (s) => {
      s.spawn(async () => {
        await inTheKernel();
        s.cancel(reason);
      });
      await wait();
    }));
    assertStrictEquals(await cancelled, reason);

    if (serve !== undefined) {
      const waiting = wait();
      await inTheKernel();
      await within(`${name} is served`, Promise.resolve(serve()));
      assertEquals(await within(`${name} is served`, waiting), value);
      assertEquals(ring.inFlight, 0);
    }

    for (const resource of kept.reverse()) await resource[Symbol.asyncDispose]();
    await ring.close();
    await assertDescriptors(before);
    assertEquals(defaultRing().inFlight, 0);

    if (close === undefined) return;
    await closesWhileWaiting(name, prepare);
  });
}

/** With everything set up anew: closing what an operation waits for ends it, and all that comes after. */
async function closesWhileWaiting(name: string, prepare: Prepare): Promise<void> {
  const kept: AsyncDisposable[] = [];
  await using ring = Ring.open({ entries: 64 });
  const { wait, close } = await prepare(ring, (resource) => (kept.push(resource), resource));
  const ended = wait().catch((error) => error);
  await until("it waits", () => ring.inFlight > 0);
  await loopTurn();
  await within("the close", close!());
  const error = await within(`${name} after the close`, ended);
  assertInstanceOf(error, Deno.errors.BadResource);
  assertInstanceOf(await wait().catch((error) => error), Deno.errors.BadResource);
  assertEquals(ring.inFlight, 0);
  for (const resource of kept.reverse()) await resource[Symbol.asyncDispose]();
}

interface Target {
  writeAll(p: Uint8Array, options?: OperationOptions): Promise<void>;
}

Deno.test("a writeAll that has got some way ends alike, and says how many bytes went", async () => {
  await using ring = Ring.open({ entries: 64 });
  const much = Uint8Array.from({ length: 5_000_000 }, (_, i) => i * 7 + (i >> 8));
  const targets: [string, (keep: Keep) => [Target, from: number] | Promise<[Target, from: number]>][] = [
    ["PipeWriter", (keep) => {
      const { reader, writer } = pipeIn(ring, keep);
      return [writer, reader.fd];
    }],
    ["File", async (keep) => {
      const { reader, writer } = pipeIn(ring, keep);
      return [keep(await open(`/proc/self/fd/${writer.fd}`, { write: true, ring })), reader.fd];
    }],
    ["Conn", (keep) => {
      const [conn, other] = pairIn(ring, keep);
      return [conn, other.fd];
    }],
  ];
  const reason = new Error("enough");
  const ways: [string, (write: (options?: OperationOptions) => Promise<void>) => Promise<unknown>][] = [
    ["signal", async (write) => {
      const controller = new AbortController();
      const writing = write({ signal: controller.signal });
      for (let i = 0; i < 5; i++) await loopTurn();
      controller.abort(reason);
      await writing;
    }],
    ["timeout", (write) => write({ timeout: 5 })],
    ["deadline around it", (write) => timeout(5, () => write())],
    ["scope", (write) =>
      scope(async (s) => {
        s.spawn(async () => {
          for (let i = 0; i < 5; i++) await loopTurn();
          s.cancel(reason);
        });
        await write();
      })],
  ];
  for (const [what, prepare] of targets) {
    for (const [how, run] of ways) {
      const kept: AsyncDisposable[] = [];
      const [target, from] = await prepare((resource) => (kept.push(resource), resource));
      const writing = run((options) => target.writeAll(much, options));
      const error = await within(`${what}, ${how}`, writing.then(() => null, (error) => error));
      assert(
        how === "signal" || how === "scope" ? error === reason : error?.name === "TimeoutError",
        `${what}, ${how}`,
      );
      assertEquals(ring.inFlight, 0);
      const { bytesWritten } = error as { bytesWritten: number };
      assert(bytesWritten > 0, `${what}, ${how}: ${bytesWritten} bytes`);
      assertEquals(libc.readable(from), bytesWritten, `${what}, ${how}`);
      const arrived = new Uint8Array(bytesWritten);
      for (let n = 0; n < bytesWritten;) n += libc.read(from, arrived.subarray(n));
      assert(arrived.every((byte, i) => byte === much[i]), `${what}, ${how}`);
      for (const resource of kept.reverse()) await resource[Symbol.asyncDispose]();
    }
  }
});
