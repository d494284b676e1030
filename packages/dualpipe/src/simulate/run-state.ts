// What both simulators (dataflow and rendezvous) keep while they run: which operations are done,
// when inputs arrive, each rank's clock and where it stood idle, and the queue of ranks that can go
// on. All of it is typed arrays, so that a thousand ranks times thousands of micro-batches stay in
// memory; no object is made per operation.

import { InputError } from "@open-infra/errors";
import { OpKind, opKindNames, type RankOps, type Schedule } from "../schedule/schedule.ts";
import type { RowLinks } from "./links.ts";
import { durationOf, type OpDurations, type RowTimes } from "./times.ts";

/** Bits of `RunState.done`. */
export const Done = { F: 1, B: 2, W: 4 } as const;

/** What to keep beside the totals. */
export interface Keep {
  /** Start and end of each operation. */
  readonly timeline: boolean;
  /** What each operation waited for last. */
  readonly causes: boolean;
}

/** Start, end and cause of one rank's operations; empty where not kept. */
export interface RankRecord {
  readonly start: Float64Array;
  readonly end: Float64Array;
  /** The operation that ended last of all this one waited for; −1 where it began at time 0. */
  readonly causeRank: Int32Array;
  readonly causeIndex: Int32Array;
}

/** Idle time by where in the run it fell; indexed `[rank]`, and `[rank * numPhases + phase]`. */
export interface IdleBook {
  /** Before the rank's first backward. */
  readonly warmUp: Float64Array;
  /** Between its first backward and its last forward. */
  readonly steady: Float64Array;
  /** After its last forward, up to the end of the whole run. */
  readonly coolDown: Float64Array;
  /** After its last operation. */
  readonly afterEnd: Float64Array;
  /** By the builder's phase of the operation that was waited for. */
  readonly byPhase: Float64Array;
  readonly numPhases: number;
}

function countPhases(schedule: Schedule): number {
  let most = 0;
  for (const { phase } of schedule.ranks) {
    for (let i = 0; i < phase.length; i++) most = Math.max(most, phase[i] as number);
  }
  return most + 1;
}

/** Clocks, arrivals and books of one simulated step; both simulators write them. */
export class RunState {
  readonly schedule: Schedule;
  readonly times: RowTimes;
  readonly links: RowLinks;
  /** First key of each row: the key of a micro-batch on it is `rowBase[row] + microBatch`. */
  readonly rowBase: Int32Array;
  /** Micro-batches of each row's direction: what lies between a key and the next stage's. */
  readonly rowStride: Int32Array;
  /** When the input of a forward, and the output's gradient of a backward, arrive; −1: not yet. */
  readonly arriveF: Float64Array;
  readonly arriveB: Float64Array;
  /** Index of the operation on the sending rank that an arrival goes back to; empty if not kept. */
  readonly causeF: Int32Array;
  readonly causeB: Int32Array;
  readonly done: Uint8Array;
  /** Next operation of each rank. */
  readonly counter: Int32Array;
  /** When each rank's last operation ended. */
  readonly clock: Float64Array;
  readonly busy: Float64Array;
  readonly idle: IdleBook;
  readonly keep: Keep;
  readonly records: readonly RankRecord[];
  /** Index of the operation each rank computed last; −1 at first. */
  readonly last: Int32Array;

  readonly #queue: Int32Array;
  #head = 0;
  #waiting = 0;
  /** Index of each rank's first backward and last forward: what lies around the steady part. */
  readonly #firstBackward: Int32Array;
  readonly #lastForward: Int32Array;

  readonly #durations: OpDurations | undefined;

  constructor(
    schedule: Schedule,
    times: RowTimes,
    links: RowLinks,
    keep: Keep,
    durations?: OpDurations,
  ) {
    this.#durations = durations;
    const { numRanks, numStages, numDirections, microBatchesOf } = schedule;
    this.schedule = schedule;
    this.times = times;
    this.links = links;
    this.keep = keep;
    const rows = numStages * numDirections;
    this.rowBase = new Int32Array(rows);
    this.rowStride = new Int32Array(rows);
    let keys = 0;
    for (let row = 0; row < rows; row++) {
      this.rowBase[row] = keys;
      this.rowStride[row] = microBatchesOf[Math.floor(row / numStages)] ?? 0;
      keys += this.rowStride[row] as number;
    }
    this.arriveF = new Float64Array(keys).fill(-1);
    this.arriveB = new Float64Array(keys).fill(-1);
    this.causeF = new Int32Array(keep.causes ? keys : 0);
    this.causeB = new Int32Array(keep.causes ? keys : 0);
    this.done = new Uint8Array(keys);
    this.counter = new Int32Array(numRanks);
    this.clock = new Float64Array(numRanks);
    this.busy = new Float64Array(numRanks);
    this.last = new Int32Array(numRanks).fill(-1);
    this.#queue = Int32Array.from({ length: numRanks }, (_, rank) => rank);
    this.#waiting = numRanks;
    this.#firstBackward = Int32Array.from(schedule.ranks, firstBackward);
    this.#lastForward = Int32Array.from(schedule.ranks, lastForward);
    const numPhases = countPhases(schedule);
    this.idle = {
      warmUp: new Float64Array(numRanks),
      steady: new Float64Array(numRanks),
      coolDown: new Float64Array(numRanks),
      afterEnd: new Float64Array(numRanks),
      byPhase: new Float64Array(numRanks * numPhases),
      numPhases,
    };
    this.records = schedule.ranks.map(({ length }) => ({
      start: new Float64Array(keep.timeline ? length : 0),
      end: new Float64Array(keep.timeline ? length : 0),
      causeRank: new Int32Array(keep.causes ? length : 0),
      causeIndex: new Int32Array(keep.causes ? length : 0),
    }));
  }

