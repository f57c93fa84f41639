/**
 * What a workload is: the same work, done by several peers, each a program in a process of its own.
 *
 * @module
 */
import type { Program } from "./programs.ts";

/** What one sample says. The suite adds the CPU time and the peak memory of the peer's process. */
export interface Sample {
  /** Operations done. */
  operations: number;
  /** Seconds they took, by the clock of whoever did or asked for them. */
  seconds: number;
  /** Latency of single operations in microseconds, where single ones are timed. */
  latency?: Latency;
  /** The figure itself, where it is no time and no rate (bytes per connection, enters per operation). */
  value?: number;
}

/** Percentiles in microseconds. */
export interface Latency {
  p50: number;
  p99: number;
  p999: number;
}

/** What a workload's main figure is. The suite shows ratios so that more than 1 is better for ringscope. */
export type Figure =
  /** Operations per second; more is better. `unit` is what is counted, as in "round trips". */
  | { kind: "rate"; unit: string }
  /** Microseconds per operation; less is better. */
  | { kind: "time"; unit: string }
  /** `Sample.value`, less is better; `unit` as in "KiB per connection". */
  | { kind: "value"; unit: string };

/** One way of doing the work. */
export interface Peer {
  /** As in the table: "ringscope", "Deno", "node:net under Deno", "Node.js", "Bun", "C epoll", "C liburing", "tokio". */
  name: string;
  program: Program;
}

/** The same work, done by several peers. The first peer is ringscope, with which the others are compared. */
export interface Workload {
  /** Chosen on the command line by this name, such as "echo_64". */
  name: string;
  /** One line for the table. */
  title: string;
  figure: Figure;
  /** Seconds in a sample. */
  seconds: number;
  /** The same for `--quick`, if that can be less. */
  quickSeconds?: number;
  /**
   * `worker`: the program measures itself when it is asked to, over standard input.
   * `server`: the program prints its port, and `load` measures it from outside.
   * `process`: the program is run to its end; its wall time, from spawn to exit, is the sample (1 operation).
   */
  kind: "worker" | "server" | "process";
  /** Whether each sample takes a new process: the first seconds, a cold start. Default: `false`, and one sample warms up. */
  fresh?: boolean;
  /** For a server: puts load on it and says what came of it. Throws if an answer was wrong. */
  load?(port: number, seconds: number): Promise<Sample>;
  /** Makes what the peers share (files, directories); its disposal removes it. The environment reaches every program. */
  prepare?(): Promise<Prepared>;
  peers: [Peer, ...Peer[]];
}

/** What the peers of a workload share. */
export interface Prepared extends AsyncDisposable {
  env: Record<string, string>;
}
