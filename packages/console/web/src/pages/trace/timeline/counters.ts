// Counter tracks: what a number was over time, as a small area chart whose every pixel shows the
// highest value it had there, so that a short peak is not lost. Reads the values out of the args of
// counter events.

import type { EventTable } from "@open-infra/profile/analyze";
import type { LineView } from "./raster.ts";
import { firstAbove } from "./rows.ts";

const PHASE_COUNTER = 67;
const BLOCK = 64;

/** One number over time. */
export interface CounterTrack {
  readonly lane: number;
  /** The counter's name, and the series' if it has several. */
  readonly title: string;
  readonly timesUs: Float64Array;
  readonly values: Float64Array;
  /** Highest value of each block of 64. */
  readonly blockMax: Float64Array;
  readonly max: number;
  readonly min: number;
}

interface Growing {
  readonly lane: number;
  readonly name: string;
  readonly series: string;
  readonly points: [number, number][];
}

/** Collects counters; needs a table that kept its args. Values that are no numbers are left out. */
export function collectCounters(table: EventTable): CounterTrack[] {
  const growing = new Map<string, Growing>();
  for (let i = 0; i < table.length; i++) {
    if (table.phase[i] !== PHASE_COUNTER) continue;
    const values = numbersOf(table.argsText(i));
    const lane = table.lane[i] as number;
    const nameIndex = table.name[i] as number;
    for (const [series, value] of values) {
      const key = `${lane} ${nameIndex} ${series}`;
      let track = growing.get(key);
      if (track === undefined) {
        track = { lane, name: table.strings[nameIndex] ?? "", series, points: [] };
        growing.set(key, track);
      }
      track.points.push([table.startUs[i] as number, value]);
    }
  }
  const tracks = [...growing.values()];
  const several = (track: Growing): boolean =>
    tracks.some(
      (other) => other !== track && other.lane === track.lane && other.name === track.name,
    );
  return tracks.map((track) =>
    finishTrack(track, several(track) ? `${track.name} · ${track.series}` : track.name),
  );
}

function numbersOf(args: string | undefined): [string, number][] {
  if (args === undefined) return [];
  let parsed: unknown;
  try {
    parsed = JSON.parse(args);
  } catch {
    return [];
  }
  if (typeof parsed !== "object" || parsed === null) return [];
  return Object.entries(parsed).filter(
    (entry): entry is [string, number] => typeof entry[1] === "number" && Number.isFinite(entry[1]),
  );
}

function finishTrack({ lane, points }: Growing, title: string): CounterTrack {
  points.sort((a, b) => a[0] - b[0]);
  const timesUs = Float64Array.from(points, ([time]) => time);
  const values = Float64Array.from(points, ([, value]) => value);
  const blockMax = new Float64Array(Math.ceil(values.length / BLOCK));
  let max = -Infinity;
  let min = Infinity;
  for (let block = 0; block < blockMax.length; block++) {
    let highest = -Infinity;
    for (const value of values.subarray(block * BLOCK, (block + 1) * BLOCK)) {
      highest = Math.max(highest, value);
      min = Math.min(min, value);
    }
    blockMax[block] = highest;
    max = Math.max(max, highest);
  }
  return { lane, title, timesUs, values, blockMax, max, min };
}

function highestIn({ values, blockMax }: CounterTrack, from: number, to: number): number {
  let highest = -Infinity;
  let i = from;
  for (; i < to && i % BLOCK !== 0; i++) highest = Math.max(highest, values[i] as number);
  for (; i + BLOCK <= to; i += BLOCK) highest = Math.max(highest, blockMax[i / BLOCK] as number);
  for (; i < to; i++) highest = Math.max(highest, values[i] as number);
  return highest;
}

/** The value at a time: the last one told before it; NaN before the first. */
export function counterAt({ timesUs, values }: CounterTrack, timeUs: number): number {
  const next = firstAbove(timesUs, timeUs, 0, timesUs.length);
  return next === 0 ? Number.NaN : (values[next - 1] as number);
}

/** The highest value in each pixel of a line; NaN before the first value. */
export function counterLine(track: CounterTrack, view: LineView, line: Float64Array): void {
  const { timesUs, values } = track;
  const count = timesUs.length;
  let index = firstAbove(timesUs, view.startUs, 0, count);
  for (let x = 0; x < view.widthPx; x++) {
    const endUs = view.startUs + (x + 1) * view.usPerPx;
    const held = index === 0 ? Number.NaN : (values[index - 1] as number);
    const near = index + 8 < count && (timesUs[index + 8] as number) > endUs ? index + 8 : count;
    const next = firstAbove(timesUs, endUs, index, near);
    const highest = next > index ? highestIn(track, index, next) : -Infinity;
    line[x] = Number.isNaN(held) ? (next > index ? highest : held) : Math.max(held, highest);
    index = next;
  }
}
