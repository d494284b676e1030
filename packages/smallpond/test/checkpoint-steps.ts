// Functions of the checkpoints' tests, which note each row or batch they are given in a file.

import { appendFileSync, existsSync, writeFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import type { Table } from "apache-arrow";

type Row = Record<string, unknown>;

/** Rows of several types, some only late; slow enough to be met in the middle. */
export async function noted(rows: readonly Row[], log: string): Promise<Row[]> {
  appendFileSync(log, `${process.pid} ${rows.length}\n`);
  await sleep(4);
  return rows.map(({ i }) => ({
    i,
    half: Number(i) < 1500 ? Number(i) : Number(i) / 2,
    at: new Date(Number(i) * 1000),
    ...(Number(i) > 1200 && { late: [`x${i}`, null] }),
  }));
}

/** The process ends, once, when it meets a row. */
export function deadlyOnce(row: Row, log: string): Row[] {
  appendFileSync(log, "1\n");
  if (Number(row.i) === 2500 && !existsSync(`${log}.died`)) {
    writeFileSync(`${log}.died`, "");
    process.kill(process.pid, "SIGKILL");
  }
  return Number(row.i) % 2 === 0 ? [] : [row, { i: -Number(row.i) }];
}

/** The same, of Arrow tables that it gives back as they are. */
export function deadlyTable(table: Table, log: string): Table {
  appendFileSync(log, `${table.numRows}\n`);
  if (Number(table.get(0)?.i) === 2500 && !existsSync(`${log}.died`)) {
    writeFileSync(`${log}.died`, "");
    process.kill(process.pid, "SIGKILL");
  }
  return table;
}

/** Rows as text that tells types apart. */
export function textOf(rows: readonly unknown[]): string {
  return JSON.stringify(rows, (_, value: unknown) =>
    typeof value === "bigint" ? `${value}n` : value,
  );
}
