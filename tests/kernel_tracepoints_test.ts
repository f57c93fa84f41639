/**
 * The kernel's own record of what was submitted, linked, cancelled and completed: the witness that cancelling is not
 * only said. It takes root and tracefs; without them these tests are skipped.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { chain, open, Ring, scope, sleep, socketpair } from "../mod.ts";

const TRACEFS = "/sys/kernel/tracing";
const IO_URING_ENTER = 426;

function unavailable(): string | null {
  try {
    Deno.statSync(`${TRACEFS}/events/io_uring/enable`);
    Deno.statSync(`${TRACEFS}/events/raw_syscalls/sys_enter/enable`);
    return Deno.uid() === 0 ? null : "not root";
  } catch (error) {
    return (error as Error).message;
  }
}

const reason = unavailable();
if (reason !== null) console.log(`Skipping the tests with tracepoints: ${reason}`);

/** What the kernel recorded of one ring, in order. */
interface Recorded {
  /** Opcodes, in the order of submission. */
  submitted: string[];
  /** Results, in the order of completion. */
  completed: number[];
  /** Pairs that were linked. */
  links: number;
  /** For each io_uring_enter that submits, how many SQEs it gave. */
  enters: number[];
}

/** Runs `run` on a ring of its own while the kernel records what this thread does with it. */
async function record(run: (ring: Ring) => Promise<void>): Promise<Recorded> {
  const instance = `${TRACEFS}/instances/ringscope_${Deno.pid}_${Math.random().toString(36).slice(2)}`;
  const write = (file: string, text: string) => Deno.writeTextFileSync(`${instance}/${file}`, text);
  // "PID/task/TID": the thread that the ring belongs to, and that this reads it on.
  const tid = Deno.readLinkSync("/proc/thread-self").split("/").at(-1)!;
  Deno.mkdirSync(instance);
  try {
    write("buffer_size_kb", "8192");
    write("set_event_pid", tid);
    write("events/raw_syscalls/sys_enter/filter", `id == ${IO_URING_ENTER}`);
    write("events/raw_syscalls/sys_enter/enable", "1");
    write("events/io_uring/enable", "1");
    let fd: number;
    {
      await using ring = Ring.open({ entries: 2048 });
      fd = ring.fd;
      write("trace_marker", "begin");
      await run(ring);
      write("trace_marker", "end");
    }
    return parse(Deno.readTextFileSync(`${instance}/trace`), fd);
  } finally {
    write("tracing_on", "0");
    Deno.removeSync(instance);
  }
}

function parse(trace: string, fd: number): Recorded {
  const lines = trace.split("\n");
  const created = lines.find((line) => line.includes("io_uring_create: ") && line.includes(` fd ${fd} `))!;
  const ring = /ring (\S+),/.exec(created)![1];
  const begin = lines.findIndex((line) => line.includes("begin"));
  const end = lines.findIndex((line) => line.includes(": end"));
  const recorded: Recorded = { submitted: [], completed: [], links: 0, enters: [] };
  for (const line of lines.slice(begin, end)) {
    const enter = /sys_enter: NR \d+ \((\w+), (\w+),/.exec(line);
    if (enter !== null && parseInt(enter[1], 16) === fd && enter[2] !== "0") {
      recorded.enters.push(parseInt(enter[2], 16));
    }
    if (!line.includes(`ring ${ring},`)) continue;
    const submitted = /io_uring_submit_req: .* opcode (\w+),/.exec(line);
    if (submitted !== null) recorded.submitted.push(submitted[1]);
    const completed = /io_uring_complete: .* result (-?\d+),/.exec(line);
    if (completed !== null) recorded.completed.push(Number(completed[1]));
    if (/io_uring_link:/.test(line)) recorded.links++;
  }
  return recorded;
}

/** Some turns of the loop, after which everything that was started is in the kernel and waits. */
async function parked(): Promise<void> {
  for (let i = 0; i < 3; i++) await new Promise((resolve) => setTimeout(resolve, 1));
}

const test = (name: string, fn: () => Promise<void>) => Deno.test({ name, fn, ignore: reason !== null });

test("an aborted read is cancelled by ASYNC_CANCEL, and completes with -ECANCELED", async () => {
  const { submitted, completed } = await record(async (ring) => {
    const [left, right] = socketpair({ ring });
    const controller = new AbortController();
    const reading = assertRejects(() => left.read(new Uint8Array(1), { signal: controller.signal }));
    await parked();
    controller.abort(new Error("enough"));
    await reading;
    await left.close();
    await right.close();
  });
  assertEquals(submitted, ["RECV", "ASYNC_CANCEL", "CLOSE", "CLOSE"]);
  assertEquals(completed.toSorted((a, b) => a - b), [-125, 0, 0, 0]);
});

test("{ timeout } on a socket is a LINK_TIMEOUT, linked to the read in one submission", async () => {
  const { submitted, completed, links, enters } = await record(async (ring) => {
    const [left, right] = socketpair({ ring });
    await assertRejects(() => left.read(new Uint8Array(1), { timeout: 2 }), DOMException);
    await left.close();
    await right.close();
  });
  assertEquals(submitted.slice(0, 2), ["RECV", "LINK_TIMEOUT"]);
  assertEquals([links, enters[0]], [1, 2]);
  assertEquals(completed.slice(0, 2).toSorted((a, b) => a - b), [-125, -62]);
});

test("{ timeout } on what blocks in a worker is a TIMEOUT and a cancel", async () => {
  const name = Deno.makeTempFileSync();
  Deno.removeSync(name);
  assert((await new Deno.Command("mkfifo", { args: [name] }).output()).success);
  const { submitted } = await record(async (ring) => {
    await assertRejects(() => open(name, { ring, timeout: 5 }), DOMException);
  });
  Deno.removeSync(name);
  assert(!submitted.includes("LINK_TIMEOUT"));
  const [, ...rest] = submitted; // the opening that did not wait
  assertEquals(rest.filter((opcode) => opcode !== "OPENAT2").slice(0, 2).toSorted(), ["ASYNC_CANCEL", "TIMEOUT"]);
});

test("a chain is one submission, each link linked to the one before", async () => {
  const { submitted, links, enters } = await record(async (ring) => {
    await chain({ ring }).open("/proc/self/exe").read(new Uint8Array(64)).close();
  });
  assertEquals([submitted, links, enters], [["OPENAT2", "READ", "CLOSE"], 2, [3]]);
});

test("100 reads queued in one turn take exactly one enter", async () => {
  const { submitted, enters } = await record(async (ring) => {
    const file = await open("/proc/self/exe", { ring });
    await Promise.all(Array.from({ length: 100 }, (_, i) => file.readAt(new Uint8Array(512), i * 512)));
    await file.close();
  });
  assertEquals(submitted.filter((opcode) => opcode === "READ").length, 100);
  assertEquals(enters, [1, 100, 1]);
});

test("a thousand operations of one cancelled scope go in one submission of cancels", async () => {
  const { submitted, completed, enters } = await record(async (ring) => {
    const enough = new Error("enough");
    await assertRejects(() =>
      scope(async (s) => {
        for (let i = 0; i < 1000; i++) s.spawn(() => sleep(1e6, { ring }));
        await parked();
        s.cancel(enough);
        await sleep(0, { ring });
      })
    );
  });
  assertEquals(submitted.filter((opcode) => opcode === "ASYNC_CANCEL").length, 1000);
  assertEquals(enters, [1000, 1000]);
  assertEquals(completed.filter((result) => result === -125).length, 1000);
});
