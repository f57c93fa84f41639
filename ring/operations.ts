/**
 * What the opcodes mean: {@linkcode prepare} writes a request's SQE and {@linkcode complete} reads its result. They
 * face each other. An opcode that is none of the frequent ones needs neither: its memory is described by operands.
 *
 * @module
 */
import { high, low } from "../ffi/memory.ts";
import type { Arena, Block } from "./arena.ts";
import { isRestart } from "./errors.ts";
import { Errno } from "./errno.ts";
import type { Request } from "./request.ts";
import { MAX_TRANSFER_BYTES, Op, Sqe, SQE_WORDS } from "./uring_abi.ts";
import type { Uring } from "./uring.ts";

/** Bytes of scratch memory beside each SQE, for what the kernel copies when it takes the SQE. */
export const SCRATCH_BYTES = 16;

/** Operands begin at multiples of this, as the kernel's structs need it. */
const OPERAND_ALIGNMENT = 16;

/** Writes a request's SQE into the next free place of the SQ; 0, or a negative errno and nothing has been written. */
export function prepare(request: Request, uring: Uring, arena: Arena): number {
  const { opcode, operands } = request;
  const words = uring.sqes;
  const at = uring.nextSqe * SQE_WORDS;
  if (request.words !== null) {
    words.set(request.words, at);
    return operands === null ? 0 : layOperands(request, operands, words, at, arena);
  }
  let offsetLow = 0;
  let offsetHigh = 0;
  let addressLow = 0;
  let addressHigh = 0;
  let { length } = request;

  switch (opcode) {
    case Op.READ:
    case Op.WRITE:
    case Op.RECV:
    case Op.SEND:
      if ((request.sqeFlags & Sqe.BUFFER_SELECT) === 0) return prepareTransfer(request, uring, arena);
      break;
    case Op.TIMEOUT:
      [addressLow, addressHigh] = writeTimespec(uring, request.durationMs);
      length = 1;
      break;
    default:
      addressLow = low(request.address);
      addressHigh = high(request.address);
      offsetLow = low(request.offset);
      offsetHigh = request.offset < 0 ? 0xffff_ffff : high(request.offset);
  }

  words[at] = opcode | request.sqeFlags << 8 | request.priority << 16;
  words[at + 1] = request.fd;
  words[at + 2] = offsetLow;
  words[at + 3] = offsetHigh;
  words[at + 4] = addressLow;
  words[at + 5] = addressHigh;
  words[at + 6] = length;
  words[at + 7] = request.opFlags;
  words[at + 10] = request.bufferGroup;
  words[at + 11] = request.fileIndex;
  words[at + 12] = 0;
  words[at + 13] = 0;
  words[at + 14] = 0;
  words[at + 15] = 0;
  return operands === null ? 0 : layOperands(request, operands, words, at, arena);
}

/** The same for READ, WRITE, RECV and SEND through a block of the arena: the frequent ones, at a cost that shows. */
export function prepareTransfer(request: Request, uring: Uring, arena: Arena): number {
  const { opcode, view, offset } = request;
  const available = view !== null ? view.byteLength : request.views !== null ? totalBytes(request.views) : Infinity;
  if (available < request.length) return refuseBuffer(request);
  const length = Math.min(request.length, MAX_TRANSFER_BYTES);
  let { block } = request;
  if (block === null) {
    const taken = arena.take(length);
    if (typeof taken === "number") return taken;
    request.block = block = taken;
    if (opcode === Op.WRITE || opcode === Op.SEND) {
      if (view === null) gather(block, request.views!);
      else copyIn(block, view, length);
    }
  }
  let sqeOpcode = opcode;
  let bufferIndex = 0;
  if (block.registered >= 0) {
    if (opcode === Op.READ) sqeOpcode = Op.READ_FIXED;
    else if (opcode === Op.WRITE) sqeOpcode = Op.WRITE_FIXED;
    bufferIndex = block.registered;
  }
  const positioned = opcode === Op.READ || opcode === Op.WRITE;
  const words = uring.sqes;
  const at = uring.nextSqe * SQE_WORDS;
  words[at] = sqeOpcode | request.sqeFlags << 8;
  words[at + 1] = request.fd;
  words[at + 2] = positioned ? offset >>> 0 : 0;
  words[at + 3] = !positioned ? 0 : offset < 0 ? 0xffff_ffff : (offset / 0x1_0000_0000) >>> 0;
  words[at + 4] = block.addressLow;
  words[at + 5] = block.addressHigh;
  words[at + 6] = length;
  words[at + 7] = request.opFlags;
  words[at + 10] = bufferIndex;
  words[at + 11] = 0;
  words[at + 12] = 0;
  words[at + 13] = 0;
  words[at + 14] = 0;
  words[at + 15] = 0;
  if (!request.simple && request.blockOffset !== 0) {
    words[at + 4] = low(block.address + request.blockOffset);
    words[at + 5] = high(block.address + request.blockOffset);
  }
  return 0;
}

