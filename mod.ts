/**
 * Linux io_uring for Deno, with structured concurrency: I/O that really stops when you stop waiting for it.
 *
 * @example
 * ```ts
 * import { socketpair, timeout } from "@ringscope/ringscope";
 *
 * const [left, right] = socketpair();
 * try {
 *   await timeout(10, () => left.read(new Uint8Array(16))); // nothing ever comes
 * } catch (error) {
 *   console.log((error as Error).name); // "TimeoutError", and the read has left the kernel
 * } finally {
 *   await left.close();
 *   await right.close();
 * }
 * ```
 *
 * @module
 */
export * from "./io/mod.ts";
export * from "./scope/mod.ts";
