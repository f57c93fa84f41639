#!/usr/bin/env -S deno run --allow-ffi --allow-net=127.0.0.1 --allow-read
/**
 * A web server for the files of a directory: `file_server.ts DIR [PORT]`. It knows ranges, conditional requests and
 * listings, and nothing outside the directory. However large a file and however slow its reader, a connection holds one
 * buffer of fixed size. Run it with
 * `deno run --allow-ffi --allow-net=127.0.0.1 --allow-read examples/file_server.ts DIR 8080`.
 */
import { type Conn, defaultRing, type File, open, readDir, stat } from "../mod.ts";
import { HttpError, type RequestParser, Step } from "./http/parser.ts";
import { head, leave, patience, portOf, refuse, Requests, serveUntilInterrupted, textResponse } from "./http/server.ts";

const BUFFER_BYTES = 128 << 10;
const encoder = new TextEncoder();
const goOn = encoder.encode("HTTP/1.1 100 Continue\r\n\r\n");

const contentTypes: Record<string, string> = {
  avif: "image/avif",
  css: "text/css; charset=utf-8",
  csv: "text/csv; charset=utf-8",
  gif: "image/gif",
  gz: "application/gzip",
  htm: "text/html; charset=utf-8",
  html: "text/html; charset=utf-8",
  ico: "image/x-icon",
  jpeg: "image/jpeg",
  jpg: "image/jpeg",
  js: "text/javascript; charset=utf-8",
  json: "application/json",
  md: "text/markdown; charset=utf-8",
  mjs: "text/javascript; charset=utf-8",
  mp3: "audio/mpeg",
  mp4: "video/mp4",
  otf: "font/otf",
  pdf: "application/pdf",
  png: "image/png",
  svg: "image/svg+xml",
  tar: "application/x-tar",
  ts: "text/plain; charset=utf-8",
  txt: "text/plain; charset=utf-8",
  wasm: "application/wasm",
  webm: "video/webm",
  webp: "image/webp",
  woff: "font/woff",
  woff2: "font/woff2",
  xml: "application/xml",
  zip: "application/zip",
};

let connections = 0;
let answered = 0;
let bytesSent = 0;

/** What of the directory a request has found. */
interface Found {
  path: string;
  info: Deno.FileInfo;
}

/** The names of a path, decoded; those that would lead elsewhere are refused. */
function namesOf(path: string): string[] {
  let names: string[];
  try {
    names = path.split("/").map(decodeURIComponent);
  } catch {
    throw new HttpError(400, "The path is not percent-encoded UTF-8");
  }
  if (names.some((name) => name.includes("\0"))) throw new HttpError(400, "A path can't contain NUL");
  if (names.includes("..")) throw new HttpError(403, "The path leads out of the directory");
  if (names.some((name) => name.includes("/"))) throw new HttpError(404, "There is no such file");
  return names.filter((name) => name !== "" && name !== ".");
}

/**
 * Finds a file or directory, wherever symbolic links lead, so long as that is inside of the root. Whoever may write there
 * is trusted: a directory that turns into a link behind this look is followed.
 */
async function find(root: string, names: readonly string[]): Promise<Found> {
  try {
    const path = await Deno.realPath([root, ...names].join("/"));
    if (path !== root && !path.startsWith(root.endsWith("/") ? root : `${root}/`)) {
      throw new HttpError(403, "The path leads out of the directory");
    }
    const info = await stat(path);
    if (!info.isFile && !info.isDirectory) throw new HttpError(403, "That is neither a file nor a directory");
    return { path, info };
  } catch (error) {
    throw asHttpError(error);
  }
}

/** What went wrong with a file, as it concerns the client; without paths of ours. */
function asHttpError(error: unknown): unknown {
  if (error instanceof HttpError || !(error instanceof Error)) return error;
  if (error instanceof Deno.errors.PermissionDenied || error instanceof Deno.errors.NotCapable) {
    return new HttpError(403, "The file can't be read");
  }
  switch ((error as { code?: string }).code) {
    case "ENOENT":
    case "ENOTDIR":
    case "ENAMETOOLONG":
    case "ELOOP":
      return new HttpError(404, "There is no such file");
    case undefined:
      return error; // not a file's, but a bug's or a cancellation's
    default:
      console.error(error.message);
      return new HttpError(500, "The file can't be read");
  }
}

