// `open-infra smallpond …`: names, flags and help of its commands, which load only when they run.

import { buildCommand, buildRouteMap, type RouteMap } from "@stricli/core";
import type { CliContext } from "../context.ts";
import { bytesFlag, jsonFlag } from "../flags.ts";
import { integer, text } from "../parse.ts";
import { smallpondBench } from "./smallpond-bench.ts";
import { dataRoot } from "./smallpond-flags.ts";

const executors = {
  kind: "parsed",
  parse: integer(1, 4096),
  brief: "Executor processes on this machine (default: the script's)",
  placeholder: "N",
  optional: true,
} as const;

const scriptAndArguments = {
  kind: "array",
  parameter: { brief: "A script, and its arguments", parse: text, placeholder: "--" },
  minimum: 1,
} as const;

const run = buildCommand({
  loader: async () => import("../commands/smallpond-run.ts"),
  parameters: {
    flags: {
      jobId: {
        kind: "parsed",
        parse: text,
        brief: "Names the job; an earlier one goes on from what it finished",
        placeholder: "ID",
        optional: true,
      },
      dataRoot,
      executors,
      console: {
        kind: "boolean",
        brief: "Also show the job in the browser, on a free port of 127.0.0.1",
        default: false,
        withNegated: false,
      },
      quiet: {
        kind: "boolean",
        brief: "Show no progress",
        default: false,
        withNegated: false,
      },
    },
    positional: scriptAndArguments,
  },
  docs: {
    brief: "Run a script that uses smallpond, and show how far it is",
    customUsage: ["job.ts ARGS", "--job-id nightly --executors 4 -- job.ts ARGS"],
    fullDescription:
      "Interrupted or failed, a job keeps what it finished; the same --job-id goes on.\n" +
      "Without --job-id, what tasks computed is deleted once the script has ended well.",
  },
});

const explain = buildCommand({
  loader: async () => ({ default: (await import("../commands/smallpond-run.ts")).explain }),
  parameters: { flags: {}, positional: scriptAndArguments },
  docs: {
    brief: "Print the plan of each action of a script, as written and as it would run",
    fullDescription:
      "Nothing is computed or written: actions find no rows. A script that cannot go on without\n" +
      "rows ends there.",
  },
});

const jobs = buildCommand({
  loader: async () => import("../commands/smallpond-jobs.ts"),
  parameters: { flags: { dataRoot, json: jsonFlag } },
  docs: { brief: "List the jobs of this machine, or of a shared folder" },
});

const status = buildCommand({
  loader: async () => ({ default: (await import("../commands/smallpond-jobs.ts")).status }),
  parameters: {
    flags: { dataRoot, json: jsonFlag },
    positional: {
      kind: "tuple",
      parameters: [{ brief: "A job's id or folder", parse: text, placeholder: "JOB" }],
    },
  },
  docs: { brief: "Steps, executors and failures of a job, running or over" },
});

const show = buildCommand({
  loader: async () => import("../commands/smallpond-console.ts"),
  parameters: {
    flags: {
      dataRoot,
      port: {
        kind: "parsed",
        parse: integer(0, 65_535),
        brief: "Port on 127.0.0.1; 0 takes a free one",
        placeholder: "PORT",
        default: "0",
      },
      open: { kind: "boolean", brief: "Open a browser", default: false, withNegated: false },
    },
    positional: {
      kind: "tuple",
      parameters: [
        { brief: "A job's id or folder", parse: text, placeholder: "JOB", optional: true },
      ],
    },
  },
  docs: { brief: "Watch jobs in the browser: plan, timeline, executors, failures" },
});

const rerun = buildCommand({
  loader: async () => import("../commands/smallpond-rerun.ts"),
  parameters: {
    flags: {
      job: {
        kind: "parsed",
        parse: text,
        brief: "The job's id or folder",
        placeholder: "JOB",
      },
      dataRoot,
      output: {
        kind: "parsed",
        parse: text,
        brief: "Folder for its output (default: a temporary one)",
        placeholder: "DIR",
        optional: true,
      },
      memory: bytesFlag("Memory it may use (default: what the task asked for)"),
      json: jsonFlag,
    },
    positional: {
      kind: "tuple",
      parameters: [
        {
          brief: "A task's key or its beginning, or a step's name",
          parse: text,
          placeholder: "TASK",
        },
      ],
    },
  },
  docs: {
    brief: "Run one task of a job again, alone, and show DuckDB's profile of it",
    customUsage: ["--job nightly 3f9c", "--job nightly partition#3"],
  },
});

const executor = buildCommand({
  loader: async () => import("../commands/smallpond-executor.ts"),
  parameters: {
    flags: {
      jobRoot: {
        kind: "parsed",
        parse: text,
        brief: "The job's folder, on a file system that its session sees too",
        placeholder: "DIR",
      },
      cpus: {
        kind: "parsed",
        parse: integer(1, 4096),
        brief: "Cores it takes on (default: as the session says, else this machine's)",
        placeholder: "N",
        optional: true,
      },
      memory: bytesFlag("Memory it takes on (default: as the session says, else the machine's)"),
    },
  },
  docs: {
    brief: "Join a running job with an executor, from this or another machine",
    fullDescription:
      "For jobs whose channel is files or NATS. It ends with the job; Ctrl-C gives what it runs\n" +
      "to the others.",
  },
});

const graysort = buildCommand({
  loader: async () => import("../commands/smallpond-graysort.ts"),
  parameters: {
    flags: {
      size: bytesFlag("Records to generate: 1GiB, 5GiB, …; or --input"),
      input: {
        kind: "parsed",
        parse: text,
        brief: "Files of 100-byte records to sort instead",
        placeholder: "GLOB",
        optional: true,
      },
      format: {
        kind: "enum",
        values: ["binary", "ascii"],
        brief: "Generated records: random keys of 10 bytes, or printable ones, as lines",
        default: "binary",
      },
      skewed: {
        kind: "boolean",
        brief: "Generate few hot keys",
        default: false,
        withNegated: false,
      },
      partitions: {
        kind: "parsed",
        parse: integer(1, 1 << 20),
        brief: "Sorted parts (default: two a core, and no larger than 64 MiB)",
        placeholder: "N",
        optional: true,
      },
      executors: { ...executors, brief: "Processes of one core each (default: all cores)" },
      engine: {
        kind: "enum",
        values: ["radix", "duckdb"],
        brief: "What orders a part's records",
        default: "radix",
      },
      output: {
        kind: "parsed",
        parse: text,
        brief: "Folder for the sorted parts (default: the job's)",
        placeholder: "DIR",
        optional: true,
      },
      validate: { kind: "boolean", brief: "Check order and checksum", default: true },
      compare: {
        kind: "boolean",
        brief: "Sort the same ASCII records by GNU sort, too, and compare the bytes",
        default: false,
        withNegated: false,
      },
      dataRoot,
      json: jsonFlag,
    },
  },
  docs: { brief: "The sort benchmark: generate records, sort, validate" },
});

/** The route. */
export const smallpond: RouteMap<CliContext> = buildRouteMap<
  "run" | "explain" | "jobs" | "status" | "console" | "rerun" | "executor" | "graysort" | "bench",
  CliContext
>({
  routes: {
    run,
    explain,
    jobs,
    status,
    console: show,
    rerun,
    executor,
    graysort,
    bench: smallpondBench,
  },
  docs: { brief: "Partitioned data processing on DuckDB" },
});
