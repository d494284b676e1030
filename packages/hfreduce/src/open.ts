// Opens a reducer: ranks agree on who reduces with whom and how large everything is, once.

import { InputError } from "@open-infra/errors";
import { type Group, RankMismatchError } from "@open-infra/ranks";
import { reducerLayout } from "./layout.ts";
import { HfReduce } from "./reducer.ts";
import { type Members, membersOf, nodeOfMember } from "./topology.ts";

/** How a reducer is opened; all but `members` are equal on all ranks. */
export interface ReducerOptions {
  /** Unique among the group's open reducers. @default "hfreduce" */
  readonly name?: string;
  /**
   * Ranks that reduce together, this one among them; different ranks may be in different sets, each
   * rank in one. @default all ranks
   */
  readonly members?: readonly number[];
  /** Buffers that a rank may bring to one operation. @default 8 */
  readonly maxDevices?: number;
  /** Bytes of a partial sum that travels at once between nodes. @default 256 KiB */
  readonly chunkBytes?: number;
  /** Longest message of the all-to-all way of small operations. @default 16 KiB */
  readonly smallBytes?: number;
  /**
   * Bytes of each turn within a node whose processes cannot reach each other's buffers.
   * @default 1 MiB
   */
  readonly stageBytes?: number;
}

/** What each rank tells all others. */
interface Card {
  readonly members: readonly number[];
  readonly sizes: readonly number[];
  /** Ranks of its node and set whose memory is not mapped, and whether all are of its process. */
  readonly unmapped: boolean;
  readonly sameProcess: boolean;
}

/** Reducers opened on a group so far: the ranks' exchange has a key for each. */
const opened = new WeakMap<Group, number>();

const limits = { maxDevices: 64, chunkBytes: 64 << 20, smallBytes: 1 << 20, stageBytes: 256 << 20 };
const lowest = { maxDevices: 1, chunkBytes: 512, smallBytes: 0, stageBytes: 512 };

function checkOptions(group: Group, options: ReducerOptions): Required<ReducerOptions> {
  const all = {
    name: options.name ?? "hfreduce",
    members: options.members ?? Array.from({ length: group.size }, (_, rank) => rank),
    maxDevices: options.maxDevices ?? 8,
    chunkBytes: options.chunkBytes ?? 256 * 1024,
    smallBytes: options.smallBytes ?? 16 * 1024,
    stageBytes: options.stageBytes ?? 1 << 20,
  };
  for (const key of ["maxDevices", "chunkBytes", "smallBytes", "stageBytes"] as const) {
    const value = all[key];
    if (Number.isSafeInteger(value) && value >= lowest[key] && value <= limits[key]) continue;
    throw new InputError(key, `${value}`, `an integer from ${lowest[key]} to ${limits[key]}`);
  }
  const sorted = [...new Set(all.members)].sort((a, b) => a - b);
  const valid = sorted.every((r) => Number.isInteger(r) && r >= 0 && r < group.size);
  if (!valid || sorted.length !== all.members.length || !sorted.includes(group.rank)) {
    const allowed = `different ranks from 0 to ${group.size - 1}, ${group.rank} among them`;
    throw new InputError("members", `[${all.members}]`, allowed);
  }
  return { ...all, members: sorted };
}

/**
 * Opens a reducer on this rank; all ranks of the group do so together.
 *
 * @throws InputError; RankMismatchError naming a rank whose sizes or members contradict.
 */
export async function openReducer(group: Group, options: ReducerOptions = {}): Promise<HfReduce> {
  const checked = checkOptions(group, options);
  const { maxDevices, chunkBytes, smallBytes, stageBytes, name } = checked;
  const mates = checked.members.filter(
    (rank) => rank !== group.rank && group.nodeOf(rank) === group.node,
  );
  const kinds = mates.map((rank) => group.linkOf(rank));
  const card: Card = {
    members: checked.members,
    sizes: [maxDevices, chunkBytes, smallBytes, stageBytes],
    unmapped: kinds.some((kind) => kind === "tcp" || kind === "ucx"),
    sameProcess: kinds.every((kind) => kind === "heap"),
  };
  const count = opened.get(group) ?? 0;
  opened.set(group, count + 1);
  const texts = await group.exchange(`hfreduce/${name}/${count}`, JSON.stringify(card));
  const cards = texts.map((text) => JSON.parse(text) as Card);
  checkCards(group, cards, card);
  // Ranks that cannot reach each other's memory are nodes of their own, whatever the group says.
  const apart = cards.some(({ unmapped }) => unmapped);
  const nodeOf = (rank: number): number => (apart ? rank : group.nodeOf(rank));
  const sets = new Map<string, Members>();
  for (const { members } of cards) sets.set(`${members}`, membersOf(members, nodeOf));
  const members = sets.get(`${checked.members}`) as Members;
  const me = members.ranks.indexOf(group.rank);
  const staged = !apart && cards.some(({ sameProcess }) => !sameProcess);
  const layout = reducerLayout({
    sets: [...sets.values()],
    staged,
    chunkBytes,
    smallBytes,
    stageBytes,
    maxDevices,
  });
  const first = members.ranks[members.nodeStart[nodeOfMember(members, me)] as number] as number;
  const own = cards.filter((_, r) => members.ranks.includes(r) && nodeOf(r) === nodeOf(first));
  const window = await group.openWindow({ name, bytes: layout.bytes, flags: layout.flags });
  const sameProcess = own.every((other) => other.sameProcess);
  return new HfReduce({ group, members, me, layout, window, sameProcess, name });
}

function checkCards(group: Group, cards: readonly Card[], own: Card): void {
  cards.forEach((card, peer) => {
    const sets = own.members.includes(peer) ? `${card.members}` === `${own.members}` : true;
    const sizes = `${card.sizes}` === `${own.sizes}`;
    if (sets && sizes) return;
    const what = sets
      ? `maxDevices, chunkBytes, smallBytes and stageBytes are ${own.sizes} here, ${card.sizes}`
      : `members are ${own.members} here, ${card.members}`;
    const text = `opening a reducer: ${what} on ${group.describe(peer)}; they must agree`;
    group.abort(text, peer);
    const facts = { rank: group.rank, peer, operation: "openReducer", awaited: text, waitedMs: 0 };
    throw new RankMismatchError(text, facts);
  });
}
