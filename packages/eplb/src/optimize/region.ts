// The state that the optimizers work on: one region (a node, or the whole cluster) of one layer.
// Experts are numbered inside the region. It keeps loads of GPUs and who holds what in step with
// every change; deciding which change to make is the business of search.ts and migrate.ts.

/** Experts, slots and GPUs of a region. */
export interface RegionSize {
  readonly numExperts: number;
  readonly numGpus: number;
  /** Slots of one GPU. */
  readonly perGpu: number;
}

/** One region's placement under construction. Arrays are reused for every region of the size. */
export class Region {
  readonly numExperts: number;
  readonly numGpus: number;
  readonly perGpu: number;
  readonly numSlots: number;
  /** Load of each expert. */
  readonly load: Float64Array;
  /** Replicas of each expert, and the load of one of them. */
  readonly count: Int32Array;
  readonly share: Float64Array;
  /** Expert in each slot, GPU by GPU. */
  readonly slots: Int32Array;
  readonly gpuLoad: Float64Array;
  /** [numExperts, numGpus]: copies of an expert on a GPU. */
  readonly held: Uint16Array;

  constructor({ numExperts, numGpus, perGpu }: RegionSize) {
    this.numExperts = numExperts;
    this.numGpus = numGpus;
    this.perGpu = perGpu;
    this.numSlots = numGpus * perGpu;
    this.load = new Float64Array(numExperts);
    this.count = new Int32Array(numExperts);
    this.share = new Float64Array(numExperts);
    this.slots = new Int32Array(this.numSlots);
    this.gpuLoad = new Float64Array(numGpus);
    this.held = new Uint16Array(numExperts * numGpus);
  }

  /** True if some placement has no expert twice on a GPU. */
  get canAvoidDuplicates(): boolean {
    return this.perGpu <= this.numExperts;
  }

  /** Takes a placement of slots; counts and loads follow. Slots of −1 are empty. */
  assign(slots: ArrayLike<number>): void {
    this.slots.set(slots);
    this.refresh();
  }

  /** Computes everything from `load` and `slots` anew, which also ends the drift of sums. */
  refresh(): void {
    const { slots, count, held, numGpus, perGpu } = this;
    count.fill(0);
    held.fill(0);
    for (let slot = 0; slot < slots.length; slot++) {
      const expert = slots[slot] as number;
      if (expert < 0) continue;
      count[expert] = (count[expert] as number) + 1;
      const at = expert * numGpus + Math.floor(slot / perGpu);
      held[at] = (held[at] as number) + 1;
    }
    for (let e = 0; e < this.numExperts; e++) {
      this.share[e] = (this.load[e] as number) / Math.max(1, count[e] as number);
    }
    this.sumLoads();
  }

  /** Sums the loads of all GPUs anew. */
  sumLoads(): void {
    let slot = 0;
    for (let gpu = 0; gpu < this.numGpus; gpu++) {
      let sum = 0;
      for (const end = slot + this.perGpu; slot < end; slot++) {
        const expert = this.slots[slot] as number;
        if (expert >= 0) sum += this.share[expert] as number;
      }
      this.gpuLoad[gpu] = sum;
    }
  }

  /** The GPU of the highest load, the first on ties. */
  heaviestGpu(): number {
    const { gpuLoad } = this;
    let heaviest = 0;
    for (let gpu = 1; gpu < gpuLoad.length; gpu++) {
      if ((gpuLoad[gpu] as number) > (gpuLoad[heaviest] as number)) heaviest = gpu;
    }
    return heaviest;
  }

  maxLoad(): number {
    return this.gpuLoad[this.heaviestGpu()] as number;
  }

  holds(expert: number, gpu: number): boolean {
    return (this.held[expert * this.numGpus + gpu] as number) > 0;
  }

  /** Slots whose expert has another slot on the same GPU. */
  duplicates(): number {
    let sum = 0;
    for (const copies of this.held) if (copies > 1) sum += copies - 1;
    return sum;
  }

  /** Exchanges the experts of two slots of different GPUs. */
  swap(slotA: number, slotB: number): void {
    const { slots, gpuLoad, share, perGpu } = this;
    const a = slots[slotA] as number;
    const b = slots[slotB] as number;
    const gpuA = Math.floor(slotA / perGpu);
    const gpuB = Math.floor(slotB / perGpu);
    slots[slotA] = b;
    slots[slotB] = a;
    const difference = (share[a] as number) - (share[b] as number);
    gpuLoad[gpuA] = (gpuLoad[gpuA] as number) - difference;
    gpuLoad[gpuB] = (gpuLoad[gpuB] as number) + difference;
    this.#hold(a, gpuA, -1);
    this.#hold(a, gpuB, 1);
    this.#hold(b, gpuB, -1);
    this.#hold(b, gpuA, 1);
  }

  /** Puts another expert into a slot: one replica less of the old one, one more of the new one. */
  replace(slot: number, expert: number): void {
    const gpu = Math.floor(slot / this.perGpu);
    const old = this.slots[slot] as number;
    this.slots[slot] = expert;
    if (old >= 0) this.#recount(old, gpu, -1);
    this.#recount(expert, gpu, 1);
  }

  #hold(expert: number, gpu: number, change: number): void {
    const at = expert * this.numGpus + gpu;
    this.held[at] = (this.held[at] as number) + change;
  }

  /** Adds or removes a replica on a GPU; all its other replicas get lighter or heavier. */
  #recount(expert: number, gpu: number, change: number): void {
    const { held, gpuLoad, numGpus } = this;
    const before = this.share[expert] as number;
    const count = (this.count[expert] as number) + change;
    const after = (this.load[expert] as number) / Math.max(1, count);
    this.count[expert] = count;
    this.share[expert] = after;
    for (let other = 0; other < numGpus; other++) {
      const copies = held[expert * numGpus + other] as number;
      if (copies > 0) gpuLoad[other] = (gpuLoad[other] as number) + copies * (after - before);
    }
    this.#hold(expert, gpu, change);
    gpuLoad[gpu] = (gpuLoad[gpu] as number) + (change > 0 ? after : -before - (after - before));
  }
}
