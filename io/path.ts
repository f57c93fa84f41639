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

/** A path as a request names it. */
export function pathOperand(path: string, word: OperandWord = OperandWord.Address): Operand {
  const input = encoder.encode(path + "\0");
  return { word, bytes: input.byteLength, input };
}
