// Messages between ranks: any size, in order for each pair and tag, for control and for tensors of
// pipelines. Each rank has a ring of bytes for each peer in the system window; a sender writes as
// much as there is room for and raises a counter, a receiver takes it out and raises another. So
// memory is bounded and a sender waits for a receiver that does not take.

import { InputError } from "@open-infra/errors";
import { GroupClosedError } from "./errors.ts";
import { EventDescriptor } from "./event-descriptor.ts";
import { outcome } from "./failure.ts";
import { Incoming, type Message } from "./message-queue.ts";
import { MessageRings } from "./message-rings.ts";
import { type RanksNative, Words } from "./native.ts";
import type { Window } from "./window.ts";

/** What messages need of their group. */
export interface MessageHost {
  readonly native: RanksNative;
  /** The native `oi_group`. */
  readonly address: number;
  readonly rank: number;
  readonly size: number;
  readonly timeoutMs: number;
  /** The system window. */
  readonly window: Window;
  /** Throws the group's failure. */
  check(): void;
}

/** What a message is for, in errors. */
export interface Label {
  readonly operation: string;
  readonly awaited: string;
}

/** Somebody who waits for a message, or for one to be sent. */
interface Waiter {
  readonly peer: number;
  readonly operation: string;
  readonly awaited: string;
  /** It waits for room, not for a message. */
  readonly isSend: boolean;
  readonly deadline: number;
  readonly since: number;
  isDone(): boolean;
  /** For those that do not block. */
  readonly settled: PromiseWithResolvers<void> | undefined;
}

/** Bytes of messages that nobody asked for yet, from each peer, before it has to wait. */
const unclaimedBytesMax = 64 * 1024 * 1024;
/** Flags that one wait looks at. */
const awaitedMax = 30;
/** How long a blocking wait sleeps before it looks at all again; less where it cannot see all. */
const sliceMs = 1000;
const crowdedSliceMs = 5;

/** One rank's messages; made by the group. */
export class Messages implements Disposable {
  readonly #host: MessageHost;
  readonly #rings: MessageRings;
  readonly #incoming: Incoming[];
  readonly #waiters = new Set<Waiter>();
  #watch: { readonly address: number; readonly event: EventDescriptor } | undefined;
  #driving = false;
  #open = true;

  constructor(host: MessageHost) {
    this.#host = host;
    this.#rings = new MessageRings(host);
    this.#incoming = Array.from({ length: host.size }, () => new Incoming(unclaimedBytesMax));
  }

  /** Blocks until all bytes are in the peer's ring or taken from it. */
  sendSync(peer: number, tag: number, bytes: Uint8Array): void {
    this.#block(this.#startSend(peer, tag, bytes, undefined));
  }

  /** The bytes must not change before it resolves. */
  async send(peer: number, tag: number, bytes: Uint8Array, label?: Label): Promise<void> {
    const settled = Promise.withResolvers<void>();
    const waiter = this.#startSend(peer, tag, bytes, settled, label);
    if (!waiter.isDone()) await this.#drive(waiter);
  }

  /** Blocks until a message with this tag is here. */
  recvSync(peer: number, tag: number): Uint8Array<ArrayBuffer> {
    const { waiter, message } = this.#startReceive(peer, tag, undefined);
    this.#block(waiter);
    return message.bytes as Uint8Array<ArrayBuffer>;
  }

  /** The next message with this tag if it is here; what can be moved is moved. */
  tryRecv(peer: number, tag: number): Uint8Array<ArrayBuffer> | undefined {
    this.#expect(peer, tag);
    this.#move();
    return (this.#incoming[peer] as Incoming).take(tag);
  }

  async recv(peer: number, tag: number, label?: Label): Promise<Uint8Array<ArrayBuffer>> {
    const settled = Promise.withResolvers<void>();
    const { waiter, message } = this.#startReceive(peer, tag, settled, label);
    if (!waiter.isDone()) await this.#drive(waiter);
    return message.bytes as Uint8Array<ArrayBuffer>;
  }

  #startSend(
    peer: number,
    tag: number,
    bytes: Uint8Array,
    settled: Waiter["settled"],
    label?: Label,
  ): Waiter {
    this.#expect(peer, tag);
    const sending = this.#rings.queue(peer, tag, bytes);
    this.#move();
    const awaited = `room for a message of ${bytes.length} bytes with tag ${tag}`;
    const isDone = (): boolean => sending.done;
    const { operation, awaited: what } = label ?? { operation: "send", awaited };
    return this.#waiter({ peer, operation, awaited: what, isSend: true, isDone, settled });
  }

