// Random arguments for the indexer's logits, and an oracle written without the package's reference.

import { Tensor } from "@open-infra/tensor";
import type { Random } from "@open-infra/testing";
import type { ScaledTensor } from "../src/index.ts";
import { randomTensor } from "./helpers.ts";

const e2m1Values = [0, 0.5, 1, 1.5, 2, 3, 4, 6];

/** e4m3 codes, or e2m1 codes with random ue8m0 scales packed four to an int32 of each row. */
export function randomCodes(
  random: Random,
  shape: readonly number[],
  type: "e4m3fn" | "e2m1",
): Tensor | ScaledTensor {
  if (type === "e4m3fn") return randomTensor(random, shape, type, () => random.normal() * 4);
  const next = (): number => random.pick(e2m1Values) * (random.next() < 0.5 ? -1 : 1);
  const packed = (): number =>
    [0, 8, 16, 24].reduce((word, bit) => word | (random.int(124, 131) << bit), 0);
  return {
    data: randomTensor(random, shape, "e2m1", next),
    scales: randomTensor(random, shape.slice(0, -1), "i32", packed),
  };
}

/** Keys [N,D] with their scales: f32 for e4m3, packed for e2m1. */
export function randomKeys(
  random: Random,
  [n, dim]: readonly [number, number],
  type: "e4m3fn" | "e2m1",
): ScaledTensor {
  const codes = randomCodes(random, [n, dim], type);
  if (!(codes instanceof Tensor)) return codes;
  return { data: codes, scales: randomTensor(random, [n], "f32", () => 0.01 + random.next()) };
}

/** The values of rows of codes, with packed scales applied where there are some. */
export function codeValues(codes: Tensor | ScaledTensor): Float64Array {
  if (codes instanceof Tensor) return codes.toFloat64();
  const values = codes.data.toFloat64();
  const dim = codes.data.dim(-1);
  const scales = codes.scales.contiguous().raw() as Float32Array | Int32Array;
  if (codes.data.dtype === "e4m3fn") {
    return values.map((v, i) => v * (scales[Math.floor(i / dim)] as number));
  }
  return values.map((v, i) => {
    const word = scales[Math.floor(i / dim)] as number;
    const exponent = (word >>> (8 * Math.floor((i % dim) / 32))) & 0xff;
    return v * 2 ** (exponent - 127);
  });
}

/** Logits [S,N] of every pair in float64, windows left aside. */
export function allLogits(
  q: Float64Array,
  keys: Float64Array,
  weights: Float64Array,
  [tokens, heads, dim]: readonly [number, number, number],
): Float64Array {
  const n = keys.length / dim;
  const out = new Float64Array(tokens * n);
  for (let t = 0; t < tokens; t++) {
    for (let j = 0; j < n; j++) {
      let sum = 0;
      for (let h = 0; h < heads; h++) {
        let dot = 0;
        for (let d = 0; d < dim; d++) {
          dot += (q[(t * heads + h) * dim + d] as number) * (keys[j * dim + d] as number);
        }
        if (dot > 0) sum += (weights[t * heads + h] as number) * dot;
      }
      out[t * n + j] = sum;
    }
  }
  return out;
}

/** The pages of a cache: random page numbers, each page's codes first and its scales behind. */
export function pagesOf(
  random: Random,
  keys: readonly ScaledTensor[],
  perPage: number,
): { cache: Tensor; table: Tensor } {
  const first = keys[0] as ScaledTensor;
  const dim = first.data.dim(1);
  const codeBytes = first.data.dtype === "e2m1" ? dim / 2 : dim;
  const counts = keys.map(({ data }) => Math.ceil(data.dim(0) / perPage));
  const pages = counts.reduce((a, b) => a + b, 0) + 2;
  const order = Array.from({ length: pages }, (_, i) => i);
  for (let i = pages - 1; i > 0; i--) {
    const j = random.int(0, i + 1);
    [order[i], order[j]] = [order[j] as number, order[i] as number];
  }
  const cache = Tensor.empty([pages, perPage, 1, codeBytes + 4], "u8");
  cache.bytes().fill(0xff); // NaN, as a code and as a scale.
  const width = Math.max(1, ...counts) + 1;
  const table = Tensor.from(
    new Array(keys.length * width).fill(2147480000),
    [keys.length, width],
    "i32",
  );
  const entries = table.raw();
  for (const [b, { data, scales }] of keys.entries()) {
    const codes = data.bytes();
    const scaleBytes = scales.bytes();
    for (let i = 0; i < data.dim(0); i++) {
      const slot = Math.floor(i / perPage);
      if (i % perPage === 0) entries[b * width + slot] = order.pop() as number;
      const page = cache.select(0, entries[b * width + slot] as number).bytes();
      const at = i % perPage;
      page.set(codes.subarray(i * codeBytes, (i + 1) * codeBytes), at * codeBytes);
      page.set(scaleBytes.subarray(4 * i, 4 * i + 4), perPage * codeBytes + 4 * at);
    }
  }
  return { cache, table };
}
