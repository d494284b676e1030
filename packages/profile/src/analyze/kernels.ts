// Time by class and by kernel name: counts and sums of durations, with their spread. Sums count a
// moment as often as kernels ran in it; `busyUs` counts it once, as HTA's kernel-type shares do.

import type { KernelGroup } from "./classify.ts";
import { exposureOfSets } from "./exposure.ts";
import { shortName } from "./short-name.ts";
import { percent, roundUs } from "./statistics.ts";
import type { Work } from "./work.ts";

/** Durations of events that belong together. */
export interface DurationStats {
  readonly count: number;
  readonly sumUs: number;
  readonly minUs: number;
  readonly maxUs: number;
  readonly meanUs: number;
  /** Sample deviation (n − 1), as pandas and so HTA compute it; 0 for one event. */
  readonly stdUs: number;
  /** Of the sum over all events, %. */
  readonly sharePercent: number;
}

/** A class of kernels. */
export interface ClassBreakdown extends DurationStats {
  readonly class: string;
  readonly group: KernelGroup;
  readonly family: string;
  /** Time in which at least one of the class ran, summed over devices. */
  readonly busyUs: number;
  /** Of `busyUs`: for communication, while nothing computed; else, while no other class ran. */
  readonly exposedUs: number;
  readonly variants: readonly VariantBreakdown[];
}

/** A kind within a class; "" is the plain one. */
export interface VariantBreakdown extends DurationStats {
  readonly variant: string;
}

/** A kernel, by its full name. */
export interface NameBreakdown extends DurationStats {
  readonly name: string;
  /** Without return type, template arguments and parameters; not unique. */
  readonly shortName: string;
  readonly class: string;
  readonly variant: string;
  readonly group: KernelGroup;
}

/** Both breakdowns, longest first; equal sums in order of name. */
export interface KernelBreakdown {
  readonly events: number;
  /** Sum of all durations. */
  readonly sumUs: number;
  readonly classes: readonly ClassBreakdown[];
  readonly kernels: readonly NameBreakdown[];
  /** How many kernel names there are; `kernels` may hold fewer. */
  readonly kernelNames: number;
}

class Sums {
  count = 0;
  sum = 0;
  min = Number.POSITIVE_INFINITY;
  max = 0;
  mean = 0;
  squares = 0;

  /** Welford's update: no cancellation, however long the durations. */
  add(value: number): void {
    this.count++;
    this.sum += value;
    if (value < this.min) this.min = value;
    if (value > this.max) this.max = value;
    const delta = value - this.mean;
    this.mean += delta / this.count;
    this.squares += delta * (value - this.mean);
  }

  stats(total: number): DurationStats {
    return {
      count: this.count,
      sumUs: roundUs(this.sum),
      minUs: this.count === 0 ? 0 : roundUs(this.min),
      maxUs: roundUs(this.max),
      meanUs: this.count === 0 ? 0 : roundUs(this.sum / this.count),
      stdUs: this.count < 2 ? 0 : roundUs(Math.sqrt(this.squares / (this.count - 1))),
      sharePercent: percent(this.sum, total),
    };
  }
}

function longestFirst<T extends { sumUs: number }>(
  name: (item: T) => string,
): (a: T, b: T) => number {
  return (a, b) => b.sumUs - a.sumUs || (name(a) < name(b) ? -1 : 1);
}

/**
 * Breakdown by class and by name.
 *
 * @param topK how many kernel names to give. Default: all.
 */
export function kernelBreakdown(
  work: Work,
  { topK = Number.POSITIVE_INFINITY }: { readonly topK?: number } = {},
): KernelBreakdown {
  const all = new Sums();
  const byClass = work.classes.map(() => new Sums());
  const byName = new Map<number, Sums>();
  const numClasses = work.classes.length;
  for (let i = 0; i < work.length; i++) {
    const duration = work.endUs[i]! - work.startUs[i]!;
    const classId = work.classId[i]!;
    // One name may fall into two classes when rules look at categories.
    const key = work.table.name[work.row[i]!]! * numClasses + classId;
    let sums = byName.get(key);
    if (sums === undefined) byName.set(key, (sums = new Sums()));
    sums.add(duration);
    byClass[classId]!.add(duration);
    all.add(duration);
  }
  const kernels = [...byName].map(([key, sums]): NameBreakdown => {
    const each = work.classes[key % numClasses]!;
    const name = work.table.strings[Math.floor(key / numClasses)]!;
    return {
      name,
      shortName: shortName(name),
      class: each.name,
      variant: each.variant,
      group: each.group,
      ...sums.stats(all.sum),
    };
  });
  kernels.sort(longestFirst(({ name }) => name));
  return {
    events: work.length,
    sumUs: roundUs(all.sum),
    classes: classBreakdowns(work, byClass, all.sum),
    kernels: kernels.slice(0, topK),
    kernelNames: kernels.length,
  };
}

function merged(parts: readonly Sums[]): Sums {
  const sums = new Sums();
  for (const part of parts) {
    if (part.count === 0) continue;
    const count = sums.count + part.count;
    const delta = part.mean - sums.mean;
    sums.squares += part.squares + (delta * delta * sums.count * part.count) / count;
    sums.mean += (delta * part.count) / count;
    sums.count = count;
    sums.sum += part.sum;
    sums.min = Math.min(sums.min, part.min);
    sums.max = Math.max(sums.max, part.max);
  }
  return sums;
}

function classBreakdowns(work: Work, byClass: readonly Sums[], total: number): ClassBreakdown[] {
  const members = new Map<string, number[]>();
  const setOf = Uint32Array.from(work.classes, ({ name, group, family }, id) => {
    const key = JSON.stringify([name, group, family]);
    const ids = members.get(key);
    if (ids === undefined) members.set(key, [id]);
    else ids.push(id);
    return [...members.keys()].indexOf(key);
  });
  const { busyUs, exposedUs } = exposureOfSets(work, setOf, members.size);
  const out = [...members.values()].flatMap((ids, set): ClassBreakdown[] => {
    const used = ids.filter((id) => byClass[id]!.count > 0);
    if (used.length === 0) return [];
    const { name, group, family } = work.classes[used[0]!]!;
    const variants = used.map((id) => ({
      variant: work.classes[id]!.variant,
      ...byClass[id]!.stats(total),
    }));
    return [
      {
        class: name,
        group,
        family,
        ...merged(used.map((id) => byClass[id]!)).stats(total),
        busyUs: roundUs(busyUs[set]!),
        exposedUs: roundUs(exposedUs[set]!),
        variants: variants.sort(longestFirst(({ variant }) => variant)),
      },
    ];
  });
  return out.sort(longestFirst((item) => item.class));
}
