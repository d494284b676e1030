// Where the original DualPipe and DualPipeV post their transfers: right before the cell that needs
// them and right after the cell that made them, but for three places that save bubble. It follows
// the eight steps, so it needs a list that has them whole.

import { OpKind, type RankOps, type Schedule } from "./schedule.ts";
import { TransferWriter } from "./transfers.ts";

/** Walks one rank's cells in order. Slot 0 is the stage of its first forward. */
class OriginalPlacement {
  readonly #ops: RankOps;
  readonly #writer: TransferWriter;
  readonly #microBatchesOf: readonly number[];
  /** The rank where the arms meet runs the first pair of step 4 unoverlapped. */
  readonly #middle: boolean;
  /** The next forward to be received for slot 0 and slot 1. */
  readonly #received: [number, number] = [0, 0];
  /** Index of the cell whose send waits until after the next cell; −1 for none. */
  #held = -1;

  constructor(schedule: Schedule, rank: number) {
    this.#ops = schedule.ranks[rank] as RankOps;
    this.#writer = new TransferWriter(schedule, rank);
    this.#microBatchesOf = schedule.microBatchesOf;
    const main = this.#ops.phase.indexOf(4);
    this.#middle = main >= 0 && this.#ops.kind[main] === OpKind.F;
  }

  run(): RankOps {
    for (let i = 0; i < this.#ops.length; i++) {
      this.#receive(i);
      this.#writer.copy(i);
      this.#send(i);
      this.#prefetch(i);
    }
    return this.#writer.finish();
  }

  #slotOf(i: number): 0 | 1 {
    const { direction, stage } = this.#ops;
    return direction[i] === direction[0] && stage[i] === stage[0] ? 0 : 1;
  }

  /** Receives for cell `i` that are not posted yet. */
  #receive(i: number): void {
    const { kind, direction, stage, microBatch } = this.#ops;
    const d = direction[i] as number;
    const s = stage[i] as number;
    const m = microBatch[i] as number;
    switch (kind[i]) {
      case OpKind.F:
        this.#receiveForward(i, m);
        break;
      case OpKind.FB: {
        this.#receiveForward(i, m);
        const { pairDirection, pairStage, pairMicroBatch, phase } = this.#ops;
        const [pd, ps] = [pairDirection[i] as number, pairStage[i] as number];
        const pm = pairMicroBatch[i] as number;
        this.#writer.post(OpKind.RecvB, pd, ps, pm, phase[i] as number);
        break;
      }
      case OpKind.B:
      case OpKind.I:
        this.#writer.post(OpKind.RecvB, d, s, m, this.#ops.phase[i] as number);
    }
  }

  /** Posts the receive of the forward of micro-batch `m` in the slot of cell `i`, once. */
  #receiveForward(i: number, m: number): void {
    const { direction, stage, phase } = this.#ops;
    const slot = this.#slotOf(i);
    const d = direction[i] as number;
    if (m < this.#received[slot] || m >= (this.#microBatchesOf[d] as number)) return;
    this.#received[slot] = m + 1;
    this.#writer.post(OpKind.RecvF, d, stage[i] as number, m, phase[i] as number);
  }

  /** Sends of the cell before that were held back, then those of cell `i`. */
  #send(i: number): void {
    if (this.#held >= 0) this.#post(this.#held);
    this.#held = -1;
    if (this.#holds(i)) this.#held = i;
    else this.#post(i);
  }

  #post(i: number): void {
    const { kind, direction, stage, microBatch, phase } = this.#ops;
    const k = kind[i];
    if (k === OpKind.W) return;
    const send = k === OpKind.F || k === OpKind.FB ? OpKind.SendF : OpKind.SendB;
    const p = phase[i] as number;
    this.#writer.post(send, direction[i] as number, stage[i] as number, microBatch[i] as number, p);
    if (k !== OpKind.FB) return;
    const { pairDirection, pairStage, pairMicroBatch } = this.#ops;
    const [d, s] = [pairDirection[i] as number, pairStage[i] as number];
    this.#writer.post(OpKind.SendB, d, s, pairMicroBatch[i] as number, p);
  }

  /** Whether the original sends what cell `i` made one cell later. */
  #holds(i: number): boolean {
    const { kind, phase } = this.#ops;
    if (kind[i] !== OpKind.F) return false;
    if (phase[i] === 4) return true;
    if (phase[i] !== 2) return false;
    if (!this.#middle) return this.#slotOf(i) === 0;
    return this.#slotOf(i) === 1 && phase[i + 1] !== 2;
  }

  /** Receives that the original posts one cell ahead. */
  #prefetch(i: number): void {
    const { kind, phase, microBatch } = this.#ops;
    if (phase[i] === 2 && this.#slotOf(i) === 0) {
      this.#receiveForward(i, (microBatch[i] as number) + 1);
    } else if (phase[i] === 3 && kind[i] === OpKind.I) {
      this.#receiveForward(i, this.#received[1]);
    }
  }
}

/** One rank's operations with the transfers where the original posts them. */
export function placeAsOriginal(schedule: Schedule, rank: number): RankOps {
  return new OriginalPlacement(schedule, rank).run();
}
