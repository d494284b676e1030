// The `optimized` policies: replica counts and places chosen together, layer by layer. Without the
// node limit a layer is one region. With it, partitions of the groups into nodes are tried in the
// order of their lower bounds until no other can be better, and every node is a region of its own.
// At the end the original's placement of the layer is computed too, and wins if it is lower.

import { LayerBounds, RegionBound } from "../bound.ts";
import { DeepseekPlacer } from "../deepseek.ts";
import { Packer } from "../packing.ts";
import { groupPartitions, type Partitions } from "../partitions.ts";
import type { EplbShape } from "../placement.ts";
import { removeDuplicates } from "./duplicates.ts";
import { improvePacking } from "./node-packing.ts";
import { PairSearch } from "./pair-search.ts";
import { Region } from "./region.ts";
import { Search } from "./search.ts";
import { Starter } from "./start.ts";

/** Regions up to this many slots are searched for the optimum, larger ones to `tolerance`. */
const smallRegion = 32;
/** How near to the lower bound the search for large regions ends. */
const tolerance = 2e-4;
/** Partitions whose nodes are placed, of large regions. */
const maxTried = 6;

/** With few slots a GPU, changes that help are rare and a try is cheap. */
function kicksFor({ numSlots, perGpu }: Region): number {
  if (numSlots <= smallRegion) return 400;
  return perGpu <= 4 ? 64 : Math.max(16, Math.round(2000 / numSlots));
}

/** Optimizes layers of one shape, one at a time. */
export class LayerOptimizer {
  readonly #nodeLimit: boolean;
  readonly #mayDuplicate: boolean;
  readonly #numNodes: number;
  readonly #groupSize: number;
  readonly #region: Region;
  readonly #starter: Starter;
  readonly #search: Search;
  readonly #pairSearch: PairSearch;
  readonly #bound: RegionBound;
  readonly #bounds: LayerBounds;
  readonly #partitions: Partitions | undefined;
  readonly #packer: Packer;
  readonly #original: DeepseekPlacer;
  readonly #originalSlots: { phy2log: Int32Array; rank: Int32Array };
  readonly #counts: Int32Array;
  readonly #everyExpert: Int32Array;

