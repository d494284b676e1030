// One rank of worked.test.ts: the worked case of four ranks and eight experts, bytes between nodes,
// and what happens while the rank computes.

import { ElasticBuffer } from "@open-infra/deep-ep";
import type { Group } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";
import { expectEqual } from "./check.ts";

const hidden = 256;

/** Selections of three tokens of each rank, two experts each. */
const selections = [
  [0, 1, 2, 5, 7, -1],
  [3, 2, 6, 7, 0, 4],
  [5, 4, 1, 6, 2, 3],
  [-1, -1, 0, 7, 6, 3],
] as const;

/** What rank 0 to 3 receive: selections by arrival, counts of experts, prefix sums of ranks. */
const received = [
  { idx: [0, 1, 0, -1, 1, -1, 0, -1], experts: [3, 2], ranks: [1, 2, 3, 4] },
  { idx: [0, -1, 1, 0, 0, 1, -1, 1], experts: [3, 3], ranks: [1, 2, 3, 4] },
  { idx: [-1, 1, -1, 0, 1, 0], experts: [2, 2], ranks: [1, 2, 3, 3] },
  { idx: [1, -1, 0, 1, -1, 0, -1, 1, 0, -1], experts: [3, 3], ranks: [1, 2, 3, 5] },
] as const;

/** Distinct ranks of each token. */
const reach = [
  [1, 2, 1],
  [1, 1, 2],
  [1, 2, 1],
  [0, 2, 2],
] as const;

/** What the test looks at. */
export interface WorkedResult {
  /** Bytes that a cached dispatch sent to other nodes. */
  readonly hybridBytes: number;
  readonly directBytes: number;
  /** A dispatch that was not waited for was under way when the call returned. */
  readonly overlapped: boolean;
}

export default async function worked(group: Group): Promise<WorkedResult> {
  const options = { numMaxTokensPerRank: 3, hidden, numTopk: 4 };
  const direct = await ElasticBuffer.create(group, { ...options, allowHybridMode: false });
  const hybrid = await ElasticBuffer.create(group, options);
  workedCase(direct);
  const directBytes = networkBytes(direct);
  const hybridBytes = networkBytes(hybrid);
  const overlapped = overlap(direct);
  hybrid.destroy();
  direct.destroy();
  return { hybridBytes, directBytes, overlapped };
}

function tokens(rank: number): Tensor<"bf16"> {
  const values = Array.from(
    { length: 3 * hidden },
    (_, i) => rank + 1 + Math.floor(i / hidden) / 4,
  );
  return Tensor.from(values, [3, hidden], "bf16");
}

function dispatched(buffer: ElasticBuffer) {
  const selected = selections[buffer.rankIdx] as readonly number[];
  const topkIdx = Tensor.from(selected, [3, 2], "i64");
  const weights = selected.map((e, i) => (e < 0 ? 0 : i + 0.5));
  const topkWeights = Tensor.from(weights, [3, 2], "f32");
  return buffer.dispatch(tokens(buffer.rankIdx), { topkIdx, topkWeights, numExperts: 8 });
}

function workedCase(buffer: ElasticBuffer): void {
  const { rankIdx } = buffer;
  const result = dispatched(buffer);
  const want = received[rankIdx] as (typeof received)[number];
  expectEqual("selections", [...(result.recvTopkIdx?.raw() ?? [])].map(Number), want.idx);
  expectEqual("counts", result.handle.numRecvTokensPerExpertList, want.experts);
  expectEqual("prefix sums", result.handle.psumNumRecvTokensPerScaleupRank.raw(), want.ranks);
  const { recvX, recvTopkWeights, handle } = result;
  const back = buffer.combine(recvX, { handle, topkWeights: recvTopkWeights });
  const times = reach[rankIdx] as readonly number[];
  const sums = [...tokens(rankIdx).toFloat32()].map(
    (value, i) => value * (times[Math.floor(i / hidden)] as number),
  );
  expectEqual("sums", back.combinedX.toFloat32(), sums);
  const selected = selections[rankIdx] as readonly number[];
  const weights = selected.map((e, i) => (e < 0 ? 0 : i + 0.5));
  expectEqual("weights", back.combinedTopkWeights?.raw() ?? [], weights);
}

/** Bytes to other nodes of a dispatch of tokens that all ranks get, without counts. */
function networkBytes(buffer: ElasticBuffer): number {
  const topkIdx = Tensor.from([0, 2, 4, 6, 7, 5, 3, 1, 0, 3, 4, 7], [3, 4], "i64");
  const x = tokens(buffer.rankIdx);
  const { handle } = buffer.dispatch(x, { topkIdx, numExperts: 8 });
  const before = buffer.group.traffic.network.bytes;
  buffer.dispatch(x, { handle });
  return buffer.group.traffic.network.bytes - before;
}

/** The others come late: a call that does not wait returns before they do. */
function overlap(buffer: ElasticBuffer): boolean {
  const { handle } = dispatched(buffer);
  buffer.group.barrier();
  const late = buffer.rankIdx !== 0;
  const until = performance.now() + (late ? 200 : 0);
  while (performance.now() < until);
  const x = tokens(buffer.rankIdx);
  const { event } = buffer.dispatch(x, { handle, asyncWithComputeStream: true });
  const pending = !event.done;
  event.currentStreamWait();
  return pending && event.done;
}
