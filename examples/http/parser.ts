/**
 * HTTP/1.1 messages (RFC 9112) out of bytes, as they come: a parser does no I/O, looks at each byte of a head twice at
 * the most, keeps its place wherever a packet ends, and decodes text only when it is asked for.
 *
 *     const parser = new RequestParser();
 *     for (let n; (n = await conn.read(parser.room())) !== null;) {
 *       parser.filled(n);
 *       for (let step; (step = parser.step()) !== Step.More;) {
 *         if (step === Step.Head) console.log(parser.method, parser.path);
 *         if (step === Step.Data) console.log(parser.data);
 *         if (step === Step.End) console.log("complete");
 *       }
 *     }
 *
 * It is strict where two readers of one message could disagree on where it ends, for that is how requests are smuggled:
 * lines end with CRLF, a message has one length, and what is not in the grammar is refused.
 *
 * @module
 */

/** A message that is refused; what parser it was can't go on. */
export class HttpError extends Error {
  /** What a server answers before it closes the connection. */
  readonly status: number;

  /** The status to answer with, and what is wrong, for people. */
  constructor(status: number, message: string) {
    super(message);
    this.name = "HttpError";
    this.status = status;
  }
}

/** What a step of a parser has come to. */
export enum Step {
  /** It needs more bytes: `room()`, `filled()`. */
  More,
  /** The head of a message: its fields can be asked for until the message ends. */
  Head,
  /** Some of the body: `data`. */
  Data,
  /** The message is complete. */
  End,
}

/** What a parser does not go beyond. */
export interface Limits {
  /** Bytes of a head, and of the trailers. Default: 8192. */
  headBytes?: number;
  /** Fields of a head, and of the trailers. Default: 100. */
  fields?: number;
  /** Bytes of a body. Default: 1 MiB in requests, no limit in responses. */
  bodyBytes?: number;
  /** Bytes of the buffer, which bound what comes at once. Default, and least: two heads and 4096. */
  bufferBytes?: number;
}

const HTAB = 9;
const LF = 10;
const CR = 13;
const SP = 32;
const COMMA = 44;
const COLON = 58;
const SEMICOLON = 59;

/** The line of a chunk's size, extensions included. */
const CHUNK_LINE_BYTES = 1024;
/** Room is made in the buffer when less than this is left. */
const LEAST_ROOM_BYTES = 4096;

/** Sets of characters, as bits. */
enum Char {
  /** `tchar` of RFC 9110, 5.6.2: methods, names of fields. */
  Token = 1,
  /** Of a field's value: visible, space, tab, and the upper half that nobody is to interpret. */
  Text = 2,
  /** Of a request's target: visible but `#`, since browsers do not encode all that RFC 3986 would have them. */
  Target = 4,
  /** Of a host and port. */
  Host = 8,
}

