// The analyser's definitions written plainly over the objects of JSON.parse: the peer of the bench,
// and a second opinion on its figures. Knows no lanes, selections, phases or variants.

import { builtinRules, createClassifier } from "@open-infra/profile/analyze";

/** An event as JSON.parse gives it. */
export interface PlainEvent {
  readonly ph: string;
  readonly cat?: string;
  readonly name: string;
  readonly pid: number;
  readonly tid: number;
  readonly ts: number;
  readonly dur?: number;
  readonly args?: { readonly correlation?: number; readonly stream?: number };
}

interface Interval {
  start: number;
  end: number;
}

/** What both sides work out. */
export interface PlainFigures {
  readonly spanUs: number;
  readonly busyUs: number;
  readonly computeUs: number;
  readonly communicationUs: number;
  readonly overlapUs: number;
  readonly hostWaitUs: number;
  readonly kernelWaitUs: number;
  readonly medianDelayUs: number;
  readonly classUs: ReadonlyMap<string, number>;
  readonly kernelUs: ReadonlyMap<string, { count: number; sum: number; max: number }>;
  readonly annotationUs: ReadonlyMap<string, number>;
}

function merge(events: readonly PlainEvent[]): Interval[] {
  const out: Interval[] = [];
  for (const { ts, dur = 0 } of events.toSorted((a, b) => a.ts - b.ts)) {
    const last = out.at(-1);
    if (last && ts <= last.end) last.end = Math.max(last.end, ts + dur);
    else out.push({ start: ts, end: ts + dur });
  }
  return out;
}

const total = (set: readonly Interval[]): number =>
  set.reduce((sum, { start, end }) => sum + end - start, 0);

function shared(a: readonly Interval[], b: readonly Interval[]): number {
  let sum = 0;
  for (let i = 0, j = 0; i < a.length && j < b.length; ) {
    const x = a[i] as Interval;
    const y = b[j] as Interval;
    sum += Math.max(0, Math.min(x.end, y.end) - Math.max(x.start, y.start));
    if (x.end < y.end) i++;
    else j++;
  }
  return sum;
}

function groupBy<T>(items: readonly T[], key: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) {
    const group = groups.get(key(item));
    if (group) group.push(item);
    else groups.set(key(item), [item]);
  }
  return groups;
}

function idleOf(
  streams: Iterable<readonly PlainEvent[]>,
  launchOf: ReadonlyMap<number, PlainEvent>,
): { hostWaitUs: number; kernelWaitUs: number } {
  let hostWaitUs = 0;
  let kernelWaitUs = 0;
  for (const stream of streams) {
    const sorted = stream.toSorted((a, b) => a.ts - b.ts);
    for (const [i, next] of sorted.entries()) {
      const before = sorted[i - 1];
      if (!before) continue;
      const end = before.ts + (before.dur ?? 0);
      const launch = launchOf.get(next.args?.correlation ?? -1);
      if (launch && launch.ts > end) hostWaitUs += next.ts - end;
      else if (next.ts - end < 30) kernelWaitUs += next.ts - end;
    }
  }
  return { hostWaitUs, kernelWaitUs };
}

function annotationsOf(
  kernels: readonly PlainEvent[],
  annotations: readonly PlainEvent[],
  launchOf: ReadonlyMap<number, PlainEvent>,
): Map<string, number> {
  const sorted = annotations.toSorted((a, b) => a.ts - b.ts);
  const sums = new Map<string, number>();
  for (const { args, dur = 0 } of kernels) {
    const launch = launchOf.get(args?.correlation ?? -1);
    if (!launch) continue;
    let low = 0;
    for (let high = sorted.length; low < high; ) {
      const middle = (low + high) >> 1;
      if ((sorted[middle] as PlainEvent).ts <= launch.ts) low = middle + 1;
      else high = middle;
    }
    const around = sorted[low - 1];
    if (!around || around.ts + (around.dur ?? 0) < launch.ts) continue;
    sums.set(around.name, (sums.get(around.name) ?? 0) + dur);
  }
  return sums;
}

/** The figures of a trace whose annotations are not nested. */
export function plainAnalysis(events: readonly PlainEvent[]): PlainFigures {
  const classifier = createClassifier(builtinRules);
  const classes = new Map<string, number>();
  const classOf = ({ name, cat = "" }: PlainEvent) => {
    let id = classes.get(name);
    if (id === undefined) classes.set(name, (id = classifier.classOf(name, cat)));
    return classifier.classes[id] as (typeof classifier.classes)[number];
  };
  const kernels = events.filter(
    ({ ph, cat }) => ph === "X" && /^(?:kernel|gpu_mem(?:cpy|set))$/.test(cat ?? ""),
  );
  const calls = events.filter(({ cat }) => cat === "cuda_runtime" || cat === "cuda_driver");
  const launchOf = new Map(calls.map((call) => [call.args?.correlation ?? -1, call]));
  const busy = merge(kernels);
  const compute = merge(kernels.filter((each) => classOf(each).group === "computation"));
  const communication = merge(kernels.filter((each) => classOf(each).group === "communication"));
  const delays = kernels
    .flatMap((each) => {
      const launch = launchOf.get(each.args?.correlation ?? -1);
      return launch ? [each.ts - launch.ts - (launch.dur ?? 0)] : [];
    })
    .sort((a, b) => a - b);
  const classUs = new Map<string, number>();
  const kernelUs = new Map<string, { count: number; sum: number; max: number }>();
  for (const event of kernels) {
    const { dur = 0, name } = event;
    const { name: className } = classOf(event);
    classUs.set(className, (classUs.get(className) ?? 0) + dur);
    const { count, sum, max } = kernelUs.get(name) ?? { count: 0, sum: 0, max: 0 };
    kernelUs.set(name, { count: count + 1, sum: sum + dur, max: Math.max(max, dur) });
  }
  const first = busy[0]?.start ?? 0;
  return {
    spanUs: (busy.at(-1)?.end ?? 0) - first,
    busyUs: total(busy),
    computeUs: total(compute),
    communicationUs: total(communication),
    overlapUs: shared(compute, communication),
    ...idleOf(groupBy(kernels, ({ pid, tid }) => `${pid} ${tid}`).values(), launchOf),
    medianDelayUs:
      ((delays[(delays.length - 1) >> 1] ?? 0) + (delays[delays.length >> 1] ?? 0)) / 2,
    classUs,
    kernelUs,
    annotationUs: annotationsOf(
      kernels,
      events.filter(({ cat }) => cat === "user_annotation"),
      launchOf,
    ),
  };
}
