/** A thread beside this one that makes system calls when told, so that they truly race with what happens here. */
import { until } from "./until.ts";

/** What a bystander does, and with which two numbers. */
export enum Deed {
  /** Writes `count` bytes to `fd`: ascending ones, from `first`. */
  Write,
  /** Connects to `port` of 127.0.0.1, and hangs up with a reset. */
  Connect,
  /** Ends the thread. */
  End,
}

/** Words of the shared memory: what has been asked for, what has been done, then the deeds, four words each. */
export const ASKED = 0;
export const DONE = 1;
export const DEEDS = 2;
export const DEED_WORDS = 4;
export const CAPACITY = 1 << 14;

/** The thread. */
export class Bystander implements AsyncDisposable {
  readonly #words = new Int32Array(new SharedArrayBuffer(4 * (DEEDS + CAPACITY * DEED_WORDS)));
  readonly #worker: Worker;
  readonly #ended: Promise<void>;
  #failure: string | undefined;

  private constructor() {
    this.#worker = new Worker(new URL("./bystander_worker.ts", import.meta.url), { type: "module" });
    this.#ended = new Promise((resolve) => this.#worker.onmessage = () => resolve());
    this.#worker.onerror = (event) => {
      event.preventDefault();
      this.#failure = event.message;
    };
    this.#worker.postMessage(this.#words);
  }

  /** Starts it; it is ready for deeds when this resolves. */
  static async start(): Promise<Bystander> {
    const bystander = new Bystander();
    bystander.write(-1, 0, 0);
    await bystander.done();
    return bystander;
  }

  /** Has `count` ascending bytes written, from `first`. */
  write(fd: number, first: number, count: number): void {
    this.#ask(Deed.Write, fd, first, count);
  }

  /** Has a connection made and reset. */
  connect(port: number): void {
    this.#ask(Deed.Connect, port, 0, 0);
  }

  /** Resolves when all that was asked has been done. */
  done(): Promise<void> {
    const words = this.#words;
    return until("the bystander is done", () => {
      if (this.#failure !== undefined) throw new Error(`The bystander has failed: ${this.#failure}`);
      return Atomics.load(words, DONE) === Atomics.load(words, ASKED);
    });
  }

  #ask(deed: Deed, ...values: [number, number, number]): void {
    const words = this.#words;
    const asked = words[ASKED];
    if (asked - Atomics.load(words, DONE) >= CAPACITY) throw new Error("The bystander has too much to do");
    words.set([deed, ...values], DEEDS + asked % CAPACITY * DEED_WORDS);
    Atomics.store(words, ASKED, asked + 1);
    Atomics.notify(words, ASKED);
  }

  /** Ends the thread. */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#ask(Deed.End, 0, 0, 0);
    await this.#ended;
    this.#worker.terminate();
  }
}
