/**
 * What the opcodes mean: {@linkcode prepare} writes a request's SQE and {@linkcode complete} reads its result. They
 * face each other; an opcode is added in both.
 *
 * @module
 */
import { high, low } from "../ffi/memory.ts";
import type { Arena, Block } from "./arena.ts";
import { isRestart } from "./errors.ts";
import { Errno } from "./errno.ts";
import type { Request } from "./request.ts";
import { MAX_TRANSFER_BYTES, Op, opcodeName, SQE_WORDS } from "./uring_abi.ts";
import type { Uring } from "./uring.ts";

/** Bytes of scratch memory beside each SQE, for what the kernel copies when it takes the SQE. */
export const SCRATCH_BYTES = 128;

/** Up to here, copying byte by byte beats making a view for `set`. */
const SHORT_COPY_BYTES = 64;

/** Where in an ACCEPT's block the address's length stands, behind the address. */
const ACCEPT_LENGTH_AT = 128;

/** Writes a request's SQE into the next free place of the SQ; 0, or a negative errno and nothing has been written. */
export function prepare(request: Request, uring: Uring, arena: Arena): number {
  const { opcode } = request;
  const words = uring.sqes;
  const at = uring.nextSqe * SQE_WORDS;
  let offsetLow = 0;
  let offsetHigh = 0;
  let addressLow = 0;
  let addressHigh = 0;
  let length = request.length;

  switch (opcode) {
    case Op.READ:
    case Op.WRITE:
      offsetLow = request.offset >>> 0;
      offsetHigh = request.offset < 0 ? 0xffff_ffff : (request.offset / 0x1_0000_0000) >>> 0;
      /* falls through */
    case Op.RECV:
    case Op.SEND: {
      const view = request.view!;
      if (view.byteLength < request.length) return refuseBuffer(request);
      length = Math.min(request.length, MAX_TRANSFER_BYTES);
      let block = request.block;
      if (block === null) {
        const taken = arena.take(length);
        if (typeof taken === "number") return taken;
        request.block = block = taken;
        if (opcode === Op.WRITE || opcode === Op.SEND) copyIn(block, view, length);
      }
      addressLow = block.addressLow;
      addressHigh = block.addressHigh;
      if (request.blockOffset !== 0) {
        addressLow = low(block.address + request.blockOffset);
        addressHigh = high(block.address + request.blockOffset);
      }
      break;
    }
    case Op.ACCEPT: {
      const taken = arena.take(ACCEPT_LENGTH_AT + 4);
      if (typeof taken === "number") return taken;
      request.block = taken;
      new DataView(taken.bytes.buffer, taken.bytes.byteOffset).setUint32(ACCEPT_LENGTH_AT, ACCEPT_LENGTH_AT, true);
      addressLow = taken.addressLow;
      addressHigh = taken.addressHigh;
      offsetLow = taken.addressLow + ACCEPT_LENGTH_AT;
      offsetHigh = taken.addressHigh;
      break;
    }
    case Op.CONNECT: {
      const address = request.argument!;
      uring.scratch.set(address, uring.nextSqe * SCRATCH_BYTES);
      [addressLow, addressHigh] = uring.scratchAddress();
      offsetLow = address.byteLength;
      break;
    }
    case Op.OPENAT2: {
      const path = request.argument!;
      if (path.byteLength > MAX_TRANSFER_BYTES) return -36; // ENAMETOOLONG, as the kernel would say of less
      const taken = arena.take(path.byteLength);
      if (typeof taken === "number") return taken;
      request.block = taken;
      taken.bytes.set(path);
      addressLow = taken.addressLow;
      addressHigh = taken.addressHigh;
      // struct open_how: flags, mode, resolve, each a u64.
      const how = uring.scratchWords;
      const scratchAt = uring.nextSqe * (SCRATCH_BYTES / 4);
      how.fill(0, scratchAt, scratchAt + 6);
      how[scratchAt] = request.opFlags;
      how[scratchAt + 2] = request.length;
      [offsetLow, offsetHigh] = uring.scratchAddress();
      length = 24;
      break;
    }
    case Op.TIMEOUT:
      [addressLow, addressHigh] = writeTimespec(uring, request.durationMs);
      length = 1;
      break;
    case Op.NOP:
    case Op.FSYNC:
    case Op.CLOSE:
    case Op.SHUTDOWN:
    case Op.POLL_ADD:
      break;
    default:
      throw new Error(`BUG: ${opcodeName(opcode)} has no prepare`);
  }

  words[at] = opcode | request.sqeFlags << 8;
  words[at + 1] = request.fd;
  words[at + 2] = offsetLow;
  words[at + 3] = offsetHigh;
  words[at + 4] = addressLow;
  words[at + 5] = addressHigh;
  words[at + 6] = length;
  words[at + 7] = opcode === Op.OPENAT2 ? 0 : request.opFlags;
  words[at + 10] = 0;
  words[at + 11] = request.fileIndex;
  words[at + 12] = 0;
  words[at + 13] = 0;
  words[at + 14] = 0;
  words[at + 15] = 0;
  return 0;
}

/**
 * Reads the result of a request, whose final CQE is in: copies what was read to where it belongs, and turns what is a
 * success in all but its sign into one. The block is the ring's again afterwards.
 */
export function complete(request: Request): void {
  if (isRestart(request.result)) request.result = -Errno.EINTR;
  switch (request.opcode) {
    case Op.READ:
    case Op.RECV:
      if (request.result > 0) {
        copyOut(request, request.block!, request.view!, request.result);
      }
      break;
    case Op.ACCEPT:
      if (request.result >= 0) {
        const { bytes } = request.block!;
        const length = new DataView(bytes.buffer, bytes.byteOffset).getUint32(ACCEPT_LENGTH_AT, true);
        request.argument = bytes.slice(0, Math.min(length, ACCEPT_LENGTH_AT));
      }
      break;
    case Op.TIMEOUT:
      if (request.result === -Errno.ETIME) request.result = 0;
      break;
    case Op.NOP:
    case Op.WRITE:
    case Op.SEND:
    case Op.CONNECT:
    case Op.OPENAT2:
    case Op.FSYNC:
    case Op.CLOSE:
    case Op.SHUTDOWN:
    case Op.POLL_ADD:
      break;
    default:
      throw new Error(`BUG: ${opcodeName(request.opcode)} has no complete`);
  }
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
  const from = request.blockOffset;
  const fits = Math.min(view.byteLength, bytes);
  if (fits < bytes) {
    request.owner?.unread(block.bytes.slice(from, from + bytes));
    request.failure = new TypeError(
      `The buffer was detached or made smaller while ${request.operation} was in flight. ` +
        `${bytes} bytes had arrived; ` +
        (request.offset < 0 ? "the next read delivers them." : "they are still in the file."),
    );
    return;
  }
  if (bytes <= SHORT_COPY_BYTES) {
    for (let i = 0; i < bytes; i++) view[i] = block.bytes[from + i];
    return;
  }
  view.set(from === 0 && bytes === block.bytes.byteLength ? block.bytes : block.bytes.subarray(from, from + bytes));
}
