// Sizes of the two canvases: a row a rank in the timeline, a row a rank in the memory below it.
// With more ranks than fit, both show the same ones.

/** CSS pixels left of the rows, for the ranks' names. */
export const GUTTER_PX = 56;
/** The time axis above the timeline. */
export const AXIS_PX = 22;
/** Above the first row of memory, for half of its name. */
export const MEMORY_TOP_PX = 4;

const CELLS_MOST_PX = 620;
const MEMORY_MOST_PX = 460;

export interface PipelineLayout {
  readonly numRanks: number;
  /** Rows that are shown at once. */
  readonly rows: number;
  /** CSS pixels of a row of cells, and of memory. */
  readonly cellRow: number;
  readonly memoryRow: number;
}

/** Rows as high as there is room for, and no lower than can be told apart. */
export function pipelineLayout(numRanks: number): PipelineLayout {
  const cellRow = Math.min(30, Math.max(7, Math.floor(CELLS_MOST_PX / numRanks)));
  const memoryRow = Math.min(32, Math.max(6, Math.floor(MEMORY_MOST_PX / numRanks)));
  const rows = Math.min(
    numRanks,
    Math.floor(CELLS_MOST_PX / cellRow),
    Math.floor(MEMORY_MOST_PX / memoryRow),
  );
  return { numRanks, rows, cellRow, memoryRow };
}

/** The first rank shown, kept within what there is. */
export function clampTop(top: number, { numRanks, rows }: PipelineLayout): number {
  return Math.min(numRanks - rows, Math.max(0, top));
}
