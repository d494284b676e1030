// A makespan that no order of the same operations can beat, so that a schedule's gap to the best
// possible is known.
//
// The bound is the one-machine bound of job-shop scheduling (head, body, tail). Take on one rank
// the operations of some classes (forwards; backwards and pairs; weight gradients). None of them
// starts before the shortest chain of dependencies that leads to any of them (head), the rank does
// them one at a time (body), and after the last of them at least the shortest chain that any of
// them still opens must run (tail). So head + body + tail bounds the makespan; the bound is the
// largest over all ranks and all sets of classes. Chains use the shortest duration each stage has
// in this schedule.

import { OpKind, type RankOps, type Schedule } from "../schedule/schedule.ts";
import type { RowLinks } from "./links.ts";
import { durationOf, type OpDurations, type RowTimes } from "./times.ts";

/** A proven bound and where it comes from. */
export interface LowerBound {
  readonly makespan: number;
  /** The rank that is the bottleneck. */
  readonly rank: number;
  /** Before it can begin, what it must do, and what must follow. */
  readonly head: number;
  readonly body: number;
  readonly tail: number;
}

/** Classes of operations; sets of them are bits. */
const Class = { forward: 0, backward: 1, weight: 2 } as const;
const classOf = [Class.forward, Class.backward, Class.backward, Class.weight, Class.backward];

/**
 * Shortest duration with which each row's forward and backward occur, and work by rank and class.
 */
interface Usage {
  readonly forward: Float64Array;
  readonly backward: Float64Array;
  /** Work of a rank by class: `[rank * 3 + class]`. */
  readonly work: Float64Array;
  /** Rows of each rank's operations by class; of a pair, its backward half's. */
  readonly rowsOf: readonly (readonly (readonly number[])[])[];
  /** Whether every micro-batch goes all the way forward, and all the way back. */
  readonly isComplete: boolean;
}

function survey(schedule: Schedule, times: RowTimes, durations?: OpDurations): Usage {
  const { numStages, numDirections, numRanks } = schedule;
  const rows = numStages * numDirections;
  const forward = new Float64Array(rows).fill(Number.POSITIVE_INFINITY);
  const backward = new Float64Array(rows).fill(Number.POSITIVE_INFINITY);
  const work = new Float64Array(numRanks * 3);
  const halves = new Float64Array(2);
  const rowsOf = schedule.ranks.map((ops, rank) => {
    const seen = [new Set<number>(), new Set<number>(), new Set<number>()];
    surveyRank(
      ops,
      rank,
      { numStages, times, durations },
      { forward, backward, work, halves },
      seen,
    );
    return seen.map((set) => [...set]);
  });
  const all = schedule.numMicroBatches * numStages;
  const isComplete = halves[0] === all && halves[1] === all;
  return { forward, backward, work, rowsOf, isComplete };
}

interface Given {
  readonly numStages: number;
  readonly times: RowTimes;
  readonly durations: OpDurations | undefined;
}

function surveyRank(
  ops: RankOps,
  rank: number,
  { numStages, times, durations }: Given,
  into: Pick<Usage, "forward" | "backward" | "work"> & { readonly halves: Float64Array },
  seen: readonly Set<number>[],
): void {
  const { forward, backward, work, halves } = into;
  const byKind = [times.F, times.B, times.I, times.W];
  for (let i = 0; i < ops.length; i++) {
    const kind = ops.kind[i] as number;
    if (kind > OpKind.FB) continue;
    const row = (ops.direction[i] as number) * numStages + (ops.stage[i] as number);
    let back = row;
    let duration: number;
    if (kind === OpKind.FB) {
      back = (ops.pairDirection[i] as number) * numStages + (ops.pairStage[i] as number);
      duration = times.pair(row, back);
    } else duration = byKind[kind]?.[row] as number;
    if (durations !== undefined) duration = durationOf(durations, rank, i, duration);
    if ((kind === OpKind.F || kind === OpKind.FB) && duration < (forward[row] as number)) {
      forward[row] = duration;
    }
    if (kind !== OpKind.F && kind !== OpKind.W && duration < (backward[back] as number)) {
      backward[back] = duration;
    }
    if (kind === OpKind.F || kind === OpKind.FB) halves[0] = (halves[0] as number) + 1;
    if (kind !== OpKind.F && kind !== OpKind.W) halves[1] = (halves[1] as number) + 1;
    const group = classOf[kind] as number;
    work[rank * 3 + group] = (work[rank * 3 + group] as number) + duration;
    if (!seen[group]?.has(back)) seen[group]?.add(back);
  }
}

