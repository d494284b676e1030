// `open-infra eplb rebalance`: loads in, a placement and its balance out.

import {
  type BalanceReport,
  measurePlacement,
  type Placement,
  type PolicyName,
  type Rebalanced,
  type RebalanceOptions,
  rebalanceExperts,
  toNested,
} from "@open-infra/eplb";
import { type CliContext, printLine } from "../context.ts";
import { type ClusterFlags, eplbFlags, placementOf, weightsFrom } from "../eplb-input.ts";
import { flagOf, inTermsOf } from "../flag-names.ts";
import { readText } from "../json-input.ts";
import { UsageError } from "../parse.ts";
import { columnFormat, counted, formatTable } from "../table.ts";

interface Flags extends ClusterFlags {
  readonly file?: string;
  readonly policy?: PolicyName;
  readonly from?: string;
  readonly target?: number;
  readonly maxMovedSlots?: number;
  readonly maxMovedBytes?: number;
  readonly bytesPerExpert?: number;
  readonly json: boolean;
}

const usage =
  "give the loads as --file W.json, or pipe them in: [[90, 132, …], …], a row of experts a layer";

/** Flags that only a migration takes. */
const migrationFlags = ["target", "maxMovedSlots", "maxMovedBytes", "bytesPerExpert"] as const;

function optionsOf(flags: Flags, from: Placement | undefined): RebalanceOptions {
  const { numReplicas, numGroups = 1, numNodes = 1, numGpus, target } = flags;
  const { maxMovedSlots, maxMovedBytes, bytesPerExpert } = flags;
  const policy = flags.policy ?? (from === undefined ? "deepseek" : "minimal-migration");
  if (policy.startsWith("minimal-migration")) {
    if (from === undefined) {
      throw new UsageError(`--policy ${policy} starts from a placement: give --from OLD.json`);
    }
  } else {
    const stray = migrationFlags.find((name) => flags[name] !== undefined);
    if (stray !== undefined) {
      throw new UsageError(`${flagOf(stray)} is for --policy minimal-migration, not ${policy}`);
    }
  }
  if ((maxMovedBytes === undefined) !== (bytesPerExpert === undefined)) {
    throw new UsageError("--max-moved-bytes and --bytes-per-expert go together");
  }
  return {
    numReplicas,
    numGroups,
    numNodes,
    numGpus,
    policy,
    ...(from && { from }),
    ...(target !== undefined && { targetMaxOverMean: target }),
    ...(maxMovedSlots !== undefined && { maxMovedSlots }),
    ...(maxMovedBytes !== undefined && { maxMovedBytes }),
    ...(bytesPerExpert !== undefined && { bytesPerExpert }),
  };
}

/** Typed arrays would become objects in JSON. */
function plainReport(report: BalanceReport): unknown {
  const layers = report.layers.map((layer) => ({
    ...layer,
    gpuLoads: Array.from(layer.gpuLoads),
    nodeLoads: Array.from(layer.nodeLoads),
  }));
  return { ...report, layers };
}

function jsonOf(result: Rebalanced, options: RebalanceOptions, before?: BalanceReport): unknown {
  const { numReplicas, numGroups, numNodes, numGpus } = options;
  const { policy, numLayers, numLogical, report } = result;
  return {
    policy,
    numLayers,
    numLogical,
    numReplicas,
    numGroups,
    numNodes,
    numGpus,
    ...toNested(result),
    report: plainReport(report),
    ...(before && { before: plainReport(before) }),
  };
}

const ratio = (value: number): string => value.toFixed(4);
const percent = (value: number): string => `${(100 * value).toFixed(2)} %`;

function tableOf(
  report: BalanceReport,
  before: BalanceReport | undefined,
  hasOld: boolean,
): readonly string[] {
  const headers = [">layer", ">max", ">mean", ">max/mean", ">bound", ">gap", ">duplicates"];
  if (before) headers.push(">before");
  if (hasOld) headers.push(">moved");
  const load = columnFormat(report.layers.map(({ maxLoad }) => maxLoad));
  const rows = report.layers.map((layer, i) => [
    String(i),
    load(layer.maxLoad),
    load(layer.meanLoad),
    ratio(layer.maxOverMean),
    load(layer.lowerBound),
    percent(layer.gap),
    String(layer.duplicates),
    ...(before ? [ratio(before.layers[i]?.maxOverMean ?? 1)] : []),
    ...(hasOld ? [String(layer.movedSlots)] : []),
  ]);
  return formatTable(headers, rows);
}

function linesOf(
  result: Rebalanced,
  options: RebalanceOptions,
  before: BalanceReport | undefined,
): string[] {
  const { report, numLayers, numLogical, policy } = result;
  const { numReplicas, numGroups, numNodes, numGpus, from } = options;
  const { meanMaxOverMean, worstMaxOverMean, balancedness, worstGap, duplicates } = report;
  const was = before ? ` (before: ${ratio(before.meanMaxOverMean)})` : "";
  const slots = numLayers * numReplicas;
  return [
    `${policy}: ${counted(numLayers, "layer")}, ${counted(numLogical, "expert")} ` +
      `in ${counted(numReplicas, "slot")}, ${counted(numGpus, "GPU")}, ` +
      `${counted(numNodes, "node")}, ${counted(numGroups, "group")}`,
    "",
    ...tableOf(report, before, from !== undefined),
    "",
    `max/mean      ${ratio(meanMaxOverMean)} in the mean${was}, ${ratio(worstMaxOverMean)} worst`,
    `balancedness  ${percent(balancedness)}`,
    `gap           ${percent(worstGap)} at most above a bound that no placement can beat`,
    `duplicates    ${duplicates}`,
    from === undefined
      ? "moved         not known: --from OLD.json names the placement in use"
      : `moved         ${report.movedSlots} of ${slots} slots (${percent(report.movedShare)})`,
  ];
}

export default async function eplbRebalance(this: CliContext, flags: Flags): Promise<void> {
  const input = await readText(this, flags.file, usage);
  const weight = weightsFrom(input);
  let from: Placement | undefined;
  let old = "";
  if (flags.from !== undefined) {
    if (flags.from === "-" && (flags.file ?? "-") === "-") {
      throw new UsageError("standard input cannot be both --file and --from");
    }
    const text = await readText(this, flags.from, "--from OLD.json is a placement");
    old = text.name;
    const numLogical = Array.from(weight).find(Array.isArray)?.length ?? 0;
    if (numLogical === 0) throw new UsageError(`${input.name} has no loads in its rows`);
    const migrates = flags.policy === undefined || flags.policy.startsWith("minimal-migration");
    from = placementOf(text, numLogical, migrates);
  }
  const options = optionsOf(flags, from);
  const terms = { flags: eplbFlags, files: { weight: input.name, from: old } };
  const result = inTermsOf(terms, () => rebalanceExperts(weight, options));
  const complete = from !== undefined && !from.logcnt.includes(0) && !from.phy2log.includes(-1);
  const before = complete ? measurePlacement(weight, from as Placement, options) : undefined;
  if (flags.json) printLine(this, JSON.stringify(jsonOf(result, options, before)));
  else for (const line of linesOf(result, options, before)) printLine(this, line);
}
