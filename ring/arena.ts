/**
 * The memory that requests name to the kernel. It is mapped by the helper and owned by the ring, so that nothing a
 * program does with its own buffers (drop, detach, resize, transfer) reaches what the kernel reads and writes.
 *
 * @module
 */
import type { Native } from "../ffi/load.ts";
import { high, low, Mapping } from "../ffi/memory.ts";
import { MAX_TRANSFER_BYTES } from "./uring_abi.ts";

/** A piece of the arena, lent to one request from its submission to its final CQE. */
export class Block {
  readonly addressLow: number;
  readonly addressHigh: number;
  /** The piece of it that was asked for last. */
  #part: Uint8Array<ArrayBuffer>;

  /** @param registered Its place among the ring's registered buffers, -1 for none. */
  constructor(
    readonly bytes: Uint8Array<ArrayBuffer>,
    readonly address: number,
    readonly sizeClass: number,
    readonly registered: number,
  ) {
    this.addressLow = low(address);
    this.addressHigh = high(address);
    this.#part = bytes;
  }

  /** Its first bytes, valid until the next call. Messages of one size follow each other, and making a view is dear. */
  part(byteLength: number): Uint8Array<ArrayBuffer> {
    if (this.#part.byteLength !== byteLength) this.#part = this.bytes.subarray(0, byteLength);
    return this.#part;
  }
}

/** Block sizes, each holding several times the one before: small enough a choice to find one by comparing. */
const CLASS_BYTES = [256, 4096, 16 << 10, 64 << 10, 256 << 10, MAX_TRANSFER_BYTES];

/** What is asked of the system at a time. */
const MAPPING_BYTES = 4 << 20;

/**
 * Blocks by size class, carved from mappings as they are first needed and then reused. It grows to what was in flight
 * at the most, and is given back when its ring closes.
 */
export class Arena {
  readonly #native: Native;
  readonly #mappings: Mapping[] = [];
  readonly #free: Block[][] = CLASS_BYTES.map(() => []);
  readonly #registerMapping: ((index: number, mapping: Mapping) => boolean) | null;
  #registered = -1;
  #carved = MAPPING_BYTES;
  #lent = 0;
  #closed = false;

  /** @param registerMapping Registers each mapping with the ring; tells whether that could be done. */
  constructor(native: Native, registerMapping: ((index: number, mapping: Mapping) => boolean) | null = null) {
    this.#native = native;
    this.#registerMapping = registerMapping;
  }

  /** Blocks that requests hold now. */
  get lent(): number {
    return this.#lent;
  }

  /** A block of at least `bytes`, which is at most `MAX_TRANSFER_BYTES`; or a negative errno. */
  take(bytes: number): Block | number {
    if (this.#closed) throw new Deno.errors.BadResource("The ring is closed");
    let sizeClass = 0;
    while (CLASS_BYTES[sizeClass] < bytes) sizeClass++;
    const block = this.#free[sizeClass].pop() ?? this.#carve(sizeClass);
    if (typeof block !== "number") this.#lent++;
    return block;
  }

  /** Takes a block back: the kernel is done with it. */
  give(block: Block): void {
    this.#lent--;
    this.#free[block.sizeClass].push(block);
  }

  /** Unmaps everything. Only after the final CQE of every request that held a block. */
  close(): void {
    this.#closed = true;
    for (const mapping of this.#mappings) mapping.unmap();
    this.#mappings.length = 0;
  }

  #carve(sizeClass: number): Block | number {
    const bytes = CLASS_BYTES[sizeClass];
    if (this.#carved + bytes > MAPPING_BYTES) {
      const mapping = Mapping.create(this.#native, MAPPING_BYTES);
      if (typeof mapping === "number") return mapping;
      const index = this.#mappings.push(mapping) - 1;
      this.#registered = this.#registerMapping?.(index, mapping) ? index : -1;
      this.#carved = 0;
    }
    const mapping = this.#mappings[this.#mappings.length - 1];
    const at = this.#carved;
    this.#carved += bytes;
    const view = new Uint8Array(mapping.buffer, at, bytes);
    return new Block(view, mapping.address + at, sizeClass, this.#registered);
  }
}
