// The control region that ranks sharing memory have in common: who is there, what each is in, and
// the first failure. Layout: oi_control in kernels/include/oi_ranks.h.

import { addressOf } from "@open-infra/jit";
import { cString, type RanksNative, readText, Words } from "./native.ts";
import type { Region } from "./region.ts";

export type RankState = "absent" | "running" | "left" | "dead";
const states: readonly RankState[] = ["absent", "running", "left", "dead"];

/** Why the group ends; set once, by whoever sees a failure first. */
export interface AbortReason {
  readonly code: number;
  /** The rank to blame; −1 if none. */
  readonly culprit: number;
  readonly reporter: number;
  readonly text: string;
}

/** What a rank is in. */
export interface RankActivity {
  readonly operation: string;
  /** Operations it has begun. */
  readonly operations: number;
  /** The rank it waits for; −1 if for none. */
  readonly awaited: number;
}

/** Bytes of a control region for a world of `size` ranks. */
export function controlBytes(native: RanksNative, size: number): number {
  return native.layout.controlBytes + size * native.layout.slotBytes;
}

/** A view of the control region. */
export class Control {
  readonly #native: RanksNative;
  readonly #region: Pick<Region, "address" | "view">;
  readonly #size: number;
  readonly #view: DataView;
  readonly #words: Int32Array;

  constructor(native: RanksNative, region: Pick<Region, "address" | "view">, size: number) {
    this.#native = native;
    this.#region = region;
    this.#size = size;
    const bytes = region.view();
    this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.#words = new Int32Array(bytes.buffer, bytes.byteOffset, bytes.byteLength >> 2);
  }

  get address(): number {
    return this.#region.address;
  }

  slotAddress(rank: number): number {
    return this.address + this.#slot(rank);
  }

  /** A rank of a process of its own, watched by its pid; `pid` 0 for a thread or another host. */
  enter(rank: number, pid: number, startTime: number): void {
    const slot = this.#slot(rank);
    const { slotPid, slotStartTime } = this.#native.layout;
    this.#view.setBigInt64(slot + slotPid, BigInt(pid), true);
    this.#view.setBigInt64(slot + slotStartTime, BigInt(startTime), true);
    this.setState(rank, "running");
  }

  state(rank: number): RankState {
    return states[Atomics.load(this.#words, this.#stateIndex(rank))] ?? "absent";
  }

  /** Changes a state for good; what left or died stays so. */
  setState(rank: number, state: RankState): void {
    const index = this.#stateIndex(rank);
    const now = Atomics.load(this.#words, index);
    if (now >= 2) return;
    Atomics.compareExchange(this.#words, index, now, states.indexOf(state));
  }

  setMasked(rank: number, masked: boolean): void {
    const index = (this.#slot(rank) + this.#native.layout.slotMasked) >> 2;
    Atomics.store(this.#words, index, masked ? 1 : 0);
  }

  isMasked(rank: number): boolean {
    return (
      Atomics.load(this.#words, (this.#slot(rank) + this.#native.layout.slotMasked) >> 2) !== 0
    );
  }

  /** Notes what a rank begins, for the errors of others. */
  begin(rank: number, operation: string): void {
    const slot = this.#slot(rank);
    const { slotOperation, slotOperations } = this.#native.layout;
    const bytes = new TextEncoder().encode(operation.slice(0, 51));
    for (let i = 0; i < 52; i++) this.#view.setUint8(slot + slotOperation + i, bytes[i] ?? 0);
    const at = slot + slotOperations;
    this.#view.setBigInt64(at, this.#view.getBigInt64(at, true) + 1n, true);
  }

  activity(rank: number): RankActivity {
    const slot = this.#slot(rank);
    const { slotOperation, slotOperations, slotAwaited } = this.#native.layout;
    return {
      operation: readText(this.address + slot + slotOperation, 52),
      operations: Number(this.#view.getBigInt64(slot + slotOperations, true)),
      awaited: Atomics.load(this.#words, (slot + slotAwaited) >> 2),
    };
  }

  /** Ends the group for all that share this region; the first reason stays. */
  abort(code: number, culprit: number, reporter: number, text: string): boolean {
    const message = cString(text, 410);
    const address = addressOf(message);
    const words = new Words([this.address, this.#size, code, culprit, reporter, address]);
    return this.#native.call("oi_abort", words) === 1;
  }

  get aborted(): AbortReason | undefined {
    const { controlAborted, controlReported, controlCulprit, controlReporter, controlText } =
      this.#native.layout;
    const code = Atomics.load(this.#words, controlAborted >> 2);
    if (code === 0) return undefined;
    const complete = Atomics.load(this.#words, controlReported >> 2) !== 0;
    return {
      code,
      culprit: complete ? this.#view.getInt32(controlCulprit, true) : -1,
      reporter: complete ? this.#view.getInt32(controlReporter, true) : -1,
      text: complete ? readText(this.address + controlText, 416) : "the group was aborted",
    };
  }

  #slot(rank: number): number {
    const { controlBytes: head, slotBytes } = this.#native.layout;
    return head + rank * slotBytes;
  }

  #stateIndex(rank: number): number {
    return (this.#slot(rank) + this.#native.layout.slotState) >> 2;
  }
}
