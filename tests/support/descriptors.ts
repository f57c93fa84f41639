/** What the process has open, and that nothing stays open. */
import { fail } from "@std/assert";
import { until } from "./until.ts";

/** Open descriptors: number and what is behind it. */
export function descriptors(): Map<number, string> {
  const open = new Map<number, string>();
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    try {
      open.set(Number(name), Deno.readLinkSync(`/proc/self/fd/${name}`));
    } catch {
      // The descriptor that lists the directory is gone by now.
    }
  }
  return open;
}

/** Open sockets: what there is of them, whatever rings and their doorbells open and close beside. */
export function sockets(): Map<number, string> {
  return new Map([...descriptors()].filter(([, what]) => what.startsWith("socket:")));
}

/**
 * Fails if something is open that was not open `before`, or the other way round. The runtime closes some of what it
 * has adopted (the doorbell's pipe) a turn of its loop later, so there is some waiting.
 */
export async function assertDescriptors(before: Map<number, string>, look = descriptors): Promise<void> {
  const list = (open: Map<number, string>) => [...open].map(([fd, what]) => `${fd} ${what}`).sort().join("\n");
  try {
    await until("the same descriptors", () => list(look()) === list(before), 5000);
  } catch {
    const now = look();
    const extra = [...now].filter(([fd, what]) => before.get(fd) !== what);
    const missing = [...before].filter(([fd, what]) => now.get(fd) !== what);
    fail(`Left open: ${Deno.inspect(extra)}; closed: ${Deno.inspect(missing)}`);
  }
}