/** Answers a GET or HEAD; false if the connection can't be used any more. */
async function answer(conn: Conn, request: RequestParser, root: string, buffer: Uint8Array): Promise<boolean> {
  const [path] = request.path.split("?", 1);
  const names = namesOf(path);
  let found = await find(root, names);
  if (found.info.isDirectory) {
    if (!path.endsWith("/")) return await redirect(conn, request, names);
    const index = await find(root, [...names, "index.html"]).catch((error) => {
      if (error instanceof HttpError && error.status === 404) return null;
      throw error;
    });
    if (index === null || !index.info.isFile) return await list(conn, request, found.path, names);
    found = index;
  } else if (path.endsWith("/")) {
    throw new HttpError(404, "There is no such directory");
  }
  let file: File;
  try {
    file = await open(found.path);
  } catch (error) {
    throw asHttpError(error);
  }
  await using opened = file;
  const info = await opened.stat(); // of what is sent, whatever has that path by now
  const modified = Math.floor((info.mtime?.getTime() ?? 0) / 1000) * 1000;
  const tag = `"${info.size.toString(16)}-${(info.mtime?.getTime() ?? 0).toString(16)}"`;
  const validators = `ETag: ${tag}\r\nLast-Modified: ${new Date(modified).toUTCString()}\r\n`;
  if (!isExpected(request, tag, modified)) throw new HttpError(412, "The file is another one by now");
  if (isUnmodified(request, tag, modified)) {
    await conn.writeAll(encoder.encode(head(304, validators, request)), patience);
    return true;
  }
  const range = rangeOf(request, info.size, tag, modified);
  if (range === null) {
    const fields = `Content-Range: bytes */${info.size}\r\n`;
    await conn.writeAll(textResponse(416, `The file has ${info.size} bytes\n`, request, fields), patience);
    return true;
  }
  const { start, end, partial } = range;
  const extension = /\.([^./]+)$/.exec(found.path)?.[1].toLowerCase() ?? "";
  const fields = `Content-Type: ${contentTypes[extension] ?? "application/octet-stream"}\r\n` +
    `Content-Length: ${end - start}\r\nAccept-Ranges: bytes\r\n${validators}` +
    (partial ? `Content-Range: bytes ${start}-${end - 1}/${info.size}\r\n` : "");
  const headBytes = encoder.encode(head(partial ? 206 : 200, fields, request));
  if (request.method === "HEAD") {
    await conn.writeAll(headBytes, patience);
    return true;
  }
  return await sendFile(conn, headBytes, opened, start, end, buffer);
}

/** Sends bytes of a file behind a head; false if the file turned out to be shorter. */
async function sendFile(
  conn: Conn,
  headBytes: Uint8Array,
  file: File,
  start: number,
  end: number,
  buffer: Uint8Array,
): Promise<boolean> {
  buffer.set(headBytes);
  let filled = headBytes.length;
  for (let position = start; position < end || filled > 0;) {
    while (position < end && filled < buffer.length) {
      const n = await file.readAt(buffer.subarray(filled, filled + end - position), position);
      if (n === null) return false;
      filled += n;
      position += n;
    }
    await conn.writeAll(buffer.subarray(0, filled), patience);
    bytesSent += filled;
    filled = 0;
  }
  return true;
}

/** Whether the file is still the one that the client means: RFC 9110, 13.1.1 and 13.1.4. */
function isExpected(request: RequestParser, tag: string, modified: number): boolean {
  const tags = request.field("if-match");
  if (tags !== null) return tags.split(",").some((candidate) => ["*", tag].includes(candidate.trim()));
  const since = request.field("if-unmodified-since");
  return since === null || !(modified > Date.parse(since)); // what is no date compares false
}

