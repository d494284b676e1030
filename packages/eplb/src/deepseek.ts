// The original's policy, step by step: groups to nodes, replicas inside a node, replicas to its
// GPUs. Bit for bit the original where no two loads tie: float32 everywhere, stable descending
// order, the first on ties. Works on flat arrays, with scratch that does not grow with the layers.

import { Packer } from "./packing.ts";
import type { EplbShape } from "./placement.ts";
import { Replicator } from "./replication.ts";
import type { LoadMatrix } from "./shape.ts";

/** Slots of all layers, and which replica of its expert each slot is. */
export interface RankedSlots {
  /** [numLayers, numReplicas] */
  readonly phy2log: Int32Array;
  /** [numLayers, numReplicas]: rank of the slot among the replicas of its expert. */
  readonly rank: Int32Array;
}

/** Places one layer at a time; one instance serves all layers of a shape. */
export class DeepseekPlacer {
  readonly #numNodes: number;
  readonly #groupSize: number;
  readonly #groupsPerNode: number;
  readonly #groups: Packer;
  readonly #replicator: Replicator;
  readonly #gpus: Packer;
  /** Expert behind each node-local number. */
  readonly #localToExpert: Int32Array;

  /** `nodeLimit` false is the global policy: one group on one node. */
  constructor(numLogical: number, shape: EplbShape, nodeLimit: boolean) {
    const numNodes = nodeLimit ? shape.numNodes : 1;
    const numGroups = nodeLimit ? shape.numGroups : 1;
    this.#numNodes = numNodes;
    this.#groupSize = numLogical / numGroups;
    this.#groupsPerNode = numGroups / numNodes;
    this.#groups = new Packer(numGroups, numNodes);
    const slotsPerNode = shape.numReplicas / numNodes;
    this.#replicator = new Replicator(numLogical / numNodes, slotsPerNode);
    this.#gpus = new Packer(slotsPerNode, shape.numGpus / numNodes);
    this.#localToExpert = new Int32Array(numLogical);
  }

  /** Places the layer whose loads start at `from`; its slots start at `to`. */
  place(loads: Float64Array, from: number, slots: RankedSlots, to: number): void {
    this.#packGroups(loads, from);
    const slotsPerNode = this.#gpus.numItems;
    for (let node = 0; node < this.#numNodes; node++) {
      this.#placeNode(loads, from, node, slots, to + node * slotsPerNode);
    }
  }

  /** Numbers experts node by node, in the order their groups arrive there. */
  #packGroups(loads: Float64Array, from: number): void {
    const groups = this.#groups;
    const size = this.#groupSize;
    for (let group = 0; group < groups.numItems; group++) {
      // The order of the original's sum depends on the machine's vectors; the exact sum, rounded
      // once, is what all of them are near. Integers below 2^24 sum to the same in any order.
      let sum = 0;
      for (let j = 0; j < size; j++) {
        sum += Math.fround(loads[from + group * size + j] as number);
      }
      groups.weights[group] = sum;
    }
    groups.pack();
    for (let group = 0; group < groups.numItems; group++) {
      const place = (groups.packOf[group] as number) * this.#groupsPerNode;
      const local = (place + (groups.rankOf[group] as number)) * size;
      for (let j = 0; j < size; j++) this.#localToExpert[local + j] = group * size + j;
    }
  }

  #placeNode(
    loads: Float64Array,
    from: number,
    node: number,
    slots: RankedSlots,
    to: number,
  ): void {
    const replicator = this.#replicator;
    const gpus = this.#gpus;
    const local = node * replicator.numLogical;
    for (let i = 0; i < replicator.numLogical; i++) {
      const expert = this.#localToExpert[local + i] as number;
      replicator.weights[i] = loads[from + expert] as number; // Rounds to float32.
    }
    replicator.replicate();
    for (let i = 0; i < gpus.numItems; i++) {
      gpus.weights[i] = replicator.share(replicator.phy2log[i] as number);
    }
    gpus.pack();
    for (let i = 0; i < gpus.numItems; i++) {
      const slot = to + (gpus.packOf[i] as number) * gpus.capacity + (gpus.rankOf[i] as number);
      slots.phy2log[slot] = this.#localToExpert[
        local + (replicator.phy2log[i] as number)
      ] as number;
      slots.rank[slot] = replicator.rank[i] as number;
    }
  }
}

/** The original's placement of all layers. */
export function deepseekSlots(
  matrix: LoadMatrix,
  shape: EplbShape,
  nodeLimit: boolean,
): RankedSlots {
  const { numLayers, numLogical, data } = matrix;
  const size = numLayers * shape.numReplicas;
  const slots = { phy2log: new Int32Array(size), rank: new Int32Array(size) };
  const placer = new DeepseekPlacer(numLogical, shape, nodeLimit);
  for (let layer = 0; layer < numLayers; layer++) {
    placer.place(data, layer * numLogical, slots, layer * shape.numReplicas);
  }
  return slots;
}
