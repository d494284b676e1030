// What the form of the pipeline page holds, its presets, and what is asked of the worker and of the
// command line for it.
//
// Times are those of one rank's share of the model, 1 ÷ ranks of it: a schedule whose ranks hold
// two stages runs stages of half that time. So schedules stay comparable when one is changed for
// another, as in the package's planner.

import { type BuiltInName, builtInNames, type StageTimes } from "@open-infra/dualpipe";
import { InputError } from "@open-infra/errors";
import { choiceOf, type FormValues, numberOf, optionalNumber } from "../../ui/form-values.ts";

export const defaults = {
  schedule: "dualpipe",
  ranks: "8",
  microBatches: "20",
  chunks: "2",
  f: "1",
  b: "2",
  w: "1",
  fb: "",
  latency: "0",
  limit: "",
  partial: "",
  counts: "",
} as const;

export type FieldName = keyof typeof defaults;
export type PipelineValues = FormValues<FieldName>;

export const scheduleTexts: Readonly<Record<BuiltInName, string>> = {
  "1f1b": "One forward, one backward: the baseline of all.",
  "interleaved-1f1b": "Several chunks of the model a rank: less idle, more held, more transfers.",
  zb1p: "Weight gradients wait and fill the bubble; memory of 1F1B.",
  zbv: "Two chunks a rank in the shape of a V: hardly a bubble, memory of 1F1B.",
  dualpipe: "Two directions at once, forwards overlapped with backwards; two copies of the model.",
  dualpipev: "DualPipe cut in half: the V of one copy, on half the devices.",
};

const even = { f: "1", b: "2", w: "1", fb: "", latency: "0", limit: "", partial: "" } as const;

/** Pipelines to begin with. */
export const presets: readonly {
  readonly name: string;
  readonly values: Partial<PipelineValues>;
}[] = [
  {
    name: "DualPipe's own picture: 8 ranks, 20 micro-batches",
    values: { ...even, schedule: "dualpipe", ranks: "8", microBatches: "20" },
  },
  {
    name: "The same, overlapped pairs take 2.5 instead of 3",
    values: { ...even, schedule: "dualpipe", ranks: "8", microBatches: "20", fb: "2.5" },
  },
  {
    name: "DualPipeV on 4 ranks, 10 micro-batches",
    values: { ...even, schedule: "dualpipev", ranks: "4", microBatches: "10" },
  },
  {
    name: "16 ranks, 64 micro-batches, transfers take 0.2",
    values: { ...even, schedule: "dualpipe", ranks: "16", microBatches: "64", latency: "0.2" },
  },
  {
    name: "A heavy last stage: 8 ranks, 1F1B",
    values: {
      ...even,
      schedule: "1f1b",
      ranks: "8",
      microBatches: "20",
      f: "1 1 1 1 1 1 1 1.6",
      b: "2 2 2 2 2 2 2 3.2",
      w: "1 1 1 1 1 1 1 1.6",
    },
  },
  {
    name: "Large: 64 ranks, 512 micro-batches",
    values: { ...even, schedule: "dualpipe", ranks: "64", microBatches: "512" },
  },
];

/** A number for all ranks' shares, or one each. */
export type ShareTimes = number | readonly number[];

export interface PipelineTimes {
  readonly F: ShareTimes;
  readonly B: ShareTimes;
  readonly W: ShareTimes;
  /** Times of overlapped pairs, or their share of the sum of their halves; undefined: the sum. */
  readonly FB: ShareTimes | { readonly shareOfSum: number } | undefined;
}

/** One pipeline to be computed. */
export interface PipelineRequest {
  readonly kind: "simulate";
  readonly schedule: BuiltInName;
  readonly numRanks: number;
  readonly numMicroBatches: number;
  readonly chunksPerRank: number;
  readonly allowPartial: boolean;
  readonly times: PipelineTimes;
  readonly latency: number;
  /** Micro-batches a rank may hold, each counted as one rank's share of the model. */
  readonly activationLimit: number | undefined;
}

