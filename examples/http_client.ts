#!/usr/bin/env -S deno run --allow-ffi --allow-net
/**
 * Fetches a page over HTTP and writes its body to standard output, byte for byte:
 * `http_client.ts [-v] [--fail] [--timeout MS] URL`. `-v` shows the head on standard error; `--fail` makes a status of
 * 400 or more an error. Run it with `deno run --allow-ffi --allow-net examples/http_client.ts http://127.0.0.1:8080/`.
 */
import { connect, stdout, timeout } from "../mod.ts";
import { exchange, type Target, targetOf } from "./http/client.ts";
import { ResponseParser } from "./http/parser.ts";

const BUFFER_BYTES = 256 << 10;
const usage = "usage: http_client.ts [-v] [--fail] [--timeout MS] URL";

let verbose = false;
let failing = false;
let timeoutMs = Infinity;
const urls: string[] = [];
const args = [...Deno.args];
for (let arg = args.shift(); arg !== undefined; arg = args.shift()) {
  if (arg === "-v") verbose = true;
  else if (arg === "--fail") failing = true;
  else if (arg === "--timeout") timeoutMs = Number(args.shift() ?? NaN);
  else urls.push(arg);
}
if (urls.length !== 1 || urls[0].startsWith("-") || !(timeoutMs >= 0)) {
  console.error(usage);
  Deno.exit(2);
}

function targetOrUsage(url: string): Target {
  try {
    return targetOf(url);
  } catch (error) {
    console.error(`http_client: ${(error as Error).message}`);
    Deno.exit(2);
  }
}

/** Fetches, and returns the status. */
async function fetchTo(target: Target): Promise<number> {
  await using conn = await connect(target);
  const response = new ResponseParser({ bufferBytes: BUFFER_BYTES });
  return await exchange(conn, response, target.get({ Connection: "close", "User-Agent": "ringscope" }), {
    head() {
      if (failing && response.status >= 400) {
        throw new Error(`The server answered ${response.status} ${response.reason}`.trimEnd());
      }
      if (!verbose) return;
      console.error(`HTTP/1.${response.minorVersion} ${response.status} ${response.reason}`.trimEnd());
      for (const [name, value] of response.fields()) console.error(`${name}: ${value}`);
      console.error();
    },
    data: (bytes) => stdout.writeAll(bytes),
  });
}

const target = targetOrUsage(urls[0]);
try {
  await timeout(timeoutMs, () => fetchTo(target));
} catch (error) {
  if (!(error instanceof Deno.errors.BrokenPipe)) { // whoever reads has seen enough
    if (!(error instanceof Error)) throw error;
    console.error(`http_client: ${error.message}`);
    Deno.exitCode = 1;
  }
}
