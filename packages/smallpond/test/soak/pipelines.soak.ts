// Random pipelines for as long as asked, each with the optimizer and as written, against DuckDB
// alone; `npm run soak -- smallpond --minutes 5 --seed 1`.

import type { SoakOptions } from "@open-infra/testing";
import { PipelineRun } from "../pipelines/run.ts";

/** Pipelines between new sessions, so that the job's folders stay small. */
const perSession = 200;

/** Rejects at the first difference, with its seed. */
export async function soak({ seed, minutes, log }: SoakOptions): Promise<void> {
  const end = performance.now() + minutes * 60_000;
  const isOver = (done: number): boolean => done > 0 && performance.now() >= end;
  for (let done = 0; !isOver(done); ) {
    await using run = new PipelineRun();
    await run.start();
    for (let i = 0; i < perSession && !isOver(done); i++, done++) await run.pipeline(seed + done);
    const rules = [...run.applied].map(([rule, times]) => `${rule}: ${times}`).join(", ");
    log(`${done} pipelines equal DuckDB's rows, seeds ${seed} to ${seed + done - 1}; ${rules}`);
  }
}
