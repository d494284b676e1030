// When every cell starts if F, I and W take 1, B takes 2, an FB takes 3 and transfers take none. It
// is not the simulator: these fixed times only order events, to place receives.

import { CellIndex } from "./cell-index.ts";
import { OpKind, opKindNames, type RankOps, type Schedule } from "./schedule.ts";
import { ScheduleError } from "./schedule-error.ts";

/** Unit time of each kind, by its number. Ends of transfers take none. */
const duration: readonly number[] = [1, 2, 1, 1, 3, 0, 0, 0, 0];

/** Starts of all cells of a schedule without communication, and ends of what they make. */
export class UnitTimes {
  readonly cells: CellIndex;
  /** Start of each operation, one array a rank. */
  readonly starts: readonly Int32Array[];
  /** End of the forward of each cell, by `CellIndex`; 0 while it has not run. */
  readonly forwardEnd: Int32Array;
  /** End of the B or I of each cell. */
  readonly backwardEnd: Int32Array;
  readonly #schedule: Schedule;
  readonly #positions: Int32Array;
  readonly #clocks: Int32Array;
  readonly #awake: number[] = [];
  readonly #isAwake: Uint8Array;

  /** @throws ScheduleError if the operations wait for each other in a circle. */
  constructor(schedule: Schedule) {
    this.#schedule = schedule;
    this.cells = new CellIndex(schedule);
    this.forwardEnd = new Int32Array(this.cells.size);
    this.backwardEnd = new Int32Array(this.cells.size);
    this.starts = schedule.ranks.map(({ length }) => new Int32Array(length));
    this.#positions = new Int32Array(schedule.numRanks);
    this.#clocks = new Int32Array(schedule.numRanks);
    this.#isAwake = new Uint8Array(schedule.numRanks);
    for (let rank = schedule.numRanks - 1; rank >= 0; rank--) this.#wake(rank);
    for (let rank = this.#awake.pop(); rank !== undefined; rank = this.#awake.pop()) {
      this.#isAwake[rank] = 0;
      this.#advance(rank);
    }
    this.#requireAllDone();
  }

  #wake(rank: number): void {
    if (this.#isAwake[rank] === 1) return;
    this.#isAwake[rank] = 1;
    this.#awake.push(rank);
  }

  /** Runs a rank until it waits for another. */
  #advance(rank: number): void {
    const ops = this.#schedule.ranks[rank] as RankOps;
    const starts = this.starts[rank] as Int32Array;
    let clock = this.#clocks[rank] as number;
    let i = this.#positions[rank] as number;
    for (; i < ops.length; i++) {
      const ready = this.#readyAt(ops, i);
      if (ready < 0) break;
      starts[i] = Math.max(clock, ready);
      clock = (starts[i] as number) + (duration[ops.kind[i] as number] as number);
      this.#finish(rank, ops, i, clock);
    }
    this.#positions[rank] = i;
    this.#clocks[rank] = clock;
  }

  /** When the inputs of an operation are there; −1 if that is not known yet. */
  #readyAt(ops: RankOps, i: number): number {
    const kind = ops.kind[i] as OpKind;
    const d = ops.direction[i] as number;
    const s = ops.stage[i] as number;
    const m = ops.microBatch[i] as number;
    if (kind === OpKind.F) return this.#forwardReady(d, s, m);
    if (kind === OpKind.W) return this.backwardEnd[this.cells.at(d, s, m)] || -1;
    if (kind !== OpKind.FB) return this.#backwardReady(d, s, m);
    const forward = this.#forwardReady(d, s, m);
    const backward = this.#backwardReady(
      ops.pairDirection[i] as number,
      ops.pairStage[i] as number,
      ops.pairMicroBatch[i] as number,
    );
    return forward < 0 || backward < 0 ? -1 : Math.max(forward, backward);
  }

  #forwardReady(d: number, s: number, m: number): number {
    return s === 0 ? 0 : this.forwardEnd[this.cells.at(d, s - 1, m)] || -1;
  }

  #backwardReady(d: number, s: number, m: number): number {
    const own = this.forwardEnd[this.cells.at(d, s, m)] || -1;
    if (own < 0 || s === this.#schedule.numStages - 1) return own;
    const after = this.backwardEnd[this.cells.at(d, s + 1, m)] || -1;
    return after < 0 ? -1 : Math.max(own, after);
  }

  #finish(rank: number, ops: RankOps, i: number, end: number): void {
    const kind = ops.kind[i] as OpKind;
    if (kind === OpKind.W) return;
    const d = ops.direction[i] as number;
    const s = ops.stage[i] as number;
    const cell = this.cells.at(d, s, ops.microBatch[i] as number);
    if (kind === OpKind.F || kind === OpKind.FB) {
      this.forwardEnd[cell] = end;
      this.#wakeOther(rank, d, s + 1);
    } else {
      this.backwardEnd[cell] = end;
      this.#wakeOther(rank, d, s - 1);
    }
    if (kind !== OpKind.FB) return;
    const pd = ops.pairDirection[i] as number;
    const ps = ops.pairStage[i] as number;
    this.backwardEnd[this.cells.at(pd, ps, ops.pairMicroBatch[i] as number)] = end;
    this.#wakeOther(rank, pd, ps - 1);
  }

  #wakeOther(rank: number, d: number, s: number): void {
    const peer = this.cells.rankOf(d, s);
    if (peer >= 0 && peer !== rank) this.#wake(peer);
  }

  #requireAllDone(): void {
    const rank = this.#schedule.ranks.findIndex(
      ({ length }, r) => (this.#positions[r] as number) < length,
    );
    if (rank < 0) return;
    const ops = this.#schedule.ranks[rank] as RankOps;
    const i = this.#positions[rank] as number;
    const name = opKindNames[ops.kind[i] as number] as string;
    const what = `${name} of stage ${ops.stage[i]}, micro-batch ${ops.microBatch[i]}`;
    const message = `rank ${rank} never gets past operation ${i}, ${what}: it waits for work`;
    throw new ScheduleError(`${message} that no rank reaches`, rank, i);
  }
}
