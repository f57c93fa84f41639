#!/usr/bin/env -S deno run --allow-ffi
/**
 * Two tasks of one scope play a ball over a pair of sockets.
 */
import { type Conn, scope, socketpair } from "../mod.ts";

const ROUNDS = 50_000;

/** Reads exactly one number. */
async function receive(conn: Conn<Deno.UnixAddr>, ball: Uint8Array): Promise<number> {
  for (let filled = 0; filled < ball.byteLength;) {
    const n = await conn.read(filled === 0 ? ball : ball.subarray(filled));
    if (n === null) throw new Deno.errors.UnexpectedEof("The other player has gone");
    filled += n;
  }
  return new DataView(ball.buffer).getUint32(0);
}

async function send(conn: Conn<Deno.UnixAddr>, ball: Uint8Array, count: number): Promise<void> {
  new DataView(ball.buffer).setUint32(0, count);
  await conn.writeAll(ball);
}

const started = performance.now();
await scope(async (s) => {
  const [left, right] = socketpair();
  s.defer(() => left.close());
  s.defer(() => right.close());

  s.spawn(async () => {
    const ball = new Uint8Array(4);
    for (let round = 0; round < ROUNDS; round++) await send(right, ball, await receive(right, ball) + 1);
  });

  const ball = new Uint8Array(4);
  let count = 0;
  for (let round = 0; round < ROUNDS; round++) {
    await send(left, ball, count);
    count = await receive(left, ball);
  }
  if (count !== ROUNDS) throw new Error(`The ball was counted ${count} times in ${ROUNDS} rounds`);
});

const seconds = (performance.now() - started) / 1000;
console.log(`${ROUNDS} rounds in ${seconds.toFixed(2)} s, ${Math.round(ROUNDS / seconds)} per second`);
