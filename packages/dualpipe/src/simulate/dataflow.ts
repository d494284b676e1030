// The dataflow simulator: an operation starts when its rank is free and its inputs have arrived; a
// transfer leaves when its producer ends, whatever else the rank does. Times are the unique least
// solution of start = max(rank free, arrivals), so the order in which ranks are visited cannot
// change them. Sends and receives among the operations take no time here; rendezvous.ts minds them.
//
// A rank runs until an input is missing, notes which, and is woken by whoever delivers it. So the
// work is one visit per operation, plus one per wait.

import { OpKind, type RankOps } from "../schedule/schedule.ts";
import { KIND_BITS, KIND_MASK, type Program, packProgram } from "./program.ts";
import { Done, type RunState } from "./run-state.ts";

/** What a rank waits for: an arrival's key twice, plus 1 for a gradient; −1 for nothing. */
const NOTHING = -1;

/** Whether a row's stage is the first or the last of its direction. */
const End = { first: 1, last: 2 } as const;

class Dataflow {
  readonly #state: RunState;
  readonly #words: Int32Array;
  readonly #begins: Int32Array;
  /** Where each rank's next operation lies in the program. */
  readonly #at: Int32Array;
  readonly #ends: Uint8Array;
  readonly #waitsFor: Int32Array;
  readonly #rankOf: Int32Array;
  /** When each exclusive link is free, and the operation its current queue goes back to. */
  readonly #linkFree: Float64Array;
  readonly #linkRoot: Int32Array;
  /** Latest arrival among the inputs of the operation at hand, and what sent it. */
  #ready = 0;
  #readyRank = -1;
  #readyIndex = -1;

