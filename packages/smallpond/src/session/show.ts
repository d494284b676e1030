// Rows as a text table for people.

import type { Row } from "./frame-options.ts";

const widest = 40;

/** Columns side by side, numbers to the right, long values cut. */
export function textTable(columns: readonly string[], rows: readonly Row[]): string {
  const cells = rows.map((row) => columns.map((name) => textOf(row[name])));
  const widths = columns.map((name, i) =>
    Math.max(name.length, ...cells.map((line) => (line[i] as string).length)),
  );
  const numeric = columns.map((name) =>
    rows.every((row) => ["number", "bigint", "object"].includes(typeof row[name])),
  );
  const line = (values: readonly string[]): string =>
    values
      .map((value, i) => {
        const width = widths[i] as number;
        return numeric[i] ? value.padStart(width) : value.padEnd(width);
      })
      .join(" | ")
      .trimEnd();
  const rule = widths.map((width) => "-".repeat(width)).join("-+-");
  return [line(columns), rule, ...cells.map(line)].join("\n");
}

function textOf(value: unknown): string {
  if (value === null || value === undefined) return "NULL";
  const text =
    typeof value === "object" && !(value instanceof Date)
      ? JSON.stringify(value, (_, item) => (typeof item === "bigint" ? Number(item) : item))
      : value instanceof Date
        ? value.toISOString()
        : String(value);
  return text.length > widest ? `${text.slice(0, widest - 1)}…` : text;
}
