/** An echo server over ringscope: prints its port. */
import { type Conn, listen, scope } from "../mod.ts";
import { BUFFER_BYTES, serveParent } from "./echo_server.ts";

await using listener = await listen({ hostname: "127.0.0.1", port: 0 });
serveParent(listener.addr.port);

await scope(async (s) => {
  for await (const conn of listener) s.spawn(() => echo(conn));
});

async function echo(connection: Conn): Promise<void> {
  await using conn = connection;
  const buffer = new Uint8Array(BUFFER_BYTES);
  for (;;) {
    const n = await conn.read(buffer);
    if (n === null) return;
    await conn.writeAll(buffer.subarray(0, n));
  }
}
