import { assert, assertEquals, assertMatch, assertStringIncludes } from "@std/assert";
import { assertSameBytes, joined, noise, run, scratch, start, text } from "./support/example.ts";
import { within } from "./support/until.ts";

/** Feeds standard input, and waits for the end. */
async function feed(child: Deno.ChildProcess, bytes: Uint8Array<ArrayBuffer>): Promise<Deno.CommandOutput> {
  const output = child.output();
  const writer = child.stdin.getWriter();
  await writer.write(bytes).catch(() => {});
  await writer.close().catch(() => {});
  return await within("the program", output);
}

// --- multishot_accept ---

Deno.test("multishot_accept accepts every connection by one request", async () => {
  const { code, out, err } = await run("multishot_accept.ts", { args: ["100"] });
  assertEquals([code, err], [0, ""]);
  assertMatch(out, /^100 connections, accepted by a request with 101 results/);
  assertStringIncludes(out, "At the most 1 request was in flight");
  assertStringIncludes(out, "\n0 requests in flight\n");
});

// --- sqpoll ---

Deno.test("sqpoll needs next to no system calls while it is busy, and wakes after idling", async () => {
  const { code, out, err } = await run("sqpoll.ts");
  assertEquals([code, err], [0, ""]);
  const [first, afterIdle, sqpollFirst, sqpollAfterIdle] = Array.from(
    out.matchAll(/: (\d+) system calls/g),
    ([, count]) => Number(count),
  );
  assert(first >= 600 && afterIdle >= 600, out);
  assert(sqpollFirst < first / 4 && sqpollAfterIdle < afterIdle / 4, out);
  assert(sqpollAfterIdle >= 1, "it had fallen asleep, and was woken by a system call");
});

// --- concurrent_reads ---

for (const count of [300, 900]) {
  Deno.test(`concurrent_reads reads ${count} files in one submission`, async () => {
    const { code, out, err } = await run("concurrent_reads.ts", { args: [`${count}`] });
    assertEquals([code, err], [0, ""]);
    assertMatch(out, new RegExp(`^${count} of ${count} files read and right`));
    assertStringIncludes(out, "\n1 system calls submitted all of them\n0 requests in flight\n");
  });
}

// --- two_workers ---

Deno.test("two_workers serves from both of its workers, and leaves nothing in flight", async () => {
  const { code, out, err } = await run("two_workers.ts", { args: ["300"] });
  assertEquals([code, err], [0, ""]);
  const answered = Array.from(
    out.matchAll(/^Worker (?:one|two) answered (\d+) of 300$/gm),
    ([, count]) => Number(count),
  );
  assertEquals(answered.length, 2, out);
  assertEquals(answered[0] + answered[1], 300);
  assert(answered.every((count) => count > 0), "the kernel spreads them");
  assertEquals(out.match(/^0 requests in flight$/gm)?.length, 2);
});

// --- tee ---

for (const bytes of [0, 1, 4095, 4096, 4097, 65536, 65537, 5_000_000]) {
  Deno.test(`tee copies ${bytes} bytes exactly to standard output and to files`, async () => {
    using dir = scratch();
    const data = noise(bytes);
    Deno.writeTextFileSync(dir.path("b"), "what was there");
    const { code, stdout, stderr } = await feed(
      start("tee.ts", "piped", { args: [dir.path("a"), dir.path("b")] }),
      data,
    );
    assertEquals([code, text(stderr)], [0, ""]);
    assertSameBytes(stdout, data);
    assertSameBytes(Deno.readFileSync(dir.path("a")), data);
    assertSameBytes(Deno.readFileSync(dir.path("b")), data);
  });
}

Deno.test("tee -a appends", async () => {
  using dir = scratch();
  const [before, data] = [noise(1000), noise(100_000)];
  Deno.writeFileSync(dir.path("a"), before);
  const { code } = await feed(start("tee.ts", "piped", { args: ["-a", dir.path("a")] }), data);
  assertEquals(code, 0);
  assertSameBytes(Deno.readFileSync(dir.path("a")), joined(before, data));
});

Deno.test("tee says which output failed, and goes on with the others", async () => {
  using dir = scratch();
  const data = noise(300_000);
  const { code, stdout, stderr } = await feed(
    start("tee.ts", "piped", { args: ["/nonexistent/x", dir.path("a"), "/dev/full"] }),
    data,
  );
  assertEquals(code, 1);
  assertMatch(text(stderr), /^tee: No such file.*'\/nonexistent\/x'\ntee: \/dev\/full: No space left/);
  assertSameBytes(stdout, data);
  assertSameBytes(Deno.readFileSync(dir.path("a")), data);
});

Deno.test("tee goes on when whoever reads its output has seen enough", async () => {
  using dir = scratch();
  const data = noise(1_000_000);
  const shell = '"$@" | head -c 10';
  const { stdout } = await feed(start("tee.ts", "piped", { shell, args: [dir.path("a")] }), data);
  assertSameBytes(stdout, data.subarray(0, 10));
  assertSameBytes(Deno.readFileSync(dir.path("a")), data);
});
