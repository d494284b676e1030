// Aligned columns for a person at a terminal.

/** A number with thousands separated: whole from 100 on, one decimal below. */
export function formatNumber(value: number): string {
  const decimals = Math.abs(value) < 100 && !Number.isInteger(value) ? 1 : 0;
  return value.toLocaleString("en-US", {
    minimumFractionDigits: decimals,
    maximumFractionDigits: decimals,
  });
}

/** A count and its noun: `1 layer`, `2 processes`. */
export function counted(count: number, word: string): string {
  const plural = /(?:s|ch)$/.test(word) ? "es" : "s";
  return `${formatNumber(count)} ${word}${count === 1 ? "" : plural}`;
}

/** A format for numbers of one column: alike decimals, and four digits of the largest. */
export function columnFormat(column: readonly number[]): (value: number) => string {
  const largest = column.reduce((most, value) => Math.max(most, Math.abs(value)), 0);
  const before = largest > 0 ? Math.floor(Math.log10(largest)) + 1 : 1;
  // Not more than numbers have, and what is smaller still by its exponent.
  const decimals = Math.max(0, 4 - before);
  if (decimals > 9) return (value) => value.toExponential(3);
  const { format } = new Intl.NumberFormat("en-US", {
    minimumFractionDigits: decimals,
    maximumFractionDigits: decimals,
  });
  return format;
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
    rows.reduce((width, row) => Math.max(width, row[i]?.length ?? 0), title.length),
  );
  return [titles, ...rows].map((row) =>
    row
      .map((cell, i) => (right[i] ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)))
      .join("  ")
      .trimEnd(),
  );
}
