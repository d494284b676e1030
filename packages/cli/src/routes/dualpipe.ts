// `open-infra dualpipe …`: names, flags and help of its commands, which load only when they run.

import { buildCommand, buildRouteMap, type RouteMap } from "@stricli/core";
import type { CliContext } from "../context.ts";
import { jsonFlag } from "../flags.ts";
import { integer, text } from "../parse.ts";

/** The same names as `builtInNames` of `@open-infra/dualpipe`, which `--help` must not load. */
const scheduleNames = ["1f1b", "interleaved-1f1b", "zb1p", "zbv", "dualpipe", "dualpipev"] as const;

/** Which schedule, and how large; the commands share these. */
const scheduleFlags = {
  schedule: {
    kind: "enum",
    values: scheduleNames,
    brief: "Which schedule (default: dualpipe)",
    optional: true,
  },
  numRanks: {
    kind: "parsed",
    parse: integer(1, 65_536),
    brief: "Ranks of the pipeline; DualPipe: an even number",
    placeholder: "N",
    optional: true,
  },
  numMicroBatches: {
    kind: "parsed",
    parse: integer(1, 2 ** 28),
    brief: "Micro-batches of a step over all directions (the original's num_chunks)",
    placeholder: "N",
    optional: true,
  },
  chunksPerRank: {
    kind: "parsed",
    parse: integer(1, 65_536),
    brief: "Virtual stages of a rank, for interleaved-1f1b (default: 2)",
    placeholder: "N",
    optional: true,
  },
  allowPartial: {
    kind: "boolean",
    brief: "Take any number of micro-batches: build for the next legal one and leave some out",
    default: false,
    withNegated: false,
  },
  file: {
    kind: "parsed",
    parse: text,
    brief: "Read a schedule of your own, as --json prints it, instead of building one; - is stdin",
    placeholder: "FILE",
    optional: true,
  },
} as const;

const schedule = buildCommand({
  loader: async () => import("../commands/dualpipe-schedule.ts"),
  parameters: {
    flags: {
      ...scheduleFlags,
      communication: {
        kind: "boolean",
        brief: "Show sends and receives too",
        default: false,
        withNegated: false,
      },
      placement: {
        kind: "enum",
        values: ["original", "arrival"],
        brief: "Where transfers are posted (default: original where that applies)",
        optional: true,
      },
      memoryLimit: {
        kind: "parsed",
        parse: integer(1, 2 ** 28),
        brief: "Micro-batches, each counted once a stage, that a rank may hold",
        placeholder: "N",
        optional: true,
      },
      json: jsonFlag,
    },
    aliases: { s: "schedule", r: "numRanks", m: "numMicroBatches" },
  },
  docs: {
    brief: "Build a schedule, check it, and print what every rank does",
    fullDescription:
      "Prints one row a rank: F forward, B backward, I backward for the input only, W the\n" +
      "weights' gradients put off, (a|b) a forward overlapped with a backward. A number before\n" +
      "the letter is the stage; > and < are DualPipe's two directions; the number after it is\n" +
      "the micro-batch. Then the eight steps, the peaks, the closed formula, and whether the\n" +
      "schedule is complete and free of deadlock; exit status 1 if not.\n" +
      "--json prints the schedule with operations as [kind, [direction, stage], micro-batch].",
  },
});

/** The commands under `open-infra dualpipe`. */
export const dualpipe: RouteMap<CliContext> = buildRouteMap({
  routes: { schedule },
  docs: { brief: "Pipeline schedules: 1F1B, interleaved, ZB1P, ZBV, DualPipe, DualPipeV" },
});
