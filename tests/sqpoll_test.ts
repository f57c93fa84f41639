/** A ring whose submission queue a thread of the kernel polls: what it saves, and that it wakes again. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { pipe, Ring, sleep, socketpair } from "../mod.ts";
import { driverOf } from "../ring/ring.ts";
import { until, within } from "./support/until.ts";

const TRACEFS = "/sys/kernel/tracing";
const IO_URING_ENTER = 426;

/** The kernel's thread for a ring, as long as it runs on a processor or waits for one, and does not sleep. */
function polling(): boolean {
  for (const { name } of Deno.readDirSync("/proc/self/task")) {
    let stat: string;
    try {
      stat = Deno.readTextFileSync(`/proc/self/task/${name}/stat`);
    } catch {
      continue; // a thread that has ended meanwhile
    }
    if (stat.includes("(iou-sqp-") && / R /.test(stat)) return true;
  }
  return false;
}

function unavailable(): string | null {
  try {
    Deno.statSync(`${TRACEFS}/events/raw_syscalls/sys_enter/enable`);
    return Deno.uid() === 0 ? null : "not root";
  } catch (error) {
    return (error as Error).message;
  }
}

const reason = unavailable();
if (reason !== null) console.log(`Skipping the count of io_uring_enter: ${reason}`);

/** Counts the entries that this thread makes into a ring while `run` runs. */
async function countEnters(fd: number, run: () => Promise<void>): Promise<number> {
  const instance = `${TRACEFS}/instances/ringscope_sqpoll_${Deno.pid}`;
  const write = (file: string, text: string) => Deno.writeTextFileSync(`${instance}/${file}`, text);
  Deno.mkdirSync(instance);
  try {
    write("buffer_size_kb", "4096");
    write("set_event_pid", Deno.readLinkSync("/proc/thread-self").split("/").at(-1)!);
    write("events/raw_syscalls/sys_enter/filter", `id == ${IO_URING_ENTER}`);
    write("events/raw_syscalls/sys_enter/enable", "1");
    await run();
    write("tracing_on", "0");
    const trace = Deno.readTextFileSync(`${instance}/trace`);
    return trace.split("\n").filter((line) => line.includes(`(${fd.toString(16)}, `)).length;
  } finally {
    Deno.removeSync(instance);
  }
}

/** Sends a byte to and fro, `rounds` times. */
async function pingPong(ring: Ring, rounds: number): Promise<void> {
  const [left, right] = socketpair({ ring });
  const [here, there] = [new Uint8Array(1), new Uint8Array(1)];
  for (let i = 0; i < rounds; i++) {
    const read = right.read(there);
    await left.write(here);
    await read;
  }
  await Promise.all([left.close(), right.close()]);
}

Deno.test("its thread goes to sleep, and wakes for what comes next, whatever that is", async () => {
  await using ring = Ring.open({ sqpoll: true, sqpollIdleMs: 1 });
  for (let i = 0; i < 5; i++) {
    await within("a round trip", pingPong(ring, 20));
    await until("the thread sleeps", () => !polling());
    const controller = new AbortController();
    const { reader, writer } = pipe({ ring });
    const reading = reader.read(new Uint8Array(1), { signal: controller.signal });
    await sleep(3); // on the default ring: this one's thread falls asleep over the read
    await until("the thread sleeps", () => !polling());
    controller.abort("enough");
    assertEquals(await within("a cancel that wakes the thread", reading.catch((error) => error)), "enough");
    await until("the thread sleeps", () => !polling());
    await within("a timer that wakes it", sleep(1, { ring }));
    await assertRejects(() => within("a deadline", reader.read(new Uint8Array(1), { timeout: 1 })), DOMException);
    await Promise.all([reader.close(), writer.close()]);
  }
  assertEquals(ring.inFlight, 0);
});

Deno.test("more at once than its queue holds", async () => {
  await using ring = Ring.open({ sqpoll: true, sqpollIdleMs: 1, entries: 4, completionEntries: 8 });
  for (let i = 0; i < 3; i++) {
    await within("all of them", Promise.all(Array.from({ length: 500 }, (_, n) => sleep(n % 3, { ring }))));
    await until("the thread sleeps", () => !polling());
  }
});

Deno.test("it has none of the flags that do not go with a polling thread", async () => {
  await using ring = Ring.open({ sqpoll: true });
  const COOP_TASKRUN = 1 << 8;
  const SQPOLL = 1 << 1;
  const { flags } = driverOf(ring).uring;
  assertEquals([flags & COOP_TASKRUN, flags & SQPOLL], [0, SQPOLL]);
});

Deno.test({
  name: "under load it submits without entering the kernel",
  ignore: reason !== null,
  async fn() {
    const ROUNDS = 2000;
    const enters: number[] = [];
    for (const sqpoll of [false, true]) {
      await using ring = Ring.open({ sqpoll, sqpollIdleMs: 2000 });
      await pingPong(ring, 100);
      enters.push(await countEnters(ring.fd, () => pingPong(ring, ROUNDS)));
    }
    const [entering, polled] = enters;
    assert(entering >= ROUNDS, `${entering} without the thread`);
    assert(polled < ROUNDS / 50, `${polled} with it`);
  },
});
