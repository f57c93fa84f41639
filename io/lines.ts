/**
 * Lines of text.
 *
 * @module
 */

/** The lines of UTF-8 that comes in chunks, cut anywhere; without their ends (`\n` or `\r\n`). */
export async function* linesOf(chunks: AsyncIterable<Uint8Array>): AsyncIterableIterator<string> {
  const decoder = new TextDecoder("utf-8");
  // The pieces of a line that has not ended, joined once.
  let pieces: string[] = [];
  const finish = (end: string) => {
    const line = pieces.length === 0 ? end : pieces.join("") + end;
    pieces = [];
    return line.endsWith("\r") ? line.slice(0, -1) : line;
  };
  for await (const chunk of chunks) {
    const text = decoder.decode(chunk, { stream: true });
    let start = 0;
    for (let end; (end = text.indexOf("\n", start)) >= 0; start = end + 1) yield finish(text.slice(start, end));
    if (start < text.length) pieces.push(text.slice(start));
  }
  pieces.push(decoder.decode());
  const last = pieces.join("");
  if (last !== "") yield last;
}
