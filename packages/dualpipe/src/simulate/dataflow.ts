// The dataflow simulator: an operation starts when its rank is free and its inputs have arrived; a
// transfer leaves when its producer ends, whatever else the rank does. Times are the unique least
// solution of start = max(rank free, arrivals), so the order in which ranks are visited cannot
// change them. Sends and receives among the operations take no time here; rendezvous.ts minds them.
//
// A rank runs until an input is missing, notes which, and is woken by whoever delivers it. So the
// work is one visit per operation, plus one per wait.

import { OpKind, type RankOps } from "../schedule/schedule.ts";
import { Done, type RunState } from "./run-state.ts";

/** What a rank waits for: an arrival's key twice, plus 1 for a gradient; −1 for nothing. */
const NOTHING = -1;

class Dataflow {
  readonly state: RunState;
  readonly #waitsFor: Int32Array;
  readonly #numStages: number;
  /** When each exclusive link is free, and the operation its current queue goes back to. */
  readonly #linkFree: Float64Array;
  readonly #linkRoot: Int32Array;
  /** Latest arrival among the inputs of the operation at hand, and what sent it. */
  #ready = 0;
  #readyRank = -1;
  #readyIndex = -1;

  constructor(state: RunState) {
    this.state = state;
    this.#waitsFor = new Int32Array(state.schedule.numRanks).fill(NOTHING);
    this.#numStages = state.schedule.numStages;
    this.#linkFree = new Float64Array(state.links.numLinks);
    this.#linkRoot = new Int32Array(state.links.numLinks);
  }

  run(): void {
    const { state } = this;
    for (let rank = state.next(); rank >= 0; rank = state.next()) this.#advance(rank);
  }

  #advance(rank: number): void {
    const { state } = this;
    const ops = state.schedule.ranks[rank] as RankOps;
    let index = state.counter[rank] as number;
    while (index < ops.length) {
      const kind = ops.kind[index] as number;
      if (kind >= OpKind.SendF) {
        const now = state.clock[rank] as number;
        if (state.keep.timeline) state.mark(rank, index, now, now);
      } else if (!this.#compute(rank, ops, index, kind)) break;
      index++;
    }
    state.counter[rank] = index;
  }

