/**
 * 100,000 reads, completed and cancelled, into buffers of every kind, while garbage is collected again and again. Around
 * each target lie canaries; what is read must be the stream's bytes in order. Run with --v8-flags=--expose-gc; takes the
 * options of the ring (JSON) and the number of reads, and prints a JSON object at the end.
 */
import { Ring, socketpair } from "../../mod.ts";
import * as libc from "./libc.ts";
import { Random } from "./random.ts";
import { turns } from "./until.ts";

const [options, reads] = Deno.args;
const CANARY = 0xc5;
const STREAMS = 32;
/** Targets that stay after their read, so that a late or misplaced write would hit one: checked to the end. */
const KEPT = 2000;

declare const gc: (options?: { type?: "minor" | "major" }) => void;

/** A program that runs without this project's configuration knows no `@std/assert`. */
function assert(expression: unknown, message: string): asserts expression {
  if (!expression) throw new Error(message);
}

const random = new Random(Number(reads));
const tally = { values: 0, aborted: 0, undelivered: 0, collected: 0 };
/** Bytes whose contents are settled: a snapshot beside the live ones. */
const kept: { live: Uint8Array; snapshot: Uint8Array }[] = [];

function keep(live: Uint8Array): void {
  if (live.byteLength === 0) return; // detached, or out of bounds
  const entry = { live, snapshot: live.slice() };
  if (kept.length < KEPT) kept.push(entry);
  else kept[random.below(KEPT)] = entry;
}

function checkKept(): void {
  for (const { live, snapshot } of kept) {
    for (let i = 0; i < snapshot.byteLength; i++) assert(live[i] === snapshot[i], "a settled buffer has changed");
  }
}

/** A target of some kind, and how to take its memory away while a read is in flight, where that is possible. */
interface Target {
  view: Uint8Array;
  /** All of the memory; asked for only afterwards, because asking moves what lies on the heap out of it. */
  whole: () => Uint8Array;
  /** Takes memory away; returns the bytes that the view can still take. */
  disturb?: () => number;
}

function undisturbed(view: Uint8Array): Target {
  return { view, whole: () => new Uint8Array(view.buffer) };
}

const { port1, port2 } = new MessageChannel();
port2.onmessage = () => {};

function makeTarget(): Target {
  const size = 1 + random.below(random.oneIn(4) ? 4000 : 100);
  switch (random.below(8)) {
    case 0: { // V8 keeps typed arrays of 64 bytes and less on its movable heap until their buffer is asked for
      const view = new Uint8Array(1 + random.below(64)).fill(CANARY);
      return { view, whole: () => view };
    }
    case 1:
      return undisturbed(new Uint8Array(size).fill(CANARY));
    case 2: { // a part of a larger buffer
      const offset = random.below(100);
      const around = new Uint8Array(offset + size + random.below(100)).fill(CANARY);
      return undisturbed(around.subarray(offset, offset + size));
    }
    case 3:
      return undisturbed(new Uint8Array(new SharedArrayBuffer(size)).fill(CANARY));
    case 4: { // transferred
      const view = new Uint8Array(size).fill(CANARY);
      const ways = [
        () => structuredClone(null, { transfer: [view.buffer] }),
        () => keep(new Uint8Array(view.buffer.transfer())),
        () => port1.postMessage(view.buffer, [view.buffer]),
      ];
      return { view, whole: () => view, disturb: () => (ways[random.below(3)](), 0) };
    }
    case 5: { // a length-tracking view of a buffer that shrinks or grows
      const buffer = new ArrayBuffer(size, { maxByteLength: 2 * size });
      const view = new Uint8Array(buffer).fill(CANARY);
      return { view, whole: () => view, disturb: () => (buffer.resize(random.below(2 * size)), buffer.byteLength) };
    }
    case 6: { // a fixed part of one: out of bounds, it has no bytes at all
      const offset = random.below(10);
      const buffer = new ArrayBuffer(offset + size, { maxByteLength: 2 * (offset + size) });
      const view = new Uint8Array(buffer, offset, size).fill(CANARY);
      const disturb = () => {
        buffer.resize(random.below(buffer.maxByteLength));
        return buffer.byteLength >= offset + size ? size : 0;
      };
      return { view, whole: () => new Uint8Array(buffer), disturb };
    }
    default: // the middle of a slab, as Node's buffers are
      return undisturbed(new Uint8Array(3 * size).fill(CANARY).subarray(size, 2 * size));
  }
}