/**
 * Reads the result of a request, whose final CQE is in: copies what was read to where it belongs, and turns what is a
 * success in all but its sign into one. The block is the ring's again afterwards.
 */
export function complete(request: Request): void {
  if (isRestart(request.result)) request.result = -Errno.EINTR;
  if (request.simple) return completeTransfer(request);
  switch (request.opcode) {
    case Op.READ:
    case Op.WRITE:
    case Op.RECV:
    case Op.SEND:
      if (request.words === null) completeTransfer(request);
      break;
    case Op.TIMEOUT:
      if (request.result === -Errno.ETIME) request.result = 0;
      break;
  }
  if (request.operands !== null && request.result >= 0) deliverOperands(request, request.operands);
}

function completeTransfer(request: Request): void {
  const { opcode, block, view, result } = request;
  if (result <= 0) return;
  const positioned = opcode === Op.READ || opcode === Op.WRITE;
  if (positioned && request.offset < 0) request.owner?.moved(result, request.length);
  if (block === null || opcode === Op.WRITE || opcode === Op.SEND) return;
  if (view !== null) copyOut(request, block, view, result);
  else if (request.views !== null) scatter(request, block, request.views, result);
  else request.bytes = block.bytes.slice(0, result);
}

/**
 * Memory that an SQE names besides a transfer's bytes: a path, an address, a struct that the kernel fills in. All of a
 * request's operands lie in one block of the arena until its last CQE.
 */
export interface Operand {
  /** The word of the SQE that its address goes to; absent where only another operand points to it. */
  readonly word?: OperandWord;
  /** Its size. */
  readonly bytes: number;
  /** What the kernel is to find there; zeros where there is less of it than `bytes`. */
  readonly input?: Uint8Array;
  /** Where to, after a success, what the kernel has left there goes: `bytes` of it. */
  readonly output?: Uint8Array;
  /** Whether only as many bytes as the result says are there: the rest of `output` is left alone. */
  readonly outputsResult?: boolean;
  /** Who looks, after a success, at what the kernel has left there, for as long as the call takes. */
  readonly inspect?: (bytes: Uint8Array<ArrayBuffer>) => void;
  /** Addresses of other operands that stand in this one: at which byte, and which operand. */
  readonly pointers?: readonly (readonly [at: number, operand: number])[];
}

/** The places for addresses in an SQE, by their word: `addr2` shares its place with `off`. */
export enum OperandWord {
  Address2 = 2,
  Address = 4,
  Address3 = 12,
}

function layOperands(
  request: Request,
  operands: readonly Operand[],
  words: Uint32Array,
  at: number,
  arena: Arena,
): number {
  let bytes = 0;
  for (const operand of operands) bytes += aligned(operand.bytes);
  if (bytes > MAX_TRANSFER_BYTES) return -Errno.ENAMETOOLONG; // as the kernel would say of a shorter path
  const block = arena.take(bytes);
  if (typeof block === "number") return block;
  request.block = block;
  let start = 0;
  for (const { word, input, outputsResult, bytes } of operands) {
    if (input !== undefined) block.bytes.set(input, start);
    if (!outputsResult) block.bytes.fill(0, start + (input?.byteLength ?? 0), start + bytes);
    if (word !== undefined) {
      words[at + word] = low(block.address + start);
      words[at + word + 1] = high(block.address + start);
    }
    start += aligned(bytes);
  }
  start = 0;
  for (const { bytes, pointers } of operands) {
    for (const [pointerAt, target] of pointers ?? []) {
      const address = block.address + operandStart(operands, target);
      const view = new DataView(block.bytes.buffer, block.bytes.byteOffset + start + pointerAt);
      view.setUint32(0, low(address), true);
      view.setUint32(4, high(address), true);
    }
    start += aligned(bytes);
  }
  return 0;
}

