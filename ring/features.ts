/**
 * What the kernel of a ring can do: opcodes by its own word, the rest by the release that an opcode came with.
 *
 * @module
 */
import type { Native } from "../ffi/load.ts";
import { Op, opcodeName, opcodeSince, Register } from "./uring_abi.ts";

const PROBE_HEADER_BYTES = 16;
const PROBE_ENTRY_BYTES = 8;
const IO_URING_OP_SUPPORTED = 1;

/** The opcodes and features of one ring. */
export class Features {
  readonly #native: Native;
  readonly #ringFd: number;
  readonly #kernel: string | undefined;
  #supported: boolean[] | null = null;

  /** @param kernel Behave as that older kernel would, such as `"5.19"`. */
  constructor(native: Native, ringFd: number, kernel?: string) {
    this.#native = native;
    this.#ringFd = ringFd;
    this.#kernel = kernel;
  }

  /** Whether the kernel knows an opcode. */
  supports(opcode: number): boolean {
    return (this.#supported ??= this.#probe())[opcode] ?? false;
  }

  /** 6.0, as zero-copy sends. */
  get multishotReceive(): boolean {
    return this.supports(Op.SEND_ZC);
  }

  /** 6.4. There is no opcode to tell by: an older kernel refuses the flag. */
  get multishotTimeout(): boolean {
    return isAtLeast(this.#kernel, "6.4");
  }

  /** The error for an opcode that this kernel does not know. */
  unsupported(opcode: number, operation: string): Error {
    const since = opcodeSince.get(opcode);
    const message = `${operation} needs ${
      since === undefined ? "a kernel" : `Linux ${since} or later,`
    } with IORING_OP_${opcodeName(opcode)}`;
    return Object.assign(new Deno.errors.NotSupported(message), { code: "ENOSYS", errno: 38, operation });
  }

  #probe(): boolean[] {
    const count = 256;
    const probe = new Uint8Array(PROBE_HEADER_BYTES + count * PROBE_ENTRY_BYTES);
    // A kernel that forbids the probe (a seccomp filter may) says by each request what it knows.
    const known = this.#native.rs_register(this.#ringFd, Register.PROBE, probe, count) === 0;
    return Array.from({ length: count }, (_, opcode) => {
      const flags = probe[PROBE_HEADER_BYTES + opcode * PROBE_ENTRY_BYTES + 2];
      return (!known || (flags & IO_URING_OP_SUPPORTED) !== 0) && isAtLeast(this.#kernel, opcodeSince.get(opcode));
    });
  }
}

/** Whether a kernel, if one is given, has what came with `since`, if that is younger than our floor. */
export function isAtLeast(kernel: string | undefined, since: string | undefined): boolean {
  if (kernel === undefined || since === undefined) return true;
  const [major, minor] = kernel.split(".").map(Number);
  const [sinceMajor, sinceMinor] = since.split(".").map(Number);
  return major > sinceMajor || (major === sinceMajor && minor >= sinceMinor);
}
