/** Registered files and buffers: they change nothing but speed. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { chain, connect, listen, open, Ring, type RingOptions, sleep, socketpair, timeout } from "../mod.ts";
import { assertDescriptors, descriptors } from "./support/descriptors.ts";
import { Random } from "./support/random.ts";
import { within } from "./support/until.ts";

// The default ring, which keeps the deadlines, with the doorbell that it has after its first sleeps.
for (let i = 0; i < 20; i++) await sleep(0.1);

const options: [string, RingOptions][] = [
  ["registered files", { registeredFiles: 64 }],
  ["fewer registered files than there are", { registeredFiles: 3 }],
  ["registered buffers", { registeredBuffers: true }],
  ["both", { registeredFiles: 64, registeredBuffers: true }],
  ["both and SQPOLL", { registeredFiles: 64, registeredBuffers: true, sqpoll: true }],
];

/** More reads or writes than there are before a descriptor is registered. */
const MANY = 40;

/** What the kernel says is registered with a ring: sockets, and files of that path. */
function registered(ring: Ring, path = "socket:"): number {
  const info = Deno.readTextFileSync(`/proc/self/fdinfo/${ring.fd}`);
  return info.split("\n").filter((line) => /^\s*\d+: /.test(line) && line.includes(path)).length;
}

function randomBytes(count: number): Uint8Array<ArrayBuffer> {
  const random = new Random(count);
  return Uint8Array.from({ length: count }, () => random.below(256));
}

for (const [name, ringOptions] of options) {
  Deno.test(`with ${name} files are read and written exactly`, async () => {
    const before = descriptors();
    const path = Deno.makeTempFileSync();
    {
      await using ring = Ring.open(ringOptions);
      for (const bytes of [1, 4096, 300_000, 3_000_000]) {
        const data = randomBytes(bytes);
        {
          await using file = await open(path, { write: true, truncate: true, ring });
          await file.writeAll(data);
        }
        const files = await Promise.all(Array.from({ length: 8 }, () => open(path, { ring })));
        for (const read of await Promise.all(files.map((file) => file.readAll()))) {
          assertEquals(read.length, data.length);
          assert(read.every((byte, i) => byte === data[i]));
        }
        for (const file of files) await file.close();
        await using file = await open(path, { read: true, write: true, ring });
        const piece = new Uint8Array(bytes / MANY >>> 0);
        for (let i = 0; i < MANY; i++) {
          assertEquals(await file.readAt(piece, i * piece.length), piece.length);
          assert(piece.every((byte, j) => byte === data[i * piece.length + j]));
          await file.writeAt(piece, i * piece.length);
        }
      }
      const [, n] = await chain({ ring }).open(path).read(new Uint8Array(1000)).close();
      assertEquals(n, 1000);
    }
    Deno.removeSync(path);
    await assertDescriptors(before);
  });

  Deno.test(`with ${name} connections talk, end, and are cancelled`, async () => {
    const before = descriptors();
    {
      await using ring = Ring.open(ringOptions);
      await using listener = await listen({ hostname: "127.0.0.1", port: 0, ring });
      const data = randomBytes(100_000);
      await Promise.all(Array.from({ length: 20 }, async () => {
        const accepted = listener.accept();
        const client = await connect({ hostname: "127.0.0.1", port: listener.addr.port, ring });
        const server = await accepted;
        await Promise.all([
          (async () => {
            for (let i = 0; i < data.length; i += 2000) await client.writeAll(data.subarray(i, i + 2000));
          })(),
          (async () => {
            const p = new Uint8Array(2000);
            for (let at = 0, n; at < data.length; at += n) {
              n = (await server.read(p))!;
              assert(p.subarray(0, n).every((byte, i) => byte === data[at + i]));
            }
          })(),
        ]);
        await assertRejects(() => timeout(1, () => server.read(new Uint8Array(1))), DOMException);
        await client.close(); // the table must not keep it open
        assertEquals(await within("the end", server.read(new Uint8Array(1))), null);
        await server.close();
      }));
    }
    await assertDescriptors(before);
  });
}

Deno.test("a descriptor is registered after some transfers, and no more once it is closed", async () => {
  await using ring = Ring.open();
  const [left, right] = socketpair({ ring });
  const buffer = new Uint8Array(1);
  await left.writeAll(buffer);
  assertEquals(registered(ring), 0);
  for (let i = 0; i < MANY; i++) {
    await right.read(buffer);
    await left.writeAll(buffer);
  }
  assertEquals(registered(ring), 2);
  await using zeros = await open("/dev/zero", { ring });
  for (let i = 0; i < MANY; i++) await zeros.read(buffer);
  assertEquals(registered(ring, "/dev/zero"), 1);
  await left.close();
  assertEquals(registered(ring), 1);
  await right.close();
  assertEquals(registered(ring), 0);
});

Deno.test("a place among the registered files is used again, and those beyond do without", async () => {
  await using ring = Ring.open({ registeredFiles: 3 });
  for (let i = 0; i < 20; i++) {
    const pairs = [socketpair({ ring }), socketpair({ ring })];
    for (const [left, right] of pairs) {
      for (let j = 0; j < MANY; j++) {
        await left.writeAll(new Uint8Array([j]));
        const buffer = new Uint8Array(1);
        await right.read(buffer);
        assertEquals(buffer[0], j);
      }
    }
    assertEquals(registered(ring), 3);
    for (const conn of pairs.flat()) await conn.close();
  }
  assertEquals(registered(ring), 0);
});

Deno.test("without places nothing is registered", async () => {
  await using ring = Ring.open({ registeredFiles: 0 });
  const [left, right] = socketpair({ ring });
  for (let i = 0; i < MANY; i++) {
    await left.writeAll(new Uint8Array(1));
    await right.read(new Uint8Array(1));
  }
  assertEquals(registered(ring), 0);
  await left.close();
  await right.close();
});

Deno.test("a bad number of registered files is refused", () => {
  for (const registeredFiles of [-1, 1.5, 20_000]) {
    try {
      Ring.open({ registeredFiles });
    } catch (error) {
      assert(error instanceof RangeError && error.message.startsWith("registeredFiles must be an integer"));
      continue;
    }
    assert(false, "it was accepted");
  }
});
