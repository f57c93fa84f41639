/**
 * Whether io_uring may be tried at all.
 *
 * @module
 */
import { environment } from "../ffi/load.ts";
import { IoUringUnavailableError } from "./errors.ts";

/** Set to anything but "" or "0", it keeps the library from even trying, for where trying is punished (SIGSYS). */
export const DISABLE_VARIABLE = "RINGSCOPE_DISABLE";

/** Throws where io_uring must not be tried. */
export function requireIoUring(): void {
  const { os } = Deno.build;
  if (os !== "linux" && os !== "android") {
    throw new IoUringUnavailableError("OS", `io_uring is Linux's, and this is ${os}. Run on Linux 5.19 or later.`);
  }
  const disabled = environment(DISABLE_VARIABLE);
  if (disabled !== undefined && disabled !== "" && disabled !== "0") {
    throw new IoUringUnavailableError(
      "DISABLED",
      `The environment variable ${DISABLE_VARIABLE}=${disabled} switches io_uring off. Unset it to use ringscope.`,
    );
  }
}
