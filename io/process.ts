/**
 * Waiting for processes to end.
 *
 * @module
 */
import type { SystemErrorFields } from "../ring/errors.ts";
import { OperandWord } from "../ring/operations.ts";
import type { OperationOptions } from "../ring/request.ts";
import { driverOf, type Ring } from "../ring/ring.ts";
import { Op } from "../ring/uring_abi.ts";

/** How a process has ended, as `Deno.CommandStatus` says it. */
export interface ProcessStatus {
  /** The process. */
  readonly pid: number;
  /** Its exit code; 128 and the signal's number where a signal has ended it. */
  readonly code: number;
  /** The signal that has ended it, or `null`. */
  readonly signal: Deno.Signal | null;
}

/** Options of {@linkcode waitProcess}. */
export interface WaitProcessOptions extends OperationOptions {
  /**
   * Whether the process is to be gone afterwards. Who starts a process by means of `Deno.Command` leaves that to Deno.
   * Default: `false`; it stays a zombie, and can be waited for again (`WNOWAIT`).
   */
  reap?: boolean;
  /** The ring that waits. Default: the default ring. */
  ring?: Ring;
}

const P_PID = 1;
const WEXITED = 4;
const WNOWAIT = 0x0100_0000;
const CLD_EXITED = 1;
const SIGINFO_BYTES = 128;

/**
 * Waits until a child of this process has ended (`IORING_OP_WAITID`, 6.7).
 *
 * The runtime reaps the children of `Deno.Command` by itself, and whether that or this comes first is open. So give it
 * the `Deno.ChildProcess`, whose status is the answer where the child is gone already. A number is for children that
 * were started in another way, such as `posix_spawn` by FFI; those must be reaped, too.
 *
 * @param child A child's number, or a `Deno.ChildProcess`.
 * @param options `signal`, `timeout`, `reap`, and the ring. A wait that is given up leaves the child alone.
 * @throws An error with code "ECHILD" if the number is not that of a child, or of one that has been reaped.
 * @throws {Deno.errors.NotSupported} Before Linux 6.7.
 *
 * @example
 * ```ts
 * import { waitProcess } from "@ringscope/ringscope";
 *
 * const child = new Deno.Command("/bin/sh", { args: ["-c", "exit 3"] }).spawn();
 * const { code } = await waitProcess(child, { timeout: 10_000 });
 * console.log(code); // 3
 * await child.status;
 * ```
 */
export async function waitProcess(
  child: number | Pick<Deno.ChildProcess, "pid" | "status">,
  options: WaitProcessOptions = {},
): Promise<ProcessStatus> {
  const pid = typeof child === "number" ? child : child.pid;
  if (!Number.isInteger(pid) || pid <= 0) throw new RangeError(`A process has a number above 0, not ${pid}`);
  const driver = driverOf(options.ring);
  const request = driver.request(Op.WAITID, "waitProcess");
  const siginfo = new Uint8Array(SIGINFO_BYTES);
  request.operands = [{ word: OperandWord.Address2, bytes: SIGINFO_BYTES, output: siginfo }];
  request.length = P_PID;
  request.fd = pid;
  request.fileIndex = WEXITED | (options.reap ? 0 : WNOWAIT);
  request.decode = () => statusOf(siginfo);
  try {
    return await driver.start<ProcessStatus>(request, options);
  } catch (error) {
    const reaped = (error as Partial<SystemErrorFields>)?.errno === ECHILD;
    if (!reaped || typeof child === "number") throw error;
    const { code, signal } = await child.status;
    return { pid, code, signal };
  }
}

const ECHILD = 10;
/** What is added to a signal's number to make an exit code. */
const SIGNAL_CODES = 128;
/** The signals of Linux from 1 on, without `SIG`. */
const signals =
  ("HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM STKFLT CHLD CONT STOP TSTP TTIN " +
    "TTOU URG XCPU XFSZ VTALRM PROF WINCH IO PWR SYS").split(" ");

/** Reads the `siginfo_t` of a child that has ended: `si_code`, `si_pid` and `si_status`. */
function statusOf(siginfo: Uint8Array<ArrayBuffer>): ProcessStatus {
  const view = new DataView(siginfo.buffer);
  const pid = view.getInt32(16, true);
  const status = view.getInt32(24, true);
  if (view.getInt32(8, true) === CLD_EXITED) return { pid, code: status, signal: null };
  // Beyond these are the real-time signals, which have numbers only.
  return { pid, code: SIGNAL_CODES + status, signal: `SIG${signals[status - 1] ?? status}` as Deno.Signal };
}
