// The row every bench prints, and how rows become a table. A figure stands beside the machine limit
// that bounds it, measured in the same run, because these machines are shared and absolute numbers
// drift.

/** One case of a bench. */
export interface BenchRow {
  readonly case: string;
  readonly shape: string;
  /** Median time of one call, microseconds. */
  readonly us: number;
  readonly gflops?: number;
  readonly gbs?: number;
  /** Work a second in the case's own unit, where it is neither flops nor bytes: `3.1 M ops/s`. */
  readonly rate?: string;
  /**
   * Fraction of the limit that applies: the larger of flops ÷ peak and bytes ÷ bandwidth, over
   * time. Left out where neither bounds the case; then a peer must stand beside it.
   */
  readonly boundRatio?: number;
  readonly bound?: "compute" | "bandwidth";
  /**
   * The same against the fastest unit this machine has for these types, where that is another one
   * than the case uses (matrix tiles): what a library that uses it could reach.
   */
  readonly bestRatio?: number;
  /** What it was compared with, interleaved in the same run; alone, why there is no comparison. */
  readonly peer?: string;
  /** Peer's time over ours: above 1 we are faster. */
  readonly peerRatio?: number;
}

/** A bench module's default shape: `packages/NAME/bench/*.bench.ts` exports `run`. */
export interface BenchModule {
  run(options?: { readonly quick?: boolean }): Promise<readonly BenchRow[]>;
}

function cells(row: BenchRow): string[] {
  return [
    row.case,
    row.shape,
    row.us < 100 ? row.us.toFixed(2) : row.us.toFixed(0),
    row.gflops === undefined ? "" : row.gflops.toFixed(1),
    row.gbs === undefined ? "" : row.gbs.toFixed(1),
    row.rate ?? "",
    row.boundRatio === undefined ? "" : `${(row.boundRatio * 100).toFixed(0)} % of ${row.bound}`,
    row.bestRatio === undefined ? "" : `${(row.bestRatio * 100).toFixed(0)} %`,
    row.peerRatio === undefined
      ? (row.peer ?? "")
      : `${row.peerRatio.toFixed(2)}× ${row.peer ?? ""}`,
  ];
}

const headers = [
  "case",
  "shape",
  "µs",
  "GFLOP/s",
  "GB/s",
  "rate",
  "of the limit",
  "of best",
  "vs peer",
];

/** Header and rows, without the columns that no row fills. */
function tableOf(rows: readonly BenchRow[]): string[][] {
  const body = rows.map(cells);
  const keep = headers.map((_, i) => body.some((line) => line[i] !== ""));
  return [headers, ...body].map((line) => line.filter((_, i) => keep[i]));
}

/** A table for the terminal. */
export function formatRows(rows: readonly BenchRow[]): string {
  const table = tableOf(rows);
  const widths = (table[0] as string[]).map((_, i) =>
    Math.max(...table.map((line) => (line[i] as string).length)),
  );
  const aligned = (cell: string, i: number): string =>
    i < 2 ? cell.padEnd(widths[i] as number) : cell.padStart(widths[i] as number);
  return table.map((line) => line.map(aligned).join("  ").trimEnd()).join("\n");
}

/** A Markdown table, for READMEs. */
export function markdownRows(rows: readonly BenchRow[]): string {
  const [head = [], ...body] = tableOf(rows);
  const line = (parts: readonly string[]): string => `| ${parts.join(" | ")} |`;
  return [line(head), line(head.map(() => "---")), ...body.map(line)].join("\n");
}

/** Median of samples. */
export function median(samples: readonly number[]): number {
  const sorted = samples.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1
    ? (sorted[middle] as number)
    : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}
