// The `minimal-migration` policies for one layer: each region (the cluster, or a node under the
// node limit) is changed until its GPUs are below the target. If that cannot be reached with the
// groups where they are, a few of them change nodes; and if that is not enough, a fresh placement
// is relabelled and brought back towards the old one. How much layers may move is for migrate.ts.

import type { EplbShape } from "../placement.ts";
import { relabelLayer } from "./assignment.ts";
import { MigrationSearch, type PathPoint, type Taste } from "./migration-search.ts";
import { LayerOptimizer } from "./optimizer.ts";
import { Region } from "./region.ts";
import { regroupings } from "./regroup.ts";
import { repair } from "./repair.ts";

/** Where the mean target is out of reach, this near to the lower bound is near enough. */
const boundMargin = 1e-3;
/** A fresh placement must be better by this to be worth its moves. */
const freshMargin = 1e-3;
/** Partitions of the groups that are tried where the one in use is in the way. */
const maxRegroupings = 4;
/** Ways to weigh excess against moves that are tried; the one that moves least wins. */
const tastes: readonly Taste[] = [
  { costPower: 0.5, recount: true },
  { costPower: 1.5, recount: true },
];

/** A placement that does not continue the path, and what it takes. */
interface Alternative {
  readonly slots: Int32Array;
  readonly point: PathPoint;
}

/** What a layer is to reach, and how. */
export interface LayerGoal {
  readonly nodeLimit: boolean;
  /** Most a GPU's load may be above the mean, as a ratio. */
  readonly targetMaxOverMean: number;
  /** Whether a layer that starts afresh may put an expert twice on a GPU where that is lighter. */
  readonly duplicates: "if-lighter" | "never";
}

/** Migrates layers of one shape, one at a time. */
export class LayerMigrator {
  readonly #shape: EplbShape;
  readonly #numLogical: number;
  readonly #numNodes: number;
  readonly #groupSize: number;
  readonly #targetRatio: number;
  readonly #region: Region;
  readonly #search: MigrationSearch;
  readonly #optimizer: LayerOptimizer;
  /** Node-local number of each expert. */
  readonly #local: Int32Array;

