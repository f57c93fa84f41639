#!/usr/bin/env -S deno run --allow-ffi
/**
 * Two tasks of one scope play a ball over a pair of sockets: a number, which each of them sends back one higher.
 * Run it with `deno run --allow-ffi examples/ping_pong.ts`.
 */
import { type Conn, defaultRing, scope, socketpair } from "../mod.ts";

const ROUNDS = 50_000;

/** Receives the ball, a number of 4 bytes. */
async function receive(conn: Conn<Deno.UnixAddr>, ball: DataView<ArrayBuffer>): Promise<number> {
  for (let filled = 0; filled < ball.byteLength;) {
    const n = await conn.read(new Uint8Array(ball.buffer, filled));
    if (n === null) throw new Deno.errors.UnexpectedEof("The other player has gone");
    filled += n;
  }
  return ball.getUint32(0);
}

async function send(conn: Conn<Deno.UnixAddr>, ball: DataView<ArrayBuffer>, count: number): Promise<void> {
  ball.setUint32(0, count);
  await conn.writeAll(new Uint8Array(ball.buffer));
}

const started = performance.now();
const count = await scope(async (s) => {
  const [left, right] = socketpair();
  s.defer(() => left.close());
  s.defer(() => right.close());

  s.spawn(async () => {
    const ball = new DataView(new ArrayBuffer(4));
    for (let round = 0; round < ROUNDS; round++) await send(right, ball, await receive(right, ball) + 1);
  });
  const player = s.spawn(async () => {
    const ball = new DataView(new ArrayBuffer(4));
    let count = 0;
    for (let round = 0; round < ROUNDS; round++) {
      await send(left, ball, count);
      count = await receive(left, ball) + 1;
    }
    return count;
  });
  return await player;
});

const seconds = (performance.now() - started) / 1000;
console.log(`${ROUNDS} rounds, ${count} hits counted`);
console.log(`${seconds.toFixed(2)} s, ${Math.round(ROUNDS / seconds)} rounds per second`);
console.log(`${defaultRing().inFlight} requests in flight`);
