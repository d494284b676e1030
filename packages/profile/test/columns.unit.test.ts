// Columns across the borders of blocks and chunks.

import { expect, it } from "vitest";
import { Column } from "../src/columns.ts";

it.each([0, 1, 32_767, 32_768, 32_769, 262_143, 262_144, 262_145, 300_000, 600_000])(
  "%i rows come back as they were appended and changed",
  (rows) => {
    const column = new Column(Float64Array);
    const expected = Float64Array.from({ length: rows }, (_, row) => row * 1.5);
    for (let row = 0; row < rows; row++) column.append(row, row * 1.5);
    for (const row of new Set([0, 1, 32_766, 32_768, 262_144, rows - 1])) {
      if (row < 0 || row >= rows) continue;
      expect(column.get(row)).toBe(row * 1.5);
      column.set(row, -row);
      expect(column.get(row)).toBe(-row);
      expected[row] = -row;
    }
    const joined = column.join(rows);
    expect(Buffer.from(joined.buffer).equals(Buffer.from(expected.buffer))).toBe(true);
  },
);