  /** Runs one operation, or says what it waits for and returns false. */
  #compute(rank: number, ops: RankOps, index: number, kind: number): boolean {
    const { state } = this;
    const row = (ops.direction[index] as number) * this.#numStages + (ops.stage[index] as number);
    const key = state.key(rank, index, row, ops.microBatch[index] as number);
    this.#ready = 0;
    if (kind === OpKind.F) {
      if (!this.#forwardReady(rank, row, key)) return false;
      const end = this.#execute(rank, ops, index, state.times.F[row] as number);
      this.#finishForward(rank, index, row, key, end);
    } else if (kind === OpKind.FB) {
      return this.#computePair(rank, ops, index, row, key);
    } else if (kind === OpKind.W) {
      if (((state.done[key] as number) & Done.B) === 0) return false;
      this.#execute(rank, ops, index, state.times.W[row] as number);
      state.finish(rank, index, key, Done.W);
    } else {
      if (!this.#backwardReady(rank, row, key)) return false;
      const durations = kind === OpKind.B ? state.times.B : state.times.I;
      const end = this.#execute(rank, ops, index, durations[row] as number);
      this.#finishBackward(rank, index, row, key, end);
      if (kind === OpKind.B) state.finish(rank, index, key, Done.W);
    }
    return true;
  }

  #computePair(rank: number, ops: RankOps, index: number, row: number, key: number): boolean {
    const { state } = this;
    const pairStage = ops.pairStage[index] as number;
    const pairRow = (ops.pairDirection[index] as number) * this.#numStages + pairStage;
    const pairKey = state.key(rank, index, pairRow, ops.pairMicroBatch[index] as number);
    if (!this.#forwardReady(rank, row, key)) return false;
    if (!this.#backwardReady(rank, pairRow, pairKey)) return false;
    const end = this.#execute(rank, ops, index, state.times.pair(row, pairRow));
    this.#finishForward(rank, index, row, key, end);
    this.#finishBackward(rank, index, pairRow, pairKey, end);
    state.finish(rank, index, pairKey, Done.W);
    return true;
  }

  #forwardReady(rank: number, row: number, key: number): boolean {
    if (row % this.#numStages === 0) return true;
    const { state } = this;
    const arrival = state.arriveF[key] as number;
    if (arrival < 0) {
      this.#waitsFor[rank] = key * 2;
      return false;
    }
    if (arrival > this.#ready) {
      this.#ready = arrival;
      if (state.keep.causes) {
        this.#readyRank = state.schedule.rankOf[row - 1] as number;
        this.#readyIndex = state.causeF[key] as number;
      }
    }
    return true;
  }

  #backwardReady(rank: number, row: number, key: number): boolean {
    const { state } = this;
    // A rank whose own forward is missing waits for itself: nothing will wake it.
    if (((state.done[key] as number) & Done.F) === 0) return false;
    if ((row + 1) % this.#numStages === 0) return true;
    const arrival = state.arriveB[key] as number;
    if (arrival < 0) {
      this.#waitsFor[rank] = key * 2 + 1;
      return false;
    }
    if (arrival > this.#ready) {
      this.#ready = arrival;
      if (state.keep.causes) {
        this.#readyRank = state.schedule.rankOf[row + 1] as number;
        this.#readyIndex = state.causeB[key] as number;
      }
    }
    return true;
  }

  #execute(rank: number, ops: RankOps, index: number, duration: number): number {
    const { state } = this;
    const free = state.clock[rank] as number;
    const waits = this.#ready > free;
    if (state.keep.causes) {
      if (waits) state.blame(rank, index, this.#readyRank, this.#readyIndex);
      else state.blameOrder(rank, index);
    }
    return state.account(rank, ops, index, waits ? this.#ready : free, duration);
  }

  #finishForward(rank: number, index: number, row: number, key: number, end: number): void {
    const { state } = this;
    state.finish(rank, index, key, Done.F);
    const next = row + 1;
    if (next % this.#numStages === 0) return;
    const { latencyF, bytesTimeF, linkF } = state.links;
    const to = key + (state.rowStride[row] as number);
    let depart = end + (bytesTimeF[next] as number);
    let root = index;
    if (linkF !== undefined && (linkF[next] as number) >= 0) {
      const link = linkF[next] as number;
      depart = this.#occupy(link, index, end, bytesTimeF[next] as number);
      root = this.#linkRoot[link] as number;
    }
    state.arriveF[to] = depart + (latencyF[next] as number);
    if (state.keep.causes) state.causeF[to] = root;
    this.#deliver(state.schedule.rankOf[next] as number, to * 2);
  }

  #finishBackward(rank: number, index: number, row: number, key: number, end: number): void {
    const { state } = this;
    state.finish(rank, index, key, Done.B);
    if (row % this.#numStages === 0) return;
    const next = row - 1;
    const { latencyB, bytesTimeB, linkB } = state.links;
    const to = key - (state.rowStride[row] as number);
    let depart = end + (bytesTimeB[next] as number);
    let root = index;
    if (linkB !== undefined && (linkB[next] as number) >= 0) {
      const link = linkB[next] as number;
      depart = this.#occupy(link, index, end, bytesTimeB[next] as number);
      root = this.#linkRoot[link] as number;
    }
    state.arriveB[to] = depart + (latencyB[next] as number);
    if (state.keep.causes) state.causeB[to] = root;
    this.#deliver(state.schedule.rankOf[next] as number, to * 2 + 1);
  }

  /** Puts a transfer on an exclusive link behind those before it; when its last byte has left. */
  #occupy(link: number, index: number, ready: number, bytesTime: number): number {
    const free = this.#linkFree[link] as number;
    const begin = Math.max(ready, free);
    // A queue on a link goes back to the operation whose transfer found it idle.
    if (ready >= free) this.#linkRoot[link] = index;
    const left = begin + bytesTime;
    this.#linkFree[link] = left;
    return left;
  }

  #deliver(rank: number, what: number): void {
    if (this.#waitsFor[rank] !== what) return;
    this.#waitsFor[rank] = NOTHING;
    this.state.wake(rank);
  }
}

/** Runs all ranks as far as they can go; the caller looks whether all have come to their end. */
export function runDataflow(state: RunState): void {
  new Dataflow(state).run();
}
