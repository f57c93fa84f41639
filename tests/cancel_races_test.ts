/**
 * An operation against its abort, 20,000 times each: the abort comes before, during and after what completes it, which
 * another thread may bring about at the same moment. Whoever wins, there is one outcome, nothing is lost or had twice,
 * and nothing stays behind.
 */
import { assert, assertEquals, assertStrictEquals } from "@std/assert";
import { setImmediate } from "node:timers";
import { type Conn, connect, listen, open, pipe, Ring, type RingOptions, sleep, socketpair } from "../mod.ts";
import { Bystander } from "./support/bystander.ts";
import { CountedController } from "./support/counted_signal.ts";
import { assertDescriptors, descriptors } from "./support/descriptors.ts";
import * as libc from "./support/libc.ts";
import { Random } from "./support/random.ts";
import { doorbells, ringKinds } from "./support/rings.ts";
import { within } from "./support/until.ts";

/** What is raced against its abort. */
interface Contender {
  /** Starts the operation of a round; checks its value, and disposes of it. */
  start(place: number, signal: AbortSignal): Promise<void>;
  /** Whether its own deadline may end it too. */
  readonly overdue?: boolean;
  /** Brings about what the operation waits for. */
  happen?(place: number): void;
  /** Between two batches: nothing is in flight. */
  pause?(): Promise<void>;
  /** After the last round: the account. */
  end(): Promise<void>;
}

interface Surroundings {
  ring: Ring;
  random: Random;
  /** How many rounds run at once. */
  places: number;
}

type Prepare = (surroundings: Surroundings) => Contender | Promise<Contender>;

/** One for all tests: a thread that ends closes what its event loop had open some time later. */
const bystander = await Bystander.start();

/** Slots of time in a batch: before the start, microtask turns, turns of the event loop. */
const TURNS = 14;
const LOOP_TURNS = 4;
const NEVER = TURNS + LOOP_TURNS;

async function race(prepare: Prepare, options: RingOptions, rounds: number, places = 100): Promise<void> {
  const before = descriptors();
  const tally = { value: 0, aborted: 0, late: 0 };
  {
    await using ring = Ring.open(options);
    const random = new Random(rounds);
    const contender = await prepare({ ring, random, places });
    for (let done = 0; done < rounds; done += places) {
      await within(`${done} rounds, ${ring.inFlight} in flight`, batch(contender, random, places, tally));
      await bystander.done();
      await contender.pause?.();
    }
    await within("the account", contender.end());
    assertEquals(ring.inFlight, 0);
  }
  await assertDescriptors(before);
  assertEquals(tally.value + tally.aborted, rounds);
  // Both must happen, or this would be no race.
  assert(tally.value > rounds / 200 && tally.aborted > rounds / 200, Deno.inspect(tally));
}

async function batch(
  contender: Contender,
  random: Random,
  places: number,
  tally: { value: number; aborted: number; late: number },
): Promise<void> {
  const deeds: (() => void)[][] = Array.from({ length: NEVER }, () => []);
  const rounds = Array.from({ length: places }, (_, place) => {
    const controller = new CountedController();
    const reason = new Error("the reason");
    const abort = () => controller.abort(reason);
    const early = random.oneIn(20);
    if (early) abort();
    let outcomes = 0;
    const settled = contender.start(place, controller.signal).then(() => {
      tally.value++;
      if (controller.signal.aborted) tally.late++;
      assert(!early, "an operation whose signal had aborted has a value");
    }, (error) => {
      tally.aborted++;
      if (contender.overdue && error instanceof DOMException) assertEquals(error.name, "TimeoutError");
      else assertStrictEquals(error, reason);
    }).finally(() => outcomes++);
    // Most of the time both fall into the same slot or the next.
    const at = random.below(NEVER);
    if (!early && !random.oneIn(4)) deeds[at].push(abort);
    if (contender.happen && !random.oneIn(4)) {
      const when = random.oneIn(4) ? random.below(NEVER) : Math.min(NEVER - 1, at + random.below(2));
      deeds[when][random.oneIn(2) ? "push" : "unshift"](() => contender.happen!(place));
    }
    return { abort, settled, outcomes: () => outcomes, controller };
  });
  for (let slot = 0; slot < NEVER; slot++) {
    for (const deed of deeds[slot]) deed();
    if (slot < TURNS) await null;
    else await new Promise<void>((resolve) => setImmediate(resolve));
  }
  // What has a deadline must come back by itself.
  if (!contender.overdue) { for (const { abort } of rounds) abort(); }
  for (const { settled, outcomes, controller } of rounds) {
    await settled;
    assertEquals(outcomes(), 1);
    assertEquals(controller.listeners.size, 0);
    assert(controller.most <= 1);
  }
}

