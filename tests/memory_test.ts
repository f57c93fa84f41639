/**
 * Memory that the kernel writes into stays valid until it is done with it, whatever a program does with its buffers, its
 * workers and its rings.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { chain, pipe, Ring, sleep, socketpair } from "../mod.ts";
import { assertDescriptors, descriptors } from "./support/descriptors.ts";
import * as libc from "./support/libc.ts";
import { program } from "./support/program.ts";
import { ringKinds } from "./support/rings.ts";
import { loopTurn } from "./support/until.ts";

for (const [kind, options] of ringKinds) {
  const reads = options.doorbell === "pipe" ? 100_000 : 20_000;
  Deno.test(`${reads} cancelled and completed reads corrupt nothing while garbage is collected, ${kind}`, async () => {
    const { code, out, err } = await program(new URL("./support/garbage_reads.ts", import.meta.url), {
      flags: ["-A", "--v8-flags=--expose-gc"],
      args: [JSON.stringify(options), String(reads)],
    });
    assertEquals([code, err], [0, ""]);
    const { values, aborted, undelivered, collected } = JSON.parse(out);
    assert(values > reads / 4 && aborted > reads / 10 && undelivered > reads / 200 && collected > reads / 100, out);
  });
}

/** Ways to take a buffer's memory away; each returns how much of it the view can still see. */
const thefts: [name: string, make: () => Uint8Array<ArrayBuffer>, steal: (view: Uint8Array<ArrayBuffer>) => void][] = [
  ["transferred", () => new Uint8Array(8), (view) => view.buffer.transfer()],
  ["cloned away", () => new Uint8Array(8), (view) => structuredClone(null, { transfer: [view.buffer] })],
  ["posted away", () => new Uint8Array(8), (view) => {
    const { port1, port2 } = new MessageChannel();
    port1.postMessage(null, [view.buffer]);
    port1.close();
    port2.close();
  }],
  [
    "shrunk to nothing",
    () => new Uint8Array(new ArrayBuffer(8, { maxByteLength: 16 })),
    (view) => view.buffer.resize(0),
  ],
  ["shrunk below what comes", () => new Uint8Array(new ArrayBuffer(8, { maxByteLength: 16 })), (view) => {
    view.buffer.resize(3);
  }],
  ["pushed out of bounds", () => new Uint8Array(new ArrayBuffer(16, { maxByteLength: 16 }), 8, 8), (view) => {
    view.buffer.resize(15);
  }],
];

for (const [name, make, steal] of thefts) {
  Deno.test(`bytes for a buffer that was ${name} come with the next read`, async () => {
    const { reader, writer } = pipe();
    const [left, right] = socketpair();
    for (const [from, to] of [[reader, writer], [left, right]] as const) {
      const view = make();
      const reading = from.read(view);
      await loopTurn();
      steal(view);
      await to.writeAll(new Uint8Array([1, 2, 3, 4, 5, 6]));
      await assertRejects(() => reading, TypeError, "6 bytes had arrived; the next read delivers them");
      await to.writeAll(new Uint8Array([7]));
      const parts: number[] = [];
      while (parts.length < 7) {
        const p = new Uint8Array(4);
        const n = await from.read(p);
        parts.push(...p.subarray(0, n!));
      }
      assertEquals(parts, [1, 2, 3, 4, 5, 6, 7]);
    }
    await Promise.all([reader, writer, left, right].map((end) => end.close()));
  });

  Deno.test(`a buffer that was ${name} before its request was submitted moves nothing`, async () => {
    const [left, right] = socketpair();
    await right.write(new Uint8Array([1, 2, 3]));
    const view = make();
    const reading = left.read(view);
    steal(view);
    await assertRejects(() => reading, TypeError, "before read was submitted; nothing was transferred");
    const source = make();
    const writing = right.writeAll(source);
    steal(source);
    const error = await assertRejects(() => writing, TypeError, "before write was submitted");
    assertEquals((error as TypeError & { bytesWritten?: number }).bytesWritten, 0);
    const p = new Uint8Array(8);
    assertEquals([await left.read(p), libc.readable(left.fd)], [3, 0]);
    await left.close();
    await right.close();
  });
}

