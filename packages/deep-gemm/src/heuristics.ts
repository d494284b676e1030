// How a product is cut into units of work and how many threads are worth waking. None of it can
// change a result: a unit always runs over the whole of K.

/**
 * The most a unit may hold; the kernel's scratch is made for it (`gemm.c` has the same numbers).
 */
export const MAX_UNIT_ROWS = 192;
export const MAX_UNIT_COLS = 256;
/** Columns of a unit that matrix tiles compute. */
export const MAX_TILED_COLS = 512;

/** Rows and columns of the pairs of matrix tiles that are multiplied at a time. */
const TILED_PAIR = 32;

/** What the choice depends on. */
export interface WorkShape {
  /** Rows of all segments together, and of the largest one. */
  readonly rows: number;
  readonly largest: number;
  readonly segments: number;
  readonly n: number;
  /** k of an element's sum, both halves where columns come in pairs. */
  readonly k: number;
  /** Matrices whose products are summed, and the longest sum in one of them. */
  readonly slices: number;
  readonly lengthK: number;
  /** Whether matrix tiles multiply, not vectors. */
  readonly tiled: boolean;
  /** Whether a unit has at most 128 columns: B's scales are folded, or columns come in pairs. */
  readonly blockColumns: boolean;
  /** Whether units are whole blocks of 128 columns, which share a scale of the result. */
  readonly wholeBlocks: boolean;
  /** Bytes of one element of B. */
  readonly bytesB: number;
  /** Columns of a tile. */
  readonly tileColumns: number;
}

export interface WorkPlan {
  readonly unitRows: number;
  readonly unitCols: number;
  readonly threads: number;
  /** Memory for a packed operand of matrix tiles, of each thread. */
  readonly panelBytes: number;
}

/** Work below this is done before a second thread would have woken. */
const minFlopsPerThread = 400_000;
const minTiledFlopsPerThread = 6_000_000;
const minBytesPerThread = 96 * 1024;

/** Units per thread that even out what threads are slowed down by others. */
const unitsPerThread = 6;

/** Cuts a product into units for `threads` threads. */
export function planWork(shape: WorkShape, threads: number): WorkPlan {
  const { rows, largest, segments, n, k } = shape;
  const flops = 2 * rows * n * k;
  const bytes = segments * n * k * shape.bytesB;
  const minFlops = shape.tiled ? minTiledFlopsPerThread : minFlopsPerThread;
  const useful = Math.max(flops / minFlops, bytes / minBytesPerThread);
  const used = Math.max(1, Math.min(threads, Math.floor(useful)));
  const widest = shape.tiled ? MAX_TILED_COLS : MAX_UNIT_COLS;
  const most = shape.blockColumns ? 128 : widest;
  const rowUnits = Math.max(1, Math.ceil(largest / MAX_UNIT_ROWS));
  let unitCols = most;
  if (used > 1 && !shape.wholeBlocks) {
    // Halve until there is enough to share, but keep at least two tiles a unit.
    const wanted = used * unitsPerThread;
    while (
      unitCols > 2 * shape.tileColumns &&
      segments * rowUnits * Math.ceil(n / unitCols) < wanted
    ) {
      unitCols /= 2;
    }
  }
  const even = Math.max(1, Math.ceil(largest / rowUnits));
  const whole = Math.ceil(even / TILED_PAIR) * TILED_PAIR;
  const unitRows = shape.tiled && rowUnits > 1 ? whole : even;
  const panelBytes = !shape.tiled ? 0 : rowUnits > 1 ? BLOCK_BYTES : panelBytesFor(shape, unitRows);
  return { unitRows, unitCols, threads: used, panelBytes };
}

/** As in `drive_tiles.h`: k and bytes of a pair of packed tiles, and bytes of a block of them. */
const PANEL_K = 2048;
const PANEL_BYTES = 128 << 10;
const BLOCK_BYTES = 1 << 20;
/** Rows whose whole K takes more are packed again for every unit of columns, as several units' are. */
const MOST_PANEL_BYTES = 4 << 20;

/** Room for all of a unit's rows, if that is not too much, else for a block of K. */
function panelBytesFor(shape: WorkShape, unitRows: number): number {
  const pairs = Math.ceil(unitRows / TILED_PAIR);
  const panels = Math.max(1, Math.ceil(shape.lengthK / PANEL_K));
  const block = Math.min(Math.max(1, Math.floor(BLOCK_BYTES / PANEL_BYTES / pairs)), panels);
  const bytes = shape.slices * Math.ceil(panels / block) * block * pairs * PANEL_BYTES;
  return bytes > MOST_PANEL_BYTES ? BLOCK_BYTES : Math.max(BLOCK_BYTES, bytes);
}
