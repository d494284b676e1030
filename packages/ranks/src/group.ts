// A process group as one rank sees it: who the others are, symmetric windows, kernels that
// communicate, and the end of it all, orderly or not. How ranks come to be (threads, processes,
// hosts) is in launch*.ts; how bytes reach a rank whose memory is not mapped is a Link's matter.

import { availableParallelism, hostname } from "node:os";
import { InputError } from "@open-infra/errors";
import type { KernelConstants, ParamLayout } from "@open-infra/jit";
import { type CommKernel, CommKernels, type CommValues } from "./comm-kernel.ts";
import { Control, controlBytes, type RankActivity } from "./control.ts";
import {
  describeRank,
  type FailureFacts,
  GroupAbortedError,
  GroupClosedError,
  type GroupError,
  RankDeadError,
  RankMismatchError,
  type RankName,
  RankTimeoutError,
} from "./errors.ts";
import type { Link } from "./link.ts";
import { openLinks } from "./link-open.ts";
import { RanksNative, readText, Words } from "./native.ts";
import { Region, type RegionName } from "./region.ts";
import type { Store } from "./store.ts";
import { type CommEvent, CommStream } from "./stream.ts";
import { Window, type WindowOptions, windowRegionBytes } from "./window.ts";

/** How bytes reach a peer: the same memory, another process's memory, or over a link. */
export type LinkKind = "self" | "heap" | "shm" | "ucx" | "tcp";

/** What a rank needs to join. */
export interface JoinOptions {
  readonly rank: number;
  readonly size: number;
  readonly store: Store;
  /**
   * Ranks of a node, for algorithms with two levels; consecutive ranks share a node. @default the
   * ranks of a host
   */
  readonly ranksPerNode?: number;
  /** `auto`: memory where it is shared, else UCX where it is installed, else TCP. */
  readonly transport?: "auto" | "heap" | "shm" | "ucx" | "tcp";
  /** How long any wait for another rank may take. @default 100 s, as DeepEP */
  readonly timeoutMs?: number;
  /** Threads of the communication stream. @default 1 */
  readonly commThreads?: number;
  /** How long a wait stays awake before it sleeps. @default 20 µs; 2 µs with more ranks than cores */
  readonly spinUs?: number;
  /** What links between ranks are proved by. @default the store's, or one made up for the group */
  readonly secret?: string;
  /** The address that ranks of other hosts reach this one by. @default found by way of the store */
  readonly linkHost?: string;
}

/** Bytes, puts and signals that a rank has sent, by where they went. */
export interface Traffic {
  readonly bytes: number;
  readonly puts: number;
  readonly signals: number;
}

/** One rank's part of what all publish to each other when they join. */
export interface Card extends RankName {
  readonly machine: string;
  readonly startTime: number;
}

const pauseNs = 40;
const kernelThreadLimit = 64;

/** One rank's handle on its group. */
export class Group implements AsyncDisposable {
  readonly rank: number;
  readonly size: number;
  /** The rank's node and its place in it, as `ranksPerNode` says. */
  readonly node: number;
  readonly nodes: number;
  readonly localRank: number;
  readonly ranksPerNode: number;
  readonly timeoutMs: number;
  /** The native `oi_group`. */
  readonly address: number;
  readonly stream: CommStream;
  readonly #native: RanksNative;
  readonly #cards: readonly Card[];
  readonly #links: readonly LinkKind[];
  readonly #link: Link | undefined;
  readonly #store: Store;
  readonly #control: Control;
  readonly #controlRegion: Region;
  readonly #kernels: CommKernels;
  readonly #windows = new Map<string, Window>();
  readonly #syncThreads: number;
  #system: Window | undefined;
  #opened = 0;
  #barriers = 0;
  #operation = "";
  #failure: GroupError | undefined;
  #open = true;

