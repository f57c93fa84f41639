/** The kinds of rings that laws must hold for. */
import { type DoorbellKind, Ring, type RingOptions, sleep } from "../../mod.ts";

/** Doorbells that this runtime can hang; not every Deno before 2.8 can adopt a pipe. */
export const doorbells: readonly DoorbellKind[] = await available(["pipe", "thread"]);

async function available(kinds: DoorbellKind[]): Promise<DoorbellKind[]> {
  const found: DoorbellKind[] = [];
  for (const doorbell of kinds) {
    try {
      await Ring.open({ doorbell }).close();
      found.push(doorbell);
    } catch {
      // A test in ring_test.ts says where this must not happen.
    }
  }
  return found;
}

/** A ring of each kind: what to call it, and how to open it. */
export const ringKinds: readonly (readonly [name: string, options: RingOptions])[] = [
  ...doorbells.map((doorbell) => [`doorbell ${doorbell}`, { doorbell }] as const),
  ["SQPOLL", { sqpoll: true, sqpollIdleMs: 5 }],
];

/** Lets the default ring, on which deadlines run, find its last doorbell: before descriptors are counted. */
export async function settleDefaultRing(): Promise<void> {
  for (let i = 0; i < 40; i++) await sleep(0.1);
}
