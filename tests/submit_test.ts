import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { connect, defaultRing, type OpcodeName, type RawRequest, Ring, scope, socketpair, timeout } from "../mod.ts";
import { program } from "./support/program.ts";
import { within } from "./support/until.ts";

const encoder = new TextEncoder();
const decoder = new TextDecoder();
const AT_FDCWD = -100;
const ring = defaultRing();

/** The words of an iovec or a msghdr: 64 bits each. */
function words(...values: number[]): Uint8Array {
  return new Uint8Array(BigUint64Array.from(values, BigInt).buffer);
}

Deno.test("any opcode can be submitted: a file's life, request by request", async () => {
  const path = await Deno.makeTempFile();
  const name = encoder.encode(`${path}\0`);
  const O_RDWR = 2;
  const { result: fd } = await ring.submit({ opcode: "OPENAT", fd: AT_FDCWD, address: name, flags: O_RDWR });
  const text = encoder.encode("hello, kernel");
  const written = await ring.submit({ opcode: "WRITE", fd, address: text, length: text.byteLength });
  assertEquals(written, { result: 13, flags: 0 });
  await ring.submit({ opcode: "FALLOCATE", fd, offset: 0, address: 4096 }); // its addr is a length
  const buffer = { bytes: new Uint8Array(6), output: true };
  assertEquals((await ring.submit({ opcode: "READ", fd, offset: 7, address: buffer, length: 6 })).result, 6);
  assertEquals(decoder.decode(buffer.bytes), "kernel");
  const statx = { bytes: new Uint8Array(256), output: true };
  await ring.submit({ opcode: "STATX", fd: AT_FDCWD, address: name, offset: statx, length: 0x7ff });
  assertEquals(new DataView(statx.bytes.buffer).getBigUint64(40, true), 4096n);
  await ring.submit({ opcode: "CLOSE", fd });
  await ring.submit({ opcode: "UNLINKAT", fd: AT_FDCWD, address: name });
  await assertRejects(() => Deno.stat(path), Deno.errors.NotFound);
});

Deno.test("structs point to structs: a msghdr to an iovec to bytes, in and out", async () => {
  const [left, right] = socketpair();
  const message = (...parts: { bytes: Uint8Array; output?: boolean }[]): RawRequest["address"] => {
    const iovec = {
      bytes: words(...parts.flatMap(({ bytes }) => [0, bytes.byteLength])),
      pointers: parts.map((to, i) => ({ at: 16 * i, to })),
    };
    // msg_name, msg_namelen, msg_iov, msg_iovlen, msg_control, msg_controllen, msg_flags
    return { bytes: words(0, 0, 0, parts.length, 0, 0, 0), output: true, pointers: [{ at: 16, to: iovec }] };
  };
  const hello = { bytes: encoder.encode("hello ") };
  const ring5 = { bytes: encoder.encode("rings") };
  assertEquals((await ring.submit({ opcode: "SENDMSG", fd: right.fd, address: message(hello, ring5) })).result, 11);
  const first = { bytes: new Uint8Array(4), output: true };
  const rest = { bytes: new Uint8Array(9).fill(46), output: true };
  const header = message(first, rest);
  assertEquals((await ring.submit({ opcode: "RECVMSG", fd: left.fd, address: header })).result, 11);
  assertEquals(decoder.decode(first.bytes), "hell");
  assertEquals(decoder.decode(rest.bytes), "o rings..");
  await left.close();
  await right.close();
});

Deno.test("the kernel sees copies: what becomes of a caller's buffer changes nothing", async () => {
  const [left, right] = socketpair();
  const out = encoder.encode("as it was");
  const sent = ring.submit({ opcode: "SEND", fd: right.fd, address: out, length: 9 });
  out.fill(0);
  structuredClone(null, { transfer: [out.buffer] });
  assertEquals((await sent).result, 9);
  const target = new Uint8Array(9);
  assertEquals(await left.read(target), 9);
  assertEquals(decoder.decode(target), "as it was");

  const lost = { bytes: new Uint8Array(4), output: true };
  const receiving = ring.submit({ opcode: "RECV", fd: left.fd, address: lost, length: 4 });
  structuredClone(null, { transfer: [lost.bytes.buffer] });
  await right.writeAll(new Uint8Array(4));
  await assertRejects(() => receiving, TypeError, "detached");
  await left.close();
  await right.close();
});

