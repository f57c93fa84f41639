/**
 * An io_uring as the kernel has it: the two rings in mapped memory, their heads and tails, and entering the kernel.
 * It knows nothing of requests beyond the size of an SQE.
 *
 * @module
 */
import { RingField } from "../ffi/abi.ts";
import type { Native } from "../ffi/load.ts";
import { forget, high, low, Mapping, viewMemory } from "../ffi/memory.ts";
import { Errno } from "./errno.ts";
import { systemError, unavailable } from "./errors.ts";
import { isAtLeast } from "./features.ts";
import { SCRATCH_BYTES } from "./operations.ts";
import { CQE_WORDS, Enter, Setup, SQE_WORDS, SqFlag } from "./uring_abi.ts";

/** What to set up. */
export interface UringOptions {
  /** SQEs that one submission can hold; the kernel rounds up to a power of two. */
  entries: number;
  /** CQEs that can wait to be seen. */
  cqEntries: number;
  /** Whether a kernel thread polls the SQ, so that submitting needs no system call. */
  sqpoll: boolean;
  /** How long that thread polls an empty SQ before it sleeps, in milliseconds. */
  sqpollIdleMs: number;
  /** The older kernel to behave as, such as `"5.19"`. */
  kernel?: string;
}

/** One ring, set up and mapped. */
export class Uring {
  readonly fd: number;
  readonly entries: number;
  readonly cqEntries: number;
  readonly sqpoll: boolean;
  /** `IORING_SETUP_*` in force. */
  readonly flags: number;
  /** All SQEs, as words. */
  readonly sqes: Uint32Array;
  /** All CQEs, as words. */
  readonly cqes: Int32Array;
  /** `SCRATCH_BYTES` beside each SQE, for what the kernel copies when it takes that SQE. */
  readonly scratchWords: Uint32Array;

  readonly #native: Native;
  readonly #fields: BigUint64Array<ArrayBuffer>;
  readonly #ring: Int32Array;
  readonly #buffers: ArrayBuffer[];
  readonly #scratchMapping: Mapping;
  readonly #sqHeadAt: number;
  readonly #sqTailAt: number;
  readonly #sqFlagsAt: number;
  readonly #cqHeadAt: number;
  readonly #cqTailAt: number;
  readonly #sqMask: number;
  readonly #cqMask: number;
  /** The SQ's tail as we have written SQEs, ahead of what the kernel has been shown. */
  #sqTail: number;
  #sqHead: number;
  #cqHead: number;
  #enters = 0;

  constructor(native: Native, options: UringOptions) {
    const fields = new BigUint64Array(RingField.count);
    // COOP_TASKRUN does not go with SQPOLL, which has no task to run work in.
    let optional = options.sqpoll ? 0 : Setup.COOP_TASKRUN;
    if (isAtLeast(options.kernel, "6.0")) optional |= Setup.SINGLE_ISSUER;
    if (isAtLeast(options.kernel, "6.6")) optional |= Setup.NO_SQARRAY;
    fields[RingField.entries] = BigInt(options.entries);
    fields[RingField.cqEntries] = BigInt(options.cqEntries);
    fields[RingField.flags] = BigInt(
      Setup.SUBMIT_ALL | Setup.CLAMP | Setup.CQSIZE | (options.sqpoll ? Setup.SQPOLL : 0),
    );
    fields[RingField.optionalFlags] = BigInt(optional);
    fields[RingField.sqThreadIdle] = BigInt(options.sqpollIdleMs);
    const result = native.rs_ring_open(fields);
    if (result < 0) throw unavailable(result, disabledSysctl(result));

    const field = (index: number) => Number(fields[index]);
    const word = (index: number) => field(index) / 4;
    this.#native = native;
    this.#fields = fields;
    this.fd = field(RingField.fd);
    this.entries = field(RingField.entries);
    this.cqEntries = field(RingField.cqEntries);
    this.flags = field(RingField.flags);
    this.sqpoll = options.sqpoll;
    const rings = viewMemory(field(RingField.rings), field(RingField.ringsBytes));
    const sqes = viewMemory(field(RingField.sqes), field(RingField.sqesBytes));
    this.#buffers = [rings, sqes];
    this.#ring = new Int32Array(rings);
    this.sqes = new Uint32Array(sqes);
    this.cqes = new Int32Array(rings, field(RingField.cqes), this.cqEntries * CQE_WORDS);
    this.#sqHeadAt = word(RingField.sqHead);
    this.#sqTailAt = word(RingField.sqTail);
    this.#sqFlagsAt = word(RingField.sqFlags);
    this.#cqHeadAt = word(RingField.cqHead);
    this.#cqTailAt = word(RingField.cqTail);
    this.#sqMask = this.entries - 1;
    this.#cqMask = this.cqEntries - 1;
    this.#sqTail = this.#sqHead = Atomics.load(this.#ring, this.#sqTailAt);
    this.#cqHead = Atomics.load(this.#ring, this.#cqHeadAt);

    const scratch = Mapping.create(native, this.entries * SCRATCH_BYTES);
    if (typeof scratch === "number") {
      native.rs_ring_close(fields);
      throw systemError(scratch, "mmap");
    }
    this.#scratchMapping = scratch;
    this.scratchWords = new Uint32Array(scratch.buffer);
  }

  /** Free places in the SQ. */
  get space(): number {
    return this.entries - this.unsubmitted;
  }

  /** The index of the SQE that is written next. */
  get nextSqe(): number {
    return this.#sqTail & this.#sqMask;
  }

  /** The address of the scratch memory beside the next SQE. */
  scratchAddress(): [low: number, high: number] {
    const address = this.#scratchMapping.address + this.nextSqe * SCRATCH_BYTES;
    return [low(address), high(address)];
  }

