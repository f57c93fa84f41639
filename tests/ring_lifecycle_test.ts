/** From opening a ring to its close, the life of the process around it, and where no ring is to be had. */
import { assert, assertEquals, assertInstanceOf, assertMatch, assertRejects, assertThrows } from "@std/assert";
import {
  chain,
  connect,
  defaultRing,
  listen,
  open,
  pipe,
  retry,
  Ring,
  type RingOptions,
  scope,
  sleep,
  socketpair,
  type SystemErrorFields,
  timeout,
} from "../mod.ts";
import { assertDescriptors, descriptors } from "./support/descriptors.ts";
import * as libc from "./support/libc.ts";
import { library, program } from "./support/program.ts";
import { doorbells, ringKinds } from "./support/rings.ts";
import { loopTurn, turns, within } from "./support/until.ts";

// --- Opening ---

Deno.test("Ring.open refuses options that make no sense, and opens nothing", async () => {
  const before = descriptors();
  const wrong: [keyof RingOptions, unknown[]][] = [
    ["entries", [0, 1, -1, 1.5, NaN, Infinity, 32769, "8", null]],
    ["completionEntries", [0, 1, 1023, 65537, NaN, 2048.5, "4096"]],
    ["sqpollIdleMs", [0, -1, NaN, 2 ** 31, 0.5]],
  ];
  for (const [option, values] of wrong) {
    for (const value of values) {
      const refuse = () => Ring.open({ [option]: value });
      // null is "not given" for `??`.
      if (value === null) await refuse().close();
      else assertThrows(refuse, RangeError, `${option} must be an integer`, `${option}: ${value}`);
    }
  }
  for (const doorbell of ["bell", "", 1, {}]) {
    assertThrows(() => Ring.open({ doorbell: doorbell as "pipe" }), TypeError, 'doorbell must be "pipe" or "thread"');
  }
  await assertDescriptors(before);
});

Deno.test("a ring says the sizes that the kernel gave it", async () => {
  for (const [wanted, entries] of [[2, 2], [3, 4], [8, 8], [1000, 1024], [32768, 32768]]) {
    await using ring = Ring.open({ entries: wanted });
    assertEquals(ring.entries, entries);
    assert(ring.completionEntries >= entries);
    await sleep(0, { ring });
  }
  await using ring = Ring.open({ entries: 8, completionEntries: 1000 });
  assertEquals([ring.entries, ring.completionEntries, ring.inFlight], [8, 1024, 0]);
});

// --- Closing ---

Deno.test("deadlines, pauses and graces outlive the default ring, which another takes the place of", async () => {
  await using ring = Ring.open();
  const [left, right] = socketpair({ ring });
  await sleep(0);
  const first = defaultRing();
  const read = () => left.read(new Uint8Array(1));
  const overdue = Promise.allSettled([timeout(20, read), retry(read, { timeout: 20 })]);
  let attempts = 0;
  const tried = retry(() => assert(++attempts > 1), { backoff: { initial: 20, jitter: 0 } });
  const graceful = scope(async (s) => {
    s.cancel("enough", { grace: 20 });
    await read();
  }).catch((reason) => reason);
  await loopTurn();
  await first.close();
  await assertRejects(() => sleep(0, { ring: first }), Deno.errors.BadResource, "The ring is closed");
  for (const outcome of await within("the deadlines", overdue)) {
    assert(outcome.status === "rejected" && outcome.reason.name === "TimeoutError", `${Deno.inspect(outcome)}`);
  }
  await within("the pause", tried);
  assertEquals(await within("the grace", graceful), "enough");
  await assertRejects(() => within("a deadline set afterwards", timeout(5, read)), DOMException, "Timed out");
  assert(defaultRing() !== first);
  assertEquals([first.inFlight, defaultRing().inFlight, ring.inFlight], [0, 0, 0]);
  await left.close();
  await right.close();
});

