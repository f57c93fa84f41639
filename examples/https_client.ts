#!/usr/bin/env -S deno run --allow-ffi --allow-net
/**
 * Fetches a page over HTTPS, with `node:tls` over a connection of the ring: `https_client.ts [--insecure] [URL]`. The
 * whole exchange has ten seconds, handshake included. Run it with
 * `deno run --allow-ffi --allow-net examples/https_client.ts https://example.com/`.
 */
import tls from "node:tls";
import { connect, timeout, toDuplex } from "../mod.ts";

const insecure = Deno.args[0] === "--insecure"; // for servers that have signed their certificate themselves
const url = new URL(Deno.args.at(insecure ? 1 : 0) ?? "https://example.com/");
const hostname = url.hostname.replace(/^\[|\]$/g, "");

const response = await timeout(10_000, async () => {
  await using conn = await connect({ hostname, port: Number(url.port || 443) });
  const secure = tls.connect({ socket: toDuplex(conn), host: hostname, rejectUnauthorized: !insecure });
  secure.write(`GET ${url.pathname}${url.search} HTTP/1.1\r\nHost: ${url.host}\r\nConnection: close\r\n\r\n`);
  const chunks: BlobPart[] = [];
  for await (const chunk of secure) chunks.push(chunk);
  return await new Blob(chunks).text();
});
console.log(response);
