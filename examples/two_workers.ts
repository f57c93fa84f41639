#!/usr/bin/env -S deno run --allow-ffi --allow-net=127.0.0.1 --allow-read
/**
 * A server on two threads: each worker has a ring of its own and listens on the same port (`reusePort`), and the kernel
 * spreads the connections over them. `two_workers.ts [CONNECTIONS]` dials that often (default 200) and tells which
 * worker answered. Run it with `deno run --allow-ffi --allow-net=127.0.0.1 --allow-read examples/two_workers.ts`.
 */
import { all, type Conn, connect, defaultRing, listen, type Listener, scope } from "../mod.ts";

const hostname = "127.0.0.1";
const encoder = new TextEncoder();

/** Says its name to everyone, until it is told to stop. */
async function serve(name: string, listener: Listener): Promise<void> {
  async function answer(client: Conn): Promise<void> {
    await using conn = client;
    await conn.writeAll(encoder.encode(name));
  }
  await scope(async (s) => {
    for await (const conn of listener) s.spawn(() => answer(conn));
  });
}

async function work(): Promise<void> {
  const { promise: told, resolve } = Promise.withResolvers<{ name: string; port: number }>();
  const { promise: stopped, resolve: stop } = Promise.withResolvers<void>();
  const self = globalThis as unknown as {
    onmessage: (event: MessageEvent) => void;
    postMessage(message: unknown): void;
    close(): void;
  };
  self.onmessage = ({ data }) => data === "stop" ? stop() : resolve(data);
  const { name, port } = await told;
  const listener = await listen({ hostname, port, reusePort: true });
  self.postMessage("ready");
  const closed = stopped.then(() => listener.close()); // which ends the iteration over it
  await serve(name, listener);
  await closed;
  self.postMessage(defaultRing().inFlight);
  self.close();
}

async function main(connections: number): Promise<void> {
  await using first = await listen({ hostname, port: 0, reusePort: true }); // holds the port, and stops listening below
  const { port } = first.addr;
  const message = (worker: Worker) => new Promise((resolve) => worker.onmessage = ({ data }) => resolve(data));
  const workers = await Promise.all(["one", "two"].map(async (name) => {
    const worker = new Worker(import.meta.url, { type: "module" });
    worker.postMessage({ name, port });
    await message(worker);
    return worker;
  }));
  await first.close();

  async function dial(): Promise<string> {
    await using conn = await connect({ hostname, port });
    return new TextDecoder().decode(await conn.readAll());
  }
  const answers = await all(Array<typeof dial>(connections).fill(dial), { concurrency: 32 });
  for (const name of ["one", "two"]) {
    console.log(`Worker ${name} answered ${answers.filter((answer) => answer === name).length} of ${connections}`);
  }
  for (const worker of workers) {
    const left = message(worker);
    worker.postMessage("stop");
    console.log(`${await left} requests in flight`);
  }
}

if ("WorkerGlobalScope" in globalThis) await work();
else await main(Number(Deno.args[0] ?? 200));