/** One of everything that waits. */
async function parkEverything(ring: Ring): Promise<{ parked: Promise<unknown>[]; close(): Promise<void> }> {
  const { reader, writer } = pipe({ ring });
  const [left, right] = socketpair({ ring });
  const [idle, other] = socketpair({ ring });
  const listener = await listen({ hostname: "127.0.0.1", port: 0, ring });
  const full = await listen({ hostname: "127.0.0.1", port: 0, backlog: 0, ring });
  const first = await connect({ port: full.addr.port, ring });
  const path = Deno.makeTempFileSync();
  Deno.removeSync(path);
  libc.mkfifo(path);
  const p = new Uint8Array(1);
  const parked: Promise<unknown>[] = [
    reader.read(p),
    reader.read(p), // waits for its turn
    reader.readAll(),
    idle.read(p, { timeout: 1e9 }),
    right.writeAll(new Uint8Array(8 << 20)),
    right.writeAll(new Uint8Array(1)),
    listener.accept(),
    connect({ port: full.addr.port, ring }),
    sleep(1e9, { ring }),
    open(path, { ring }),
    open(path, { ring, timeout: 1e9 }),
    chain({ ring }).sleep(1e9).read(reader, p).then(),
    chain({ ring }).open("/proc/self/exe").read(p).read(idle, p).write(other, p).close().then(),
    sleep(1e9, { ring, signal: new AbortController().signal }),
  ];
  for (const promise of parked) promise.catch(() => {});
  for (let i = 0; i < 3; i++) await loopTurn();
  return {
    parked,
    async close() {
      for (const end of [reader, writer, left, right, idle, other, listener, full, first]) await end.close();
      Deno.removeSync(path);
    },
  };
}

for (const [kind, options] of ringKinds) {
  Deno.test(`close cancels what is in flight, waits for it, and leaves nothing, ${kind}`, async () => {
    const before = descriptors();
    const ring = Ring.open(options);
    const { parked, close } = await parkEverything(ring);
    assert(ring.inFlight >= parked.length);
    let settled = 0;
    for (const promise of parked) promise.then(() => {}, () => settled++);
    const closed = ring.close();
    assert(closed === ring.close() || await ring.close() === undefined, "closing twice is closing once");
    await within("the close", closed);
    assertEquals(ring.inFlight, 0);
    await turns(20);
    assertEquals(settled, parked.length, "all have settled by the time the ring is closed");
    for (const outcome of await Promise.allSettled(parked)) {
      assertEquals(outcome.status, "rejected");
      const { reason } = outcome as PromiseRejectedResult;
      // TEMPORARY
      if (reason instanceof Deno.errors.BadResource) continue;
      assertInstanceOf(reason, DOMException);
      assertEquals([reason.name, reason.message], ["AbortError", "The ring was closed"]);
    }
    await close();
    await assertDescriptors(before);
  });

  Deno.test(`a closed ring takes nothing, and what it opened can still be closed, ${kind}`, async () => {
    const before = descriptors();
    const ring = Ring.open(options);
    const { reader, writer } = pipe({ ring });
    const [left, right] = socketpair({ ring });
    const listener = await listen({ hostname: "127.0.0.1", port: 0, ring });
    const file = await open("/proc/self/exe", { ring });
    await ring.close();
    const p = new Uint8Array(8);
    const uses: (() => PromiseLike<unknown>)[] = [
      () => sleep(0, { ring }),
      () => open("/proc/self/exe", { ring }),
      () => listen({ port: 0, ring }),
      () => connect({ port: listener.addr.port, ring }),
      () => listener.accept(),
      () => reader.read(p),
      () => reader.readAll(),
      () => writer.writeAll(p),
      () => left.read(p),
      () => left.write(p),
      () => left.closeWrite(),
      () => file.readAt(p, 0),
      () => chain({ ring }).sleep(0).then(),
      () => chain({ ring }).open("/proc/self/exe").close().then(),
      () => chain().read(left, p).write(right, p).then(),
    ];
    for (const use of uses) await assertRejects(use, Deno.errors.BadResource, "The ring is closed", use.toString());
    for (const end of [reader, writer, left, right, listener, file]) await end.close();
    await assertDescriptors(before);
  });

  Deno.test(`a cancelled operation has settled when the ring that is closed next is closed, ${kind}`, async () => {
    const ring = Ring.open(options);
    const controller = new AbortController();
    const sleeping = sleep(1e9, { ring, signal: controller.signal });
    const outcome = sleeping.then(() => "slept", (reason) => reason);
    for (let i = 0; i < 3; i++) await loopTurn();
    controller.abort("enough");
    for (let turn = 0; ring.inFlight > 0; turn++) await (turn < 20 ? turns(1) : loopTurn());
    await ring.close();
    assertEquals(await within("the operation", outcome, 2000), "enough");
  });
}

