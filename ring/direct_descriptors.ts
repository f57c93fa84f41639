/**
 * The ring's own file table. It has places for direct descriptors (files that are opened, used and closed inside a chain
 * and never become numbers of the process), and for registered files: the process's descriptors as the ring finds them
 * faster.
 *
 * @module
 */
import type { Native } from "../ffi/load.ts";
import { high, low, Mapping } from "../ffi/memory.ts";
import { Cancellable, CancelToken, tokenOf } from "../scope/cancel_token.ts";
import { Errno } from "./errno.ts";
import { systemError } from "./errors.ts";
import { SignalLink } from "./request.ts";
import { Register } from "./uring_abi.ts";

/**
 * Files that chains may have open at once; further chains wait for a place. The kernel takes no table that is larger than
 * the limit of open files (RLIMIT_NOFILE): under a tight one there are fewer.
 */
export const DIRECT_DESCRIPTORS = 256;
const PAGE_BYTES = 4096;
const IORING_RSRC_REGISTER_SPARSE = 1;

/** The table, registered with the kernel when it is made. */
export class DirectDescriptors {
  readonly #native: Native;
  readonly #ringFd: number;
  /** Places for registered files that have been given back, the first one that was never taken, and the end of them. */
  readonly #spare: number[] = [];
  #fresh: number;
  readonly #end: number;
  /** Where the number to register stands. */
  #number: Mapping | null = null;
  /** Places for direct descriptors, and those of them that are free. */
  readonly #places: number;
  readonly #free: number[];
  /** In order of asking. */
  readonly #waiting: PlaceWaiter[] = [];

  /** @param registeredFiles Places for registered files, besides those for direct descriptors. */
  constructor(native: Native, ringFd: number, registeredFiles: number) {
    this.#native = native;
    this.#ringFd = ringFd;
    // struct io_uring_rsrc_register: nr, flags, resv2, data, tags.
    const register = new Uint32Array(8);
    register[1] = IORING_RSRC_REGISTER_SPARSE;
    let places = DIRECT_DESCRIPTORS;
    for (let files = registeredFiles;;) {
      register[0] = places + files;
      const result = native.rs_register(ringFd, Register.FILES2, register, register.byteLength);
      if (result >= 0) break;
      if (result !== -Errno.EMFILE || register[0] === 1) throw systemError(result, "io_uring_register");
      if (files > 0) files >>= 1;
      else places >>= 1;
    }
    this.#places = places;
    this.#free = Array.from({ length: places }, (_, i) => places - 1 - i);
    this.#fresh = places;
    this.#end = register[0];
  }

  /** Registers a descriptor; returns its place, or -1 where there is none left or the kernel does not take it. */
  register(fd: number): number {
    const place = this.#spare.pop() ?? (this.#fresh < this.#end ? this.#fresh++ : -1);
    if (place < 0 || this.#update(place, fd) === 1) return place;
    this.#spare.push(place);
    return -1;
  }

  /** Takes a registered descriptor out again, before it is closed: the table keeps what is behind it open. */
  unregister(place: number): void {
    this.#update(place, -1);
    this.#spare.push(place);
  }

  /** Gives the memory back. Only after the ring is closed. */
  unmap(): void {
    this.#number?.unmap();
  }

  /** Returns 1, or a negative errno. */
  #update(place: number, fd: number): number {
    const number = this.#number ?? Mapping.create(this.#native, PAGE_BYTES);
    if (typeof number === "number") return number;
    this.#number = number;
    new Int32Array(number.buffer, 0, 1)[0] = fd;
    // struct io_uring_files_update: offset, resv, fds.
    const update = new Uint32Array([place, 0, low(number.address), high(number.address)]);
    return this.#native.rs_register(this.#ringFd, Register.FILES_UPDATE, update, 1);
  }

  /** Places that are taken. */
  get taken(): number {
    return this.#places - this.#free.length;
  }

  /** Takes `count` places, in order of asking; rejects with the reason if cancelled while it waits. */
  take(count: number, signal?: AbortSignal): Promise<number[]> {
    if (count > this.#places) {
      const tight = this.#places < DIRECT_DESCRIPTORS ? " under this limit of open files (ulimit -n)" : "";
      throw new RangeError(`A chain can't open more than ${this.#places} files${tight}`);
    }
    return new Promise((resolve, reject) => {
      this.#waiting.push(
        new PlaceWaiter(count, signal, resolve, (reason) => {
          reject(reason);
          this.#serve(); // those behind it may need fewer places
        }),
      );
      this.#serve();
    });
  }

  /** Gives places back: their files are closed. */
  give(places: readonly number[]): void {
    this.#free.push(...places);
    this.#serve();
  }

  #serve(): void {
    while (this.#waiting.length > 0) {
      const next = this.#waiting[0];
      if (!next.cancelled) {
        if (next.count > this.#free.length) return;
        next.serve(this.#free.splice(this.#free.length - next.count, next.count));
      }
      this.#waiting.shift();
    }
  }
}

/** A chain that waits for places. */
class PlaceWaiter extends Cancellable {
  cancelled = false;
  readonly #signalLink: SignalLink | null;
  readonly #resolve: (places: number[]) => void;
  readonly #reject: (reason: unknown) => void;

  constructor(
    readonly count: number,
    signal: AbortSignal | undefined,
    resolve: (places: number[]) => void,
    reject: (reason: unknown) => void,
  ) {
    super();
    this.#resolve = resolve;
    this.#reject = reject;
    const token = CancelToken.current();
    if (token?.cancelled) throw token.reason;
    const signalToken = signal && tokenOf(signal);
    if (signalToken?.cancelled) throw signalToken.reason;
    this.#signalLink = signalToken ? new SignalLink(this, signalToken) : null;
    token?.join(this);
  }

  serve(places: number[]): void {
    this.#leave();
    this.#resolve(places);
  }

  override cancel(reason: unknown): void {
    this.cancelled = true;
    this.#leave();
    this.#reject(reason);
  }

  #leave(): void {
    this.joined?.leave(this);
    this.#signalLink?.joined?.leave(this.#signalLink);
  }
}
