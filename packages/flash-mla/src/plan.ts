// Divides an attention call into work items for a thread pool. Only who computes what is decided
// here: splits, blocks and the order of additions are a function of each row alone, so that any
// plan gives bitwise the same result.

import { Tensor } from "@open-infra/tensor";
import { BLOCK_KEYS, SPLIT_KEYS } from "./call.ts";

/** i32 words of an item: request, kv head, first row, end row, first split, end split, slot, 0. */
export const ITEM_WORDS = 8;
/** Rows (token × head of one kv head) that share one pass over the keys, as a kernel likes them. */
export interface RowRule {
  /** Row tiles are multiples of it. */
  readonly step: number;
  /** Rows of a tile at most. */
  readonly most: number;
}
/** The register tile has six rows. */
export const vectorRows: RowRule = { step: 6, most: 66 };
/** A matrix tile has sixteen; the kernel has the same limit. */
export const matrixRows: RowRule = { step: 16, most: 128 };
/** Splits go to different items only while their partial results stay below this. */
const MAX_PARTIAL_BYTES = 64 * 2 ** 20;
/** A unit is cut up if it is more than one part in this many of a thread's fair share. */
const UNITS_PER_THREAD = 4;
/** Row × key products below which waking another thread costs more than it saves. */
const MIN_WORK_PER_THREAD = 2048;

export interface PlanProblem {
  readonly queryLengths: Int32Array;
  readonly keyLengths: Int32Array;
  readonly headsQ: number;
  readonly headsK: number;
  readonly headDimV: number;
  readonly causal: boolean;
  readonly threads: number;
}

/** One row tile of one request and kv head, before it is cut along the keys. */
interface Unit {
  readonly request: number;
  readonly kvHead: number;
  readonly rowBegin: number;
  readonly rowEnd: number;
  /** Keys that the last row sees; the tile walks that many. */
  readonly keys: number;
}

/**
 * A reusable list of work items. `items` are independent; after all of them, `merges` combine the
 * units whose splits were computed by several items.
 */
export class Plan {
  readonly #items: ItemList = new ItemList("attention.items");
  readonly #merges: ItemList = new ItemList("attention.merges");
  itemCount = 0;
  mergeCount = 0;
  /** Rows of split partials: each is `headDimV` floats, a maximum and a sum. */
  partialRows = 0;
  /** Threads worth waking. */
  threads = 1;
  /** Largest row tile of the plan. */
  rowTile = 0;
  #problem: PlanProblem | undefined;
  #rule: RowRule | undefined;

  /** i32 `[at least itemCount, 8]`. */
  get items(): Tensor<"i32"> {
    return this.#items.tensor;
  }

  /** i32 `[at least mergeCount, 8]`; like the item of a whole unit, with its first slot. */
  get merges(): Tensor<"i32"> {
    return this.#merges.tensor;
  }

  /** Sets another problem, whose lengths must stay as they are until {@link fill}. */
  pose(problem: PlanProblem): this {
    this.#problem = problem;
    this.#rule = undefined;
    return this;
  }

  /** Divides the problem's rows by a rule, if that is not how they are divided already. */
  fill(rule: RowRule = this.#rule ?? vectorRows): this {
    if (this.#rule === rule || this.#problem === undefined) return this;
    this.#divide(this.#problem, rule);
    this.#rule = rule;
    return this;
  }

  #divide(problem: PlanProblem, rule: RowRule): void {
    this.itemCount = 0;
    this.mergeCount = 0;
    this.partialRows = 0;
    const work = totalWork(problem);
    const threads = Math.max(1, Math.min(problem.threads, Math.ceil(work / MIN_WORK_PER_THREAD)));
    this.rowTile = chooseRowTile(problem, threads, rule);
    const units = listUnits(problem, this.rowTile, rule);
    units.sort((a, b) => unitWork(b) - unitWork(a));
    const share = work / (threads * UNITS_PER_THREAD);
    const partialBytes = (problem.headDimV + 2) * 4;
    for (const unit of units) {
      const splits = Math.ceil(unit.keys / SPLIT_KEYS);
      const rows = (unit.rowEnd - unit.rowBegin) * splits;
      const fits = (this.partialRows + rows) * partialBytes <= MAX_PARTIAL_BYTES;
      if (threads > 1 && splits > 1 && unitWork(unit) > share && fits) this.#cut(unit, splits);
      else this.#item(unit, 0, splits, -1);
    }
    this.threads = Math.min(threads, Math.max(1, this.itemCount));
  }

