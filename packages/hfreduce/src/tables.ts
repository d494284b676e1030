// What the native side reads, as blocks of 64-bit words: the frame of a reducer (hf_frame of
// kernels/hfreduce_op.h), the neighbours of the lanes a rank serves (hf_lane), and whom an
// operation greets.

import { addressOf } from "@open-infra/jit";
import type { ReducerLayout } from "./layout.ts";
import {
  laneCount,
  laneServer,
  type Members,
  nodeOfMember,
  nodeSize,
  type Tree,
} from "./topology.ts";

/** Registered windows of one reducer. */
export const maxWindows = 256;

const none = [-1, 0, 0];

/** Words at an address that stays; the arrays are kept by whoever holds this. */
export class NativeTable {
  readonly words: BigInt64Array;

  constructor(words: readonly number[]) {
    // A table is never empty, so that it always has an address.
    this.words = new BigInt64Array(Math.max(1, words.length));
    words.forEach((word, i) => {
      this.words[i] = BigInt(word);
    });
  }

  get address(): number {
    return addressOf(this.words);
  }
}

/** The frame of one rank, with the tables it points to. */
export class Frame {
  readonly table: NativeTable;
  readonly #ranks: NativeTable;
  readonly #nodeStart: NativeTable;
  readonly #windows = new NativeTable(new Array<number>(maxWindows).fill(0));
  #windowCount = 0;

  constructor(members: Members, me: number, layout: ReducerLayout, sameProcess: boolean) {
    const node = nodeOfMember(members, me);
    const lanes = laneCount(members);
    const size = nodeSize(members, node);
    const local = me - (members.nodeStart[node] as number);
    const l = layout;
    this.#ranks = new NativeTable(members.ranks);
    this.#nodeStart = new NativeTable(members.nodeStart);
    const places = [l.atHeads, l.atOwnHead, l.atLanes, l.atStage, l.atResult, l.stageBytes];
    const flags = [l.flagHead, l.flagDone, l.flagLane, l.flagStaged, l.flagTaken];
    this.table = new NativeTable([
      ...[members.ranks.length, me, members.nodeStart.length - 1, node, lanes],
      ownedLanes(members, node, local).length,
      ...[size, local, sameProcess ? 1 : 0],
      ...[l.maxDevices, l.slotBytes, l.slots, l.localSlots, l.smallBytes, l.headBytes],
      ...places,
      ...[...flags, l.flagResult, l.flagCollected],
      ...[this.#ranks.address, this.#nodeStart.address, this.#windows.address],
      ...[0, 0],
    ]);
  }

  /** Makes a window's memory known; gives the number by which headers name it, from 1. */
  addWindow(address: number): number {
    this.#windows.words[this.#windowCount++] = BigInt(address);
    return this.#windowCount;
  }

  get windowCount(): number {
    return this.#windowCount;
  }
}

/** Lanes that a member serves, by its place on its node. */
export function ownedLanes(members: Members, node: number, local: number): number[] {
  const size = nodeSize(members, node);
  const owned: number[] = [];
  for (let lane = local; lane < laneCount(members); lane += size) owned.push(lane);
  return owned;
}

/** Neighbours of each lane that member `me` serves, and the members they are. */
export function laneTable(
  members: Members,
  me: number,
  trees: readonly [Tree, Tree],
): { readonly words: readonly number[]; readonly neighbours: readonly number[] } {
  const node = nodeOfMember(members, me);
  const nodes = members.nodeStart.length - 1;
  const words: number[] = [];
  const neighbours = new Set<number>();
  for (const lane of ownedLanes(members, node, me - (members.nodeStart[node] as number))) {
    const edge = (to: number, child = 0): number[] => {
      if (to < 0 || nodes === 1) return none;
      const { member, slot } = laneServer(members, to, lane);
      neighbours.add(member);
      return [members.ranks[member] as number, slot, child];
    };
    words.push(lane);
    for (const { parent, children } of trees) {
      const above = parent[node] as number;
      words.push(...edge(above, above < 0 ? 0 : (children[above] as number[]).indexOf(node)));
      const below = children[node] as number[];
      for (let c = 0; c < 2; c++) words.push(...edge(below[c] ?? -1, c));
    }
    words.push(...edge((node + nodes - 1) % nodes), ...edge((node + 1) % nodes));
  }
  return { words, neighbours: [...neighbours] };
}

/** The other members of a member's node. */
export function nodeMates(members: Members, me: number): number[] {
  const node = nodeOfMember(members, me);
  const first = members.nodeStart[node] as number;
  const all = Array.from({ length: nodeSize(members, node) }, (_, i) => first + i);
  return all.filter((member) => member !== me);
}