Deno.test("two rings at once do not meet: closing one leaves the other at work", async () => {
  const before = descriptors();
  {
    await using one = Ring.open({ entries: 8 });
    const other = Ring.open({ entries: 8 });
    const [left, right] = socketpair({ ring: one });
    const reading = left.read(new Uint8Array(1));
    const sleeping = assertRejects(() => sleep(1e9, { ring: other }), DOMException, "The ring was closed");
    await loopTurn();
    await other.close();
    await sleeping;
    assertEquals(one.inFlight, 1);
    await right.write(new Uint8Array(1));
    assertEquals(await reading, 1);
    await left.close();
    await right.close();
    await assertRejects(
      () => chain({ ring: one }).read(socketpair({ ring: defaultRing() })[0], new Uint8Array(1)).then(),
      TypeError,
      "one ring",
    );
  }
  assert(before.size > 0);
});

Deno.test("a hundred rings, one after another and all at once, leave nothing", async () => {
  await Ring.open().close();
  const before = descriptors();
  for (let i = 0; i < 50; i++) {
    await using ring = Ring.open({ entries: 8, doorbell: doorbells[i % doorbells.length] });
    await sleep(0.1, { ring });
  }
  const rings = Array.from({ length: 50 }, () => Ring.open({ entries: 8 }));
  await Promise.all(rings.map((ring) => sleep(1, { ring })));
  await Promise.all(rings.map((ring) => ring.close()));
  await assertDescriptors(before);
});

Deno.test("a worker has a default ring of its own", async () => {
  const source = `
    import { defaultRing, sleep, socketpair } from ${JSON.stringify(library)};
    const [left, right] = socketpair();
    const p = new Uint8Array(5);
    const reading = left.read(p);
    await sleep(1);
    await right.writeAll(new TextEncoder().encode("hello"));
    await reading;
    await left.close();
    await right.close();
    self.postMessage([new TextDecoder().decode(p), defaultRing().fd, defaultRing().inFlight]);`;
  const url = `data:application/javascript,${encodeURIComponent(source)}`;
  const worker = new Worker(url, { type: "module" });
  const { promise, resolve, reject } = Promise.withResolvers<[string, number, number]>();
  worker.onmessage = ({ data }) => resolve(data);
  worker.onerror = (event) => reject(event.message);
  try {
    const [text, fd, inFlight] = await within("the worker", promise);
    assertEquals([text, inFlight], ["hello", 0]);
    assert(fd !== defaultRing().fd);
  } finally {
    worker.terminate();
  }
});

// --- The life of the process ---

const bells = [...doorbells.map((doorbell) => JSON.stringify({ doorbell })), "{ sqpoll: true }", "undefined"];

for (const bell of bells) {
  const prelude = `
    import { Ring, defaultRing, pipe, race, sleep, socketpair, stdin, timeout } from LIBRARY;
    const options: object | undefined = ${bell};
    const ring = options ? Ring.open(options) : defaultRing();
    const turn = () => new Promise((resolve) => setTimeout(resolve, 1));
    const { reader } = pipe({ ring });
    const controller = new AbortController();
    const { signal } = controller;
    const parked = () => reader.read(new Uint8Array(1), { signal });
  `;
  const lives: [name: string, source: string, out: string][] = [
    ["while a request is in flight", `sleep(50, { ring }).then(() => console.log("slept"));`, "slept\n"],
    ["no longer than its requests", `await sleep(1, { ring }); console.log("done");`, "done\n"],
    ["not for a ring without requests", `console.log(ring.inFlight);`, "0\n"],
    [
      "not for a request that was cancelled in the same turn",
      `const p = parked(); controller.abort("no"); await p.catch(console.log);`,
      "no\n",
    ],
    [
      "not for a cancelled request, whose bell was armed",
      `const p = parked(); await turn(); await turn(); controller.abort("no"); await p.catch(console.log);`,
      "no\n",
    ],
    [
      "not for the bell of the last request, which nobody awaits",
      `parked().catch(console.log); await turn(); await turn(); controller.abort("no");`,
      "no\n",
    ],
    [
      "while another request is still in flight",
      `parked().catch(console.log); sleep(60, { ring }).then(() => console.log("slept"));
       await turn(); await turn(); controller.abort("no");`,
      "no\nslept\n",
    ],
    [
      "again after it had nothing to do",
      `for (let i = 0; i < 40; i++) { await sleep(0.2, { ring }); await turn(); }
       sleep(40, { ring }).then(() => console.log("slept again"));`,
      "slept again\n",
    ],
    [
      "not for a closed ring",
      `if (options) { const p = parked(); await turn(); await ring.close(); await p.catch(() => {}); }
       console.log("closed");`,
      "closed\n",
    ],
  ];
  for (const [name, source, out] of lives) {
    Deno.test(`the process lives ${name}: ${bell}`, async () => {
      assertEquals(await program(prelude + source, { flags: ["--allow-ffi"] }), { code: 0, out, err: "" });
    });
  }
}

