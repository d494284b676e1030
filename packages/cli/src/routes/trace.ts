// `open-infra trace …`: what the analyser offers on the command line. Commands load when they run.

import { buildCommand, buildRouteMap, type RouteMap } from "@stricli/core";
import type { CliContext } from "../context.ts";
import { jsonFlag } from "../flags.ts";
import { integer, nonNegativeNumber, percentage, text } from "../parse.ts";

const rulesFlag = {
  kind: "parsed",
  parse: text,
  brief: "JSON file of rules that go before the built-in classes of kernels",
  placeholder: "FILE",
  optional: true,
} as const;

const tolerantFlag = {
  kind: "boolean",
  brief: "Leave out what cannot be read, keep the rest of a damaged or cut-off file",
  default: false,
  withNegated: false,
} as const;

const traceFile = {
  brief: "Chrome or Kineto trace, JSON or gzip; - is standard input",
  parse: text,
  placeholder: "FILE",
} as const;

const analyze = buildCommand({
  loader: async () => import("../commands/trace-analyze.ts"),
  parameters: {
    flags: {
      rules: rulesFlag,
      top: {
        kind: "parsed",
        parse: integer(0, 1_000_000),
        brief: "Kernel names to list (default: 8, with --json all)",
        placeholder: "K",
        optional: true,
      },
      device: {
        kind: "parsed",
        parse: text,
        brief: "Only this device (its pid); repeat for more",
        placeholder: "PID",
        optional: true,
        variadic: true,
      },
      fromUs: {
        kind: "parsed",
        parse: nonNegativeNumber,
        brief: "Only from this time on, µs since the first event",
        placeholder: "US",
        optional: true,
      },
      toUs: {
        kind: "parsed",
        parse: nonNegativeNumber,
        brief: "Only until this time, µs since the first event",
        placeholder: "US",
        optional: true,
      },
      kernelWaitUs: {
        kind: "parsed",
        parse: nonNegativeNumber,
        brief: "Gaps below this are the cost of one kernel after another, not idleness",
        placeholder: "US",
        default: "30",
      },
      tolerant: tolerantFlag,
      json: jsonFlag,
    },
    positional: { kind: "tuple", parameters: [traceFile] },
  },
  docs: {
    brief: "Say where a trace's time goes: overlap, exposed communication, idle time, kernels",
    fullDescription:
      "Reads a trace of the PyTorch profiler, of `open-infra serve --trace` or any other in\n" +
      "Chrome's format. --json prints all figures; the fields are documented in the README of\n" +
      "@open-infra/profile.",
  },
});

const diff = buildCommand({
  loader: async () => import("../commands/trace-diff.ts"),
  parameters: {
    flags: {
      failAbove: {
        kind: "parsed",
        parse: percentage,
        brief: "Slower by more than this is a regression",
        placeholder: "P%",
        default: "5%",
      },
      noiseUs: {
        kind: "parsed",
        parse: nonNegativeNumber,
        brief: "... if it is also slower by more than this, µs",
        placeholder: "US",
        default: "50",
      },
      failOn: {
        kind: "enum",
        values: ["metric", "class", "kernel"],
        brief: "Whose regressions fail; repeat for more (default: metric and class)",
        optional: true,
        variadic: ",",
      },
      rules: rulesFlag,
      top: {
        kind: "parsed",
        parse: integer(0, 1_000_000),
        brief: "Changed kernels to list",
        placeholder: "K",
        default: "10",
      },
      tolerant: tolerantFlag,
      json: jsonFlag,
    },
    positional: {
      kind: "tuple",
      parameters: [
        { ...traceFile, brief: "Trace before, or an analysis saved with --json", placeholder: "A" },
        { ...traceFile, brief: "Trace after, likewise", placeholder: "B" },
      ],
    },
  },
  docs: {
    brief: "Compare two traces and fail on a regression (exit status 3)",
    fullDescription:
      "Compares times of the whole, of classes of kernels and of kernels. A regression is a\n" +
      "time that grew by more than --fail-above and by more than --noise-us. Exit status:\n" +
      "0 none, 3 regression, 2 a file that cannot be read.",
  },
});

const view = buildCommand({
  loader: async () => import("../commands/trace-view.ts"),
  parameters: {
    flags: {
      port: {
        kind: "parsed",
        parse: integer(0, 65535),
        brief: "Port; 0 takes a free one",
        placeholder: "PORT",
        default: "0",
      },
      open: {
        kind: "boolean",
        brief: "Open the page in the system's browser",
        default: false,
        withNegated: false,
      },
    },
    positional: {
      kind: "tuple",
      parameters: [{ ...traceFile, brief: "Chrome or Kineto trace, JSON or gzip" }],
    },
  },
  docs: {
    brief: "Show a trace's timeline in the web console",
    fullDescription:
      "Serves the console's trace page with the file on a loopback address, prints the address,\n" +
      "and ends on Ctrl-C. The browser reads the file; nothing is sent elsewhere.",
  },
});

/** `open-infra trace`. */
export const trace: RouteMap<CliContext> = buildRouteMap({
  routes: { analyze, diff, view },
  docs: { brief: "Analyse, compare and show traces" },
});
