/**
 * What is left on older kernels: everything that has a way to do without, and a clear word from all that has none.
 * The kernel under these tests is a newer one, so this shows that nothing newer is asked of it.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  chain,
  connect,
  copy,
  futexWait,
  futexWake,
  interval,
  listen,
  listenDatagram,
  open,
  pipe,
  poll,
  pollEvents,
  Ring,
  scope,
  sleep,
  socketpair,
  stat,
  timeout,
  waitProcess,
} from "../mod.ts";
import { driverOf } from "../ring/ring.ts";
import { Op, type OpcodeName, opcodeSince } from "../ring/uring_abi.ts";
import { within } from "./support/until.ts";

const COOP_TASKRUN = 1 << 8;
const SINGLE_ISSUER = 1 << 12;
const NO_SQARRAY = 1 << 16;
const bytes = Uint8Array.from({ length: 5000 }, (_, i) => i);

/** Whether `kernel` is the release `since` or a later one; without `since`, it has been there always. */
function has(kernel: string, since: string | undefined): boolean {
  if (since === undefined) return true;
  const [major, minor] = kernel.split(".").map(Number);
  const [sinceMajor, sinceMinor] = since.split(".").map(Number);
  return major > sinceMajor || (major === sinceMajor && minor >= sinceMinor);
}

async function files(ring: Ring): Promise<void> {
  const path = await Deno.makeTempFile();
  {
    await using file = await open(path, { read: true, write: true, ring });
    await file.writeAll(bytes);
    const back = new Uint8Array(bytes.byteLength);
    assertEquals(await file.readAt(back, 0), bytes.byteLength);
    assertEquals(back, bytes);
    await file.truncate(4000);
    assertEquals((await file.stat()).size, 4000);
    assertEquals((await stat(path, { ring })).size, 4000);
    await file.writeAt(bytes.subarray(4000), 4000);
    const { reader, writer } = pipe({ ring });
    await using again = await open(path, { ring });
    assertEquals(await copy(again, writer), bytes.byteLength);
    await writer.close();
    assertEquals(await reader.readAll(), bytes);
    await reader.close();
  }
  const buffer = new Uint8Array(10);
  const [, n] = await chain({ ring }).open(path).read(buffer).close();
  assertEquals([n, buffer], [10, bytes.slice(0, 10)]);
  await Deno.remove(path);
}

async function sockets(ring: Ring): Promise<void> {
  await using listener = await listen({ hostname: "127.0.0.1", port: 0, ring });
  await scope((s) => {
    s.spawn(async () => {
      for await (const conn of listener) {
        s.spawn(async () => {
          for await (const chunk of conn.chunks()) await conn.writeAll(chunk);
          await conn.close();
        });
      }
    }, { background: true });
    for (let i = 0; i < 5; i++) {
      s.spawn(async () => {
        await using client = await connect({ hostname: "127.0.0.1", port: listener.addr.port, ring });
        await client.writeAll(bytes);
        await client.closeWrite();
        assertEquals(await client.readAll(), bytes);
      });
    }
  });
}

async function datagrams(ring: Ring): Promise<void> {
  await using one = await listenDatagram({ hostname: "127.0.0.1", port: 0, transport: "udp", ring });
  await using other = await listenDatagram({ hostname: "127.0.0.1", port: 0, transport: "udp", ring });
  await one.send(bytes.subarray(0, 9), other.addr);
  assertEquals(await other.receive(), [bytes.slice(0, 9), one.addr]);
}

async function cancels(ring: Ring): Promise<void> {
  const [left, right] = socketpair({ ring });
  const p = new Uint8Array(1);
  const controller = new AbortController();
  const reads = Array.from({ length: 100 }, () => left.read(p, { signal: controller.signal }));
  controller.abort("enough");
  for (const result of await Promise.allSettled(reads)) assertEquals(result, { status: "rejected", reason: "enough" });
  await assertRejects(() => left.read(p, { timeout: 1 }), DOMException);
  await assertRejects(() => timeout(1, () => left.chunks().next()), DOMException);
  await assertRejects(() => poll(left, ["in"], { timeout: 1 }), DOMException);
  const ready = pollEvents(left, ["in"]);
  await right.write(p);
  assertEquals((await ready.next()).value, new Set(["in"]));
  await ready.return!();
  await Promise.all([left.close(), right.close()]);
}