  /** A rank that may go on; −1 when none can. A rank stands in the queue at most once. */
  next(): number {
    if (this.#waiting === 0) return -1;
    const rank = this.#queue[this.#head] as number;
    this.#head = this.#head + 1 === this.#queue.length ? 0 : this.#head + 1;
    this.#waiting--;
    return rank;
  }

  /** Queues a rank that was blocked and no longer is. */
  wake(rank: number): void {
    let at = this.#head + this.#waiting;
    if (at >= this.#queue.length) at -= this.#queue.length;
    this.#queue[at] = rank;
    this.#waiting++;
  }

  /** Key of a half of an operation; refuses what another rank or no micro-batch has. */
  key(rank: number, index: number, row: number, microBatch: number): number {
    if (
      this.schedule.rankOf[row] !== rank ||
      microBatch < 0 ||
      microBatch >= (this.rowStride[row] as number)
    ) {
      throw misplaced(this.schedule, rank, index, row, microBatch);
    }
    return (this.rowBase[row] as number) + microBatch;
  }

  /**
   * Notes that an operation ran from `start`, for its own duration or `usual`, and the gap before
   * it; gives its end.
   */
  account(rank: number, ops: RankOps, index: number, start: number, usual: number): number {
    const duration = this.durationOf(rank, index, usual);
    const end = start + duration;
    const gap = start - (this.clock[rank] as number);
    if (gap > 0) this.noteGap(rank, ops.phase[index] as number, index, gap);
    this.busy[rank] = (this.busy[rank] as number) + duration;
    this.last[rank] = index;
    this.clock[rank] = end;
    if (this.keep.timeline) this.mark(rank, index, start, end);
    return end;
  }

  /** The operation's own duration where it has one, else `usual`. */
  durationOf(rank: number, index: number, usual: number): number {
    const own = this.#durations;
    return own === undefined ? usual : durationOf(own, rank, index, usual);
  }

  /** Books idle time of a rank before operation `index`. */
  noteGap(rank: number, phase: number, index: number, gap: number): void {
    const { byPhase, numPhases, warmUp, steady, coolDown } = this.idle;
    const cell = rank * numPhases + phase;
    byPhase[cell] = (byPhase[cell] as number) + gap;
    let book = coolDown;
    if (index <= (this.#firstBackward[rank] as number)) book = warmUp;
    else if (index <= (this.#lastForward[rank] as number)) book = steady;
    book[rank] = (book[rank] as number) + gap;
  }

  /** Keeps when an operation began and ended. */
  mark(rank: number, index: number, start: number, end: number): void {
    const record = this.records[rank] as RankRecord;
    record.start[index] = start;
    record.end[index] = end;
  }

  /** Keeps what an operation waited for last. */
  blame(rank: number, index: number, causeRank: number, causeIndex: number): void {
    const record = this.records[rank] as RankRecord;
    record.causeRank[index] = causeRank;
    record.causeIndex[index] = causeIndex;
  }

  /** Keeps that an operation waited for the one before it on its rank, if there is one. */
  blameOrder(rank: number, index: number): void {
    const last = this.last[rank] as number;
    this.blame(rank, index, last < 0 ? -1 : rank, last);
  }

  /** Sets one bit of a key; refuses an operation that is done twice. */
  finish(rank: number, index: number, key: number, bit: number): void {
    const before = this.done[key] as number;
    if ((before & bit) !== 0) throw repeated(this.schedule, rank, index);
    this.done[key] = before | bit;
  }

  /** After the last rank: the makespan, and each rank's idle time up to it. */
  close(): number {
    let makespan = 0;
    for (const end of this.clock) makespan = Math.max(makespan, end);
    for (let rank = 0; rank < this.clock.length; rank++) {
      const after = makespan - (this.clock[rank] as number);
      this.idle.afterEnd[rank] = after;
      this.idle.coolDown[rank] = (this.idle.coolDown[rank] as number) + after;
    }
    return makespan;
  }
}

/** Index of a rank's first backward; its length if it has none. */
function firstBackward({ kind, length }: RankOps): number {
  const isBackward = (k: number): boolean => k > OpKind.F && k <= OpKind.FB;
  const index = kind.findIndex(isBackward);
  return index < 0 ? length : index;
}

/** Index of a rank's last forward; −1 if it has none. */
function lastForward({ kind }: RankOps): number {
  return kind.findLastIndex((k) => k === OpKind.F || k === OpKind.FB);
}

function misplaced(
  schedule: Schedule,
  rank: number,
  index: number,
  row: number,
  microBatch: number,
): InputError {
  const { numStages, rankOf, microBatchesOf } = schedule;
  const direction = Math.floor(row / numStages);
  const name = opKindNames[schedule.ranks[rank]?.kind[index] as number];
  const parameter = `schedule.ranks[${rank}] operation ${index} (${name})`;
  const got = `direction ${direction}, stage ${row % numStages}, micro-batch ${microBatch}`;
  if (rankOf[row] !== rank) {
    return new InputError(parameter, got, `a stage of rank ${rank}; this one is on ${rankOf[row]}`);
  }
  return new InputError(parameter, got, `a micro-batch below ${microBatchesOf[direction]}`);
}

function repeated(schedule: Schedule, rank: number, index: number): InputError {
  const ops = schedule.ranks[rank] as RankOps;
  const name = opKindNames[ops.kind[index] as number];
  const what = `direction ${ops.direction[index]}, stage ${ops.stage[index]}`;
  return new InputError(
    `schedule.ranks[${rank}] operation ${index}`,
    `${name} of ${what}, micro-batch ${ops.microBatch[index]} again`,
    "each micro-batch once per stage and kind",
  );
}
