// The rendezvous simulator: sends and receives stand among the operations, those between two
// computations are posted together, and the next computation starts only when every one of them has
// met its peer and the transfer is over. That is how batched point-to-point calls behave when
// nothing buffers; a schedule that only works with buffers stops here, and the caller says who
// waits for whom.
//
// A transfer begins when both ends are posted. With zero latency the makespan of a sound schedule
// is that of the dataflow simulator.

import { InputError } from "@open-infra/errors";
import { OpKind, opKindNames, type RankOps } from "../schedule/schedule.ts";
import { Done, type RunState } from "./run-state.ts";

const NOT_POSTED = -1;

class Rendezvous {
  readonly state: RunState;
  readonly #numStages: number;
  /** When the first of the two ends of a transfer was posted; by the receiver's key, F then B. */
  readonly #posted: Float64Array;
  /** That end's rank's last computation before it, and its own index, for the records. */
  readonly #postedCause: Int32Array;
  readonly #postedIndex: Int32Array;
  /** Transfers a rank has posted that have not met. */
  readonly #open: Int32Array;
  /** When the latest of a rank's transfers that met is over, and what it waited for. */
  readonly #over: Float64Array;
  readonly #overRank: Int32Array;
  readonly #overCause: Int32Array;
  readonly #blocked: Uint8Array;

  constructor(state: RunState) {
    this.state = state;
    const { numRanks, numStages } = state.schedule;
    this.#numStages = numStages;
    this.#posted = new Float64Array(state.done.length * 2).fill(NOT_POSTED);
    this.#postedCause = new Int32Array(state.keep.causes ? this.#posted.length : 0);
    this.#postedIndex = new Int32Array(state.keep.timeline ? this.#posted.length : 0);
    this.#open = new Int32Array(numRanks);
    this.#over = new Float64Array(numRanks);
    this.#overRank = new Int32Array(numRanks).fill(-1);
    this.#overCause = new Int32Array(numRanks).fill(-1);
    this.#blocked = new Uint8Array(numRanks);
  }

