/** The thread of bystander.ts. */
import { ASKED, CAPACITY, Deed, DEED_WORDS, DEEDS, DONE } from "./bystander.ts";

declare const self: {
  onmessage: ((event: MessageEvent<Int32Array>) => void) | null;
  postMessage(message: string): void;
};

const { symbols: libc } = Deno.dlopen("libc.so.6", {
  close: { parameters: ["i32"], result: "i32" },
  connect: { parameters: ["i32", "buffer", "u32"], result: "i32" },
  setsockopt: { parameters: ["i32", "i32", "i32", "buffer", "u32"], result: "i32" },
  socket: { parameters: ["i32", "i32", "i32"], result: "i32" },
  write: { parameters: ["i32", "buffer", "usize"], result: "isize" },
});

const bytes = Uint8Array.from({ length: 512 }, (_, i) => i);

function write(fd: number, first: number, count: number): void {
  if (count === 0) return;
  const written = libc.write(fd, bytes.subarray(first & 255), BigInt(count));
  if (Number(written) !== count) throw new Error(`write took ${written} bytes of ${count}`);
}

function connect(port: number): void {
  const AF_INET = 2;
  const SOCK_STREAM_CLOEXEC = 0o2000001;
  const SOL_SOCKET = 1;
  const SO_LINGER = 13;
  const fd = libc.socket(AF_INET, SOCK_STREAM_CLOEXEC, 0);
  const address = new Uint8Array([AF_INET, 0, port >> 8, port, 127, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]);
  if (libc.connect(fd, address, address.byteLength) < 0) throw new Error("connect failed");
  libc.setsockopt(fd, SOL_SOCKET, SO_LINGER, new Int32Array([1, 0]), 8);
  libc.close(fd);
}

self.onmessage = ({ data: words }) => {
  for (let done = 0;;) {
    // Looks again and again for a while, so that it is quick; the machine may have few processors, so not for long.
    for (let looks = 0; Atomics.load(words, ASKED) === done && looks < 2000;) looks++;
    while (Atomics.load(words, ASKED) === done) Atomics.wait(words, ASKED, done);
    const at = DEEDS + done % CAPACITY * DEED_WORDS;
    const deed: Deed = words[at];
    if (deed === Deed.Write) write(words[at + 1], words[at + 2], words[at + 3]);
    if (deed === Deed.Connect) connect(words[at + 1]);
    Atomics.store(words, DONE, ++done);
    if (deed === Deed.End) break;
  }
  self.postMessage("ended");
};
