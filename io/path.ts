/**
 * Paths as requests take them.
 *
 * @module
 */
import { type Operand, OperandWord } from "../ring/operations.ts";

/** The path of a string or a `file:` URL. */
export function toPath(path: string | URL): string {
  if (typeof path === "string") {
    if (path.includes("\0")) throw new TypeError("A path can't contain NUL");
    return path;
  }
  if (!(path instanceof URL)) throw new TypeError("A path must be a string or a URL");
  if (path.protocol !== "file:") throw new TypeError(`A path's URL must be a file: URL, not ${path.protocol}`);
  if (path.host !== "") throw new TypeError(`A path's URL can't have a host: ${path.host}`);
  if (/%2f|%00/i.test(path.pathname)) throw new TypeError("A path's URL can't contain an encoded / or NUL");
  return decodeURIComponent(path.pathname);
}

const encoder = new TextEncoder();

/** A path as a request names it: text, or the bytes of a name with NUL behind them, which need not be UTF-8. */
export function pathOperand(path: string | Uint8Array, word: OperandWord = OperandWord.Address): Operand {
  const input = typeof path === "string" ? encoder.encode(path + "\0") : path;
  return { word, bytes: input.byteLength, input };
}