Deno.test("a view that grows while a read is in flight gets no more than it asked for", async () => {
  const [left, right] = socketpair();
  const buffer = new ArrayBuffer(4, { maxByteLength: 64 });
  const view = new Uint8Array(buffer);
  const reading = left.read(view);
  await loopTurn();
  buffer.resize(64);
  await right.write(new Uint8Array(10).fill(7));
  assertEquals(await reading, 4);
  assertEquals(view.indexOf(0), 4);
  assertEquals(libc.readable(left.fd), 6);
  await left.close();
  await right.close();
});

Deno.test("what a write sends is what the buffer held when it was submitted", async () => {
  const [left, right] = socketpair();
  // More than fits, so that part of it waits while the buffer is overwritten.
  const data = new Uint8Array(1 << 20).fill(1);
  const writing = right.writeAll(data);
  await loopTurn();
  data.fill(2);
  let received = 0;
  const p = new Uint8Array(1 << 16);
  while (received < data.byteLength) {
    const n = await left.read(p);
    for (let i = 0; i < n!; i++) assert(p[i] === 1, `byte ${received + i}`);
    received += n!;
  }
  await writing;
  await left.close();
  await right.close();
});

/**
 * Bytes that rings have mapped: the two queues, and memory that a forked child would not get. V8's heap is the like, but
 * it lies lower, at addresses that V8 chooses.
 */
function mapped(): number {
  let bytes = 0;
  for (const area of Deno.readTextFileSync("/proc/self/smaps").split(/^(?=[\da-f]+-)/m)) {
    const ours = area.includes("anon_inode:[io_uring]") ||
      /^VmFlags:.* dc\b/m.test(area) && parseInt(area, 16) > 0x7000_0000_0000;
    if (ours) bytes += Number(/^Size:\s+(\d+) kB/m.exec(area)![1]) << 10;
  }
  return bytes;
}

const MEBIBYTE = 1 << 20;

for (const [kind, options] of ringKinds) {
  Deno.test(`closing a ring with reads and writes in flight gives its memory back, ${kind}`, async () => {
    const before = descriptors();
    const memory = mapped();
    const ring = Ring.open(options);
    const pairs = Array.from({ length: 20 }, () => socketpair({ ring }));
    const parked = pairs.flatMap(([left, right]) => [
      left.read(new Uint8Array(MEBIBYTE)),
      right.read(new Uint8Array(MEBIBYTE)),
      sleep(1e9, { ring }),
      chain({ ring }).sleep(1e9).read(left, new Uint8Array(4)).then(),
    ]);
    const settled = Promise.allSettled(parked);
    await loopTurn();
    await loopTurn();
    assert(mapped() > memory + 40 * MEBIBYTE, "the ring's memory is seen");
    await ring.close();
    assert(mapped() <= memory);
    for (const outcome of await settled) assertEquals(outcome.status, "rejected");
    for (const end of pairs.flat()) await end.close();
    await assertDescriptors(before);
  });
}

Deno.test("rings that come and go leave no memory behind", async () => {
  const memory = mapped();
  for (let i = 0; i < 20; i++) {
    await using ring = Ring.open({ entries: 32768 }); // its SQEs alone are 2 MiB
    await sleep(0, { ring });
    assert(mapped() > memory + 2 * MEBIBYTE);
  }
  assert(mapped() <= memory);
});

Deno.test("what has been in flight at the most is what a ring holds", async () => {
  await using ring = Ring.open();
  const [left, right] = socketpair({ ring });
  const round = async () => {
    const controller = new AbortController();
    const { signal } = controller;
    const reads = Array.from({ length: 50 }, (_, i) => left.read(new Uint8Array(1000 + i), { signal }));
    const settled = Promise.allSettled(reads);
    await loopTurn();
    controller.abort();
    await settled;
    const p = new Uint8Array(100_000);
    await Promise.all([left.read(p), right.write(p)]);
    while (libc.readable(left.fd) > 0) await left.read(p);
  };
  for (let i = 0; i < 20; i++) await round(); // the doorbell hangs by then
  const memory = mapped();
  for (let i = 0; i < 200; i++) await round();
  assert(mapped() <= memory);
  await left.close();
  await right.close();
});

