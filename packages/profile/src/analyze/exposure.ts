// How long each class of kernels ran, and how long nothing covered it, by one sweep over the events
// in order of start. Few classes run at once (as many as there are streams), so that a step costs
// little. What covers communication is computation; what covers the others is any other class.

import { kernelGroups } from "./classify.ts";
import type { Work } from "./work.ts";

/** µs by set, summed over devices. */
export interface Exposure {
  readonly busyUs: Float64Array;
  readonly exposedUs: Float64Array;
}

const COMPUTATION = kernelGroups.indexOf("computation");
const COMMUNICATION = kernelGroups.indexOf("communication");

/** Sweeps all devices; `setOf[classId]` says which set a class is part of, below `sets`. */
export function exposureOfSets(work: Work, setOf: Uint32Array, sets: number): Exposure {
  const sweep = new Sweep(sets);
  for (let classId = 0; classId < work.classes.length; classId++) {
    sweep.group[setOf[classId]!] = kernelGroups.indexOf(work.classes[classId]!.group);
  }
  for (const { first, end } of work.devices) {
    for (let i = first; i < end; i++) {
      // An event of no length covers nothing.
      if (work.endUs[i]! > work.startUs[i]!) {
        sweep.event(setOf[work.classId[i]!]!, work.startUs[i]!, work.endUs[i]!);
      }
    }
    sweep.advance(Number.POSITIVE_INFINITY);
  }
  return sweep;
}

class Sweep implements Exposure {
  readonly busyUs: Float64Array;
  readonly exposedUs: Float64Array;
  /** Index into `kernelGroups` by set. */
  readonly group: Uint8Array;
  /** Sets that run at `#nowUs`, the first `#count`. */
  readonly #open: Uint32Array;
  readonly #endUs: Float64Array;
  #count = 0;
  #computing = 0;
  #nowUs = 0;

  constructor(sets: number) {
    this.busyUs = new Float64Array(sets);
    this.exposedUs = new Float64Array(sets);
    this.group = new Uint8Array(sets);
    this.#open = new Uint32Array(sets);
    this.#endUs = new Float64Array(sets).fill(Number.NEGATIVE_INFINITY);
  }

  event(set: number, startUs: number, endUs: number): void {
    this.advance(startUs);
    if (this.#endUs[set]! === Number.NEGATIVE_INFINITY) {
      this.#open[this.#count++] = set;
      if (this.group[set] === COMPUTATION) this.#computing++;
      this.#endUs[set] = endUs;
    } else if (endUs > this.#endUs[set]!) this.#endUs[set] = endUs;
  }

  /** Accounts for the time until `untilUs`, closing what ends on the way. */
  advance(untilUs: number): void {
    const open = this.#open;
    const endUs = this.#endUs;
    while (this.#count > 0) {
      let soonest = 0;
      for (let k = 1; k < this.#count; k++) {
        if (endUs[open[k]!]! < endUs[open[soonest]!]!) soonest = k;
      }
      const set = open[soonest]!;
      const stopUs = Math.min(endUs[set]!, untilUs);
      if (stopUs > this.#nowUs) this.#account(stopUs - this.#nowUs);
      this.#nowUs = stopUs;
      if (endUs[set]! > untilUs) return;
      endUs[set] = Number.NEGATIVE_INFINITY;
      open[soonest] = open[--this.#count]!;
      if (this.group[set] === COMPUTATION) this.#computing--;
    }
    this.#nowUs = untilUs === Number.POSITIVE_INFINITY ? 0 : untilUs;
  }

  #account(us: number): void {
    for (let k = 0; k < this.#count; k++) {
      const set = this.#open[k]!;
      this.busyUs[set]! += us;
      const covered = this.group[set] === COMMUNICATION ? this.#computing > 0 : this.#count > 1;
      if (!covered) this.exposedUs[set]! += us;
    }
  }
}
