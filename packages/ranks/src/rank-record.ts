// What a rank's native record counts and holds beside its failure: traffic, waits, masks.

import type { Traffic } from "./group-options.ts";
import type { RanksNative } from "./native.ts";

/** A view of parts of an `oi_group`; not to be used after that is freed. */
export class RankRecord {
  readonly #native: RanksNative;
  readonly #group: number;
  readonly #waitNs: BigInt64Array;
  readonly #masked: Int32Array;
  readonly #linked: Int32Array;

  constructor(native: RanksNative, group: number, size: number) {
    this.#native = native;
    this.#group = group;
    this.#waitNs = new BigInt64Array(this.#array("groupWaitNs", size * 8), 0, size);
    this.#masked = new Int32Array(this.#array("groupMasked", size * 4), 0, size);
    this.#linked = new Int32Array(this.#array("groupLinked", size * 4), 0, size);
  }

  /** What was sent to this rank, to its node, to other nodes. */
  get traffic(): { readonly self: Traffic; readonly node: Traffic; readonly network: Traffic } {
    const bytes = this.#native.view(this.#group + this.#native.layout.groupTraffic, 72).slice();
    const words = new BigInt64Array(bytes.buffer);
    const at = (i: number): Traffic => ({
      bytes: Number(words[i * 3]),
      puts: Number(words[i * 3 + 1]),
      signals: Number(words[i * 3 + 2]),
    });
    return { self: at(0), node: at(1), network: at(2) };
  }

  /** By rank. */
  get waitedMs(): number[] {
    return Array.from(this.#waitNs, (ns) => Number(ns) / 1e6);
  }

  isMasked(rank: number): boolean {
    return Atomics.load(this.#masked, rank) !== 0;
  }

  setMasked(rank: number, masked: boolean): void {
    Atomics.store(this.#masked, rank, masked ? 1 : 0);
  }

  /** What this rank's link says of a rank behind it; undefined while it says nothing. */
  linkState(rank: number): "left" | "dead" | undefined {
    const state = Atomics.load(this.#linked, rank);
    return state === 0 ? undefined : state === 2 ? "left" : "dead";
  }

  /** The memory of an array that the record points to. */
  #array(field: "groupWaitNs" | "groupMasked" | "groupLinked", bytes: number): ArrayBuffer {
    const at = this.#native.view(this.#group + this.#native.layout[field], 8);
    const address = Number(new DataView(at.buffer, at.byteOffset, 8).getBigInt64(0, true));
    return this.#native.view(address, bytes).buffer as ArrayBuffer;
  }
}
