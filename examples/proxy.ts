#!/usr/bin/env -S deno run --allow-ffi --allow-net
/**
 * A TCP proxy that moves bytes inside the kernel (`splice`): `proxy.ts PORT HOST:PORT [IDLE_MS]`. A connection over which
 * nothing has moved for IDLE_MS milliseconds (default 60,000; it may take twice as long to be seen) is closed; Ctrl-C
 * closes all of them, and the proxy ends.
 * Run it with `deno run --allow-ffi --allow-net examples/proxy.ts 8080 example.org:80`.
 */
import { all, type Conn, connect, copy, defaultRing, listen, scope } from "../mod.ts";

const STEP_BYTES = 1 << 20;

const [port, target = "", idle = "60000"] = Deno.args;
const colon = target.lastIndexOf(":");
const upstream = {
  hostname: target.slice(0, colon).replace(/^\[(.*)\]$/, "$1"),
  port: Number(target.slice(colon + 1)),
};
const idleMs = Number(idle);
const isPort = (port: number) => Number.isInteger(port) && port >= 0 && port <= 65535;
if (!isPort(Number(port)) || colon < 0 || upstream.hostname === "" || !isPort(upstream.port) || !(idleMs > 0)) {
  console.error("usage: proxy.ts PORT HOST:PORT [IDLE_MS]");
  Deno.exit(2);
}

let open = 0;
let served = 0;
let bytes = 0;

/** Tells an end that no more comes; `false` if it is gone. */
async function passEnd(to: Conn): Promise<boolean> {
  return await to.closeWrite().then(() => true, () => false);
}

/** When bytes last moved over a connection, in either direction. */
class Activity {
  last = performance.now();

  /** Copies one direction to its end, step by step. That it is silent is no matter while the other is not. */
  async copy(from: Conn, to: Conn): Promise<void> {
    for (;;) {
      const patience = this.last + idleMs - performance.now();
      let n: number;
      try {
        n = await copy(from, to, { length: STEP_BYTES, timeout: Math.max(0, patience) });
      } catch (error) {
        const { bytesCopied = 0 } = error as { bytesCopied?: number };
        bytes += bytesCopied;
        if (bytesCopied > 0) this.last = performance.now();
        const silent = performance.now() - this.last >= idleMs;
        if (error instanceof DOMException && error.name === "TimeoutError" && !silent) continue;
        if (!(error instanceof Error && "errno" in error)) throw error;
        if (await passEnd(to)) throw error;
        // `to` takes no more. What it had sent before, such as an answer to what it did not read on, is still delivered.
        console.error(`proxy: ${error.message}`);
        return;
      }
      bytes += n;
      this.last = performance.now();
      if (n < STEP_BYTES) return void await passEnd(to); // the other direction goes on
    }
  }
}

async function serve(client: Conn): Promise<void> {
  open++;
  served++;
  try {
    await using near = client;
    await using far = await connect({ ...upstream, timeout: idleMs });
    const activity = new Activity();
    await all([() => activity.copy(near, far), () => activity.copy(far, near)]);
  } catch (error) {
    // Both ways may fail at once.
    for (const each of error instanceof AggregateError ? error.errors : [error]) {
      // A connection that breaks or falls silent ends for itself alone.
      if (!(each instanceof Error && ("errno" in each || each.name === "TimeoutError"))) throw error;
      console.error(`proxy: ${each.message}`);
    }
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

    await using listener = await listen({ hostname: "127.0.0.1", port: Number(port) });
    console.log(`Listening on ${listener.addr.hostname}:${listener.addr.port}; Ctrl-C ends`);
    for await (const conn of listener) s.spawn(() => serve(conn));
  });
} catch (error) {
  if (error !== interrupted) throw error;
}
console.log(`${served} connections, ${bytes} bytes; ${defaultRing().inFlight} requests in flight`);
