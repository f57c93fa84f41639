/** Which Deno this is: what the older ones can't do is told here, and skipped by the tests that need it. */

const [major, minor] = Deno.version.deno.split(".").map(Number);

/** Whether this is Deno 2.`since` or later. */
export function isDeno2(since: number): boolean {
  return major > 2 || minor >= since;
}

/** Options of tests that need `toDuplex`: before Deno 2.1 `node:stream` could not be loaded at once. */
export const needsDuplex = { ignore: !isDeno2(1) };

/** Options of tests that need `node:tls` over streams which are no sockets of the runtime's (Deno 2.8). */
export const needsTlsOverStreams = { ignore: !isDeno2(8) };
