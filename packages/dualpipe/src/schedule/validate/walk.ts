// The second part of validation: runs all ranks without times, each until it waits, and sees
// whether all come to their end. It needs a sound structure: everything once and on its rank.

import { CellIndex } from "../cell-index.ts";
import { OpKind, type RankOps, type Schedule } from "../schedule.ts";
import { formatOp } from "../text.ts";
import type { Violations } from "./violations.ts";

/** How strictly cells wait for transfers; see the head of `communication.ts`. */
export type Reading = "dataflow" | "rendezvous";

/** Bits of a cell's state. */
const forwardDone = 1;
const backwardDone = 2;
/** The input of the forward, or the output's gradient of the backward, has come from its rank. */
const inputCame = 4;
const gradientCame = 8;
/** One of the two ends of that transfer is posted. */
const inputHalf = 16;
const gradientHalf = 32;

/** What a stalled rank waits for. */
interface Wait {
  readonly rank: number;
  readonly position: number;
  /** Who could end it; −1 for nobody. */
  readonly peer: number;
  readonly what: string;
}

class Walk {
  readonly #schedule: Schedule;
  readonly #cells: CellIndex;
  readonly #state: Uint8Array;
  readonly #positions: Int32Array;
  /** Ends that a rank has posted and that have not met their peer. */
  readonly #open: Int32Array;
  readonly #awake: number[] = [];
  readonly #isAwake: Uint8Array;
  readonly #meets: boolean;

  constructor(schedule: Schedule, reading: Reading) {
    this.#schedule = schedule;
    this.#cells = new CellIndex(schedule);
    this.#state = new Uint8Array(this.#cells.size);
    this.#positions = new Int32Array(schedule.numRanks);
    this.#open = new Int32Array(schedule.numRanks);
    this.#isAwake = new Uint8Array(schedule.numRanks);
    this.#meets = reading === "rendezvous";
  }

  run(): void {
    for (let rank = this.#schedule.numRanks - 1; rank >= 0; rank--) this.#wake(rank);
    for (let rank = this.#awake.pop(); rank !== undefined; rank = this.#awake.pop()) {
      this.#isAwake[rank] = 0;
      this.#advance(rank);
    }
  }

  /** Ranks that stand still, in order of rank. */
  stalled(): Wait[] {
    return this.#schedule.ranks.flatMap((ops, rank) => {
      const position = this.#positions[rank] as number;
      return position < ops.length ? [this.#waitOf(rank, ops, position)] : [];
    });
  }

  #wake(rank: number): void {
    if (this.#isAwake[rank] === 1) return;
    this.#isAwake[rank] = 1;
    this.#awake.push(rank);
  }

  #advance(rank: number): void {
    const ops = this.#schedule.ranks[rank] as RankOps;
    let i = this.#positions[rank] as number;
    for (; i < ops.length; i++) {
      const kind = ops.kind[i] as OpKind;
      if (kind >= OpKind.SendF) this.#postEnd(rank, ops, i, kind);
      else if ((this.#meets && this.#open[rank] !== 0) || !this.#isReady(rank, ops, i)) break;
      else this.#finish(rank, ops, i);
    }
    this.#positions[rank] = i;
  }

  #postEnd(rank: number, ops: RankOps, i: number, kind: OpKind): void {
    const d = ops.direction[i] as number;
    const s = ops.stage[i] as number;
    const m = ops.microBatch[i] as number;
    const isForward = kind === OpKind.SendF || kind === OpKind.RecvF;
    const isSend = kind === OpKind.SendF || kind === OpKind.SendB;
    // A transfer is known by the cell that receives it.
    const receiver = isSend ? (isForward ? s + 1 : s - 1) : s;
    const sender = isForward ? receiver - 1 : receiver + 1;
    const cell = this.#cells.at(d, receiver, m);
    const state = this.#state[cell] as number;
    const half = isForward ? inputHalf : gradientHalf;
    if ((state & half) === 0) {
      this.#state[cell] = state | half;
      this.#open[rank] = (this.#open[rank] as number) + 1;
      return;
    }
    this.#state[cell] = state | (isForward ? inputCame : gradientCame);
    const peer = this.#cells.rankOf(d, isSend ? receiver : sender);
    this.#open[peer] = (this.#open[peer] as number) - 1;
    this.#wake(peer);
  }

