// An allreduce as events: every chunk of every node goes down from the GPUs, is added up, climbs
// its tree, comes down again and returns to the GPUs. Four things of a node are busy with one chunk
// at a time: the shared root port, memory, and both directions of the NIC. Chunks take the two
// trees in turn.

import { doubleTree, type Tree } from "../topology.ts";
import type { MachineModel, Variant } from "./machine.ts";
import { memoryOperations, rootPortUnits } from "./memory.ts";

/** What is simulated. */
export interface SimulatedAllreduce {
  readonly nodes: number;
  readonly bytes: number;
  readonly variant?: Variant;
  /** Zones that the nodes are spread over; the double tree crosses between two by one pair. */
  readonly zones?: number;
}

/** How it went. */
export interface SimulationResult {
  readonly seconds: number;
  /** Gradient bytes over time. */
  readonly GBs: number;
  /** Share of the time that each resource of the busiest node was busy. */
  readonly busy: Readonly<Record<Resource, number>>;
}

export type Resource = "rootPort" | "memory" | "send" | "receive";
const resources: readonly Resource[] = ["rootPort", "memory", "send", "receive"];

/** A binary heap of events by time; ties in the order of their making. */
class EventHeap {
  readonly #times: number[] = [];
  readonly #orders: number[] = [];
  readonly #actions: (() => void)[] = [];
  #made = 0;

