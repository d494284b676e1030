// Where everything lies in the window of a reducer, and which flag is which: the same on all ranks
// of the group, whichever members they reduce with, because a window is symmetric. Pure.

import {
  doubleTree,
  laneCount,
  type Members,
  nodeSize,
  rootedTrees,
  treeHeight,
} from "./topology.ts";

/** What the layout is computed from; equal on all ranks. */
export interface LayoutOptions {
  /** All sets of members of the group. */
  readonly sets: readonly Members[];
  /** Whether some ranks of a node can reach each other's buffers only through the window. */
  readonly staged: boolean;
  readonly chunkBytes: number;
  readonly smallBytes: number;
  readonly stageBytes: number;
  readonly maxDevices: number;
}

/** Offsets in bytes and flags by number. */
export interface ReducerLayout {
  readonly bytes: number;
  readonly flags: number;
  /** Turns that results lag behind sums in the trees. */
  readonly lag: number;
  readonly slots: number;
  readonly localSlots: number;
  readonly slotBytes: number;
  readonly stageBytes: number;
  readonly smallBytes: number;
  readonly headBytes: number;
  readonly maxDevices: number;
  readonly atHeads: number;
  readonly atOwnHead: number;
  readonly atLanes: number;
  readonly atStage: number;
  readonly atResult: number;
  readonly flagHead: number;
  readonly flagDone: number;
  readonly flagLane: number;
  readonly flagStaged: number;
  readonly flagTaken: number;
  readonly flagResult: number;
  readonly flagCollected: number;
}

const headWords = 12;
const areasOfLane = 10;
const flagsOfLane = 16;
const localSlots = 3;
/** Deeper pipelines than this only hold more memory. */
const longestLag = 8;
/** What all greetings with their payloads may take of the window. */
const smallBudgetBytes = 4 << 20;

const up = (value: number, to: number): number => Math.ceil(value / to) * to;
const most = (values: readonly number[]): number => Math.max(...values);
const nodesOf = ({ nodeStart }: Members): number => nodeStart.length - 1;
const sizesOf = (members: Members): number[] =>
  Array.from({ length: nodesOf(members) }, (_, node) => nodeSize(members, node));

/** Computes the layout. */
export function reducerLayout(options: LayoutOptions): ReducerLayout {
  const { sets, staged, maxDevices } = options;
  const members = most(sets.map(({ ranks }) => ranks.length));
  const lanes = most(sets.map(laneCount));
  const locals = most(sets.flatMap(sizesOf));
  const owned = most(sets.flatMap((m) => sizesOf(m).map((s) => Math.ceil(laneCount(m) / s))));
  const nodes = most(sets.map(nodesOf));
  const heights = [...doubleTree(nodes), ...rootedTrees(nodes, 0)].map(treeHeight);
  const lag = Math.min(longestLag, 2 * most(heights));
  const slots = lag + 2;
  const slotBytes = up(options.chunkBytes, 512);
  const headBytes = up(8 * (headWords + 4 * maxDevices), 64);
  const room = Math.floor(smallBudgetBytes / (4 * members)) - headBytes;
  const smallBytes = Math.max(0, Math.floor(Math.min(options.smallBytes, room) / 64) * 64);
  const stageBytes = staged
    ? up(Math.max(options.stageBytes, lanes * 2 * 512), lanes * 2 * 512)
    : 0;
  const heads = up(2 * members * (headBytes + smallBytes), 4096);
  const atLanes = 2 * heads;
  const atStage = atLanes + (nodes > 1 ? owned * areasOfLane * slots * slotBytes : 0);
  const atResult = atStage + localSlots * stageBytes;
  const flagLane = 2 * members;
  const flagStaged = flagLane + owned * flagsOfLane;
  return {
    bytes: atResult + localSlots * stageBytes,
    flags: flagStaged + 4 * locals,
    lag,
    slots,
    localSlots,
    slotBytes,
    stageBytes,
    smallBytes,
    headBytes,
    maxDevices,
    atHeads: 0,
    atOwnHead: heads,
    atLanes,
    atStage,
    atResult,
    flagHead: 0,
    flagDone: members,
    flagLane,
    flagStaged,
    flagTaken: flagStaged + locals,
    flagResult: flagStaged + 2 * locals,
    flagCollected: flagStaged + 3 * locals,
  };
}
