// What each panel of the engine page shows: its figures, and the series of its chart.

import type { SeriesName } from "../../api/stats-history.ts";
import type { StatsFacts } from "../../api/wire.ts";
import type { ChartSeries } from "../../ui/chart.tsx";
import { formatCount, formatLarge, formatPercent, formatQuantity } from "../../ui/format.ts";

export interface PanelSeries extends ChartSeries {
  readonly name: SeriesName;
  readonly unit: string;
}

export interface PanelSpec {
  readonly title: string;
  /** Columns of twelve on a wide screen. */
  readonly columns: 4 | 6;
  readonly series: readonly [PanelSeries, ...PanelSeries[]];
  /** A figure, large. */
  readonly figure: (value: number | null) => string;
  /** A number of the axis. */
  readonly tick: (value: number) => string;
  /** Top of the axis, where the engine sets one. */
  readonly max?: (stats: StatsFacts) => number;
  /** Beside the first figure: what it is out of. */
  readonly outOf?: (stats: StatsFacts) => string;
  readonly maxAtLeast?: number;
  /** The axis has whole numbers only. */
  readonly whole?: boolean;
}

export const panels: readonly PanelSpec[] = [
  {
    title: "Generation",
    columns: 6,
    series: [
      { name: "generationTokensPerSecond", label: "Generation", unit: "tok/s", color: "accent" },
    ],
    figure: formatQuantity,
    tick: formatLarge,
    whole: true,
    maxAtLeast: 10,
  },
  {
    title: "Prompt",
    columns: 6,
    series: [{ name: "promptTokensPerSecond", label: "Prompt", unit: "tok/s", color: "second" }],
    figure: formatQuantity,
    tick: formatLarge,
    whole: true,
    maxAtLeast: 10,
  },
  {
    title: "Requests",
    columns: 4,
    series: [
      { name: "running", label: "Running", unit: "running", color: "accent" },
      { name: "waiting", label: "Waiting", unit: "waiting", color: "alert" },
    ],
    figure: formatCount,
    tick: formatLarge,
    whole: true,
    maxAtLeast: 4,
  },
  {
    title: "Batch",
    columns: 4,
    series: [
      { name: "batchTokens", label: "Tokens", unit: "tokens a step", color: "accent" },
      { name: "batchSequences", label: "Sequences", unit: "sequences", color: "second" },
    ],
    figure: formatCount,
    tick: formatLarge,
    whole: true,
    maxAtLeast: 4,
  },
  {
    title: "Step",
    columns: 4,
    series: [{ name: "stepMs", label: "Step", unit: "ms", color: "accent" }],
    figure: formatQuantity,
    tick: formatLarge,
    whole: true,
    maxAtLeast: 10,
  },
  {
    title: "KV cache",
    columns: 4,
    series: [{ name: "kvBlocksUsed", label: "Blocks used", unit: "blocks", color: "accent" }],
    figure: formatCount,
    tick: formatLarge,
    whole: true,
    max: (stats) => Math.max(stats.kvBlocksTotal, 1),
    outOf: (stats) => `/ ${formatCount(stats.kvBlocksTotal)}`,
  },
  {
    title: "Prefix cache",
    columns: 4,
    series: [
      {
        name: "prefixHitRate",
        label: "Hit rate",
        unit: "of looked-up tokens",
        color: "second",
        style: "points",
      },
    ],
    figure: formatPercent,
    tick: (value) => `${Math.round(value * 100)} %`,
    max: () => 1,
  },
];
