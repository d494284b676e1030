// The command tree: names, flags and help. What a command does is in commands/, loaded only when
// it runs, so that `--help` answers at once.

import { readFileSync } from "node:fs";
import { InfraError } from "@open-infra/errors";
import {
  type Application,
  buildApplication,
  buildCommand,
  buildRouteMap,
  text_en,
} from "@stricli/core";
import type { CliContext } from "./context.ts";
import { jsonFlag } from "./flags.ts";
import { integer, positiveNumber, text, tokenList } from "./parse.ts";
import { dualpipe } from "./routes/dualpipe.ts";
import { eplb } from "./routes/eplb.ts";
import { hfreduce } from "./routes/hfreduce.ts";
import { launch } from "./routes/launch.ts";
import { smallpond } from "./routes/smallpond.ts";
import { trace } from "./routes/trace.ts";

const packageJson = new URL("../package.json", import.meta.url);
const version = (JSON.parse(readFileSync(packageJson, "utf8")) as { version: string }).version;

const modelFlag = {
  kind: "parsed",
  parse: text,
  brief: "Checkpoint folder in the hub's layout (default: the bundled demo model)",
  placeholder: "DIR",
  optional: true,
} as const;
const dtypeFlag = {
  kind: "enum",
  values: ["auto", "bf16", "f32", "w8a8"],
  brief:
    "Activations and KV cache; auto is f32, exact; bf16 halves the cache; w8a8: FP8 activations",
  default: "auto",
} as const;
const fp8InputsFlag = {
  kind: "enum",
  values: ["mlp", "all"],
  brief: "With --dtype w8a8: layers whose inputs are FP8; all is DeepSeek's own way, mlp closer",
  default: "mlp",
} as const;
const backendFlag = {
  kind: "enum",
  values: ["auto", "cpu", "reference"],
  brief: "auto: compiled kernels where there is a C compiler, else plain TypeScript",
  default: "auto",
} as const;
const threadsFlag = {
  kind: "parsed",
  parse: integer(1, 1024),
  brief: "Threads for kernels (default: all cores)",
  placeholder: "N",
  optional: true,
} as const;
const serve = buildCommand({
  loader: async () => import("./commands/serve.ts"),
  parameters: {
    flags: {
      model: modelFlag,
      host: { kind: "parsed", parse: text, brief: "Address to listen on", default: "127.0.0.1" },
      port: {
        kind: "parsed",
        parse: integer(0, 65535),
        brief: "Port; 0 takes a free one",
        default: "8000",
      },
      dtype: dtypeFlag,
      fp8Inputs: fp8InputsFlag,
      backend: backendFlag,
      threads: threadsFlag,
      maxModelLen: {
        kind: "parsed",
        parse: integer(1, 1 << 24),
        brief: "Longest prompt plus completion, in tokens (default: the model's)",
        placeholder: "N",
        optional: true,
      },
      maxSequences: {
        kind: "parsed",
        parse: integer(1, 4096),
        brief: "Requests computed at once",
        default: "64",
      },
      maxBatchedTokens: {
        kind: "parsed",
        parse: integer(1, 1 << 20),
        brief: "Tokens computed in one step",
        default: "512",
      },
      maxQueue: {
        kind: "parsed",
        parse: integer(0, 1 << 20),
        brief: "Requests that may wait; more get 429",
        default: "256",
      },
      kvCacheMb: {
        kind: "parsed",
        parse: integer(1, 1 << 24),
        brief: "Memory for the KV cache in MiB (default: from the model and free memory)",
        placeholder: "MB",
        optional: true,
      },
      servedModelName: {
        kind: "parsed",
        parse: text,
        brief: "Model name in the API (default: the folder's name)",
        placeholder: "NAME",
        optional: true,
      },
      apiKey: {
        kind: "parsed",
        parse: text,
        brief: "Require this bearer key (or OPEN_INFRA_API_KEY)",
        placeholder: "KEY",
        optional: true,
      },
      corsOrigin: {
        kind: "parsed",
        parse: text,
        brief: "Allow this browser origin; repeat for more (default: none)",
        placeholder: "ORIGIN",
        optional: true,
        variadic: true,
      },
      allowedHost: {
        kind: "parsed",
        parse: text,
        brief: "Accept this name in the Host header besides localhost; repeat for more",
        placeholder: "NAME",
        optional: true,
        variadic: true,
      },
      maxBodyMb: {
        kind: "parsed",
        parse: positiveNumber,
        brief: "Largest request body in MiB",
        default: "4",
      },
      drainSeconds: {
        kind: "parsed",
        parse: positiveNumber,
        brief: "On SIGTERM, how long running requests may finish",
        default: "30",
      },
      trace: {
        kind: "parsed",
        parse: text,
        brief: "Write engine steps and kernel launches as a Chrome trace on exit",
        placeholder: "FILE",
        optional: true,
      },
      logLevel: {
        kind: "enum",
        values: ["silent", "error", "warn", "info", "debug"],
        brief: "Request and engine log on stderr",
        default: "warn",
      },
    },
    positional: {
      kind: "tuple",
      parameters: [
        { brief: "The same as --model", parse: text, placeholder: "DIR", optional: true },
      ],
    },
  },
  docs: {
    brief: "Serve a model over an OpenAI-compatible API, with a web console",
    fullDescription:
      "Loads a DeepSeek-V2, V2-Lite, V3 or R1 checkpoint and serves it on http://HOST:PORT:\n" +
      "the API under /v1, metrics at /metrics, the console at /. Without a model it serves the\n" +
      "bundled demo, which continues Python code.",
  },
});

