// What a placement of experts is: which logical expert each physical slot holds, for every layer.
// Everything else in this package makes, measures, compares or moves placements. Slots lie GPU by
// GPU: slot `p` is on GPU `floor(p / (numReplicas / numGpus))`, GPUs lie node by node.

/** The cluster and the model, as the original's arguments. */
export interface EplbShape {
  /** Physical slots a layer (`num_replicas`): a multiple of `numGpus`, at least the experts. */
  readonly numReplicas: number;
  /** Expert groups (group-limited routing); divides the experts. */
  readonly numGroups: number;
  readonly numNodes: number;
  /** GPUs over all nodes; a multiple of `numNodes`. */
  readonly numGpus: number;
}

/** Loads of logical experts: a row a layer, all of the same length. Any non-negative numbers. */
export type LoadRows = readonly ArrayLike<number>[];

/** Where experts are. All arrays are row-major. */
export interface Placement {
  readonly numLayers: number;
  /** Logical experts a layer. */
  readonly numLogical: number;
  /** Physical slots a layer. */
  readonly numReplicas: number;
  /** Most replicas any expert of any layer has: the last dimension of `log2phy`. */
  readonly maxReplicas: number;
  /** [numLayers, numReplicas]: the logical expert in each slot. */
  readonly phy2log: Int32Array;
  /** [numLayers, numLogical, maxReplicas]: slots of each expert's replicas, padded with −1. */
  readonly log2phy: Int32Array;
  /** [numLayers, numLogical]: replicas of each expert. */
  readonly logcnt: Int32Array;
}

/** How well one layer is balanced. Loads are in the unit of the weights. */
export interface LayerBalance {
  readonly maxLoad: number;
  readonly meanLoad: number;
  /** maxLoad ÷ meanLoad, at least 1; 1 when there is no load. */
  readonly maxOverMean: number;
  /** meanLoad ÷ maxLoad, at most 1: the share of the GPUs' time that is not waiting. */
  readonly balancedness: number;
  /**
   * No placement of this many slots on this cluster has a lower maximum load; if `nodeLimit` of the
   * report is true, none of those that keep every group on one node. Proven, see bound.ts.
   */
  readonly lowerBound: number;
  /** maxLoad ÷ lowerBound − 1; 0 when it is below 1e-9 or there is no load. */
  readonly gap: number;
  /** Load of the heaviest single replica. */
  readonly maxReplicaLoad: number;
  /** Standard deviation of the GPUs' loads ÷ meanLoad. */
  readonly variation: number;
  readonly gpuLoads: Float64Array;
  readonly nodeLoads: Float64Array;
  /** Slots that hold an expert their GPU has already. */
  readonly duplicates: number;
  /**
   * Slots that need a copy from another GPU, seen from the placement it was compared with; 0
   * without one. A slot whose expert its GPU held already, in any slot, has not moved.
   */
  readonly movedSlots: number;
}

/** How well a placement is balanced, by layer and over all. */
export interface BalanceReport {
  /**
   * True if every group's experts are on one node, equally many groups on each; lower bounds then
   * speak of such placements only.
   */
  readonly nodeLimit: boolean;
  readonly layers: readonly LayerBalance[];
  /** Means over layers, but for the worst and the sums. */
  readonly meanMaxOverMean: number;
  readonly worstMaxOverMean: number;
  /** Σ mean ÷ Σ max over layers, as serving engines report it. */
  readonly balancedness: number;
  readonly worstGap: number;
  readonly duplicates: number;
  readonly movedSlots: number;
  /** movedSlots ÷ all slots. */
  readonly movedShare: number;
}
