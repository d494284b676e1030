// Kernels of v1.c and the routing that all cases use.

import { type CommKernel, defineCommKernel } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";
import { seededRandom } from "@open-infra/testing";

const params = {
  window: "ptr",
  x: "ptr",
  out: "ptr",
  packed: "ptr",
  positions: "ptr",
  at: "ptr",
  bytes: "i64",
  row_bytes: "i64",
  tokens: "i64",
  seq: "i64",
  stream: "i64",
} as const;

const kernel = (entry: string): CommKernel<typeof params> =>
  defineCommKernel({ name: entry, source: new URL("./v1.c", import.meta.url), entry, params });

export const copyKernel: CommKernel<typeof params> = kernel("bench_copy");
export const flagsKernel: CommKernel<typeof params> = kernel("bench_flags");
export const naiveKernel: CommKernel<typeof params> = kernel("bench_naive");

export const nothing = {
  window: null,
  x: null,
  out: null,
  packed: null,
  positions: null,
  at: null,
  bytes: 0,
  row_bytes: 0,
  tokens: 0,
  seq: 0,
  stream: 0,
};

/** Distinct random experts for each token. */
export function randomTopk(
  seed: number,
  tokens: number,
  topk: number,
  experts: number,
): Tensor<"i64"> {
  const random = seededRandom(seed);
  const topkIdx = Tensor.empty([tokens, topk], "i64");
  const chosen = topkIdx.raw();
  for (let t = 0; t < tokens; t++) {
    const seen = new Set<number>();
    while (seen.size < topk) seen.add(random.int(0, experts));
    [...seen].forEach((e, k) => {
      chosen[t * topk + k] = BigInt(e);
    });
  }
  return topkIdx;
}
