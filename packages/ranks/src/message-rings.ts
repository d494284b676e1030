// The bytes of messages under way: a ring in the receiver's system window for each sender, two
// counters for each pair. A message is 16 bytes of head (tag, 4 unused, length) and its bytes,
// padded to 16; it may be larger than the ring and is then taken out while it comes in.

import type { Incoming } from "./message-queue.ts";
import type { MessageHost } from "./messages.ts";

const headBytes = 16;
const alignBytes = 16;
/** Flags of barriers, which come first: two lanes of 32 steps and one a rank. */
const barrierFlags = (size: number): number => 2 * (32 + size);

/** Bytes of one ring: memory that is touched only by pairs that talk. */
export function ringBytes(size: number): number {
  const wanted = size <= 16 ? 262_144 : 4_194_304 / size;
  return Math.max(4096, 2 ** Math.floor(Math.log2(wanted)));
}

/** What the system window is made of, for a world of `size` ranks. */
export function systemWindow(size: number): { name: string; bytes: number; flags: number } {
  return { name: "system", bytes: size * ringBytes(size), flags: barrierFlags(size) + 2 * size };
}

/** A message on its way out. */
export interface Sending {
  readonly head: Uint8Array;
  readonly bytes: Uint8Array;
  sent: number;
  done: boolean;
}

/** A message on its way in. */
interface Receiving {
  readonly tag: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  got: number;
}

interface Pair {
  readonly queue: Sending[];
  /** Bytes written to the peer's ring, and taken from this rank's. */
  written: number;
  taken: number;
  receiving: Receiving | undefined;
  /** Kept as they were put until the peer has taken them, where a link reads them later. */
  readonly staging: Uint8Array | undefined;
}

const padded = (bytes: number): number => Math.ceil(bytes / alignBytes) * alignBytes;

/** Both directions of all pairs that one rank is part of. */
export class MessageRings {
  readonly #host: MessageHost;
  readonly #room: number;
  readonly #pairs: (Pair | undefined)[] = [];
  readonly #data: Uint8Array;
  /** A whole multiple of 16 bytes at the end of a message, where it has fewer. */
  readonly #tail = new Uint8Array(alignBytes);

  constructor(host: MessageHost) {
    this.#host = host;
    this.#room = ringBytes(host.size);
    this.#data = host.window.data;
  }

  /** Puts a message behind those that are on their way to a peer. */
  queue(peer: number, tag: number, bytes: Uint8Array): Sending {
    const head = new Uint8Array(headBytes);
    const view = new DataView(head.buffer);
    view.setInt32(0, tag, true);
    view.setFloat64(8, bytes.length, true);
    const sending: Sending = { head, bytes, sent: 0, done: false };
    this.#pair(peer).queue.push(sending);
    return sending;
  }

  /** Writes what there is room for. Returns whether anything was written. */
  push(peer: number): boolean {
    const pair = this.#pairs[peer];
    if (pair === undefined || pair.queue.length === 0) return false;
    const before = pair.written;
    const limit = this.#host.window.flag(this.#takenFlag(peer)) + this.#room;
    while (pair.queue.length > 0 && pair.written < limit) {
      const sending = pair.queue[0] as Sending;
      this.#write(peer, pair, sending, limit);
      if (sending.sent < headBytes + padded(sending.bytes.length)) break;
      sending.done = true;
      pair.queue.shift();
    }
    if (pair.written === before) return false;
    this.#host.window.signal(peer, this.#writtenFlag(this.#host.rank), pair.written);
    return true;
  }

