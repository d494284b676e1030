// Which results cross ranks, and one rank's list being rewritten with the ends of its transfers.
// Where they are posted is communication.ts and the two placements beside it.

import { CellIndex } from "./cell-index.ts";
import { OpKind, type RankOps, RankOpsBuilder, type Schedule } from "./schedule.ts";

/** Writes one rank's operations anew with the ends of its transfers between them. */
export class TransferWriter {
  readonly #cells: CellIndex;
  readonly #rank: number;
  readonly #from: RankOps;
  readonly #to: RankOpsBuilder;

  constructor(schedule: Schedule, rank: number) {
    this.#cells = new CellIndex(schedule);
    this.#rank = rank;
    this.#from = schedule.ranks[rank] as RankOps;
    this.#to = new RankOpsBuilder(this.#from.length + this.#countEnds());
  }

  /** Operation `index` of the rank, as it is. */
  copy(index: number): void {
    this.#to.copy(this.#from, index);
  }

  /** Whether the input of this forward comes from another rank. */
  receivesForward(direction: number, stage: number): boolean {
    return this.#isRemote(direction, stage - 1);
  }

  /** Whether the output's gradient of this backward comes from another rank. */
  receivesBackward(direction: number, stage: number): boolean {
    return this.#isRemote(direction, stage + 1);
  }

  /** One end of a transfer, if it crosses ranks. */
  post(kind: OpKind, direction: number, stage: number, microBatch: number, phase: number): void {
    const before = kind === OpKind.RecvF || kind === OpKind.SendB;
    if (!this.#isRemote(direction, before ? stage - 1 : stage + 1)) return;
    this.#to.push(kind, direction, stage, microBatch, phase);
  }

  finish(): RankOps {
    return this.#to.finish();
  }

  #isRemote(direction: number, stage: number): boolean {
    const peer = this.#cells.rankOf(direction, stage);
    return peer >= 0 && peer !== this.#rank;
  }

  #countEnds(): number {
    const { length, kind, direction, stage, pairDirection, pairStage } = this.#from;
    const endsAt = (d: number, s: number): number =>
      (this.#isRemote(d, s - 1) ? 1 : 0) + (this.#isRemote(d, s + 1) ? 1 : 0);
    let ends = 0;
    for (let i = 0; i < length; i++) {
      if (kind[i] === OpKind.W) continue;
      ends += endsAt(direction[i] as number, stage[i] as number);
      if (kind[i] === OpKind.FB) ends += endsAt(pairDirection[i] as number, pairStage[i] as number);
    }
    return ends;
  }
}