/** Bytes through streams: each carries ascending ones, so that a lost or doubled one shows. */
function stream(
  { random }: Surroundings,
  ends: { fd: number; read(p: Uint8Array, options?: { signal: AbortSignal }): Promise<number | null> }[],
  writers: { fd: number; close(): Promise<void> }[],
  close: () => Promise<unknown>,
  more: () => { timeout?: number } = () => ({}),
): Contender {
  const sent = ends.map(() => 0);
  const received = ends.map(() => 0);
  const take = async (place: number, options?: { signal: AbortSignal }) => {
    const p = new Uint8Array(1 + random.below(12));
    const n = await ends[place].read(p, options);
    assert(n !== null && n > 0);
    for (let i = 0; i < p.byteLength; i++) assertEquals(p[i], i < n ? received[place] + i & 255 : 0);
    received[place] += n;
  };
  const drain = async () => {
    for (const place of ends.keys()) while (received[place] < sent[place]) await take(place);
  };
  return {
    start: (place, signal) => take(place, { signal, ...more() }),
    happen(place) {
      const count = 1 + random.below(8);
      if (random.oneIn(2)) bystander.write(writers[place].fd, sent[place], count);
      else libc.write(writers[place].fd, Uint8Array.from({ length: count }, (_, i) => sent[place] + i));
      sent[place] += count;
    },
    // Some bytes are left to the next batch, as the first it reads.
    pause: () => random.oneIn(4) ? Promise.resolve() : drain(),
    async end() {
      await drain();
      assertEquals(received, sent);
      for (const { fd } of ends) assertEquals(libc.readable(fd), 0);
      await close();
    },
  };
}

/** Where an abort and a LINK_TIMEOUT compete. */
function recvInTime(surroundings: Surroundings): Contender {
  const { random } = surroundings;
  return {
    ...recv(surroundings, () => ({ timeout: random.below(20) / 20 })),
    overdue: true,
  };
}

function recv(surroundings: Surroundings, options?: () => { timeout: number }): Contender {
  const pairs = Array.from({ length: surroundings.places }, () => socketpair({ ring: surroundings.ring }));
  const close = () => Promise.all(pairs.flat().map((end) => end.close()));
  return stream(surroundings, pairs.map(([left]) => left), pairs.map(([, right]) => right), close, options);
}

function pipeRead(surroundings: Surroundings): Contender {
  const pipes = Array.from({ length: surroundings.places }, () => pipe({ ring: surroundings.ring }));
  const close = () => Promise.all(pipes.flatMap(({ reader, writer }) => [reader.close(), writer.close()]));
  return stream(surroundings, pipes.map(({ reader }) => reader), pipes.map(({ writer }) => writer), close);
}

/** A tenth of the files have their pages dropped before each batch, so that reads wait for the disk. */
async function fileRead({ ring, random, places }: Surroundings): Promise<Contender> {
  const BYTES = 1 << 20;
  const path = Deno.makeTempFileSync();
  const content = Uint8Array.from({ length: BYTES }, (_, i) => i);
  {
    await using file = await open(path, { ring, write: true });
    await file.writeAll(content);
  }
  using written = Deno.openSync(path);
  written.syncSync();
  const files = await Promise.all(Array.from({ length: Math.ceil(places / 10) }, () => open(path, { ring })));
  const received = files.map(() => 0);
  for (const { fd } of files) libc.readSingly(fd);
  return {
    async start(place, signal) {
      const which = place % files.length;
      const p = new Uint8Array(1 + random.below(100));
      let from = random.below(BYTES - 100);
      let n: number | null;
      if (random.oneIn(3)) {
        n = await files[which].readAt(p, from, { signal });
      } else {
        n = await files[which].read(p, { signal });
        from = received[which];
        received[which] += n!;
      }
      assertEquals(n, p.byteLength);
      assert(p.every((byte, i) => byte === (from + i & 255)));
    },
    pause() {
      libc.dropPages(files[random.below(files.length)].fd);
      return Promise.resolve();
    },
    async end() {
      // A rejected read took no bytes: what comes next is what follows the last value.
      for (const [i, file] of files.entries()) {
        const p = new Uint8Array(1);
        assertEquals(await file.read(p), 1);
        assertEquals(p[0], received[i] & 255);
        await file.close();
      }
      Deno.removeSync(path);
    },
  };
}

