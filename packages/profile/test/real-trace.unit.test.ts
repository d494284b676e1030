// The published training trace of DeepSeek: not part of this repository, so these tests skip where
// it is absent.

import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type EventTable, readTrace } from "@open-infra/profile/analyze";
import { requirement, sharedDir } from "@open-infra/testing";
import { expect, it } from "vitest";

const folder = sharedDir("data");
const absent = requirement(
  "the published training trace",
  folder === undefined ? "the shared reference folder is absent" : true,
  "optional",
);

const count = (table: EventTable, category: string): number =>
  table.category.filter((index) => table.strings[index] === category).length;

it.skipIf(absent)("is read as it was measured", async () => {
  const bytes = readFileSync(join(folder as string, "deepseek-train-trace.json"));
  const table = await readTrace(bytes, { argColumns: ["External id"] });
  // 14,240 events, 40 of them metadata.
  expect(table.length).toBe(14_200);
  const phases = new Map<string, number>();
  for (const code of table.phase) {
    const letter = String.fromCharCode(code);
    phases.set(letter, (phases.get(letter) ?? 0) + 1);
  }
  expect(Object.fromEntries(phases)).toEqual({ X: 9306, f: 3844, s: 1048, i: 2 });
  for (const [category, events] of Object.entries({
    ac2g: 4876,
    cpu_op: 4387,
    cuda_runtime: 3853,
    kernel: 963,
    user_annotation: 42,
    cuda_driver: 40,
    fwdbwd: 16,
    gpu_memset: 12,
    gpu_memcpy: 8,
  })) {
    expect(count(table, category), category).toBe(events);
  }
  expect(Object.keys(table.metadata)).toEqual([
    "schemaVersion",
    "deviceProperties",
    "distributedInfo",
    "traceName",
  ]);
  expect(table.notes).toMatchObject({ skippedPhases: {}, malformedEvents: 0, missingDurations: 0 });
  // The lanes a viewer shows: two threads, three streams of one device, and the profiler's own.
  expect(table.lanes.filter(({ processLabels }) => processLabels === "GPU 0")).toHaveLength(3);
  expect(table.lanes.filter(({ processLabels }) => processLabels === "CPU")).toHaveLength(2);
});
