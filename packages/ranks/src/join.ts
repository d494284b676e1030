// How a rank joins: all publish a card in the store, each chooses how to reach every other, those
// that share memory meet in one control region, and the window of barriers and messages opens.

import { readFileSync, readlinkSync } from "node:fs";
import { availableParallelism, hostname } from "node:os";
import { InputError } from "@open-infra/errors";
import { Control, controlBytes } from "./control.ts";
import { describeRank, RankDeadError, RankTimeoutError } from "./errors.ts";
import { Group } from "./group.ts";
import type { Card, JoinOptions, LinkKind } from "./group-options.ts";
import { openLinks } from "./link-open.ts";
import { RanksNative, Words } from "./native.ts";
import { Region, type RegionName } from "./region.ts";
import { PartStore, type Store, StoreFailedError, StoreTimeoutError } from "./store.ts";

const defaultTimeoutMs = 100_000;

function checkJoin(options: JoinOptions): void {
  const { rank, size, ranksPerNode, timeoutMs, commThreads, spinUs } = options;
  const expect = (what: string, value: number | undefined, low: number, high: number): void => {
    if (value === undefined || (Number.isInteger(value) && value >= low && value <= high)) return;
    throw new InputError(what, `${value}`, `an integer from ${low} to ${high}`);
  };
  expect("size", size, 1, 65_536);
  expect("rank", rank, 0, size - 1);
  expect("ranksPerNode", ranksPerNode, 1, size);
  expect("timeoutMs", timeoutMs, 1, 1e9);
  expect("commThreads", commThreads, 1, 1024);
  if (spinUs !== undefined && !(spinUs >= 0 && spinUs <= 1e6)) {
    throw new InputError("spinUs", `${spinUs}`, "0 to 1000000");
  }
}

/**
 * Joins a group: returns when all ranks are there.
 *
 * @throws InputError, RankTimeoutError naming who did not come, RankDeadError,
 * CompilerMissingError,   RanksSystemError, and what links throw
 */
export async function joinGroup(options: JoinOptions): Promise<Group> {
  checkJoin(options);
  const { rank, size, timeoutMs = defaultTimeoutMs, commThreads = 1 } = options;
  const { onRankExit = "abort", store, transport = "auto" } = options;
  const native = new RanksNative();
  const meeting = new Meeting(store, rank, size, timeoutMs);
  const card = ownCard(native, rank, onRankExit);
  const cards = (await meeting.exchange("card", JSON.stringify(card))).map(
    (text) => JSON.parse(text) as Card,
  );
  meeting.cards = cards;
  expectSamePolicy(card, cards);
  const chosen = cards.map((peer) => chooseLink(card, peer, transport));
  const { links, link } = await openLinks({ ...options, timeoutMs }, cards, chosen);
  let controlRegion: Region | undefined;
  let group: Group | undefined;
  try {
    controlRegion = await openControl(native, meeting, cards, links, rank);
    const crowded = cards.filter((peer) => peer.machine === card.machine).length;
    group = new Group({
      options: { rank, size, store, timeoutMs, commThreads, onRankExit },
      ranksPerNode: options.ranksPerNode ?? ranksPerHost(cards),
      spinUs: options.spinUs ?? (crowded > availableParallelism() ? 0.5 : 20),
      ...{ native, cards, links, link, controlRegion },
      joinPart: (whole, part, ranks) => joinPart(options, whole, part, ranks),
    });
    await group.openSystemWindow((key, text) => meeting.exchange(key, text));
    return group;
  } catch (error) {
    if (group !== undefined) {
      group.abort(`${describeRank(card)} could not join: ${(error as Error).message}`);
      await group.close();
    } else {
      controlRegion?.[Symbol.dispose]();
      await link?.close();
    }
    throw error;
  }
}

/** Ranks before they have a group: what they say to each other goes through the store. */
class Meeting {
  readonly store: Store;
  readonly #rank: number;
  readonly #size: number;
  readonly #timeoutMs: number;
  cards: readonly Card[] = [];

  constructor(store: Store, rank: number, size: number, timeoutMs: number) {
    this.store = store;
    this.#rank = rank;
    this.#size = size;
    this.#timeoutMs = timeoutMs;
  }

  /** Everybody's text under a key. */
  async exchange(key: string, text: string): Promise<readonly string[]> {
    await this.store.set(`${key}/${this.#rank}`, text);
    const all: string[] = [];
    for (let peer = 0; peer < this.#size; peer++) {
      all.push(await this.get(`${key}/${peer}`, peer));
    }
    return all;
  }

