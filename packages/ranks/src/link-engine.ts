// What links have in common, in the link's thread: empties the outbox, applies what comes in to
// windows, watches that peers are alive, carries aborts. How bytes travel is a Carrier's matter.

import { type LinkAbort, LinkControl } from "./link-control.ts";
import { type LinkThreadStart, reasonBytes, reasonsOffset } from "./link-messages.ts";
import { type Job, Outbox } from "./link-outbox.ts";
import { LinkWindows } from "./link-windows.ts";
import type { RanksNative } from "./native.ts";

/** Moves jobs to peers in the order given; calls {@link LinkEngine} for what comes in. */
export interface Carrier {
  /** For people: `TCP` or what UCX chose. */
  readonly description: string;
  /** Opens an endpoint; the text tells peers how to reach it. */
  listen(): Promise<string>;
  /** Connects to all peers. @throws InfraError naming who was not reached */
  connect(cards: readonly (string | undefined)[]): Promise<void>;
  /** A window may be written by peers from now on. */
  register(number: number, data: number, bytes: number): void;
  unregister(number: number): void;
  enqueue(job: Job): void;
  /** Sends what is queued for a peer, as far as the connection takes it. */
  pump(peer: number): void;
  /** Makes progress without waiting, for carriers that have to be driven. */
  poll?(): boolean;
  /** True if the thread may sleep until {@link wakeFd} is readable. */
  arm?(): boolean;
  /** Readable when {@link poll} has something to do. */
  readonly wakeFd?: number;
  heartbeat(peer: number, activity: Uint8Array): void;
  /** Tells all peers, before what is still queued. */
  abort(reason: LinkAbort): void;
  /** Nothing is left to send. */
  readonly idle: boolean;
  /** Says goodbye to all peers; resolves when they have gone too or `limitMs` has passed. */
  goodbye(limitMs: number): Promise<void>;
  /** Ends the connections to a peer. */
  drop(peer: number): void;
  destroy(): void;
}

type PeerState = "open" | "left" | "dead";

interface Peer {
  state: PeerState;
  heardAt: number;
  /** Windows it has closed and this rank has not, or the other way round. */
  readonly closed: Set<number>;
}

/** The part of a link that does not depend on how bytes travel. */
export class LinkEngine {
  readonly windows: LinkWindows = new LinkWindows();
  readonly #native: RanksNative;
  readonly #start: LinkThreadStart;
  readonly #peers = new Map<number, Peer>();
  readonly #touched = new Set<number>();
  readonly #reasons: Uint8Array;
  #carrier: Carrier | undefined;
  #control: LinkControl | undefined;
  #outbox: Outbox | undefined;
  #ticker: NodeJS.Timeout | undefined;
  #tickAt = 0;
  #abortSent = false;
  /** Who waits for peers to close a window. */
  #closing: { readonly number: number; readonly done: () => void } | undefined;

  constructor(native: RanksNative, start: LinkThreadStart) {
    this.#native = native;
    this.#start = start;
    this.#reasons = new Uint8Array(start.shared);
    const now = performance.now();
    for (const peer of start.peers) {
      this.#peers.set(peer, { state: "open", heardAt: now, closed: new Set() });
    }
  }

