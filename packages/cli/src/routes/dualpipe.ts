// `open-infra dualpipe …`: names, flags and help of its commands, which load only when they run.

import { buildCommand, buildRouteMap, type RouteMap } from "@stricli/core";
import type { CliContext } from "../context.ts";
import { bytesFlag, jsonFlag } from "../flags.ts";
import {
  integer,
  nonNegativeNumber,
  positiveNumber,
  text,
  UsageError,
  wholeList,
} from "../parse.ts";

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

/** `1f1b,dualpipe` as names. */
function nameList(value: string): readonly (typeof scheduleNames)[number][] {
  return value.split(",").map((part) => {
    const name = part.trim();
    if ((scheduleNames as readonly string[]).includes(name))
      return name as (typeof scheduleNames)[number];
    throw new UsageError(
      `'${name}' is not a schedule; expected one of ${scheduleNames.join(", ")}`,
    );
  });
}

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

const time = (brief: string) =>
  ({ kind: "parsed", parse: nonNegativeNumber, brief, placeholder: "T", optional: true }) as const;

const file = (brief: string) =>
  ({ kind: "parsed", parse: text, brief, placeholder: "FILE", optional: true }) as const;

const list = (brief: string) =>
  ({ kind: "parsed", parse: wholeList, brief, placeholder: "N,N", optional: true }) as const;

/** What a transfer between two ranks costs. */
const linkFlags = {
  latency: time("From a result's end until another rank has it (default: 0)"),
  bandwidth: {
    kind: "parsed",
    parse: positiveNumber,
    brief: "Bytes a unit of time on a link; needs --bytes",
    placeholder: "N",
    optional: true,
  },
  bytes: bytesFlag("Bytes that cross from stage to stage, e.g. 56MiB"),
  exclusiveLinks: {
    kind: "boolean",
    brief: "A link carries one transfer at a time",
    default: false,
    withNegated: false,
  },
} as const;

const simulate = buildCommand({
  loader: async () => import("../commands/dualpipe-simulate.ts"),
  parameters: {
    flags: {
      ...scheduleFlags,
      timeF: time("Forward of one stage (default: 1)"),
      timeB: time("Full backward of one stage (default: 2)"),
      timeI: time("Backward for the input only (default: B − W)"),
      timeW: time("Deferred weight gradients (default: B − I, or half of B)"),
      fb: time("An overlapped forward and backward (default: F + B)"),
      stageTimes: file(
        "JSON with F, B, I, W, FB as numbers or one per stage, and more; - is stdin",
      ),
      ...linkFlags,
      mode: {
        kind: "enum",
        values: ["dataflow", "rendezvous"],
        brief: "rendezvous: a computation waits until all posted transfers met their peers",
        default: "dataflow",
      },
      fromTrace: file("Take each operation's duration from a recorded run, and compare with it"),
      svg: file("Write the timeline as a picture"),
      trace: file("Write the timeline as a Chrome trace"),
      usPerUnit: {
        kind: "parsed",
        parse: positiveNumber,
        brief: "Microseconds in a unit of time, for --trace",
        placeholder: "US",
        default: "1",
      },
      json: jsonFlag,
    },
    aliases: {
      s: "schedule",
      r: "numRanks",
      m: "numMicroBatches",
      f: "timeF",
      b: "timeB",
      i: "timeI",
      w: "timeW",
    },
  },
  docs: {
    brief: "Simulate a schedule: makespan, idle time, memory, critical path, bounds",
    fullDescription:
      "Times are in any one unit. Prints a timeline where it fits, each rank's work and idle\n" +
      "time by position and by the schedule's steps, the closed formula beside the simulation,\n" +
      "a bound that no order of the same operations can beat, and the critical path.\n" +
      'The file of --stage-times holds {"F": 1 or [1, 1, …], "B": …, "W": …, "FB": … or\n' +
      '{"shareOfSum": 0.85}, "rankSlowdown": […], "communication": {…}, "memory": {…}}.\n' +
      "A schedule that waits for itself is told with who waits for whom; exit status 1.",
  },
});

const plan = buildCommand({
  loader: async () => import("../commands/dualpipe-plan.ts"),
  parameters: {
    flags: {
      numRanks: {
        kind: "parsed",
        parse: integer(1, 65_536),
        brief: "Devices in all",
        placeholder: "N",
      },
      numMicroBatches: list("Counts of micro-batches to try, over all pipelines"),
      batchTokens: {
        kind: "parsed",
        parse: integer(1, 2 ** 40),
        brief: "Or: tokens of a step, cut into micro-batches of --micro-batch-tokens",
        placeholder: "N",
        optional: true,
      },
      microBatchTokens: list("Tokens of a micro-batch to try"),
      costTokens: {
        kind: "parsed",
        parse: integer(1, 2 ** 40),
        brief: "Tokens that times and activations are given for (default: the first of those)",
        placeholder: "N",
        optional: true,
      },
      pipelineDepth: list("Ranks of one pipeline to try (default: all devices)"),
      schedules: {
        kind: "parsed",
        parse: nameList,
        brief: "Schedules to try (default: all)",
        placeholder: "NAMES",
        optional: true,
      },
      chunksPerRank: list("Virtual stages to try for interleaved-1f1b (default: 2)"),
      timeF: time("Forward of one rank's share of the model, 1 / num-ranks (default: 1)"),
      timeB: time("Its full backward (default: 2)"),
      timeW: time("The weight gradients in it (default: half)"),
      overlapShare: {
        kind: "parsed",
        parse: positiveNumber,
        brief: "Time of an overlapped pair over the sum of its halves (default: 1)",
        placeholder: "X",
        optional: true,
      },
      overhead: time("Time of each computation that does not grow with tokens (default: 0)"),
      parameterBytes: bytesFlag("Of one rank's share: weights, gradients, optimizer state"),
      activationBytes: bytesFlag("Of one rank's share and one micro-batch"),
      weightGradBytes: bytesFlag("Of these, kept until the W (default: all)"),
      layers: file("Instead: JSON array of layers, {F, B, W, parameterBytes, …}; - is stdin"),
      ...linkFlags,
      memoryLimit: bytesFlag("What a rank may use, e.g. 80GB"),
      activationLimit: {
        kind: "parsed",
        parse: positiveNumber,
        brief: "Micro-batches a rank may hold, each counted as one rank's share",
        placeholder: "N",
        optional: true,
      },
      allowPartial: scheduleFlags.allowPartial,
      rows: {
        kind: "parsed",
        parse: integer(1, 100_000),
        brief: "Plans to print; --json prints all",
        placeholder: "N",
        default: "10",
      },
      json: jsonFlag,
    },
    aliases: { r: "numRanks", m: "numMicroBatches", f: "timeF", b: "timeB", w: "timeW" },
  },
  docs: {
    brief: "Rank schedules and micro-batch counts for given times and a memory limit",
    fullDescription:
      "Simulates every schedule with every count that is asked for and prints the fastest\n" +
      "first, then what cannot be used and the constraint that forbids it.\n" +
      "Exit status 1 if nothing can.",
  },
});

/** The commands under `open-infra dualpipe`. */
export const dualpipe: RouteMap<CliContext> = buildRouteMap({
  routes: { schedule, simulate, plan },
  docs: { brief: "Pipeline schedules: 1F1B, interleaved, ZB1P, ZBV, DualPipe, DualPipeV" },
});
