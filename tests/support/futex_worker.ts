/** A worker that takes turns with another by a futex: see futex_test.ts. */
import { defaultRing, futexWait, futexWake } from "../../mod.ts";

/** What the worker is told. */
export interface Turns {
  words: Int32Array<SharedArrayBuffer>;
  /** The word that says whose turn it is. */
  index: number;
  /** What it holds when it is this worker's; another's is 1 less that. */
  mine: number;
  rounds: number;
}

declare const self: {
  onmessage: ((event: MessageEvent<Turns>) => void) | null;
  postMessage(message: string): void;
  close(): void;
};

self.onmessage = async ({ data: { words, index, mine, rounds } }) => {
  for (let i = 0; i < rounds; i++) {
    while (Atomics.load(words, index) !== mine) await futexWait(words, index, 1 - mine);
    Atomics.add(words, 0, 1);
    Atomics.store(words, index, 1 - mine);
    await futexWake(words, index, 1);
  }
  await defaultRing().close();
  self.postMessage("ended");
  self.close();
};