Deno.test("requests end with signals, deadlines and scopes, and fail with the errno's class", async () => {
  const [left, right] = socketpair();
  const target = { bytes: new Uint8Array(4), output: true };
  const request = { opcode: "RECV", fd: left.fd, address: target, length: 4 } as const;
  const controller = new AbortController();
  const aborted = ring.submit(request, { signal: controller.signal });
  controller.abort("enough");
  assertEquals(await aborted.catch((error) => error), "enough");
  await assertRejects(() => ring.submit(request, { timeout: 1 }), DOMException, "submit RECV timed out after 1 ms");
  await assertRejects(() => timeout(1, () => ring.submit(request)), DOMException);
  const inScope = scope((s) => void s.spawn(() => ring.submit(request), { background: true }));
  await inScope;
  assertEquals(ring.inFlight, 0);
  const error = await assertRejects(() => ring.submit({ ...request, fd: 1 << 20 }), Deno.errors.BadResource);
  assertEquals((error as Error & { code: string }).code, "EBADF");
  assertEquals(ring.inFlight, 0);
  await left.close();
  await right.close();
});

Deno.test("provided buffers bring their bytes, once or again and again", async () => {
  const [left, right] = socketpair();
  await right.writeAll(encoder.encode("one"));
  const once = await ring.submit({ opcode: "RECV", fd: left.fd, provided: true });
  assertEquals([once.result, decoder.decode(once.bytes)], [3, "one"]);
  const seen: string[] = [];
  for (let i = 0; i < 150; i++) await right.writeAll(encoder.encode(`${i} `)); // a socket holds few hundred
  const reading = (async () => {
    for await (
      const { bytes, flags, result } of ring.submitMultishot({ opcode: "RECV", fd: left.fd, provided: true })
    ) {
      seen.push(decoder.decode(bytes));
      const IORING_CQE_F_MORE = 2;
      assertEquals((flags & IORING_CQE_F_MORE) !== 0, result > 0);
    }
  })();
  for (let i = 150; i < 600; i++) await right.writeAll(encoder.encode(`${i} `));
  await right.closeWrite();
  await within("the end of the stream ends the iteration", reading);
  assertEquals(seen.join(""), Array.from({ length: 600 }, (_, i) => `${i} `).join(""));
  await left.close();
  await right.close();
});