  constructor(
    numLogical: number,
    shape: EplbShape,
    nodeLimit: boolean,
    duplicates: "if-lighter" | "never" = "if-lighter",
  ) {
    const numNodes = nodeLimit ? shape.numNodes : 1;
    const numGroups = nodeLimit ? shape.numGroups : 1;
    const numExperts = numLogical / numNodes;
    const numGpus = shape.numGpus / numNodes;
    this.#mayDuplicate = duplicates === "if-lighter";
    this.#nodeLimit = nodeLimit && numNodes > 1;
    this.#numNodes = numNodes;
    this.#groupSize = numLogical / numGroups;
    this.#region = new Region({ numExperts, numGpus, perGpu: shape.numReplicas / shape.numGpus });
    this.#starter = new Starter(this.#region);
    this.#search = new Search(this.#region);
    this.#bounds = new LayerBounds(numLogical, shape, nodeLimit);
    this.#pairSearch = new PairSearch(this.#region, this.#bounds.pairEffort);
    this.#bound = new RegionBound(
      numExperts,
      this.#region.numSlots,
      numGpus,
      this.#bounds.pairEffort,
    );
    this.#partitions = this.#nodeLimit ? groupPartitions(numGroups, numNodes) : undefined;
    this.#packer = new Packer(numGroups, numNodes);
    this.#original = new DeepseekPlacer(numLogical, shape, nodeLimit);
    this.#originalSlots = {
      phy2log: new Int32Array(shape.numReplicas),
      rank: new Int32Array(shape.numReplicas),
    };
    this.#counts = new Int32Array(numLogical);
    this.#everyExpert = Int32Array.from({ length: numLogical }, (_, e) => e);
  }

  /** Lower bound of the layer, of the class this optimizer places in. */
  lowerBound(loads: Float64Array): number {
    return this.#bounds.lowerBound(loads);
  }

  /** Partitions of the groups under the node limit; undefined without one, or if too many. */
  get partitions(): Partitions | undefined {
    return this.#partitions;
  }

  /** Lower bound of a node of the layer for every subset of groups of `partitions`. */
  subsetBounds(loads: Float64Array): Float64Array {
    return this.#bounds.subsetBounds(loads);
  }

  /** Writes the layer's placement to `out`; returns its maximum load. */
  place(loads: Float64Array, out: Int32Array): number {
    const reached = this.#nodeLimit
      ? this.#placeNodes(loads, out)
      : this.#placeRegion(loads, this.#everyExpert, out, 0);
    if (!this.#mayDuplicate && this.#region.canAvoidDuplicates) return reached;
    const original = this.#originalSlots.phy2log;
    this.#original.place(loads, 0, this.#originalSlots, 0);
    const limit = this.#maxLoad(loads, original);
    if (reached <= limit * (1 + 1e-12)) return reached;
    // Rare: duplicates let the original go lower than the search did without. Start from there.
    return this.#improve(loads, original, out, limit);
  }

  #maxLoad(loads: Float64Array, slots: Int32Array): number {
    this.#counts.fill(0);
    for (const expert of slots) this.#counts[expert] = (this.#counts[expert] as number) + 1;
    let most = 0;
    for (let slot = 0; slot < slots.length; ) {
      let sum = 0;
      for (const end = slot + this.#region.perGpu; slot < end; slot++) {
        const expert = slots[slot] as number;
        sum += (loads[expert] as number) / (this.#counts[expert] as number);
      }
      most = Math.max(most, sum);
    }
    return most;
  }

  #load(loads: Float64Array, experts: ArrayLike<number>): void {
    const { load } = this.#region;
    for (let e = 0; e < load.length; e++) load[e] = loads[experts[e] as number] as number;
  }

  #store(experts: ArrayLike<number>, out: Int32Array, at: number): void {
    const { slots } = this.#region;
    for (let i = 0; i < slots.length; i++) out[at + i] = experts[slots[i] as number] as number;
  }

  /** Places one region; `floor` is a load below which nothing helps the layer. */
  #placeRegion(
    loads: Float64Array,
    experts: ArrayLike<number>,
    out: Int32Array,
    at: number,
    floor = 0,
  ): number {
    const region = this.#region;
    this.#load(loads, experts);
    const margin = region.numSlots <= smallRegion ? 1e-9 : tolerance;
    const bound = this.#bound.of(region.load) * (1 + margin);
    this.#starter.place();
    this.#search.descend(bound);
    if (region.perGpu === 2 && region.maxLoad() > Math.max(bound, floor)) this.#pairs(bound);
    this.#search.run({ target: Math.max(bound, floor), kicks: kicksFor(region) });
    region.sumLoads();
    this.#store(experts, out, at);
    return region.maxLoad();
  }

  /** Counts chosen by pairs; kept if they are lower and no expert is twice on a GPU. */
  #pairs(target: number): void {
    const region = this.#region;
    const [before, lowest] = [Int32Array.from(region.slots), region.maxLoad()];
    this.#pairSearch.run(target);
    removeDuplicates(region, lowest);
    if (region.maxLoad() >= lowest || region.duplicates() > 0) region.assign(before);
  }

  #expertsOf(groups: ArrayLike<number>): Int32Array {
    const size = this.#groupSize;
    const experts = new Int32Array(groups.length * size);
    for (let i = 0; i < experts.length; i++) {
      experts[i] = (groups[Math.floor(i / size)] as number) * size + (i % size);
    }
    return experts;
  }

  #placeNodes(loads: Float64Array, out: Int32Array): number {
    const partitions = this.#partitions;
    if (partitions === undefined) return this.#placeByPacking(loads, out);
    const bySubset = Float64Array.from(this.#bounds.subsetBounds(loads));
    const worstOf = partitions.partitions.map((nodes) =>
      nodes.reduce((worst, subset) => Math.max(worst, bySubset[subset] as number), 0),
    );
    const order = worstOf.map((_, i) => i);
    order.sort((a, b) => (worstOf[a] as number) - (worstOf[b] as number) || a - b);
    const { numSlots } = this.#region;
    const margin = numSlots <= smallRegion ? 1e-9 : tolerance;
    const reached = new Float64Array(bySubset.length).fill(-1);
    const slots = new Int32Array(bySubset.length * numSlots);
    let best = Number.POSITIVE_INFINITY;
    let chosen: readonly number[] = [];
    const tries = numSlots <= smallRegion ? order.length : Math.min(order.length, maxTried);
    for (const i of order.slice(0, tries)) {
      const floor = (worstOf[i] as number) * (1 + margin);
      if (floor >= best) break;
      const nodes = partitions.partitions[i] as readonly number[];
      let worst = 0;
      for (const subset of nodes) {
        if (worst >= best) break;
        if ((reached[subset] as number) < 0) {
          const experts = this.#expertsOf(partitions.subsets[subset] as readonly number[]);
          reached[subset] = this.#placeRegion(loads, experts, slots, subset * numSlots, floor);
        }
        worst = Math.max(worst, reached[subset] as number);
      }
      if (worst >= best) continue;
      best = worst;
      chosen = nodes;
    }
    for (const [node, subset] of chosen.entries()) {
      out.set(slots.subarray(subset * numSlots, (subset + 1) * numSlots), node * numSlots);
    }
    return best;
  }

  /** With too many partitions to list: heaviest group first, then exchanges of groups. */
  #placeByPacking(loads: Float64Array, out: Int32Array): number {
    const packer = this.#packer;
    for (let g = 0; g < packer.numItems; g++) {
      const group = loads.subarray(g * this.#groupSize, (g + 1) * this.#groupSize);
      packer.weights[g] = group.reduce((sum, load) => sum + load, 0);
    }
    packer.pack();
    improvePacking({
      packOf: packer.packOf,
      numNodes: this.#numNodes,
      goal: this.#bounds.lowerBound(loads) * (1 + tolerance),
      boundOf: (groups) => {
        this.#load(loads, this.#expertsOf(groups));
        return this.#bound.of(this.#region.load);
      },
    });
    let worst = 0;
    for (let node = 0; node < this.#numNodes; node++) {
      const groups: number[] = [];
      for (let g = 0; g < packer.numItems; g++) if (packer.packOf[g] === node) groups.push(g);
      const at = node * this.#region.numSlots;
      const reached = this.#placeRegion(loads, this.#expertsOf(groups), out, at, worst);
      worst = Math.max(worst, reached);
    }
    return worst;
  }

  /** Descends from the original's placement, node by node, without the duplicates it can spare. */
  #improve(loads: Float64Array, original: Int32Array, out: Int32Array, limit: number): number {
    const region = this.#region;
    const local = new Int32Array(this.#everyExpert.length);
    let worst = 0;
    for (let node = 0; node < this.#numNodes; node++) {
      const at = node * region.numSlots;
      const slots = original.subarray(at, at + region.numSlots);
      const experts = Int32Array.from(new Set(slots)).sort();
      for (const [i, expert] of experts.entries()) local[expert] = i;
      this.#load(loads, experts);
      region.assign(slots.map((expert) => local[expert] as number));
      removeDuplicates(region, limit);
      this.#search.descend(this.#bound.of(region.load));
      region.sumLoads();
      this.#store(experts, out, at);
      worst = Math.max(worst, region.maxLoad());
    }
    return worst;
  }
}
