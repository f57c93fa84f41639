/** An echo server over Deno.listen: prints its port. */
import { BUFFER_BYTES, serveParent } from "./echo_server.ts";

const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
serveParent(listener.addr.port);

for await (const conn of listener) echo(conn);

async function echo(connection: Deno.TcpConn): Promise<void> {
  using conn = connection;
  const buffer = new Uint8Array(BUFFER_BYTES);
  for (;;) {
    const n = await conn.read(buffer);
    if (n === null) return;
    for (let written = 0; written < n;) written += await conn.write(buffer.subarray(written, n));
  }
}