const characters = new Uint8Array(256);
for (let code = 0; code < 256; code++) {
  const character = String.fromCharCode(code);
  const visible = code > SP && code < 127;
  if (/[\w!#$%&'*+.^`|~-]/.test(character)) characters[code] |= Char.Token;
  if (visible || code === SP || code === HTAB || code >= 128) characters[code] |= Char.Text;
  if (visible && character !== "#") characters[code] |= Char.Target;
  if (/[\w.~!$&'()*+,;=%:[\]-]/.test(character)) characters[code] |= Char.Host;
}

const encoder = new TextEncoder();
const CHUNKED = encoder.encode("chunked");
const CLOSE = encoder.encode("close");
const CONNECTION = encoder.encode("connection");
const CONTENT_LENGTH = encoder.encode("content-length");
const CONTINUE = encoder.encode("100-continue");
const EXPECT = encoder.encode("expect");
const HOST = encoder.encode("host");
const KEEP_ALIVE = encoder.encode("keep-alive");
const TRANSFER_ENCODING = encoder.encode("transfer-encoding");

/** Whether the bytes are this word, whatever the case of their letters; what is no text must have been refused. */
function isWord(bytes: Uint8Array, start: number, end: number, lowerCase: Uint8Array): boolean {
  if (end - start !== lowerCase.length) return false;
  for (let i = 0; i < lowerCase.length; i++) {
    if ((bytes[start + i] | 0x20) !== lowerCase[i]) return false;
  }
  return true;
}

/** Where the parser stands in its message. */
enum State {
  StartLine,
  Fields,
  /** The body, to its known length. */
  Body,
  ChunkSize,
  Chunk,
  ChunkEnd,
  Trailers,
  BodyUntilClose,
  Refused,
}

/** How a message says its body ends. */
enum Framing {
  None,
  Length,
  Chunked,
  UntilClose,
}

/** What requests and responses have in common. */
abstract class Parser {
  readonly #bytes: Uint8Array<ArrayBuffer>;
  readonly #headBytes: number;
  readonly #maxFields: number;
  readonly #maxBodyBytes: number;
  /** The message's head, which stays in the buffer until the message ends. */
  #head = 0;
  #headLength = 0;
  /** What has not been parsed, and how far it has been searched for the end of a line. */
  #start = 0;
  #searched = 0;
  #end = 0;

  #state = State.StartLine;
  #emptyLines = 0;
  /** For each field four positions, counted from the head's first byte: of the name and of the value, start and end. */
  readonly #fields: number[] = [];
  #fieldCount = 0;
  /** Bytes to the end of the body or of the chunk. */
  #remaining = 0;
  #bodyBytes = 0;
  /** Bytes that chunks and trailers took besides the body. */
  #overheadBytes = 0;
  #data = new Uint8Array(0);
  #trailers: [name: string, value: string][] = [];
  #completed = 0;
  #ended = false;

  #contentLength = -1;
  #transferEncodings = 0;
  #chunked = false;
  #close = false;
  #keepAlive = false;
  #untilClose = false;
  protected hosts = 0;
  protected continueExpected = false;
  /** The minor version: 1 for HTTP/1.1. */
  protected minor = 1;

  constructor(limits: Limits, bodyBytes: number) {
    const { headBytes = 8192, fields = 100, bufferBytes = 0 } = limits;
    this.#headBytes = headBytes;
    this.#maxFields = fields;
    this.#maxBodyBytes = limits.bodyBytes ?? bodyBytes;
    this.#bytes = new Uint8Array(Math.max(bufferBytes, 2 * headBytes + LEAST_ROOM_BYTES));
  }

  /** Parses the first line of a message. */
  protected abstract startLine(bytes: Uint8Array, start: number, end: number, head: number): void;
  /** How the body ends, the head being complete; refuses what can't be. */
  protected abstract framing(declared: Framing): Framing;
  /** Whether the head that is complete was only an interim one. */
  protected abstract get interim(): boolean;

  /** Where the next bytes are to be read to. What `data` was is overwritten. */
  room(): Uint8Array<ArrayBuffer> {
    const bytes = this.#bytes;
    if (this.#start === this.#end || bytes.length - this.#end < LEAST_ROOM_BYTES) {
      const inBody = this.#state > State.Fields;
      if (inBody && this.#head > 0) bytes.copyWithin(0, this.#head, this.#head + this.#headLength);
      const from = this.#state === State.Fields ? this.#head : this.#start;
      const to = inBody ? this.#headLength : 0;
      if (from !== to) bytes.copyWithin(to, from, this.#end);
      this.#head = 0;
      this.#start += to - from;
      this.#searched += to - from;
      this.#end += to - from;
    }
    return bytes.subarray(this.#end);
  }

  /** Tells that `n` bytes have been read into the room. */
  filled(n: number): void {
    this.#end += n;
  }

  /** Tells that the other end has finished sending. */
  ended(): void {
    this.#ended = true;
  }

  /** Whether some of a message is there, and its end is not. */
  get midMessage(): boolean {
    return this.#state !== State.StartLine || this.#start < this.#end;
  }

  /** How many messages have been complete. */
  get completed(): number {
    return this.#completed;
  }

  /** After `Step.Data`: those bytes, valid until `room()`. */
  get data(): Uint8Array<ArrayBuffer> {
    return this.#data;
  }

  /** Whether the connection can be used for a further message after this one. */
  get keepAlive(): boolean {
    if (this.#close || this.#untilClose) return false;
    return this.minor > 0 || this.#keepAlive;
  }

  /** Bytes that the body will have; -1 where the head does not say. */
  get contentLength(): number {
    return this.#contentLength;
  }

  /** The value of a field of the head, by its name in lower case; several of that name are joined by commas. */
  field(name: string): string | null {
    let value: string | null = null;
    for (let i = 0; i < this.#fieldCount; i++) {
      const start = this.#fields[4 * i];
      if (this.#fields[4 * i + 1] - start !== name.length || this.#text(4 * i).toLowerCase() !== name) continue;
      value = value === null ? this.#text(4 * i + 2) : `${value}, ${this.#text(4 * i + 2)}`;
    }
    return value;
  }

  /** All fields of the head, as they came. */
  *fields(): Generator<[name: string, value: string]> {
    for (let i = 0; i < this.#fieldCount; i++) yield [this.#text(4 * i), this.#text(4 * i + 2)];
  }

  /** After `Step.End`: the fields behind the last chunk. */
  get trailers(): readonly [name: string, value: string][] {
    return this.#trailers;
  }

  /**
   * Goes on to the next head, piece of a body or end of a message.
   *
   * @throws {HttpError} If the message is refused, or its sender has ended in the middle of it.
   */
  step(): Step {
    try {
      return this.#step();
    } catch (error) {
      this.#state = State.Refused;
      throw error;
    }
  }

  #step(): Step {
    for (;;) {
      switch (this.#state) {
        case State.StartLine:
        case State.Fields:
          if (!this.#readHead()) return this.#more();
          if (!this.interim) return Step.Head;
          this.#complete();
          break;
        case State.Body:
          return this.#remaining > 0 ? this.#takeData() : this.#complete();
        case State.ChunkSize:
          if (!this.#readChunkSize()) return this.#more();
          break;
        case State.Chunk:
          if (this.#remaining > 0) return this.#takeData();
          this.#state = State.ChunkEnd;
          break;
        case State.ChunkEnd:
          if (!this.#readChunkEnd()) return this.#more();
          break;
        case State.Trailers:
          return this.#readTrailers();
        case State.BodyUntilClose:
          if (this.#start === this.#end && this.#ended) return this.#complete();
          this.#remaining = this.#end - this.#start;
          this.#bodyBytes += this.#remaining;
          if (this.#bodyBytes > this.#maxBodyBytes) throw this.#tooLarge();
          return this.#takeData();
        case State.Refused:
          throw new HttpError(400, "What follows a refused message can't be understood");
      }
    }
  }

  #more(): Step {
    if (this.#ended && this.midMessage) throw new HttpError(400, "The connection ended in the middle of a message");
    return Step.More;
  }

  #complete(): Step {
    this.#completed++;
    this.#state = State.StartLine;
    this.#emptyLines = 0;
    return Step.End;
  }

  /** Finds the line that begins at `#start`: the position of its CRLF, or -1 if that has not come. */
  #endOfLine(): number {
    const bytes = this.#bytes;
    const end = this.#end;
    let i = Math.max(this.#searched, this.#start);
    while (i < end && bytes[i] !== LF) i++;
    this.#searched = i;
    if (i === end) return -1;
    if (i === this.#start || bytes[i - 1] !== CR) throw new HttpError(400, "A line does not end with CRLF");
    return i - 1;
  }

  #readHead(): boolean {
    if (this.#state === State.StartLine) {
      this.#head = this.#start;
      const end = this.#endOfLine();
      if (end < 0 || end - this.#start > this.#headBytes) {
        if (this.#searched - this.#start <= this.#headBytes) return false;
        throw new HttpError(414, `The first line is longer than ${this.#headBytes} bytes`);
      }
      if (end === this.#start) {
        if (++this.#emptyLines > 1) throw new HttpError(400, "Empty lines instead of a message");
        this.#start += 2;
        return this.#readHead();
      }
      this.#beginMessage();
      this.startLine(this.#bytes, this.#start, end, this.#head);
      this.#start = end + 2;
      this.#state = State.Fields;
    }
    for (;;) {
      const end = this.#endOfLine();
      if (this.#searched - this.#head > this.#headBytes) {
        throw new HttpError(431, `The head is longer than ${this.#headBytes} bytes`);
      }
      if (end < 0) return false;
      if (end === this.#start) break;
      if (this.#fieldCount === this.#maxFields) throw new HttpError(431, `More than ${this.#maxFields} fields`);
      this.#readField(end);
      this.#recognise(this.#fieldCount - 1);
      this.#start = end + 2;
    }
    this.#start += 2;
    this.#headLength = this.#start - this.#head;
    this.#beginBody();
    return true;
  }

  #beginMessage(): void {
    this.#fieldCount = 0;
    this.#contentLength = -1;
    this.#transferEncodings = 0;
    this.#chunked =
      this.#close =
      this.#keepAlive =
      this.#untilClose =
        false;
    this.#bodyBytes = this.#overheadBytes = 0;
    this.hosts = 0;
    this.continueExpected = false;
    if (this.#trailers.length > 0) this.#trailers = [];
  }

  /** Notes where the name and the value of a field are: `name ":" OWS value OWS`. */
  #readField(end: number): void {
    const bytes = this.#bytes;
    const nameStart = this.#start;
    let i = nameStart;
    while ((characters[bytes[i]] & Char.Token) !== 0) i++;
    if (i === nameStart || bytes[i] !== COLON) {
      const folded = bytes[nameStart] === SP || bytes[nameStart] === HTAB;
      throw new HttpError(400, folded ? "A field is folded over several lines" : "A field's name is malformed");
    }
    const nameEnd = i++;
    while (bytes[i] === SP || bytes[i] === HTAB) i++;
    const valueStart = i;
    while ((characters[bytes[i]] & Char.Text) !== 0) i++;
    if (i !== end) throw new HttpError(400, "A field's value contains a control character");
    while (i > valueStart && (bytes[i - 1] === SP || bytes[i - 1] === HTAB)) i--;
    const at = 4 * this.#fieldCount++;
    this.#fields[at] = nameStart - this.#head;
    this.#fields[at + 1] = nameEnd - this.#head;
    this.#fields[at + 2] = valueStart - this.#head;
    this.#fields[at + 3] = i - this.#head;
  }

  /** Takes note of a field that says where the message ends, or what becomes of the connection. */
  #recognise(field: number): void {
    const bytes = this.#bytes;
    const at = 4 * field;
    const name = this.#head + this.#fields[at];
    const nameEnd = this.#head + this.#fields[at + 1];
    const value = this.#head + this.#fields[at + 2];
    const valueEnd = this.#head + this.#fields[at + 3];
    switch (nameEnd - name) {
      case HOST.length:
        if (isWord(bytes, name, nameEnd, HOST)) {
          this.hosts++;
          checkHost(bytes, value, valueEnd);
        }
        break;
      case EXPECT.length:
        if (isWord(bytes, name, nameEnd, EXPECT)) this.continueExpected = isWord(bytes, value, valueEnd, CONTINUE);
        break;
      case CONNECTION.length:
        if (isWord(bytes, name, nameEnd, CONNECTION)) this.#readConnection(value, valueEnd);
        break;
      case CONTENT_LENGTH.length:
        if (isWord(bytes, name, nameEnd, CONTENT_LENGTH)) this.#readContentLength(value, valueEnd);
        break;
      case TRANSFER_ENCODING.length:
        if (isWord(bytes, name, nameEnd, TRANSFER_ENCODING)) {
          this.#transferEncodings++;
          this.#chunked = isWord(bytes, value, valueEnd, CHUNKED);
        }
        break;
    }
  }

  /** A list of options, of which two concern us. */
  #readConnection(start: number, end: number): void {
    const bytes = this.#bytes;
    while (start < end) {
      let comma = start;
      while (comma < end && bytes[comma] !== COMMA) comma++;
      let wordEnd = comma;
      while (bytes[start] === SP || bytes[start] === HTAB) start++;
      while (wordEnd > start && (bytes[wordEnd - 1] === SP || bytes[wordEnd - 1] === HTAB)) wordEnd--;
      if (isWord(bytes, start, wordEnd, CLOSE)) this.#close = true;
      else if (isWord(bytes, start, wordEnd, KEEP_ALIVE)) this.#keepAlive = true;
      start = comma + 1;
    }
  }

  #readContentLength(start: number, end: number): void {
    let length = start < end ? 0 : NaN;
    for (let i = start; i < end; i++) {
      const digit = this.#bytes[i] - 48;
      length = digit >= 0 && digit <= 9 ? length * 10 + digit : NaN;
    }
    if (!Number.isSafeInteger(length)) throw new HttpError(400, "Content-Length is not a number of bytes");
    if (this.#contentLength >= 0 && this.#contentLength !== length) {
      throw new HttpError(400, "Two different values of Content-Length");
    }
    this.#contentLength = length;
  }

  #beginBody(): void {
    switch (this.framing(this.#declaredFraming())) {
      case Framing.None:
        this.#remaining = 0;
        this.#state = State.Body;
        break;
      case Framing.Length:
        this.#remaining = this.#contentLength;
        this.#state = State.Body;
        break;
      case Framing.Chunked:
        this.#state = State.ChunkSize;
        break;
      case Framing.UntilClose:
        this.#untilClose = true;
        this.#state = State.BodyUntilClose;
        break;
    }
  }

  #declaredFraming(): Framing {
    if (this.#transferEncodings === 0) {
      if (this.#contentLength > this.#maxBodyBytes) throw this.#tooLarge();
      return this.#contentLength < 0 ? Framing.None : Framing.Length;
    }
    if (this.#contentLength >= 0) throw new HttpError(400, "Both Transfer-Encoding and Content-Length");
    if (this.minor === 0) throw new HttpError(400, "Transfer-Encoding in HTTP/1.0");
    if (this.#transferEncodings > 1) throw new HttpError(400, "More than one Transfer-Encoding");
    if (!this.#chunked) throw new HttpError(501, "A Transfer-Encoding other than chunked");
    return Framing.Chunked;
  }

  #tooLarge(): HttpError {
    return new HttpError(413, `The body is larger than ${this.#maxBodyBytes} bytes`);
  }

  #takeData(): Step {
    const n = Math.min(this.#end - this.#start, this.#remaining);
    if (n === 0) return this.#more();
    this.#data = this.#bytes.subarray(this.#start, this.#start + n);
    this.#start += n;
    this.#remaining -= n;
    return Step.Data;
  }

  /** `1*HEXDIG [ extensions ] CRLF` */
  #readChunkSize(): boolean {
    const end = this.#endOfLine();
    if (this.#searched - this.#start > CHUNK_LINE_BYTES) throw new HttpError(400, "A chunk's first line is too long");
    if (end < 0) return false;
    const bytes = this.#bytes;
    let size = 0;
    let i = this.#start;
    for (; i < end; i++) {
      const digit = hexDigit(bytes[i]);
      if (digit < 0) break;
      size = size * 16 + digit;
    }
    if (i === this.#start || !Number.isSafeInteger(size)) throw new HttpError(400, "A chunk's size is malformed");
    this.#overheadBytes += end - i;
    if (i < end) {
      while (bytes[i] === SP || bytes[i] === HTAB) i++;
      if (bytes[i] !== SEMICOLON) throw new HttpError(400, "A chunk's size is malformed");
      while ((characters[bytes[i]] & Char.Text) !== 0) i++;
      if (i !== end) throw new HttpError(400, "A chunk's extension contains a control character");
    }
    this.#bodyBytes += size;
    if (this.#bodyBytes > this.#maxBodyBytes) throw this.#tooLarge();
    if (this.#overheadBytes > this.#headBytes) throw new HttpError(431, "Too many extensions of chunks");
    this.#start = end + 2;
    this.#remaining = size;
    this.#state = size > 0 ? State.Chunk : State.Trailers;
    if (size === 0) this.#overheadBytes = 0;
    return true;
  }

  #readChunkEnd(): boolean {
    const available = this.#end - this.#start;
    if (available > 0 && this.#bytes[this.#start] !== CR || available > 1 && this.#bytes[this.#start + 1] !== LF) {
      throw new HttpError(400, "A chunk is longer than its size");
    }
    if (available < 2) return false;
    this.#start += 2;
    this.#state = State.ChunkSize;
    return true;
  }

  /** Trailers never say anything about framing: that would be too late. */
  #readTrailers(): Step {
    for (;;) {
      const end = this.#endOfLine();
      if (this.#overheadBytes + this.#searched - this.#start > this.#headBytes) {
        throw new HttpError(431, `The trailers are longer than ${this.#headBytes} bytes`);
      }
      if (end < 0) return this.#more();
      const length = end + 2 - this.#start;
      if (length > 2) {
        if (this.#trailers.length === this.#maxFields) {
          throw new HttpError(431, `More than ${this.#maxFields} trailers`);
        }
        this.#readField(end);
        const at = 4 * --this.#fieldCount; // noted behind the head's fields, and not kept there
        this.#trailers.push([this.#text(at), this.#text(at + 2)]);
      }
      this.#start += length;
      this.#overheadBytes += length;
      if (length === 2) return this.#complete();
    }
  }

  /** The text between two noted positions; the upper half as Latin-1, of which no byte is lost. */
  #text(at: number): string {
    return this.textOf(this.#fields[at], this.#fields[at + 1]);
  }

  /** The text between two positions, counted from the head's first byte. */
  protected textOf(start: number, end: number): string {
    return latin1(this.#bytes, this.#head + start, this.#head + end);
  }

  /** `HTTP/1.x`, in all of the range or, in responses, at its start. */
  protected readVersion(bytes: Uint8Array, at: number, end: number): void {
    const digits = end - at === 8 && bytes[at] === 72 && bytes[at + 1] === 84 && bytes[at + 2] === 84 &&
      bytes[at + 3] === 80 && bytes[at + 4] === 47 && bytes[at + 6] === 46;
    const major = bytes[at + 5] - 48;
    const minor = bytes[at + 7] - 48;
    if (!digits || !(major >= 0 && major <= 9 && minor >= 0 && minor <= 9)) {
      throw new HttpError(400, "The first line is not one of HTTP/1.1");
    }
    if (major !== 1) throw new HttpError(505, `HTTP/${major}.${minor} is not spoken here`);
    this.minor = minor;
  }
}

function latin1(bytes: Uint8Array, start: number, end: number): string {
  let text = "";
  for (let i = start; i < end; i++) text += String.fromCharCode(bytes[i]);
  return text;
}

function hexDigit(byte: number): number {
  if (byte >= 48 && byte <= 57) return byte - 48;
  const letter = byte | 0x20;
  return letter >= 97 && letter <= 102 ? letter - 87 : -1;
}

/** A host and perhaps a port, or nothing: RFC 9110, 7.2. */
function checkHost(bytes: Uint8Array, start: number, end: number): void {
  let i = start;
  while (i < end && (characters[bytes[i]] & Char.Host) !== 0) i++;
  if (i < end) throw new HttpError(400, "The host is malformed");
}

/** Requests, one after another, as a server gets them. */
export class RequestParser extends Parser {
  #method = 0;
  #target = 0;
  #targetEnd = 0;
  /** Where the path begins in the target: behind the authority, if it is in absolute form. */
  #path = 0;
  #absolute = false;

  /** Limits that are not given are the defaults. */
  constructor(limits: Limits = {}) {
    super(limits, 1 << 20);
  }

  /** The method, such as "GET". */
  get method(): string {
    return this.textOf(0, this.#method);
  }

  /** The target as it came. */
  get target(): string {
    return this.textOf(this.#target, this.#targetEnd);
  }

  /** The path and the query of the target, from its "/" on; or "*", or what a CONNECT wants to connect to. */
  get path(): string {
    if (this.#path === this.#targetEnd) return "/";
    const path = this.textOf(this.#path, this.#targetEnd);
    return this.#absolute && path.startsWith("?") ? `/${path}` : path;
  }

  /** Whose request it is: the host of the target, if it names one, else of the field. */
  get host(): string {
    if (!this.#absolute) return this.field("host") ?? "";
    const target = this.textOf(this.#target, this.#path);
    return target.slice(target.indexOf("//") + 2);
  }

  /** The minor version of HTTP: 0 or, for 1.1 and all that is compatible with it, more. */
  get minorVersion(): number {
    return this.minor;
  }

  /** Whether the client waits for "100 Continue" before it sends the body. */
  get expectsContinue(): boolean {
    return this.continueExpected && this.minor > 0;
  }

  protected get interim(): boolean {
    return false;
  }

  protected startLine(bytes: Uint8Array, start: number, end: number, head: number): void {
    let i = start;
    while ((characters[bytes[i]] & Char.Token) !== 0) i++;
    const methodEnd = i;
    if (i === start || bytes[i++] !== SP) throw new HttpError(400, "The request line is malformed");
    const target = i;
    while ((characters[bytes[i]] & Char.Target) !== 0) i++;
    if (i === target || bytes[i] !== SP) throw new HttpError(400, "The request line is malformed");
    this.readVersion(bytes, i + 1, end);
    this.#method = methodEnd - head;
    this.#target = this.#path = target - head;
    this.#targetEnd = i - head;
    this.#absolute = false;
    if (bytes[target] !== 0x2f) this.#readOtherForm(bytes, target, i, head);
  }

  /** Any target but a path: absolute, for proxies and all that may be one; `*` of OPTIONS; the authority of CONNECT. */
  #readOtherForm(bytes: Uint8Array, start: number, end: number, head: number): void {
    const target = latin1(bytes, start, end);
    const method = latin1(bytes, head, head + this.#method);
    if (method === "CONNECT") return checkHost(bytes, start, end);
    if (method === "OPTIONS" && target === "*") return;
    const scheme = /^https?:\/\//i.exec(target);
    if (scheme === null) throw new HttpError(400, "The request's target is malformed");
    let i = start + scheme[0].length;
    const authority = i;
    while (i < end && bytes[i] !== 0x2f && bytes[i] !== 0x3f) i++;
    if (i === authority) throw new HttpError(400, "The request's target has no host");
    checkHost(bytes, authority, i);
    this.#absolute = true;
    this.#path = i - head;
  }

  protected framing(declared: Framing): Framing {
    if (this.hosts > 1) throw new HttpError(400, "More than one Host");
    if (this.hosts === 0 && this.minor > 0) throw new HttpError(400, "No Host");
    return declared;
  }
}

/** Responses, one after another, as a client gets them. Interim ones (1xx) are passed over. */
export class ResponseParser extends Parser {
  #status = 0;
  #reason = 0;
  #reasonEnd = 0;
  /** The method of the request: an answer to HEAD has no body, whatever it says. */
  method = "GET";

  /** Limits that are not given are the defaults. */
  constructor(limits: Limits = {}) {
    super(limits, Infinity);
  }

  /** The status code, such as 200. */
  get status(): number {
    return this.#status;
  }

  /** What the server says beside the code, such as "OK". */
  get reason(): string {
    return this.textOf(this.#reason, this.#reasonEnd);
  }

  /** The minor version of HTTP. */
  get minorVersion(): number {
    return this.minor;
  }

  protected get interim(): boolean {
    return this.#status < 200;
  }

  protected startLine(bytes: Uint8Array, start: number, end: number, head: number): void {
    this.readVersion(bytes, start, Math.min(start + 8, end));
    let i = start + 8;
    let status = bytes[i++] === SP ? 0 : NaN;
    for (const last = i + 3; i < last; i++) {
      const digit = bytes[i] - 48;
      status = digit >= 0 && digit <= 9 ? status * 10 + digit : NaN;
    }
    // The space behind the code is there even without a reason, by the book; not every server has read it.
    if (i < end && bytes[i++] !== SP || !(status >= 100)) throw new HttpError(400, "The status line is malformed");
    this.#status = status;
    this.#reason = i - head;
    while ((characters[bytes[i]] & Char.Text) !== 0) i++;
    if (i !== end) throw new HttpError(400, "The status line is malformed");
    this.#reasonEnd = end - head;
  }

  protected framing(declared: Framing): Framing {
    if (this.#status === 101) throw new HttpError(400, "The server switches protocols, and nobody has asked it to");
    if (this.method === "HEAD" || this.#status < 200 || this.#status === 204 || this.#status === 304) {
      return Framing.None;
    }
    return declared === Framing.None ? Framing.UntilClose : declared;
  }
}