  constructor(state: RunState, { words, begins }: Program) {
    const { numStages, numRanks, rankOf } = state.schedule;
    this.#state = state;
    this.#words = words;
    this.#begins = begins;
    this.#at = begins.slice(0, numRanks);
    this.#ends = Uint8Array.from(rankOf, (_, row) => {
      const isFirst = row % numStages === 0;
      const isLast = (row + 1) % numStages === 0;
      return (isFirst ? End.first : 0) | (isLast ? End.last : 0);
    });
    this.#waitsFor = new Int32Array(numRanks).fill(NOTHING);
    this.#rankOf = rankOf;
    this.#linkFree = new Float64Array(state.links.numLinks);
    this.#linkRoot = new Int32Array(state.links.numLinks);
  }

  run(): void {
    const state = this.#state;
    for (let rank = state.next(); rank >= 0; rank = state.next()) this.#advance(rank);
  }

  #advance(rank: number): void {
    const state = this.#state;
    const words = this.#words;
    const ops = state.schedule.ranks[rank] as RankOps;
    const end = this.#begins[rank + 1] as number;
    let at = this.#at[rank] as number;
    let index = state.counter[rank] as number;
    while (at < end) {
      const word = words[at] as number;
      const kind = word & KIND_MASK;
      const isPair = kind === OpKind.FB;
      if (kind <= OpKind.FB) {
        const row = word >> KIND_BITS;
        const key = words[at + 1] as number;
        const back = isPair ? (words[at + 2] as number) >> KIND_BITS : row;
        const backKey = isPair ? (words[at + 3] as number) : key;
        if (!this.#isReady(rank, kind, row, key, back, backKey)) break;
        this.#compute(rank, ops, index, kind, row, key, back, backKey);
      } else if (state.keep.timeline) {
        const now = state.clock[rank] as number;
        state.mark(rank, index, now, now);
      }
      at += isPair ? 4 : 2;
      index++;
    }
    this.#at[rank] = at;
    state.counter[rank] = index;
  }

  /** Whether all inputs have arrived, and when the last did; if not, what the rank waits for. */
  #isReady(
    rank: number,
    kind: number,
    row: number,
    key: number,
    back: number,
    backKey: number,
  ): boolean {
    const { done, arriveF, arriveB } = this.#state;
    this.#ready = 0;
    if (kind === OpKind.W) return ((done[key] as number) & Done.B) !== 0;
    const isForward = kind === OpKind.F || kind === OpKind.FB;
    if (isForward && ((this.#ends[row] as number) & End.first) === 0) {
      const arrival = arriveF[key] as number;
      if (arrival < 0) {
        this.#waitsFor[rank] = key * 2;
        return false;
      }
      this.#arrived(arrival, row - 1, this.#state.causeF, key);
    }
    if (kind === OpKind.F) return true;
    // A rank whose own forward is missing waits for itself: nothing will wake it.
    if (((done[backKey] as number) & Done.F) === 0) return false;
    if (((this.#ends[back] as number) & End.last) !== 0) return true;
    const arrival = arriveB[backKey] as number;
    if (arrival < 0) {
      this.#waitsFor[rank] = backKey * 2 + 1;
      return false;
    }
    this.#arrived(arrival, back + 1, this.#state.causeB, backKey);
    return true;
  }

  #arrived(arrival: number, fromRow: number, causes: Int32Array, key: number): void {
    if (arrival <= this.#ready) return;
    this.#ready = arrival;
    if (!this.#state.keep.causes) return;
    this.#readyRank = this.#rankOf[fromRow] as number;
    this.#readyIndex = causes[key] as number;
  }

  #compute(
    rank: number,
    ops: RankOps,
    index: number,
    kind: number,
    row: number,
    key: number,
    back: number,
    backKey: number,
  ): void {
    const state = this.#state;
    const { times } = state;
    let duration: number;
    if (kind === OpKind.F) duration = times.F[row] as number;
    else if (kind === OpKind.FB) duration = times.pair(row, back);
    else if (kind === OpKind.B) duration = times.B[row] as number;
    else duration = (kind === OpKind.I ? times.I[row] : times.W[row]) as number;
    const free = state.clock[rank] as number;
    const waits = this.#ready > free;
    if (state.keep.causes) {
      if (waits) state.blame(rank, index, this.#readyRank, this.#readyIndex);
      else state.blameOrder(rank, index);
    }
    const end = state.account(rank, ops, index, waits ? this.#ready : free, duration);
    if (kind === OpKind.F || kind === OpKind.FB) this.#sendForward(rank, index, row, key, end);
    if (kind === OpKind.W) state.finish(rank, index, key, Done.W);
    else if (kind !== OpKind.F) this.#sendBackward(rank, index, kind, back, backKey, end);
  }

  #sendForward(rank: number, index: number, row: number, key: number, end: number): void {
    const state = this.#state;
    state.finish(rank, index, key, Done.F);
    if (((this.#ends[row] as number) & End.last) !== 0) return;
    const next = row + 1;
    const { latencyF, bytesTimeF, linkF } = state.links;
    const to = key + (state.rowStride[row] as number);
    let left = end + (bytesTimeF[next] as number);
    let root = index;
    if (linkF !== undefined && (linkF[next] as number) >= 0) {
      const link = linkF[next] as number;
      left = this.#occupy(link, index, end, bytesTimeF[next] as number);
      root = this.#linkRoot[link] as number;
    }
    state.arriveF[to] = left + (latencyF[next] as number);
    if (state.keep.causes) state.causeF[to] = root;
    this.#deliver(this.#rankOf[next] as number, to * 2);
  }

  #sendBackward(
    rank: number,
    index: number,
    kind: number,
    row: number,
    key: number,
    end: number,
  ): void {
    const state = this.#state;
    state.finish(rank, index, key, kind === OpKind.I ? Done.B : Done.B | Done.W);
    if (((this.#ends[row] as number) & End.first) !== 0) return;
    const next = row - 1;
    const { latencyB, bytesTimeB, linkB } = state.links;
    const to = key - (state.rowStride[row] as number);
    let left = end + (bytesTimeB[next] as number);
    let root = index;
    if (linkB !== undefined && (linkB[next] as number) >= 0) {
      const link = linkB[next] as number;
      left = this.#occupy(link, index, end, bytesTimeB[next] as number);
      root = this.#linkRoot[link] as number;
    }
    state.arriveB[to] = left + (latencyB[next] as number);
    if (state.keep.causes) state.causeB[to] = root;
    this.#deliver(this.#rankOf[next] as number, to * 2 + 1);
  }

  /** Puts a transfer on an exclusive link behind those before it; when its last byte has left. */
  #occupy(link: number, index: number, ready: number, bytesTime: number): number {
    const free = this.#linkFree[link] as number;
    // A queue on a link goes back to the operation whose transfer found it idle.
    if (ready >= free) this.#linkRoot[link] = index;
    const left = Math.max(ready, free) + bytesTime;
    this.#linkFree[link] = left;
    return left;
  }

  #deliver(rank: number, what: number): void {
    if (this.#waitsFor[rank] !== what) return;
    this.#waitsFor[rank] = NOTHING;
    this.#state.wake(rank);
  }
}

/** Runs all ranks as far as they can go; the caller looks whether all have come to their end. */
export function runDataflow(state: RunState): void {
  new Dataflow(state, packProgram(state)).run();
}
