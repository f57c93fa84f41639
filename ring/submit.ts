/**
 * Requests as the kernel takes them: one SQE, described field by field, for opcodes that have no face of their own and
 * for who wants to see what a flag does.
 *
 * @module
 */
import type { BufferRing } from "./buffer_ring.ts";
import { BUFFER_GROUP } from "./buffer_ring.ts";
import type { Driver } from "./driver.ts";
import { Multishot } from "./multishot.ts";
import { type Operand, OperandWord } from "./operations.ts";
import type { OperationOptions, Request } from "./request.ts";
import { CqeFlag, MAX_TRANSFER_BYTES, Op, type OpcodeName, Sqe, SQE_WORDS } from "./uring_abi.ts";

/** Memory that an SQE names by address. The kernel sees a copy in the ring's own memory, never `bytes` itself. */
export interface RawMemory {
  /** What is there when the kernel takes the request; copied by the call. */
  readonly bytes: Uint8Array;
  /** Whether what the kernel has left there comes back into `bytes` when the request has succeeded. Default: `false`. */
  readonly output?: boolean;
  /** Addresses (8 bytes each) to be written into the copy: at which byte, and of what. */
  readonly pointers?: readonly { readonly at: number; readonly to: RawMemory | Uint8Array }[];
}

/** A field of an SQE that mostly holds an address: memory (an array is input), or a number that stands as it is. */
export type RawAddress = RawMemory | Uint8Array | number | bigint;

/** One SQE, `struct io_uring_sqe`; what is not given is 0. What a field means to an opcode, liburing's man pages tell. */
export interface RawRequest {
  /** The opcode's name, without `IORING_OP_`. */
  readonly opcode: OpcodeName;
  /** `fd`. Default: -1. */
  readonly fd?: number;
  /** `off`, or `addr2`. A negative number is 64 bits of two's complement: -1 is a file's own position. */
  readonly offset?: RawAddress;
  /** `addr`. */
  readonly address?: RawAddress;
  /** `len`. */
  readonly length?: number;
  /** The 32 bits of flags that belong to the opcode: `rw_flags`, `open_flags`, `msg_flags`, ... */
  readonly flags?: number;
  /** `ioprio`. */
  readonly ioprio?: number;
  /** `buf_index`. */
  readonly bufferIndex?: number;
  /** `splice_fd_in`, `file_index`, `optlen`, `addr_len`: they share one place. */
  readonly fileIndex?: number;
  /** `addr3`. */
  readonly address3?: RawAddress;
  /** `IOSQE_ASYNC`: a worker of the kernel takes it at once. Default: `false`. */
  readonly async?: boolean;
  /** `IOSQE_BUFFER_SELECT`, from the ring's own pool of buffers of 32 KiB; the bytes come with the completion. */
  readonly provided?: boolean;
}

/** A CQE of a request of one's own. */
export interface RawCompletion {
  /** `res`: what the opcode gives, which is never negative. (A multishot TIMEOUT's ticks, -ETIME, are 0.) */
  readonly result: number;
  /** `flags`, `IORING_CQE_F_*`. */
  readonly flags: number;
  /** What came in a provided buffer, copied out of it. */
  readonly bytes?: Uint8Array<ArrayBuffer>;
}

/** What would break the ring, or outlive its request: each with what to use instead. */
const refused: ReadonlyMap<number, string> = new Map([
  [Op.ASYNC_CANCEL, "It could cancel others' requests: abort the { signal } of the request itself"],
  [Op.POLL_REMOVE, "It could end others' requests: abort the { signal } of the poll itself"],
  [Op.TIMEOUT_REMOVE, "It could end others' requests: abort the { signal } of the timeout itself"],
  [Op.LINK_TIMEOUT, "A link needs a chain: use { timeout }, or chain().timeout()"],
  [Op.FILES_UPDATE, "The table of direct descriptors belongs to chains: use chain().open()"],
  [Op.FIXED_FD_INSTALL, "The table of direct descriptors belongs to chains: use open()"],
  [Op.PROVIDE_BUFFERS, "Its memory would outlive the request: use { provided: true }"],
  [Op.REMOVE_BUFFERS, "The pools of buffers are the ring's own: use { provided: true }"],
  [Op.MSG_RING, "It could post completions that a ring does not expect: use ring.send()"],
]);

/** Opcodes that put what they make into the ring's table, or close what is in it, if `file_index` is not 0. */
const makesDescriptors: ReadonlySet<number> = new Set([
  Op.OPENAT,
  Op.OPENAT2,
  Op.ACCEPT,
  Op.SOCKET,
  Op.PIPE,
  Op.CLOSE,
]);

/** Opcodes whose `len` is the size of what is at `addr`. */
const transfers: ReadonlySet<number> = new Set([
  Op.READ,
  Op.WRITE,
  Op.SEND,
  Op.RECV,
  Op.SEND_ZC,
  Op.READ_FIXED,
  Op.WRITE_FIXED,
]);

