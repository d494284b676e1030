// A link over UCX: RDMA where there is any, else what UCX has. Puts and signals are active
// messages: small payloads come with the message, large ones are fetched by UCX straight into
// window memory. Liveness, aborts and goodbyes go over the TCP link beside it, which also proves
// the secret; so a dead peer is noticed by the system at once, whatever UCX thinks of it.

import { randomBytes } from "node:crypto";
import { networkInterfaces } from "node:os";
import { addressOf } from "@open-infra/jit";
import type { LinkAbort } from "./link-control.ts";
import type { Carrier, LinkEngine } from "./link-engine.ts";
import type { LinkThreadStart } from "./link-messages.ts";
import type { Job } from "./link-outbox.ts";
import { MemoryViews } from "./memory-views.ts";
import { TcpCarrier } from "./tcp-carrier.ts";
import { directBytes, frameKinds, headerBytes, writeHeader } from "./tcp-frames.ts";
import {
  batchLimit,
  messageHeaderBytes,
  messageKinds,
  messageLimit,
  UcxInbox,
} from "./ucx-inbox.ts";
import { hasRdma, type UcxRequest, UcxWorker } from "./ucx-library.ts";

/** Messages that may be under way to one peer. */
const inFlightLimit = 64;

interface Peer {
  readonly queue: Job[];
  /** Under way, oldest first. */
  readonly sent: {
    readonly request: UcxRequest;
    /** What UCX may still read. */
    readonly kept: readonly Uint8Array[];
    /** Puts that have left whole once this has. */
    readonly jobs: Job[];
  }[];
  token: bigint;
  sequence: number;
}

/** What a rank publishes of its endpoint. */
interface Card {
  readonly tcp: string;
  readonly address: string;
  readonly token: string;
}

/** Moves jobs by UCX. */
export class UcxCarrier implements Carrier {
  readonly description: string;
  readonly #engine: LinkEngine;
  readonly #start: LinkThreadStart;
  readonly #tcp: TcpCarrier;
  readonly #worker: UcxWorker;
  readonly #inbox: UcxInbox;
  readonly #views = new MemoryViews();
  readonly #token = randomBytes(8).readBigUInt64LE();
  readonly #peers = new Map<number, Peer>();
  #open = true;

  /** @throws UcxMissingError, UcxError */
  constructor(engine: LinkEngine, start: LinkThreadStart) {
    this.#engine = engine;
    this.#start = start;
    this.#tcp = new TcpCarrier(engine, start);
    const settings = chooseSettings(start);
    this.description = `UCX (${settings.TLS ?? process.env.UCX_TLS ?? "all transports"})`;
    this.#inbox = new UcxInbox(engine, this.#token);
    const transports = settings.TLS ?? process.env.UCX_TLS ?? "all";
    const handlesErrors = !/sysv|posix|sm|mm|cma/.test(transports);
    this.#worker = new UcxWorker(settings, this.#inbox, handlesErrors);
    this.#inbox.worker = this.#worker;
  }

  get wakeFd(): number {
    return this.#worker.eventFd;
  }

  async listen(): Promise<string> {
    const card: Card = {
      tcp: await this.#tcp.listen(),
      address: this.#worker.address.toBase64(),
      token: `${this.#token}`,
    };
    return JSON.stringify(card);
  }

  async connect(cards: readonly (string | undefined)[]): Promise<void> {
    const parsed = cards.map((card) =>
      card === undefined ? undefined : (JSON.parse(card) as Card),
    );
    await this.#tcp.connect(parsed.map((card) => card?.tcp));
    for (const peer of this.#start.peers) {
      const card = parsed[peer] as Card;
      this.#worker.connect(peer, Uint8Array.fromBase64(card.address));
      this.#peers.set(peer, { queue: [], sent: [], token: BigInt(card.token), sequence: 0 });
    }
  }

  register(): void {}

  unregister(): void {}

  enqueue(job: Job): void {
    const peer = this.#peers.get(job.peer);
    if (peer === undefined) this.#engine.complete(job);
    else peer.queue.push(job);
  }

  pump(rank: number): void {
    const peer = this.#peers.get(rank);
    if (peer === undefined) return;
    try {
      while (peer.queue.length > 0 && peer.sent.length < inFlightLimit) {
        const job = peer.queue[0] as Job;
        if (isSmall(job)) this.#sendBatch(rank, peer);
        else this.#sendPiece(rank, peer, job);
      }
    } catch (error) {
      this.#engine.gone(rank, `UCX: ${(error as Error).message}`);
    }
  }

