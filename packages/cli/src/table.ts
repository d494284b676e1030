// Aligned columns for a person at a terminal.

/** A number with thousands separated: whole from 100 on, one decimal below. */
export function formatNumber(value: number): string {
  const decimals = Math.abs(value) < 100 && !Number.isInteger(value) ? 1 : 0;
  return value.toLocaleString("en-US", {
    minimumFractionDigits: decimals,
    maximumFractionDigits: decimals,
  });
}

/** `text` cut in its middle to at most `width` characters, so that both ends can be read. */
export function ellipsis(text: string, width: number): string {
  if (text.length <= width) return text;
  const head = Math.ceil((width - 1) / 2);
  return `${text.slice(0, head)}…${text.slice(text.length - (width - 1 - head))}`;
}

/**
 * Rows under headers. Columns whose header begins with ">" are set to the right, without the sign.
 */
export function formatTable(
  headers: readonly string[],
  rows: readonly (readonly string[])[],
): readonly string[] {
  const right = headers.map((header) => header.startsWith(">"));
  const titles = headers.map((header) => header.replace(/^>/, ""));
  const widths = titles.map((title, i) =>
    Math.max(title.length, ...rows.map((row) => row[i]?.length ?? 0)),
  );
  return [titles, ...rows].map((row) =>
    row
      .map((cell, i) => (right[i] ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)))
      .join("  ")
      .trimEnd(),
  );
}
