// Sorting rows of columns without objects: a merge sort over indices that takes the runs already
// there, since traces come almost in order. Stable.

/**
 * Sorts `order[first..end)`, which holds indices, by `key`, then by `then`, then as they came.
 * Linear when already in order.
 */
export function sortIndices(
  order: Uint32Array,
  key: Float64Array,
  then: Float64Array,
  first = 0,
  end: number = order.length,
): void {
  const count = end - first;
  if (count < 2) return;
  let runs = ascendingRuns(order, key, then, first, end);
  if (runs.length === 2) return;
  let from = order.subarray(first, end);
  let to: Uint32Array = new Uint32Array(count);
  while (runs.length > 2) {
    const merged: number[] = [0];
    for (let r = 0; r + 1 < runs.length; r += 2) {
      const low = runs[r]!;
      const middle = runs[r + 1]!;
      const high = runs[r + 2] ?? middle;
      mergeRuns(from, to, key, then, low, middle, high);
      merged.push(high);
    }
    runs = merged;
    [from, to] = [to, from];
  }
  if (from.buffer !== order.buffer) order.set(from, first);
}

/** Where ascending runs begin, relative to `first`, and the end. */
function ascendingRuns(
  order: Uint32Array,
  key: Float64Array,
  then: Float64Array,
  first: number,
  end: number,
): number[] {
  const runs = [0];
  for (let i = first + 1; i < end; i++) {
    const a = order[i - 1]!;
    const b = order[i]!;
    const difference = key[a]! - key[b]!;
    if (difference > 0 || (difference === 0 && then[a]! > then[b]!)) runs.push(i - first);
  }
  runs.push(end - first);
  return runs;
}

function mergeRuns(
  from: Uint32Array,
  to: Uint32Array,
  key: Float64Array,
  then: Float64Array,
  low: number,
  middle: number,
  high: number,
): void {
  let i = low;
  let j = middle;
  for (let k = low; k < high; k++) {
    let takeLeft = j >= high;
    if (!takeLeft && i < middle) {
      const a = from[i]!;
      const b = from[j]!;
      const difference = key[a]! - key[b]!;
      takeLeft = difference < 0 || (difference === 0 && then[a]! <= then[b]!);
    }
    to[k] = takeLeft ? from[i++]! : from[j++]!;
  }
}
