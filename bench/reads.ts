/**
 * 4 KiB reads of a file that is in the page cache: what an asynchronous read costs apart from any device. All peers
 * read the same blocks of such a file in the same order.
 *
 * @module
 */
import * as fs from "node:fs";
import { type File, open } from "../mod.ts";
import type { Benchmark, Contender, Peer } from "./benchmark.ts";

const BLOCK_BYTES = 4096;
/** 16 MiB: more than the CPU's nearer caches hold, less than any machine's page cache. */
const BLOCKS = 4096;
const CONCURRENCY = 32;

/**
 * Reads the blocks of one turn, one in each lane, and resolves to the bytes read. Lanes are equal parts of the file, so
 * that 32 at a time are 32 sequential readers: peers that cannot say where to read need no seek.
 */
type ReadTurn = (turn: number) => Promise<number>;

/** Reads a block at an offset in bytes. */
type ReadAt = (p: Uint8Array<ArrayBuffer>, offset: number) => Promise<number | null>;

function turnsOf(lanes: number): number {
  return BLOCKS / lanes;
}

function offsetOf(lane: number, lanes: number, turn: number): number {
  return (lane * turnsOf(lanes) + turn) * BLOCK_BYTES;
}

function buffersFor(lanes: number): Uint8Array<ArrayBuffer>[] {
  return Array.from({ length: lanes }, () => new Uint8Array(BLOCK_BYTES));
}

/** A file whose blocks each begin with their own number, gone again when disposed of. */
async function makeFile(): Promise<{ path: string } & AsyncDisposable> {
  const path = await Deno.makeTempFile({ prefix: "ringscope_bench_" });
  const content = new Uint8Array(BLOCKS * BLOCK_BYTES);
  const view = new DataView(content.buffer);
  for (let block = 0; block < BLOCKS; block++) view.setUint32(block * BLOCK_BYTES, block, true);
  await Deno.writeFile(path, content);
  return { path, [Symbol.asyncDispose]: () => Deno.remove(path) };
}

function contender(stack: AsyncDisposableStack, into: Uint8Array<ArrayBuffer>[], readTurn: ReadTurn): Contender {
  const owned = stack.move();
  const lanes = into.length;
  return {
    async sample(seconds) {
      const started = performance.now();
      let reads = 0;
      let elapsed_ms = 0;
      do {
        // One pass over the file between looks at the clock.
        for (let turn = 0; turn < turnsOf(lanes); turn++) {
          const bytes = await readTurn(turn);
          if (bytes !== lanes * BLOCK_BYTES) throw new Error(`Read ${bytes} bytes in turn ${turn}`);
        }
        reads += BLOCKS;
        elapsed_ms = performance.now() - started;
      } while (elapsed_ms < seconds * 1000);
      verify(into);
      return reads / elapsed_ms * 1000;
    },
    [Symbol.asyncDispose]: () => owned.disposeAsync(),
  };
}

/** After a pass the buffers hold the last block of each lane. */
function verify(into: Uint8Array<ArrayBuffer>[]): void {
  for (const [lane, buffer] of into.entries()) {
    const block = new DataView(buffer.buffer).getUint32(0, true);
    const expected = (lane + 1) * turnsOf(into.length) - 1;
    if (block !== expected) throw new Error(`Read block ${block}, not ${expected}`);
  }
}

function total(counts: (number | null)[]): number {
  return counts.reduce<number>((sum, bytes) => sum + (bytes ?? 0), 0);
}

/** A peer that says with each read where to read. */
function positionalPeer(
  name: string,
  lanes: number,
  openReader: (path: string, stack: AsyncDisposableStack) => Promise<ReadAt>,
): Peer {
  return {
    name,
    async open() {
      await using stack = new AsyncDisposableStack();
      const { path } = stack.use(await makeFile());
      const readAt = await openReader(path, stack);
      const into = buffersFor(lanes);
      const readTurn: ReadTurn = lanes === 1
        ? async (turn) => await readAt(into[0], turn * BLOCK_BYTES) ?? 0
        : async (turn) => total(await Promise.all(into.map((p, lane) => readAt(p, offsetOf(lane, lanes, turn)))));
      return contender(stack, into, readTurn);
    },
  };
}

