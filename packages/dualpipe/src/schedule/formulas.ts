// The closed formulas of the papers, beside which a simulation can be put: bubble, memory, devices.
//
// Times are of one stage as the schedule has it (a chunk, where a rank has several), the same for
// all stages; transfers take nothing. B is the full backward, W the part of it that can wait, and
// FB an overlapped pair. Sources: the tables of DualPipe's and zero-bubble's READMEs, Megatron's
// paper for the interleaved form.

import { InputError } from "@open-infra/errors";
import type { BuiltInName } from "./build.ts";
import { checkWhole } from "./options.ts";

/** Times of one stage, in any one unit. */
export interface CellTimes {
  /** Forward. */
  readonly F: number;
  /** Full backward: input and weights. */
  readonly B: number;
  /** The weights' share of B, which zero-bubble schedules put off. */
  readonly W: number;
  /** A forward and a full backward overlapped; default F + B. */
  readonly FB?: number;
}

/** What `bubbleFormula` takes. */
export interface FormulaOptions extends CellTimes {
  readonly numRanks: number;
  readonly numMicroBatches: number;
  /** For the interleaved schedule; default 2. */
  readonly chunksPerRank?: number;
}

/** The closed formulas of one schedule, for given times. */
export interface BubbleFormula {
  /** The formula of `bubble` in symbols. */
  readonly formula: string;
  /**
   * Time that the papers count as bubble, per rank. For ZBV it is 0: with F = I = W no rank waits
   * between its first and its last cell.
   */
  readonly bubble: number;
  /** `bubble` over itself and the work of a rank. */
  readonly bubbleRate: number;
  /**
   * Idle time of a rank within the makespan of a lone step. It differs from `bubble` for ZBV alone,
   * whose ranks start one after another and end so too, which the next step hides.
   */
  readonly stepIdle: number;
  /** Work of a rank: for DualPipe that of the middle ranks, which overlap one pair less. */
  readonly work: number;
  /** `work + stepIdle`. */
  readonly makespan: number;
  /** Stages whose parameters a device holds: the table's 1× and 2×. */
  readonly parametersPerDevice: number;
  /** The same as a share of the model's parameters. */
  readonly parameterShare: number;
  /** The most micro-batches that a device holds, each counted once a stage. */
  readonly activationsPerDevice: number;
  readonly devices: number;
  /** Whether `stepIdle` and `makespan` are exact for these numbers, on the ranks of `work`. */
  readonly exact: boolean;
  /** When they are. */
  readonly exactWhen: string;
}

interface Terms {
  readonly P: number;
  readonly M: number;
  readonly v: number;
  readonly F: number;
  readonly B: number;
  readonly W: number;
  readonly FB: number;
}

/** What differs between schedules; the rest follows. */
interface Row {
  readonly formula: string;
  bubble(t: Terms): number;
  stepIdle?(t: Terms): number;
  work(t: Terms): number;
  stages(t: Terms): number;
  activations(t: Terms): number;
  /** Stages of the whole model. */
  model(t: Terms): number;
  exact(t: Terms): boolean;
  readonly exactWhen: string;
}

const near = (a: number, b: number): boolean => Math.abs(a - b) <= 1e-9 * Math.max(1, Math.abs(a));
/** F = I = W: the parts of a cell take equally long. */
const equalParts = ({ F, B, W }: Terms): boolean => near(F, W) && near(B - W, F);

