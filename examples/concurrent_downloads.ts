#!/usr/bin/env -S deno run --allow-ffi --allow-net --allow-read --allow-write
/**
 * Downloads many resources at once, each over a connection of its own into a file of its own:
 * `concurrent_downloads.ts [URL...]`. Without URLs it serves 100 to itself. All connects go to the kernel in one
 * submission, and so do all requests. The files are in a temporary directory, which is removed again, Ctrl-C included.
 * Run it with `deno run --allow-ffi --allow-net --allow-read --allow-write examples/concurrent_downloads.ts`.
 */
import { all, type Conn, connect, defaultRing, type File, listen, open, type Scope, scope, stat } from "../mod.ts";
import { exchange, type Target, targetOf } from "./http/client.ts";
import { RequestParser, ResponseParser, Step } from "./http/parser.ts";

const RESOURCES = 100;
const BUFFER_BYTES = 64 << 10;
/** How long a server may be silent. */
const PATIENCE_MS = 30_000;
/** How often the progress on a terminal is shown. */
const PROGRESS_MS = 50;

// --- A server to download from ---

/** The size of the resource `/i`: from 10 kB to almost 1 MB, no two alike. */
function sizeOf(i: number): number {
  return 10_000 + i * 9_876;
}

/** Serves the resources in the background of a scope; returns their URLs. */
async function serveResources(s: Scope): Promise<string[]> {
  const listener = await listen({ hostname: "127.0.0.1", port: 0 });
  s.defer(() => listener.close());
  s.spawn(async () => {
    for await (const conn of listener) s.spawn(() => serve(conn), { background: true });
  }, { background: true });
  return Array.from({ length: RESOURCES }, (_, i) => `http://127.0.0.1:${listener.addr.port}/${i}`);
}