/** The same for all schedules, and the planner. */
export interface CompareRequest extends Omit<PipelineRequest, "kind" | "schedule"> {
  readonly kind: "compare";
  readonly counts: readonly number[];
}

/** `1`, or `1 1 2.5 …`, one a rank. */
export function timesOf(text: string): ShareTimes {
  const parts = text.trim().split(/[\s,;]+/);
  const numbers = parts.map((part) => (part === "" ? Number.NaN : Number(part)));
  const [first] = numbers;
  return numbers.length === 1 && first !== undefined ? first : numbers;
}

/** Times of pairs: empty, times, or `85 %` of the sum of the halves. */
export function pairTimesOf(text: string): PipelineTimes["FB"] {
  if (text.trim() === "") return undefined;
  const share = /^([\d.]+)\s*%$/.exec(text.trim())?.[1];
  return share === undefined ? timesOf(text) : { shareOfSum: Number(share) / 100 };
}

/** Numbers of a list; half, once and twice the count of the form where it is empty. */
export function countsOf(text: string, numMicroBatches: number): readonly number[] {
  if (text.trim() !== "")
    return [
      ...new Set(
        text
          .trim()
          .split(/[\s,;]+/)
          .map(Number),
      ),
    ];
  if (!Number.isSafeInteger(numMicroBatches)) return [numMicroBatches];
  const half = Math.max(1, Math.floor(numMicroBatches / 4) * 2);
  return [...new Set([half, numMicroBatches, 2 * numMicroBatches])];
}

export function scheduleOf(values: PipelineValues): BuiltInName {
  // Old links may name what is no schedule; the default stands first.
  const names = ["dualpipe", ...builtInNames] as [BuiltInName, ...BuiltInName[]];
  return choiceOf(values.schedule, names);
}

/** What to ask the worker for these inputs. */
export function pipelineRequest(values: PipelineValues): PipelineRequest {
  return {
    kind: "simulate",
    schedule: scheduleOf(values),
    numRanks: numberOf(values.ranks),
    numMicroBatches: numberOf(values.microBatches),
    chunksPerRank: numberOf(values.chunks),
    allowPartial: values.partial === "yes",
    times: {
      F: timesOf(values.f),
      B: timesOf(values.b),
      W: timesOf(values.w),
      FB: pairTimesOf(values.fb),
    },
    latency: numberOf(values.latency),
    activationLimit: optionalNumber(values.limit),
  };
}

export function compareRequest(values: PipelineValues): CompareRequest {
  const { schedule: _, kind: __, ...rest } = pipelineRequest(values);
  return { kind: "compare", ...rest, counts: countsOf(values.counts, rest.numMicroBatches) };
}

/** Times of the stages of a schedule, from those of the ranks' shares. */
export function stageTimes(
  { times, numRanks }: Pick<PipelineRequest, "times" | "numRanks">,
  stagesPerRank: number,
): StageTimes {
  const split = (name: string, value: ShareTimes): number | number[] => {
    if (typeof value === "number") return value / stagesPerRank;
    if (value.length !== numRanks) {
      const allowed = `1, or ${numRanks}: one for each rank's share of the model`;
      throw new InputError(`times.${name}.length`, String(value.length), allowed);
    }
    return Array.from(
      { length: numRanks * stagesPerRank },
      (_, stage) => (value[Math.floor(stage / stagesPerRank)] as number) / stagesPerRank,
    );
  };
  const { F, B, W, FB } = times;
  const pair =
    FB === undefined || (typeof FB === "object" && "shareOfSum" in FB) ? FB : split("FB", FB);
  return {
    F: split("F", F),
    B: split("B", B),
    W: split("W", W),
    ...(pair !== undefined && { FB: pair }),
  };
}

