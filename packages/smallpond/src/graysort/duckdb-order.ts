// The order of records found by DuckDB instead of the radix sort: keys and numbers go in as
// columns, numbers come out sorted. Spills where memory is short; ties of keys are broken here.

import {
  BIGINT,
  type DuckDBConnection,
  DuckDBDataChunk,
  INTEGER,
  SMALLINT,
} from "@duckdb/node-api";
import { compareRecords } from "./order.ts";
import { keyBytes, recordBytes } from "./records.ts";

const chunkRows = 2048;

/** As `recordOrder`, by a query on a connection. */
export async function duckdbOrder(
  records: Uint8Array,
  connection: DuckDBConnection,
): Promise<Uint32Array> {
  const count = records.length / recordBytes;
  await connection.run("CREATE OR REPLACE TEMP TABLE keys (high BIGINT, low SMALLINT, i INTEGER)");
  const appender = await connection.createAppender("keys");
  const view = new DataView(records.buffer, records.byteOffset, records.byteLength);
  for (let first = 0; first < count; first += chunkRows) {
    appender.appendDataChunk(chunkOf(view, first, Math.min(chunkRows, count - first)));
  }
  appender.closeSync();
  const order = new Uint32Array(count);
  const result = await connection.stream("SELECT i FROM keys ORDER BY high, low, i");
  let at = 0;
  for await (const rows of result.yieldRows()) {
    for (const [i] of rows) order[at++] = i as number;
  }
  await connection.run("DROP TABLE keys");
  breakTies(records, order);
  return order;
}

/** Signed types with the sign bit turned, so that they are in the order of the bytes. */
function chunkOf(view: DataView, first: number, rows: number): DuckDBDataChunk {
  const chunk = DuckDBDataChunk.create([BIGINT, SMALLINT, INTEGER], rows);
  const high: bigint[] = [];
  const low: number[] = [];
  const numbers: number[] = [];
  for (let i = 0; i < rows; i++) {
    const at = (first + i) * recordBytes;
    high.push(view.getBigInt64(at) ^ (-1n << 63n));
    low.push(view.getUint16(at + 8) - 32_768);
    numbers.push(first + i);
  }
  chunk.setColumnValues(0, high);
  chunk.setColumnValues(1, low);
  chunk.setColumnValues(2, numbers);
  return chunk;
}

/** Sorts runs of equal keys by the rest of their records. */
function breakTies(records: Uint8Array, order: Uint32Array): void {
  const sameKey = (a: number, b: number): boolean => {
    for (let i = 0; i < keyBytes; i++) {
      if (records[a * recordBytes + i] !== records[b * recordBytes + i]) return false;
    }
    return true;
  };
  let start = 0;
  for (let i = 1; i <= order.length; i++) {
    if (i < order.length && sameKey(order[start] as number, order[i] as number)) continue;
    if (i - start > 1) {
      order
        .subarray(start, i)
        .sort(
          (a, b) =>
            compareRecords(records, a * recordBytes, records, b * recordBytes, keyBytes) || a - b,
        );
    }
    start = i;
  }
}
