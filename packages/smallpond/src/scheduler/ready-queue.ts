// Tasks that could run now, in lanes of equal demands: what does not fit for the first of a lane
// fits for none of it, so that 100,000 tasks cost no more looks than there are lanes. Lanes are
// served in turn: every node gets on, and deep pipelines drain.

import type { Resources } from "../task/task.ts";
import type { Entry } from "./entry.ts";

/** Tasks that ask for the same; first in, first out. */
export class Lane {
  readonly name: string;
  readonly resources: Resources;
  readonly memoryScale: number;
  readonly avoid: readonly string[];
  /** No executor had the room; looked at again when one has more than before. */
  blocked = false;
  #entries: Entry[] = [];
  #at = 0;

  constructor(name: string, { task, memoryScale, avoid }: Entry) {
    this.name = name;
    this.resources = task.resources;
    this.memoryScale = memoryScale;
    this.avoid = avoid;
  }

  push(entry: Entry): void {
    this.#entries.push(entry);
  }

  /** The first that is still ready. */
  get first(): Entry | undefined {
    while (this.#at < this.#entries.length) {
      const entry = this.#entries[this.#at] as Entry;
      if (entry.state === "ready") return entry;
      this.#at++;
    }
    this.#entries = [];
    this.#at = 0;
    return undefined;
  }
}

/** See the head of this file. An entry leaves it by leaving the state `ready`. */
export class ReadyQueue {
  readonly #lanes = new Map<string, Lane>();
  /** Lanes in turn; those of `urgent` entries first. */
  readonly #order: [urgent: Lane[], others: Lane[]] = [[], []];
  readonly #next: [number, number] = [0, 0];

  push(entry: Entry, urgent: boolean): void {
    const { cpus, gpus, memoryBytes } = entry.task.resources;
    const demand = `${cpus} ${gpus} ${memoryBytes} ${entry.memoryScale}`;
    const name = `${urgent} ${demand} ${entry.avoid.join()} ${entry.task.node}`;
    let lane = this.#lanes.get(name);
    if (lane === undefined) {
      lane = new Lane(name, entry);
      this.#lanes.set(name, lane);
      this.#order[urgent ? 0 : 1].push(lane);
    }
    lane.push(entry);
  }

  /** The next lane in turn with a task and not blocked. */
  next(): Lane | undefined {
    for (const tier of [0, 1] as const) {
      const lanes = this.#order[tier];
      for (let looked = 0; looked < lanes.length; ) {
        const at = (this.#next[tier] + looked) % lanes.length;
        const lane = lanes[at] as Lane;
        if (lane.first === undefined) {
          lanes.splice(at, 1);
          if (at < this.#next[tier]) this.#next[tier]--;
          // A lane that comes later is behind those that are there.
          if (this.#next[tier] >= lanes.length) this.#next[tier] = 0;
          this.#lanes.delete(lane.name);
        } else if (lane.blocked) looked++;
        else return lane;
      }
    }
    return undefined;
  }

  /** A task of the lane began: the turn is the next one's. */
  served(lane: Lane): void {
    const tier = this.#order[0].includes(lane) ? 0 : 1;
    this.#next[tier] = this.#order[tier].indexOf(lane) + 1;
  }

  /** Lets blocked lanes be looked at again. */
  unblock(which: (lane: Lane) => boolean): void {
    for (const lane of this.#lanes.values()) if (lane.blocked && which(lane)) lane.blocked = false;
  }

  /** Whether some task is ready. */
  get waiting(): boolean {
    for (const lane of this.#lanes.values()) if (lane.first !== undefined) return true;
    return false;
  }
}