function ringscopePeer(lanes: number): Peer {
  return positionalPeer("ringscope File.readAt", lanes, async (path, stack) => {
    const file: File = stack.use(await open(path, { read: true }));
    return (p, offset) => file.readAt(p, offset);
  });
}

function nodePromisesPeer(lanes: number): Peer {
  return positionalPeer("node:fs FileHandle.read", lanes, async (path, stack) => {
    const handle = await fs.promises.open(path);
    stack.defer(() => handle.close());
    return async (p, offset) => (await handle.read(p, 0, BLOCK_BYTES, offset)).bytesRead;
  });
}

/** Callbacks alone, with one promise for a whole turn: the least that `node:fs` can cost. */
function nodeCallbackPeer(lanes: number): Peer {
  return {
    name: "node:fs fs.read (callback)",
    async open() {
      await using stack = new AsyncDisposableStack();
      const { path } = stack.use(await makeFile());
      const fd = fs.openSync(path, "r");
      stack.defer(() => fs.closeSync(fd));
      const into = buffersFor(lanes);
      const readTurn: ReadTurn = (turn) =>
        new Promise((resolve, reject) => {
          let bytes = 0;
          let left = lanes;
          const done = (error: Error | null, bytesRead: number) => {
            if (error) return reject(error);
            bytes += bytesRead;
            if (--left === 0) resolve(bytes);
          };
          for (let lane = 0; lane < lanes; lane++) {
            fs.read(fd, into[lane], 0, BLOCK_BYTES, offsetOf(lane, lanes, turn), done);
          }
        });
      return contender(stack, into, readTurn);
    },
  };
}

/**
 * `Deno.FsFile` reads on from where it is, and the reads of one file wait for each other: each lane has a file of its
 * own, which is the best that can be done with it.
 */
function denoPeer(lanes: number): Peer {
  return {
    name: lanes === 1 ? "Deno.FsFile.read" : `Deno.FsFile.read, ${lanes} files`,
    async open() {
      await using stack = new AsyncDisposableStack();
      const { path } = stack.use(await makeFile());
      const files: Deno.FsFile[] = [];
      for (let lane = 0; lane < lanes; lane++) files.push(stack.use(await Deno.open(path)));
      const into = buffersFor(lanes);
      const readTurn: ReadTurn = async (turn) => {
        if (turn === 0) files.forEach((file, lane) => file.seekSync(offsetOf(lane, lanes, 0), Deno.SeekMode.Start));
        if (lanes === 1) return await files[0].read(into[0]) ?? 0;
        return total(await Promise.all(files.map((file, lane) => file.read(into[lane]))));
      };
      return contender(stack, into, readTurn);
    },
  };
}

/** No contest, but a measure: what the system call costs when the thread may block in it. */
function denoSyncPeer(): Peer {
  return {
    name: "Deno.FsFile.readSync (blocks)",
    async open() {
      await using stack = new AsyncDisposableStack();
      const { path } = stack.use(await makeFile());
      const file = stack.use(await Deno.open(path));
      const into = buffersFor(1);
      return contender(stack, into, (turn) => {
        if (turn === 0) file.seekSync(0, Deno.SeekMode.Start);
        return Promise.resolve(file.readSync(into[0]) ?? 0);
      });
    },
  };
}

/** One read at a time, and 32. */
export const benchmarks: Benchmark[] = [
  {
    name: "read",
    title: "4 KiB cached reads, one by one",
    unit: "reads",
    sampleSeconds: 0.3,
    peers: [ringscopePeer(1), denoPeer(1), nodePromisesPeer(1), nodeCallbackPeer(1), denoSyncPeer()],
  },
  {
    name: "read32",
    title: `4 KiB cached reads, ${CONCURRENCY} at a time`,
    unit: "reads",
    sampleSeconds: 0.3,
    peers: [
      ringscopePeer(CONCURRENCY),
      denoPeer(CONCURRENCY),
      nodePromisesPeer(CONCURRENCY),
      nodeCallbackPeer(CONCURRENCY),
    ],
  },
];
