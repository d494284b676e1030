// Functions that the tests' jobs call by name in executors.

import { existsSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";

type Rows = readonly Record<string, unknown>[];

export async function slow(rows: Rows, ms: number): Promise<Rows> {
  await sleep(ms);
  return rows;
}

export function endless(rows: Rows): Rows {
  for (;;) if (rows.length < 0) return rows;
}

export function deadly(rows: Rows): Rows {
  process.kill(process.pid, "SIGKILL");
  return rows;
}

/** Hangs in the first process that meets the last row, and in no other. */
export async function straggle(rows: Rows, marker: string, ms = 20_000): Promise<Rows> {
  if (rows.some((row) => Number(row.item) === 199) && !existsSync(marker)) {
    writeFileSync(marker, "");
    await sleep(ms);
  }
  await sleep(5);
  return rows;
}