const fieldOfParameter: Readonly<Record<string, FieldName>> = {
  schedule: "schedule",
  numRanks: "ranks",
  numMicroBatches: "microBatches",
  chunksPerRank: "chunks",
  F: "f",
  B: "b",
  I: "w",
  W: "w",
  FB: "fb",
  "communication.latency": "latency",
  activationLimit: "limit",
  memoryLimit: "limit",
};

/** The field that an error's parameter belongs to. */
export function fieldOf(parameter: string): FieldName | undefined {
  const time = /^(?:times|share|layers\[\d+\])\.(FB|F|B|I|W)\b/.exec(parameter)?.[1];
  if (time !== undefined) return fieldOfParameter[time];
  const name = Object.keys(fieldOfParameter).find((known) =>
    new RegExp(`^${known.replace(".", "\\.")}(?![\\w.])`).test(parameter),
  );
  return name === undefined ? undefined : fieldOfParameter[name];
}

/** A schedule's own `times.json` for the command; undefined where flags say everything. */
export function timesFile(request: PipelineRequest, stagesPerRank: number): string | undefined {
  const times = stageTimes(request, stagesPerRank);
  const isPlain = Object.values(times).every((value) => typeof value === "number");
  return isPlain ? undefined : `${JSON.stringify(times)}\n`;
}

/** Digits enough to read back the same double, without those that say nothing. */
const plain = (value: unknown): string => String(value);

/** The command that gives the same result. */
export function simulateCommand(request: PipelineRequest, stagesPerRank: number): string {
  const { schedule, numRanks, numMicroBatches, chunksPerRank, allowPartial, latency } = request;
  const { F, B, W, FB } = stageTimes(request, stagesPerRank);
  const words = [
    `open-infra dualpipe simulate --schedule ${schedule}`,
    `--num-ranks ${numRanks} --num-micro-batches ${numMicroBatches}`,
  ];
  if (schedule === "interleaved-1f1b") words.push(`--chunks-per-rank ${chunksPerRank}`);
  if (allowPartial) words.push("--allow-partial");
  if (timesFile(request, stagesPerRank) !== undefined) words.push("--stage-times times.json");
  else {
    words.push(`--time-f ${plain(F)} --time-b ${plain(B)} --time-w ${plain(W)}`);
    if (FB !== undefined) words.push(`--fb ${plain(FB)}`);
  }
  if (latency > 0) words.push(`--latency ${latency}`);
  return [...words, "--json"].join(" ");
}

/** The command of the planner; undefined where times are uneven, which it takes as a file. */
export function planCommand(request: CompareRequest): string | undefined {
  const { times, numRanks, counts, chunksPerRank, latency, activationLimit, allowPartial } =
    request;
  const { F, B, W } = times;
  if ([F, B, W].some((value) => typeof value !== "number")) return undefined;
  const share = overlapShareOf(times);
  const words = [
    `open-infra dualpipe plan --num-ranks ${numRanks} --num-micro-batches ${counts.join(",")}`,
    `--chunks-per-rank ${chunksPerRank}`,
    `--time-f ${plain(F)} --time-b ${plain(B)} --time-w ${plain(W)}`,
  ];
  if (share !== 1) words.push(`--overlap-share ${plain(share)}`);
  if (latency > 0) words.push(`--latency ${latency}`);
  if (activationLimit !== undefined) words.push(`--activation-limit ${activationLimit}`);
  if (allowPartial) words.push("--allow-partial");
  return words.join(" ");
}

/** Sum of a value over ranks; a number alone counts once. */
const total = (value: ShareTimes): number =>
  typeof value === "number" ? value : value.reduce((sum, part) => sum + part, 0) / value.length;

/** Time of overlapped pairs over that of their halves, which is what the planner takes. */
export function overlapShareOf({ F, B, FB }: PipelineTimes): number {
  if (FB === undefined) return 1;
  if (typeof FB === "object" && "shareOfSum" in FB) return FB.shareOfSum;
  const halves = total(F) + total(B);
  return halves > 0 ? total(FB) / halves : 1;
}
