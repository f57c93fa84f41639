/**
 * Memory handed to the kernel stays valid until the request's final CQE, whatever a program does with its buffers,
 * its workers and its rings meanwhile.
 */
import { assert, assertEquals } from "@std/assert";
import { defaultRing, open, socketpair } from "../mod.ts";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

const collectGarbage = garbageCollector();

/** V8's own, or where it is not to be had (Deno before 2.3) so much garbage that it has to come by itself. */
function garbageCollector(): () => void {
  try {
    setFlagsFromString("--expose-gc");
    return runInNewContext("gc");
  } catch {
    return () => {
      for (let i = 0; i < 100; i++) new Array(100_000).fill(i);
    };
  }
}

const CANARY = 0xab;
const MARGIN = 24;

/** A buffer between canaries, of one of the kinds there are. */
function guarded(kind: number, bytes: number): { p: Uint8Array; intact: () => boolean; buffer: ArrayBufferLike } {
  const size = bytes + 2 * MARGIN;
  const buffer = kind % 3 === 0
    ? new ArrayBuffer(size)
    : kind % 3 === 1
    ? new ArrayBuffer(size, { maxByteLength: 2 * size })
    : new SharedArrayBuffer(size);
  const whole = new Uint8Array(buffer).fill(CANARY);
  const intact = () =>
    whole.subarray(0, MARGIN).every((byte) => byte === CANARY) &&
    whole.subarray(MARGIN + bytes).every((byte) => byte === CANARY);
  return { p: new Uint8Array(buffer, MARGIN, bytes), intact, buffer };
}

Deno.test("100,000 cancelled and completed reads under garbage collection corrupt nothing", async () => {
  const path = Deno.makeTempFileSync();
  const data = Uint8Array.from({ length: 1 << 16 }, (_, i) => i * 29 + (i >> 8));
  Deno.writeFileSync(path, data);
  await using file = await open(path);
  const ends = Array.from({ length: 20 }, () => socketpair());
  let [values, aborts] = [0, 0];

  async function fileRead(i: number): Promise<void> {
    const bytes = 1 + i % 300;
    const at = i * 37 % 60_000;
    const { p, intact } = guarded(i, bytes);
    const controller = new AbortController();
    if (i % 4 === 0) queueMicrotask(() => controller.abort("enough"));
    const n = await file.readAt(p, at, { signal: controller.signal }).catch((reason) => assertEquals(reason, "enough"));
    if (n === undefined) aborts++;
    else {
      values++;
      assertEquals(n, bytes);
      for (let k = 0; k < bytes; k += 7) assert(p[k] === data[at + k]);
    }
    assert(intact());
  }

  async function socketReads(lane: number, rounds: number): Promise<void> {
    const [left, right] = ends[lane];
    for (let i = 0; i < rounds; i++) {
      const { p, intact } = guarded(i, 1 + i % 90);
      const controller = new AbortController();
      const reading = left.read(p, { signal: controller.signal });
      if (i % 2 === 0) {
        await null;
        controller.abort("enough");
        await reading.then(() => assert(false), (reason) => assertEquals(reason, "enough"));
        aborts++;
        assert(p.every((byte) => byte === CANARY));
      } else {
        await right.write(new Uint8Array([i & 255]));
        assertEquals(await reading, 1);
        assertEquals(p[0], i & 255);
        values++;
      }
      assert(intact());
    }
  }

  for (let batch = 0; batch < 100; batch++) {
    await Promise.all([
      ...Array.from({ length: 600 }, (_, i) => fileRead(batch * 600 + i)),
      ...ends.map((_, lane) => socketReads(lane, 20)),
    ]);
    if (batch % 4 === 0) collectGarbage();
  }
  assertEquals(values + aborts, 100_000);
  assert(aborts > 20_000);
  for (const [left, right] of ends) await Promise.all([left.close(), right.close()]);
  assertEquals(defaultRing().inFlight, 0);
  Deno.removeSync(path);
});

Deno.test("buffers that are dropped, detached, transferred or resized in flight: no crash, and no byte is lost", async () => {
  const [left, right] = socketpair();
  const fates: ((buffer: ArrayBuffer) => void)[] = [
    () => {},
    (buffer) => void structuredClone(null, { transfer: [buffer] }),
    (buffer) => void buffer.transfer(),
    (buffer) => {
      const { port1, port2 } = new MessageChannel();
      port1.postMessage(null, [buffer]);
      port1.close();
      port2.close();
    },
    (buffer) => buffer.resize(2),
    (buffer) => buffer.resize(0),
  ];
  for (let round = 0; round < 600; round++) {
    const fate = fates[round % fates.length];
    const buffer = new ArrayBuffer(16, { maxByteLength: 64 });
    // Of fixed length in every other round, else one that follows its buffer.
    const p = round % 12 < 6 ? new Uint8Array(buffer, 0, 16) : new Uint8Array(buffer);
    const reading = left.read(p).then((n) => p.slice(0, n!), (error) => {
      assert(error instanceof TypeError, String(error));
      return null;
    });
    await null;
    await null; // submitted
    fate(buffer);
    if (round % 50 === 0) collectGarbage();
    const sent = Uint8Array.from({ length: 4 }, (_, i) => round * 4 + i);
    await right.writeAll(sent);
    let received = await reading;
    if (received === null) {
      const rest = new Uint8Array(16);
      received = rest.slice(0, (await left.read(rest))!);
    }
    assertEquals(received, sent);
  }
  await left.close();
  await right.close();
});

Deno.test("a buffer detached before its read or write is submitted transfers nothing, and says so", async () => {
  const [left, right] = socketpair();
  for (const start of [(p: Uint8Array) => left.read(p), (p: Uint8Array) => left.write(p)]) {
    const p = new Uint8Array(8);
    const started = start(p);
    structuredClone(null, { transfer: [p.buffer] });
    const error = await started.then(() => null, (error) => error);
    assert(error instanceof TypeError && /detached/.test(error.message), String(error));
  }
  await left.write(new Uint8Array([7]));
  const p = new Uint8Array(8);
  assertEquals([await right.read(p), p[0]], [1, 7]);
  await left.close();
  await right.close();
});

Deno.test("workers terminated with everything in flight leave the process and the other rings whole", async () => {
  const path = Deno.makeTempFileSync();
  const source = `
    import { listen, open, sleep, socketpair } from ${JSON.stringify(new URL("../mod.ts", import.meta.url).href)};
    const [left] = socketpair();
    for (let i = 0; i < 30; i++) left.read(new Uint8Array(100)).catch(() => {});
    (await listen({ hostname: "127.0.0.1", port: 0 })).accept().catch(() => {});
    sleep(20).catch(() => {});
    const file = await open(${JSON.stringify(path)}, { write: true });
    for (let i = 0; i < 20; i++) file.writeAt(new Uint8Array(1 << 20).fill(i), i << 20).catch(() => {});
    for (let i = 0; i < 20; i++) sleep(0.5).catch(() => {});
    await sleep(0.1);
    postMessage("busy");`;
  const url = `data:application/typescript,${encodeURIComponent(source)}`;
  for (let round = 0; round < 10; round++) {
    const worker = new Worker(url, { type: "module" });
    await new Promise((resolve) => worker.onmessage = resolve);
    worker.terminate();
    collectGarbage();
    const [left, right] = socketpair();
    await left.write(new Uint8Array([round]));
    const p = new Uint8Array(4);
    assertEquals([await right.read(p), p[0]], [1, round]);
    await left.close();
    await right.close();
  }
  Deno.removeSync(path);
});