Deno.test("a read that nothing ends keeps the process alive", async () => {
  for (const doorbell of doorbells) {
    const source = `
      import { Ring, open } from ${JSON.stringify(library)};
      const ring = Ring.open({ doorbell: ${JSON.stringify(doorbell)} });
      const file = await open("/proc/self/fd/0", { ring });
      const p = new Uint8Array(16);
      file.read(p).then((n) => console.log("read", n));
      let turns = 0;
      const timer = setInterval(() => {
        if (++turns < 20) return;
        clearInterval(timer);
        console.log("waiting");
      }, 1);`;
    const child = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-config", "--no-check", `data:application/typescript,${encodeURIComponent(source)}`],
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    const lines = child.stdout.pipeThrough(new TextDecoderStream()).getReader();
    assertEquals((await within("the child", lines.read())).value, "waiting\n");
    const writer = child.stdin.getWriter();
    await writer.write(new Uint8Array(3));
    assertEquals((await within("the child", lines.read())).value, "read 3\n");
    await writer.close();
    assertEquals((await within("the child", lines.read())).done, true);
    assertEquals((await child.status).code, 0);
  }
});

// --- Where there is none ---

/** Has the kernel answer io_uring_setup otherwise, for this thread: a seccomp filter. */
const FILTER = (action: number) => `
  const libc = Deno.dlopen("libc.so.6", {
    prctl: { parameters: ["i32", "u64", "buffer", "u64", "u64"], result: "i32" },
  }).symbols;
  const IO_URING_SETUP = 425;
  // struct sock_filter: code, jt, jf, k. Load the number; is it that one; if so, the action; else, go on.
  const filter = new DataView(new ArrayBuffer(32));
  const instructions = [[0x20, 0, 0, 0], [0x15, 0, 1, IO_URING_SETUP], [0x06, 0, 0, ${action}], [0x06, 0, 0, 0x7fff0000]];
  instructions.forEach(([code, jt, jf, k], i) => {
    filter.setUint16(i * 8, code, true);
    filter.setUint8(i * 8 + 2, jt);
    filter.setUint8(i * 8 + 3, jf);
    filter.setUint32(i * 8 + 4, k, true);
  });
  const program = new BigUint64Array([4n, Deno.UnsafePointer.value(Deno.UnsafePointer.of(filter.buffer))]);
  const PR_SET_NO_NEW_PRIVS = 38;
  const PR_SET_SECCOMP = 22;
  const filtered = libc.prctl(PR_SET_NO_NEW_PRIVS, 1n, null, 0n, 0n) === 0 &&
    libc.prctl(PR_SET_SECCOMP, 2n, program, 0n, 0n) === 0;
  if (!filtered) Deno.exit(77);`;

const TELL = `
  import { IoUringUnavailableError, sleep } from LIBRARY;
  const tell = () => sleep(1).then(() => console.log("slept"), (error) => {
    console.log(error instanceof IoUringUnavailableError, error.name, error.code, error.message);
  });`;

const ERRNO = 0x50000;
const KILL_PROCESS = 0x80000000;

const refusals: [errno: number, code: string, remedy: RegExp][] = [
  [1, "EPERM", /^true IoUringUnavailableError EPERM io_uring_setup: EPERM\. .*seccomp.*Docker/],
  [38, "ENOSYS", /^true IoUringUnavailableError ENOSYS .*no io_uring.*Linux 5\.19/],
  [12, "ENOMEM", /^true IoUringUnavailableError ENOMEM .*ulimit -l/],
  [22, "EINVAL", /^true IoUringUnavailableError EINVAL .*Linux 5\.19/],
  [24, "EMFILE", /^true IoUringUnavailableError EMFILE /],
];

for (const [errno, code, remedy] of refusals) {
  Deno.test(`where io_uring_setup says ${code}, the first use says why and what to do`, async () => {
    const { code: exit, out, err } = await program(`${TELL}${FILTER(ERRNO | errno)} await tell(); await tell();`);
    if (exit === 77) return console.log("Skipped: no seccomp filter to be had");
    assertEquals([exit, err], [0, ""]);
    const lines = out.trim().split("\n");
    assertEquals(lines.length, 2, "not only the first use");
    for (const line of lines) assertMatch(line, remedy);
  });
}

