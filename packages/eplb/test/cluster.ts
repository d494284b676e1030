// A cluster as strict as memory is: what a slot holds is written down, a copy leaves rubbish until
// it is complete and reads its source as late as it can, and after every change all that routing
// names must be whole. Tests run migrations and controllers on it.

import type { EplbAction, MoveAction, Placement, SlotCopy, SlotShape } from "../src/index.ts";

const rubbish = -2;

/** As `expect`, but cheap enough for every slot of every step. */
function same<T>(actual: T, wanted: T, what: () => string): void {
  if (Object.is(actual, wanted)) return;
  throw new Error(`${what()}: ${String(actual)} instead of ${String(wanted)}`);
}

export interface ClusterOptions {
  readonly shape: SlotShape;
  readonly slots: Int32Array;
  readonly staging: "in-place" | "double-buffer";
  readonly stagingSlotsPerGpu?: number;
  /** Said in every failed expectation. */
  readonly note: string;
}

export class Cluster {
  readonly weights: Int32Array;
  readonly failed = new Set<number>();
  routing: Placement | undefined;
  running: MoveAction | undefined;
  /** Bytes of moves since `beginStep`. */
  stepBytes = 0;
  readonly reports: Extract<EplbAction, { kind: "report" }>["report"][] = [];
  readonly #buffers = new Map<number, number>();
  readonly #options: ClusterOptions;

  constructor(options: ClusterOptions) {
    this.#options = options;
    this.weights = options.slots.slice();
  }

  at(layer: number, slot: number): number {
    return layer * this.#options.shape.numReplicas + slot;
  }

  gpuOf(slot: number): number {
    const { numReplicas, numGpus } = this.#options.shape;
    return Math.floor(slot / (numReplicas / numGpus));
  }

  beginStep(): void {
    this.stepBytes = 0;
  }

  run(actions: readonly EplbAction[]): void {
    for (const action of actions) {
      if (action.kind === "report") {
        this.reports.push(action.report);
        if (action.report.event === "aborted") this.#buffers.clear();
      } else if (action.kind === "cancel") {
        for (const { layer, to } of this.running?.copies ?? []) {
          this.#buffers.delete(this.at(layer, to));
        }
        this.running = undefined;
      } else if (action.kind === "move") {
        same(this.running, undefined, () => `${this.#options.note}: a second move`);
        this.stepBytes += action.bytes;
        this.running = action;
        this.route(action.routing);
        this.begin(action.copies);
      } else {
        this.commit(action.commits);
        this.route(action.routing);
      }
    }
  }

  fail(gpu: number): void {
    const { numLayers, numReplicas, numGpus } = this.#options.shape;
    this.failed.add(gpu);
    for (let layer = 0; layer < numLayers; layer++) {
      const begin = this.at(layer, gpu * (numReplicas / numGpus));
      this.weights.fill(rubbish, begin, begin + numReplicas / numGpus);
    }
  }

  /** Starts copies: in place, what was there is gone at once. */
  begin(copies: readonly SlotCopy[]): void {
    const { staging, stagingSlotsPerGpu = 1, shape, note } = this.#options;
    for (const { layer, to } of copies) {
      const at = this.at(layer, to);
      same(this.failed.has(this.gpuOf(to)), false, () => `${note}: slot ${to} of a failed GPU`);
      if (staging === "in-place") {
        same(this.routing?.phy2log[at] ?? -1, -1, () => `${note}: writes routed slot ${to}`);
        this.weights[at] = rubbish;
      } else {
        this.#buffers.set(at, rubbish);
      }
    }
    const used = new Map<number, number>();
    for (const at of this.#buffers.keys()) {
      const gpu = this.gpuOf(at % shape.numReplicas);
      used.set(gpu, (used.get(gpu) ?? 0) + 1);
      const enough = (used.get(gpu) as number) <= stagingSlotsPerGpu;
      same(enough, true, () => `${note}: GPU ${gpu} has buffers enough`);
    }
  }

  /** Ends copies, in any order: sources must have stayed whole until now. */
  end(copies: readonly SlotCopy[]): void {
    const { note } = this.#options;
    for (const { layer, expert, from, to } of copies) {
      if (from >= 0) {
        same(this.weights[this.at(layer, from)], expert, () => `${note}: source ${from}`);
      } else {
        same(this.#holders(layer, expert), 0, () => `${note}: slots of host's ${expert}`);
      }
      if (this.#options.staging === "in-place") this.weights[this.at(layer, to)] = expert;
      else this.#buffers.set(this.at(layer, to), expert);
    }
  }

  commit(commits: readonly { layer: number; slot: number; expert: number }[]): void {
    if (this.#options.staging === "in-place") return;
    for (const { layer, slot, expert } of commits) {
      const at = this.at(layer, slot);
      same(this.#buffers.get(at), expert, () => `${this.#options.note}: buffer of ${slot}`);
      this.weights[at] = expert;
      this.#buffers.delete(at);
    }
  }

  #holders(layer: number, expert: number): number {
    const { numReplicas } = this.#options.shape;
    const row = this.weights.subarray(layer * numReplicas, (layer + 1) * numReplicas);
    return row.reduce((sum, held) => sum + (held === expert ? 1 : 0), 0);
  }

  /** Everything routing names is whole; what it does not name is held by nobody. */
  route(routing: Placement): void {
    const { note, shape } = this.#options;
    this.routing = routing;
    const { phy2log, log2phy, logcnt, maxReplicas } = routing;
    for (let i = 0; i < phy2log.length; i++) {
      const expert = phy2log[i] as number;
      if (expert >= 0) same(this.weights[i], expert, () => `${note}: routed slot ${i}`);
    }
    for (let i = 0; i < logcnt.length; i++) {
      const layer = Math.floor(i / shape.numLogical);
      const expert = i % shape.numLogical;
      const slots = [...log2phy.subarray(i * maxReplicas, (i + 1) * maxReplicas)];
      const used = slots.filter((slot) => slot >= 0);
      same(used.length, logcnt[i] as number, () => `${note}: logcnt`);
      same(new Set(used).size, used.length, () => `${note}: distinct log2phy`);
      for (const slot of used) {
        same(phy2log[this.at(layer, slot)], expert, () => `${note}: log2phy`);
      }
      if (used.length > 0) continue;
      same(this.#holders(layer, expert), 0, () => `${note}: unrouted slots of ${expert}`);
    }
  }
}