/** Whether the client has what it asks for: RFC 9110, 13.1.2 and 13.1.3. */
function isUnmodified(request: RequestParser, tag: string, modified: number): boolean {
  const tags = request.field("if-none-match");
  if (tags !== null) {
    return tags.split(",").some((candidate) => ["*", tag].includes(candidate.trim().replace(/^W\//, "")));
  }
  const since = request.field("if-modified-since");
  return since !== null && modified <= Date.parse(since); // what is no date compares false
}

/** What of a file is asked for: all of it unless there is one range that can be read; `null` if that has no bytes. */
function rangeOf(
  request: RequestParser,
  size: number,
  tag: string,
  modified: number,
): { start: number; end: number; partial: boolean } | null {
  const whole = { start: 0, end: size, partial: false };
  const match = /^bytes=[ \t]*(\d*)-(\d*)[ \t]*$/i.exec(request.field("range") ?? "");
  if (match === null || request.method !== "GET") return whole;
  const condition = request.field("if-range");
  if (condition !== null && condition !== tag && Date.parse(condition) !== modified) return whole;
  const [, first, last] = match;
  if (first === "" && last === "" || first !== "" && last !== "" && Number(first) > Number(last)) return whole;
  const start = first === "" ? Math.max(0, size - Number(last)) : Number(first);
  const end = first === "" || last === "" ? size : Math.min(size, Number(last) + 1);
  return start < end ? { start, end, partial: true } : null;
}

/** Sends a client to the directory's own path, so that relative links of the page there lead into it. */
async function redirect(conn: Conn, request: RequestParser, names: readonly string[]): Promise<boolean> {
  // Made from the names: behind two slashes a client would look for another host.
  const query = request.path.includes("?") ? request.path.slice(request.path.indexOf("?")) : "";
  const location = `/${names.map((name) => `${encodeURIComponent(name)}/`).join("")}${query}`;
  await conn.writeAll(textResponse(301, `${location}\n`, request, `Location: ${location}\r\n`), patience);
  return true;
}

/** Sends the names in a directory, as a page. */
async function list(
  conn: Conn,
  request: RequestParser,
  path: string,
  names: readonly string[],
): Promise<boolean> {
  const entries: string[] = names.length > 0 ? ["../"] : [];
  try {
    for await (const { name, isDirectory } of readDir(path)) entries.push(isDirectory ? `${name}/` : name);
  } catch (error) {
    throw asHttpError(error);
  }
  const title = escapeHtml(`/${names.map((name) => `${name}/`).join("")}`);
  const items = entries.sort().map((name) => {
    const link = name.endsWith("/") ? `${encodeURIComponent(name.slice(0, -1))}/` : encodeURIComponent(name);
    return `<li><a href="${link}">${escapeHtml(name)}</a></li>\n`;
  });
  const page = `<!DOCTYPE html>\n<meta charset="utf-8">\n<title>${title}</title>\n<h1>${title}</h1>\n` +
    `<ul>\n${items.join("")}</ul>\n`;
  await conn.writeAll(textResponse(200, page, request, "Content-Type: text/html; charset=utf-8\r\n"), patience);
  return true;
}

function escapeHtml(text: string): string {
  const entities: Record<string, string> = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;", "'": "&#39;" };
  return text.replace(/[&<>"']/g, (character) => entities[character]);
}

async function serve(conn: Conn, root: string): Promise<void> {
  connections++;
  const requests = new Requests(conn);
  const { parser } = requests;
  const buffer = new Uint8Array(BUFFER_BYTES);
  try {
    while (await requests.more()) {
      for (let step = parser.step(); step !== Step.More; step = parser.step()) {
        if (step === Step.Head && parser.expectsContinue) await conn.writeAll(goOn, patience);
        if (step !== Step.End) continue; // nobody wants the body
        answered++;
        if (!await respond(conn, parser, root, buffer)) return;
        if (!parser.keepAlive) return await leave(conn);
      }
    }
  } catch (error) {
    await refuse(conn, error);
  }
}

/** Answers any request; false if the connection can't be used any more. */
async function respond(conn: Conn, request: RequestParser, root: string, buffer: Uint8Array): Promise<boolean> {
  if (request.method !== "GET" && request.method !== "HEAD") {
    const text = `${request.method} is not for files\n`;
    await conn.writeAll(textResponse(405, text, request, "Allow: GET, HEAD\r\n"), patience);
    return true;
  }
  try {
    return await answer(conn, request, root, buffer);
  } catch (error) {
    if (!(error instanceof HttpError)) throw error;
    await conn.writeAll(textResponse(error.status, `${error.message}\n`, request), patience);
    return true;
  }
}

async function isDirectory(path: string): Promise<boolean> {
  try {
    return (await stat(path)).isDirectory;
  } catch (error) {
    if (error instanceof Error && "errno" in error) return false; // such as that there is nothing
    throw error;
  }
}

const [directory, port] = Deno.args;
if (directory === undefined) {
  console.error("usage: file_server.ts DIR [PORT]");
  Deno.exit(2);
}
const root = await Deno.realPath(directory).catch(() => directory);
if (!await isDirectory(root)) {
  console.error(`Not a directory: ${directory}`);
  Deno.exit(1);
}
await serveUntilInterrupted(portOf(port), (conn) => serve(conn, root));
console.log(`Answered ${answered} requests over ${connections} connections; sent ${bytesSent} bytes of files`);
console.log(`${defaultRing().inFlight} requests in flight`);
