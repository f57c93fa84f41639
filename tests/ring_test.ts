import { assertEquals, assertRejects } from "@std/assert";
import { defaultRing, pipe, Ring, sleep, socketpair } from "../mod.ts";
import { library } from "./support/program.ts";
import { doorbells } from "./support/rings.ts";
import { isDeno2 } from "./support/runtime.ts";

Deno.test("a busy SQPOLL ring goes on after its thread has slept", async () => {
  await using ring = Ring.open({ sqpoll: true, sqpollIdleMs: 1 });
  for (let i = 0; i < 5; i++) {
    await sleep(10); // on the default ring: the other one idles
    const { reader, writer } = pipe({ ring });
    await writer.write(new Uint8Array(3));
    assertEquals(await reader.read(new Uint8Array(9)), 3);
    await Promise.all([reader.close(), writer.close()]);
  }
});

Deno.test("the default doorbell is the thread at first, and the pipe once the loop has slept often", async () => {
  await using ring = Ring.open();
  assertEquals(ring.doorbell, "thread");
  await sleep(1, { ring });
  assertEquals(ring.doorbell, "thread");
  for (let i = 0; i < 20; i++) await sleep(0.1, { ring });
  assertEquals(ring.doorbell, doorbells[0]);
});

Deno.test("the pipe can be hung on Deno 2.8 and later, the thread everywhere", () => {
  assertEquals(
    doorbells.filter((kind) => kind === "thread" || isDeno2(8)),
    isDeno2(8) ? ["pipe", "thread"] : ["thread"],
  );
});

Deno.test("onCompletion sees the kernel's results, and what it throws does no harm", async () => {
  await using ring = Ring.open();
  const seen: unknown[] = [];
  ring.onCompletion = ({ of, operation, result }) => seen.push([of, operation, result]);
  await sleep(1, { ring });
  await assertRejects(() => sleep(1e6, { ring, timeout: 1 }), DOMException);
  assertEquals(seen[0], ["operation", "sleep", -62]);
  assertEquals(seen.slice(1).toSorted(), [["deadline", "sleep", -62], ["operation", "sleep", -125]]);
  const reported: unknown[] = [];
  const listener = (event: ErrorEvent) => {
    event.preventDefault();
    reported.push(event.error);
  };
  globalThis.addEventListener("error", listener);
  ring.onCompletion = () => {
    throw "observer";
  };
  await sleep(1, { ring });
  ring.onCompletion = null;
  globalThis.removeEventListener("error", listener);
  assertEquals(reported, ["observer"]);
});

Deno.test("timeouts that are none are refused; Infinity is none, and 0 ends what has to wait", async () => {
  const [left, right] = socketpair();
  const p = new Uint8Array(1);
  for (const timeout of [-1, NaN]) await assertRejects(() => left.read(p, { timeout }), RangeError);
  await assertRejects(() => left.read(p, { timeout: "5" as unknown as number }), TypeError);
  await assertRejects(() => left.read(p, { signal: {} as AbortSignal }), TypeError);
  assertEquals((await assertRejects(() => left.read(p, { timeout: 0 })) as Error).name, "TimeoutError");
  await right.write(p);
  assertEquals(await left.read(p, { timeout: Infinity }), 1);
  for (const ms of [-1, NaN, Infinity]) await assertRejects(() => sleep(ms), RangeError);
  await left.close();
  await right.close();
  assertEquals(defaultRing().inFlight, 0);
});

Deno.test("a process without a descriptor to spare sleeps on, and gets its better doorbell later", async () => {
  const source = `
    import { defaultRing, sleep } from ${JSON.stringify(library)};
    const ring = defaultRing();
    const files = [];
    try { for (;;) files.push(Deno.openSync("/dev/null")); } catch (error) { console.log(error.code); }
    for (let i = 0; i < 40; i++) await sleep(0.1);
    console.log(ring.doorbell);
    for (const file of files) file.close();
    for (let i = 0; i < 40; i++) await sleep(0.1);
    console.log(ring.doorbell);`;
  const command = new Deno.Command("sh", {
    args: ["-c", `ulimit -n 64; printf %s "$1" | "$2" run -A --no-config --no-check -`, "sh", source, Deno.execPath()],
  });
  const { code, stdout, stderr } = await command.output();
  assertEquals(
    [code, new TextDecoder().decode(stdout), new TextDecoder().decode(stderr)],
    [0, `EMFILE\nthread\n${doorbells[0]}\n`, ""],
  );
});