/** Beside the `count` bytes from `first` everything is as it was; where a buffer was resized there are zeros too. */
function checkCanaries(whole: Uint8Array, first: number, count: number, resized: boolean): void {
  for (let i = 0; i < whole.byteLength; i++) {
    if (i >= first && i < first + count || whole[i] === CANARY || resized && whole[i] === 0) continue;
    throw new Error(`Byte ${i} of ${whole.byteLength}, beside ${count} that were read, has changed`);
  }
  keep(whole);
}

{
  await using ring = Ring.open(JSON.parse(options));
  const pairs = Array.from({ length: STREAMS }, () => socketpair({ ring }));
  const sent = pairs.map(() => 0);
  const received = pairs.map(() => 0);

  const send = (stream: number) => {
    const bytes = new Uint8Array(1 + random.below(random.oneIn(16) ? 2000 : 60));
    for (let i = 0; i < bytes.byteLength; i++) bytes[i] = sent[stream] + i;
    libc.write(pairs[stream][1].fd, bytes);
    sent[stream] += bytes.byteLength;
  };

  const readOnce = async (stream: number, abort: boolean) => {
    const { view, disturb, whole } = makeTarget();
    const controller = new AbortController();
    const reading = pairs[stream][0].read(view, { signal: controller.signal });
    // On the heap, the offset is 0; asked of anything else it may be 0 later, when the view is out of bounds.
    const offset = view.byteOffset;
    let room = view.byteLength;
    let disturbed = false;
    let done = false;
    const after = random.below(12);
    const settled = reading.finally(() => done = true).then((n) => {
      assert(n !== null && n <= room, `${n} bytes in ${room}`);
      for (let i = 0; i < n; i++) {
        // Memory that is taken away after the bytes were delivered takes them along.
        if (!disturbed || view[i]) assert(view[i] === (received[stream] + i & 255), "not the next bytes");
      }
      received[stream] += n;
      tally.values++;
      checkCanaries(whole(), offset, n, disturb !== undefined);
    }, (error) => {
      if (error === controller.signal.reason) {
        tally.aborted++;
        checkCanaries(whole(), 0, 0, disturb !== undefined);
      } else {
        tally.undelivered++;
        assert(error instanceof TypeError && error.message.includes("detached or made smaller"), String(error));
      }
    });
    await turns(after);
    if (disturb && !done && random.oneIn(2)) {
      disturbed = true;
      room = Math.max(room, disturb());
    }
    await turns(random.below(3));
    if (abort) controller.abort();
    else send(stream);
    await settled;
  };

  for (let done = 0; done < Number(reads); done += STREAMS) {
    const round = Array.from(pairs.keys(), async (stream) => {
      if (random.oneIn(3)) send(stream);
      await readOnce(stream, random.oneIn(2));
    });
    gc({ type: "minor" });
    tally.collected++;
    await Promise.all(round);
    if (done % (STREAMS * 100) === 0) {
      gc();
      checkKept();
    }
    if (random.oneIn(4)) {
      // A stream that has run ahead is read until its end, so that it never fills.
      for (const [stream, [left]] of pairs.entries()) {
        while (received[stream] < sent[stream]) {
          const rest = new Uint8Array(4096);
          const n = await left.read(rest);
          for (let i = 0; i < n!; i++) assert(rest[i] === (received[stream] + i & 255), "not the next bytes");
          received[stream] += n!;
        }
      }
    }
  }
  checkKept();
  assert(ring.inFlight === 0, "something is in flight");
  for (const end of pairs.flat()) await end.close();
}
port1.close();
port2.close();
console.log(JSON.stringify(tally));