/** Opcodes that take several buffers of a pool at once, if `ioprio` has `IORING_RECVSEND_BUNDLE` (6.10). */
const bundles: ReadonlySet<number> = new Set([Op.SEND, Op.RECV]);
const RECVSEND_BUNDLE = 1 << 4;

/** The field that holds the flag which makes an opcode complete again and again, and the flag. */
const multishotFlags: ReadonlyMap<number, readonly ["ioprio" | "length" | "flags", number]> = new Map([
  [Op.ACCEPT, ["ioprio", 1]],
  [Op.RECV, ["ioprio", 2]],
  [Op.RECVMSG, ["ioprio", 2]],
  [Op.RECV_ZC, ["ioprio", 2]],
  [Op.POLL_ADD, ["length", 1]],
  [Op.TIMEOUT, ["flags", 1 << 6]],
  [Op.URING_CMD, ["flags", 1 << 1]],
  [Op.READ_MULTISHOT, ["flags", 0]],
]);

/** Submits one request; see `Ring.submit`. */
export async function submit(driver: Driver, raw: RawRequest, options?: OperationOptions): Promise<RawCompletion> {
  requireFfi();
  const blueprint = new Blueprint(driver, raw, false);
  return await driver.start<RawCompletion>(blueprint.request(), options);
}

/** Submits one request that completes again and again; see `Ring.submitMultishot`. */
export function submitMultishot(
  driver: Driver,
  raw: RawRequest,
  signal?: AbortSignal,
): AsyncIterableIterator<RawCompletion> {
  requireFfi();
  const blueprint = new Blueprint(driver, raw, true);
  const source = {
    once: true,
    request: () => blueprint.request(),
    decode: (result: number, flags: number) =>
      blueprint.completion(blueprint.opcode === Op.TIMEOUT ? 0 : result, flags),
    discard: ({ result }: RawCompletion) => {
      if (blueprint.opcode === Op.ACCEPT) driver.native.rs_close(result);
    },
  };
  return new Multishot<RawCompletion>(driver, source, signal);
}

function requireFfi(): void {
  if (Deno.permissions.requestSync({ name: "ffi" }).state === "granted") return;
  throw new Deno.errors.NotCapable("Requires ffi access to all of the process, run again with the --allow-ffi flag");
}

/** A request that has been checked, with its words and a snapshot of its memory: it can be made several times. */
class Blueprint {
  readonly opcode: number;
  readonly #driver: Driver;
  readonly #multishot: boolean;
  readonly #operation: string;
  readonly #words = new Uint32Array(SQE_WORDS);
  readonly #operands: Operand[] = [];
  readonly #memories = new Map<RawMemory | Uint8Array, number>();
  readonly #outputs: { readonly to: Uint8Array; readonly from: Uint8Array; readonly bytes: number }[] = [];
  readonly #pool: BufferRing | null;