  #isReady(rank: number, ops: RankOps, i: number): boolean {
    const kind = ops.kind[i] as OpKind;
    const d = ops.direction[i] as number;
    const s = ops.stage[i] as number;
    const m = ops.microBatch[i] as number;
    switch (kind) {
      case OpKind.F:
        return this.#hasInput(rank, d, s, m);
      case OpKind.W:
        return this.#has(d, s, m, backwardDone);
      case OpKind.FB: {
        const pd = ops.pairDirection[i] as number;
        const ps = ops.pairStage[i] as number;
        const pm = ops.pairMicroBatch[i] as number;
        return this.#hasInput(rank, d, s, m) && this.#hasGradient(rank, pd, ps, pm);
      }
      default:
        return this.#hasGradient(rank, d, s, m);
    }
  }

  #has(d: number, s: number, m: number, bit: number): boolean {
    return ((this.#state[this.#cells.at(d, s, m)] as number) & bit) !== 0;
  }

  #crosses(rank: number, d: number, s: number): boolean {
    return this.#schedule.hasCommunication && this.#cells.rankOf(d, s) !== rank;
  }

  #hasInput(rank: number, d: number, s: number, m: number): boolean {
    if (s === 0) return true;
    if (this.#crosses(rank, d, s - 1)) return this.#has(d, s, m, inputCame);
    return this.#has(d, s - 1, m, forwardDone);
  }

  #hasGradient(rank: number, d: number, s: number, m: number): boolean {
    if (!this.#has(d, s, m, forwardDone)) return false;
    if (s === this.#schedule.numStages - 1) return true;
    if (this.#crosses(rank, d, s + 1)) return this.#has(d, s, m, gradientCame);
    return this.#has(d, s + 1, m, backwardDone);
  }

  #finish(rank: number, ops: RankOps, i: number): void {
    const kind = ops.kind[i] as OpKind;
    if (kind === OpKind.W) return;
    const d = ops.direction[i] as number;
    const s = ops.stage[i] as number;
    const m = ops.microBatch[i] as number;
    const forward = kind === OpKind.F || kind === OpKind.FB;
    this.#mark(rank, d, s, m, forward);
    if (kind !== OpKind.FB) return;
    const pd = ops.pairDirection[i] as number;
    const ps = ops.pairStage[i] as number;
    this.#mark(rank, pd, ps, ops.pairMicroBatch[i] as number, false);
  }

  #mark(rank: number, d: number, s: number, m: number, forward: boolean): void {
    const cell = this.#cells.at(d, s, m);
    this.#state[cell] = (this.#state[cell] as number) | (forward ? forwardDone : backwardDone);
    if (this.#schedule.hasCommunication) return;
    const peer = this.#cells.rankOf(d, forward ? s + 1 : s - 1);
    if (peer >= 0 && peer !== rank) this.#wake(peer);
  }

  #waitOf(rank: number, ops: RankOps, position: number): Wait {
    if (this.#meets && this.#open[rank] !== 0) {
      const end = this.#firstOpenEnd(ops, position);
      const { peer, name } = this.#peerOf(ops, end);
      const posted = formatOp(this.#schedule, ops, end);
      return { rank, position, peer, what: `${posted} to meet ${name} of rank ${peer}` };
    }
    const d = ops.direction[position] as number;
    const s = ops.stage[position] as number;
    const m = ops.microBatch[position] as number;
    const kind = ops.kind[position] as OpKind;
    if (kind === OpKind.F || (kind === OpKind.FB && !this.#hasInput(rank, d, s, m))) {
      return { rank, position, peer: this.#cells.rankOf(d, s - 1), what: "its input" };
    }
    const [bd, bs, bm] =
      kind === OpKind.FB
        ? [ops.pairDirection[position], ops.pairStage[position], ops.pairMicroBatch[position]]
        : [d, s, m];
    if (kind === OpKind.W || !this.#has(bd as number, bs as number, bm as number, forwardDone)) {
      return { rank, position, peer: rank, what: "an earlier cell of its own rank" };
    }
    const peer = this.#cells.rankOf(bd as number, (bs as number) + 1);
    return { rank, position, peer, what: "its output's gradient" };
  }

  #firstOpenEnd(ops: RankOps, position: number): number {
    for (let i = 0; i < position; i++) {
      const kind = ops.kind[i] as OpKind;
      if (kind < OpKind.SendF) continue;
      const s = ops.stage[i] as number;
      const isForward = kind === OpKind.SendF || kind === OpKind.RecvF;
      const step = isForward ? 1 : -1;
      const isSend = kind === OpKind.SendF || kind === OpKind.SendB;
      const cell = isSend ? s + step : s;
      const came = isForward ? inputCame : gradientCame;
      if (!this.#has(ops.direction[i] as number, cell, ops.microBatch[i] as number, came)) return i;
    }
    return position;
  }

  /** Rank and name of the other end of a transfer. */
  #peerOf(ops: RankOps, i: number): { readonly peer: number; readonly name: string } {
    const kind = ops.kind[i] as OpKind;
    const d = ops.direction[i] as number;
    const s = ops.stage[i] as number;
    const away = kind === OpKind.SendF || kind === OpKind.RecvB ? 1 : -1;
    const isSend = kind === OpKind.SendF || kind === OpKind.SendB;
    const isForward = kind === OpKind.SendF || kind === OpKind.RecvF;
    const word = `${isSend ? "RECV" : "SEND"}_${isForward ? "F" : "B"}`;
    const name = `${word} of stage ${s + away}, micro-batch ${ops.microBatch[i]}`;
    return { peer: this.#cells.rankOf(d, s + away), name };
  }
}

/** The circle that the waits run into, from the first stalled rank. */
function circle(waits: readonly Wait[]): Wait[] {
  const byRank = new Map(waits.map((wait) => [wait.rank, wait]));
  const path: Wait[] = [];
  for (let wait = waits[0]; wait !== undefined; wait = byRank.get(wait.peer)) {
    const again = path.indexOf(wait);
    if (again >= 0) return path.slice(again);
    path.push(wait);
  }
  return path;
}

const namedMax = 6;

function stalledRanks(schedule: Schedule, reading: Reading): Wait[] {
  const walk = new Walk(schedule, reading);
  walk.run();
  return walk.stalled();
}

/** Reports the ranks that wait for each other, if any do. */
function report(
  schedule: Schedule,
  reading: Reading,
  waits: readonly Wait[],
  found: Violations,
): void {
  const ring = circle(waits);
  const [first] = ring;
  if (first === undefined) return;
  const named = ring.slice(0, namedMax).map(({ rank, position, what }) => {
    const op = formatOp(schedule, schedule.ranks[rank] as RankOps, position);
    return `rank ${rank} at operation ${position}, ${op}, waits for ${what}`;
  });
  const more = ring.length > namedMax ? `; and ${ring.length - namedMax} more ranks` : "";
  const what = `in ${reading} order ${waits.length} ranks stand still: ${named.join("; ")}${more}`;
  found.at("deadlock", first.rank, first.position, what);
}

/**
 * Reports deadlocks and returns the readings that it looked at: both if the schedule has
 * communication, dataflow alone if not. What ends as rendezvous ends in dataflow order too, which
 * waits for less; so the second walk is for schedules that do not.
 */
export function checkDeadlock(schedule: Schedule, found: Violations): readonly Reading[] {
  if (!schedule.hasCommunication) {
    report(schedule, "dataflow", stalledRanks(schedule, "dataflow"), found);
    return ["dataflow"];
  }
  const waits = stalledRanks(schedule, "rendezvous");
  if (waits.length > 0) {
    report(schedule, "dataflow", stalledRanks(schedule, "dataflow"), found);
    report(schedule, "rendezvous", waits, found);
  }
  return ["dataflow", "rendezvous"];
}
