// A link over plain TCP. Each rank connects to each peer for what that peer has to send, so a pair
// has two connections, one for each direction, and each is read straight into windows by the end
// that made it.

import type { Socket } from "node:net";
import { InfraError } from "@open-infra/errors";
import { encodeAbort, type LinkAbort } from "./link-control.ts";
import type { Carrier, LinkEngine } from "./link-engine.ts";
import type { LinkThreadStart } from "./link-messages.ts";
import type { Job } from "./link-outbox.ts";
import { connectGuarded } from "./tcp-connect.ts";
import { FrameSink } from "./tcp-frames.ts";
import { GuardedServer } from "./tcp-guard.ts";
import { TcpSender } from "./tcp-sender.ts";

/**
 * How long the end of the way to a peer may come before the end of the way from it, on which its
 * last words are; a packet that was lost takes a while.
 */
const lingerMs = 2000;

/** What a rank publishes of its endpoint. */
interface Card {
  readonly host: string;
  readonly port: number;
}

/** Moves jobs over two TCP connections a pair. */
export class TcpCarrier implements Carrier {
  readonly description = "TCP";
  readonly #engine: LinkEngine;
  readonly #start: LinkThreadStart;
  readonly #senders = new Map<number, TcpSender>();
  readonly #outbound = new Map<number, Socket>();
  readonly #inbound = new Map<number, Socket>();
  readonly #arrived = Promise.withResolvers<void>();
  #guard: GuardedServer | undefined;
  #goneAll: (() => void) | undefined;

  constructor(engine: LinkEngine, start: LinkThreadStart) {
    this.#engine = engine;
    this.#start = start;
  }

  async listen(): Promise<string> {
    const { host, secret, rank } = this.#start;
    this.#guard = await GuardedServer.listen({
      what: `the link of rank ${rank}`,
      host,
      port: 0,
      secret,
      purpose: "link",
      onConnection: (socket, hello) => this.#accept(socket, hello),
    });
    return JSON.stringify({ host, port: this.#guard.port } satisfies Card);
  }

  async connect(cards: readonly (string | undefined)[]): Promise<void> {
    const { peers, names, timeoutMs, secret, rank } = this.#start;
    const inbound = peers.map(async (peer) => {
      const { host, port } = JSON.parse(cards[peer] ?? "{}") as Card;
      const what = `the link of ${names[peer]}`;
      const options = {
        what,
        host,
        port,
        secret,
        purpose: "link",
        hello: rank,
        timeoutMs,
      } as const;
      const socket = await connectGuarded(options, (made) => this.#reader(peer, made));
      this.#watch(socket, peer, this.#inbound, 0);
    });
    let late: NodeJS.Timeout | undefined;
    const limit = new Promise<never>((_, reject) => {
      late = setTimeout(() => {
        const missing = peers.filter((peer) => !this.#outbound.has(peer));
        const who = missing.map((peer) => names[peer]).join(", ");
        reject(new InfraError("unreachable", `${who} did not connect back in ${timeoutMs} ms`));
      }, timeoutMs);
    });
    if (peers.length === 0) this.#arrived.resolve();
    try {
      await Promise.race([Promise.all([...inbound, this.#arrived.promise]), limit]);
    } finally {
      clearTimeout(late);
    }
    // All are here: who comes now has no business with this rank.
    this.#guard?.stopListening();
  }

  register(): void {}

  unregister(): void {}

  enqueue(job: Job): void {
    const sender = this.#senders.get(job.peer);
    if (sender === undefined) this.#engine.complete(job);
    else sender.enqueue(job);
  }

  pump(peer: number): void {
    this.#senders.get(peer)?.pump();
  }

  heartbeat(peer: number, activity: Uint8Array): void {
    this.#senders.get(peer)?.heartbeat(activity);
  }

  abort(reason: LinkAbort): void {
    const bytes = encodeAbort(reason);
    for (const sender of this.#senders.values()) sender.abort(bytes);
  }

  get idle(): boolean {
    for (const sender of this.#senders.values()) if (!sender.idle) return false;
    return true;
  }

  async goodbye(limitMs: number): Promise<void> {
    for (const sender of this.#senders.values()) sender.goodbye();
    if (this.#inbound.size === 0) return;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#goneAll = resolve;
    const late = setTimeout(resolve, limitMs);
    await promise;
    clearTimeout(late);
  }

  drop(peer: number): void {
    this.#senders.get(peer)?.end();
    this.#senders.delete(peer);
    // What is already with the socket, such as an abort, still goes out.
    this.#outbound.get(peer)?.destroySoon();
    this.#inbound.get(peer)?.destroy();
    this.#inbound.delete(peer);
    if (this.#inbound.size === 0) this.#goneAll?.();
  }

  destroy(): void {
    for (const socket of [...this.#inbound.values(), ...this.#outbound.values()]) socket.destroy();
    this.#guard?.close();
  }

  #accept(socket: Socket, hello: number): void {
    if (!this.#start.peers.includes(hello) || this.#outbound.has(hello)) {
      socket.destroy();
      return;
    }
    // The peer only ever listens on this connection; what it says is dropped.
    socket.on("data", () => {});
    const engine = this.#engine;
    this.#senders.set(hello, new TcpSender(socket, (job) => engine.complete(job)));
    this.#watch(socket, hello, this.#outbound, lingerMs);
    if (this.#outbound.size === this.#start.peers.length) this.#arrived.resolve();
  }

  #reader(
    peer: number,
    socket: Socket,
  ): { onBytes(bytes: Uint8Array): void; buffer(): Uint8Array } {
    const sink = new FrameSink(this.#engine, peer);
    return {
      onBytes: (bytes) => {
        try {
          sink.onBytes(bytes);
        } catch (error) {
          socket.destroy();
          this.#engine.gone(peer, `it broke the protocol: ${(error as Error).message}`);
        }
      },
      buffer: () => sink.buffer(),
    };
  }

  /** A connection that ends without a goodbye is a peer that died. */
  #watch(socket: Socket, peer: number, into: Map<number, Socket>, waitMs: number): void {
    into.set(peer, socket);
    let problem = "";
    socket.on("error", (error: NodeJS.ErrnoException) => {
      problem = ` (${error.code ?? error.message})`;
    });
    const ended = (): void => {
      if (into === this.#outbound) this.#senders.get(peer)?.end();
      setTimeout(() => {
        this.#engine.gone(peer, `the connection ended without a goodbye${problem}`);
      }, waitMs).unref();
    };
    socket.once("end", ended);
    socket.once("close", ended);
    if (socket.destroyed) ended();
  }
}