  constructor(driver: Driver, raw: RawRequest, multishot: boolean) {
    if (!Object.hasOwn(Op, raw.opcode)) throw new TypeError(`No opcode is named ${JSON.stringify(raw.opcode)}`);
    this.opcode = Op[raw.opcode];
    this.#driver = driver;
    this.#multishot = multishot;
    this.#operation = `submit ${raw.opcode}`;
    check(this.opcode, raw, multishot);
    this.#pool = raw.provided ? requirePool(driver) : null;

    const sqeFlags = (raw.async ? Sqe.ASYNC : 0) | (raw.provided ? Sqe.BUFFER_SELECT : 0);
    const words = this.#words;
    words[0] = this.opcode | sqeFlags << 8 | integer("ioprio", raw.ioprio ?? 0, 0, 0xffff) << 16;
    words[1] = integer("fd", raw.fd ?? -1, -(2 ** 31), 2 ** 31 - 1);
    words[6] = integer("length", raw.length ?? 0, 0, 2 ** 32 - 1);
    words[7] = integer("flags", raw.flags ?? 0, -(2 ** 31), 2 ** 32 - 1);
    words[10] = raw.provided ? BUFFER_GROUP : integer("bufferIndex", raw.bufferIndex ?? 0, 0, 0xffff);
    words[11] = integer("fileIndex", raw.fileIndex ?? 0, -(2 ** 31), 2 ** 32 - 1);
    if (multishot) {
      const [field, flag] = multishotFlags.get(this.opcode)!;
      words[field === "ioprio" ? 0 : field === "length" ? 6 : 7] |= field === "ioprio" ? flag << 16 : flag;
    }
    this.#place("offset", OperandWord.Address2, raw.offset);
    this.#place("address", OperandWord.Address, raw.address);
    this.#place("address3", OperandWord.Address3, raw.address3);

    let bytes = 0;
    for (const operand of this.#operands) bytes += Math.ceil(operand.bytes / 16) * 16;
    if (bytes > MAX_TRANSFER_BYTES) {
      throw new RangeError(`The memory of one request can't be larger than ${MAX_TRANSFER_BYTES} bytes`);
    }
  }

  request(): Request {
    const request = this.#driver.request(this.opcode, this.#operation);
    request.words = this.#words;
    if (this.#operands.length > 0) request.operands = this.#operands;
    if (!this.#multishot) request.decode = ({ result, cqeFlags }) => this.completion(result, cqeFlags);
    return request;
  }

  completion(result: number, flags: number): RawCompletion {
    const provided = this.#pool !== null && (flags & CqeFlag.BUFFER) !== 0;
    const bytes = provided ? this.#pool!.take(flags >>> 16, result) : undefined;
    for (const { to, from, bytes } of this.#outputs) {
      if (to.byteLength < bytes) {
        throw new TypeError(`The buffer was detached or made smaller while ${this.#operation} was in flight`);
      }
      to.set(from);
    }
    return bytes === undefined ? { result, flags } : { result, flags, bytes };
  }

  #place(name: string, word: OperandWord, value: RawAddress | undefined): void {
    if (value === undefined) return;
    if (typeof value === "number" || typeof value === "bigint") {
      if (typeof value === "number" && !Number.isSafeInteger(value)) {
        throw new RangeError(`${name} must be a safe integer, not ${value}`);
      }
      const bits = BigInt.asUintN(64, BigInt(value));
      this.#words[word] = Number(bits & 0xffff_ffffn);
      this.#words[word + 1] = Number(bits >> 32n);
      return;
    }
    const index = this.#operand(name, value);
    const operand = this.#operands[index];
    // The same memory at two places: one operand for each, of the same bytes.
    if (operand.word !== undefined) throw new TypeError(`${name} names memory that another field names already`);
    this.#operands[index] = { ...operand, word };
  }

  /** The number of the operand that stands for some memory, which may point to itself. */
  #operand(name: string, memory: RawMemory | Uint8Array): number {
    const known = this.#memories.get(memory);
    if (known !== undefined) return known;
    const { bytes, output = false, pointers = [] } = memory instanceof Uint8Array
      ? { bytes: memory } as RawMemory
      : memory;
    if (!(bytes instanceof Uint8Array)) throw new TypeError(`${name} must be a Uint8Array, { bytes } or a number`);
    if (output && this.#multishot) {
      throw new TypeError(
        `${this.#operation} completes again and again: ${name} can't be output, use { provided: true }`,
      );
    }
    const index = this.#operands.length;
    this.#memories.set(memory, index);
    // A copy, so that what becomes of the caller's array in the meantime changes nothing.
    const input = new Uint8Array(bytes);
    this.#operands.push({ bytes: input.byteLength, input });
    const targets = pointers.map(({ at, to }) => {
      integer(`a pointer in ${name}`, at, 0, input.byteLength - 8);
      return [at, this.#operand(name, to)] as const;
    });
    const copy = output ? new Uint8Array(input.byteLength) : undefined;
    if (copy !== undefined) this.#outputs.push({ to: bytes, from: copy, bytes: copy.byteLength });
    this.#operands[index] = { bytes: input.byteLength, input, output: copy, pointers: targets };
    return index;
  }
}

/** Refuses what a request of one's own must not be. */
function check(opcode: number, raw: RawRequest, multishot: boolean): void {
  const instead = refused.get(opcode);
  if (instead !== undefined) throw new TypeError(`${raw.opcode} can't be submitted. ${instead}`);
  if (makesDescriptors.has(opcode) && (raw.fileIndex ?? 0) !== 0) {
    throw new TypeError(`${raw.opcode} with a fileIndex can't be submitted: direct descriptors belong to chains`);
  }
  const repeating = multishotFlags.get(opcode);
  if (multishot) {
    if (repeating === undefined) throw new TypeError(`${raw.opcode} completes once: use submit()`);
  } else if (repeating !== undefined) {
    const [field, flag] = repeating;
    if (opcode === Op.READ_MULTISHOT || ((raw[field] ?? 0) & flag) !== 0) {
      throw new TypeError(`This ${raw.opcode} completes again and again: use submitMultishot()`);
    }
  }
  if (raw.provided && bundles.has(opcode) && ((raw.ioprio ?? 0) & RECVSEND_BUNDLE) !== 0) {
    throw new TypeError(
      `A bundle takes several provided buffers, a completion names one: use ${raw.opcode} without it`,
    );
  }
  if (transfers.has(opcode) && typeof raw.address === "object") {
    const { byteLength } = raw.address instanceof Uint8Array ? raw.address : raw.address.bytes;
    if ((raw.length ?? 0) > byteLength) throw new RangeError(`length is ${raw.length}, of ${byteLength} bytes`);
  }
}

function requirePool(driver: Driver): BufferRing {
  const pool = driver.bufferRing;
  if (pool === null) throw new Deno.errors.NotSupported("This kernel has no provided buffer rings");
  return pool;
}

function integer(name: string, value: number, least: number, most: number): number {
  if (!Number.isInteger(value) || value < least || value > most) {
    throw new RangeError(`${name} must be an integer from ${least} to ${most}, not ${value}`);
  }
  return value;
}