async function serve(accepted: Conn): Promise<void> {
  await using conn = accepted;
  const parser = new RequestParser();
  const block = new Uint8Array(BUFFER_BYTES).fill(0x61);
  for (let n = await conn.read(parser.room()); n !== null; n = await conn.read(parser.room())) {
    parser.filled(n);
    for (let step = parser.step(); step !== Step.More; step = parser.step()) {
      if (step !== Step.End) continue;
      const size = sizeOf(Number(parser.path.slice(1)));
      await conn.writeAll(new TextEncoder().encode(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`));
      for (let sent = 0; sent < size; sent += block.length) await conn.writeAll(block.subarray(0, size - sent));
    }
  }
}

// --- The downloads ---

/** One download: where from, where to, and what has become of it. */
interface Download {
  url: string;
  path: string;
  target: Target;
  bytes: number;
  error: Error | null;
}

/** Tells how far the downloads are: in one line on a terminal, else in a few. */
class Progress {
  readonly #terminal = Deno.stdout.isTerminal();
  readonly #count: number;
  #ended = 0;
  #bytes = 0;
  #shown = 0;

  constructor(count: number) {
    this.#count = count;
  }

  add(bytes: number): void {
    this.#bytes += bytes;
    if (!this.#terminal || performance.now() - this.#shown < PROGRESS_MS) return;
    this.#shown = performance.now();
    this.#show("");
  }

  end(): void {
    this.#ended++;
    const last = this.#ended === this.#count;
    if (this.#terminal) this.#show(last ? "\n" : "");
    else if (last || this.#ended % Math.ceil(this.#count / 4) === 0) this.#show("\n");
  }

  #show(end: string): void {
    const line = `${this.#ended} of ${this.#count} ended, ${(this.#bytes / 1e6).toFixed(1)} MB`;
    if (this.#terminal) Deno.stdout.writeSync(new TextEncoder().encode(`\r\x1b[K${line}${end}`));
    else console.log(line); // does not mind when nobody reads any more
  }
}

/** Runs one function for each download, all at once; one that fails concerns its own download only. */
async function each<T>(s: Scope, downloads: Download[], fn: (download: Download, i: number) => Promise<T>) {
  return await all(downloads.map((download, i) => async () => {
    try {
      return await fn(download, i);
    } catch (error) {
      if (s.cancelled || !(error instanceof Error) || error instanceof Deno.errors.NotCapable) throw error;
      download.error = error;
      return null;
    }
  }));
}

/** Fetches into a file, and checks that all has come that was announced. */
async function fetchTo(conn: Conn, file: File, download: Download, progress: Progress): Promise<void> {
  const response = new ResponseParser({ bufferBytes: BUFFER_BYTES });
  let announced = -1;
  const receiver = {
    head() {
      if (response.status !== 200) throw new Error(`The server answered ${response.status} ${response.reason}`);
      announced = response.contentLength;
    },
    async data(bytes: Uint8Array) {
      await file.writeAll(bytes);
      download.bytes += bytes.length;
      progress.add(bytes.length);
    },
  };
  await exchange(conn, response, download.target.get({ Connection: "close" }), receiver, { timeout: PATIENCE_MS });
  const { size } = await stat(download.path);
  const expected = announced < 0 ? download.bytes : announced;
  if (size !== expected) throw new Error(`${size} bytes in the file, not ${expected}`);
}

async function downloadAll(s: Scope, urls: readonly string[], directory: string): Promise<Download[]> {
  const ring = defaultRing();
  const downloads = urls.map((url, i): Download => (
    { url, path: `${directory}/${i}`, target: targetOf(url), bytes: 0, error: null }
  ));
  const files = await each(s, downloads, ({ path }) => open(path, { write: true, createNew: true }));
  for (const file of files) s.defer(() => file?.close());

  const started = performance.now();
  const conns = await each(s, downloads, ({ target }) => connect({ ...target, timeout: PATIENCE_MS }));
  for (const conn of conns) s.defer(() => conn?.close());
  const made = conns.filter((conn) => conn !== null).length;
  console.log(`${made} of ${urls.length} connections made at once, in ${(performance.now() - started).toFixed(1)} ms`);

  const progress = new Progress(urls.length);
  // What has gone to the kernel by the time it reports the first completion, and in how many system calls.
  const { enters, inFlight } = ring;
  let queued = 0;
  ring.onCompletion = () => {
    ring.onCompletion = null;
    const calls = ring.enters - enters;
    console.log(`${queued} requests went to the kernel together, by ${calls} system ${calls === 1 ? "call" : "calls"}`);
  };
  const ended = each(s, downloads, async (download, i) => {
    try {
      const conn = conns[i];
      const file = files[i];
      if (conn !== null && file !== null) await fetchTo(conn, file, download, progress);
    } finally {
      progress.end();
    }
  });
  queued = ring.inFlight - inFlight; // nothing has been awaited since
  await ended;
  return downloads;
}

try {
  for (const url of Deno.args) targetOf(url);
} catch (error) {
  console.error(`concurrent_downloads: ${(error as Error).message}`);
  Deno.exit(2);
}
const interrupted = new Error("Interrupted");
try {
  await scope(async (s) => {
    const interrupt = () => s.cancel(interrupted);
    Deno.addSignalListener("SIGINT", interrupt);
    s.defer(() => Deno.removeSignalListener("SIGINT", interrupt));
    const directory = await Deno.makeTempDir({ prefix: "downloads-" });
    s.defer(async () => {
      await Deno.remove(directory, { recursive: true });
      console.log(`Removed ${directory}`);
    });

    const urls = Deno.args.length > 0 ? Deno.args : await serveResources(s);
    console.log(`Downloading ${urls.length} resources into ${directory}`);
    const started = performance.now();
    const downloads = await downloadAll(s, urls, directory);
    const seconds = (performance.now() - started) / 1000;

    const failed = downloads.filter(({ error }) => error !== null);
    for (const { url, error } of failed) console.error(`${url}: ${error!.message}`);
    if (failed.length > 0) Deno.exitCode = 1;
    const bytes = downloads.reduce((sum, { bytes }) => sum + bytes, 0);
    console.log(
      `${urls.length - failed.length} downloaded, ${failed.length} failed: ${bytes} bytes in ${
        seconds.toFixed(2)
      } s, ` +
        `${Math.round(bytes / seconds / 1e6)} MB/s; the lengths are those announced`,
    );
  });
} catch (error) {
  if (error !== interrupted) throw error;
  Deno.exitCode = 130; // as a shell reports an end by Ctrl-C
}
console.log(`${defaultRing().inFlight} requests in flight`);