async function time(ring: Ring): Promise<void> {
  await sleep(1, { ring });
  const ticks: number[] = [];
  for await (const tick of interval(1, { count: 3, ring })) ticks.push(tick);
  assertEquals(ticks.at(-1), 2);
  await ring.send(ring.fd, 7);
  const messages = ring.messages();
  assertEquals((await messages.next()).value, 7);
  await messages.return!();
}

for (const kernel of ["5.19", "6.0", "6.1", "6.6"]) {
  Deno.test(`on ${kernel} all that can do without newer things works`, async () => {
    const before = performance.now();
    await using ring = Ring.open({ kernel });
    for (const part of [files, sockets, datagrams, cancels, time]) {
      await within(`${part.name} on ${kernel}`, part(ring));
    }
    assertEquals(ring.inFlight, 0);
    assert(performance.now() - before < 20_000);
  });

  Deno.test(`on ${kernel} a ring is set up with the flags of that kernel`, async () => {
    await using ring = Ring.open({ kernel });
    await using newest = Ring.open();
    const flags = driverOf(ring).uring.flags;
    const available = driverOf(newest).uring.flags;
    assertEquals(flags & SINGLE_ISSUER, has(kernel, "6.0") ? available & SINGLE_ISSUER : 0);
    assertEquals(flags & NO_SQARRAY, has(kernel, "6.6") ? available & NO_SQARRAY : 0);
    assertEquals(flags & COOP_TASKRUN, COOP_TASKRUN);
  });

  Deno.test(`on ${kernel} what it has not is told by supports, and refused with what has it`, async () => {
    await using ring = Ring.open({ kernel });
    for (const opcode of Object.keys(Op) as OpcodeName[]) {
      const since = opcodeSince.get(Op[opcode]);
      if (!has(kernel, since)) assertEquals(ring.supports(opcode), false, opcode);
      else if (since === undefined) assertEquals(ring.supports(opcode), true, opcode);
    }
    const words = new Int32Array(new SharedArrayBuffer(4));
    const newer: [OpcodeName, string, () => Promise<unknown>][] = [
      ["WAITID", "6.7", () => waitProcess(1, { ring })],
      ["FUTEX_WAIT", "6.7", () => futexWait(words, 0, 0, { ring })],
      ["FUTEX_WAKE", "6.7", () => futexWake(words, 0, 1, { ring })],
      ["FTRUNCATE", "6.9", () => ring.submit({ opcode: "FTRUNCATE", fd: 0 })],
      ["READ_MULTISHOT", "6.7", () => ring.submitMultishot({ opcode: "READ_MULTISHOT", provided: true }).next()],
      ["PIPE", "6.16", () => ring.submit({ opcode: "PIPE" })],
    ];
    for (const [opcode, since, run] of newer) {
      const error = await assertRejects(run, Deno.errors.NotSupported, opcode) as Error & { code: string };
      assertEquals(error.message.includes(`Linux ${since} or later`), true, error.message);
      assertEquals(error.code, "ENOSYS");
    }
    assertEquals(ring.inFlight, 0);
  });
}

Deno.test("multishot receives are used from 6.0 on, and reads before", async () => {
  for (const kernel of ["5.19", "6.0"]) {
    await using ring = Ring.open({ kernel });
    const [left, right] = socketpair({ ring });
    const chunks = left.chunks();
    for (let i = 0; i < 3; i++) {
      await right.write(bytes.subarray(0, 10));
      assertEquals((await chunks.next()).value, bytes.slice(0, 10));
    }
    // A multishot waits for the next bytes by itself; a read is made when somebody asks.
    assertEquals(ring.inFlight, kernel === "6.0" ? 1 : 0);
    await chunks.return!();
    await Promise.all([left.close(), right.close()]);
  }
});
