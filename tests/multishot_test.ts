/** One request that brings many results: the connections of a listener, the chunks of a connection. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { chain, type Conn, connect, listen, type Listener, Ring, scope, sleep, socketpair, timeout } from "../mod.ts";
import { assertDescriptors, descriptors } from "./support/descriptors.ts";
import { library } from "./support/program.ts";
import { Random } from "./support/random.ts";
import { loopTurn, until, within } from "./support/until.ts";

/** A listener on a ring of its own, so that what is in flight there is the listener's. */
async function listening(): Promise<{ ring: Ring; listener: Listener; dial: () => Promise<Conn> }> {
  const ring = Ring.open({ entries: 64 });
  const listener = await listen({ hostname: "127.0.0.1", port: 0, ring });
  return { ring, listener, dial: () => connect({ hostname: "127.0.0.1", port: listener.addr.port }) };
}

function randomBytes(count: number, seed: number): Uint8Array<ArrayBuffer> {
  const random = new Random(seed);
  return Uint8Array.from({ length: count }, () => random.below(256));
}

async function dialMany(dial: () => Promise<Conn>, count: number): Promise<Conn[]> {
  return await Promise.all(Array.from({ length: count }, dial));
}

async function closeAll(conns: Iterable<Conn<Deno.Addr>>): Promise<void> {
  await Promise.all(Array.from(conns, (conn) => conn.close()));
}

/** Bytes that wait in a socket, unread. */
function concat(chunks: Uint8Array[]): Uint8Array {
  const all = new Uint8Array(chunks.reduce((sum, { byteLength }) => sum + byteLength, 0));
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.byteLength;
  }
  return all;
}

Deno.test("one request accepts all the connections of an iteration", async () => {
  const { ring, listener, dial } = await listening();
  const clients: Conn[] = [];
  const served: Conn[] = [];
  const iteration = listener[Symbol.asyncIterator]();
  for (let i = 0; i < 50; i++) {
    const next = iteration.next();
    assertEquals(ring.inFlight, 1, "the same request all the time");
    clients.push(await dial());
    const { value } = await within("accept", next);
    served.push(value!);
    assertEquals(value!.remoteAddr, clients[i].localAddr);
    assertEquals(value!.localAddr, listener.addr);
  }
  await iteration.return!();
  assertEquals(ring.inFlight, 0);
  await closeAll([...clients, ...served]);
  await listener.close();
  await ring.close();
});

Deno.test("connections that nobody came for are closed when the iteration ends", async () => {
  const before = descriptors();
  const { ring, listener, dial } = await listening();
  const iteration = listener[Symbol.asyncIterator]();
  const first = iteration.next();
  const clients = await dialMany(dial, 20);
  await (await within("accept", first)).value!.close();
  await until("accepted ahead", () => descriptors().size >= before.size + 2 + 20 + 19);
  await iteration.return!();
  assertEquals(ring.inFlight, 0);
  const ends = await Promise.all(clients.map((client) => client.read(new Uint8Array(1)).catch(() => null)));
  assertEquals(ends.filter((n) => n === null).length, 20, "every client sees its end");
  assertEquals(await iteration.next(), { done: true, value: undefined });
  await closeAll(clients);
  await listener.close();
  await ring.close();
  await assertDescriptors(before);
});

Deno.test("a slow server does not accept more than a backlog ahead, and loses none of the rest", async () => {
  const { ring, listener, dial } = await listening();
  const iteration = listener[Symbol.asyncIterator]();
  const first = iteration.next();
  const clients = await dialMany(dial, 200);
  const served = [(await within("accept", first)).value!];
  await until("the request has been stopped", () => ring.inFlight === 0);
  while (served.length < 200) served.push((await within("accept", iteration.next())).value!);
  const ports = (conns: Conn[], address: "localAddr" | "remoteAddr") => conns.map((conn) => conn[address].port).sort();
  assertEquals(ports(served, "remoteAddr"), ports(clients, "localAddr"));
  await iteration.return!();
  await closeAll([...clients, ...served]);
  await listener.close();
  await ring.close();
});

Deno.test("a cancelled scope ends its iteration with the reason, leaving nothing, and the listener stays good", async () => {
  const before = descriptors();
  const { ring, listener, dial } = await listening();
  const reason = new Error("enough");
  await assertRejects(
    () =>
      scope(async (s) => {
        s.spawn(async () => {
          await sleep(1, { ring });
          s.cancel(reason);
        });
        for await (const conn of listener) await conn.close();
      }).then(() => Promise.reject(reason)),
    Error,
    "enough",
  );
  assertEquals(ring.inFlight, 0);
  const client = dial();
  for await (const conn of listener) {
    await conn.close();
    break;
  }
  await (await client).close();
  await listener.close();
  await ring.close();
  await assertDescriptors(before);
});

