// Sets of intervals that answer "how much of this window do you cover?" in logarithmic time: the
// band above the timeline asks it for every pixel of every frame. Several sets, one a device,
// become one density that says how many of them hold a moment. The sets come from the analyser.

/** Disjoint intervals in ascending order: `bounds[2i]` to `bounds[2i + 1]`, µs. */
export interface Intervals {
  readonly length: number;
  readonly bounds: Float64Array;
}

/** How many of some sets hold each moment: a step function and its integral. */
export interface Density {
  /** Where the number changes, µs, ascending. */
  readonly timesUs: Float64Array;
  /** The number from each of these times on; the last is 0. */
  readonly level: Uint32Array;
  /** Integral up to each of these times. */
  readonly before: Float64Array;
}

/** Stacks sets. O(n) for one, O(n log n) for more. */
export function stackIntervals(sets: readonly Intervals[]): Density {
  let total = 0;
  for (const { length } of sets) total += length;
  const starts = new Float64Array(total);
  const ends = new Float64Array(total);
  let at = 0;
  for (const { length, bounds } of sets) {
    for (let i = 0; i < length; i++, at++) {
      starts[at] = bounds[2 * i] as number;
      ends[at] = bounds[2 * i + 1] as number;
    }
  }
  if (sets.length > 1) {
    starts.sort();
    ends.sort();
  }
  return sweep(starts, ends);
}

function sweep(starts: Float64Array, ends: Float64Array): Density {
  const count = starts.length + ends.length;
  const timesUs = new Float64Array(count);
  const level = new Uint32Array(count);
  const before = new Float64Array(count);
  let open = 0;
  let size = 0;
  for (let i = 0, j = 0; j < ends.length; ) {
    const starting = i < starts.length && (starts[i] as number) <= (ends[j] as number);
    const timeUs = starting ? (starts[i++] as number) : (ends[j++] as number);
    if (size > 0 && timesUs[size - 1] === timeUs) {
      open += starting ? 1 : -1;
      level[size - 1] = open;
      continue;
    }
    const gained = size > 0 ? open * (timeUs - (timesUs[size - 1] as number)) : 0;
    before[size] = (size > 0 ? (before[size - 1] as number) : 0) + gained;
    open += starting ? 1 : -1;
    timesUs[size] = timeUs;
    level[size++] = open;
  }
  return {
    timesUs: timesUs.slice(0, size),
    level: level.slice(0, size),
    before: before.slice(0, size),
  };
}

/** Time covered before `timeUs`, summed over the sets. */
export function coveredBefore({ timesUs, level, before }: Density, timeUs: number): number {
  let low = 0;
  let high = timesUs.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((timesUs[middle] as number) > timeUs) high = middle;
    else low = middle + 1;
  }
  if (low === 0) return 0;
  const last = low - 1;
  return (before[last] as number) + (level[last] as number) * (timeUs - (timesUs[last] as number));
}

/** Time covered between two times, summed over the sets. */
export function coveredIn(density: Density, startUs: number, endUs: number): number {
  return coveredBefore(density, endUs) - coveredBefore(density, startUs);
}