  /** Takes out what has come in. Returns whether anything was taken. */
  pull(peer: number, incoming: Incoming): boolean {
    const there = this.#host.window.flag(this.#writtenFlag(peer));
    if (there === 0) return false;
    const pair = this.#pair(peer);
    const before = pair.taken;
    while (pair.taken < there) {
      if (pair.receiving === undefined && !this.#readHead(peer, pair, incoming)) break;
      const receiving = pair.receiving as Receiving | undefined;
      if (receiving === undefined) break;
      this.#read(peer, pair, receiving, there);
      if (!isComplete(receiving)) break;
      pair.receiving = undefined;
      incoming.deliver(receiving.tag, receiving.bytes);
    }
    if (pair.taken === before) return false;
    this.#host.window.signal(peer, this.#takenFlag(this.#host.rank), pair.taken);
    return true;
  }

  /** The flag and the value that say there is more room, or more bytes, than now. */
  next(peer: number, forRoom: boolean): { flag: number; value: number; peer: number } {
    const pair = this.#pairs[peer];
    const { written, taken } = pair ?? { written: 0, taken: 0 };
    if (!forRoom) return { flag: this.#writtenFlag(peer), value: taken + 1, peer };
    return { flag: this.#takenFlag(peer), value: written - this.#room + 1, peer };
  }

  #pair(peer: number): Pair {
    let pair = this.#pairs[peer];
    if (pair === undefined) {
      const staging = this.#host.window.isMapped(peer) ? undefined : new Uint8Array(this.#room);
      pair = { queue: [], written: 0, taken: 0, receiving: undefined, staging };
      this.#pairs[peer] = pair;
    }
    return pair;
  }

  #writtenFlag(sender: number): number {
    return barrierFlags(this.#host.size) + sender;
  }

  #takenFlag(receiver: number): number {
    return barrierFlags(this.#host.size) + this.#host.size + receiver;
  }

  #write(peer: number, pair: Pair, sending: Sending, limit: number): void {
    const { head, bytes } = sending;
    const whole = bytes.length - (bytes.length % alignBytes);
    if (sending.sent === 0) sending.sent += this.#put(peer, pair, head, limit);
    while (sending.sent >= headBytes && sending.sent < headBytes + whole) {
      const at = sending.sent - headBytes;
      const count = this.#put(peer, pair, bytes.subarray(at, whole), limit);
      if (count === 0) return;
      sending.sent += count;
    }
    if (sending.sent === headBytes + whole && whole < bytes.length) {
      this.#tail.fill(0);
      this.#tail.set(bytes.subarray(whole));
      sending.sent += this.#put(peer, pair, this.#tail, limit);
    }
  }

  /** Puts the first part of `bytes` that fits without a turn of the ring; a multiple of 16. */
  #put(peer: number, pair: Pair, bytes: Uint8Array, limit: number): number {
    const at = pair.written % this.#room;
    const count = Math.min(bytes.length, limit - pair.written, this.#room - at);
    if (count <= 0) return 0;
    let source = bytes.subarray(0, count);
    if (pair.staging !== undefined) {
      pair.staging.set(source, at);
      source = pair.staging.subarray(at, at + count);
    }
    this.#host.window.put(peer, this.#host.rank * this.#room + at, source);
    pair.written += count;
    return count;
  }

  #readHead(peer: number, pair: Pair, incoming: Incoming): boolean {
    const at = peer * this.#room + (pair.taken % this.#room);
    const view = new DataView(this.#data.buffer, this.#data.byteOffset + at, headBytes);
    const tag = view.getInt32(0, true);
    const length = view.getFloat64(8, true);
    if (!incoming.accepts(tag, length)) return false;
    pair.receiving = { tag, bytes: new Uint8Array(length), got: 0 };
    pair.taken += headBytes;
    return true;
  }

  #read(peer: number, pair: Pair, receiving: Receiving, there: number): void {
    const { bytes } = receiving;
    while (!isComplete(receiving) && pair.taken < there) {
      const at = pair.taken % this.#room;
      const left = padded(bytes.length) - receiving.got;
      const count = Math.min(left, there - pair.taken, this.#room - at);
      const start = peer * this.#room + at;
      const real = Math.min(count, bytes.length - receiving.got);
      bytes.set(this.#data.subarray(start, start + real), receiving.got);
      receiving.got += count;
      pair.taken += count;
    }
  }
}

function isComplete(receiving: Receiving | undefined): boolean {
  return receiving !== undefined && receiving.got >= padded(receiving.bytes.length);
}
