/**
 * Measures ringscope beside its peers, in one run. `make bench ARGS="..."` passes arguments on.
 *
 * @module
 */
import { parseArgs } from "node:util";
import { type Benchmark, type BenchmarkResult, measure, type Spread } from "./benchmark.ts";
import { benchmarks as echo } from "./echo.ts";
import { benchmarks as reads } from "./reads.ts";

const all: Benchmark[] = [...reads, ...echo];

const usage = `bench.ts [--rounds N] [--json FILE] [NAME]...

Names: ${all.map(({ name }) => name).join(", ")}; none means all.
--rounds N   how often each peer is measured, by turns (31)
--json FILE  also write every sample to FILE`;

const { values, positionals } = parseArgs({
  args: Deno.args,
  allowPositionals: true,
  options: {
    help: { type: "boolean", default: false },
    rounds: { type: "string", default: "31" },
    json: { type: "string" },
  },
});
const rounds = Number(values.rounds);
const unknown = positionals.find((name) => !all.some((benchmark) => benchmark.name === name));
if (values.help || unknown !== undefined || !(Number.isInteger(rounds) && rounds > 0)) {
  console.log(unknown === undefined ? usage : `There is no benchmark "${unknown}".\n\n${usage}`);
  Deno.exit(values.help ? 0 : 2);
}

const machine = {
  deno: Deno.version.deno,
  kernel: Deno.osRelease(),
  cpu: `${navigator.hardwareConcurrency} x ${Deno.build.arch}`,
  rounds,
};
console.log(`Deno ${machine.deno}, Linux ${machine.kernel}, ${machine.cpu}; ${rounds} rounds, medians (min to max)`);

const results: BenchmarkResult[] = [];
for (const benchmark of all) {
  if (positionals.length > 0 && !positionals.includes(benchmark.name)) continue;
  const result = await measure(benchmark, rounds);
  results.push(result);
  print(result);
}
if (values.json) await Deno.writeTextFile(values.json, JSON.stringify({ ...machine, results }, null, 2) + "\n");
// Nothing may keep a benchmark from ending, least of all what it measured.
Deno.exit();

function print({ title, unit, peers }: BenchmarkResult): void {
  const rows = peers.map(({ name, perSecond, ratio }, index) => [
    `  ${name}`,
    `${thousands(perSecond.median)} ${unit}/s (${thousands(perSecond.min)} to ${thousands(perSecond.max)})`,
    `${(1e6 / perSecond.median).toFixed(2)} us`,
    index === 0 ? "" : times(ratio),
  ]);
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  console.log(`\n${title}`);
  for (const [index, row] of rows.entries()) {
    const cells = row.map((cell, i) => i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]));
    console.log([...cells, peers[index].remark ?? ""].join("   ").trimEnd());
  }
}

function thousands(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** How many times as fast the first peer is. */
function times({ median, min, max }: Spread): string {
  return `ringscope x ${median.toFixed(2)} (${min.toFixed(2)} to ${max.toFixed(2)})`;
}