const score = buildCommand({
  loader: async () => import("./commands/score.ts"),
  parameters: {
    flags: {
      model: modelFlag,
      tokens: {
        kind: "parsed",
        parse: tokenList,
        brief: "Token ids, e.g. 0,17,5",
        placeholder: "IDS",
        optional: true,
      },
      tokensFile: {
        kind: "parsed",
        parse: text,
        brief: "A file holding a JSON array of token ids",
        placeholder: "FILE",
        optional: true,
      },
      dtype: dtypeFlag,
      fp8Inputs: fp8InputsFlag,
      backend: backendFlag,
      threads: threadsFlag,
    },
  },
  docs: {
    brief: "Print the last position's logits and every token's log-probability as JSON",
    fullDescription:
      'Prints {"last_logits": [...], "token_logprobs": [...]}:\n' +
      "the logits after the last token, and for each token but the first its\n" +
      "log-probability given those before it.",
  },
});

const makeModel = buildCommand({
  loader: async () => import("./commands/make-model.ts"),
  parameters: {
    flags: {
      preset: {
        kind: "parsed",
        parse: text,
        brief: "Architecture; --list shows them",
        default: "tiny",
      },
      seed: {
        kind: "parsed",
        parse: integer(0, 2 ** 31),
        brief: "The same seed writes the same weights",
        default: "0",
      },
      dtype: {
        kind: "enum",
        values: ["bf16", "fp8", "f32"],
        brief: "Weight type (default: the preset's)",
        optional: true,
      },
      list: { kind: "boolean", brief: "List the presets", default: false, withNegated: false },
      json: jsonFlag,
    },
    positional: {
      kind: "tuple",
      parameters: [{ brief: "Folder to write", parse: text, placeholder: "DIR", optional: true }],
    },
  },
  docs: {
    brief: "Write a checkpoint with random weights in the hub's layout, for tests and benches",
  },
});

