#!/usr/bin/env -S deno run --allow-ffi --allow-net
/**
 * An echo server: `echo.ts [PORT]`. Every connection is a child of one scope; Ctrl-C cancels the scope, which closes
 * them all, and the server ends.
 */
import { type Conn, listen, scope } from "../mod.ts";

let served = 0;
let bytes = 0;

async function echo(accepted: Conn): Promise<void> {
  await using conn = accepted;
  const buffer = new Uint8Array(16 << 10);
  try {
    for (let n = await conn.read(buffer); n !== null; n = await conn.read(buffer)) {
      await conn.writeAll(buffer.subarray(0, n));
      bytes += n;
    }
  } catch (error) {
    // A connection that breaks ends for itself alone.
    const broken = error instanceof Deno.errors.ConnectionReset || error instanceof Deno.errors.BrokenPipe;
    if (!broken) throw error;
  }
}

const interrupted = new Error("Interrupted");
try {
  await scope(async (s) => {
    const interrupt = () => s.cancel(interrupted);
    Deno.addSignalListener("SIGINT", interrupt);
    s.defer(() => Deno.removeSignalListener("SIGINT", interrupt));

    const listener = await listen({ hostname: "127.0.0.1", port: Number(Deno.args[0] ?? 0) });
    s.defer(() => listener.close());
    console.log(`Listening on ${listener.addr.hostname}:${listener.addr.port}; Ctrl-C ends`);
    for await (const conn of listener) {
      served++;
      s.spawn(() => echo(conn));
    }
  });
} catch (error) {
  if (error !== interrupted) throw error;
}
console.log(`Echoed ${bytes} bytes over ${served} connections`);
