// The first part of validation: one pass over each rank's list, looking at one cell at a time. Is
// everything there once, on the right rank, and after what it needs of its own cell? Whether ranks
// wait for each other is walk.ts.

import { CellIndex } from "../cell-index.ts";
import { OpKind, opKindNames, type RankOps, type Schedule } from "../schedule.ts";
import type { Violations } from "./violations.ts";

/** One bit of a cell's state for each kind; the halves of an FB are an F and a B. */
const bitOf = (kind: OpKind): number => 1 << kind;
const didForward = bitOf(OpKind.F);
const didBackward = bitOf(OpKind.B);
const didInput = bitOf(OpKind.I);
const didWeight = bitOf(OpKind.W);
const receivedForward = bitOf(OpKind.RecvF);
const receivedBackward = bitOf(OpKind.RecvB);

/** Cells whose weights' gradients wait, oldest first. */
class WaitingWeights {
  #cells = new Int32Array(64);
  #first = 0;
  #end = 0;

  clear(): void {
    this.#first = 0;
    this.#end = 0;
  }

  add(cell: number): void {
    if (this.#end === this.#cells.length) {
      const wider = new Int32Array(2 * this.#end);
      wider.set(this.#cells);
      this.#cells = wider;
    }
    this.#cells[this.#end++] = cell;
  }

  /** Whether `cell` is the oldest of those that are not `done`. */
  isOldest(cell: number, done: (cell: number) => boolean): boolean {
    while (this.#first < this.#end && done(this.#cells[this.#first] as number)) this.#first++;
    return this.#first < this.#end && this.#cells[this.#first] === cell;
  }
}

class StructureCheck {
  readonly #schedule: Schedule;
  readonly #found: Violations;
  readonly #cells: CellIndex;
  /** Bits of `bitOf` for what has been seen of each cell. */
  readonly #seen: Uint16Array;
  readonly #waiting: WaitingWeights = new WaitingWeights();
  readonly #forwardOnly: boolean;
  #rank = 0;

  constructor(schedule: Schedule, found: Violations, forwardOnly: boolean) {
    this.#schedule = schedule;
    this.#found = found;
    this.#cells = new CellIndex(schedule);
    this.#seen = new Uint16Array(this.#cells.size);
    this.#forwardOnly = forwardOnly;
  }

  run(): void {
    this.#schedule.ranks.forEach((ops, rank) => {
      this.#rank = rank;
      this.#waiting.clear();
      for (let i = 0; i < ops.length; i++) this.#checkOp(ops, i);
    });
    this.#checkComplete();
  }

  #checkOp(ops: RankOps, i: number): void {
    const kind = ops.kind[i] as OpKind;
    const d = ops.direction[i] as number;
    const s = ops.stage[i] as number;
    const m = ops.microBatch[i] as number;
    if (kind > OpKind.RecvB) {
      this.#found.at("range", this.#rank, i, `kind ${kind} is none of 0 to ${OpKind.RecvB}`);
      return;
    }
    this.#checkCell(i, kind === OpKind.FB ? OpKind.F : kind, d, s, m);
    if (kind !== OpKind.FB) return;
    const pd = ops.pairDirection[i] as number;
    const ps = ops.pairStage[i] as number;
    const pm = ops.pairMicroBatch[i] as number;
    if (pd === d && ps === s && pm === m) {
      this.#found.at("order", this.#rank, i, "a cell's backward overlaps its own forward");
    }
    this.#checkCell(i, OpKind.B, pd, ps, pm);
  }