const jit = buildRouteMap({
  routes: {
    warmup: buildCommand({
      loader: async () => import("./commands/jit-warmup.ts"),
      parameters: {
        flags: { model: modelFlag, dtype: dtypeFlag, threads: threadsFlag, json: jsonFlag },
      },
      docs: { brief: "Compile every kernel a model needs, so that serving starts at once" },
    }),
    list: buildCommand({
      loader: async () => ({ default: (await import("./commands/jit-cache.ts")).list }),
      parameters: { flags: { json: jsonFlag } },
      docs: { brief: "List compiled kernels" },
    }),
    export: buildCommand({
      loader: async () => ({ default: (await import("./commands/jit-cache.ts")).exportBundle }),
      parameters: {
        flags: { json: jsonFlag },
        positional: {
          kind: "tuple",
          parameters: [{ brief: "Bundle to write", parse: text, placeholder: "FILE" }],
        },
      },
      docs: { brief: "Write all compiled kernels into one file, for machines without a compiler" },
    }),
    import: buildCommand({
      loader: async () => ({ default: (await import("./commands/jit-cache.ts")).importBundle }),
      parameters: {
        flags: { json: jsonFlag },
        positional: {
          kind: "tuple",
          parameters: [
            {
              brief: "Bundle to read; its code will run: trust it",
              parse: text,
              placeholder: "FILE",
            },
          ],
        },
      },
      docs: { brief: "Add the kernels of a bundle to the cache" },
    }),
    clear: buildCommand({
      loader: async () => ({ default: (await import("./commands/jit-cache.ts")).clear }),
      parameters: { flags: { json: jsonFlag } },
      docs: { brief: "Delete all compiled kernels" },
    }),
  },
  docs: { brief: "The cache of compiled kernels" },
});

const bench = buildCommand({
  loader: async () => import("./commands/bench.ts"),
  parameters: {
    flags: {
      model: modelFlag,
      dtype: dtypeFlag,
      threads: threadsFlag,
      concurrency: {
        kind: "parsed",
        parse: integer(1, 1024),
        brief: "Requests at once in the batched row",
        default: "16",
      },
      tokens: {
        kind: "parsed",
        parse: integer(2, 100_000),
        brief: "Tokens to generate a request",
        default: "64",
      },
      json: jsonFlag,
    },
  },
  docs: {
    brief: "Measure decode and prefill speed of a model against this machine's limits",
    fullDescription:
      "Decode of one request is bound by reading the active weights:\nthe ratio is tokens/s " +
      "times those bytes, over the read bandwidth measured in the same run.",
  },
});

const doctor = buildCommand({
  loader: async () => import("./commands/doctor.ts"),
  parameters: { flags: { json: jsonFlag } },
  docs: { brief: "Say what this machine has, what is missing, and how to get it" },
});

/** Codes of errors that the caller mends by changing what was typed or given; exit status 2. */
const usageCodes: ReadonlySet<string> = new Set(["usage", "input"]);

function describe(error: unknown): string {
  if (error instanceof InfraError) return `open-infra: ${error.message}`;
  const detail = error instanceof Error ? (error.stack ?? error.message) : String(error);
  return `open-infra: unexpected failure: ${detail}`;
}

export const app: Application<CliContext> = buildApplication(
  buildRouteMap({
    routes: {
      serve,
      score,
      makeModel,
      jit,
      dualpipe,
      eplb,
      hfreduce,
      smallpond,
      launch,
      bench,
      doctor,
      trace,
    },
    docs: {
      brief: "DeepSeek's open infrastructure as TypeScript",
      fullDescription:
        "Start with `open-infra serve`: it serves the bundled demo model on http://127.0.0.1:8000.\n" +
        "`open-infra COMMAND --help` explains each command.",
    },
  }),
  {
    name: "open-infra",
    versionInfo: { currentVersion: version },
    scanner: { caseStyle: "allow-kebab-for-camel", allowArgumentEscapeSequence: true },
    documentation: { caseStyle: "convert-camel-to-kebab", disableAnsiColor: true },
    localization: {
      text: {
        ...text_en,
        exceptionWhileRunningCommand: (error) => describe(error),
        exceptionWhileParsingArguments: (error) =>
          `open-infra: ${error instanceof Error ? error.message : String(error)}`,
        commandErrorResult: (error) => describe(error),
      },
    },
    determineExitCode: (error) =>
      error instanceof InfraError && usageCodes.has(error.code) ? 2 : 1,
  },
);