Deno.test("a multishot accept that is left closes what nobody has taken", async () => {
  const free = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const { port } = free.addr as Deno.NetAddr;
  free.close();
  const AF_INET = 2;
  const SOCK_STREAM = 1;
  const { result: fd } = await ring.submit({ opcode: "SOCKET", fd: AF_INET, offset: SOCK_STREAM });
  const address = new Uint8Array([AF_INET, 0, port >> 8, port, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
  const SO_REUSEADDR = words(1).subarray(0, 4);
  const setOption = { opcode: "URING_CMD", fd, offset: 3, address: 1 + 2 * 2 ** 32, fileIndex: 4 } as const;
  await ring.submit({ ...setOption, address3: SO_REUSEADDR });
  await ring.submit({ opcode: "BIND", fd, address, offset: 16 });
  await ring.submit({ opcode: "LISTEN", fd, length: 9 });
  const accepting = ring.submitMultishot({ opcode: "ACCEPT", fd });
  const first = accepting.next();
  const clients = [];
  for (let i = 0; i < 5; i++) clients.push(await Deno.connect({ port }));
  await ring.submit({ opcode: "CLOSE", fd: (await first).value.result });
  assertEquals(ring.inFlight, 1);
  await accepting.return!();
  await ring.submit({ opcode: "CLOSE", fd });
  for (const client of clients) {
    // Each was accepted and closed: the end, or a reset.
    assertEquals(await within("closed", client.read(new Uint8Array(1)).catch(() => null)), null);
    client.close();
  }
});

Deno.test("a multishot timeout ticks as often as it says, and then the iteration is over", async () => {
  const timespec = words(0, 1e6);
  const results: number[] = [];
  for await (const { result } of ring.submitMultishot({ opcode: "TIMEOUT", address: timespec, length: 1, offset: 3 })) {
    results.push(result);
  }
  assertEquals(results, [0, 0, 0]);
  assertEquals(ring.inFlight, 0);
});

Deno.test("what would break the ring is refused with what to use instead", async () => {
  const instead: [OpcodeName, string][] = [
    ["ASYNC_CANCEL", "{ signal }"],
    ["POLL_REMOVE", "{ signal }"],
    ["TIMEOUT_REMOVE", "{ signal }"],
    ["LINK_TIMEOUT", "{ timeout }"],
    ["FILES_UPDATE", "chain()"],
    ["FIXED_FD_INSTALL", "open()"],
    ["PROVIDE_BUFFERS", "provided"],
    ["REMOVE_BUFFERS", "provided"],
    ["MSG_RING", "ring.send()"],
  ];
  for (const [opcode, hint] of instead) {
    await assertRejects(() => ring.submit({ opcode, fd: ring.fd }), TypeError, hint);
  }
  await assertRejects(() => ring.submit({ opcode: "TOOTH" as OpcodeName }), TypeError, "TOOTH");
  await assertRejects(() => ring.submit({ opcode: "SOCKET", fileIndex: 1 }), TypeError, "chains");
  await assertRejects(() => ring.submit({ opcode: "ACCEPT", ioprio: 1 }), TypeError, "submitMultishot");
  await assertRejects(() => ring.submit({ opcode: "READ_MULTISHOT", fd: 0 }), TypeError, "submitMultishot");
  const bundle = { opcode: "RECV", provided: true, ioprio: 1 << 4 } as const;
  await assertRejects(() => ring.submit(bundle), TypeError, "bundle");
  assertThrows(() => ring.submitMultishot(bundle), TypeError, "bundle");
  assertThrows(() => ring.submitMultishot({ opcode: "READ", fd: 0 }), TypeError, "submit()");
  const output = { bytes: new Uint8Array(8), output: true };
  assertThrows(() => ring.submitMultishot({ opcode: "ACCEPT", address: output }), TypeError, "provided");
  await assertRejects(() => ring.submit({ opcode: "READ", fd: 0, address: output, length: 9 }), RangeError, "length");
  const large = new Uint8Array((1 << 20) + 1);
  await assertRejects(() => ring.submit({ opcode: "WRITE", fd: 0, address: large, length: 1 }), RangeError, "1048576");
  for (const fields of [{ ioprio: -1 }, { length: 2 ** 32 }, { flags: 0.5 }, { fd: NaN }, { offset: 2 ** 53 }]) {
    await assertRejects(() => ring.submit({ opcode: "NOP", ...fields }), RangeError);
  }
  await assertRejects(
    () => ring.submit({ opcode: "READ", address: { bytes: new Uint8Array(8), pointers: [{ at: 1, to: large }] } }),
    RangeError,
    "pointer",
  );
  await using old = Ring.open({ kernel: "5.19" });
  await assertRejects(() => old.submit({ opcode: "WAITID" }), Deno.errors.NotSupported, "6.7");
  assertEquals(ring.inFlight, 0);
});

Deno.test("zero-copy sends resolve with their bytes once the memory is free", async () => {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  await using conn = await connect({ port: (listener.addr as Deno.NetAddr).port });
  const peer = await listener.accept();
  const bytes = new Uint8Array(10_000).map((_, i) => i);
  const { result } = await ring.submit({ opcode: "SEND_ZC", fd: conn.fd, address: bytes, length: bytes.byteLength });
  const received = new Uint8Array(result);
  for (let n = 0; n < result;) n += (await peer.read(received.subarray(n)))!;
  assertEquals(received, bytes.subarray(0, result));
  assert(result > 0);
  peer.close();
  listener.close();
});

Deno.test("without access to all of FFI nothing is submitted", async () => {
  const build = new URL(`../native/build/libringscope-${Deno.build.arch}.so`, import.meta.url).pathname;
  const { out, err } = await program(
    `import { defaultRing } from LIBRARY;
    const denied = { name: "ffi" };
    if (Deno.permissions.querySync(denied).state === "granted") throw new Error("not a test");
    try {
      await defaultRing().submit({ opcode: "NOP" });
    } catch (error) {
      console.log(error.name, error.message);
    }`,
    { flags: [`--allow-ffi=${build}`, "--allow-read", "--allow-import"] },
  );
  assertEquals(err, "");
  assert(out.startsWith("NotCapable"), out);
});
