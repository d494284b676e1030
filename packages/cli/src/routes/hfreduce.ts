// `open-infra hfreduce …`: names, flags and help of its commands, which load only when they run.

import { buildCommand, buildRouteMap, type RouteMap } from "@stricli/core";
import type { CliContext } from "../context.ts";
import { bytesFlag, jsonFlag } from "../flags.ts";
import { integer } from "../parse.ts";

/** The same names as in `@open-infra/hfreduce/model`, which `--help` must not load. */
const variants = ["gdrcopy", "memcpy", "nvlink"] as const;

const plan = buildCommand({
  loader: async () => import("../commands/hfreduce-plan.ts"),
  parameters: {
    flags: {
      gpus: {
        kind: "parsed",
        parse: integer(1, 32_768),
        brief: "GPUs, eight a node",
        placeholder: "N",
      },
      bytes: bytesFlag("Gradients on each GPU (default: 186MiB, the paper's)"),
      variant: {
        kind: "enum",
        values: variants,
        brief: "How results reach the GPUs: gdrcopy, memcpy, or pairs over nvlink",
        default: "gdrcopy",
      },
      zones: {
        kind: "parsed",
        parse: integer(1, 4096),
        brief: "Zones of the fat tree (default: as many as the nodes fill, 600 each)",
        placeholder: "N",
        optional: true,
      },
      json: jsonFlag,
    },
  },
  docs: {
    brief: "What an allreduce takes on Fire-Flyer 2: tree, ring and NCCL, best chunk, what limits",
  },
});

/** The route. */
export const hfreduce: RouteMap<CliContext> = buildRouteMap<"plan", CliContext>({
  routes: { plan },
  docs: { brief: "Allreduce over nodes and devices" },
});
