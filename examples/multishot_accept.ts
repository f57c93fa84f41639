#!/usr/bin/env -S deno run --allow-ffi --allow-net=127.0.0.1
/**
 * One request, every connection: the kernel is asked once, and accepts all that come. `multishot_accept.ts
 * [CONNECTIONS]` dials itself that many times (default 500) and tells what the ring saw. Run it with
 * `deno run --allow-ffi --allow-net=127.0.0.1 examples/multishot_accept.ts`.
 */
import { all, connect, defaultRing, listen, Ring } from "../mod.ts";

const connections = Number(Deno.args[0] ?? 500);

await using ring = Ring.open(); // the server's own, so that all that is seen there is the server's
let results = 0;
let mostInFlight = 0;
ring.onCompletion = ({ operation, of }) => {
  if (operation === "accept" && of === "operation") results++;
};

await using listener = await listen({ hostname: "127.0.0.1", port: 0, ring });

async function serve(): Promise<void> {
  let served = 0;
  for await (const conn of listener) { // one IORING_OP_ACCEPT, with IORING_ACCEPT_MULTISHOT
    mostInFlight = Math.max(mostInFlight, ring.inFlight);
    await conn.close();
    if (++served === connections) break; // cancels the request, and waits for it
  }
}

async function dial(): Promise<void> {
  await using conn = await connect({ hostname: "127.0.0.1", port: listener.addr.port });
  await conn.read(new Uint8Array(1)); // null: the server has closed it
}

await all([serve, () => all(Array<typeof dial>(connections).fill(dial), { concurrency: 32 })]);
console.log(`${connections} connections, accepted by a request with ${results} results: the last is its cancel`);
console.log(`At the most ${mostInFlight} request was in flight on the server's ring`);
console.log(`${ring.inFlight + defaultRing().inFlight} requests in flight`);
