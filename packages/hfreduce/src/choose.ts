// How an operation runs: which algorithm and which chunk. Both follow from sizes that all ranks
// agree on, so all choose the same. The thresholds are measured; see NOTES.md.

import type { Algorithm, Kind } from "./kernel.ts";

/** What the choice depends on. */
export interface ChoiceFacts {
  readonly kind: Kind;
  /** Bytes of the whole, as elements. */
  readonly bytes: number;
  /** Bytes that one member sends to another if all exchange all. */
  readonly pairBytes: number;
  readonly members: number;
  readonly nodes: number;
  readonly smallBytes: number;
}

/** Beyond as many members, one message to each costs more than a tree of messages. */
const smallMembers = 32;
/** Bytes for each node from which the ring's even load outweighs its many steps. */
const ringBytesPerNode = 128 * 1024;
/** Beyond as many nodes its steps take too long for any size; half measured, half by the model. */
const ringNodes = 16;

/** The algorithm of `auto`. */
export function chooseAlgorithm(facts: ChoiceFacts): Algorithm {
  const { kind, bytes, pairBytes, members, nodes, smallBytes } = facts;
  if (pairBytes <= smallBytes && members <= smallMembers) return "small";
  if (kind === "reduceScatter" || kind === "allGather") return "ring";
  if (kind !== "allreduce" || nodes === 1) return "tree";
  const ring = nodes > 2 && nodes <= ringNodes && bytes >= nodes * ringBytesPerNode;
  return ring ? "ring" : "tree";
}

/** Algorithms that a kind of operation knows. */
export function algorithmsOf(kind: Kind): readonly Algorithm[] {
  if (kind === "allreduce") return ["small", "tree", "ring"];
  return kind === "reduce" || kind === "broadcast" ? ["small", "tree"] : ["small", "ring"];
}
