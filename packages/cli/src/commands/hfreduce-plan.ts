// `open-infra hfreduce plan`: what an allreduce takes on a machine of a given size.

import {
  type AllreducePlan,
  paperBytes,
  planAllreduce,
  type Variant,
} from "@open-infra/hfreduce/model";
import { type CliContext, printJson, printLine } from "../context.ts";
import { flagMap, inTermsOf } from "../flag-names.ts";
import { counted, formatNumber, formatTable } from "../table.ts";

interface Flags {
  readonly gpus: number;
  readonly bytes?: number;
  readonly variant: Variant;
  readonly zones?: number;
  readonly json: boolean;
}

const terms = { flags: flagMap(["gpus", "bytes", "variant", "zones"]) };

const limits: Readonly<Record<AllreducePlan["limitedBy"], string>> = {
  memory: "host memory",
  rootPort: "the root port that GPUs 5 and 6 share",
  nic: "the NIC",
  window: "host buffers: chunks on their way to the root and back",
  latency: "latency: one chunk's way through all levels",
};
const ways = {
  tree: "HFReduce, double tree",
  ring: "HFReduce, ring between nodes",
  nccl: "NCCL, ring of all GPUs",
} as const;

function size(bytes: number): string {
  const [unit, scale] = bytes < 2 ** 20 ? ["KiB", 2 ** 10] : ["MiB", 2 ** 20];
  return `${formatNumber(bytes / (scale as number))} ${unit}`;
}

function linesOf(plan: AllreducePlan): string[] {
  const { gpus, nodes, zones, bytes, variant, bounds } = plan;
  const rows = plan.ways.map(({ way, chunkBytes, simulated, seconds, GBs }) => [
    ways[way],
    chunkBytes === undefined ? "" : size(chunkBytes),
    simulated ? "simulated" : "estimated",
    (seconds * 1000).toFixed(2),
    GBs.toFixed(2),
    `${((plan.ways[0]?.seconds as number) / seconds).toFixed(2)}×`,
  ]);
  const rates = bounds.map(({ resource, GBs }) => [limits[resource], GBs.toFixed(1)]);
  const chunks = plan.chunks.map((one) => [size(one.chunkBytes), one.GBs.toFixed(2)]);
  return [
    `allreduce of ${size(bytes)} on ${counted(gpus, "GPU")}: ${counted(nodes, "node")}, ` +
      `${counted(zones, "zone")}, ${variant}, ${plan.memoryOperations} memory operations a byte`,
    "",
    ...formatTable(["way", ">chunks", "", ">ms", ">GB/s", ">to the best"], rows),
    "",
    `limited by  ${limits[plan.limitedBy]}`,
    `best chunk  ${size(plan.chunkBytes)}`,
    "",
    ...formatTable(["each resource alone would allow", ">GB/s"], rates),
    "",
    ...formatTable([">chunk", ">GB/s, estimated"], chunks),
  ];
}

export default function hfreducePlan(this: CliContext, flags: Flags): void {
  const { gpus, bytes = paperBytes, variant, zones } = flags;
  const options = { gpus, bytes, variant, ...(zones !== undefined && { zones }) };
  const plan = inTermsOf(terms, () => planAllreduce(options));
  if (flags.json) printJson(this, plan);
  else for (const line of linesOf(plan)) printLine(this, line);
}
