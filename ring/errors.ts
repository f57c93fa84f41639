/**
 * From what the kernel says to what a program catches: Deno's error classes with `code`, `errno`, `operation` and the
 * path or address; and the one error for kernels and containers that have no io_uring.
 *
 * @module
 */
import { Errno, errnoTable } from "./errno.ts";

/** What an error of a system call or a request tells besides its message. */
export interface SystemErrorFields {
  /** The errno's name, such as `"ENOENT"`. */
  code: string;
  /** The errno, a positive number. */
  errno: number;
  /** The operation that failed, such as `"open"`. */
  operation: string;
  /** The path it was about, where there is one. */
  path?: string;
  /** The second path, of an operation with two, such as `rename`. */
  newPath?: string;
  /** The address it was about, such as `"127.0.0.1:80"`, where there is one. */
  address?: string;
}

/** What a failed operation was about: goes into the message and the fields of its error. */
export interface Subject {
  readonly path?: string;
  readonly newPath?: string;
  /** What people call what has neither path nor address. */
  readonly name?: string;
  readonly address?: string;
}

/**
 * The error for a negative result: of the class in `Deno.errors` for that errno where there is one, else `Error`;
 * always with {@linkcode SystemErrorFields}.
 */
export function systemError(result: number, operation: string, subject?: Subject): Error & SystemErrorFields {
  const errno = -result;
  const entry = errnoTable.get(errno) ?? { code: `E${errno}`, message: "Unknown error" };
  const message = `${entry.message} (os error ${errno}): ${operation}${about(subject)}`;
  const ErrorClass = entry.errorClass === undefined ? Error : Deno.errors[entry.errorClass];
  const fields: SystemErrorFields = { code: entry.code, errno, operation };
  if (subject?.path !== undefined) fields.path = subject.path;
  if (subject?.newPath !== undefined) fields.newPath = subject.newPath;
  if (subject?.address !== undefined) fields.address = subject.address;
  return Object.assign(new ErrorClass(message), fields);
}

/** A subject as it stands in messages, behind the operation. */
export function about(subject: Subject | undefined): string {
  if (subject?.newPath !== undefined) return ` '${subject.path}' -> '${subject.newPath}'`;
  const what = subject?.path ?? subject?.address;
  if (what !== undefined) return ` '${what}'`;
  return subject?.name === undefined ? "" : ` ${subject.name}`;
}

/**
 * Tells on an error how many bytes went; also on the reason of an abort, as far as that can bear a property. Several
 * writes that share one reason share the property too: the last to be rejected says its number.
 */
export function withBytesWritten<T>(error: T, bytesWritten: number): T {
  if (typeof error === "object" && error !== null && Object.isExtensible(error)) Object.assign(error, { bytesWritten });
  return error;
}

/** Results by which the kernel says that a request was cancelled: -ECANCELED, -EINTR and the restart codes. */
export function isCancelled(result: number): boolean {
  return result === -Errno.ECANCELED || result === -Errno.EINTR || isRestart(result);
}

/** ERESTARTSYS and its kin, which leak out of a worker whose request was cancelled: EINTR to everyone else. */
export function isRestart(result: number): boolean {
  return result === -512 || result === -513 || result === -514 || result === -516;
}

/**
 * Thrown by the first use of the library where io_uring is not to be had. `code` tells the cause; the message tells
 * the remedy as well.
 *
 * @example
 * ```ts
 * import { IoUringUnavailableError, sleep } from "@ringscope/ringscope";
 *
 * try {
 *   await sleep(1);
 * } catch (error) {
 *   if (!(error instanceof IoUringUnavailableError)) throw error;
 *   console.error(error.code, error.message);
 * }
 * ```
 */
export class IoUringUnavailableError extends Error {
  /** The class's name. */
  override readonly name = "IoUringUnavailableError";
  /**
   * `"DISABLED"` (by the environment variable), `"OS"` (not Linux), or the errno's name that setting a ring up gave:
   * mostly `"ENOSYS"`, `"EPERM"` or `"ENOMEM"`.
   */
  readonly code: string;

  /** Made by the library; programs only catch it. */
  constructor(code: string, message: string) {
    super(message);
    this.code = code;
  }
}

/** The reason and the remedy for a ring that could not be set up; `disabledSysctl` is that file's text, if readable. */
export function unavailable(result: number, disabledSysctl: string | undefined): IoUringUnavailableError {
  const errno = -result;
  const code = errnoTable.get(errno)?.code ?? `E${errno}`;
  const said = `io_uring_setup: ${code}. `;
  switch (errno) {
    case Errno.ENOSYS:
      return new IoUringUnavailableError(
        code,
        said + "This kernel has no io_uring: it was built without it, or is gVisor or WSL 1. " +
          "Run on Linux 5.19 or later.",
      );
    case Errno.EPERM:
      return new IoUringUnavailableError(code, said + permissionRemedy(disabledSysctl));
    case Errno.ENOMEM:
      return new IoUringUnavailableError(
        code,
        said + "The ring does not fit the limit on locked memory. Raise it (ulimit -l, LimitMEMLOCK= of systemd, " +
          "--ulimit memlock= of Docker), or open a ring with fewer entries.",
      );
    case Errno.EINVAL:
      return new IoUringUnavailableError(
        code,
        said + "This kernel refuses the flags that the ring needs. Run on Linux 5.19 or later.",
      );
    default:
      return new IoUringUnavailableError(code, said + (errnoTable.get(errno)?.message ?? "Unknown error") + ".");
  }
}

function permissionRemedy(disabledSysctl: string | undefined): string {
  const filter = "A seccomp filter or a security module forbids it; Docker's default profile does. Allow the three " +
    "io_uring system calls in a profile of your own (--security-opt seccomp=profile.json).";
  const sysctl =
    "The sysctl kernel.io_uring_disabled forbids it: set it to 0 (sysctl -w kernel.io_uring_disabled=0), " +
    "or at 1, run in the group of kernel.io_uring_group.";
  switch (disabledSysctl?.trim()) {
    case undefined:
      return `${filter} Or else: ${sysctl}`;
    case "0":
      return filter;
    default:
      return sysctl;
  }
}
