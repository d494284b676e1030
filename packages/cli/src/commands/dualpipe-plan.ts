// `open-infra dualpipe plan`: the fastest schedule and micro-batch count that fit the memory.

import {
  type BuiltInName,
  type LayerCost,
  type Plan,
  type PlanChoice,
  type PlanOptions,
  type PlanResult,
  planPipeline,
} from "@open-infra/dualpipe";
import { type CliContext, printJson, printLine } from "../context.ts";
import { dualpipeFlags } from "../dualpipe-input.ts";
import { number } from "../dualpipe-report.ts";
import { type LinkFlags, linkOf } from "../dualpipe-times.ts";
import { inTermsOf, withFlags } from "../flag-names.ts";
import { parseJson, readText } from "../json-input.ts";
import { UsageError } from "../parse.ts";
import { formatBytes } from "../progress.ts";
import { formatTable } from "../table.ts";

interface Flags extends LinkFlags {
  readonly numRanks: number;
  readonly numMicroBatches?: readonly number[];
  readonly batchTokens?: number;
  readonly microBatchTokens?: readonly number[];
  readonly costTokens?: number;
  readonly pipelineDepth?: readonly number[];
  readonly schedules?: readonly BuiltInName[];
  readonly chunksPerRank?: readonly number[];
  readonly timeF?: number;
  readonly timeB?: number;
  readonly timeW?: number;
  readonly overlapShare?: number;
  readonly overhead?: number;
  readonly parameterBytes?: number;
  readonly activationBytes?: number;
  readonly weightGradBytes?: number;
  readonly layers?: string;
  readonly memoryLimit?: number;
  readonly activationLimit?: number;
  readonly allowPartial: boolean;
  readonly rows: number;
  readonly json: boolean;
}

const layerFields = ["F", "B", "W", "parameterBytes", "activationBytes", "weightGradBytes"];

/** The costs of `--layers`; values are checked where they are used. */
async function readLayers(context: CliContext, file: string): Promise<readonly LayerCost[]> {
  const usage = 'expected [{"F": 1, "B": 2}, …]';
  const input = await readText(context, file, usage);
  const { name } = input;
  const document = parseJson(input);
  if (!Array.isArray(document)) throw new UsageError(`${name} holds no array; ${usage}`);
  document.forEach((layer, i) => {
    if (typeof layer !== "object" || layer === null || Array.isArray(layer)) {
      throw new UsageError(`${name}: layer ${i} is no object; ${usage}`);
    }
    const unknown = Object.keys(layer).find((key) => !layerFields.includes(key));
    if (unknown === undefined) return;
    const known = layerFields.join(", ");
    throw new UsageError(`${name}: layer ${i} has the field ${unknown}; known are ${known}`);
  });
  return document as readonly LayerCost[];
}

/** The model: layers of a file, or one rank's share by flags. */
async function modelOf(
  context: CliContext,
  flags: Flags,
): Promise<Pick<PlanOptions, "share" | "layers">> {
  const { timeF, timeB, timeW, parameterBytes, activationBytes, weightGradBytes } = flags;
  const share = {
    ...(timeW !== undefined && { W: timeW }),
    ...(parameterBytes !== undefined && { parameterBytes }),
    ...(activationBytes !== undefined && { activationBytes }),
    ...(weightGradBytes !== undefined && { weightGradBytes }),
  };
  if (flags.layers === undefined) return { share: { F: timeF ?? 1, B: timeB ?? 2, ...share } };
  if (timeF !== undefined || timeB !== undefined || Object.keys(share).length > 0) {
    throw new UsageError("--layers brings all costs: leave out -f, -b, -w and the byte flags");
  }
  return { layers: await readLayers(context, flags.layers) };
}

/** The step: counts of micro-batches, or tokens and sizes. */
function stepOf(flags: Flags): Pick<PlanOptions, "numMicroBatches" | "batch"> {
  const { numMicroBatches, batchTokens, microBatchTokens, costTokens } = flags;
  const byTokens = [batchTokens, microBatchTokens, costTokens].some((flag) => flag !== undefined);
  if (numMicroBatches !== undefined && !byTokens) return { numMicroBatches };
  if (
    numMicroBatches === undefined &&
    batchTokens !== undefined &&
    microBatchTokens !== undefined
  ) {
    const [first] = microBatchTokens;
    return {
      batch: { tokens: batchTokens, microBatchTokens, costTokens: costTokens ?? (first as number) },
    };
  }
  throw new UsageError(
    "give either --num-micro-batches N,N or --batch-tokens N with --micro-batch-tokens N,N",
  );
}

