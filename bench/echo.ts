/**
 * Connections, 64 and 1,024, that echo 64 bytes: each server is a process of its own on a loopback port, loaded by the client in
 * `echo_client.c`, one server at a time.
 *
 * @module
 */
import type { Benchmark, Contender, Peer } from "./benchmark.ts";

const HOST = "127.0.0.1";
const CONNECTIONS = [64, 1024];
const MESSAGE_BYTES = 64;
const WARMUP_SECONDS = 0.1;
/** After its standard input has ended, a server has this long before it is killed. */
const GRACE_MS = 2000;

const clientPath = new URL("./build/echo_client", import.meta.url);

/** What the client prints. */
interface Load {
  seconds: number;
  roundTripsPerSecond: number;
  cpuSeconds: number;
}

/** A client this busy (1: all the time) cannot ask for more: what it measures is itself. */
const BUSY = 0.95;
/** Such a sample is taken again, so often at the most. */
const RETRIES = 3;

async function load(port: number, connections: number, seconds: number): Promise<Load> {
  const args = [HOST, port, connections, MESSAGE_BYTES, seconds, WARMUP_SECONDS].map(String);
  const { success, stdout, stderr } = await new Deno.Command(clientPath, { args }).output();
  if (!success) throw new Error(`echo_client failed: ${new TextDecoder().decode(stderr)}`);
  return JSON.parse(new TextDecoder().decode(stdout));
}

function serverPeer(connections: number, name: string, program: string): Peer {
  return {
    name,
    async open(): Promise<Contender> {
      const child = new Deno.Command(Deno.execPath(), {
        args: ["run", "-A", new URL(program, import.meta.url).pathname],
        stdin: "piped",
        stdout: "piped",
      }).spawn();
      const port = await firstNumber(child.stdout);
      let busySamples = 0;
      let retries = 0;
      return {
        async sample(seconds) {
          for (let tries = 0;; tries++) {
            const result = await load(port, connections, seconds);
            const busy = result.cpuSeconds > BUSY * result.seconds;
            if (!busy || tries === RETRIES) {
              if (busy) busySamples++;
              return result.roundTripsPerSecond;
            }
            retries++;
          }
        },
        get remark() {
          if (retries === 0) return undefined;
          return `the client was the limit in ${busySamples} samples, and in ${retries} that were taken again`;
        },
        async [Symbol.asyncDispose]() {
          const killer = setTimeout(() => child.kill("SIGKILL"), GRACE_MS);
          await child.stdin.close();
          await child.status;
          clearTimeout(killer);
        },
      };
    },
  };
}

/** The server's first line is its port. */
async function firstNumber(output: ReadableStream<Uint8Array>): Promise<number> {
  let text = "";
  for await (const chunk of output.pipeThrough(new TextDecoderStream())) {
    text += chunk;
    if (text.includes("\n")) break;
  }
  const port = parseInt(text);
  if (!(port > 0)) throw new Error(`A server did not say its port but "${text}"`);
  return port;
}

/** Echo over TCP. */
export const benchmarks: Benchmark[] = CONNECTIONS.map((connections) => ({
  name: connections === 64 ? "echo" : `echo${connections}`,
  title: `Echo of ${MESSAGE_BYTES} bytes over ${connections.toLocaleString("en")} connections`,
  unit: "round trips",
  sampleSeconds: 0.1,
  peers: [
    serverPeer(connections, "ringscope listen", "./echo_ringscope.ts"),
    serverPeer(connections, "Deno.listen", "./echo_deno.ts"),
    serverPeer(connections, "node:net", "./echo_node.ts"),
  ],
}));
