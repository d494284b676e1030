// Lanes by pid and tid while a trace is read, with what its metadata says of them in whatever order
// it comes: names may follow the events, or name threads that have none.

import type { TraceLane } from "./event-table.ts";
import { LimitReached } from "./limits.ts";

/** A pid or tid: most are numbers, some profilers write words. */
export type LaneKey = string | number;

interface Thread {
  readonly process: Process;
  readonly tid: LaneKey;
  name: string;
  sortIndex: number;
}

interface Process {
  readonly pid: LaneKey;
  name: string;
  labels: string;
  sortIndex: number;
  /** Raw lane number of each tid. */
  readonly threads: Map<LaneKey, number>;
}

const CACHE = 64;

/** Words that spell an integer are that integer, so that "7" and 7 are one thread. */
function laneKey(value: LaneKey): LaneKey {
  if (typeof value === "number") return value;
  return /^-?(0|[1-9]\d{0,14})$/.test(value) ? Number(value) : value;
}

function compareKeys(a: LaneKey, b: LaneKey): number {
  if (typeof a === "number") return typeof b === "number" ? a - b : -1;
  if (typeof b === "number") return 1;
  return a < b ? -1 : a > b ? 1 : 0;
}

function compareThreads(a: Thread, b: Thread): number {
  return (
    a.process.sortIndex - b.process.sortIndex ||
    compareKeys(a.process.pid, b.process.pid) ||
    a.sortIndex - b.sortIndex ||
    compareKeys(a.tid, b.tid)
  );
}

/** What `finish` gives: the lanes shown, and where each raw number went. */
export interface SortedLanes {
  readonly lanes: readonly TraceLane[];
  /** Index into `lanes` by raw number. */
  readonly places: Uint32Array;
}

/** Lanes by process and thread, with their names. */
export class LaneTable {
  readonly #maxLanes: number;
  readonly #processes = new Map<LaneKey, Process>();
  readonly #threads: Thread[] = [];
  /** The last lanes of numeric keys: neighbours in a file are mostly on a few lanes. */
  readonly #cachedPids = new Float64Array(CACHE).fill(Number.NaN);
  readonly #cachedTids = new Float64Array(CACHE);
  readonly #cachedLanes = new Uint32Array(CACHE);

  constructor(maxLanes: number) {
    this.#maxLanes = maxLanes;
  }

  /** Raw number of a lane; made if new. */
  lane(pid: LaneKey, tid: LaneKey): number {
    const process = this.process(pid);
    const key = laneKey(tid);
    let lane = process.threads.get(key);
    if (lane === undefined) {
      lane = this.#threads.length;
      if (lane >= this.#maxLanes) throw new LimitReached("maxLanes", this.#maxLanes, "lanes");
      process.threads.set(key, lane);
      this.#threads.push({ process, tid: key, name: "", sortIndex: 0 });
    }
    return lane;
  }

  /** The same for two numbers, through a small cache. */
  numericLane(pid: number, tid: number): number {
    const at = (Math.imul(pid | 0, 31) + (tid | 0)) & (CACHE - 1);
    if (this.#cachedPids[at] === pid && this.#cachedTids[at] === tid) {
      return this.#cachedLanes[at] as number;
    }
    const lane = this.lane(pid, tid);
    this.#cachedPids[at] = pid;
    this.#cachedTids[at] = tid;
    this.#cachedLanes[at] = lane;
    return lane;
  }

  /** The process of a pid; made if new. Its fields may be set. */
  process(pid: LaneKey): Process {
    const key = laneKey(pid);
    let process = this.#processes.get(key);
    if (process === undefined) {
      if (this.#processes.size >= this.#maxLanes) {
        throw new LimitReached("maxLanes", this.#maxLanes, "processes");
      }
      process = { pid: key, name: "", labels: "", sortIndex: 0, threads: new Map() };
      this.#processes.set(key, process);
    }
    return process;
  }

  /** The thread of a raw number. Its fields may be set. */
  thread(lane: number): Thread {
    return this.#threads[lane] as Thread;
  }

  /** Lanes whose raw number `used` marks, sorted as a viewer shows them. */
  finish(used: Uint8Array): SortedLanes {
    const order = this.#threads.map((_, lane) => lane).filter((lane) => used[lane] === 1);
    order.sort((a, b) => compareThreads(this.thread(a), this.thread(b)));
    const places = new Uint32Array(this.#threads.length);
    const lanes = order.map((lane, place) => {
      places[lane] = place;
      const { process, tid, name, sortIndex } = this.thread(lane);
      return {
        pid: process.pid,
        tid,
        processName: process.name,
        threadName: name,
        processLabels: process.labels,
        processSortIndex: process.sortIndex,
        threadSortIndex: sortIndex,
      };
    });
    return { lanes, places };
  }

  get length(): number {
    return this.#threads.length;
  }
}
