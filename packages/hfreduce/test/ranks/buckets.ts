// A rank that trains: gradients become ready in another order on each rank.

import type { Group } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";
import { seededRandom } from "@open-infra/testing";
import { allreduceMany, GradientBuckets, openReducer } from "../../src/index.ts";

export default async function run(group: Group, seed: number): Promise<object> {
  const reducer = await openReducer(group, { chunkBytes: 4096 });
  const specs = [[40, 3], [7], [], [1000], [3, 5], [64]].map((shape, i) => {
    return { shape, dtype: i === 4 ? ("f64" as const) : ("f32" as const) };
  });
  const limits = { firstBucketBytes: 512, bucketBytes: 4200 };
  const buckets = await GradientBuckets.create(reducer, specs, { op: "sum", ...limits });
  const random = seededRandom(seed + group.rank);
  let begunEarly = 0;
  for (let step = 0; step < 3; step++) {
    const order = specs.map((_, i) => i).toSorted(() => random.next() - 0.5);
    for (const [n, i] of order.entries()) {
      buckets.gradients[i]?.fill(group.rank + 10 * i + step);
      buckets.ready(i);
      if (n < order.length - 1) begunEarly = Math.max(begunEarly, buckets.begun);
    }
    await buckets.finish();
    buckets.gradients.forEach((gradient, i) => {
      let sum = 0;
      for (let rank = 0; rank < group.size; rank++) sum += rank + 10 * i + step;
      if (gradient.toFloat64().some((x) => x !== sum)) {
        throw new Error(`step ${step}: gradient ${i} is not ${sum}; seed ${seed}`);
      }
    });
  }
  const loose: Tensor[] = [3, 0, 17].map((n) => Tensor.empty([n], "f32"));
  loose.push(Tensor.empty([2], "i32"));
  loose.forEach((tensor, i) => {
    tensor.fill(i + group.rank);
  });
  await allreduceMany(reducer, loose).finished();
  let refused = "";
  try {
    buckets.ready(0);
    buckets.ready(0);
  } catch (error) {
    refused = (error as Error).message;
  }
  const sums = loose.map((tensor) => [...tensor.toFloat64()].at(-1) ?? null);
  return { begunEarly, sums, buckets: buckets.bucketCount, refused };
}