const rows: Readonly<Record<BuiltInName, Row>> = {
  "1f1b": {
    formula: "(P − 1)(F + B)",
    bubble: ({ P, F, B }) => (P - 1) * (F + B),
    work: ({ M, F, B }) => M * (F + B),
    stages: () => 1,
    activations: ({ P, M }) => Math.min(P, M),
    model: ({ P }) => P,
    exact: () => true,
    exactWhen: "always",
  },
  "interleaved-1f1b": {
    formula: "(P − 1)(F + B)",
    bubble: ({ P, F, B }) => (P - 1) * (F + B),
    work: ({ M, v, F, B }) => M * v * (F + B),
    stages: ({ v }) => v,
    activations: ({ P, M, v }) => Math.min(M * v, (v === 1 ? 1 : 2) * (P - 1) + (v - 1) * P + 1),
    model: ({ P, v }) => P * v,
    exact: ({ P, M }) => M % P === 0,
    exactWhen: "M is a multiple of P",
  },
  zb1p: {
    formula: "(P − 1)(F + B − 2W)",
    bubble: ({ P, F, B, W }) => (P - 1) * (F + B - 2 * W),
    work: ({ M, F, B }) => M * (F + B),
    stages: () => 1,
    activations: ({ P, M }) => Math.min(P, M),
    model: ({ P }) => P,
    exact: (t) => equalParts(t) && t.M >= t.P,
    exactWhen: "F = B − W = W and M ≥ P",
  },
  zbv: {
    formula: "0",
    bubble: () => 0,
    stepIdle: ({ P, F }) => (P - 1) * F,
    work: ({ M, F, B }) => 2 * M * (F + B),
    stages: () => 2,
    activations: ({ P, M }) => 2 * Math.min(P, M),
    model: ({ P }) => 2 * P,
    exact: (t) => equalParts(t) && t.M >= 2 * t.P - 1,
    exactWhen: "F = B − W = W and M ≥ 2P − 1",
  },
  dualpipe: {
    formula: "(P/2 − 1)(FB + B − 3W)",
    bubble: ({ P, B, W, FB }) => (P / 2 - 1) * (FB + B - 3 * W),
    work: ({ P, M, F, B, FB }) => (P + 1) * (F + B) + (M - P - 1) * FB,
    stages: () => 2,
    activations: ({ P, M }) => Math.min(P + 1, M),
    model: ({ P }) => P,
    exact: (t) => equalParts(t) && t.P % 2 === 0 && t.M >= 2 * t.P && t.M % 2 === 0,
    exactWhen: "F = B − W = W, P and M even, M ≥ 2P",
  },
  dualpipev: {
    formula: "(P − 1)(FB + B − 3W)",
    bubble: ({ P, B, W, FB }) => (P - 1) * (FB + B - 3 * W),
    work: ({ P, M, F, B, FB }) => (2 * P + 1) * (F + B) + (2 * M - 2 * P - 1) * FB,
    stages: () => 2,
    activations: ({ P, M }) => Math.min(2 * P + 1, 2 * M),
    model: ({ P }) => 2 * P,
    exact: (t) => equalParts(t) && t.M >= 2 * t.P,
    exactWhen: "F = B − W = W and M ≥ 2P",
  },
};

function checkTimes(times: CellTimes): void {
  for (const [name, value] of Object.entries(times)) {
    if (Number.isFinite(value) && value >= 0) continue;
    throw new InputError(name, String(value), "a finite time of at least 0");
  }
  const { B, W } = times;
  if (W > B) throw new InputError("W", String(W), `at most B = ${B}, which it is a part of`);
}

/**
 * The closed formulas of a schedule.
 *
 * @throws InputError for times that are not finite or negative, W over B, or counts below 1.
 */
export function bubbleFormula(name: BuiltInName, options: FormulaOptions): BubbleFormula {
  const { numRanks: P, numMicroBatches: M, chunksPerRank: v = 2, F, B, W } = options;
  checkWhole("numRanks", P, 1);
  checkWhole("numMicroBatches", M, 1);
  checkWhole("chunksPerRank", v, 1);
  const FB = options.FB ?? F + B;
  checkTimes({ F, B, W, FB });
  const terms = { P, M, v, F, B, W, FB };
  const row = rows[name];
  const bubble = row.bubble(terms);
  const stepIdle = row.stepIdle?.(terms) ?? bubble;
  const work = row.work(terms);
  return {
    formula: row.formula,
    bubble,
    bubbleRate: bubble + work === 0 ? 0 : bubble / (bubble + work),
    stepIdle,
    work,
    makespan: work + stepIdle,
    parametersPerDevice: row.stages(terms),
    parameterShare: row.stages(terms) / row.model(terms),
    activationsPerDevice: row.activations(terms),
    devices: P,
    exact: row.exact(terms),
    exactWhen: row.exactWhen,
  };
}

/** One line of the zero-bubble authors' comparison; memory and rate relative to 1F1B's. */
export interface ZeroBubbleRate {
  readonly name: "1F1B" | "ZB1P" | "ZB2P" | "ZBV" | "V-Half" | "V-Min";
  readonly bubbleRate: number;
  /** Activation memory over that of 1F1B. */
  readonly memory: number;
}

/**
 * The rates of the zero-bubble authors for F = I = W, with schedules that have no builder here.
 * They hold with post-validation of the optimizer step, which lets ranks end one after another.
 */
export function zeroBubbleRates(options: {
  readonly numRanks: number;
  readonly numMicroBatches: number;
}): readonly ZeroBubbleRate[] {
  checkWhole("numRanks", options.numRanks, 1);
  checkWhole("numMicroBatches", options.numMicroBatches, 1);
  const distance = options.numRanks - 1;
  const x = distance / (options.numMicroBatches + distance);
  return [
    { name: "1F1B", bubbleRate: x, memory: 1 },
    { name: "ZB1P", bubbleRate: x / 3, memory: 1 },
    { name: "ZB2P", bubbleRate: 0, memory: 2 },
    { name: "ZBV", bubbleRate: 0, memory: 1 },
    { name: "V-Half", bubbleRate: x / 2, memory: 1 / 2 },
    { name: "V-Min", bubbleRate: (2 * x) / 3, memory: 1 / 3 },
  ];
}