  run(): void {
    const { state } = this;
    for (let rank = state.next(); rank >= 0; rank = state.next()) this.#advance(rank);
    // A rank whose last sends never met has not come to its end.
    for (let rank = 0; rank < this.#open.length; rank++) {
      const length = state.schedule.ranks[rank]?.length ?? 0;
      if (this.#open[rank] !== 0 && state.counter[rank] === length)
        state.counter[rank] = length - 1;
    }
  }

  #advance(rank: number): void {
    const { state } = this;
    const ops = state.schedule.ranks[rank] as RankOps;
    this.#blocked[rank] = 0;
    let index = state.counter[rank] as number;
    for (; index < ops.length; index++) {
      const kind = ops.kind[index] as number;
      const row = (ops.direction[index] as number) * this.#numStages + (ops.stage[index] as number);
      const key = state.key(rank, index, row, ops.microBatch[index] as number);
      if (kind >= OpKind.SendF) {
        if (!this.#post(rank, index, kind, row, key)) break;
      } else {
        if ((this.#open[rank] as number) > 0) {
          this.#blocked[rank] = 1;
          break;
        }
        if (!this.#compute(rank, ops, index, kind, row, key)) break;
      }
    }
    state.counter[rank] = index;
  }

  /** Posts one end of a transfer; false if what it would send is not made yet. */
  #post(rank: number, index: number, kind: number, row: number, key: number): boolean {
    const { state } = this;
    const made = state.done[key] as number;
    if (kind === OpKind.SendF && (made & Done.F) === 0) return false;
    if (kind === OpKind.SendB && (made & Done.B) === 0) return false;
    const stride = state.rowStride[row] as number;
    const isForward = kind === OpKind.SendF || kind === OpKind.RecvF;
    this.#checkEnds(rank, index, kind, row);
    let to = key;
    if (kind === OpKind.SendF) to += stride;
    else if (kind === OpKind.SendB) to -= stride;
    const slot = to * 2 + (isForward ? 0 : 1);
    const now = state.clock[rank] as number;
    const first = this.#posted[slot] as number;
    if (first === NOT_POSTED) {
      this.#posted[slot] = now;
      if (state.keep.causes) this.#postedCause[slot] = state.last[rank] as number;
      if (state.keep.timeline) {
        this.#postedIndex[slot] = index;
        state.mark(rank, index, now, now);
      }
      this.#open[rank] = (this.#open[rank] as number) + 1;
      return true;
    }
    const isSend = kind === OpKind.SendF || kind === OpKind.SendB;
    const receiver = isSend ? row + (isForward ? 1 : -1) : row;
    const sender = isForward ? receiver - 1 : receiver + 1;
    const peer = state.schedule.rankOf[isSend ? receiver : sender] as number;
    this.#meet(rank, index, peer, slot, receiver);
    return true;
  }

  /** Nothing enters the first stage's forward or leaves the last's; gradients the other way. */
  #checkEnds(rank: number, index: number, kind: number, row: number): void {
    const stage = row % this.#numStages;
    const last = this.#numStages - 1;
    const beyond = kind === OpKind.SendF || kind === OpKind.RecvB ? stage === last : stage === 0;
    if (!beyond) return;
    throw new InputError(
      `schedule.ranks[${rank}] operation ${index}`,
      `${opKindNames[kind]} of stage ${stage}`,
      `a transfer between two of the stages 0 to ${last}`,
    );
  }

  /** The second end of a transfer is posted now: both ends' next computation waits for its end. */
  #meet(rank: number, index: number, peer: number, slot: number, receiver: number): void {
    const { state } = this;
    const { latencyF, bytesTimeF, latencyB, bytesTimeB } = state.links;
    const isForward = slot % 2 === 0;
    const cost = isForward
      ? (latencyF[receiver] as number) + (bytesTimeF[receiver] as number)
      : (latencyB[receiver] as number) + (bytesTimeB[receiver] as number);
    const now = state.clock[rank] as number;
    const first = this.#posted[slot] as number;
    const over = Math.max(now, first) + cost;
    (isForward ? state.arriveF : state.arriveB)[slot >> 1] = over;
    const laterIsPeer = first > now;
    const causeRank = laterIsPeer ? peer : rank;
    let cause = -1;
    if (state.keep.causes) {
      cause = (laterIsPeer ? this.#postedCause[slot] : state.last[rank]) as number;
    }
    this.#settle(rank, over, causeRank, cause);
    this.#settle(peer, over, causeRank, cause);
    if (state.keep.timeline) {
      state.mark(rank, index, now, over);
      state.mark(peer, this.#postedIndex[slot] as number, first, over);
    }
    this.#open[peer] = (this.#open[peer] as number) - 1;
    if (this.#open[peer] === 0 && this.#blocked[peer] === 1) {
      this.#blocked[peer] = 0;
      state.wake(peer);
    }
  }

  #settle(rank: number, over: number, causeRank: number, cause: number): void {
    if (over <= (this.#over[rank] as number)) return;
    this.#over[rank] = over;
    this.#overRank[rank] = causeRank;
    this.#overCause[rank] = cause;
  }

  #compute(
    rank: number,
    ops: RankOps,
    index: number,
    kind: number,
    row: number,
    key: number,
  ): boolean {
    const { state } = this;
    const { times } = state;
    if (kind === OpKind.W) {
      if (((state.done[key] as number) & Done.B) === 0) return false;
      this.#execute(rank, ops, index, times.W[row] as number);
      state.finish(rank, index, key, Done.W);
      return true;
    }
    const isPair = kind === OpKind.FB;
    const pairStage = ops.pairStage[index] as number;
    const back = isPair ? (ops.pairDirection[index] as number) * this.#numStages + pairStage : row;
    const backKey = isPair
      ? state.key(rank, index, back, ops.pairMicroBatch[index] as number)
      : key;
    if ((isPair || kind === OpKind.F) && !this.#forwardReady(row, key)) return false;
    if (kind !== OpKind.F && !this.#backwardReady(back, backKey)) return false;
    const duration = isPair
      ? times.pair(row, back)
      : ((kind === OpKind.F ? times.F : kind === OpKind.B ? times.B : times.I)[row] as number);
    const end = this.#execute(rank, ops, index, duration);
    if (isPair || kind === OpKind.F) this.#finishForward(rank, index, row, key, end);
    if (kind !== OpKind.F) this.#finishBackward(rank, index, back, backKey, end);
    if (isPair || kind === OpKind.B) state.finish(rank, index, backKey, Done.W);
    return true;
  }

  #forwardReady(row: number, key: number): boolean {
    return row % this.#numStages === 0 || (this.state.arriveF[key] as number) >= 0;
  }

  #backwardReady(row: number, key: number): boolean {
    const { state } = this;
    if (((state.done[key] as number) & Done.F) === 0) return false;
    return (row + 1) % this.#numStages === 0 || (state.arriveB[key] as number) >= 0;
  }

  #execute(rank: number, ops: RankOps, index: number, duration: number): number {
    const { state } = this;
    const free = state.clock[rank] as number;
    const over = this.#over[rank] as number;
    if (state.keep.causes) {
      if (over > free) {
        const cause = this.#overCause[rank] as number;
        state.blame(rank, index, cause < 0 ? -1 : (this.#overRank[rank] as number), cause);
      } else state.blameOrder(rank, index);
    }
    return state.account(rank, ops, index, Math.max(free, over), duration);
  }

  /** Between two stages of one rank nothing is sent: the result is there at once. */
  #finishForward(rank: number, index: number, row: number, key: number, end: number): void {
    const { state } = this;
    state.finish(rank, index, key, Done.F);
    const next = row + 1;
    if (next % this.#numStages === 0 || state.schedule.rankOf[next] !== rank) return;
    state.arriveF[key + (state.rowStride[row] as number)] = end;
  }

  #finishBackward(rank: number, index: number, row: number, key: number, end: number): void {
    const { state } = this;
    state.finish(rank, index, key, Done.B);
    if (row % this.#numStages === 0 || state.schedule.rankOf[row - 1] !== rank) return;
    state.arriveB[key - (state.rowStride[row] as number)] = end;
  }
}

/** Runs all ranks as far as they can go; the caller looks whether all have come to their end. */
export function runRendezvous(state: RunState): void {
  new Rendezvous(state).run();
}
