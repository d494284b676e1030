// The control region that ranks sharing memory have in common: who is there, what each is in, and
// the first failure. Layout: oi_control in kernels/include/oi_ranks.h.

import { type RanksNative, readText } from "./native.ts";
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
  /** The rank it waits for; −1 if it does not wait, −2 if for anyone. */
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

  /**
   * A rank enters. `pid` is its process on this host, which others watch; 0 for a rank of another
   * host. `name` is for people.
   */
  enter(rank: number, pid: number, startTime: number, name: string): void {
    const text = this.#native.text(name, 100);
    this.#native.invoke("oi_slot_enter", this.slotAddress(rank), pid, startTime, text);
  }

  state(rank: number): RankState {
    return states[Atomics.load(this.#words, this.#stateIndex(rank))] ?? "absent";
  }

  /** Changes a state for good, and tells all; what left or died stays so. */
  setState(rank: number, state: RankState): void {
    const number = states.indexOf(state);
    this.#native.invoke("oi_set_state", this.address, this.#size, rank, number);
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
    const at = this.#native.text(text, 480);
    const size = this.#size;
    return this.#native.invoke("oi_abort", this.address, size, code, culprit, reporter, at) === 1;
  }

  /** The same as `aborted !== undefined`, without making anything. */
  get isAborted(): boolean {
    return Atomics.load(this.#words, this.#native.layout.controlAborted >> 2) !== 0;
  }

  get aborted(): AbortReason | undefined {
    const { controlAborted, controlCulprit, controlReporter, controlText } = this.#native.layout;
    const code = Atomics.load(this.#words, controlAborted >> 2);
    if (code === 0) return undefined;
    const text = readText(this.address + controlText, 496);
    return {
      code,
      culprit: this.#view.getInt32(controlCulprit, true),
      reporter: this.#view.getInt32(controlReporter, true),
      text: text === "" ? "the group was aborted" : text,
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
