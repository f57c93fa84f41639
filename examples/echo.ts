#!/usr/bin/env -S deno run --allow-ffi --allow-net=127.0.0.1
/**
 * An echo server: `echo.ts [PORT]`. Every connection is a child of one scope; Ctrl-C cancels the scope, which closes
 * them all, and the server ends. Run it with `deno run --allow-ffi --allow-net=127.0.0.1 examples/echo.ts 7777`, and
 * talk to it with `nc 127.0.0.1 7777`.
 */
import { type Conn, defaultRing, listen, scope } from "../mod.ts";

let accepted = 0;
let open = 0;
let bytes = 0;

async function serve(client: Conn): Promise<void> {
  accepted++;
  open++;
  await using conn = client;
  try {
    const buffer = new Uint8Array(16 << 10);
    for (let n = await conn.read(buffer); n !== null; n = await conn.read(buffer)) {
      await conn.writeAll(buffer.subarray(0, n));
      bytes += n;
    }
  } catch (error) {
    // A connection that breaks ends for itself alone; what else there is, Ctrl-C included, concerns the whole server.
    if (!(error instanceof Error && "errno" in error)) throw error;
    console.error(error.message);
  } finally {
    open--;
  }
}

const interrupted = new Error("Interrupted");
try {
  await scope(async (s) => {
    const interrupt = () => {
      console.log(`Ctrl-C: closing ${open} connections`);
      s.cancel(interrupted);
    };
    Deno.addSignalListener("SIGINT", interrupt);
    s.defer(() => Deno.removeSignalListener("SIGINT", interrupt));

    await using listener = await listen({ hostname: "127.0.0.1", port: Number(Deno.args[0] ?? 0) });
    console.log(`Listening on ${listener.addr.hostname}:${listener.addr.port}; Ctrl-C ends`);
    for await (const conn of listener) s.spawn(() => serve(conn));
  });
} catch (error) {
  if (error !== interrupted) throw error;
}
console.log(`Echoed ${bytes} bytes over ${accepted} connections; ${open} are open`);
console.log(`${defaultRing().inFlight} requests in flight`);
