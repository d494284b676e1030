// Random weights as fast as a disk takes them: a block of normal numbers is drawn once per standard
// deviation and dtype, and tensors are cut from it at random places. Its length is prime, so that
// rows of a matrix never line up with themselves when the block comes round.

import { Tensor } from "@open-infra/tensor";
import type { RandomDType } from "./presets.ts";

/** Primes near 2^17 and 2^21: no usual width divides into them. Small models need no long block. */
const shortBlock = 131_071;
const longBlock = 2_097_143;
const longFromElements = 50_000_000;

/** mulberry32: 32 bits of state, the same on every machine. */
export function randomSource(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** How a block is stored. */
export type BlockDType = Exclude<RandomDType, "fp8"> | "e4m3fn";

const elementBytes: Readonly<Record<BlockDType, number>> = { bf16: 2, f32: 4, e4m3fn: 1 };

export class RandomBlocks {
  readonly #next: () => number;
  readonly #normals: Float32Array;
  readonly #blocks = new Map<string, Uint8Array>();

  /** `elements` is how many numbers will be asked for in all. */
  constructor(seed: number, elements: number) {
    this.#next = randomSource(seed);
    this.#normals = new Float32Array(elements < longFromElements ? shortBlock : longBlock);
    // Box and Muller give two at a time; the last one of an odd length is written to nowhere.
    for (let i = 0; i < this.#normals.length; i += 2) {
      const radius = Math.sqrt(-2 * Math.log(1 - this.#next()));
      const angle = 2 * Math.PI * this.#next();
      this.#normals[i] = radius * Math.cos(angle);
      this.#normals[i + 1] = radius * Math.sin(angle);
    }
  }

  /** A number in [0, 1). */
  next(): number {
    return this.#next();
  }

  /** `count` normal numbers, as bytes in pieces that are valid until the next call. */
  *pieces(dtype: BlockDType, count: number, std: number, mean = 0): Generator<Uint8Array> {
    const block = this.#block(dtype, std, mean);
    const bytes = elementBytes[dtype];
    const blockElements = this.#normals.length;
    let at = Math.floor(this.#next() * blockElements);
    for (let left = count; left > 0; ) {
      const take = Math.min(left, blockElements - at);
      yield block.subarray(at * bytes, (at + take) * bytes);
      left -= take;
      at = 0;
    }
  }

  #block(dtype: BlockDType, std: number, mean: number): Uint8Array {
    const key = `${dtype} ${std} ${mean}`;
    let block = this.#blocks.get(key);
    if (block === undefined) {
      // Beyond its largest number e4m3 has only NaN.
      const most = dtype === "e4m3fn" ? 448 : Number.POSITIVE_INFINITY;
      const values = this.#normals.map((x) => Math.max(-most, Math.min(most, x * std + mean)));
      block = Tensor.from(values, [values.length], dtype).bytes();
      this.#blocks.set(key, block);
    }
    return block;
  }
}
