// A step of job.ts.

import { setTimeout } from "node:timers/promises";

type Rows = readonly Record<string, unknown>[];

/** Gives back what it gets, after a while. */
export async function wait(rows: Rows, ms: number): Promise<Rows> {
  await setTimeout(ms);
  return rows;
}