  /** Use {@link joinGroup}. */
  constructor(init: {
    options: Required<Pick<JoinOptions, "rank" | "size" | "store" | "timeoutMs" | "commThreads">>;
    ranksPerNode: number;
    spinUs: number;
    native: RanksNative;
    cards: readonly Card[];
    links: readonly LinkKind[];
    link: Link | undefined;
    controlRegion: Region;
  }) {
    const { rank, size, store, timeoutMs, commThreads } = init.options;
    this.rank = rank;
    this.size = size;
    this.ranksPerNode = init.ranksPerNode;
    this.node = Math.floor(rank / init.ranksPerNode);
    this.nodes = Math.ceil(size / init.ranksPerNode);
    this.localRank = rank % init.ranksPerNode;
    this.timeoutMs = timeoutMs;
    this.#native = init.native;
    this.#cards = init.cards;
    this.#links = init.links;
    this.#link = init.link;
    this.#store = store;
    this.#controlRegion = init.controlRegion;
    this.#control = new Control(init.native, init.controlRegion, size);
    this.#kernels = new CommKernels(init.native);
    const spins = Math.ceil((init.spinUs * 1000) / pauseNs);
    const head = [rank, size, this.node, this.nodes, spins, 10, timeoutMs * 1e6];
    const nodes = Array.from({ length: size }, (_, peer) => this.nodeOf(peer));
    const words = [...head, this.#control.address, init.link === undefined ? 0 : 1, ...nodes];
    const made = init.native.must("making a group", "oi_group_create", new Words(words));
    this.address = made.at(0);
    this.#syncThreads = commThreads;
    this.stream = new CommStream(init.native, this.address, commThreads, () => this.check());
    init.link?.start({
      group: this,
      native: init.native,
      control: this.#control,
      outbox: made.at(1),
      eventFd: made.at(2),
    });
  }

  nodeOf(rank: number): number {
    return Math.floor(rank / this.ranksPerNode);
  }

  /** How a peer is reached. */
  linkOf(peer: number): LinkKind {
    return this.#links[peer] as LinkKind;
  }

  /** `rank 3 (host-a, process 4711)`. */
  describe(rank: number): string {
    const card = this.#cards[rank];
    return card === undefined ? "no rank" : describeRank(card);
  }

  /** What this rank has sent so far: to itself, within its node, to other nodes. */
  get traffic(): { readonly self: Traffic; readonly node: Traffic; readonly network: Traffic } {
    const { groupTraffic } = this.#native.layout;
    const words = new BigInt64Array(this.#groupBytes(groupTraffic, 72));
    const at = (i: number): Traffic => ({
      bytes: Number(words[i * 3]),
      puts: Number(words[i * 3 + 1]),
      signals: Number(words[i * 3 + 2]),
    });
    return { self: at(0), node: at(1), network: at(2) };
  }

  /** What a rank that shares memory with this one is in. */
  activity(rank: number): RankActivity {
    return this.#control.activity(rank);
  }

  isMasked(rank: number): boolean {
    return this.#control.isMasked(rank);
  }

  /**
   * Opens a window; every rank of the group does so in the same order, with the same sizes.
   *
   * @throws RankMismatchError naming the rank whose sizes differ; RanksSystemError for no memory.
   */
  async openWindow(options: WindowOptions): Promise<Window> {
    this.check();
    checkWindow(options);
    if (this.#windows.has(options.name)) {
      throw new InputError("name", options.name, "a name that no open window has");
    }
    const number = this.#opened++;
    const region = Region.create(this.#native, windowRegionBytes(options));
    const { bytes, flags = 0 } = options;
    const key = `window/${number}`;
    const own = { name: options.name, bytes, flags, region: region.name };
    await this.#store.set(`${key}/${this.rank}`, JSON.stringify(own));
    const regions: (Region | undefined)[] = [];
    for (let peer = 0; peer < this.size; peer++) {
      const theirs = JSON.parse(await this.#getFromPeer(`${key}/${peer}`, peer)) as typeof own;
      this.#expectSame(`window ${options.name}`, own, theirs, peer);
      const mapped = this.#links[peer] === "heap" || this.#links[peer] === "shm";
      if (peer === this.rank) regions.push(region);
      else regions.push(mapped ? this.#map(theirs.region) : undefined);
    }
    const window = new Window({
      native: this.#native,
      group: this.address,
      number,
      rank: this.rank,
      options,
      regions,
      onFailure: () => this.check(),
    });
    this.#link?.register(number, window, region);
    this.#windows.set(options.name, window);
    await this.#exchangeReady(`${key}/ready`);
    return window;
  }

  /** Closes a window once every rank is done with it: a barrier is in it. */
  closeWindow(window: Window): void {
    if (this.#failure === undefined && this.#open) this.barrier();
    this.#link?.unregister(window);
    this.#windows.delete(window.name);
    window[Symbol.dispose]();
  }

  /**
   * Blocks until all ranks are here. Work queued on the stream before is not waited for.
   *
   * @throws RankTimeoutError, RankDeadError, GroupAbortedError naming the rank that is missing
   */
  barrier(): void {
    this.check();
    this.begin("barrier");
    const system = this.#system as Window;
    const round = ++this.#barriers;
    // Dissemination: in step k each rank tells the one 2^k further; after log2(n) steps all know of
    // all.
    for (let step = 0, distance = 1; distance < this.size; step++, distance *= 2) {
      const to = (this.rank + distance) % this.size;
      const from = (this.rank - distance + this.size) % this.size;
      system.signal(to, step, round);
      system.wait(step, round, { peer: from, awaited: `step ${step} of the barrier` });
    }
  }

  /** Everybody's text, by rank; for control, not for tensors. */
  async exchange(key: string, text: string): Promise<readonly string[]> {
    this.check();
    await this.#store.set(`exchange/${key}/${this.rank}`, text);
    const all: string[] = [];
    for (let peer = 0; peer < this.size; peer++) {
      all.push(await this.#getFromPeer(`exchange/${key}/${peer}`, peer));
    }
    return all;
  }

  /** Notes what this rank does now, for its own errors and those of others. */
  begin(operation: string): void {
    this.#operation = operation;
    this.#control.begin(this.rank, operation);
  }

  /** Compiles a kernel ahead of its first use. */
  prepare(kernel: CommKernel, constants: KernelConstants = {}): void {
    this.#kernels.load(kernel as CommKernel, constants);
  }

  /**
   * Queues a kernel on the communication thread.
   *
   * @param options.after The kernel's operands are ready only then; for another stream's event.
   */
  enqueue<L extends ParamLayout>(
    kernel: CommKernel<L>,
    constants: KernelConstants,
    values: CommValues<L>,
    options: KernelRun = {},
  ): CommEvent {
    this.check();
    this.begin(options.operation ?? kernel.name);
    const code = this.#kernels.load(kernel as unknown as CommKernel, constants);
    const threads = Math.max(1, Math.min(this.#syncThreads, options.threads ?? kernelThreadLimit));
    const launch = {
      pool: this.stream.pool,
      entry: code.address,
      threads,
      scratchBytes: options.scratchBytes ?? 0,
    };
    const block = this.#kernels.pack(kernel, values, launch, CommStream.room);
    return this.stream.submit(block, [values, options.keep]);
  }

  /** Runs a kernel and waits for it, after all that is queued. @throws the group's failure */
  run<L extends ParamLayout>(
    kernel: CommKernel<L>,
    constants: KernelConstants,
    values: CommValues<L>,
    options: KernelRun = {},
  ): void {
    this.enqueue(kernel, constants, values, options).wait();
  }

  /** Waits until links have taken what was put, so that sources may change. */
  flush(): void {
    this.#native.call("oi_group_flush", new Words([this.address]));
    this.check();
  }

  /** Throws the group's failure, if there is one. */
  check(): void {
    if (!this.#open) throw new GroupClosedError("the group");
    if (this.#failure !== undefined) throw this.#failure;
    const own = this.#ownFailure();
    const aborted = this.#control.aborted;
    if (own === undefined && aborted === undefined) return;
    this.#failure = this.#makeError(own, aborted);
    throw this.#failure;
  }

  /** Ends the group: every rank's waits and later calls fail with this reason. */
  abort(reason: string, culprit: number = this.rank): void {
    if (!this.#open) return;
    this.#control.abort(1, culprit, this.rank, reason);
    this.#link?.abort(1, culprit, this.rank, reason);
  }

  /** Leaves. Orderly if all ranks close; after a failure it only lets go of what is held. */
  async close(): Promise<void> {
    if (!this.#open) return;
    try {
      if (this.#failure === undefined && this.#control.aborted === undefined) {
        this.stream.record().wait();
        this.barrier();
      }
    } finally {
      this.#control.setState(this.rank, "left");
      this.stream[Symbol.dispose]();
      await this.#link?.close();
      this.#open = false;
      for (const window of this.#windows.values()) window[Symbol.dispose]();
      this.#windows.clear();
      this.#native.call("oi_group_free", new Words([this.address]));
      this.#controlRegion[Symbol.dispose]();
      this.#store.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  /** Called once by {@link joinGroup}: the window of barriers. */
  async openSystemWindow(): Promise<void> {
    this.#system = await this.openWindow({ name: "system", bytes: 4096, flags: 32 });
  }

  #map(name: RegionName): Region {
    return Region.open(this.#native, name);
  }

  async #exchangeReady(key: string): Promise<void> {
    await this.#store.set(`${key}/${this.rank}`, "1");
    for (let peer = 0; peer < this.size; peer++) await this.#getFromPeer(`${key}/${peer}`, peer);
  }

  async #getFromPeer(key: string, peer: number): Promise<string> {
    try {
      return await this.#store.get(key, { timeoutMs: this.timeoutMs });
    } catch (cause) {
      this.check();
      const facts = this.#facts(peer, `what it should say about ${key}`, this.timeoutMs);
      const message = `${this.describe(peer)} did not answer in ${this.timeoutMs} ms: ${key}`;
      throw new RankTimeoutError(message, facts, { cause });
    }
  }

  #expectSame(
    what: string,
    own: { name: string; bytes: number; flags: number },
    theirs: { name: string; bytes: number; flags: number },
    peer: number,
  ): void {
    for (const field of ["name", "bytes", "flags"] as const) {
      if (own[field] === theirs[field]) continue;
      const facts = this.#facts(peer, what, 0);
      const text =
        `${what}: ${field} is ${own[field]} here on ${this.describe(this.rank)}, but ` +
        `${theirs[field]} on ${this.describe(peer)}; all ranks must agree`;
      this.#control.abort(4, peer, this.rank, text);
      this.#link?.abort(4, peer, this.rank, text);
      throw new RankMismatchError(text, facts);
    }
  }

  #groupBytes(offset: number, bytes: number): ArrayBuffer {
    const view = this.#native.view(this.address + offset, bytes);
    return view.slice().buffer as ArrayBuffer;
  }

  #ownFailure(): OwnFailure | undefined {
    const { groupFailure, failureAwaited } = this.#native.layout;
    const bytes = new DataView(this.#groupBytes(groupFailure, failureAwaited));
    const code = bytes.getInt32(0, true);
    if (code <= 0) return undefined;
    return {
      code,
      peer: bytes.getInt32(4, true),
      waitedMs: Number(bytes.getBigInt64(8, true)) / 1e6,
      awaited: readText(this.address + groupFailure + failureAwaited, 96),
    };
  }

  #facts(peer: number, awaited: string, waitedMs: number): FailureFacts {
    return { rank: this.rank, peer, operation: this.#operation, awaited, waitedMs };
  }

  #makeError(
    own: OwnFailure | undefined,
    aborted: { code: number; culprit: number; text: string } | undefined,
  ): GroupError {
    if (aborted !== undefined || own === undefined) {
      const culprit = aborted?.culprit ?? -1;
      const facts = this.#facts(culprit, own?.awaited ?? "", own?.waitedMs ?? 0);
      return new GroupAbortedError(aborted?.text ?? "the group was aborted", facts);
    }
    const { peer, awaited, waitedMs } = own;
    const facts = this.#facts(peer, awaited, waitedMs);
    const head = `${this.describe(this.rank)} in ${this.#operation}: `;
    const who = peer < 0 ? "nobody" : this.describe(peer);
    const waited = `waited ${Math.round(waitedMs)} ms for ${awaited}`;
    const error =
      own.code === 3
        ? new RankDeadError(`${head}${who} is gone${this.#goneText(peer)}; ${waited}`, facts)
        : own.code === 4
          ? new RankMismatchError(`${head}${awaited}, from ${who}`, facts)
          : new RankTimeoutError(`${head}${waited} from ${who}${this.#activityText(peer)}`, facts);
    this.#control.abort(own.code, peer, this.rank, error.message);
    this.#link?.abort(own.code, peer, this.rank, error.message);
    return error;
  }

  /** What the link knows of a peer's end. */
  #goneText(peer: number): string {
    const reason = peer < 0 ? "" : (this.#link?.reason(peer) ?? "");
    return reason === "" ? "" : `: ${reason}`;
  }

  #activityText(peer: number): string {
    if (peer < 0) return "";
    const { operation, awaited } = this.#control.activity(peer);
    if (operation === "") return "";
    return `, which is in ${operation}${awaited >= 0 ? ` and waits for rank ${awaited}` : ""}`;
  }
}

/** How this rank's own operation failed; read from the native record. */
interface OwnFailure {
  readonly code: number;
  readonly peer: number;
  readonly waitedMs: number;
  readonly awaited: string;
}

/** How a kernel is run. */
export interface KernelRun {
  /** For errors. @default the kernel's name */
  readonly operation?: string;
  /** @default the stream's */
  readonly threads?: number;
  readonly scratchBytes?: number;
  /** Kept referenced until the kernel is done, besides its values. */
  readonly keep?: unknown;
}

function checkWindow({ bytes, flags = 0 }: WindowOptions): void {
  if (!Number.isSafeInteger(bytes) || bytes < 0) {
    throw new InputError("bytes", `${bytes}`, "an integer of at least 0");
  }
  if (!Number.isSafeInteger(flags) || flags < 0) {
    throw new InputError("flags", `${flags}`, "an integer of at least 0");
  }
}

function checkJoin({ rank, size, ranksPerNode, timeoutMs }: JoinOptions): void {
  const expect = (what: string, value: number | undefined, low: number, high: number): void => {
    if (value === undefined || (Number.isInteger(value) && value >= low && value <= high)) return;
    throw new InputError(what, `${value}`, `an integer from ${low} to ${high}`);
  };
  expect("size", size, 1, 65_536);
  expect("rank", rank, 0, size - 1);
  expect("ranksPerNode", ranksPerNode, 1, size);
  expect("timeoutMs", timeoutMs, 1, 1e9);
}

/**
 * Joins a group: returns when all ranks are there.
 *
 * @throws InputError, RankTimeoutError naming who did not come, CompilerMissingError
 */
export async function joinGroup(options: JoinOptions): Promise<Group> {
  checkJoin(options);
  const { rank, size, store, timeoutMs = 100_000, commThreads = 1 } = options;
  const native = new RanksNative();
  const startTime = native.must(
    "reading the process's start time",
    "oi_process_start",
    new Words([process.pid]),
  );
  const card: Card = {
    rank,
    host: hostname(),
    pid: process.pid,
    machine: machineName(),
    startTime: startTime.at(0),
  };
  await store.set(`card/${rank}`, JSON.stringify(card));
  const cards: Card[] = [];
  for (let peer = 0; peer < size; peer++) {
    cards.push(JSON.parse(await store.get(`card/${peer}`, { timeoutMs })) as Card);
  }
  const transport = options.transport ?? "auto";
  const chosen = cards.map((peer) => chooseLink(card, peer, transport));
  const { links, link } = await openLinks({ ...options, timeoutMs }, cards, chosen);
  const controlRegion = await openControl(native, store, cards, links, rank);
  const crowded = cards.filter((peer) => peer.machine === card.machine).length;
  const group = new Group({
    options: { rank, size, store, timeoutMs, commThreads },
    ranksPerNode: options.ranksPerNode ?? ranksPerHost(cards),
    spinUs: options.spinUs ?? (crowded > availableParallelism() ? 2 : 20),
    native,
    cards,
    links,
    link,
    controlRegion,
  });
  await group.openSystemWindow();
  return group;
}

/** Ranks of a host, if all hosts have as many and they are consecutive; else all are one node. */
function ranksPerHost(cards: readonly Card[]): number {
  const first = cards.findIndex((card) => card.machine !== cards[0]?.machine);
  return first < 0 ? cards.length : first;
}

/** Tells hosts apart, containers with process tables of their own included. */
function machineName(): string {
  return process.env.OPEN_INFRA_HOST_ID ?? `${hostname()}/${process.platform}`;
}

function chooseLink(own: Card, peer: Card, transport: string): LinkKind {
  if (own.rank === peer.rank) return transport === "shm" ? "shm" : "heap";
  if (transport === "tcp" || transport === "ucx") return transport;
  if (own.pid === peer.pid && own.machine === peer.machine) return "heap";
  if (own.machine === peer.machine) return "shm";
  return "tcp";
}

/** The lowest rank of those that share memory makes the control region. */
async function openControl(
  native: RanksNative,
  store: Store,
  cards: readonly Card[],
  links: readonly LinkKind[],
  rank: number,
): Promise<Region> {
  const leader = links.findIndex((link) => link === "heap" || link === "shm");
  const own = cards[rank] as Card;
  const key = `control/${leader}`;
  let region: Region;
  if (leader === rank) {
    region = Region.create(native, controlBytes(native, cards.length));
    await store.set(key, JSON.stringify(region.name));
  } else {
    region = Region.open(native, JSON.parse(await store.get(key)) as RegionName);
  }
  const control = new Control(native, region, cards.length);
  const alone = cards.filter((card) => card.pid === own.pid && card.host === own.host).length === 1;
  control.enter(rank, alone ? own.pid : 0, own.startTime);
  return region;
}