for (const [kind, options] of ringKinds) {
  Deno.test(`a worker is terminated with everything in flight: the process and its ring go on, ${kind}`, async () => {
    const { code, out, err } = await program(`
      import { listen, connect, pipe, Ring, socketpair } from LIBRARY;
      import * as libc from ${JSON.stringify(new URL("./support/libc.ts", import.meta.url).href)};
      const options = ${JSON.stringify(options)};
      const source = \`
        import { listen, open, pipe, Ring, sleep, socketpair } from \${JSON.stringify(LIBRARY)};
        const ring = Ring.open(\${JSON.stringify(options)});
        const listener = await listen({ hostname: "127.0.0.1", port: 0, ring });
        const pairs = Array.from({ length: 20 }, () => socketpair({ ring }));
        for (let i = 0; i < 10; i++) listener.accept().catch(() => {});
        for (const [left] of pairs) left.read(new Uint8Array(1 << 16)).catch(() => {});
        const path = Deno.makeTempFileSync();
        const file = await open(path, { ring, write: true });
        const fifo = await open(path, { ring });
        Deno.removeSync(path);
        for (let i = 0; i < 20; i++) file.writeAt(new Uint8Array(1 << 20), i << 20).catch(() => {});
        for (let i = 0; i < 5; i++) fifo.readAt(new Uint8Array(1 << 20), 0).catch(() => {});
        sleep(1e9, { ring });
        sleep(20, { ring });
        let turns = 0;
        setInterval(() => ++turns === 3 && self.postMessage([listener.addr.port, pairs.map(([, right]) => right.fd)]), 0);
      \`;
      const canaries: Uint8Array[] = [];
      await using ring = Ring.open(options);
      const [left, right] = socketpair({ ring });
      const echo = async (rounds: number) => {
        for (let i = 0; i < rounds; i++) {
          const p = new Uint8Array(4).fill(i);
          const reading = left.read(p);
          await right.write(new Uint8Array([i, i, i, i]));
          if (await reading !== 4 || p.some((byte) => byte !== (i & 255))) throw new Error("the echo is wrong");
        }
      };
      for (let round = 0; round < 8; round++) {
        const worker = new Worker("data:application/javascript," + encodeURIComponent(source), { type: "module" });
        const { data: [port, fds] } = await new Promise<MessageEvent>((resolve, reject) => {
          worker.onmessage = resolve;
          worker.onerror = reject;
        });
        worker.terminate();
        await echo(50);
        // What the dead worker's reads and accepts were waiting for.
        for (const fd of fds) libc.write(fd, new Uint8Array(60_000).fill(round));
        const conns = [];
        for (let i = 0; i < 10; i++) conns.push(await connect({ port, ring }));
        canaries.push(new Uint8Array(8 << 20).fill(0xc5));
        await echo(50);
        for (const conn of conns) await conn.close();
      }
      await echo(1000);
      for (const canary of canaries) if (canary.some((byte) => byte !== 0xc5)) throw new Error("memory was overwritten");
      await left.close();
      await right.close();
      console.log("survived", ring.inFlight);`);
    assertEquals([out, err, code], ["survived 0\n", "", 0]);
  });
}

Deno.test("a program that ends with everything in flight ends", async () => {
  for (const [, options] of ringKinds) {
    const { code, out, err } = await program(`
      import { open, pipe, Ring, sleep } from LIBRARY;
      const ring = Ring.open(${JSON.stringify(options)});
      const { reader } = pipe({ ring });
      const path = Deno.makeTempFileSync();
      const file = await open(path, { ring, write: true });
      Deno.removeSync(path);
      for (let i = 0; i < 50; i++) {
        reader.read(new Uint8Array(1 << 20));
        file.writeAt(new Uint8Array(1 << 20), i << 20);
        sleep(1e9, { ring });
      }
      setTimeout(() => {
        console.log("in flight", ring.inFlight > 50);
        Deno.exit(3);
      }, 0);`);
    assertEquals([code, out, err], [3, "in flight true\n", ""]);
  }
});
