/**
 * What a benchmark is, and how its peers are measured against each other.
 *
 * @module
 */

/** One way of doing the work, ready to be measured again and again. */
export interface Contender extends AsyncDisposable {
  /** Works for about `seconds` and says how many operations it did in a second. */
  sample(seconds: number): Promise<number>;
  /** What a reader must know of the samples so far. */
  readonly remark?: string;
}

/** A way of doing the work. */
export interface Peer {
  name: string;
  /** Makes files, servers and the like; the contender's disposal takes them away again. */
  open(): Promise<Contender>;
}

/** The same work, done by several peers. The first is the one the others are compared with. */
export interface Benchmark {
  /** Chosen on the command line by this name. */
  name: string;
  title: string;
  /** What is counted, as in "reads". */
  unit: string;
  /** Seconds in a sample, long enough that starting it does not count. */
  sampleSeconds: number;
  peers: [Peer, ...Peer[]];
}

/** Median and extremes of some numbers. */
export interface Spread {
  median: number;
  min: number;
  max: number;
}

/** How a peer did. */
export interface PeerResult {
  name: string;
  /** Operations in a second, one for each round. */
  samples: number[];
  perSecond: Spread;
  /** How many times as fast the first peer was: round by round, so that a machine's slow moments hit both. */
  ratio: Spread;
  remark?: string;
}

/** How all peers of a benchmark did. */
export interface BenchmarkResult {
  name: string;
  title: string;
  unit: string;
  peers: PeerResult[];
}

/** Measures all peers in turn, round after round (ABC, ABC, ...), after one round that does not count. */
export async function measure(benchmark: Benchmark, rounds: number): Promise<BenchmarkResult> {
  await using opened = new AsyncDisposableStack();
  const contenders: Contender[] = [];
  for (const peer of benchmark.peers) contenders.push(opened.use(await peer.open()));
  const samples: number[][] = contenders.map(() => []);
  for (let round = 0; round <= rounds; round++) {
    for (const [index, contender] of contenders.entries()) {
      const perSecond = await contender.sample(benchmark.sampleSeconds);
      if (round > 0) samples[index].push(perSecond);
    }
  }
  const peers = benchmark.peers.map(({ name }, index) => ({
    name,
    samples: samples[index],
    perSecond: spread(samples[index]),
    ratio: spread(samples[index].map((perSecond, round) => samples[0][round] / perSecond)),
    remark: contenders[index].remark,
  }));
  return { name: benchmark.name, title: benchmark.title, unit: benchmark.unit, peers };
}

function spread(values: number[]): Spread {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  const median = sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
  return { median, min: sorted[0], max: sorted[sorted.length - 1] };
}