Deno.test("a scope that is left with an iteration abandoned in it closes what was accepted", async () => {
  const before = descriptors();
  const { ring, listener, dial } = await listening();
  const clients: Conn[] = [];
  await scope(async () => {
    const iteration = listener[Symbol.asyncIterator]();
    const first = iteration.next();
    clients.push(...await dialMany(dial, 10));
    await (await within("accept", first)).value!.close();
    await until("accepted ahead", () => descriptors().size >= before.size + 2 + 10 + 9);
  });
  assertEquals(ring.inFlight, 0);
  await closeAll(clients);
  await listener.close();
  await ring.close();
  await assertDescriptors(before);
});

Deno.test("a deadline around one step loses no connection", async () => {
  const { ring, listener, dial } = await listening();
  const iteration = listener[Symbol.asyncIterator]();
  let accepted = 0;
  let overdue = 0;
  const dialling = (async () => {
    for (let i = 0; i < 30; i++) {
      await (await dial()).close();
      await sleep(i % 3);
    }
  })();
  while (accepted < 30) {
    try {
      const { value } = await timeout(1, () => iteration.next());
      accepted++;
      await value!.close();
    } catch (error) {
      assertEquals((error as Error).name, "TimeoutError");
      overdue++;
    }
  }
  await dialling;
  assert(overdue > 0, "some steps were overdue");
  await iteration.return!();
  await listener.close();
  await ring.close();
});

Deno.test("closing the listener ends its iteration", async () => {
  const { ring, listener } = await listening();
  const iterating = (async () => {
    for await (const _conn of listener) assert(false, "nobody dials");
    return "ended";
  })();
  await loopTurn();
  assertEquals(ring.inFlight, 1);
  await listener.close();
  assertEquals(await within("the end", iterating), "ended");
  await ring.close();
});

Deno.test("a server without descriptors to spare waits until it has some, and goes on", async () => {
  const source = `
    import { listen } from ${JSON.stringify(library)};
    const listener = await listen({ hostname: "127.0.0.1", port: 0 });
    console.log(listener.addr.port);
    for await (const conn of listener) {
      conn.read(new Uint8Array(1)).catch(() => null).then(() => conn.close());
      conn.writeAll(new Uint8Array(1)).catch(() => {});
    }`;
  const server = new Deno.Command("sh", {
    args: ["-c", `ulimit -n 64; exec "$@"`, "sh", Deno.execPath(), "run", "-A", "--no-config", "--no-check", "-"],
    stdin: "piped",
    stdout: "piped",
    stderr: "inherit",
  }).spawn();
  const stdin = server.stdin.getWriter();
  await stdin.write(new TextEncoder().encode(source));
  await stdin.close();
  const reader = server.stdout.getReader();
  const port = Number(new TextDecoder().decode((await within("the port", reader.read())).value));
  await reader.cancel();
  const clients = await Promise.all(Array.from({ length: 100 }, () => connect({ hostname: "127.0.0.1", port })));
  const greeted = new Set<Conn>();
  const greetings = clients.map(async (client) => {
    assertEquals(await within("the greeting", client.read(new Uint8Array(1))), 1);
    greeted.add(client);
    if (greeted.size > 20) await closeAll(greeted);
  });
  await until("all it has descriptors for are served", () => greeted.size >= 20);
  await Promise.all(greetings);
  await closeAll(clients);
  server.kill("SIGKILL");
  await server.status;
});