  /** Counts the next SQE as written, under that `user_data`. */
  pushSqe(userDataLow: number, userDataHigh: number): void {
    const at = this.nextSqe * SQE_WORDS;
    this.sqes[at + 8] = userDataLow;
    this.sqes[at + 9] = userDataHigh;
    this.#sqTail = this.#sqTail + 1 | 0;
  }

  /** Takes the last `count` SQEs back before the kernel has seen them; they stay written where they are. */
  rewind(count: number): void {
    this.#sqTail = this.#sqTail - count | 0;
  }

  /** Counts the next `count` SQEs as written: they hold what was written there before. */
  repush(count: number): void {
    this.#sqTail = this.#sqTail + count | 0;
  }

  /** Takes all completions without looking at them. */
  discardCompletions(): void {
    this.#cqHead = Atomics.load(this.#ring, this.#cqTailAt);
    Atomics.store(this.#ring, this.#cqHeadAt, this.#cqHead);
  }

  /** Adds `IOSQE_*` flags to the SQE that has just been prepared. */
  addSqeFlags(sqeFlags: number): void {
    this.sqes[this.nextSqe * SQE_WORDS] |= sqeFlags << 8;
  }

  /** Writes an SQE that needs no preparation beyond these words. */
  writeControl(opcode: number, sqeFlags: number, words: ControlWords): void {
    const at = this.nextSqe * SQE_WORDS;
    this.sqes.fill(0, at, at + SQE_WORDS);
    this.sqes[at] = opcode | sqeFlags << 8;
    this.sqes[at + 1] = words.fd ?? -1;
    this.sqes[at + 4] = words.addressLow ?? 0;
    this.sqes[at + 5] = words.addressHigh ?? 0;
    this.sqes[at + 6] = words.length ?? 0;
    this.sqes[at + 7] = words.opFlags ?? 0;
  }

  /**
   * Shows the kernel all SQEs written, entering once. Returns 0, or the negative errno with which it took none or not
   * all of them (EAGAIN, EBUSY: later it will).
   */
  submit(): number {
    Atomics.store(this.#ring, this.#sqTailAt, this.#sqTail);
    if (this.sqpoll) {
      const asleep = (Atomics.load(this.#ring, this.#sqFlagsAt) & SqFlag.NEED_WAKEUP) !== 0;
      return asleep ? Math.min(0, this.#enter(this.unsubmitted, Enter.SQ_WAKEUP)) : 0;
    }
    for (let waiting = this.unsubmitted; waiting > 0; waiting = this.unsubmitted) {
      const taken = this.#enter(waiting, 0);
      if (taken < 0) return taken;
      if (taken === 0) return -Errno.EAGAIN;
      // Without SQPOLL the head moves only in here, by as much as was taken.
      this.#sqHead = this.#sqHead + taken | 0;
    }
    return 0;
  }

  /** SQEs written that the kernel has not taken, as far as is known. */
  get unsubmitted(): number {
    if (this.sqpoll) this.#sqHead = Atomics.load(this.#ring, this.#sqHeadAt);
    return this.#sqTail - this.#sqHead | 0;
  }

  /** Waits until the SQPOLL thread has made room in the SQ. */
  waitForSpace(): void {
    this.#enter(0, Enter.SQ_WAIT);
  }

  /**
   * Calls `handle` with every completion that is there, those included that the kernel holds back because the CQ was
   * full; returns how many there were.
   */
  reap(handle: (userDataLow: number, userDataHigh: number, result: number, flags: number) => void): number {
    let reaped = 0;
    for (;;) {
      let head = this.#cqHead;
      const tail = Atomics.load(this.#ring, this.#cqTailAt);
      if (head !== tail) {
        const cqes = this.cqes;
        try {
          while (head !== tail) {
            const at = (head & this.#cqMask) * CQE_WORDS;
            head = head + 1 | 0;
            reaped++;
            handle(cqes[at] >>> 0, cqes[at + 1] >>> 0, cqes[at + 2], cqes[at + 3]);
          }
        } finally {
          this.#cqHead = head;
          Atomics.store(this.#ring, this.#cqHeadAt, head);
        }
      }
      if ((Atomics.load(this.#ring, this.#sqFlagsAt) & SqFlag.CQ_OVERFLOW) === 0) return reaped;
      this.#enter(0, Enter.GETEVENTS);
    }
  }

  /**
   * Unmaps and closes. All requests must have completed; `false` if one was left after all, and then the memory it
   * names must stay mapped for good.
   */
  close(): boolean {
    for (const buffer of this.#buffers) forget(buffer);
    const clean = this.#native.rs_ring_close(this.#fields) === 0;
    if (clean) this.#scratchMapping.unmap();
    return clean;
  }

  /** How often the kernel was entered. */
  get enters(): number {
    return this.#enters;
  }

  #enter(toSubmit: number, flags: number): number {
    this.#enters++;
    for (;;) {
      const result = this.#native.rs_enter(this.fd, toSubmit, 0, flags);
      if (result !== -Errno.EINTR) return result;
    }
  }
}

/** The fields of an SQE that {@linkcode Uring.writeControl} takes; what is not given is 0, and `fd` -1. */
export interface ControlWords {
  fd?: number;
  addressLow?: number;
  addressHigh?: number;
  length?: number;
  opFlags?: number;
}

/** What the sysctl says, for a setup that was refused with EPERM; `undefined` where the program may not read it. */
function disabledSysctl(result: number): string | undefined {
  if (result !== -Errno.EPERM) return undefined;
  const path = "/proc/sys/kernel/io_uring_disabled";
  if (Deno.permissions.querySync({ name: "read", path }).state !== "granted") return undefined;
  try {
    return Deno.readTextFileSync(path);
  } catch {
    return undefined;
  }
}