/** Shortest chains by row: up to the start of F, of B; and from the end of F, of B. */
function chains(schedule: Schedule, links: RowLinks, { forward, backward }: Usage) {
  const { numStages, numDirections } = schedule;
  const rows = numStages * numDirections;
  const [headF, headB] = [new Float64Array(rows), new Float64Array(rows)];
  const [tailF, tailB] = [new Float64Array(rows), new Float64Array(rows)];
  const hopF = (row: number): number =>
    (links.latencyF[row] as number) + (links.bytesTimeF[row] as number);
  const hopB = (row: number): number =>
    (links.latencyB[row] as number) + (links.bytesTimeB[row] as number);
  const length = (values: Float64Array, row: number): number =>
    Number.isFinite(values[row]) ? (values[row] as number) : 0;
  for (let direction = 0; direction < numDirections; direction++) {
    const first = direction * numStages;
    const last = first + numStages - 1;
    for (let row = first + 1; row <= last; row++) {
      headF[row] = (headF[row - 1] as number) + length(forward, row - 1) + hopF(row);
      tailB[row] = (tailB[row - 1] as number) + length(backward, row - 1) + hopB(row - 1);
    }
    headB[last] = (headF[last] as number) + length(forward, last);
    tailF[last] = length(backward, last) + (tailB[last] as number);
    for (let row = last - 1; row >= first; row--) {
      headB[row] = (headB[row + 1] as number) + length(backward, row + 1) + hopB(row);
      tailF[row] = (tailF[row + 1] as number) + length(forward, row + 1) + hopF(row + 1);
    }
  }
  return { headF, headB, tailF, tailB };
}

/** The largest head + body + tail over all ranks and classes of operations. */
export function lowerBound(
  schedule: Schedule,
  times: RowTimes,
  links: RowLinks,
  durations?: OpDurations,
): LowerBound {
  const usage = survey(schedule, times, durations);
  const { headF, headB, tailF, tailB } = chains(schedule, links, usage);
  let best: LowerBound = { makespan: 0, rank: 0, head: 0, body: 0, tail: 0 };
  for (let rank = 0; rank < schedule.numRanks; rank++) {
    const rows = usage.rowsOf[rank] as readonly (readonly number[])[];
    const least = (group: number, values: Float64Array): number =>
      Math.min(...(rows[group] as readonly number[]).map((row) => values[row] as number));
    // A pair holds a forward too: it starts no earlier than its backward half, and ends no later.
    const weightHeads = (rows[2] as readonly number[]).map(
      (row) => (headB[row] as number) + (usage.backward[row] as number),
    );
    const heads = [least(0, headF), least(1, headB), Math.min(...weightHeads)];
    // A forward that nothing comes back from opens no chain.
    const tails = usage.isComplete ? [least(0, tailF), least(1, tailB), 0] : [0, 0, 0];
    for (let set = 1; set < 8; set++) {
      const groups = [0, 1, 2].filter(
        (group) => set & (1 << group) && (rows[group] as readonly number[]).length > 0,
      );
      if (groups.length === 0) continue;
      const head = Math.min(...groups.map((group) => heads[group] as number));
      const tail = Math.min(...groups.map((group) => tails[group] as number));
      const body = groups.reduce((sum, g) => sum + (usage.work[rank * 3 + g] as number), 0);
      const makespan = head + body + tail;
      if (makespan > best.makespan) best = { makespan, rank, head, body, tail };
    }
  }
  return best;
}
