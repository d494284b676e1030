// All analyses of a trace in memory, and reading with them, beside the same definitions written
// plainly over the objects of JSON.parse. Both sides' figures must agree, else the bench fails.

import { analyzeTrace, readTrace, type TraceAnalysis } from "@open-infra/profile/analyze";
import { type BenchRow, median } from "@open-infra/testing";
import { type PlainEvent, type PlainFigures, plainAnalysis } from "./plain-analysis.ts";
import { trainingText } from "./training-text.ts";

async function timed(work: () => unknown): Promise<number> {
  const start = performance.now();
  await work();
  return performance.now() - start;
}

/** @throws Error naming the figure if the two sides differ. */
function expectSame(
  { summary, idle, launches, ...rest }: TraceAnalysis,
  plain: PlainFigures,
): void {
  const sum = (field: "hostWaitUs" | "kernelWaitUs"): number =>
    idle.reduce((total, row) => total + row[field], 0);
  const pairs: [string, number | undefined, number][] = [
    ["spanUs", summary.spanUs, plain.spanUs],
    ["busyUs", summary.busyUs, plain.busyUs],
    ["computeUs", summary.computeUs, plain.computeUs],
    ["communicationUs", summary.communicationUs, plain.communicationUs],
    ["overlapUs", summary.overlapUs, plain.overlapUs],
    ["hostWaitUs", sum("hostWaitUs"), plain.hostWaitUs],
    ["kernelWaitUs", sum("kernelWaitUs"), plain.kernelWaitUs],
    ["queueDelay.medianUs", launches.queueDelay.medianUs, plain.medianDelayUs],
  ];
  for (const { name, gpuUs } of rest.annotations.annotations) {
    pairs.push([name, gpuUs, plain.annotationUs.get(name) ?? 0]);
  }
  for (const each of rest.kernels.classes) {
    pairs.push([each.class, each.sumUs, plain.classUs.get(each.class) ?? 0]);
  }
  for (const [name, ours, theirs] of pairs) {
    if (ours !== theirs) throw new Error(`${name} is ${ours}, plainly ${theirs}`);
  }
}

/** Rows of the package's README. */
export async function run(options: { readonly quick?: boolean } = {}): Promise<BenchRow[]> {
  const quick = options.quick ?? false;
  const rounds = quick ? 1 : 5;
  const text = Buffer.concat(
    [...trainingText(quick ? 5e6 : 100e6)].map((piece) => Buffer.from(piece)),
  );
  const parse = (): PlainEvent[] =>
    (JSON.parse(new TextDecoder().decode(text)) as { traceEvents: PlainEvent[] }).traceEvents;
  const table = await readTrace(text);
  const events = parse();
  expectSame(analyzeTrace(table), plainAnalysis(events));
  const samples: [number[], number[], number[], number[]] = [[], [], [], []];
  for (let round = 0; round < rounds; round++) {
    samples[0].push(await timed(() => analyzeTrace(table)));
    samples[1].push(await timed(() => plainAnalysis(events)));
    samples[2].push(await timed(async () => analyzeTrace(await readTrace(text))));
    samples[3].push(await timed(() => plainAnalysis(parse())));
  }
  const [ours, plain, whole, parsed] = samples.map(median) as [number, number, number, number];
  const megabytes = `${(text.length / 1e6).toFixed(0)} MB`;
  return [
    {
      case: "analyze, all analyses",
      shape: `${table.length} events`,
      us: ours * 1000,
      rate: `${(table.length / ours / 1000).toFixed(1)} M events/s`,
      peer: "some of them over objects",
      peerRatio: plain / ours,
    },
    {
      case: "read and analyze",
      shape: `${megabytes}, ${table.length} events`,
      us: whole * 1000,
      rate: `${(text.length / whole / 1000).toFixed(0)} MB/s`,
      peer: "JSON.parse, over objects",
      peerRatio: parsed / whole,
    },
  ];
}
