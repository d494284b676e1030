// Cuts a call of ordinary heads into work items for a thread pool. A row's arithmetic, and the
// order in which anything is summed, are fixed by its own sequence, so no cut can change a bit.

import { type MhaCall, visiblePairs, visibleTo } from "./mha-call.ts";

/** Rows (token × head of one key head) of a forward item; fewer where threads would idle. */
const FORWARD_ROWS = [288, 144, 96, 48] as const;
/** How a backward kernel walks a unit. */
export interface BackwardRule {
  /** Keys of a chunk. */
  readonly chunkKeys: number;
  /** Rows that meet a chunk at a time. */
  readonly stepRows: number;
  /** Sums of dq are written by so many rows at a time. */
  readonly tileRows: number;
}
/** By vectors: three vectors of keys. */
export const vectorSteps: BackwardRule = { chunkKeys: 144, stepRows: 96, tileRows: 8 };
/** By matrix tiles: blocks of 32. */
export const matrixSteps: BackwardRule = { chunkKeys: 128, stepRows: 128, tileRows: 32 };
/** Smaller shares than this part of a thread's fair share need not be cut further. */
const ITEMS_PER_THREAD = 4;
/** Waking a thread costs about as much as so many operations. */
const FLOPS_PER_THREAD = 4e6;

/** A table of items as kernels read them, and what it takes to run it. */
export interface MhaPlan {
  /** Rows of `words` integers each. */
  readonly items: Int32Array;
  readonly itemCount: number;
  readonly threads: number;
}

function threadsFor(flops: number, items: number, most: number): number {
  return Math.max(1, Math.min(most, items, Math.ceil(flops / FLOPS_PER_THREAD)));
}

export interface ForwardPlan extends MhaPlan {
  /** Rows of the largest item. */
  readonly rowTile: number;
}

/** Items of request, kv head, first row, end row: every row of the call once. */
export function planForward(call: MhaCall, flops: number, threads: number): ForwardPlan {
  const group = call.headsQ / call.headsK;
  const count = (tile: number): number =>
    call.queryLengths.reduce((sum, n) => sum + Math.ceil((n * group) / tile) * call.headsK, 0);
  const enough = threads === 1 ? 0 : threads * ITEMS_PER_THREAD;
  const rowTile = FORWARD_ROWS.find((tile) => count(tile) >= enough) ?? FORWARD_ROWS[3];
  const tiles: { request: number; begin: number; end: number; work: number }[] = [];
  for (let request = 0; request < call.queryLengths.length; request++) {
    const rows = (call.queryLengths[request] as number) * group;
    for (let begin = 0; begin < rows; begin += rowTile) {
      const end = Math.min(rows, begin + rowTile);
      const keys = visibleTo(call, request, Math.floor((end - 1) / group));
      tiles.push({ request, begin, end, work: (end - begin) * (keys + 1) });
    }
  }
  // The most work first, so that the items taken last are the shortest.
  tiles.sort((a, b) => b.work - a.work);
  const itemCount = tiles.length * call.headsK;
  const items = new Int32Array(itemCount * 4);
  let at = 0;
  for (const { request, begin, end } of tiles) {
    for (let head = 0; head < call.headsK; head++) {
      items[at++] = request;
      items[at++] = head;
      items[at++] = begin;
      items[at++] = end;
    }
  }
  return { items, itemCount, threads: threadsFor(flops, itemCount, threads), rowTile };
}

export interface BackwardPlan extends MhaPlan {
  /** Rows of sums of dq that all threads share; each is `headDimQk` floats, padded. */
  readonly sharedRows: number;
  /** Rows of such sums that each thread has for itself. */
  readonly ownRows: number;
  /** Counters of finished chunks, one for each step of the shared rows. */
  readonly counters: number;
}

/**
 * Items of request, kv head, first chunk, end chunk, first shared row or -1, first counter, 0, 0. A
 * unit is a key head of a sequence; a large one is cut into chunks of keys, which take turns adding
 * to its dq. Chunks of a unit follow each other, and items are taken in order, so a chunk only ever
 * waits for one that is being computed.
 */
export function planBackward(
  call: MhaCall,
  flops: number,
  threads: number,
  rule: BackwardRule,
): BackwardPlan {
  const group = call.headsQ / call.headsK;
  const units: { request: number; work: number; rows: number; chunks: number }[] = [];
  let total = 0;
  for (let request = 0; request < call.queryLengths.length; request++) {
    const rows = (call.queryLengths[request] as number) * group;
    const keys = call.keyLengths[request] as number;
    if (rows === 0 && keys === 0) continue;
    const work = visiblePairs(call, request) * group + rows + keys;
    total += work * call.headsK;
    units.push({ request, work, rows, chunks: Math.max(1, Math.ceil(keys / rule.chunkKeys)) });
  }
  units.sort((a, b) => b.work - a.work);
  const running = threadsFor(flops, Number.POSITIVE_INFINITY, threads);
  const share = running === 1 ? total : total / (running * ITEMS_PER_THREAD);
  const words: number[] = [];
  let sharedRows = 0;
  let ownRows = 0;
  let counters = 0;
  for (const { request, work, rows, chunks } of units) {
    const cut = work > share && chunks > 1;
    const padded = Math.ceil(rows / rule.tileRows) * rule.tileRows;
    for (let head = 0; head < call.headsK; head++) {
      if (!cut) {
        words.push(request, head, 0, chunks, -1, 0, 0, 0);
        ownRows = Math.max(ownRows, padded);
        continue;
      }
      for (let chunk = 0; chunk < chunks; chunk++) {
        words.push(request, head, chunk, chunk + 1, sharedRows, counters, 0, 0);
      }
      sharedRows += padded;
      counters += Math.ceil(rows / rule.stepRows);
    }
  }
  const itemCount = words.length / 8;
  return {
    items: Int32Array.from(words),
    itemCount,
    threads: Math.max(1, Math.min(running, itemCount)),
    sharedRows,
    ownRows,
    counters,
  };
}