async function optionsOf(context: CliContext, flags: Flags): Promise<PlanOptions> {
  const { memoryLimit, activationLimit, pipelineDepth, overlapShare, overhead } = flags;
  const communication = linkOf(flags);
  return {
    numRanks: flags.numRanks,
    ...(await modelOf(context, flags)),
    ...stepOf(flags),
    ...(pipelineDepth && { pipelineDepths: pipelineDepth }),
    ...(flags.schedules && { schedules: flags.schedules }),
    ...(flags.chunksPerRank && { chunksPerRank: flags.chunksPerRank }),
    ...(overlapShare !== undefined && { overlapShare }),
    ...(overhead !== undefined && { overhead }),
    ...(communication && { communication }),
    ...(memoryLimit !== undefined && { memoryLimitBytes: memoryLimit }),
    ...(activationLimit !== undefined && { activationLimit }),
    allowPartial: flags.allowPartial,
  };
}

/** The cells that name a choice. */
function choiceCells(choice: PlanChoice): string[] {
  const { schedule, chunksPerRank, pipelineDepth, numPipelines, numMicroBatches } = choice;
  const chunks = chunksPerRank > 1 ? ` × ${chunksPerRank}` : "";
  const tokens = choice.microBatchTokens === undefined ? "" : ` of ${choice.microBatchTokens}`;
  return [
    `${schedule}${chunks}`,
    `${pipelineDepth}${numPipelines > 1 ? ` × ${numPipelines}` : ""}`,
    `${number(numMicroBatches)}${tokens}`,
  ];
}

function planTable(plans: readonly Plan[], rows: number): readonly string[] {
  const hasBytes = plans.some(({ peakBytes }) => peakBytes > 0);
  const byToken = plans.some(({ timePerToken }) => timePerToken !== undefined);
  const headers = ["schedule", "ranks", "micro-batches", ">makespan"];
  headers.push(byToken ? ">per 1000 tokens" : ">per micro-batch", ">idle", ">held");
  headers.push(">copies", ...(hasBytes ? [">memory"] : []));
  const cells = plans
    .slice(0, rows)
    .map((plan) => [
      ...choiceCells(plan),
      number(plan.makespan),
      number(plan.timePerToken === undefined ? plan.timePerMicroBatch : plan.timePerToken * 1000),
      `${(100 * plan.bubbleShare).toFixed(1)} %`,
      number(plan.peakActivations),
      String(plan.parameterCopies),
      ...(hasBytes ? [formatBytes(plan.peakBytes)] : []),
    ]);
  return formatTable(headers, cells);
}

function* lines({ plans, infeasible }: PlanResult, rows: number): Generator<string> {
  if (plans.length === 0) yield "no plan fits";
  else {
    yield* planTable(plans, rows);
    if (plans.length > rows) yield `and ${plans.length - rows} slower ones`;
    const [best] = plans;
    if (best?.layerBounds !== undefined) {
      yield "";
      yield `layers of the first: stages begin at ${best.layerBounds.slice(0, -1).join(", ")}`;
    }
  }
  if (infeasible.length === 0) return;
  yield "";
  yield "cannot be used:";
  const cells = infeasible.map((one) => [
    ...choiceCells(one),
    withFlags(one.reason, dualpipeFlags),
  ]);
  yield* formatTable(["schedule", "ranks", "micro-batches", "because"], cells);
}

export default async function dualpipePlan(this: CliContext, flags: Flags): Promise<void> {
  const options = await optionsOf(this, flags);
  const files = flags.layers === undefined ? {} : { layers: flags.layers };
  const result = inTermsOf({ flags: dualpipeFlags, files }, () => planPipeline(options));
  if (result.plans.length === 0) this.process.exitCode = 1;
  if (flags.json) printJson(this, result);
  else for (const line of lines(result, flags.rows)) printLine(this, line);
}