  poll(): boolean {
    if (!this.#open) return false;
    let busy = false;
    for (let i = 0; i < 64 && this.#worker.progress(); i++) busy = true;
    if (this.#inbox.settle()) busy = true;
    for (const [rank, peer] of this.#peers) {
      if (this.#reap(rank, peer)) busy = true;
    }
    return busy;
  }

  arm(): boolean {
    return !this.#open || this.#worker.arm();
  }

  heartbeat(peer: number, activity: Uint8Array): void {
    this.#tcp.heartbeat(peer, activity);
  }

  abort(reason: LinkAbort): void {
    this.#tcp.abort(reason);
    for (const peer of this.#peers.values()) this.#drop(peer);
  }

  get idle(): boolean {
    for (const { queue, sent } of this.#peers.values()) {
      if (queue.length > 0 || sent.length > 0) return false;
    }
    return true;
  }

  async goodbye(limitMs: number): Promise<void> {
    const end = performance.now() + limitMs;
    // A message that has left may still be in UCX's own buffers; the goodbye must not overtake it.
    const flushes = [...this.#peers.keys()].map((peer) => this.#worker.flush(peer));
    let open = flushes.filter((request) => request !== undefined);
    while (open.length > 0 && performance.now() < end) {
      this.poll();
      open = open.filter((request) => !this.#endedQuietly(request));
      await new Promise((resolve) => setImmediate(resolve));
    }
    // Others may need this side's help to flush theirs.
    let talking = true;
    const driver = (): void => {
      if (!talking) return;
      this.poll();
      setTimeout(driver, 1);
    };
    driver();
    await this.#tcp.goodbye(limitMs);
    talking = false;
  }

  drop(rank: number): void {
    this.#tcp.drop(rank);
    const peer = this.#peers.get(rank);
    if (peer === undefined) return;
    this.#drop(peer);
    this.#peers.delete(rank);
    if (this.#open) this.#worker.disconnect(rank);
    for (const { request, jobs } of peer.sent) {
      this.#endedQuietly(request);
      for (const job of jobs) this.#engine.complete(job);
    }
  }

  destroy(): void {
    this.#tcp.destroy();
    if (!this.#open) return;
    this.#open = false;
    this.#worker.destroy();
  }

  /** Small jobs at the head of the queue, in one message. */
  #sendBatch(rank: number, peer: Peer): void {
    const { queue } = peer;
    let count = 0;
    let bytes = 0;
    for (; count < queue.length; count++) {
      const job = queue[count] as Job;
      const more = headerBytes + job.bytes;
      if (!isSmall(job) || bytes + more > batchLimit) break;
      bytes += more;
    }
    const block = new Uint8Array(bytes);
    const view = new DataView(block.buffer);
    let at = 0;
    for (const job of queue.splice(0, count)) {
      const { window, offset, high } = job;
      const isPut = job.kind === "put";
      const low = isPut ? job.bytes : job.low;
      writeHeader(view, at, { kind: frameKinds[job.kind], window, offset, low, high });
      at += headerBytes;
      if (isPut) block.set(this.#views.at(job.source, job.bytes), at);
      at += job.bytes;
      this.#engine.complete(job);
    }
    const header = this.#header(peer, { kind: messageKinds.batch, window: 0, offset: 0, bytes });
    const request = this.#worker.send(rank, header, addressOf(block), bytes);
    if (request !== undefined) peer.sent.push({ request, kept: [header, block], jobs: [] });
  }

  #sendPiece(rank: number, peer: Peer, job: Job): void {
    const bytes = Math.min(job.bytes - job.sent, messageLimit);
    const offset = job.offset + job.sent;
    const head = { kind: messageKinds.put, window: job.window, offset, bytes };
    const header = this.#header(peer, head);
    const source = job.source + job.sent;
    job.sent += bytes;
    const left = job.sent >= job.bytes ? [job] : [];
    if (left.length > 0) peer.queue.shift();
    const request = this.#worker.send(rank, header, source, bytes);
    if (request !== undefined) {
      peer.sent.push({ request, kept: [header], jobs: left });
      return;
    }
    // It has left at once, but pieces of it that are older may not have.
    const last = job.bytes > messageLimit ? peer.sent.at(-1) : undefined;
    for (const done of left) {
      if (last === undefined) this.#engine.complete(done);
      else last.jobs.push(done);
    }
  }

  #header(
    peer: Peer,
    head: { kind: number; window: number; offset: number; bytes: number },
  ): Uint8Array {
    const header = new Uint8Array(messageHeaderBytes);
    const view = new DataView(header.buffer);
    writeHeader(view, 0, { ...head, low: head.bytes, high: 0 });
    view.setUint32(24, peer.sequence++ >>> 0, true);
    view.setInt32(28, this.#start.rank, true);
    view.setBigUint64(32, peer.token, true);
    return header;
  }

  #reap(rank: number, peer: Peer): boolean {
    let any = false;
    try {
      while (peer.sent.length > 0) {
        const { request, jobs } = peer.sent[0] as Peer["sent"][number];
        if (!this.#worker.ended(request)) break;
        peer.sent.shift();
        for (const job of jobs) this.#engine.complete(job);
        any = true;
      }
    } catch (error) {
      for (const job of peer.sent.shift()?.jobs ?? []) this.#engine.complete(job);
      this.#engine.gone(rank, `UCX: ${(error as Error).message}`);
      return true;
    }
    if (any && peer.queue.length > 0) this.pump(rank);
    return any;
  }

  #drop(peer: Peer): void {
    for (const job of peer.queue.splice(0)) this.#engine.complete(job);
  }

  #endedQuietly(request: UcxRequest): boolean {
    try {
      return this.#worker.ended(request);
    } catch {
      return true;
    }
  }
}

/** Copying it costs less than a message of its own. */
function isSmall(job: Job): boolean {
  return job.kind !== "put" || job.bytes < directBytes;
}

/** Transports by what was measured: automatic choice is slow where TCP is among the candidates. */
function chooseSettings({ peers, host, sharesHost }: LinkThreadStart): Record<string, string> {
  if (process.env.UCX_TLS !== undefined) return {};
  const here = peers.filter((peer) => sharesHost[peer]).length;
  if (here === peers.length) return { TLS: "sysv,cma,self" };
  if (hasRdma()) return {};
  const device = deviceOf(host);
  return { TLS: "tcp", ...(device !== undefined && { NET_DEVICES: device }) };
}

function deviceOf(host: string): string | undefined {
  for (const [name, addresses] of Object.entries(networkInterfaces())) {
    if (addresses?.some(({ address }) => address === host)) return name;
  }
  return undefined;
}