Deno.test("RINGSCOPE_DISABLE keeps the library from trying where trying is punished", async () => {
  const source = `${TELL}${FILTER(KILL_PROCESS)} await tell();`;
  const punished = await program(source);
  if (punished.code === 77) return console.log("Skipped: no seccomp filter to be had");
  assertEquals([punished.code, punished.out], [128 + 31, ""], "SIGSYS");
  const { code, out } = await program(source, { env: { RINGSCOPE_DISABLE: "1" } });
  assertEquals(code, 0);
  assertMatch(out, /^true IoUringUnavailableError DISABLED .*RINGSCOPE_DISABLE=1/);
});

Deno.test("under a tight limit on locked memory the default ring is smaller, and under none the error says so", async () => {
  const source = (bytes: number) => `
    import { defaultRing } from LIBRARY;
    ${TELL}
    const libc = Deno.dlopen("libc.so.6", {
      setrlimit: { parameters: ["i32", "buffer"], result: "i32" },
      setresuid: { parameters: ["u32", "u32", "u32"], result: "i32" },
      access: { parameters: ["buffer", "i32"], result: "i32" },
    }).symbols;
    const RLIMIT_MEMLOCK = 8;
    const NOBODY = 65534;
    libc.setrlimit(RLIMIT_MEMLOCK, new BigUint64Array([${bytes}n, ${bytes}n]));
    // Another user than root has no CAP_IPC_LOCK.
    if (Deno.uid() === 0) libc.setresuid(NOBODY, NOBODY, NOBODY);
    await tell();
    try {
      console.log(defaultRing().entries);
    } catch {
      console.log("none");
    }`;
  // The helper must be readable for that user, which it is when embedded.
  const options = { flags: ["-A"] };
  const tight = await program(source(64 << 10), options);
  const [slept, entries] = tight.out.trim().split("\n");
  assertEquals([tight.err, slept], ["", "slept"]);
  assert(Number(entries) < 1024, `${entries} entries in 64 KiB`);
  const none = await program(source(0), options);
  assertMatch(none.out, /^true IoUringUnavailableError ENOMEM .*ulimit -l.*\nnone\n$/);
});

Deno.test("importing needs no permission; using needs FFI", async () => {
  const { out, err } = await program(
    `const { Ring, pipe, socketpair } = await import(LIBRARY);
     console.log("imported");
     for (const use of [() => Ring.open(), () => pipe(), () => socketpair()]) {
       try { use(); } catch (error) { console.log(error.name, error instanceof Deno.errors.NotCapable); }
     }`,
    { flags: [] },
  );
  assertEquals([out, err], ["imported\nNotCapable true\nNotCapable true\nNotCapable true\n", ""]);
});

// --- Errors lead to the caller ---

/** The line of this file that the first frame in it names. */
function lineIn(error: Error): number {
  return Number(/ring_lifecycle_test\.ts:(\d+)/.exec(error.stack!)?.[1]);
}

function thisLine(): number {
  return Number(/ring_lifecycle_test\.ts:(\d+)/.exec(new Error().stack!.split("\n")[2])![1]);
}

for (const [kind, options] of ringKinds) {
  Deno.test(`the stack of an errno and of a timeout leads to the caller's line, ${kind}`, async () => {
    await using ring = Ring.open(options);
    const [left, right] = socketpair({ ring });
    await using full = await listen({ hostname: "127.0.0.1", port: 0, backlog: 0, ring });
    await using _first = await connect({ port: full.addr.port, ring });
    await using idle = await listen({ hostname: "127.0.0.1", port: 0, ring });
    const p = new Uint8Array(1);
    let line = 0;
    const failing: (() => Promise<unknown>)[] = [
      async () => (line = thisLine(), await open("/nonexistent", { ring })),
      async () => (line = thisLine(), await open("/proc/self/exe/x", { ring })),
      async () => (line = thisLine(), await left.read(p, { timeout: 1 })),
      async () => (line = thisLine(), await sleep(1e6, { timeout: 1, ring })),
      async () => (line = thisLine(), await idle.accept({ timeout: 1 })),
      async () => (line = thisLine(), await connect({ port: full.addr.port, ring, timeout: 1 })),
      async () => (line = thisLine(), await timeout(1, () => left.read(p))),
      async () => (line = thisLine(), await chain({ ring }).open("/nonexistent").close()),
    ];
    for (const fail of failing) {
      const error = await assertRejects(fail) as Error & Partial<SystemErrorFields>;
      assertEquals(lineIn(error), line, error.stack);
    }
    await left.close();
    await right.close();
  });
}
