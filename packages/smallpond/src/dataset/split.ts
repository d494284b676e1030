// How a data set is cut into partitions: by files, or by rows across files. Pure arithmetic; who
// knows the rows of a file is resolve.ts.

import type { FilePart } from "./dataset.ts";

/**
 * Contiguous groups of nearly equal size: the first `length % count` have one more, as
 * numpy.array_split. More groups than items leave empty ones at the end.
 */
export function splitEvenly<T>(items: readonly T[], count: number): T[][] {
  const base = Math.floor(items.length / count);
  const larger = items.length % count;
  let at = 0;
  return Array.from({ length: count }, (_, i) => {
    const size = base + (i < larger ? 1 : 0);
    at += size;
    return items.slice(at - size, at);
  });
}

/**
 * Cuts files into partitions of nearly equal rows, each of ceil(what is left ÷ partitions left).
 * Every part must know its rows.
 */
export function splitRows(parts: readonly FilePart[], count: number): FilePart[][] {
  const rowsOf = (part: FilePart): number => part.numRows ?? 0;
  let left = parts.reduce((sum, part) => sum + rowsOf(part), 0);
  const groups: FilePart[][] = [];
  let file = 0;
  let used = 0;
  for (let i = 0; i < count; i++) {
    let wanted = Math.ceil(left / (count - i));
    left -= wanted;
    const group: FilePart[] = [];
    while (wanted > 0) {
      const part = parts[file] as FilePart;
      const first = part.rows?.[0] ?? 0;
      const take = Math.min(wanted, rowsOf(part) - used);
      if (take > 0) {
        const whole = take === rowsOf(part) && part.rows === undefined;
        const rows: [number, number] = [first + used, first + used + take];
        group.push(whole ? part : { path: part.path, rows, numRows: take });
      }
      used += take;
      wanted -= take;
      if (used === rowsOf(part)) {
        file++;
        used = 0;
      }
    }
    groups.push(group);
  }
  return groups;
}

/** The items in a random order that the seed decides. */
export function shuffledBy<T>(items: readonly T[], seed: number): T[] {
  const result = [...items];
  // Marsaglia's xorshift over 32 bits; a state of 0 would stay so.
  let state = (seed * 2_654_435_761 + 1) >>> 0 || 1;
  for (let i = result.length - 1; i > 0; i--) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    const j = (state >>> 0) % (i + 1);
    [result[i], result[j]] = [result[j] as T, result[i] as T];
  }
  return result;
}