  #startReceive(
    peer: number,
    tag: number,
    settled: Waiter["settled"],
    label: Label = { operation: "recv", awaited: `a message with tag ${tag}` },
  ): { waiter: Waiter; message: Message } {
    this.#expect(peer, tag);
    const incoming = this.#incoming[peer] as Incoming;
    const message = incoming.claim(tag);
    this.#move();
    const isDone = (): boolean => message.bytes !== undefined;
    return { waiter: this.#waiter({ peer, ...label, isSend: false, isDone, settled }), message };
  }

  #waiter(facts: Omit<Waiter, "since" | "deadline">): Waiter {
    const since = performance.now();
    return { ...facts, since, deadline: since + this.#host.timeoutMs };
  }

  #expect(peer: number, tag: number): void {
    const { size } = this.#host;
    if (!Number.isInteger(peer) || peer < 0 || peer >= size) {
      throw new InputError("peer", `${peer}`, `0 to ${size - 1}`);
    }
    if (!Number.isInteger(tag) || tag < -(2 ** 31) || tag >= 2 ** 31) {
      throw new InputError("tag", `${tag}`, "an integer of 32 bits");
    }
  }

  /** Moves what can be moved in both directions. Returns whether anything did. */
  #move(): boolean {
    let moved = false;
    for (let peer = 0; peer < this.#host.size; peer++) {
      const incoming = this.#incoming[peer] as Incoming;
      if (this.#rings.push(peer)) moved = true;
      if (this.#rings.pull(peer, incoming)) moved = true;
    }
    if (moved) this.#settle();
    return moved;
  }

  #settle(): void {
    for (const waiter of this.#waiters) {
      if (!waiter.isDone()) continue;
      this.#waiters.delete(waiter);
      waiter.settled?.resolve();
    }
  }

  #block(waiter: Waiter): void {
    const { window, native } = this.#host;
    while (!waiter.isDone()) {
      if (this.#move()) continue;
      this.#look(waiter);
      native.invoke("oi_group_begin", this.#host.address, native.name(waiter.operation));
      const left = Math.max(waiter.deadline - performance.now(), 0);
      const flags = this.#awaitedFlags(waiter);
      const slice = flags.length > awaitedMax ? crowdedSliceMs : sliceMs;
      window.waitAny(flags.slice(0, awaitedMax), Math.min(left, slice));
    }
  }

  /** What may let a waiter go on: its own peer, or any other, whose ring must be emptied. */
  #awaitedFlags({ peer, isSend }: Waiter): { flag: number; value: number; peer: number }[] {
    const { size } = this.#host;
    const list = [this.#rings.next(peer, isSend)];
    for (let other = 0; other < size; other++) {
      if (other !== peer || isSend) list.push(this.#rings.next(other, false));
    }
    return list;
  }

  /** Fails the group if the waiter's peer, or the group, or its time is gone. */
  #look({ peer, awaited, operation, deadline, since }: Waiter): void {
    this.#host.check();
    const { native, address } = this.#host;
    let code = native.invoke("oi_group_look", address, peer);
    if (code === outcome.arrived && performance.now() >= deadline) code = outcome.timedOut;
    if (code === outcome.arrived) return;
    // What came in before its sender left still counts.
    if (code === outcome.peerDead && this.#move()) return;
    const waitedNs = Math.round((performance.now() - since) * 1e6);
    const text = native.text(awaited, 90);
    const name = native.name(operation);
    native.invoke("oi_group_fail", address, code, peer, waitedNs, text, name);
    this.#host.check();
  }

  #drive(waiter: Waiter): Promise<void> {
    this.#waiters.add(waiter);
    if (!this.#driving) {
      this.#driving = true;
      void this.#driveAll();
    }
    return (waiter.settled as PromiseWithResolvers<void>).promise;
  }

  /** Runs as long as anybody waits: sleeps until something is signalled, then moves it. */
  async #driveAll(): Promise<void> {
    let failure: unknown;
    try {
      while (this.#waiters.size > 0) {
        const { address, event } = this.#openWatch();
        const { native } = this.#host;
        if (address !== 0) native.invoke("oi_watch_arm", address);
        const moved = this.#move();
        this.#settle();
        const sleeps = !moved && this.#waiters.size > 0;
        const signalled = sleeps ? event.next() : undefined;
        if (address !== 0) native.invoke("oi_watch_go", address, sleeps ? 1 : 0);
        await signalled;
        if (!this.#open) break;
        if (sleeps && !this.#move()) for (const each of this.#waiters) this.#look(each);
      }
    } catch (error) {
      failure = error;
    }
    this.#driving = false;
    for (const { settled } of this.#waiters) {
      settled?.reject(failure ?? new GroupClosedError("the group"));
    }
    this.#waiters.clear();
  }

  #openWatch(): { readonly address: number; readonly event: EventDescriptor } {
    if (this.#watch !== undefined) return this.#watch;
    const { native, address } = this.#host;
    const words = new Words([address], 2);
    const made = native.call("oi_watch_create", words) === 0;
    this.#watch = {
      address: made ? words.at(0) : 0,
      event: new EventDescriptor(made ? words.at(1) : -1),
    };
    return this.#watch;
  }

  [Symbol.dispose](): void {
    this.#open = false;
    const watch = this.#watch;
    this.#watch = undefined;
    if (watch === undefined) return;
    watch.event[Symbol.dispose]();
    const { address } = watch;
    if (address !== 0) this.#host.native.invoke("oi_watch_free", address);
  }
}