for (const kernel of [undefined, "5.19"]) {
  const on = kernel === undefined ? "" : `, as Linux ${kernel} would do it`;

  Deno.test(`chunks are the bytes, all of them and in order${on}`, async () => {
    await using ring = Ring.open({ entries: 64, kernel });
    const random = new Random(7);
    const [left, right] = socketpair({ ring });
    const data = randomBytes(3_000_000, 1);
    const writing = (async () => {
      for (let at = 0; at < data.length;) {
        const n = 1 + random.below(random.oneIn(3) ? 200_000 : 500);
        await left.writeAll(data.subarray(at, at + n));
        at += n;
      }
      await left.closeWrite();
    })();
    const chunks: Uint8Array[] = [];
    for await (const chunk of right.chunks()) {
      chunks.push(chunk);
      if (random.oneIn(10)) await sleep(0, { ring });
    }
    await writing;
    const all = concat(chunks);
    assertEquals(all.length, data.length);
    assert(all.every((byte, i) => byte === data[i]));
    assertEquals(ring.inFlight, 0);
    await closeAll([left, right]);
  });

  Deno.test(`what came and was not taken is there for the next read${on}`, async () => {
    await using ring = Ring.open({ entries: 64, kernel });
    const [left, right] = socketpair({ ring });
    const data = randomBytes(200_000, 2);
    await left.writeAll(data.subarray(0, 100_000));
    const taken: Uint8Array[] = [];
    for await (const chunk of right.chunks()) {
      taken.push(chunk);
      await sleep(1, { ring }); // more comes meanwhile
      break;
    }
    const buffer = new Uint8Array(1000);
    if (kernel === undefined) {
      await assertRejects(() => Promise.resolve(chain({ ring }).read(right, buffer)), TypeError, "wait here");
    }
    const n = await right.read(buffer);
    taken.push(buffer.slice(0, n!));
    await left.writeAll(data.subarray(100_000));
    await left.closeWrite();
    for await (const chunk of right.chunks()) {
      taken.push(chunk);
      if (taken.length === 4) break;
    }
    taken.push(await right.readAll());
    const all = concat(taken);
    assertEquals(all.length, data.length);
    assert(all.every((byte, i) => byte === data[i]));
    await closeAll([left, right]);
  });

  Deno.test(`a cancel or a deadline ends the wait for a chunk, and no byte is lost by it${on}`, async () => {
    await using ring = Ring.open({ entries: 64, kernel });
    const [left, right] = socketpair({ ring });
    await assertRejects(
      () =>
        timeout(5, async () => {
          for await (const _chunk of right.chunks()) assert(false, "nothing was sent");
        }),
      DOMException,
    );
    assertEquals(ring.inFlight, 0);
    await left.writeAll(new Uint8Array([1, 2, 3]));
    assertEquals(await right.read(new Uint8Array(8)), 3);
    await closeAll([left, right]);
  });

  Deno.test(`closing the connection ends the wait for a chunk${on}`, async () => {
    await using ring = Ring.open({ entries: 64, kernel });
    const [left, right] = socketpair({ ring });
    const next = right.chunks()[Symbol.asyncIterator]().next();
    await loopTurn();
    await right.close();
    await assertRejects(() => within("the end", next), Deno.errors.BadResource);
    await left.close();
  });
}

Deno.test("a slow reader stops the receiving, not only itself", async () => {
  await using ring = Ring.open({ entries: 64 });
  const [left, right] = socketpair({ ring });
  const iteration = right.chunks();
  const first = iteration.next();
  const data = new Uint8Array(64 << 20);
  let written = 0;
  const writing = (async () => {
    for (; written < data.length; written += 65536) await left.writeAll(data.subarray(written, written + 65536));
    await left.closeWrite();
  })();
  let received = (await first).value!.byteLength;
  await until("the sender waits", () => ring.inFlight === 1);
  assert(written < 8 << 20, `${written} bytes are in someone's memory`);
  for (let next; !(next = await iteration.next()).done;) received += next.value.byteLength;
  await writing;
  assertEquals(received, data.length);
  await closeAll([left, right]);
});

Deno.test("more connections with bytes than there are provided buffers lose nothing", async () => {
  await using ring = Ring.open({ entries: 1024 });
  const pairs = Array.from({ length: 300 }, () => socketpair({ ring }));
  const receiving = pairs.map(async ([, right]) => {
    let count = 0;
    for await (const chunk of right.chunks()) count += chunk.byteLength;
    return count;
  });
  await loopTurn();
  await Promise.all(pairs.map(([left]) => left.writeAll(new Uint8Array(100_000))));
  await Promise.all(pairs.map(([left]) => left.closeWrite()));
  assertEquals(new Set(await within("all bytes", Promise.all(receiving))), new Set([100_000]));
  await closeAll(pairs.flat());
});

Deno.test("connections that nobody has come for are closed with their ring, whoever is asked then", async () => {
  const before = descriptors(); // with nothing of a ring of its own
  for (const asks of [false, true]) {
    const { ring, listener, dial } = await listening();
    const accepted = listener[Symbol.asyncIterator]();
    const clients = await dialMany(dial, 20);
    await (await accepted.next()).value!.close();
    await until("the others have been accepted", () => descriptors().size > before.size + 20 + 19);
    await ring.close();
    if (asks) await assertRejects(() => accepted.next(), Deno.errors.BadResource);
    await listener.close();
    await closeAll(clients);
    await assertDescriptors(before);
  }
});

