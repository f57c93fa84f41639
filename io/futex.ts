/**
 * Futexes: waiting for a word of shared memory, without a thread that waits.
 *
 * @module
 */
import { high, low } from "../ffi/memory.ts";
import { Errno } from "../ring/errno.ts";
import type { SystemErrorFields } from "../ring/errors.ts";
import type { OperationOptions, Request } from "../ring/request.ts";
import { driverOf, type Ring } from "../ring/ring.ts";
import { Op, SQE_WORDS } from "../ring/uring_abi.ts";

/** Options of {@linkcode futexWait} and {@linkcode futexWake}. */
export interface FutexOptions extends OperationOptions {
  /** The ring. Default: the default ring. */
  ring?: Ring;
}

const FUTEX2_SIZE_U32 = 2;
const FUTEX2_PRIVATE = 128;
const FUTEX_BITSET_MATCH_ANY = 0xffff_ffff;
const MAX_WAKES = 2 ** 31 - 1;

/** Keeps the memory as long as its request, which the ring holds until its last CQE. */
const held = new WeakMap<Request, SharedArrayBuffer>();

/**
 * Waits until {@linkcode futexWake} is called for a word of shared memory, mostly in another worker
 * (`IORING_OP_FUTEX_WAIT`, 6.7). As with `Atomics.waitAsync` the kernel looks first whether the word still holds what
 * is expected, so that no wake between looking and waiting is missed. `Atomics.notify` does not wake it: that knows only
 * the waits of its own runtime; nor does `futexWake` wake those.
 *
 * @param words An `Int32Array` over a `SharedArrayBuffer`.
 * @param index Which of its words.
 * @param expected What the word holds, as long as there is a reason to wait.
 * @param options `signal`, `timeout`, and the ring.
 * @returns `"ok"` when it was woken, `"not-equal"` if the word holds something else.
 * @throws {Deno.errors.NotSupported} Before Linux 6.7.
 *
 * @example
 * ```ts
 * import { futexWait, futexWake } from "@ringscope/ringscope";
 *
 * const words = new Int32Array(new SharedArrayBuffer(4));
 * const waiting = futexWait(words, 0, 0);
 * await new Promise((resolve) => setTimeout(resolve, 1)); // mostly, another worker does this:
 * Atomics.store(words, 0, 1);
 * console.log(await futexWake(words, 0, 1)); // 1
 * console.log(await waiting); // "ok"
 * ```
 */
export async function futexWait(
  words: Int32Array<SharedArrayBuffer>,
  index: number,
  expected: number,
  options: FutexOptions = {},
): Promise<"ok" | "not-equal"> {
  if (!Number.isInteger(expected) || expected !== (expected | 0)) {
    throw new RangeError(`expected must be a 32-bit integer, not ${expected}`);
  }
  const request = futexRequest(Op.FUTEX_WAIT, "futexWait", words, index, expected, options.ring);
  request.decode = () => "ok";
  try {
    return await driverOf(options.ring).start<"ok">(request, options);
  } catch (error) {
    if ((error as Partial<SystemErrorFields> | null)?.errno === Errno.EAGAIN) return "not-equal";
    throw error;
  }
}

/**
 * Wakes those who wait for a word of shared memory by {@linkcode futexWait}, the longest waiting first
 * (`IORING_OP_FUTEX_WAKE`, 6.7).
 *
 * @param words An `Int32Array` over the same `SharedArrayBuffer`.
 * @param index Which of its words.
 * @param count How many to wake at the most. Default: all.
 * @param options `signal`, `timeout`, and the ring.
 * @returns How many were woken.
 * @throws {Deno.errors.NotSupported} Before Linux 6.7.
 */
export async function futexWake(
  words: Int32Array<SharedArrayBuffer>,
  index: number,
  count: number = Infinity,
  options: FutexOptions = {},
): Promise<number> {
  if (count !== Infinity && !(Number.isInteger(count) && count > 0)) {
    throw new RangeError(`count must be an integer above 0, not ${count}`);
  }
  const wakes = Math.min(count, MAX_WAKES);
  const request = futexRequest(Op.FUTEX_WAKE, "futexWake", words, index, wakes, options.ring);
  return await driverOf(options.ring).start<number>(request, options);
}

function futexRequest(
  opcode: number,
  operation: string,
  words: Int32Array<SharedArrayBuffer>,
  index: number,
  value: number,
  ring: Ring | undefined,
): Request {
  if (!(words instanceof Int32Array) || !(words.buffer instanceof SharedArrayBuffer)) {
    throw new TypeError("A futex is a word of an Int32Array over a SharedArrayBuffer");
  }
  if (!Number.isInteger(index) || index < 0 || index >= words.length) {
    throw new RangeError(`index must be an integer from 0 to ${words.length - 1}, not ${index}`);
  }
  // Before Deno 2.9 the type says that it takes no shared memory; it does.
  const pointer = Deno.UnsafePointer.of(words as unknown as Int32Array<ArrayBuffer>);
  const address = Number(Deno.UnsafePointer.value(pointer)) + 4 * index;
  const request = driverOf(ring).request(opcode, operation);
  held.set(request, words.buffer);
  const sqe = new Uint32Array(SQE_WORDS);
  sqe[0] = opcode;
  sqe[1] = FUTEX2_SIZE_U32 | FUTEX2_PRIVATE;
  sqe[2] = value;
  sqe[4] = low(address);
  sqe[5] = high(address);
  sqe[12] = FUTEX_BITSET_MATCH_ANY;
  request.words = sqe;
  return request;
}
