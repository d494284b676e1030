// The operations of all ranks packed into one array for the dataflow loop: what an operation needs
// lies in two or four consecutive numbers, where the columns of `RankOps` would touch eight places.
// Building it is a pass over the columns; it halves the time of the whole simulation (NOTES.md).

import { OpKind, type RankOps } from "../schedule/schedule.ts";
import type { RunState } from "./run-state.ts";

/**
 * An operation is `[row · 16 + kind, key]`; a pair is followed by the same of its backward half.
 */
export interface Program {
  readonly words: Int32Array;
  /** Where each rank's operations begin; one more at the end. */
  readonly begins: Int32Array;
}

/** Bits of a word that hold the kind. */
export const KIND_BITS = 4;
/** The same bits as a mask. */
export const KIND_MASK = 15;

function countWords(ranks: readonly RankOps[]): Int32Array {
  const begins = new Int32Array(ranks.length + 1);
  ranks.forEach(({ kind, length }, rank) => {
    let pairs = 0;
    for (let i = 0; i < length; i++) if (kind[i] === OpKind.FB) pairs++;
    begins[rank + 1] = (begins[rank] as number) + 2 * (length + pairs);
  });
  return begins;
}

/**
 * Packs the operations of a run's schedule.
 *
 * @throws InputError for an operation on another rank's stage, or of a micro-batch there is none
 * of.
 */
export function packProgram(state: RunState): Program {
  const { ranks, numStages } = state.schedule;
  const begins = countWords(ranks);
  const words = new Int32Array(begins[ranks.length] as number);
  ranks.forEach((ops, rank) => {
    let at = begins[rank] as number;
    for (let i = 0; i < ops.length; i++) {
      const kind = ops.kind[i] as number;
      const row = (ops.direction[i] as number) * numStages + (ops.stage[i] as number);
      words[at++] = (row << KIND_BITS) | kind;
      words[at++] = state.key(rank, i, row, ops.microBatch[i] as number);
      if (kind !== OpKind.FB) continue;
      const back = (ops.pairDirection[i] as number) * numStages + (ops.pairStage[i] as number);
      words[at++] = (back << KIND_BITS) | kind;
      words[at++] = state.key(rank, i, back, ops.pairMicroBatch[i] as number);
    }
  });
  return { words, begins };
}
