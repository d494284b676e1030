// A rank of the worked case, of the traffic counters and of the ways that calls fail.

import {
  Buffer,
  type BufferCapacityError,
  type DispatchOptions,
  packUe8m0,
} from "@open-infra/deep-ep";
import { InputError } from "@open-infra/errors";
import type { Group } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";

function select(topk: readonly (readonly number[])[]): {
  topkIdx: Tensor<"i64">;
  topkWeights: Tensor<"f32">;
} {
  const k = topk[0]?.length ?? 1;
  const topkIdx = Tensor.from(topk.flat(), [topk.length, k], "i64");
  const topkWeights = Tensor.empty(topkIdx.shape, "f32");
  topkWeights.raw().fill(0.5);
  return { topkIdx, topkWeights };
}

/** All that comes out, as plain numbers. */
export async function workedCase(
  group: Group,
  data: { readonly topk: readonly (readonly (readonly number[])[])[]; readonly hidden?: number },
): Promise<Record<string, unknown>> {
  const { hidden = 128 } = data;
  const own = data.topk[group.rank] as readonly (readonly number[])[];
  using buffer = await Buffer.create(group, { numNvlBytes: 1 << 20 });
  const { topkIdx, topkWeights } = select(own);
  const x = Tensor.empty([own.length, hidden], "bf16");
  own.forEach((_, token) => void x.slice(0, token, token + 1).fill(group.rank * 10 + token));
  const { event: _, ...layout } = buffer.getDispatchLayout(topkIdx, 8);
  using result = buffer.dispatch(x, { ...layout, topkIdx, topkWeights });
  const rows = result.recvX.toFloat32().filter((_value, i) => i % hidden === 0);
  using combined = buffer.combine(result.recvX as Tensor<"bf16">, {
    handle: result.handle,
    topkWeights: result.recvTopkWeights as Tensor<"f32">,
  });
  const topk = own[0]?.length ?? 1;
  return {
    numTokensPerRank: [...layout.numTokensPerRank.raw()],
    numTokensPerExpert: [...layout.numTokensPerExpert.raw()],
    received: [...rows].map((value, row) => [
      Math.floor(value / 10),
      value % 10,
      Array.from(result.recvTopkIdx?.raw() ?? [], Number).slice(row * topk, (row + 1) * topk),
    ]),
    perExpert: [...result.numRecvTokensPerExpertList],
    prefix: result.handle.rankPrefixMatrix.map((row) => row[group.rank]),
    combined: [...combined.combinedX.toFloat32()].filter((_value, i) => i % hidden === 0),
    weights: [...(combined.combinedTopkWeights?.raw() ?? [])],
    traffic: buffer.traffic,
    network: group.traffic.network,
  };
}

/** How every rank's call ends when one window is too small, and that it works after `reserve`. */
export async function tooSmall(group: Group): Promise<unknown> {
  using buffer = await Buffer.create(group, { numNvlBytes: 8192 });
  // All to rank 1, which has no room.
  const { topkIdx, topkWeights } = select(new Array(64).fill([2]));
  const x = Tensor.empty([64, 256], "bf16").fill(group.rank + 1);
  const { event: _, ...layout } = buffer.getDispatchLayout(topkIdx, 2 * group.size);
  const options: DispatchOptions = { ...layout, topkIdx, topkWeights };
  let error: BufferCapacityError | undefined;
  try {
    buffer.dispatch(x, options);
  } catch (thrown) {
    error = thrown as BufferCapacityError;
  }
  if (error?.name !== "BufferCapacityError") throw error ?? new Error("nothing was thrown");
  await buffer.reserve(error.neededBytes);
  using result = buffer.dispatch(x, options);
  const rows = result.recvX.toFloat32().filter((_value, i) => i % 256 === 0);
  const { rank, neededBytes, capacityBytes, message } = error;
  return { rank, neededBytes, capacityBytes, message, rows: [...new Set(rows)] };
}

/** A number of worst tokens that does not suffice, on all ranks alike. */
export async function worstTooSmall(group: Group): Promise<unknown> {
  using buffer = await Buffer.create(group, { numNvlBytes: 1 << 20 });
  const { topkIdx, topkWeights } = select(new Array(10).fill([0]));
  const x = Tensor.empty([10, 64], "bf16");
  const { event: _, ...layout } = buffer.getDispatchLayout(topkIdx, group.size);
  try {
    buffer.dispatch(x, { ...layout, topkIdx, topkWeights, numWorstTokens: 11 });
  } catch (error) {
    if (error instanceof InputError) return error.message;
    throw error;
  }
  return "nothing was thrown";
}

