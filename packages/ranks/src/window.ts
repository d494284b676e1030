// Symmetric memory: every rank of the group has as many bytes and flags in a window, and every rank
// may put into any other's. Kernels take the window itself as a parameter; the methods here are for
// control and tests.

import { InputError } from "@open-infra/errors";
import { addressOf } from "@open-infra/jit";
import { type DType, dtypeBits, HostStorage, Tensor } from "@open-infra/tensor";
import { GroupClosedError } from "./errors.ts";
import { type RanksNative, Words } from "./native.ts";
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

/** Flags and a farewell of each rank come before the data, which starts on a page. */
export function windowRegionBytes({ bytes, flags = 0 }: WindowOptions, ranks: number): number {
  return flagBytes(flags + ranks) + bytes;
}

function flagBytes(flags: number): number {
  return Math.ceil((flags * 8) / 4096) * 4096;
}

/** One window of one rank; made by `Group.openWindow`. */
export class Window implements Disposable {
  readonly name: string;
  readonly bytes: number;
  readonly flags: number;
  /** Flags with those of farewells: as many as a peer may name. */
  readonly flagCount: number;
  /** The `oi_window` for kernels. */
  readonly address: number;
  readonly #native: RanksNative;
  readonly #regions: readonly (Region | undefined)[];
  /** Bytes before the data. */
  readonly #room: number;
  readonly #rank: number;
  readonly #onFailure: () => void;
  readonly #operation: () => number;
  readonly #values: BigInt64Array;
  #storage: HostStorage | undefined;
  #open = true;

  /** Called by the group only. */
  constructor(init: {
    native: RanksNative;
    group: number;
    number: number;
    rank: number;
    options: WindowOptions;
    /** By rank; undefined for those behind a link. */
    regions: readonly (Region | undefined)[];
    /** The window of barriers and messages. */
    isSystem: boolean;
    /** Throws the group's failure. */
    onFailure: () => void;
    /** The name of what the rank's thread is in, for errors. */
    operation: () => number;
  }) {
    const { native, options, regions } = init;
    this.name = options.name;
    this.bytes = options.bytes;
    this.flags = options.flags ?? 0;
    this.#native = native;
    this.#regions = regions;
    this.#rank = init.rank;
    this.#onFailure = init.onFailure;
    this.#operation = init.operation;
    this.flagCount = this.flags + regions.length;
    const room = flagBytes(this.flagCount);
    this.#room = room;
    const words = [init.group, init.number, this.bytes, this.flags, init.isSystem ? 1 : 0];
    for (const region of regions) {
      words.push(region === undefined ? 0 : region.address + room, region?.address ?? 0);
    }
    this.address = native.must("making a window", "oi_window_create", new Words(words)).at(0);
    const { buffer, byteOffset } = (regions[init.rank] as Region).view();
    this.#values = new BigInt64Array(buffer, byteOffset, this.flags);
  }

