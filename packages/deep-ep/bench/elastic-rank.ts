// One rank of elastic.bench.ts: dispatches FP8 and combines bf16 over and over, beside a plain copy
// of as many bytes, and reports each round's times.

import {
  ElasticBuffer,
  type ElasticDispatchResult,
  unbalancedSelection,
} from "@open-infra/deep-ep";
import { type CommKernel, defineCommKernel, type Group } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";
import { seededRandom } from "@open-infra/testing";

/** What the ranks do. */
export interface ElasticBenchData {
  readonly tokens: number;
  readonly hidden: number;
  readonly numExperts: number;
  readonly numTopk: number;
  readonly rounds: number;
  readonly directMemory: boolean;
  readonly doExpand: boolean;
}

/** Times of this rank by round, microseconds, and bytes of its results. */
export interface ElasticBenchTimes {
  readonly dispatchUs: number[];
  readonly cachedUs: number[];
  readonly combineUs: number[];
  readonly dispatchCopyUs: number[];
  readonly combineCopyUs: number[];
  readonly dispatchBytes: number;
  readonly combineBytes: number;
}

const copyParams = { to: "ptr", from: "ptr", bytes: "i64", row_bytes: "i64" } as const;

const copyKernel: CommKernel<typeof copyParams> = defineCommKernel({
  name: "copy_bound",
  source: new URL("elastic-copy.c", import.meta.url),
  entry: "copy_bound",
  params: copyParams,
});

type Dispatched = ElasticDispatchResult<readonly [Tensor, Tensor]>;

export default async function rank(
  group: Group,
  data: ElasticBenchData,
): Promise<ElasticBenchTimes> {
  const { tokens, hidden, numExperts, numTopk, doExpand } = data;
  const numRanks = group.size;
  await using buffer = await ElasticBuffer.create(group, {
    numMaxTokensPerRank: tokens,
    hidden,
    numTopk,
    directMemory: data.directMemory,
  });
  const random = seededRandom(group.rank + 1);
  const selection = unbalancedSelection(
    { numTokens: tokens, numExperts, numRanks, numTopk },
    random.next,
  );
  const x = Tensor.empty([tokens, hidden], "e4m3fn");
  x.bytes().fill(0x38);
  const sf = Tensor.empty([tokens, Math.ceil(hidden / 128)], "f32").fill(1);
  const send = (): Dispatched =>
    buffer.dispatch([x, sf] as const, { ...selection, numExperts, doExpand });
  const first = send();
  const rows = first.recvX[0].dim(0);
  const y = Tensor.empty([rows, hidden], "bf16").fill(1);
  const target = Tensor.empty([rows, hidden], "bf16").fill(1);
  const times = emptyTimes(rows * hidden, rows * hidden * 2);
  const timed = (list: number[], act: () => void): void => {
    group.barrier();
    const start = performance.now();
    act();
    list.push((performance.now() - start) * 1000);
  };
  const copy = (bytes: number, rowBytes: number): void => {
    group.run(copyKernel, {}, { to: target, from: y, bytes, row_bytes: rowBytes });
  };
  for (let i = 0; i < data.rounds; i++) {
    timed(times.dispatchUs, () => {
      using sent = send();
      sent.handle[Symbol.dispose]();
    });
    timed(times.dispatchCopyUs, () => copy(rows * hidden, hidden));
    const { handle } = first;
    timed(times.cachedUs, () => buffer.dispatch([x, sf] as const, { handle })[Symbol.dispose]());
    timed(times.combineUs, () => buffer.combine(y, { handle })[Symbol.dispose]());
    timed(times.combineCopyUs, () => copy(rows * hidden * 2, hidden * 2));
  }
  return times;
}

function emptyTimes(dispatchBytes: number, combineBytes: number): ElasticBenchTimes {
  return {
    dispatchUs: [],
    cachedUs: [],
    combineUs: [],
    dispatchCopyUs: [],
    combineCopyUs: [],
    dispatchBytes,
    combineBytes,
  };
}