  push(time: number, action: () => void): void {
    let at = this.#times.length;
    this.#times.push(time);
    this.#orders.push(this.#made++);
    this.#actions.push(action);
    while (at > 0) {
      const up = (at - 1) >> 1;
      if (this.#before(up, at)) break;
      this.#swap(up, at);
      at = up;
    }
  }

  /** Runs all events, and those they make; gives the time of the last one. */
  run(): number {
    let now = 0;
    while (this.#times.length > 0) {
      now = this.#times[0] as number;
      const action = this.#actions[0] as () => void;
      this.#removeFirst();
      action();
    }
    return now;
  }

  #removeFirst(): void {
    const last = this.#times.length - 1;
    this.#swap(0, last);
    this.#times.pop();
    this.#orders.pop();
    this.#actions.pop();
    for (let at = 0; ; ) {
      let least = at;
      for (const child of [2 * at + 1, 2 * at + 2]) {
        if (child < last && !this.#before(least, child)) least = child;
      }
      if (least === at) return;
      this.#swap(at, least);
      at = least;
    }
  }

  #before(a: number, b: number): boolean {
    const [x, y] = [this.#times[a] as number, this.#times[b] as number];
    return x < y || (x === y && (this.#orders[a] as number) < (this.#orders[b] as number));
  }

  #swap(a: number, b: number): void {
    for (const list of [this.#times, this.#orders, this.#actions] as unknown[][]) {
      [list[a], list[b]] = [list[b], list[a]];
    }
  }
}

/** Chunks that a node has on their way at once. */
export function windowChunks({ windowBytes, chunkBytes }: MachineModel): number {
  return Math.max(2, Math.floor(windowBytes / chunkBytes));
}

class Simulation {
  readonly #heap = new EventHeap();
  readonly #freeAt: Record<Resource, Float64Array>;
  readonly #busy: Record<Resource, Float64Array>;
  readonly #nodes: number;
  readonly #chunks: number;
  readonly #bytes: number;
  readonly #machine: MachineModel;
  readonly #variant: Variant;
  readonly #zoneOf: (node: number) => number;
  readonly #trees: readonly [Tree, Tree];
  /** What a chunk still waits for on its way up: the node's own sum and its children's. */
  readonly #missing: Int32Array;
  /** Chunks back at a node's GPUs, and the chunk that waits for room there; −1: none. */
  readonly #finished: Int32Array;
  readonly #waiting: Int32Array;

  constructor(options: SimulatedAllreduce, machine: MachineModel) {
    const { nodes, bytes, variant = "gdrcopy", zones = 1 } = options;
    this.#nodes = nodes;
    this.#bytes = bytes;
    this.#machine = machine;
    this.#variant = variant;
    this.#chunks = Math.max(1, Math.ceil(bytes / machine.chunkBytes));
    this.#zoneOf = (node) => Math.floor((node * zones) / nodes);
    this.#trees = doubleTree(nodes);
    const perNode = (): Float64Array => new Float64Array(nodes);
    this.#freeAt = { rootPort: perNode(), memory: perNode(), send: perNode(), receive: perNode() };
    this.#busy = { rootPort: perNode(), memory: perNode(), send: perNode(), receive: perNode() };
    this.#missing = new Int32Array(nodes * this.#chunks);
    this.#finished = new Int32Array(nodes);
    this.#waiting = new Int32Array(nodes).fill(-1);
  }

  run(): SimulationResult {
    for (let node = 0; node < this.#nodes; node++) {
      for (let chunk = 0; chunk < this.#chunks; chunk++) {
        const children = this.#tree(chunk).children[node] as readonly number[];
        this.#missing[node * this.#chunks + chunk] = 1 + children.length;
      }
      this.#fetch(node, 0, 0);
    }
    const seconds = this.#heap.run();
    const busy = resources.map((name) => [name, Math.max(...this.#busy[name]) / seconds]);
    const GBs = this.#bytes / seconds / 1e9;
    return { seconds, GBs, busy: Object.fromEntries(busy) as SimulationResult["busy"] };
  }

  #tree(chunk: number): Tree {
    return this.#trees[chunk % 2] as Tree;
  }

  #sizeOf(chunk: number): number {
    return Math.min(this.#machine.chunkBytes, this.#bytes - chunk * this.#machine.chunkBytes);
  }

  /** Takes a resource for `seconds` from `now` on, as soon as it is free; gives the end. */
  #use(name: Resource, node: number, now: number, seconds: number): number {
    const free = this.#freeAt[name];
    const end = Math.max(now, free[node] as number) + seconds;
    free[node] = end;
    (this.#busy[name] as Float64Array)[node] = (this.#busy[name][node] as number) + seconds;
    return end;
  }

  #portSeconds(direction: "down" | "up", chunk: number): number {
    const { rootPortGBs, rootPortEfficiency } = this.#machine;
    const units = rootPortUnits(this.#variant)[direction];
    return (units * this.#sizeOf(chunk)) / (rootPortGBs * rootPortEfficiency * 1e9);
  }

  #memorySeconds(steps: readonly number[], chunk: number): number {
    const all = memoryOperations(this.#machine, this.#variant).steps;
    const operations = steps.reduce((sum, s) => {
      const step = all[s] as (typeof all)[number];
      return sum + step.reads + step.writes;
    }, 0);
    return (operations * this.#sizeOf(chunk)) / (this.#machine.memoryGBs * 1e9);
  }

  /** GPUs to host, and the sum of the node; the next chunk follows as soon as there is room. */
  #fetch(node: number, chunk: number, now: number): void {
    const finished = this.#finished[node] as number;
    if (chunk - finished >= windowChunks(this.#machine)) {
      this.#waiting[node] = chunk;
      return;
    }
    const there = this.#use("rootPort", node, now, this.#portSeconds("down", chunk));
    this.#heap.push(there, () => {
      if (chunk + 1 < this.#chunks) this.#fetch(node, chunk + 1, there);
      const added = this.#use("memory", node, there, this.#memorySeconds([0, 1], chunk));
      this.#heap.push(added, () => this.#arriveUp(node, chunk, added));
    });
  }

  #arriveUp(node: number, chunk: number, now: number): void {
    const at = node * this.#chunks + chunk;
    this.#missing[at] = (this.#missing[at] as number) - 1;
    if ((this.#missing[at] as number) > 0) return;
    const added = this.#use("memory", node, now, this.#memorySeconds([2], chunk));
    const parent = this.#tree(chunk).parent[node] as number;
    this.#heap.push(added, () => {
      if (parent < 0) this.#arriveDown(node, chunk, added);
      else this.#send(node, parent, chunk, added, (then) => this.#arriveUp(parent, chunk, then));
    });
  }

  #arriveDown(node: number, chunk: number, now: number): void {
    for (const child of this.#tree(chunk).children[node] as readonly number[]) {
      this.#send(node, child, chunk, now, (then) => this.#arriveDown(child, chunk, then));
    }
    const read = this.#use("memory", node, now, this.#memorySeconds([3], chunk));
    this.#heap.push(read, () => {
      const back = this.#use("rootPort", node, read, this.#portSeconds("up", chunk));
      this.#heap.push(back, () => {
        this.#finished[node] = (this.#finished[node] as number) + 1;
        const next = this.#waiting[node] as number;
        this.#waiting[node] = -1;
        if (next >= 0) this.#fetch(node, next, back);
      });
    });
  }

  #send(from: number, to: number, chunk: number, now: number, then: (time: number) => void): void {
    const { nicGBs, hopUs, messageUs, crossZoneEfficiency } = this.#machine;
    const crosses = this.#zoneOf(from) !== this.#zoneOf(to);
    const rate = nicGBs * (crosses ? crossZoneEfficiency : 1) * 1e9;
    const seconds = this.#sizeOf(chunk) / rate;
    const sent = this.#use("send", from, now, seconds + messageUs * 1e-6);
    // Receiving goes on while the other side sends; several senders share the receiver.
    this.#heap.push(sent - seconds, () => {
      const received = this.#use("receive", to, sent - seconds, seconds) + hopUs * 1e-6;
      this.#heap.push(received, () => then(received));
    });
  }
}

/** Simulates one allreduce. */
export function simulateAllreduce(
  options: SimulatedAllreduce,
  machine: MachineModel,
): SimulationResult {
  return new Simulation(options, machine).run();
}