  constructor(numLogical: number, shape: EplbShape, goal: LayerGoal) {
    const { nodeLimit, targetMaxOverMean, duplicates } = goal;
    this.#shape = shape;
    this.#numLogical = numLogical;
    this.#numNodes = nodeLimit ? shape.numNodes : 1;
    this.#groupSize = nodeLimit ? numLogical / shape.numGroups : numLogical;
    this.#targetRatio = targetMaxOverMean;
    this.#region = new Region({
      numExperts: numLogical / this.#numNodes,
      numGpus: shape.numGpus / this.#numNodes,
      perGpu: shape.numReplicas / shape.numGpus,
    });
    this.#search = new MigrationSearch(this.#region);
    this.#optimizer = new LayerOptimizer(numLogical, shape, nodeLimit, duplicates);
    this.#local = new Int32Array(numLogical);
  }

  /**
   * Migrates the layer without a budget, to `out`. Returns what points on the way would take: from
   * the first, the least that must move, to the last, which `out` is at. Only the last can be a
   * fresh placement.
   */
  plan(loads: Float64Array, from: Int32Array, out: Int32Array): PathPoint[] {
    const target = this.#target(loads);
    const paths = this.#nodes(from, (experts, at) => {
      const home = this.#load(loads, experts, from, at);
      const path = this.#shortestPath(home, target);
      this.#store(experts, out, at);
      return path;
    });
    const path = mergePaths(paths);
    const reached = (path.at(-1) as PathPoint).maxLoad;
    if (reached <= target) return path;
    const limit = reached * (1 - freshMargin);
    let other = this.#regroup(loads, from, target, limit);
    if (other === undefined || other.point.maxLoad > target) {
      const fresh = this.#fresh(loads, from, target, limit);
      const best = (other?.point.maxLoad ?? limit) * (1 - freshMargin);
      if (fresh !== undefined && (other === undefined || fresh.point.maxLoad < best)) other = fresh;
    }
    if (other === undefined) return path;
    out.set(other.slots);
    return [...path, other.point];
  }

  /** Migrates the layer with at most `cap` moved slots, which a point of its path allows. */
  migrate(loads: Float64Array, from: Int32Array, out: Int32Array, cap: number): void {
    const target = this.#target(loads);
    // One region may use the whole cap; several share it as their paths need it.
    const runs = this.#nodes(from, (experts, at) => {
      if (this.#numNodes === 1) return { experts, at, path: [{ moved: cap, maxLoad: 0 }] };
      const home = this.#load(loads, experts, from, at);
      return { experts, at, path: this.#shortestPath(home, target) };
    });
    const caps = capsWithin(
      runs.map((run) => run.path),
      cap,
    );
    for (const [node, { experts, at }] of runs.entries()) {
      const home = this.#load(loads, experts, from, at);
      this.#shortestPath(home, target, caps[node] as number);
      this.#store(experts, out, at);
    }
  }

  /** The load no GPU should exceed: a share above the mean, or nearly the lower bound. */
  #target(loads: Float64Array): number {
    let total = 0;
    for (const load of loads) total += load;
    const bound = this.#optimizer.lowerBound(loads) * (1 + boundMargin);
    return Math.max((total / this.#shape.numGpus) * this.#targetRatio, bound);
  }

  /** Calls `visit` with the experts of every region and the place of its slots in the layer. */
  #nodes<T>(from: Int32Array, visit: (experts: Int32Array, at: number) => T): T[] {
    const size = from.length / this.#numNodes;
    const groupsPerNode = this.#region.numExperts / this.#groupSize;
    const taken = this.#nodeOfGroups(from);
    const results: T[] = [];
    for (let node = 0; node < this.#numNodes; node++) {
      const groups: number[] = [];
      for (const [group, at] of taken.entries()) if (at === node) groups.push(group);
      for (const [group, at] of taken.entries()) {
        // A group that was lost whole goes to the first node with room.
        if (groups.length === groupsPerNode) break;
        if (at !== -1) continue;
        groups.push(group);
        taken[group] = node;
      }
      results.push(visit(this.#expertsOf(groups), node * size));
    }
    return results;
  }

  /** Node that holds each group, −1 if none does. */
  #nodeOfGroups(from: Int32Array): Int32Array {
    const size = from.length / this.#numNodes;
    const nodeOf = new Int32Array(this.#numLogical / this.#groupSize).fill(-1);
    for (let slot = 0; slot < from.length; slot++) {
      const expert = from[slot] as number;
      if (expert >= 0) nodeOf[Math.floor(expert / this.#groupSize)] = Math.floor(slot / size);
    }
    return nodeOf;
  }

  #expertsOf(groups: readonly number[]): Int32Array {
    return Int32Array.from({ length: this.#region.numExperts }, (_, i) => {
      const group = groups[Math.floor(i / this.#groupSize)] as number;
      return group * this.#groupSize + (i % this.#groupSize);
    });
  }

  /**
   * Puts a node's loads into the region; returns its old slots, node-local. An expert of another
   * node is as good as an empty slot: it cannot stay.
   */
  #load(loads: Float64Array, experts: Int32Array, from: Int32Array, at: number): Int32Array {
    const region = this.#region;
    this.#local.fill(-1);
    for (const [i, expert] of experts.entries()) {
      region.load[i] = loads[expert] as number;
      this.#local[expert] = i;
    }
    return from
      .subarray(at, at + region.numSlots)
      .map((expert) => (expert < 0 ? -1 : (this.#local[expert] as number)));
  }

  #store(experts: Int32Array, out: Int32Array, at: number): void {
    const { slots } = this.#region;
    for (let i = 0; i < slots.length; i++) out[at + i] = experts[slots[i] as number] as number;
  }

  /** Leaves the region at the end of the path that moves least of those that reach lowest. */
  #shortestPath(home: Int32Array, target: number, cap = Number.POSITIVE_INFINITY): PathPoint[] {
    const region = this.#region;
    this.#search.setHome(home);
    let best: { path: PathPoint[]; slots: Int32Array } | undefined;
    for (const taste of tastes) {
      region.assign(home);
      repair(region);
      const path = this.#search.run(target, cap, taste);
      const last = path.at(-1) as PathPoint;
      if (path.length > 1 && last.maxLoad <= target) {
        this.#search.goHome(target);
        path[path.length - 1] = { moved: this.#search.moved(), maxLoad: region.maxLoad() };
      }
      if (best === undefined || isBetter(path, best.path, target)) {
        best = { path, slots: Int32Array.from(region.slots) };
      }
      if (path.length === 1) break; // Nothing to do, however it is weighed.
    }
    const { path, slots } = best as { path: PathPoint[]; slots: Int32Array };
    region.assign(slots);
    return path;
  }

  /**
   * The layer with some groups on other nodes, if that gets below `limit`: what the nodes keep
   * stays where it is, slots of groups that left are empty, and from there it goes as ever.
   */
  #regroup(
    loads: Float64Array,
    from: Int32Array,
    target: number,
    limit: number,
  ): Alternative | undefined {
    const { partitions } = this.#optimizer;
    if (partitions === undefined) return undefined;
    const bounds = this.#optimizer.subsetBounds(loads);
    const nodeOf = this.#nodeOfGroups(from);
    let best: Alternative | undefined;
    const most = maxRegroupings;
    for (const { groups } of regroupings({ partitions, bounds, nodeOf, limit: target, most })) {
      const slots = new Int32Array(from.length);
      let [moved, maxLoad] = [0, 0];
      for (const [node, members] of groups.entries()) {
        const at = node * this.#region.numSlots;
        const experts = this.#expertsOf(members);
        const path = this.#shortestPath(this.#load(loads, experts, from, at), target);
        this.#store(experts, slots, at);
        moved += (path.at(-1) as PathPoint).moved;
        maxLoad = Math.max(maxLoad, (path.at(-1) as PathPoint).maxLoad);
      }
      const point = { moved, maxLoad };
      if (maxLoad >= limit || (best !== undefined && !isBetter([point], [best.point], target)))
        continue;
      best = { slots, point };
    }
    return best;
  }

  /** The optimizer's placement if it is below `limit`, with as little of it new as possible. */
  #fresh(
    loads: Float64Array,
    from: Int32Array,
    target: number,
    limit: number,
  ): Alternative | undefined {
    const slots = new Int32Array(from.length);
    const reached = this.#optimizer.place(loads, slots);
    if (reached >= limit) return undefined;
    const { numGpus } = this.#shape;
    const numLogical = this.#numLogical;
    relabelLayer(from, slots, { numLogical, numGpus, numNodes: this.#numNodes });
    let moved = 0;
    let maxLoad = 0;
    this.#nodes(slots, (experts, at) => {
      const fresh = this.#load(loads, experts, slots, at);
      const home = this.#load(loads, experts, from, at);
      this.#region.assign(fresh);
      this.#search.setHome(home);
      this.#search.goHome(Math.max(target, reached));
      this.#store(experts, slots, at);
      moved += this.#search.moved();
      maxLoad = Math.max(maxLoad, this.#region.maxLoad());
    });
    return { slots, point: { moved, maxLoad } };
  }
}

/** Reaching lower comes first, down to the target; then moving less. */
function isBetter(path: readonly PathPoint[], than: readonly PathPoint[], target: number): boolean {
  const a = path.at(-1) as PathPoint;
  const b = than.at(-1) as PathPoint;
  const difference = Math.max(a.maxLoad, target) - Math.max(b.maxLoad, target);
  return Math.abs(difference) > target * 1e-9 ? difference < 0 : a.moved < b.moved;
}

/** Advances the region whose maximum is highest, step by step; calls `visit` after each. */
function walk(paths: readonly (readonly PathPoint[])[], visit: (at: Int32Array) => boolean): void {
  const at = new Int32Array(paths.length);
  while (visit(at)) {
    let highest = -1;
    let most = -1;
    for (const [i, path] of paths.entries()) {
      const { maxLoad } = path[at[i] as number] as PathPoint;
      if (maxLoad <= most) continue;
      most = maxLoad;
      highest = i;
    }
    // The highest region has nothing left to do, so the layer's maximum cannot fall further; the
    // others may still reach the target.
    if ((at[highest] as number) === (paths[highest] as readonly PathPoint[]).length - 1) {
      highest = paths.findIndex((path, i) => (at[i] as number) < path.length - 1);
    }
    if (highest < 0) return;
    at[highest] = (at[highest] as number) + 1;
  }
}

function pointOf(paths: readonly (readonly PathPoint[])[], at: Int32Array): PathPoint {
  let moved = 0;
  let maxLoad = 0;
  for (const [i, path] of paths.entries()) {
    const point = path[at[i] as number] as PathPoint;
    moved += point.moved;
    maxLoad = Math.max(maxLoad, point.maxLoad);
  }
  return { moved, maxLoad };
}

function mergePaths(paths: readonly (readonly PathPoint[])[]): PathPoint[] {
  if (paths.length === 1) return [...(paths[0] as readonly PathPoint[])];
  const merged: PathPoint[] = [];
  walk(paths, (at) => {
    merged.push(pointOf(paths, at));
    return true;
  });
  return merged;
}

/** How much each region may move so that all of them together move at most `cap`. */
function capsWithin(paths: readonly (readonly PathPoint[])[], cap: number): number[] {
  let best = new Int32Array(paths.length);
  walk(paths, (at) => {
    if (pointOf(paths, at).moved > cap) return false;
    best = Int32Array.from(at);
    return true;
  });
  return paths.map((path, i) => (path[best[i] as number] as PathPoint).moved);
}
