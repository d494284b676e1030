// A rank of the bench of shared memory; rank 0's times count.

import { defineCommKernel, type Group } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";
import { median } from "@open-infra/testing";

const params = {
  window: "ptr",
  samples: "ptr",
  source: "ptr",
  target: "ptr",
  rounds: "i64",
  bytes: "i64",
  flag: "i64",
} as const;
const source = new URL("./ranks-bench.c", import.meta.url);
const [roundTrips, pinnedRoundTrips, barriers, putRows, nothing] = (
  ["round_trips", "pinned_round_trips", "barriers", "put_rows", "nothing"] as const
).map((entry) => defineCommKernel({ name: entry, source, entry, params }));

/** What rank 0 has measured, microseconds. */
export interface SharedTimes {
  /** Half of this is the time from one rank's signal to the other's wait. */
  readonly roundTripUs: number;
  /** With a core for each rank. */
  readonly pinnedUs: number;
  readonly barrierUs: number;
  readonly puts: readonly {
    readonly bytes: number;
    readonly us: number;
    readonly copyUs: number;
  }[];
}

export interface SharedWork {
  readonly rounds: number;
  readonly sizes: readonly number[];
}

type Kernel = NonNullable<typeof roundTrips>;

export default async function run(group: Group, work: SharedWork): Promise<SharedTimes> {
  const { rounds, sizes } = work;
  const most = Math.max(...sizes, 8);
  const window = await group.openWindow({ name: "bench", bytes: most, flags: 8 });
  const samples = Tensor.empty([2 * rounds], "i64");
  const from = Tensor.empty([most], "u8");
  const to = Tensor.empty([most], "u8");
  from.raw().fill(1);
  to.raw().fill(2);
  const values = { window, samples, source: from, target: to };
  const times = (first: number, count: number): number => {
    const ns = Array.from((samples.raw() as BigInt64Array).subarray(first, first + count), Number);
    return median(ns) / 1000;
  };
  const flagOf = new Map<Kernel, number>();
  const measure = (kernel: Kernel, count: number, bytes = 0): void => {
    // Flags only grow, so each kernel has one of its own.
    if (!flagOf.has(kernel)) flagOf.set(kernel, flagOf.size);
    const flag = flagOf.get(kernel) as number;
    group.run(kernel, {}, { ...values, rounds: count, bytes, flag });
    group.barrier();
  };
  let roundTripUs = 0;
  let pinnedUs = 0;
  if (group.size === 2) {
    measure(roundTrips as Kernel, rounds);
    roundTripUs = times(0, rounds);
    measure(pinnedRoundTrips as Kernel, rounds);
    pinnedUs = times(0, rounds);
  }
  measure(barriers as Kernel, rounds);
  const barrierUs = times(0, rounds);
  const copies = sizes.map((bytes) => {
    const count = Math.min(rounds, Math.max(5, Math.ceil((256 << 20) / bytes)));
    measure(putRows as Kernel, 2, bytes);
    measure(putRows as Kernel, count, bytes);
    return { bytes, us: times(0, count), copyUs: times(count, count) };
  });
  group.closeWindow(window);
  return { roundTripUs, pinnedUs, barrierUs, puts: copies };
}

/** What it costs to start work and to learn that it is done, microseconds a call. */
export interface StartTimes {
  readonly runUs: number;
  readonly waitUs: number;
  readonly finishedUs: number;
}

export async function starts(group: Group, rounds: number): Promise<StartTimes> {
  const kernel = nothing as Kernel;
  const values = {
    window: null,
    samples: null,
    source: null,
    target: null,
    rounds: 0,
    bytes: 0,
    flag: 0,
  };
  const time = async (work: () => void | Promise<void>): Promise<number> => {
    const start = performance.now();
    for (let i = 0; i < rounds; i++) await work();
    return ((performance.now() - start) * 1000) / rounds;
  };
  const timeBlocking = (work: () => void): number => {
    const start = performance.now();
    for (let i = 0; i < rounds; i++) work();
    return ((performance.now() - start) * 1000) / rounds;
  };
  const runDirect = (): void => group.run(kernel, {}, values);
  const queueAndWait = (): void => group.enqueue(kernel, {}, values).wait();
  timeBlocking(runDirect);
  timeBlocking(queueAndWait);
  return {
    runUs: timeBlocking(runDirect),
    waitUs: timeBlocking(queueAndWait),
    finishedUs: await time(() => group.enqueue(kernel, {}, values).finished()),
  };
}
