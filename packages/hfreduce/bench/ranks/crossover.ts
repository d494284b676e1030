// A rank of the comparison of tree and ring: both in turns, for several sizes.

import { openReducer } from "@open-infra/hfreduce";
import type { Group } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";
import { median } from "@open-infra/testing";

/** Medians in microseconds, by size. */
export interface CrossoverTimes {
  readonly bytes: number;
  readonly treeUs: number;
  readonly ringUs: number;
}

export default async function run(
  group: Group,
  data: { readonly sizes: readonly number[]; readonly repeats: number },
): Promise<readonly CrossoverTimes[]> {
  const reducer = await openReducer(group, { smallBytes: 0 });
  const rows: CrossoverTimes[] = [];
  for (const bytes of data.sizes) {
    const x = Tensor.empty([bytes / 4], "f32").fill(1);
    const us: { tree: number[]; ring: number[] } = { tree: [], ring: [] };
    for (let repeat = -1; repeat < data.repeats; repeat++) {
      for (const algorithm of ["tree", "ring"] as const) {
        group.barrier();
        const start = performance.now();
        reducer.allreduce(x, { algorithm, blocking: true });
        group.barrier();
        if (repeat >= 0) us[algorithm].push((performance.now() - start) * 1000);
      }
    }
    rows.push({ bytes, treeUs: median(us.tree), ringUs: median(us.ring) });
  }
  reducer.close();
  return rows;
}
