// Cuts a trace into what repeats: profiler steps, else the cycle in which its annotations return
// (the layers of a model). A phase is what was launched in it, wherever it ran; phases overlap on
// the device, as micro-batches and layers do.

import type { Attribution } from "./annotations.ts";
import { type Bounds, bounds } from "./bounds.ts";
import { lengthOf, sharedLength, UnionBuilder, unite } from "./intervals.ts";
import { percent, roundUs } from "./statistics.ts";
import type { Work } from "./work.ts";

/** One repetition. */
export interface Phase extends Bounds {
  readonly name: string;
  readonly index: number;
  /** From the first event's start to the last one's end, µs since the table's origin. */
  readonly startUs: number;
  readonly endUs: number;
  readonly events: number;
  /** Of the phase's communication, while any phase computed on the device. */
  readonly overlapUs: number;
  readonly exposedCommunicationUs: number;
  readonly overlapPercent: number;
}

/** Phases, and what they are. */
export interface PhaseAnalysis {
  /** `steps`: profiler steps. `cycles`: a repeating run of annotations. */
  readonly kind: "steps" | "cycles" | "none";
  /** Profiler steps in the trace, also where there is only one. */
  readonly steps: number;
  /** Annotation names of one cycle, in order. */
  readonly cycle: readonly string[];
  readonly phases: readonly Phase[];
}

const stepName = /^ProfilerStep\s*#?\s*\d+$/i;

/** Phases by steps if there are two or more, else by cycles of the innermost annotations. */
export function phases(work: Work, attribution: Attribution): PhaseAnalysis {
  const { table } = work;
  const { annotations, parent } = attribution;
  const names = Array.from(annotations, (row) => table.strings[table.name[row]!]!);
  const steps = names.flatMap((name, a) => (stepName.test(name) ? [a] : []));
  if (steps.length > 1) {
    const phaseOf = new Int32Array(annotations.length).fill(-1);
    steps.forEach((a, index) => {
      phaseOf[a] = index;
    });
    // Parents come before their children.
    for (let a = 0; a < annotations.length; a++) {
      if (phaseOf[a] === -1 && parent[a]! >= 0) phaseOf[a] = phaseOf[parent[a]!]!;
    }
    return {
      kind: "steps",
      steps: steps.length,
      cycle: [],
      phases: measure(
        work,
        attribution,
        phaseOf,
        steps.map((a) => names[a]!),
      ),
    };
  }
  const leaves = leafAnnotations(annotations.length, parent);
  const leafNames = leaves.map((a) => table.name[annotations[a]!]!);
  const period = repeatingCycle(leafNames);
  if (period === 0) return { kind: "none", steps: steps.length, cycle: [], phases: [] };
  const phaseOf = new Int32Array(annotations.length).fill(-1);
  leaves.forEach((a, place) => {
    phaseOf[a] = Math.floor(place / period);
  });
  const count = Math.ceil(leaves.length / period);
  const labels = Array.from({ length: count }, (_, index) => `cycle ${index}`);
  return {
    kind: "cycles",
    steps: steps.length,
    cycle: leafNames.slice(0, period).map((name) => table.strings[name]!),
    phases: measure(work, attribution, phaseOf, labels),
  };
}

function leafAnnotations(count: number, parent: Int32Array): number[] {
  const hasChild = new Uint8Array(count);
  for (const p of parent) if (p >= 0) hasChild[p] = 1;
  return [...hasChild.keys()].filter((a) => hasChild[a] === 0);
}

/** Shortest period of a sequence that repeats at least twice, the last time perhaps cut; else 0. */
function repeatingCycle(sequence: readonly number[]): number {
  const n = sequence.length;
  // Failure function of Knuth, Morris and Pratt: the longest border gives the shortest period.
  const border = new Int32Array(n + 1);
  border[0] = -1;
  for (let i = 0, k = -1; i < n; ) {
    while (k >= 0 && sequence[i] !== sequence[k]) k = border[k]!;
    border[++i] = ++k;
  }
  const period = n - border[n]!;
  return n > 0 && period * 2 <= n ? period : 0;
}

interface Gathering {
  events: number;
  startUs: number;
  endUs: number;
  readonly compute: UnionBuilder[];
  readonly communication: UnionBuilder[];
}

function measure(
  work: Work,
  { of }: Attribution,
  phaseOf: Int32Array,
  names: readonly string[],
): Phase[] {
  const devices = work.devices.length;
  const builders = (): UnionBuilder[] => Array.from({ length: devices }, () => new UnionBuilder());
  const gathered = names.map(
    (): Gathering => ({
      events: 0,
      startUs: Number.POSITIVE_INFINITY,
      endUs: Number.NEGATIVE_INFINITY,
      compute: builders(),
      communication: builders(),
    }),
  );
  work.devices.forEach(({ first, end }, device) => {
    for (let i = first; i < end; i++) {
      const index = of[i]! < 0 ? -1 : phaseOf[of[i]!]!;
      if (index < 0) continue;
      const phase = gathered[index]!;
      phase.events++;
      phase.startUs = Math.min(phase.startUs, work.startUs[i]!);
      phase.endUs = Math.max(phase.endUs, work.endUs[i]!);
      const group = work.group[i]!;
      if (group > 1) continue;
      const union = (group === 0 ? phase.compute : phase.communication)[device]!;
      union.add(work.startUs[i]!, work.endUs[i]!);
    }
  });
  const all = work.devices.map((_, device) => work.timeOf(device, "computation"));
  return gathered.flatMap((phase, index) =>
    phase.events === 0 ? [] : [figures(phase, names[index]!, index, all)],
  );
}

function figures(
  phase: Gathering,
  name: string,
  index: number,
  computing: readonly { length: number; bounds: Float64Array }[],
): Phase {
  let compute = 0;
  let communication = 0;
  let overlap = 0;
  let inside = 0;
  computing.forEach((any, device) => {
    const own = phase.compute[device]!.done();
    const comm = phase.communication[device]!.done();
    compute += lengthOf(own);
    communication += lengthOf(comm);
    overlap += sharedLength(comm, any);
    inside += lengthOf(unite(own, comm));
  });
  const both = compute + communication - inside;
  return {
    name,
    index,
    startUs: roundUs(phase.startUs),
    endUs: roundUs(phase.endUs),
    events: phase.events,
    overlapUs: roundUs(overlap),
    exposedCommunicationUs: roundUs(communication - overlap),
    overlapPercent: percent(overlap, communication),
    ...bounds({
      spanUs: roundUs(phase.endUs - phase.startUs),
      computeUs: roundUs(compute),
      communicationUs: roundUs(communication),
      exposedCommunicationUs: communication - overlap,
      exposedComputeUs: compute - both,
    }),
  };
}
