/**
 * Provided buffers: a pool that the kernel takes from when bytes have come, so that what waits for bytes holds no
 * memory. One pool serves a whole ring.
 *
 * @module
 */
import type { Native } from "../ffi/load.ts";
import { high, low, Mapping } from "../ffi/memory.ts";
import { Register } from "./uring_abi.ts";

/** The number of the pool, in the SQEs that take from it. */
export const BUFFER_GROUP = 1;
/** Bytes of each buffer, and how many there are. */
const BUFFER_BYTES = 32 << 10;
const BUFFERS = 128;
/** Words of `struct io_uring_buf`: the address (two), the length, and the number with 16 bits beside it. */
const ENTRY_WORDS = 4;
/** Where the tail stands, as 16 bits: in the unused field of the first entry. */
const TAIL_AT = 7;
const PAGE_BYTES = 4096;

/** The pool, registered with the kernel when it is made. */
export class BufferRing {
  readonly #ring: Mapping;
  readonly #buffers: Mapping;
  readonly #words: Uint32Array;
  readonly #tail: Uint16Array;
  readonly #bytes: Uint8Array;
  #next = 0;

  private constructor(ring: Mapping, buffers: Mapping) {
    this.#ring = ring;
    this.#buffers = buffers;
    this.#words = new Uint32Array(ring.buffer);
    this.#tail = new Uint16Array(ring.buffer);
    this.#bytes = new Uint8Array(buffers.buffer);
  }

  /** Registers a pool with a ring; a negative errno where that is not to be had. */
  static register(native: Native, ringFd: number): BufferRing | number {
    const ring = Mapping.create(native, Math.max(PAGE_BYTES, BUFFERS * ENTRY_WORDS * 4));
    if (typeof ring === "number") return ring;
    const buffers = Mapping.create(native, BUFFERS * BUFFER_BYTES);
    if (typeof buffers === "number") {
      ring.unmap();
      return buffers;
    }
    // struct io_uring_buf_reg: ring_addr, ring_entries, bgid and flags, resv[3].
    const register = new Uint32Array(10);
    register.set([low(ring.address), high(ring.address), BUFFERS, BUFFER_GROUP]);
    const result = native.rs_register(ringFd, Register.PBUF_RING, new Uint8Array(register.buffer), 1);
    if (result < 0) {
      ring.unmap();
      buffers.unmap();
      return result;
    }
    const pool = new BufferRing(ring, buffers);
    for (let id = 0; id < BUFFERS; id++) pool.give(id);
    return pool;
  }

  /** A copy of what the kernel has left in a buffer, which goes back to the pool. */
  take(id: number, bytes: number): Uint8Array<ArrayBuffer> {
    const start = id * BUFFER_BYTES;
    const taken = this.#bytes.slice(start, start + bytes) as Uint8Array<ArrayBuffer>;
    this.give(id);
    return taken;
  }

  /** Puts a buffer (back) where the kernel finds it. */
  give(id: number): void {
    const at = (this.#next & BUFFERS - 1) * ENTRY_WORDS;
    const address = this.#buffers.address + id * BUFFER_BYTES;
    this.#words[at] = low(address);
    this.#words[at + 1] = high(address);
    this.#words[at + 2] = BUFFER_BYTES;
    // The upper half of this word is the tail's place in the first entry.
    this.#tail[2 * (at + 3)] = id;
    this.#next = this.#next + 1 & 0xffff;
    Atomics.store(this.#tail, TAIL_AT, this.#next);
  }

  /** Gives the memory back. Only after the ring is closed. */
  unmap(): void {
    this.#ring.unmap();
    this.#buffers.unmap();
  }
}
