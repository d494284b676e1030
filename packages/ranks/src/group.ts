// A process group as one rank sees it: who the others are, symmetric windows, kernels that
// communicate, messages, and the end of it all, orderly or not. How ranks join is in join.ts, how
// they come to be in threads.ts, processes.ts and launch*.ts; how bytes reach a rank whose memory
// is not mapped is a Link's matter.

import { InputError } from "@open-infra/errors";
import type { KernelConstants, ParamLayout } from "@open-infra/jit";
import { type CommKernel, CommKernels, type CommValues } from "./comm-kernel.ts";
import { Control, type RankActivity, type RankState } from "./control.ts";
import { describeRank, GroupClosedError, GroupError, RankMismatchError } from "./errors.ts";
import { FailureWatch, outcome } from "./failure.ts";
import type {
  Card,
  JoinOptions,
  KernelRun,
  LinkKind,
  RankExitPolicy,
  SlowRankReport,
  Traffic,
} from "./group-options.ts";
import type { Link } from "./link.ts";
import { systemWindow } from "./message-rings.ts";
import { Messages } from "./messages.ts";
import { type RanksNative, Words } from "./native.ts";
import { RankRecord } from "./rank-record.ts";
import type { Region } from "./region.ts";
import { reportSlowRanks } from "./slow-ranks.ts";
import type { Store } from "./store.ts";
import { type CommEvent, CommStream } from "./stream.ts";
import type { Window, WindowOptions } from "./window.ts";
import { WindowTable } from "./window-table.ts";

/** What {@link Group} is made from; see join.ts. */
export interface GroupInit {
  readonly options: Required<
    Pick<JoinOptions, "rank" | "size" | "store" | "timeoutMs" | "commThreads" | "onRankExit">
  >;
  readonly ranksPerNode: number;
  readonly spinUs: number;
  readonly native: RanksNative;
  readonly cards: readonly Card[];
  readonly links: readonly LinkKind[];
  readonly link: Link | undefined;
  readonly controlRegion: Region;
  /** Joins a group of some of these ranks. */
  readonly joinPart: (group: Group, part: string, ranks: readonly number[]) => Promise<Group>;
}

