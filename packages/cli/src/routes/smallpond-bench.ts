// `open-infra smallpond bench …`: names, flags and help of the benchmark programs.

import { buildCommand, buildRouteMap, type RouteMap } from "@stricli/core";
import type { CliContext } from "../context.ts";
import { bytesFlag, jsonFlag } from "../flags.ts";
import { text } from "../parse.ts";
import { countFlag, dataRoot } from "./smallpond-flags.ts";

const most = Number.MAX_SAFE_INTEGER;
const mostPartitions = 1 << 20;

const common = {
  executors: countFlag("Processes of one core each (default: all cores)", 4096),
  dataRoot,
  json: jsonFlag,
};

const rows = countFlag("Mock urls to generate (default: 1,000,000)", most);
const seed = countFlag("Seed of what is drawn (default: 0)", 2 ** 31 - 1, 0);

const input = {
  kind: "parsed",
  parse: text,
  brief: "Parquet files to take instead of mock urls",
  placeholder: "GLOB",
  optional: true,
} as const;

const fileIo = buildCommand({
  loader: async () => ({ default: (await import("../commands/smallpond-bench.ts")).fileIoBench }),
  parameters: {
    flags: {
      rows,
      seed,
      input,
      partitions: countFlag("Tasks of each copy (default: two a core)", mostPartitions),
      ...common,
    },
  },
  docs: { brief: "Copy Parquet by a query, a function of rows and a stream of Arrow tables" },
});

const hashPartition = buildCommand({
  loader: async () => ({
    default: (await import("../commands/smallpond-bench.ts")).hashPartitionBench,
  }),
  parameters: {
    flags: {
      rows,
      seed,
      input,
      columns: {
        kind: "parsed",
        parse: (value: string) => value.split(","),
        brief: "Columns to deal out by, with commas (default: host, of mock urls)",
        placeholder: "NAMES",
        optional: true,
      },
      partitions: countFlag("Partitions (default: four a core)", mostPartitions),
      ...common,
    },
  },
  docs: { brief: "Deal rows out by the hash of columns; count rows and keys of each partition" },
});

const urlsSort = buildCommand({
  loader: async () => ({ default: (await import("../commands/smallpond-bench.ts")).urlsSortBench }),
  parameters: {
    flags: {
      rows,
      seed,
      partitions: countFlag("Sorted parts (default: two a core)", mostPartitions),
      ...common,
    },
  },
  docs: { brief: "Sort mock urls, within partitions by host and as a whole" },
});

const fstest = buildCommand({
  loader: async () => ({ default: (await import("../commands/smallpond-bench.ts")).fstestBench }),
  parameters: {
    flags: {
      folder: {
        kind: "parsed",
        parse: text,
        brief: "Folder of the files, on the file system to test (default: one in the job's folder)",
        placeholder: "DIR",
        optional: true,
      },
      files: countFlag("Files, a task each (default: two a core)", mostPartitions),
      fileSize: bytesFlag("Size of each file (default: 64MiB)"),
      blockSize: bytesFlag("Size of each read and write (default: 1MiB)"),
      write: { kind: "boolean", brief: "Write the files before reading them", default: true },
      keep: {
        kind: "boolean",
        brief: "Keep the files, to read them again with --no-write",
        default: false,
        withNegated: false,
      },
      seed,
      ...common,
    },
  },
  docs: {
    brief: "Write files of counters, read them in order and at random, check every word",
    fullDescription:
      "What was just written is likely read from memory: to read from the disk, --keep the\n" +
      "files, and read them with --no-write, with the same sizes, later or from another machine.",
  },
});

/** The route. */
export const smallpondBench: RouteMap<CliContext> = buildRouteMap<
  "fileIo" | "hashPartition" | "urlsSort" | "fstest",
  CliContext
>({
  routes: { fileIo, hashPartition, urlsSort, fstest },
  docs: { brief: "Benchmark programs: copies, partitions, sorts, files" },
});