Deno.test("a read that waits while an iteration is left gets what that has not taken, before any later bytes", async () => {
  await using ring = Ring.open({ entries: 64 });
  const [left, right] = socketpair({ ring });
  const iteration = right.chunks();
  const first = iteration.next();
  await left.writeAll(new Uint8Array([1]));
  assertEquals((await first).value, new Uint8Array([1]));
  await left.writeAll(new Uint8Array([2]));
  await sleep(1, { ring }); // the request has brought it, and nobody has come for it
  const buffer = new Uint8Array(1);
  const read = right.read(buffer);
  await iteration.return!();
  assertEquals(await within("what was not taken", read), 1);
  await left.writeAll(new Uint8Array([3]));
  assertEquals(buffer, new Uint8Array([2]));
  assertEquals(await right.read(buffer), 1);
  assertEquals(buffer, new Uint8Array([3]));
  await closeAll([left, right]);
});

Deno.test("an iteration that waits behind a failing readAll begins with what that had read", async () => {
  await using ring = Ring.open({ entries: 64 });
  const [left, right] = socketpair({ ring });
  const controller = new AbortController();
  const rejected = assertRejects(() => right.readAll({ signal: controller.signal }));
  await left.writeAll(new Uint8Array([1, 2]));
  await sleep(1, { ring });
  const iteration = right.chunks();
  const next = iteration.next();
  await loopTurn();
  controller.abort();
  await rejected;
  assertEquals((await within("what was kept", next)).value, new Uint8Array([1, 2]));
  await left.writeAll(new Uint8Array([3]));
  assertEquals((await iteration.next()).value, new Uint8Array([3]));
  await iteration.return!();
  await closeAll([left, right]);
});

for (const backlog of [0, 1]) {
  Deno.test(`a reset that comes while nobody waits is no end of the bytes, with ${backlog} chunks before it`, async () => {
    const { ring, listener, dial } = await listening();
    const [peer, conn] = await Promise.all([dial(), listener.accept()]);
    const iteration = conn.chunks();
    await conn.writeAll(new Uint8Array(1)); // closing with this unread is a reset
    await peer.writeAll(new Uint8Array([1]));
    await iteration.next();
    if (backlog === 1) {
      await peer.writeAll(new Uint8Array([2]));
      await sleep(1, { ring });
    }
    await peer.close();
    await until("the request has ended", () => ring.inFlight === 0);
    await loopTurn();
    if (backlog === 1) assertEquals((await iteration.next()).value, new Uint8Array([2]));
    await assertRejects(() => iteration.next(), Deno.errors.ConnectionReset);
    assertEquals((await iteration.next()).done, true);
    await conn.close();
    await listener.close();
    await ring.close();
  });
}

for (const how of ["a read that comes", "a read that waits", "another iteration"]) {
  Deno.test(`a reset that came in an iteration which is left is told to ${how}, behind the chunks`, async () => {
    const { ring, listener, dial } = await listening();
    const [peer, conn] = await Promise.all([dial(), listener.accept()]);
    const iteration = conn.chunks();
    await conn.writeAll(new Uint8Array(1)); // closing with this unread is a reset
    await peer.writeAll(new Uint8Array([1]));
    await iteration.next();
    await peer.writeAll(new Uint8Array([2]));
    await sleep(1, { ring });
    await peer.close();
    await until("the request has ended", () => ring.inFlight === 0);
    await loopTurn();
    const p = new Uint8Array(9);
    const waiting = how === "a read that waits" ? [conn.read(p), conn.read(p)] : [];
    waiting[1]?.catch(() => {});
    await iteration.return!();
    if (how === "another iteration") {
      const other = conn.chunks();
      assertEquals((await other.next()).value, new Uint8Array([2]));
      await assertRejects(() => other.next(), Deno.errors.ConnectionReset);
      await other.return!();
    } else {
      assertEquals([await (waiting[0] ?? conn.read(p)), p[0]], [1, 2]);
      await assertRejects(() => waiting[1] ?? conn.read(p), Deno.errors.ConnectionReset);
    }
    assertEquals(await conn.read(p), null);
    await conn.close();
    await listener.close();
    await ring.close();
  });
}