  /** One operation, or one half of an FB, of one cell. */
  #checkCell(i: number, kind: OpKind, d: number, s: number, m: number): void {
    const found = this.#found;
    if (!this.#cells.has(d, s, m)) {
      const cell = `direction ${d}, stage ${s}, micro-batch ${m}`;
      found.at("range", this.#rank, i, `there is no ${cell}`);
      return;
    }
    const holder = this.#cells.rankOf(d, s);
    if (holder !== this.#rank) {
      found.at("rank", this.#rank, i, `stage ${s} of direction ${d} is on rank ${holder}`);
      return;
    }
    const cell = this.#cells.at(d, s, m);
    const seen = this.#seen[cell] as number;
    if ((seen & bitOf(kind)) !== 0) {
      found.at("duplicate", this.#rank, i, `a second ${opKindNames[kind]} of its cell`);
      return;
    }
    if (kind >= OpKind.SendF) this.#checkEnd(i, kind, d, s, seen);
    else this.#checkWork(i, kind, { direction: d, stage: s, cell, seen });
    this.#seen[cell] = seen | bitOf(kind);
    if (kind === OpKind.I) this.#waiting.add(cell);
  }

  #checkWork(
    i: number,
    kind: OpKind,
    at: {
      readonly direction: number;
      readonly stage: number;
      readonly cell: number;
      readonly seen: number;
    },
  ): void {
    const { direction, stage, cell, seen } = at;
    const found = this.#found;
    const communicates = this.#schedule.hasCommunication;
    if (kind === OpKind.F) {
      if (communicates && (seen & receivedForward) === 0 && this.#isRemote(direction, stage - 1)) {
        found.at("order", this.#rank, i, "its input is not received before it");
      }
      return;
    }
    if (this.#forwardOnly) {
      found.at("split", this.#rank, i, "a backward in a schedule of forwards only");
      return;
    }
    if (kind === OpKind.W) {
      if ((seen & didInput) === 0)
        found.at("order", this.#rank, i, "its I does not stand before it");
      else if (!this.#waiting.isOldest(cell, (c) => this.#isDone(c))) {
        found.at("fifo", this.#rank, i, "an older I waits for its W");
      }
      return;
    }
    if ((seen & (didBackward | didInput)) !== 0) {
      found.at("split", this.#rank, i, "its cell has both a B and an I");
    }
    if ((seen & didForward) === 0) {
      found.at("order", this.#rank, i, "its F does not stand before it");
    }
    if (communicates && (seen & receivedBackward) === 0 && this.#isRemote(direction, stage + 1)) {
      found.at("order", this.#rank, i, "its output's gradient is not received before it");
    }
  }

  #checkEnd(i: number, kind: OpKind, d: number, s: number, seen: number): void {
    const found = this.#found;
    if (!this.#schedule.hasCommunication) {
      found.at("transfer", this.#rank, i, "hasCommunication is false");
    }
    const toBefore = kind === OpKind.RecvF || kind === OpKind.SendB;
    if (!this.#isRemote(d, toBefore ? s - 1 : s + 1)) {
      const side = toBefore ? "before" : "after";
      found.at("transfer", this.#rank, i, `the stage ${side} it is not on another rank`);
    }
    if (kind === OpKind.SendF && (seen & didForward) === 0) {
      found.at("order", this.#rank, i, "the F that makes it does not stand before it");
    }
    if (kind === OpKind.SendB && (seen & (didBackward | didInput)) === 0) {
      found.at("order", this.#rank, i, "the B or I that makes it does not stand before it");
    }
  }

  #isDone(cell: number): boolean {
    return ((this.#seen[cell] as number) & didWeight) !== 0;
  }

  #isRemote(direction: number, stage: number): boolean {
    const peer = this.#cells.rankOf(direction, stage);
    return peer >= 0 && peer !== this.#rank;
  }

  /** Reports what was never seen, cell by cell. */
  #checkComplete(): void {
    const { numStages, microBatchesOf } = this.#schedule;
    microBatchesOf.forEach((count, d) => {
      for (let s = 0; s < numStages; s++) {
        this.#rank = this.#cells.rankOf(d, s);
        const ends = this.#endsOf(d, s);
        const first = this.#cells.at(d, s, 0);
        for (let m = 0; m < count; m++) {
          const lacks = this.#lacking(this.#seen[first + m] as number, ends);
          if (lacks === "") continue;
          const cell = `direction ${d}, stage ${s}, micro-batch ${m}`;
          this.#found.of("missing", this.#rank, `no ${lacks} of ${cell}`);
        }
      }
    });
  }

  /** Bits of the ends that every cell of a stage must have. */
  #endsOf(d: number, s: number): number {
    if (!this.#schedule.hasCommunication) return 0;
    let ends = 0;
    if (this.#isRemote(d, s - 1)) ends |= bitOf(OpKind.RecvF) | bitOf(OpKind.SendB);
    if (this.#isRemote(d, s + 1)) ends |= bitOf(OpKind.SendF) | bitOf(OpKind.RecvB);
    if (this.#forwardOnly) ends &= bitOf(OpKind.SendF) | bitOf(OpKind.RecvF);
    return ends;
  }

  /** Names of what a cell lacks; "" for nothing. */
  #lacking(seen: number, ends: number): string {
    let needed = didForward | ends;
    if (!this.#forwardOnly) {
      needed |= (seen & (didInput | didWeight)) !== 0 ? didInput | didWeight : didBackward;
    }
    const lacks = needed & ~seen;
    if (lacks === 0) return "";
    return opKindNames.filter((_, kind) => (lacks & (1 << kind)) !== 0).join(", ");
  }
}

/** Reports contradictions between a schedule's own fields; false if the rest cannot be checked. */
export function checkShape(schedule: Schedule, found: Violations): boolean {
  const { numRanks, numStages, numDirections, numMicroBatches, microBatchesOf, rankOf } = schedule;
  const need = (holds: boolean, what: string): void => {
    if (!holds) found.of("shape", -1, what);
  };
  need(schedule.ranks.length === numRanks, `${schedule.ranks.length} lists for ${numRanks} ranks`);
  const stages = numDirections * numStages;
  need(rankOf.length === stages, `rankOf has ${rankOf.length} entries for ${stages} stages`);
  need(
    rankOf.every((rank) => rank >= 0 && rank < numRanks),
    `rankOf names a rank outside 0 to ${numRanks - 1}`,
  );
  const counts = microBatchesOf.join(" + ");
  need(
    microBatchesOf.length === numDirections && microBatchesOf.every((n) => n >= 0),
    `microBatchesOf is ${counts} for ${numDirections} directions`,
  );
  need(
    microBatchesOf.reduce((sum, n) => sum + n, 0) === numMicroBatches,
    `microBatchesOf is ${counts} for ${numMicroBatches} micro-batches`,
  );
  if (!found.empty) return false;
  // Every cell needs a forward; with fewer operations there is no use in tables of cells.
  const operations = schedule.ranks.reduce((sum, { length }) => sum + length, 0);
  const cells = numStages * numMicroBatches;
  if (cells <= operations) return true;
  found.of(
    "missing",
    -1,
    `${operations} operations for ${cells} cells, each of which needs a forward`,
  );
  return false;
}

/** Reports everything that one cell at a time shows; see the head of the file. */
export function checkStructure(
  schedule: Schedule,
  found: Violations,
  options: { readonly forwardOnly: boolean },
): void {
  new StructureCheck(schedule, found, options.forwardOnly).run();
}
