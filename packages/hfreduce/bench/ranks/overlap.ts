// One rank with eight devices: adds their buffers up on the communication thread while its own
// thread computes about as long.

import { openReducer } from "@open-infra/hfreduce";
import type { Group } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";
import { median } from "@open-infra/testing";

/** Medians in microseconds. */
export interface OverlapTimes {
  readonly reduceUs: number;
  readonly computeUs: number;
  /** One after the other, and both at once. */
  readonly apartUs: number;
  readonly togetherUs: number;
}

/** Arithmetic on a few numbers: no memory to speak of. */
function compute(rounds: number): number {
  let x = 1;
  for (let i = 0; i < rounds; i++) x = Math.sqrt(x + i);
  return x;
}

export default async function run(
  group: Group,
  data: { readonly bytes: number; readonly repeats: number },
): Promise<OverlapTimes> {
  const reducer = await openReducer(group);
  const buffers = Array.from({ length: 8 }, () => Tensor.empty([data.bytes / 4], "f32").fill(1));
  const timed = (work: () => void): number => {
    const start = performance.now();
    work();
    return (performance.now() - start) * 1000;
  };
  const reduce = (): void => reducer.allreduce(buffers).wait();
  reduce();
  compute(1e6);
  const perRound = timed(() => compute(4e6)) / 4e6;
  const rounds = Math.round(timed(reduce) / perRound);
  const samples: [number[], number[], number[], number[]] = [[], [], [], []];
  for (let i = 0; i < data.repeats; i++) {
    samples[0].push(timed(reduce));
    samples[1].push(timed(() => compute(rounds)));
    samples[2].push(
      timed(() => {
        reduce();
        compute(rounds);
      }),
    );
    samples[3].push(
      timed(() => {
        const event = reducer.allreduce(buffers);
        compute(rounds);
        event.wait();
      }),
    );
  }
  reducer.close();
  const [reduceUs, computeUs, apartUs, togetherUs] = samples.map(median) as [
    number,
    number,
    number,
    number,
  ];
  return { reduceUs, computeUs, apartUs, togetherUs };
}