function timer({ ring, random }: Surroundings): Contender {
  return {
    start: (_, signal) => sleep(random.below(20) / 20, { ring, signal }),
    end: () => Promise.resolve(),
  };
}

async function accept({ ring, random }: Surroundings): Promise<Contender> {
  const listener = await listen({ hostname: "127.0.0.1", port: 0, ring });
  let made = 0;
  let accepted = 0;
  const one = async (options?: { signal: AbortSignal }) => {
    const conn = await listener.accept(options);
    accepted++;
    assertEquals(conn.remoteAddr.hostname, "127.0.0.1");
    await conn.close();
  };
  const drain = async () => {
    while (accepted < made) await one();
  };
  return {
    start: (_, signal) => one({ signal }),
    happen() {
      made++;
      bystander.connect(listener.addr.port);
    },
    pause: () => random.oneIn(4) ? Promise.resolve() : drain(),
    async end() {
      await drain();
      // Had a connection been lost or invented, this one would not be the next.
      const accepting = listener.accept();
      await using client = await connect({ port: listener.addr.port, ring });
      await using last = await accepting;
      assertEquals(last.remoteAddr, client.localAddr);
      libc.resetOnClose(client.fd);
      await listener.close();
    },
  };
}

/** Half of them go to a listener that answers, half to one whose queue is full, where they wait. */
async function connecting({ ring, random }: Surroundings): Promise<Contender> {
  const hostname = "127.0.0.1";
  const answering = await listen({ hostname, port: 0, ring });
  const serving = (async () => {
    for await (const conn of answering) {
      libc.resetOnClose(conn.fd);
      await conn.close();
    }
  })();
  const full = await listen({ hostname, port: 0, backlog: 0, ring });
  const queued: Conn[] = [await connect({ port: full.addr.port, ring })];
  return {
    async start(_, signal) {
      const { port } = random.oneIn(2) ? full.addr : answering.addr;
      await using conn = await connect({ hostname, port, signal, ring });
      assertEquals(conn.remoteAddr.port, answering.addr.port);
      libc.resetOnClose(conn.fd);
    },
    async end() {
      for (const conn of queued) await conn.close();
      await answering.close();
      await serving;
      await full.close();
    },
  };
}

/** Blocks in worker threads of the kernel; a descriptor that comes too late is closed. */
function openFifo({ ring, places }: Surroundings): Contender {
  const directory = Deno.makeTempDirSync();
  const paths = Array.from({ length: places }, (_, place) => `${directory}/${place}`);
  for (const path of paths) libc.mkfifo(path);
  return {
    async start(place, signal) {
      await using _file = await open(paths[place], { read: true, signal, ring });
    },
    happen(place) {
      libc.openForAMoment(paths[place]);
    },
    end() {
      Deno.removeSync(directory, { recursive: true });
      return Promise.resolve();
    },
  };
}

const contenders: [name: string, prepare: Prepare][] = [
  ["recv", recv],
  ["recv with a deadline", recvInTime],
  ["accept", accept],
  ["connect", connecting],
  ["timer", timer],
  ["pipe read", pipeRead],
  ["file read", fileRead],
];

for (const [name, prepare] of contenders) {
  for (const [kind, options] of ringKinds) {
    const rounds = options.doorbell === doorbells[0] ? 20_000 : 5_000;
    Deno.test(`${name} against its abort, ${rounds} rounds, ${kind}`, () => race(prepare, options, rounds));
  }
}

Deno.test("open of a FIFO against its abort, 1000 rounds", () => race(openFifo, {}, 1000, 20));
