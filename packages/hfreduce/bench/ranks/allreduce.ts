// A rank of the bench: times allreduces and, alternating with them, the pass over memory that
// bounds them.

import { openReducer, type ReducerOptions } from "@open-infra/hfreduce";
import { defineCommKernel, type Group } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";

/** What is timed. */
export interface AllreduceBench {
  readonly bytes: number;
  readonly repeats: number;
  readonly inPlace: boolean;
  /** Buffers in windows, which processes share. */
  readonly registered: boolean;
  readonly algorithm: "auto" | "tree" | "ring";
  readonly open?: ReducerOptions;
}

/** Microseconds of each repeat on this rank. */
export interface AllreduceTimes {
  readonly us: readonly number[];
  readonly passUs: readonly number[];
}

const pass = defineCommKernel({
  name: "pass",
  source: new URL("./pass.c", import.meta.url),
  entry: "pass",
  params: { x: "ptr", count: "i64" },
});

export default async function run(group: Group, bench: AllreduceBench): Promise<AllreduceTimes> {
  const reducer = await openReducer(group, bench.open);
  const count = bench.bytes / 4;
  const make = (): Promise<Tensor> =>
    bench.registered
      ? reducer.allocate([count], "f32")
      : Promise.resolve(Tensor.empty([count], "f32"));
  const x = await make();
  const y = bench.inPlace ? x : await make();
  const values = x.raw() as Float32Array;
  for (let i = 0; i < count; i++) values[i] = group.rank + (i % 7);
  if (y !== x) (y.raw() as Float32Array).fill(1);
  const us: number[] = [];
  const passUs: number[] = [];
  const timed = (work: () => void): number => {
    group.barrier();
    const start = performance.now();
    work();
    return (performance.now() - start) * 1000;
  };
  const { algorithm } = bench;
  const options = { algorithm, blocking: true, ...(bench.inPlace ? {} : { out: y }) };
  for (let repeat = -1; repeat < bench.repeats; repeat++) {
    const one = timed(() => reducer.allreduce(x, options).wait());
    const other = timed(() => group.run(pass, {}, { x, count }));
    if (repeat < 0) continue;
    us.push(one);
    passUs.push(other);
  }
  reducer.close();
  return { us, passUs };
}
