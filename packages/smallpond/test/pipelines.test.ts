// A hundred random pipelines over the DataFrame API, with the optimizer and without, beside DuckDB
// alone: rows, columns, placement, order and limits. Thousands: test/soak/pipelines.soak.ts.

import { testSeed } from "@open-infra/testing";
import { expect, test } from "vitest";
import { PipelineRun } from "./pipelines/run.ts";

test("100 random pipelines equal DuckDB row for row", { timeout: 240_000 }, async () => {
  const seed = testSeed();
  await using run = new PipelineRun();
  await run.start();
  for (let i = 0; i < 100; i++) await run.pipeline(seed + i);
  // Nearly every rule had something to do, or this would prove little.
  expect(run.applied.size, `seed ${seed}: ${[...run.applied]}`).toBeGreaterThanOrEqual(6);
});