  /** All peers are connected: from now on they hear from this rank, and it listens for them. */
  connected(carrier: Carrier): void {
    this.#carrier = carrier;
    const everyMs = Math.max(20, Math.min(500, this.#start.silenceMs / 6));
    const now = performance.now();
    this.#tickAt = now;
    for (const peer of this.#peers.values()) peer.heardAt = now;
    this.#ticker = setInterval(() => this.#tick(everyMs), everyMs);
  }

  /** There is a group: its control region and its outbox. */
  begin(control: number, group: number, outbox: number): void {
    this.#control = new LinkControl(this.#native, control, group, this.#start);
    this.#outbox = new Outbox(this.#native.layout, outbox);
    for (const [peer, { state }] of this.#peers) {
      this.#control.enter(peer);
      if (state !== "open") this.#control.setGone(peer, state);
    }
  }

  get outbox(): Outbox | undefined {
    return this.#outbox;
  }

  isOpen(peer: number): boolean {
    return this.#peers.get(peer)?.state === "open";
  }

  /** Hands on what was posted. Returns whether there was anything. */
  scan(): boolean {
    const outbox = this.#outbox;
    const carrier = this.#carrier;
    if (outbox === undefined || carrier === undefined) return false;
    for (const job of outbox.read()) {
      if (this.isOpen(job.peer) && !this.#abortSent) {
        carrier.enqueue(job);
        this.#touched.add(job.peer);
      } else outbox.complete(job.index);
    }
    const any = this.#touched.size > 0;
    for (const peer of this.#touched) carrier.pump(peer);
    this.#touched.clear();
    return any;
  }

  /** A job's source may change: it was handed to the system, or will never be sent. */
  complete(job: Job): void {
    this.#outbox?.complete(job.index);
  }

  // ---- What carriers call when something comes in.

  heard(peer: number): void {
    const entry = this.#peers.get(peer);
    if (entry !== undefined) entry.heardAt = performance.now();
  }

  signal(window: number, flag: number, low: number, high: number, add: boolean): void {
    const address = this.windows.flag(window, flag);
    if (address !== undefined) this.#control?.applySignal(address, low, high, add);
  }

  activity(peer: number, activity: Uint8Array): void {
    this.#control?.noteActivity(peer, activity);
  }

  aborted(reason: LinkAbort): void {
    this.#control?.abort(reason);
    // Peers have heard of it from the same rank; only this rank's own queue is left to drop.
    this.#closing?.done();
  }

  closed(peer: number, window: number): void {
    this.#peers.get(peer)?.closed.add(window);
    this.#checkClosing();
  }

  /** A peer is gone: in order, or by death, when `reason` says how it was noticed. */
  gone(peer: number, reason?: string): void {
    const entry = this.#peers.get(peer);
    if (entry === undefined || entry.state !== "open") return;
    entry.state = reason === undefined ? "left" : "dead";
    if (reason !== undefined) {
      const text = new TextEncoder().encode(reason).subarray(0, reasonBytes - 1);
      this.#reasons.set(text, reasonsOffset + peer * reasonBytes);
    }
    this.#control?.setGone(peer, entry.state);
    this.#carrier?.drop(peer);
    this.#checkClosing();
  }

  // ---- What the rank asks.

  abort(reason: LinkAbort): void {
    if (this.#abortSent) return;
    this.#abortSent = true;
    this.#carrier?.abort(reason);
    this.#closing?.done();
  }

  /** Closes a window: resolves when no peer can write into it any more. */
  async unregister(number: number): Promise<void> {
    const carrier = this.#carrier;
    if (carrier !== undefined && !this.#abortSent && this.#control?.aborted === undefined) {
      this.scan();
      for (const [peer, { state }] of this.#peers) {
        if (state !== "open") continue;
        carrier.enqueue(closeJob(peer, number));
        carrier.pump(peer);
      }
      await this.#waitClosed(number);
    }
    for (const { closed } of this.#peers.values()) closed.delete(number);
    carrier?.unregister(number);
    this.windows.unregister(number);
  }

  /** Sends what is left, says goodbye, ends everything. */
  async close(): Promise<void> {
    const carrier = this.#carrier;
    const orderly = this.#control?.aborted === undefined;
    const limitMs = orderly ? Math.min(this.#start.timeoutMs, 5000) : 200;
    const end = performance.now() + limitMs;
    while (orderly && carrier !== undefined && performance.now() < end) {
      this.scan();
      carrier.poll?.();
      if (carrier.idle && this.#outbox?.hasMore !== true) break;
      await new Promise((resolve) => setImmediate(resolve));
    }
    await carrier?.goodbye(limitMs);
    clearInterval(this.#ticker);
    carrier?.destroy();
  }

  #waitClosed(number: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>();
    const late = setTimeout(resolve, this.#start.timeoutMs);
    this.#closing = { number, done: resolve };
    this.#checkClosing();
    return promise.finally(() => {
      clearTimeout(late);
      this.#closing = undefined;
    });
  }

  #checkClosing(): void {
    const closing = this.#closing;
    if (closing === undefined) return;
    for (const { state, closed } of this.#peers.values()) {
      if (state === "open" && !closed.has(closing.number)) return;
    }
    closing.done();
  }

  #tick(everyMs: number): void {
    const now = performance.now();
    // If this thread itself was stopped, what peers have said lies unread in its sockets.
    const late = now - this.#tickAt > 2 * everyMs + 50;
    this.#tickAt = now;
    const reason = this.#control?.aborted;
    // Whoever of this host saw the failure may have died before it could tell the others.
    if (reason !== undefined && !this.#abortSent) this.abort(reason);
    const activity = this.#control?.ownActivity() ?? new Uint8Array(0);
    for (const [peer, { state, heardAt }] of this.#peers) {
      if (state !== "open") continue;
      this.#carrier?.heartbeat(peer, activity);
      if (late || now - heardAt <= this.#start.silenceMs) continue;
      const silent = Math.round(now - heardAt);
      this.gone(
        peer,
        `no sign of life over ${this.#carrier?.description} for ${silent} ms: the link is down, ` +
          "or the process is stopped",
      );
    }
  }
}

function closeJob(peer: number, window: number): Job {
  const none = { offset: 0, low: 0, high: 0, source: 0, bytes: 0, index: -1, sent: 0 };
  return { kind: "close", peer, window, ...none };
}