  /** This rank's data. The view must not be used after the window is closed. */
  get data(): Uint8Array {
    this.#expectOpen();
    const room = this.#room;
    return (this.#regions[this.#rank] as Region).view().subarray(room, room + this.bytes);
  }

  /** The native address of a byte of this rank's data. */
  dataAddress(offset = 0): number {
    this.#expectOpen();
    return (this.#regions[this.#rank] as Region).address + this.#room + offset;
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
    this.#expectPeer(peer);
    if (!Number.isSafeInteger(offset) || offset < 0 || offset + source.byteLength > this.bytes) {
      const got = `${offset} + ${source.byteLength} bytes`;
      throw new InputError(`${this.name}: offset`, got, `at most ${this.bytes} bytes`);
    }
    const at = addressOf(source);
    this.#native.invoke("oi_window_put", this.address, peer, offset, at, source.byteLength);
  }

  /** Raises a peer's flag, after all that was put before. */
  signal(peer: number, flag: number, value: number): void {
    this.#expectFlag(flag);
    this.#expectPeer(peer);
    expectValue(this.name, value);
    this.#native.invoke("oi_window_signal", this.address, peer, flag, value, 0);
  }

  /** Adds to a peer's flag. */
  signalAdd(peer: number, flag: number, value: number): void {
    this.#expectFlag(flag);
    this.#expectPeer(peer);
    expectValue(this.name, value);
    this.#native.invoke("oi_window_signal", this.address, peer, flag, value, 1);
  }

  /**
   * Tells the peers that this rank sends nothing more in this window: whoever waits for it there
   * and has not been served fails at once. `Group.closeWindow` says it.
   */
  farewell(): void {
    this.#expectOpen();
    this.#native.invoke("oi_window_farewell", this.address);
  }

  /** What this rank's flag holds. */
  flag(flag: number): number {
    this.#expectFlag(flag);
    return Number(Atomics.load(this.#values, flag));
  }

  /**
   * Blocks until this rank's flag is at least `value`; with `timeoutMs` it says how the wait ended,
   * without it a wait that fails throws as the group's failure.
   *
   * @param options.peer Who raises it. @default anyone
   * @throws RankTimeoutError, RankDeadError, GroupAbortedError
   */
  wait(
    flag: number,
    value: number,
    options: { readonly peer?: number; readonly awaited: string; readonly timeoutMs?: number },
  ): WaitResult {
    this.#expectFlag(flag);
    expectValue(this.name, value);
    const { peer = -1, timeoutMs } = options;
    if (peer !== -1) this.#expectPeer(peer);
    const limitNs = timeoutMs === undefined ? -1 : Math.round(timeoutMs * 1e6);
    const text = this.#native.text(options.awaited, 90);
    const operation = this.#operation();
    const words = [this.address, flag, value, peer, limitNs, text, operation] as const;
    const code = this.#native.invoke("oi_window_wait", ...words);
    if (code !== 0 && timeoutMs === undefined) this.#onFailure();
    return waitResults[code] ?? "aborted";
  }

  /**
   * Blocks until any of several flags has its value; says how the wait ended, and throws nothing.
   *
   * @param any At most 30.
   */
  waitAny(
    any: readonly { readonly flag: number; readonly value: number; readonly peer: number }[],
    timeoutMs: number,
  ): WaitResult {
    this.#expectOpen();
    const { length } = any;
    if (length > 30) throw new InputError(`${this.name}: flags`, `${length}`, "at most 30");
    this.#native.word(0, this.address);
    this.#native.word(1, Math.round(timeoutMs * 1e6));
    this.#native.word(2, length);
    any.forEach(({ flag, value, peer }, i) => {
      this.#expectFlag(flag);
      this.#native.word(3 + 3 * i, flag);
      this.#native.word(4 + 3 * i, value);
      this.#native.word(5 + 3 * i, peer);
    });
    return waitResults[this.#native.invokeBlock("oi_window_wait_any")] ?? "aborted";
  }

  #expectOpen(): void {
    if (!this.#open) throw new GroupClosedError(`window ${this.name}`);
  }

  #expectPeer(peer: number): void {
    if (Number.isInteger(peer) && peer >= 0 && peer < this.#regions.length) return;
    throw new InputError(`${this.name}: peer`, `${peer}`, `0 to ${this.#regions.length - 1}`);
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
    this.#native.invoke("oi_window_free", this.address);
    for (const region of this.#regions) region?.[Symbol.dispose]();
  }
}

function expectValue(window: string, value: number): void {
  if (Number.isSafeInteger(value)) return;
  throw new InputError(`${window}: value`, `${value}`, "an integer below 2^53");
}

/** @throws InputError for sizes that no window can have */
export function checkWindow({ bytes, flags = 0 }: WindowOptions): void {
  if (!Number.isSafeInteger(bytes) || bytes < 0) {
    throw new InputError("bytes", `${bytes}`, "an integer of at least 0");
  }
  if (!Number.isSafeInteger(flags) || flags < 0) {
    throw new InputError("flags", `${flags}`, "an integer of at least 0");
  }
}
