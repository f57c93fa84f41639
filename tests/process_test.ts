import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  connect,
  connectDatagram,
  copy,
  defaultRing,
  listen,
  listenDatagram,
  open,
  pipe,
  Ring,
  socketpair,
  timeout,
  waitProcess,
} from "../mod.ts";
import { descriptors } from "./support/descriptors.ts";
import { loopTurn, turns, until, within } from "./support/until.ts";

const { symbols: libc } = Deno.dlopen("libc.so.6", {
  posix_spawn: { parameters: ["buffer", "buffer", "pointer", "pointer", "buffer", "buffer"], result: "i32" },
  kill: { parameters: ["i32", "i32"], result: "i32" },
});

const encoder = new TextEncoder();

/** Starts a shell that the runtime knows nothing of. */
function spawn(script: string): number {
  const strings = ["/bin/sh", "-c", script].map((string) => encoder.encode(`${string}\0`));
  const addresses = strings.map((string) => BigInt(Deno.UnsafePointer.value(Deno.UnsafePointer.of(string))));
  const pid = new Int32Array(1);
  const argv = BigUint64Array.from([...addresses, 0n]);
  const result = libc.posix_spawn(pid, strings[0], null, null, argv, new BigUint64Array(1));
  if (result !== 0) throw new Error(`posix_spawn: ${result}`);
  return pid[0];
}

Deno.test("a child of one's own: its code, its signal, and that it is reaped once", async () => {
  const exits = spawn("exit 7");
  assertEquals(await waitProcess(exits), { pid: exits, code: 7, signal: null });
  // It was left where it is, so it can be asked again.
  assertEquals(await waitProcess(exits, { reap: true }), { pid: exits, code: 7, signal: null });
  const error = await assertRejects(() => waitProcess(exits), Error) as Error & { code: string };
  assertEquals(error.code, "ECHILD");

  const SIGTERM = 15;
  const killed = spawn("exec sleep 1000");
  const ended = waitProcess(killed, { reap: true });
  await turns(20);
  assertEquals(defaultRing().inFlight, 1);
  libc.kill(killed, SIGTERM);
  assertEquals(await within("the child ends", ended), { pid: killed, code: 143, signal: "SIGTERM" });
});

Deno.test("waiting is given up by signals, deadlines and scopes, and the child goes on", async () => {
  const pid = spawn("exec sleep 1000");
  const controller = new AbortController();
  const aborted = waitProcess(pid, { signal: controller.signal, reap: true });
  await turns(20);
  controller.abort("enough");
  assertEquals(await aborted.catch((error) => error), "enough");
  await assertRejects(() => waitProcess(pid, { timeout: 1 }), DOMException, "timed out");
  await assertRejects(() => timeout(1, () => waitProcess(pid)), DOMException);
  assertEquals(defaultRing().inFlight, 0);
  libc.kill(pid, 9);
  assertEquals((await waitProcess(pid, { reap: true })).signal, "SIGKILL");
});

Deno.test("children of Deno.Command are waited for beside the runtime, which reaps them", async () => {
  for (let i = 0; i < 20; i++) {
    const child = new Deno.Command("/bin/sh", { args: ["-c", `exit ${i}`] }).spawn();
    // Sometimes the runtime has been there first.
    if (i % 2 === 0) await until("a zombie, or reaped", () => ended(child.pid));
    const [waited, status] = await within("both", Promise.all([waitProcess(child), child.status]));
    assertEquals(waited, { pid: child.pid, code: i, signal: null });
    assertEquals(status.code, i);
  }
  const child = new Deno.Command("/bin/sh", { args: ["-c", "exec sleep 1000"] }).spawn();
  const waiting = waitProcess(child);
  child.kill("SIGTERM");
  assertEquals(await waiting, { pid: child.pid, code: 143, signal: "SIGTERM" });
  await child.status;
});

function ended(pid: number): boolean {
  try {
    return /^\d+ \(.*\) Z/.test(Deno.readTextFileSync(`/proc/${pid}/stat`));
  } catch {
    return true;
  }
}

Deno.test("what is no child is refused", async () => {
  for (const pid of [0, -1, 1.5, NaN]) await assertRejects(() => waitProcess(pid), RangeError);
  await assertRejects(() => waitProcess(1), Error, "No child processes");
  await using old = Ring.open({ kernel: "6.6" });
  await assertRejects(() => waitProcess(1, { ring: old }), Deno.errors.NotSupported, "6.7");
});

Deno.test("a child inherits none of the descriptors", async () => {
  const opened: AsyncDisposable[] = [];
  const keep = <T extends AsyncDisposable>(resource: T): T => (opened.push(resource), resource);
  const before = descriptors();
  const path = `\0ringscope ${Deno.pid} inherit`;
  const ring = keep(Ring.open());
  keep(await open("/dev/null"));
  const { reader, writer } = pipe();
  for (const end of [reader, writer, ...socketpair()]) keep(end);
  const listener = keep(await listen({ hostname: "127.0.0.1", port: 0, ring }));
  const accepted = listener.accept();
  keep(await connect({ port: listener.addr.port }));
  keep(await accepted);
  keep(await connect({ port: listener.addr.port }));
  for await (const conn of listener) {
    keep(conn);
    break;
  }
  const unix = keep(await listen({ transport: "unix", path }));
  keep(await connect({ transport: "unix", path }));
  keep(await unix.accept());
  const socket = keep(await listenDatagram({ transport: "udp", hostname: "127.0.0.1", port: 0 }));
  keep(await connectDatagram({ port: socket.addr.port }));
  const copying = copy(reader, writer).catch(() => {}); // has a pipe of its own
  const count = before.size + opened.length + 2;
  await until("all are open", () => descriptors().size >= count && defaultRing().inFlight > 0);
  await loopTurn();

  const O_CLOEXEC = 0o2000000;
  let checked = 0;
  for (const [fd, what] of descriptors()) {
    if (before.get(fd) === what) continue;
    const flags = /flags:\s*(\d+)/.exec(Deno.readTextFileSync(`/proc/self/fdinfo/${fd}`))![1];
    assert(Number.parseInt(flags, 8) & O_CLOEXEC, `${fd} ${what}`);
    checked++;
  }
  assert(checked >= opened.length, `${checked} descriptors`);
  for (const resource of opened.reverse()) await resource[Symbol.asyncDispose]();
  await copying;
});
