/** docs/opcodes.md and the library say the same. */
import { assert, assertEquals } from "@std/assert";
import * as library from "../mod.ts";
import { Op, type OpcodeName, opcodeSince } from "../ring/uring_abi.ts";

interface Row {
  opcode: OpcodeName;
  since: string;
  exposed: string;
}

const text = await Deno.readTextFile(new URL("../docs/opcodes.md", import.meta.url));
const rows = [...text.matchAll(/^\| ([A-Z0-9_]+) +\| (\S+) +\| (.+?) +\| .*\|$/gm)].map((match): Row => {
  const [, opcode, since, exposed] = match;
  return { opcode: opcode as OpcodeName, since, exposed };
});

/** What a name such as `File.read` stands for: an export, or a method or accessor of an exported class. */
function exists(name: string): boolean {
  const [exported, member] = name.split(".");
  const value = (library as Record<string, unknown>)[exported];
  if (typeof value !== "function") return false;
  return member === undefined || Object.hasOwn(value.prototype, member);
}

Deno.test("each opcode has its row, in order, with the kernel that brought it", () => {
  assertEquals(rows.map(({ opcode }) => opcode), Object.keys(Op) as OpcodeName[]);
  for (const { opcode, since } of rows) {
    const younger = opcodeSince.get(Op[opcode]);
    if (younger === undefined) assert(/^5\.\d+$/.test(since) && Number(since.slice(2)) <= 19, `${opcode}: ${since}`);
    else assertEquals(since, younger, opcode);
  }
});

Deno.test("what a row says an opcode is exposed as is there", () => {
  for (const { opcode, exposed } of rows) {
    if (exposed === "_raw_" || exposed === "_refused_") continue;
    const names = [...exposed.matchAll(/`([\w.]+)`/g)].map(([, name]) => name);
    assert(names.length > 0, `${opcode} is exposed as nothing`);
    for (const name of names) assert(exists(name), `${opcode} is exposed as ${name}, which there is not`);
  }
});

Deno.test("every other opcode can be submitted, and those that can't are named", async () => {
  const ring = library.defaultRing();
  for (const { opcode, exposed } of rows) {
    // An aborted signal is looked at after the request has been, so nothing is submitted.
    const request = { opcode };
    const options = { signal: AbortSignal.abort("aborted") };
    const outcome = await (opcode === "READ_MULTISHOT"
      ? ring.submitMultishot(request, options).next()
      : ring.submit(request, options)).catch((error) =>
        error
      );
    const refused = exposed === "_refused_" || opcode === "MSG_RING" || opcode === "LINK_TIMEOUT";
    if (refused) assert(outcome instanceof TypeError, `${opcode} is not refused`);
    else assertEquals(outcome, "aborted", opcode);
  }
  assertEquals(ring.inFlight, 0);
});

Deno.test("all that the remarks name is there, too", () => {
  for (const [, name] of text.matchAll(/`([A-Z]\w+\.\w+)`/g)) {
    assert(exists(name) || name in { "Atomics.waitAsync": 0, "Atomics.notify": 0, "Ring.open": 0 }, name);
  }
});