/** A wait looks for at least this long before it sleeps: the way to another core and back. */
const spinNsLeast = 500;
/** Then it lets others run this often; NOTES.md has the figures behind both. */
const yields = 1;
/** A kernel runs on at most as many threads. */
const kernelThreadLimit = 1024;
/** Tags of the group's own messages, apart from anybody else's. */
const exchangeTag = -(2 ** 31);
/** Where a launch's parameters begin in the native block: after stream, count, name, launch. */
const firstParam = 7;

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
  readonly onRankExit: RankExitPolicy;
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
  readonly #windows: WindowTable;
  readonly #failures: FailureWatch;
  readonly #joinPart: GroupInit["joinPart"];
  readonly #record: RankRecord;
  #messages: Messages | undefined;
  #parts = 0;
  #operation: number;
  #failure: GroupError | Error | undefined;
  #open = true;

  /** Use {@link joinGroup}. */
  constructor(init: GroupInit) {
    const { rank, size, store, timeoutMs, commThreads, onRankExit } = init.options;
    this.rank = rank;
    this.size = size;
    this.ranksPerNode = init.ranksPerNode;
    this.node = Math.floor(rank / init.ranksPerNode);
    this.nodes = Math.ceil(size / init.ranksPerNode);
    this.localRank = rank % init.ranksPerNode;
    this.timeoutMs = timeoutMs;
    this.onRankExit = onRankExit;
    this.#native = init.native;
    this.#cards = init.cards;
    this.#links = init.links;
    this.#link = init.link;
    this.#store = store;
    this.#controlRegion = init.controlRegion;
    this.#control = new Control(init.native, init.controlRegion, size);
    this.#kernels = new CommKernels(init.native);
    this.#joinPart = init.joinPart;
    this.#operation = init.native.name("its own work");
    const { address, outbox, eventFd } = this.#makeNative(init);
    this.address = address;
    this.#failures = new FailureWatch({
      ...{ native: init.native, control: this.#control, group: address, rank },
      reason: (peer) => init.link?.reason(peer) ?? "",
    });
    this.#record = new RankRecord(init.native, address, size);
    this.#windows = new WindowTable({
      ...{ native: init.native, address, rank, links: init.links, link: init.link },
      describe: (peer) => this.describe(peer),
      check: () => this.check(),
      fail: (error) => this.#fail(error),
      operation: () => this.#operation,
    });
    this.stream = new CommStream(init.native, address, commThreads, () => this.check());
    const { native } = init;
    init.link?.start({ group: this, native, control: this.#control, outbox, eventFd });
  }

  #makeNative(init: GroupInit): { address: number; outbox: number; eventFd: number } {
    const { rank, size, timeoutMs, onRankExit } = init.options;
    const { pauseNs } = init.native;
    const spins = Math.ceil((init.spinUs * 1000) / pauseNs);
    const spinsLeast = Math.ceil(spinNsLeast / pauseNs);
    const nodes = Array.from({ length: size }, (_, peer) => this.nodeOf(peer));
    const words = [
      ...[rank, size, this.node, this.nodes, spins, spinsLeast, yields, timeoutMs * 1e6],
      ...[
        this.#control.address,
        init.link === undefined ? 0 : 1,
        onRankExit === "continue" ? 1 : 0,
      ],
      ...nodes,
    ];
    const made = init.native.must("making a group", "oi_group_create", new Words(words));
    return { address: made.at(0), outbox: made.at(1), eventFd: made.at(2) };
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
    this.#expectOpen();
    return this.#record.traffic;
  }

  /** What a rank is in, as far as it is known here. */
  activity(rank: number): RankActivity {
    this.#expectOpen();
    return this.#control.activity(rank);
  }

  /** Whether a rank is there, after a look at its process. */
  stateOf(rank: number): RankState {
    this.#expectOpen();
    if (rank !== this.rank) this.#native.invoke("oi_group_look", this.address, rank);
    return this.#record.linkState(rank) ?? this.#control.state(rank);
  }

  /** Whether this rank does without another; see {@link setMasked}. */
  isMasked(rank: number): boolean {
    this.#expectOpen();
    return this.#record.isMasked(rank);
  }

  /**
   * Masks a rank, for this one only: kernels neither send to it nor wait for it, and where the
   * group goes on without some (`onRankExit: "continue"`) barriers and exchanges skip it.
   */
  setMasked(rank: number, masked: boolean): void {
    this.#expectOpen();
    if (!Number.isInteger(rank) || rank < 0 || rank >= this.size || rank === this.rank) {
      throw new InputError("rank", `${rank}`, `another rank below ${this.size}`);
    }
    this.#record.setMasked(rank, masked);
  }

  /** Ranks that this one has not masked, itself included. */
  get liveRanks(): readonly number[] {
    return Array.from({ length: this.size }, (_, rank) => rank).filter((r) => !this.isMasked(r));
  }

  /** How long this rank has waited for each, since it joined. */
  slowRanks(): SlowRankReport {
    this.#expectOpen();
    return reportSlowRanks(this.#record.waitedMs, this.rank, (rank) => this.describe(rank));
  }

  /** The same of all ranks: who kept the group waiting. Every rank calls it. */
  async slowRanksOfGroup(): Promise<SlowRankReport> {
    this.#expectOpen();
    const all = await this.exchange("waits", JSON.stringify(this.#record.waitedMs));
    const sums = Array.from({ length: this.size }, () => 0);
    for (const text of all) {
      if (text === "") continue;
      (JSON.parse(text) as number[]).forEach((ms, rank) => {
        sums[rank] = (sums[rank] as number) + ms;
      });
    }
    return reportSlowRanks(sums, -1, (rank) => this.describe(rank));
  }

  /**
   * Opens a window; every rank of the group does so in the same order, with the same sizes.
   *
   * @throws RankMismatchError naming the rank whose sizes differ; RanksSystemError for no memory.
   */
  async openWindow(options: WindowOptions): Promise<Window> {
    this.check();
    this.begin("openWindow");
    return this.#windows.open(options, (card) => this.exchange(`window ${options.name}`, card));
  }

  /**
   * What this rank alone has found ends the group for all. Returns the error to throw: if the group
   * has ended already, why it has, because the other only follows from it.
   */
  #fail(error: unknown): unknown {
    if (this.#failure !== undefined) return this.#failure;
    const isMismatch = error instanceof RankMismatchError;
    if (!isMismatch && !this.#failures.isSilent) return this.#failures.error();
    const culprit = isMismatch ? error.peer : this.rank;
    const text = isMismatch ? error.message : `${this.describe(this.rank)}: ${textOf(error)}`;
    this.#control.abort(outcome.badData, culprit, this.rank, text);
    this.#link?.abort(outcome.badData, culprit, this.rank, text);
    if (isMismatch) this.#failure = error;
    return error;
  }

  /** As {@link closeWindows}, of one. */
  closeWindow(window: Window): void {
    this.closeWindows([window]);
  }

  /**
   * Closes windows once every rank is done with them: queued kernels and a barrier are in it. A
   * rank that still waits there for this one, and has not been served, fails at once, and with it
   * the group: so an exception on the way out of one rank reaches all without a timeout.
   *
   * @throws RankTimeoutError, RankDeadError, GroupAbortedError
   */
  closeWindows(windows: readonly Window[]): void {
    if (windows.length === 0) return;
    if (this.#open) {
      this.stream.record().wait();
      if (this.#isWell) {
        for (const window of windows) window.farewell();
        this.barrier();
      }
    }
    for (const window of windows) this.#windows.close(window);
  }

  /**
   * As {@link closeWindows}, for disposal: a failure of the group is left for whatever uses the
   * group next, so that it does not cover the error that the caller may be on its way out with.
   */
  disposeWindows(windows: readonly Window[]): void {
    try {
      this.closeWindows(windows);
    } catch (error) {
      if (!(error instanceof GroupError)) throw error;
    }
  }

  get #isWell(): boolean {
    return this.#failure === undefined && this.#failures.isSilent;
  }

  /**
   * Blocks until all ranks are here. Work queued on the stream before is not waited for.
   *
   * @throws RankTimeoutError, RankDeadError, GroupAbortedError naming the rank that is missing
   */
  barrier(): void {
    this.check();
    if (this.#native.invoke("oi_group_meet", this.address) !== outcome.arrived) this.check();
  }

  /**
   * Sends bytes to a rank; messages of a pair and tag arrive in order. Resolves when the bytes may
   * change, which is when the receiver has taken all but what its ring holds.
   *
   * @param tag An integer of 32 bits, above −2^31.
   */
  send(peer: number, tag: number, bytes: Uint8Array): Promise<void> {
    return this.#talk().send(peer, userTag(tag), bytes);
  }

  /** As {@link send}, blocking. */
  sendSync(peer: number, tag: number, bytes: Uint8Array): void {
    this.#talk().sendSync(peer, userTag(tag), bytes);
  }

  /** The next message of a rank with this tag. */
  recv(peer: number, tag: number): Promise<Uint8Array<ArrayBuffer>> {
    return this.#talk().recv(peer, userTag(tag));
  }

  /** As {@link recv}, but only if it is here already; takes no turn of the event loop. */
  tryRecv(peer: number, tag: number): Uint8Array<ArrayBuffer> | undefined {
    return this.#talk().tryRecv(peer, userTag(tag));
  }

  /** As {@link recv}, blocking. */
  recvSync(peer: number, tag: number): Uint8Array<ArrayBuffer> {
    return this.#talk().recvSync(peer, userTag(tag));
  }

  #talk(): Messages {
    this.check();
    return this.#messages as Messages;
  }

  /**
   * Everybody's text, by rank; empty for masked ranks. For control, not for tensors.
   *
   * @param what Equal on all ranks; checked.
   * @throws RankMismatchError if ranks exchange different things
   */
  async exchange(what: string, text: string): Promise<readonly string[]> {
    const messages = this.#talk();
    const bytes = new TextEncoder().encode(JSON.stringify([what, text]));
    const peers = this.liveRanks;
    const label = { operation: "exchange", awaited: `its part of the exchange of ${what}` };
    const sends = peers.map((peer) => messages.send(peer, exchangeTag, bytes, label));
    const all = Array.from({ length: this.size }, () => "");
    const receives = peers.map(async (peer) => {
      const got = new TextDecoder().decode(await messages.recv(peer, exchangeTag, label));
      const [theirs, value] = JSON.parse(got) as [string, string];
      if (theirs !== what) throw this.#fail(this.#mismatch(peer, what, theirs));
      all[peer] = value;
    });
    await Promise.all([...sends, ...receives]);
    return all;
  }

  #mismatch(peer: number, what: string, theirs: string): RankMismatchError {
    const facts = { rank: this.rank, peer, operation: "exchange", awaited: what, waitedMs: 0 };
    const text =
      `${this.describe(this.rank)} exchanges ${what}, but ${this.describe(peer)} exchanges ` +
      `${theirs}; all ranks must do the same in the same order`;
    return new RankMismatchError(text, facts);
  }

  /**
   * Groups of some ranks: every rank calls it, those that give the same color are a group, in the
   * order of their ranks. It has windows, flags, streams and failures of its own.
   */
  async split(color: number | string): Promise<Group> {
    const part = this.#parts++;
    const colors = await this.exchange("color", String(color));
    const ranks = this.liveRanks.filter((rank) => colors[rank] === String(color));
    return this.#joinPart(this, `part/${part}/${color}`, ranks);
  }

  /** Notes what this rank's thread does now, for its own errors and those of others. */
  begin(operation: string): void {
    this.#expectOpen();
    this.#operation = this.#native.name(operation);
    this.#native.invoke("oi_group_begin", this.address, this.#operation);
  }

  /** Compiles a kernel ahead of its first use. */
  prepare(kernel: CommKernel, constants: KernelConstants = {}): void {
    this.#kernels.load(kernel as CommKernel, constants);
  }

  /** Queues a kernel on the communication thread. */
  enqueue<L extends ParamLayout>(
    kernel: CommKernel<L>,
    constants: KernelConstants,
    values: CommValues<L>,
    options: KernelRun = {},
  ): CommEvent {
    const words = this.#packLaunch(kernel, constants, values, options);
    return this.stream.submit(words, [values, options.keep]);
  }

  /**
   * Runs a kernel and waits for it, after all that is queued; on this thread if nothing is.
   *
   * @throws the group's failure
   */
  run<L extends ParamLayout>(
    kernel: CommKernel<L>,
    constants: KernelConstants,
    values: CommValues<L>,
    options: KernelRun = {},
  ): void {
    this.stream.run(this.#packLaunch(kernel, constants, values, options));
  }

  #packLaunch<L extends ParamLayout>(
    kernel: CommKernel<L>,
    constants: KernelConstants,
    values: CommValues<L>,
    options: KernelRun,
  ): number {
    this.check();
    const code = this.#kernels.load(kernel as unknown as CommKernel, constants);
    const name = this.#native.name(options.operation ?? kernel.name);
    const end = this.#kernels.pack(kernel, values, firstParam);
    const { threads } = this.stream;
    this.#native.word(2, name);
    this.#native.word(3, this.stream.pool);
    this.#native.word(4, code.address);
    this.#native.word(5, Math.max(1, Math.min(threads, options.threads ?? kernelThreadLimit)));
    this.#native.word(6, options.scratchBytes ?? 0);
    return end - 2;
  }

  /** Waits until links have taken what was put, so that sources may change. */
  flush(): void {
    this.check();
    const code = this.#native.invoke("oi_group_flush", this.address, this.#operation);
    if (code !== outcome.arrived) this.check();
  }

  /** Throws the group's failure, if there is one. */
  check(): void {
    this.#expectOpen();
    if (this.#failure !== undefined) throw this.#failure;
    if (this.#failures.isSilent) return;
    const error = this.#failures.error();
    this.#failure = error;
    // Ranks that share memory know already; those behind a link may not.
    const aborted = this.#control.aborted;
    if (aborted !== undefined) {
      this.#link?.abort(aborted.code, aborted.culprit, aborted.reporter, aborted.text);
    }
    throw error;
  }

  /** Ends the group: every rank's waits and later calls fail with this reason. */
  abort(reason: string, culprit: number = this.rank): void {
    if (!this.#open) return;
    this.#control.abort(outcome.aborted, culprit, this.rank, reason);
    this.#link?.abort(outcome.aborted, culprit, this.rank, reason);
  }

  /**
   * Ends this rank's part at once, without waiting for anybody: it counts as dead, and what it
   * still runs ends. Only {@link close} may follow.
   */
  abandon(): void {
    if (!this.#open) return;
    this.#native.invoke("oi_group_retire", this.address);
    this.#messages?.[Symbol.dispose]();
    this.stream[Symbol.dispose]();
  }

  /** Leaves. Orderly if all ranks close; after a failure it only lets go of what is held. */
  async close(): Promise<void> {
    if (!this.#open) return;
    try {
      if (this.#isWell) {
        this.stream.record().wait();
        this.#windows.farewell();
        this.barrier();
      }
    } finally {
      this.#control.setState(this.rank, "left");
      this.#messages?.[Symbol.dispose]();
      this.stream[Symbol.dispose]();
      await this.#link?.close();
      this.#open = false;
      this.#windows.closeAll();
      this.#native.invoke("oi_group_free", this.address);
      this.#controlRegion[Symbol.dispose]();
      this.#store.close();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close();
  }

  #expectOpen(): void {
    if (!this.#open) throw new GroupClosedError("the group");
  }

  /** Called once by {@link joinGroup}: the window of barriers and messages, by way of the store. */
  async openSystemWindow(
    exchange: (key: string, text: string) => Promise<readonly string[]>,
  ): Promise<void> {
    let round = 0;
    const window = await this.#windows.open(systemWindow(this.size), (card) =>
      exchange(`system/${round++}`, card),
    );
    this.#messages = new Messages({
      ...{ native: this.#native, address: this.address, rank: this.rank, size: this.size },
      ...{ timeoutMs: this.timeoutMs, window },
      check: () => this.check(),
    });
  }
}

function textOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}

function userTag(tag: number): number {
  if (tag !== exchangeTag) return tag;
  throw new InputError("tag", `${tag}`, `an integer above ${exchangeTag}`);
}