  /** What one rank writes. @throws RankTimeoutError, RankDeadError naming it */
  async get(key: string, peer: number): Promise<string> {
    const since = performance.now();
    try {
      return await this.store.get(key, { timeoutMs: this.#timeoutMs });
    } catch (cause) {
      const card = this.cards[peer];
      const who = card === undefined ? `rank ${peer}` : describeRank(card);
      const waitedMs = performance.now() - since;
      const awaited = `what it should say about ${key}`;
      const facts = { rank: this.#rank, peer, operation: "joining", awaited, waitedMs };
      const head = `rank ${this.#rank} (${hostname()}, process ${process.pid}) in joining`;
      if (cause instanceof StoreTimeoutError) {
        const text = `${head}: waited ${Math.round(waitedMs)} ms for ${who}: ${awaited}`;
        throw new RankTimeoutError(text, facts, { cause });
      }
      if (cause instanceof StoreFailedError) {
        const text = `${head}: ${cause.message}; waited for ${who}: ${awaited}`;
        throw new RankDeadError(text, { ...facts, peer: cause.culprit }, { cause });
      }
      throw cause;
    }
  }
}

function ownCard(native: RanksNative, rank: number, onRankExit: Card["onRankExit"]): Card {
  const words = new Words([process.pid]);
  native.call("oi_process_start", words);
  const { pid } = process;
  return {
    rank,
    host: hostname(),
    pid,
    machine: machineName(),
    startTime: words.at(0),
    onRankExit,
  };
}

function expectSamePolicy(own: Card, cards: readonly Card[]): void {
  const other = cards.find(({ onRankExit }) => onRankExit !== own.onRankExit);
  if (other === undefined) return;
  const got = `"${own.onRankExit}", but "${other.onRankExit}" on ${describeRank(other)}`;
  throw new InputError("onRankExit", got, "the same on all ranks");
}

/** Ranks of a host, if all hosts have as many and they are consecutive; else all are one node. */
function ranksPerHost(cards: readonly Card[]): number {
  return runLength(cards.map(({ machine }) => machine));
}

/** The length of runs of equal values if all are as long, else that of the whole. */
function runLength(values: readonly (string | number)[]): number {
  const first = values.findIndex((value) => value !== values[0]);
  if (first < 0) return values.length;
  const even = values.every((value, i) => value === values[i - (i % first)]);
  const ends = values.length % first === 0;
  const distinct = new Set(values).size === values.length / first;
  return even && ends && distinct ? first : values.length;
}

/**
 * Tells apart what cannot share memory: the machine since its last start, and in it the table of
 * processes, of which containers have their own; without /proc, processes. `OPEN_INFRA_HOST_ID`
 * says otherwise.
 */
function machineName(): string {
  const given = process.env.OPEN_INFRA_HOST_ID;
  if (given !== undefined) return given;
  try {
    const boot = readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim();
    return `${boot}/${readlinkSync("/proc/self/ns/pid")}`;
  } catch {
    return `${hostname()}/${process.platform}/${process.pid}`;
  }
}

function chooseLink(own: Card, peer: Card, transport: string): LinkKind {
  if (own.rank === peer.rank) return transport === "shm" ? "shm" : "heap";
  if (transport === "tcp" || transport === "ucx") return transport;
  const oneMachine = own.machine === peer.machine;
  const found = !oneMachine ? "tcp" : own.pid === peer.pid ? "heap" : "shm";
  const wanted = transport === "auto" || transport === found || found === "heap";
  if (!wanted) {
    const got = `"${transport}", but ${describeRank(own)} and ${describeRank(peer)} are`;
    const where = oneMachine ? "processes of one host" : "on two hosts";
    throw new InputError("transport", `${got} ${where}`, `"${found}" or "auto"`);
  }
  return found;
}

/** The lowest rank of those that share memory makes the control region. */
async function openControl(
  native: RanksNative,
  meeting: Meeting,
  cards: readonly Card[],
  links: readonly LinkKind[],
  rank: number,
): Promise<Region> {
  const leader = links.findIndex((link) => link === "heap" || link === "shm");
  const own = cards[rank] as Card;
  let region: Region;
  if (leader === rank) {
    region = Region.create(native, controlBytes(native, cards.length));
    await meeting.store.set(controlKey(leader), JSON.stringify(region.name));
  } else {
    const name = await meeting.get(controlKey(leader), leader);
    region = Region.open(native, JSON.parse(name) as RegionName);
  }
  const control = new Control(native, region, cards.length);
  control.enter(rank, own.pid, own.startTime, describeRank(own));
  cards.forEach((card, peer) => {
    const behindLink = links[peer] === "tcp" || links[peer] === "ucx";
    if (behindLink) control.enter(peer, 0, 0, describeRank(card));
  });
  return region;
}

/** Where the name of the control region of a host stands, by its lowest rank. */
export function controlKey(leader: number): string {
  return `control/${leader}`;
}

/** A group of some ranks of another; they find each other through the same store. */
function joinPart(
  options: JoinOptions,
  whole: Group,
  part: string,
  ranks: readonly number[],
): Promise<Group> {
  return joinGroup({
    ...options,
    rank: ranks.indexOf(whole.rank),
    size: ranks.length,
    store: new PartStore(options.store, part),
    ranksPerNode: runLength(ranks.map((rank) => whole.nodeOf(rank))),
  });
}
