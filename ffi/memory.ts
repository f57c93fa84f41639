/**
 * Native memory seen as typed arrays. A mapping belongs to nobody but its owner here: no garbage collector frees or
 * moves it, and its `ArrayBuffer` is never handed out.
 *
 * @module
 */
import type { Native } from "./load.ts";

/** The low half of an address, as a request and a system call take it. */
export function low(address: number): number {
  return address >>> 0;
}

/** The high half of an address. */
export function high(address: number): number {
  return (address / 0x1_0000_0000) >>> 0;
}

/** An `ArrayBuffer` over memory that is mapped already. */
export function viewMemory(address: number, bytes: number): ArrayBuffer {
  const pointer = Deno.UnsafePointer.create(BigInt(address));
  if (pointer === null) throw new Error("BUG: a view of address 0");
  return Deno.UnsafePointerView.getArrayBuffer(pointer, bytes);
}

/**
 * Empties every view of a buffer over native memory, so that a late access reads `undefined` where it would crash the
 * process: called right before the memory is unmapped.
 */
export function forget(buffer: ArrayBuffer): void {
  structuredClone(null, { transfer: [buffer] });
}

/** A piece of anonymous memory from the kernel. */
export class Mapping {
  readonly buffer: ArrayBuffer;

  private constructor(readonly native: Native, readonly address: number, readonly bytes: number) {
    this.buffer = viewMemory(address, bytes);
  }

  /** Maps zeroed memory, or returns the negative errno (`ENOMEM`, mostly). `bytes` is at most 4 GiB. */
  static create(native: Native, bytes: number): Mapping | number {
    const address = new BigUint64Array(1);
    const result = native.rs_map(bytes, address);
    return result < 0 ? result : new Mapping(native, Number(address[0]), bytes);
  }

  /** Gives the memory back. The kernel must be done with it: no request in flight may name it. */
  unmap(): void {
    forget(this.buffer);
    this.native.rs_unmap(low(this.address), high(this.address), this.bytes);
  }
}