function deliverOperands(request: Request, operands: readonly Operand[]): void {
  let start = 0;
  for (const { bytes, output, outputsResult, inspect } of operands) {
    const filled = outputsResult ? Math.min(bytes, request.result) : bytes;
    inspect?.(request.block!.bytes.subarray(start, start + filled));
    if (output !== undefined) {
      if (output.byteLength < filled) {
        request.failure = new TypeError(
          `The buffer was detached or made smaller while ${request.operation} was in flight`,
        );
      } else {
        output.set(request.block!.bytes.subarray(start, start + filled));
      }
    }
    start += aligned(bytes);
  }
}

function operandStart(operands: readonly Operand[], index: number): number {
  let start = 0;
  for (let i = 0; i < index; i++) start += aligned(operands[i].bytes);
  return start;
}

function aligned(bytes: number): number {
  return Math.ceil(bytes / OPERAND_ALIGNMENT) * OPERAND_ALIGNMENT;
}

/** Writes milliseconds as a timespec into the scratch memory of the next SQE; returns its address. */
export function writeTimespec(uring: Uring, milliseconds: number): [low: number, high: number] {
  const at = uring.nextSqe * (SCRATCH_BYTES / 4);
  // Longer than any machine runs; a double holds numbers that 64 bits do not.
  const seconds = Math.min(Math.floor(milliseconds / 1000), Number.MAX_SAFE_INTEGER);
  uring.scratchWords[at] = seconds >>> 0;
  uring.scratchWords[at + 1] = (seconds / 0x1_0000_0000) >>> 0;
  uring.scratchWords[at + 2] = Math.floor(milliseconds % 1000 * 1e6);
  uring.scratchWords[at + 3] = 0;
  return uring.scratchAddress();
}

/** The caller's buffer has gone between the call and its submission. */
function refuseBuffer(request: Request): number {
  request.failure = new TypeError(
    `The buffer was detached or made smaller before ${request.operation} was submitted; nothing was transferred.`,
  );
  return -Errno.EINVAL;
}

function copyIn(block: Block, view: Uint8Array, length: number): void {
  block.bytes.set(view.byteLength === length ? view : view.subarray(0, length));
}

/**
 * Delivers what was read. If the caller's buffer has been detached or made smaller meanwhile, what it can't take goes
 * back to the stream it came from, for the next read.
 */
function copyOut(request: Request, block: Block, view: Uint8Array, bytes: number): void {
  if (view.byteLength < bytes) {
    keepUnread(request, block, bytes);
    return;
  }
  const from = request.simple ? 0 : request.blockOffset;
  view.set(from === 0 ? block.part(bytes) : block.bytes.subarray(from, from + bytes));
}

/** Delivers what was read to several arrays, one after another. */
function scatter(request: Request, block: Block, views: readonly Uint8Array[], bytes: number): void {
  if (totalBytes(views) < request.length) {
    keepUnread(request, block, bytes);
    return;
  }
  let from = 0;
  for (const view of views) {
    const n = Math.min(view.byteLength, bytes - from);
    if (n > 0) view.set(block.bytes.subarray(from, from + n));
    from += n;
  }
}

function gather(block: Block, views: readonly Uint8Array[]): void {
  let to = 0;
  for (const view of views) {
    const n = Math.min(view.byteLength, MAX_TRANSFER_BYTES - to);
    block.bytes.set(n === view.byteLength ? view : view.subarray(0, n), to);
    to += n;
  }
}

/** The bytes of several arrays. */
export function totalBytes(views: readonly Uint8Array[]): number {
  return views.reduce((sum, view) => sum + view.byteLength, 0);
}

function keepUnread(request: Request, block: Block, bytes: number): void {
  const from = request.blockOffset;
  request.owner?.unread(block.bytes.slice(from, from + bytes));
  request.failure = new TypeError(
    `The buffer was detached or made smaller while ${request.operation} was in flight. ` +
      `${bytes} bytes had arrived; ` +
      (request.offset < 0 ? "the next read delivers them." : "they are still in the file."),
  );
}
