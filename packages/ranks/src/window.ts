// Symmetric memory: every rank of the group has as many bytes and flags in a window, and every rank
// may put into any other's. Kernels take the window itself as a parameter; the methods here are for
// control and tests.

import { InputError } from "@open-infra/errors";
import { addressOf } from "@open-infra/jit";
import { type DType, dtypeBits, HostStorage, Tensor } from "@open-infra/tensor";
import { GroupClosedError } from "./errors.ts";
import { cString, type RanksNative, Words } from "./native.ts";
import type { Region } from "./region.ts";

/** What a window is made of; equal on all ranks. */
export interface WindowOptions {
  /** For errors. Unique among the group's open windows. */
  readonly name: string;
  /** Data of each rank; zeroed. */
  readonly bytes: number;
  /** 64-bit counters of each rank, beside the data; zeroed. @default 0 */
  readonly flags?: number;
}

/** How a wait for a flag ended. */
export type WaitResult = "arrived" | "aborted" | "timed-out" | "peer-dead";

const waitResults: readonly WaitResult[] = ["arrived", "aborted", "timed-out", "peer-dead"];

/** Flags come before the data, which starts on a page. */
export function windowRegionBytes({ bytes, flags = 0 }: WindowOptions): number {
  return flagBytes(flags) + bytes;
}

export function flagBytes(flags: number): number {
  return Math.ceil((flags * 8) / 4096) * 4096;
}

/** One window of one rank; made by `Group.openWindow`. */
export class Window implements Disposable {
  readonly name: string;
  readonly bytes: number;
  readonly flags: number;
  /** The `oi_window` for kernels. */
  readonly address: number;
  readonly #native: RanksNative;
  readonly #regions: readonly (Region | undefined)[];
  readonly #rank: number;
  readonly #onFailure: () => void;
  #storage: HostStorage | undefined;
  #open = true;

  /** Called by the group only. */
  constructor(init: {
    native: RanksNative;
    group: number;
    number: number;
    rank: number;
    options: WindowOptions;
    regions: readonly (Region | undefined)[];
    onFailure: () => void;
  }) {
    const { native, options, regions } = init;
    this.name = options.name;
    this.bytes = options.bytes;
    this.flags = options.flags ?? 0;
    this.#native = native;
    this.#regions = regions;
    this.#rank = init.rank;
    this.#onFailure = init.onFailure;
    const room = flagBytes(this.flags);
    const words = [init.group, init.number, this.bytes, this.flags];
    for (const region of regions) {
      words.push(region === undefined ? 0 : region.address + room, region?.address ?? 0);
    }
    this.address = native.must("making a window", "oi_window_create", new Words(words)).at(0);
  }

  /** This rank's data. The view must not be used after the window is closed. */
  get data(): Uint8Array {
    this.#expectOpen();
    const room = flagBytes(this.flags);
    return (this.#regions[this.#rank] as Region).view().subarray(room, room + this.bytes);
  }

  /** The native address of a byte of this rank's data. */
  dataAddress(offset = 0): number {
    this.#expectOpen();
    return (this.#regions[this.#rank] as Region).address + flagBytes(this.flags) + offset;
  }

  /** A tensor over this rank's data; closing the window disposes its memory. */
  tensor<D extends DType>(
    dtype: D,
    shape: readonly number[],
    byteOffset = 0,
    name?: string,
  ): Tensor<D> {
    this.#expectOpen();
    if (this.#storage === undefined) {
      this.#storage = new HostStorage(this.data);
      this.#storage.address = this.dataAddress();
    }
    const storage = this.#storage;
    const elementBytes = dtypeBits[dtype] / 8;
    if (byteOffset % elementBytes !== 0) {
      throw new InputError("byteOffset", `${byteOffset}`, `a multiple of ${elementBytes}`);
    }
    return new Tensor({ dtype, shape, storage, offset: byteOffset / elementBytes, name });
  }

  /** Whether a peer's memory is mapped here. */
  isMapped(peer: number): boolean {
    return this.#regions[peer] !== undefined;
  }

  /** Puts bytes into a peer's window. They may change once the group is flushed. */
  put(peer: number, offset: number, source: Uint8Array): void {
    this.#expectOpen();
    if (offset < 0 || offset + source.byteLength > this.bytes) {
      const got = `${offset} + ${source.byteLength} bytes`;
      throw new InputError(`${this.name}: offset`, got, `at most ${this.bytes} bytes`);
    }
    const words = [this.address, peer, offset, addressOf(source), source.byteLength];
    this.#native.call("oi_window_put", new Words(words));
  }

  /** Raises a peer's flag, after all that was put before. */
  signal(peer: number, flag: number, value: number): void {
    this.#expectFlag(flag);
    this.#native.call("oi_window_signal", new Words([this.address, peer, flag, value, 0]));
  }

  /** Adds to a peer's flag. */
  signalAdd(peer: number, flag: number, value: number): void {
    this.#expectFlag(flag);
    this.#native.call("oi_window_signal", new Words([this.address, peer, flag, value, 1]));
  }

  /** What this rank's flag holds. */
  flag(flag: number): number {
    this.#expectFlag(flag);
    const { buffer, byteOffset } = (this.#regions[this.#rank] as Region).view();
    return Number(Atomics.load(new BigInt64Array(buffer, byteOffset + flag * 8, 1), 0));
  }

  /**
   * Blocks until this rank's flag is at least `value`; with `timeoutMs` it says how the wait ended,
   * without it a wait that fails throws as the group's failure.
   *
   * @param peer Who raises it; −1 for anyone.
   * @throws RankTimeoutError, RankDeadError, GroupAbortedError
   */
  wait(
    flag: number,
    value: number,
    options: { readonly peer?: number; readonly awaited: string; readonly timeoutMs?: number },
  ): WaitResult {
    this.#expectFlag(flag);
    const text = cString(options.awaited, 90);
    const { peer = -1, timeoutMs } = options;
    const limitNs = timeoutMs === undefined ? -1 : Math.round(timeoutMs * 1e6);
    const words = [this.address, flag, value, peer, limitNs, addressOf(text)];
    const code = this.#native.call("oi_window_wait", new Words(words));
    if (code !== 0 && timeoutMs === undefined) this.#onFailure();
    return waitResults[code] ?? "aborted";
  }

  #expectOpen(): void {
    if (!this.#open) throw new GroupClosedError(`window ${this.name}`);
  }

  #expectFlag(flag: number): void {
    this.#expectOpen();
    if (!Number.isInteger(flag) || flag < 0 || flag >= this.flags) {
      throw new InputError(`${this.name}: flag`, `${flag}`, `0 to ${this.flags - 1}`);
    }
  }

  /** Unmaps it. All ranks must be done with it: `Group.closeWindow` sees to that. */
  [Symbol.dispose](): void {
    if (!this.#open) return;
    this.#open = false;
    this.#storage?.[Symbol.dispose]();
    this.#native.call("oi_window_free", new Words([this.address]));
    for (const region of this.#regions) region?.[Symbol.dispose]();
  }
}