  #cut(unit: Unit, splits: number): void {
    const slot = this.partialRows;
    const rows = unit.rowEnd - unit.rowBegin;
    for (let s = 0; s < splits; s++) this.#item(unit, s, s + 1, slot + s * rows);
    this.partialRows += splits * rows;
    this.#merges.set(this.mergeCount++, unit, 0, splits, slot);
  }

  #item(unit: Unit, splitBegin: number, splitEnd: number, slot: number): void {
    this.#items.set(this.itemCount++, unit, splitBegin, splitEnd, slot);
  }
}

/** A growing table of items in memory that kernels can read. */
class ItemList {
  tensor: Tensor<"i32">;
  #words: Int32Array;

  constructor(name: string) {
    this.tensor = Tensor.empty([16, ITEM_WORDS], "i32", name);
    this.#words = this.tensor.raw();
  }

  set(at: number, unit: Unit, splitBegin: number, splitEnd: number, slot: number): void {
    if (at === this.tensor.dim(0)) {
      const bigger = Tensor.empty([at * 2, ITEM_WORDS], "i32", this.tensor.label);
      bigger.raw().set(this.#words);
      this.tensor = bigger;
      this.#words = bigger.raw();
    }
    const words = this.#words;
    const word = at * ITEM_WORDS;
    words[word] = unit.request;
    words[word + 1] = unit.kvHead;
    words[word + 2] = unit.rowBegin;
    words[word + 3] = unit.rowEnd;
    words[word + 4] = splitBegin;
    words[word + 5] = splitEnd;
    words[word + 6] = slot;
  }
}

function unitWork(unit: Unit): number {
  return (unit.rowEnd - unit.rowBegin) * (unit.keys + BLOCK_KEYS);
}

function totalWork(problem: PlanProblem): number {
  let work = 0;
  for (let r = 0; r < problem.queryLengths.length; r++) {
    const n = problem.queryLengths[r] as number;
    const keys = problem.keyLengths[r] as number;
    const mean = problem.causal ? Math.max(0, keys - (n - 1) / 2) : keys;
    work += n * problem.headsQ * (mean + BLOCK_KEYS);
  }
  return work;
}

/** Smaller row tiles where the whole call would otherwise give some thread nothing to do. */
function chooseRowTile(problem: PlanProblem, threads: number, rule: RowRule): number {
  const group = problem.headsQ / problem.headsK;
  let tile = rule.most;
  while (tile > rule.step) {
    let items = 0;
    for (let r = 0; r < problem.queryLengths.length && items < threads; r++) {
      const rows = (problem.queryLengths[r] as number) * group;
      const splits = Math.max(1, Math.ceil((problem.keyLengths[r] as number) / SPLIT_KEYS));
      items += Math.ceil(rows / tile) * problem.headsK * splits;
    }
    if (items >= threads) break;
    tile = Math.ceil(tile / 2 / rule.step) * rule.step;
  }
  return tile;
}

function listUnits(problem: PlanProblem, rowTile: number, rule: RowRule): Unit[] {
  const units: Unit[] = [];
  const group = problem.headsQ / problem.headsK;
  for (let request = 0; request < problem.queryLengths.length; request++) {
    const tokens = problem.queryLengths[request] as number;
    const all = problem.keyLengths[request] as number;
    const rows = tokens * group;
    const tiles = Math.ceil(rows / rowTile);
    // Tiles of equal size, rounded to the kernel's: 128 rows are 66 + 62, or 128.
    const step = Math.ceil(rows / Math.max(1, tiles) / rule.step) * rule.step;
    for (let rowBegin = 0; rowBegin < rows; rowBegin += step) {
      const rowEnd = Math.min(rows, rowBegin + step);
      const lastToken = Math.floor((rowEnd - 1) / group);
      const keys = problem.causal ? Math.max(0, all - tokens + lastToken + 1) : all;
      for (let kvHead = 0; kvHead < problem.headsK; kvHead++) {
        units.push({ request, kvHead, rowBegin, rowEnd, keys });
      }
    }
  }
  return units;
}
