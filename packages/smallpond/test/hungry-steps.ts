// Functions for the tests of limits: they take what they can get.

type Rows = readonly Record<string, unknown>[];

/** Objects without bound, on JavaScript's heap. */
export function hoard(rows: Rows): Rows {
  const kept: unknown[] = [];
  for (;;) kept.push({ rows: [...rows], at: kept.length, text: `row ${kept.length}` });
}

/** Bytes without bound, outside the heap. */
export function swell(rows: Rows): Rows {
  const kept: Buffer[] = [];
  for (;;) kept.push(Buffer.alloc(16 * 2 ** 20, rows.length + 1));
}

/** Lets nothing else of its process run. */
export function block(rows: Rows, ms: number): Rows {
  const end = performance.now() + ms;
  while (performance.now() < end);
  return rows;
}
