// What a link tells the ranks of its host through the control region: who is gone, what a peer is
// in, that the group ends. And what it tells peers of this rank.

import { addressOf, viewOf } from "@open-infra/jit";
import { Control, controlBytes, type RankState } from "./control.ts";
import { cString, type RanksNative, Words } from "./native.ts";

/** An activity on the wire: operations begun, the awaited rank, the operation's name. */
export const activityBytes = 64;

/** Why the group ends, as a link carries it. */
export interface LinkAbort {
  readonly code: number;
  readonly culprit: number;
  readonly reporter: number;
  readonly text: string;
}

/** A view of the control region for a link's thread. */
export class LinkControl {
  readonly #native: RanksNative;
  readonly #control: Control;
  readonly #view: DataView;
  readonly #address: number;
  readonly #rank: number;
  readonly #size: number;
  readonly #linked: Int32Array;
  readonly #scratch = new BigInt64Array(1);
  readonly #signal = new Words([0, 0, 0, 0]);

  constructor(
    native: RanksNative,
    address: number,
    group: number,
    { rank, size }: { readonly rank: number; readonly size: number },
  ) {
    this.#native = native;
    const pointer = viewOf(group + native.layout.groupLinked, 8);
    const linked = new DataView(pointer.buffer, pointer.byteOffset, 8).getBigInt64(0, true);
    const states = viewOf(Number(linked), size * 4);
    this.#linked = new Int32Array(states.buffer, states.byteOffset, size);
    this.#address = address;
    this.#rank = rank;
    this.#size = size;
    const bytes = viewOf(address, controlBytes(native, size));
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#control = new Control(native, { address, view: () => bytes }, size);
  }

  /** Raises a flag of this rank and wakes who waits for it. */
  applySignal(flag: number, low: number, high: number, add: boolean): void {
    const { block } = this.#signal;
    block[0] = BigInt(flag);
    block[1] = (BigInt(high) << 32n) | BigInt(low >>> 0);
    block[2] = add ? 1n : 0n;
    block[3] = BigInt(this.#control.slotAddress(this.#rank));
    this.#native.call("oi_apply_signal", this.#signal);
  }

  /**
   * Marks a peer as gone, and wakes this rank to see it. For this rank only: what the peer has sent
   * to others may still be on its way through their links.
   */
  setGone(peer: number, state: Extract<RankState, "left" | "dead">): void {
    Atomics.store(this.#linked, peer, state === "left" ? 2 : 3);
    this.applySignal(addressOf(this.#scratch), 0, 0, true);
  }

  /** A peer's slot starts as running, like those of ranks that share memory. */
  enter(peer: number): void {
    if (this.#control.state(peer) === "absent") this.#control.setState(peer, "running");
  }

  abort({ code, culprit, reporter, text }: LinkAbort): void {
    this.#control.abort(code, culprit, reporter, text);
  }

  get aborted(): LinkAbort | undefined {
    return this.#control.aborted;
  }

  /** What this rank is in, for its peers. */
  ownActivity(): Uint8Array {
    const { slotOperations, slotAwaited, slotOperation } = this.#native.layout;
    const slot = this.#control.slotAddress(this.#rank) - this.#address;
    const out = new Uint8Array(activityBytes);
    const target = new DataView(out.buffer);
    target.setBigInt64(0, this.#view.getBigInt64(slot + slotOperations, true), true);
    target.setInt32(8, this.#view.getInt32(slot + slotAwaited, true), true);
    for (let i = 0; i < 52; i++) out[12 + i] = this.#view.getUint8(slot + slotOperation + i);
    return out;
  }

  /** What a peer says it is in, for errors here. */
  noteActivity(peer: number, activity: Uint8Array): void {
    const { slotOperations, slotAwaited, slotOperation } = this.#native.layout;
    if (activity.length !== activityBytes || peer < 0 || peer >= this.#size) return;
    const slot = this.#control.slotAddress(peer) - this.#address;
    const source = new DataView(activity.buffer, activity.byteOffset, activity.length);
    this.#view.setBigInt64(slot + slotOperations, source.getBigInt64(0, true), true);
    this.#view.setInt32(slot + slotAwaited, source.getInt32(8, true), true);
    for (let i = 0; i < 51; i++) {
      this.#view.setUint8(slot + slotOperation + i, activity[12 + i] as number);
    }
  }
}

/** An abort as bytes: code, culprit, reporter, text. */
export function encodeAbort({ code, culprit, reporter, text }: LinkAbort): Uint8Array {
  const bytes = cString(text, 410);
  const out = new Uint8Array(12 + bytes.length);
  const view = new DataView(out.buffer);
  view.setInt32(0, code, true);
  view.setInt32(4, culprit, true);
  view.setInt32(8, reporter, true);
  out.set(bytes, 12);
  return out;
}

/** The inverse of {@link encodeAbort}; what cannot be read is an abort all the same. */
export function decodeAbort(bytes: Uint8Array): LinkAbort {
  if (bytes.length < 12) {
    return { code: 1, culprit: -1, reporter: -1, text: "a peer aborted the group" };
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  const end = bytes.indexOf(0, 12);
  return {
    code: view.getInt32(0, true) || 1,
    culprit: view.getInt32(4, true),
    reporter: view.getInt32(8, true),
    text: new TextDecoder().decode(bytes.subarray(12, end < 0 ? bytes.length : end)),
  };
}
