/**
 * What the echo servers have in common.
 *
 * @module
 */

/** The size of each connection's buffer. */
export const BUFFER_BYTES = 4096;

/** Tells the parent the port, and exits when the parent closes standard input or is gone. */
export async function serveParent(port: number): Promise<void> {
  console.log(port);
  while (await Deno.stdin.read(new Uint8Array(64)) !== null);
  Deno.exit();
}