/** What the calls of one rank alone refuse; nothing of it reaches the others. */
export async function refusals(group: Group): Promise<string[]> {
  using buffer = await Buffer.create(group, { numNvlBytes: 1 << 20 });
  const { topkIdx, topkWeights } = select([
    [0, 1],
    [1, -1],
  ]);
  const x = Tensor.empty([2, 64], "bf16");
  const { event: _, ...layout } = buffer.getDispatchLayout(topkIdx, 2 * group.size);
  const calls: (() => unknown)[] = [
    () => buffer.getDispatchLayout(topkIdx, 2 * group.size + 1),
    () => buffer.getDispatchLayout(Tensor.from([99], [1, 1], "i64"), 2 * group.size),
    () => buffer.dispatch(Tensor.empty([2, 64], "i32"), layout),
    () => buffer.dispatch(x, {}),
    () => buffer.dispatch(x, { ...layout, topkIdx }),
    () => buffer.dispatch(Tensor.empty([3, 64], "bf16"), layout),
    () => buffer.dispatch(x, { ...layout, allocateOnCommStream: true }),
    () => buffer.dispatch(x, { ...layout, topkIdx, topkWeights, expertAlignment: 0 }),
    () => buffer.setNumWorkers(0),
    () => buffer.lowLatencyQueryMaskBuffer(),
    () => packUe8m0(Tensor.empty([1, 1], "f32")).dim(5),
  ];
  return calls.map((call) => {
    try {
      call();
      return "nothing was thrown";
    } catch (error) {
      return (error as Error).message;
    }
  });
}

/** Ranks that bring different things; each names what differs. */
export async function disagree(
  group: Group,
  what: "hidden" | "experts" | "cached" | "mostTokens" | "counts",
): Promise<void> {
  const odd = group.rank === 1;
  using buffer = await Buffer.create(group, {
    numNvlBytes: 1 << 20,
    lowLatencyMode: true,
    numRdmaBytes: 1 << 20,
  });
  const { topkIdx, topkWeights } = select([
    [0, 1],
    [1, -1],
  ]);
  const x = Tensor.empty([2, what === "hidden" && odd ? 72 : 64], "bf16");
  const numExperts = group.size * (what === "experts" && odd ? 4 : 2);
  if (what === "mostTokens") {
    const numMaxDispatchTokensPerRank = odd ? 8 : 4;
    buffer.lowLatencyDispatch(x, { topkIdx, numMaxDispatchTokensPerRank, numExperts });
    return;
  }
  const { event: _, ...layout } = buffer.getDispatchLayout(topkIdx, numExperts);
  if (what === "counts" && odd) layout.numTokensPerRank.raw()[0] = 7;
  const options = { ...layout, topkIdx, topkWeights };
  using result = buffer.dispatch(x, options);
  if (what !== "cached") return;
  if (odd) buffer.dispatch(x, { handle: result.handle });
  else buffer.dispatch(x, options);
}

/** Memory: what is given back, what is refused afterwards, and who was slow. */
export async function lifecycle(group: Group): Promise<unknown> {
  using buffer = await Buffer.create(group, {
    numNvlBytes: 1 << 22,
    lowLatencyMode: true,
    numRdmaBytes: 1 << 20,
  });
  const { topkIdx, topkWeights } = select(new Array(100).fill([0, 1]));
  const x = Tensor.empty([100, 512], "bf16").fill(1);
  const { event: _, ...layout } = buffer.getDispatchLayout(topkIdx, group.size);
  const sums: number[] = [];
  for (let round = 0; round < 3; round++) {
    using sent = buffer.dispatch(x, { ...layout, topkIdx, topkWeights });
    using back = buffer.combine(sent.recvX as Tensor<"bf16">, { handle: sent.handle });
    sums.push(back.combinedX.toFloat32().reduce((a, b) => a + b, 0));
    sent[Symbol.dispose]();
    back[Symbol.dispose]();
    buffer.trim();
  }
  const used = buffer.usedBytes;
  const few = { topkIdx: Tensor.from([0, 1], [1, 2], "i64"), numExperts: group.size };
  const results = [1, 2, 3].map(() =>
    buffer.lowLatencyDispatch(x.slice(0, 0, 1), { ...few, numMaxDispatchTokensPerRank: 2 }),
  );
  const alive = results.map(({ recvX }) => {
    try {
      return (recvX instanceof Tensor ? recvX : recvX[0]).raw().length;
    } catch (error) {
      return (error as Error).message;
    }
  });
  const { waits } = buffer.slowRanks();
  return { sums, used, alive, waits: waits.map(({ rank }) => rank) };
}
