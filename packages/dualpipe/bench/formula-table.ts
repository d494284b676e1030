// The table of the README that puts closed formulas beside simulations. Run it to print the table;
// a test compares the README with it.

import {
  type BuiltInName,
  bubbleFormula,
  buildSchedule,
  type SimulationResult,
  simulate,
} from "../src/index.ts";

interface Row {
  readonly name: BuiltInName;
  readonly P: number;
  readonly M: number;
  readonly F: number;
  readonly B: number;
  readonly W: number;
  readonly FB: number;
}

const unit = { F: 1, B: 2, W: 1, FB: 3 } as const;

const rows: readonly Row[] = [
  { name: "1f1b", P: 8, M: 20, ...unit },
  { name: "interleaved-1f1b", P: 8, M: 24, ...unit },
  { name: "zb1p", P: 8, M: 20, ...unit },
  { name: "zbv", P: 8, M: 20, ...unit },
  { name: "dualpipe", P: 8, M: 20, ...unit },
  { name: "dualpipe", P: 8, M: 20, ...unit, FB: 2.5 },
  { name: "dualpipe", P: 8, M: 20, ...unit, FB: 2 },
  { name: "dualpipe", P: 8, M: 20, F: 1, B: 2, W: 0.8, FB: 3 },
  { name: "dualpipe", P: 8, M: 20, F: 1, B: 2.2, W: 0.9, FB: 2.7 },
  { name: "dualpipe", P: 16, M: 64, ...unit },
  { name: "dualpipev", P: 4, M: 10, ...unit },
  { name: "dualpipev", P: 4, M: 10, ...unit, FB: 2.5 },
];

const round = (value: number): string => String(Number(value.toFixed(6)));

function idle({ idle: values }: SimulationResult): string {
  const [low, high] = [round(Math.min(...values)), round(Math.max(...values))];
  return low === high ? low : `${low} to ${high}`;
}

/** The table as Markdown lines. */
export function formulaTable(): readonly string[] {
  const headers = [
    "schedule",
    "P, M",
    "F, B, W, FB",
    "idle by formula",
    "idle, simulated",
    "makespan by formula",
    "makespan, simulated",
    "no order is below",
    "with latency 0.1",
    "with 0.5",
  ];
  const lines = rows.map(({ name, P, M, ...times }) => {
    const size = { numRanks: P, numMicroBatches: M };
    const schedule = buildSchedule(name, size);
    const formula = bubbleFormula(name, { ...size, ...times });
    const result = simulate(schedule, times);
    const late = [0.1, 0.5].map(
      (latency) => simulate(schedule, times, { communication: { latency } }).makespan,
    );
    return [
      name,
      `${P}, ${M}`,
      [times.F, times.B, times.W, times.FB].join(", "),
      `${round(formula.stepIdle)}${formula.exact ? "" : " (not exact)"}`,
      idle(result),
      round(formula.makespan),
      round(result.makespan),
      round(result.lowerBound.makespan),
      ...late.map(round),
    ];
  });
  return [headers, headers.map(() => "---"), ...lines].map((cells) => `| ${cells.join(" | ")} |`);
}

if (import.meta.main) console.log(formulaTable().join("\n"));
