// The original's grid of cases on one rank: copies of the selection or not, alignment, FP8,
// biases, events, in the plain, expanded, cached and cached expanded way, each compared with the
// reference bit by bit. Memory that results come from is poisoned between cases.

import { ElasticBuffer, type ElasticDispatchOptions, type EPHandle } from "@open-infra/deep-ep";
import type { Group } from "@open-infra/ranks";
import { Tensor } from "@open-infra/tensor";
import { checkCombined, checkDispatch, type Expected, expectEqual } from "./check.ts";
import { type Received, summedLocally, type World } from "./reference.ts";
import { makeWorld, outputOf, selectionOf, tokensOf, type WorldShape, weightsOf } from "./world.ts";

/** One point of the grid. */
export interface GridCase {
  readonly doHandleCopy: boolean;
  readonly expertAlignment: number;
  readonly fp8: boolean;
  readonly numBiases: number;
  readonly previous: boolean;
  readonly async: boolean;
  /** No CPU sync: results of the largest size. */
  readonly worstCase: boolean;
  readonly columnScales: boolean;
  readonly weighted: boolean;
}

/** Cases of one kind of buffer; plain data. */
export interface GridPart {
  readonly shape: WorldShape;
  readonly cases: readonly GridCase[];
  readonly allowHybridMode: boolean;
  readonly allowMultipleReduction: boolean;
  readonly directMemory: boolean;
}

const poison = 0xa5;

/** What one case works with. */
interface Bench {
  readonly buffer: ElasticBuffer;
  readonly world: World;
  readonly shape: WorldShape;
  readonly point: GridCase;
  readonly label: string;
}

/** Runs the cases of all parts; the result is how many held. */
export default async function grid(group: Group, parts: readonly GridPart[]): Promise<number> {
  let held = 0;
  for (const part of parts) held += await runPart(group, part);
  return held;
}

async function runPart(group: Group, part: GridPart): Promise<number> {
  const { shape, allowHybridMode, allowMultipleReduction, directMemory } = part;
  const buffer = await ElasticBuffer.create(group, {
    numMaxTokensPerRank: shape.numMaxTokensPerRank,
    hidden: shape.hidden,
    numTopk: shape.numTopk,
    allowHybridMode,
    allowMultipleReduction,
    directMemory,
  });
  const buffered = { allowHybridMode, allowMultipleReduction, directMemory };
  for (const [i, point] of part.cases.entries()) {
    const { expertAlignment } = point;
    const scaleup = buffer.numScaleupRanks;
    const drawn = { ...shape, scaleup, seed: shape.seed + i, expertAlignment };
    const world = makeWorld(drawn);
    const what = JSON.stringify({ ...buffered, ...drawn, ...point });
    runCase({ buffer, world, shape: drawn, point, label: `rank ${group.rank} of ${what}` });
  }
  // Not by disposal: after a failed comparison that would wait for the others, in vain.
  buffer.destroy();
  return part.cases.length;
}

function eventOptions({ point }: Bench): object {
  return {
    asyncWithComputeStream: point.async,
    allocateOnCommStream: point.previous,
    ...(point.previous && { previousEvent: ElasticBuffer.capture() }),
  };
}

function runCase(bench: Bench): void {
  const { buffer, world, shape, point, label } = bench;
  const me = buffer.rankIdx;
  const { seed, hidden } = shape;
  const { x, sf } = tokensOf(world, me, { seed, hidden, fp8: point.fp8 });
  const input = sf === undefined ? x : ([x, sf] as const);
  const topkIdx = selectionOf(world, me);
  const stats = Tensor.empty([world.numExperts / world.ranks.length], "i32").fill(5);
  const options: ElasticDispatchOptions = {
    topkIdx,
    ...(point.weighted && { topkWeights: weightsOf(world, me) }),
    numExperts: world.numExperts,
    expertAlignment: point.expertAlignment,
    doHandleCopy: point.doHandleCopy,
    doCpuSync: !point.worstCase,
    useTmaAlignedColMajorSf: point.columnScales,
    ...eventOptions(bench),
  };
  const sent = rowsSent(bench);
  const base = { world, me, sent, exact: !point.worstCase, weighted: point.weighted };
  const run = (
    way: string,
    more: ElasticDispatchOptions,
    weighted = point.weighted,
  ): {
    received: Received;
    handle: EPHandle;
    done: () => void;
    result: ReturnType<ElasticBuffer["dispatch"]>;
  } => {
    const given =
      more.handle === undefined ? { ...options, ...more } : { ...eventOptions(bench), ...more };
    const result = buffer.dispatch(input, given);
    if (point.async) result.event.currentStreamWait();
    const expected: Expected = { ...base, label: `${label} ${way}`, weighted };
    const received = checkDispatch(result, expected);
    return { received, handle: result.handle, result, done: () => dispose(result) };
  };
  const plain = run("plain", { cumulativeLocalExpertRecvStats: stats });
  expectEqual(
    `${label} stats`,
    stats.raw(),
    plain.received.counts.map((count) => count + 5),
  );
  const shared =
    plain.handle.topkIdx.bytes().byteOffset === topkIdx.bytes().byteOffset &&
    plain.handle.topkIdx.storage === topkIdx.storage;
  if (shared === point.doHandleCopy) throw new Error(`${label}: the handle's selection`);
  const expanded = run("expanded", { doExpand: true });
  checkFold(bench, plain.result, expanded.result, expanded.received);
  const columns = { useTmaAlignedColMajorSf: point.columnScales };
  const cached = run("cached", { handle: plain.handle, ...columns }, false);
  const weights = point.weighted ? { topkWeights: weightsOf(world, me) } : {};
  const zeroed = { handle: expanded.handle, ...columns, ...weights, doZeroPadding: true };
  const again = run("cached expanded", zeroed);
  checkZeros(bench, again.result, again.received);
  combineBoth(bench, plain, expanded);
  for (const { done } of [plain, expanded, cached, again]) done();
  for (const { handle } of [plain, expanded]) disposeHandle(handle);
}

/** What a rank's token looks like on its way. */
function rowsSent({ world, shape, point }: Bench): Expected["sent"] {
  const all = world.ranks.map((_, rank) =>
    tokensOf(world, rank, { seed: shape.seed, hidden: shape.hidden, fp8: point.fp8 }),
  );
  return (rank, token) => {
    const { x, sf } = all[rank] as (typeof all)[number];
    const row = x.bytes().length / Math.max(1, x.dim(0));
    const scales =
      sf === undefined
        ? []
        : [
            ...new Uint32Array(
              sf
                .slice(0, token, token + 1)
                .clone()
                .bytes().buffer,
            ),
          ];
    return { x: x.bytes().subarray(token * row, (token + 1) * row), sf: scales };
  };
}

type Dispatched = ReturnType<ElasticBuffer["dispatch"]>;

const codesOf = (result: Dispatched): Tensor =>
  Array.isArray(result.recvX) ? (result.recvX[0] as Tensor) : (result.recvX as Tensor);

/** The expanded layout folded by its metadata is the plain one. */
function checkFold(
  bench: Bench,
  plain: Dispatched,
  expanded: Dispatched,
  received: Received,
): void {
  const width = codesOf(plain).bytes().length / Math.max(1, codesOf(plain).dim(0));
  const { topk } = { topk: bench.world.numTopk };
  const meta = expanded.handle.recvSrcMetadata.raw();
  received.arrivals.forEach((_, i) => {
    const row = codesOf(plain)
      .bytes()
      .subarray(i * width, (i + 1) * width);
    for (let k = 0; k < topk; k++) {
      const slot = meta[i * (topk + 2) + 2 + k] as number;
      if (slot < 0) continue;
      const copy = codesOf(expanded)
        .bytes()
        .subarray(slot * width, (slot + 1) * width);
      expectEqual(`${bench.label} folded row ${i}`, copy, row);
    }
  });
}

/** Rows between an expert's last and the next one's first are zero. */
function checkZeros(bench: Bench, result: Dispatched, received: Received): void {
  const codes = codesOf(result);
  const width = codes.bytes().length / Math.max(1, codes.dim(0));
  received.counts.forEach((count, e) => {
    const from = (received.starts[e] as number) + count;
    const to = (received.starts[e + 1] ?? received.expandedRows) as number;
    const padding = codes.bytes().subarray(from * width, to * width);
    expectEqual(`${bench.label} padding of expert ${e}`, padding, new Uint8Array(padding.length));
    if (result.recvTopkWeights === undefined) return;
    const weights = result.recvTopkWeights.raw().subarray(from, to);
    expectEqual(`${bench.label} padding weights`, weights, new Float32Array(weights.length));
  });
}

function combineBoth(
  bench: Bench,
  plain: { readonly result: Dispatched; readonly received: Received },
  expanded: { readonly result: Dispatched; readonly received: Received },
): void {
  const { buffer, world, shape, point, label } = bench;
  const output = outputOf(shape.seed);
  const me = buffer.rankIdx;
  const tokens = world.ranks[me]?.selected.length ?? 0;
  const biases = Array.from({ length: point.numBiases }, (_, i) => {
    const bias = Tensor.empty([tokens, shape.hidden], "bf16");
    const value = outputOf(shape.seed + 31 * i);
    for (let j = 0; j < bias.size; j++) bias.raw()[j] = value(j, 3, 1);
    return bias;
  });
  const bias = biases.length === 2 ? (biases as unknown as [Tensor, Tensor]) : biases[0];
  for (const way of ["plain", "expanded"] as const) {
    const { result, received } = way === "plain" ? plain : expanded;
    const rows = way === "plain" ? result.handle.numRecvTokens : result.handle.numExpandedTokens;
    const x = Tensor.empty([rows, shape.hidden], "bf16");
    x.bytes().fill(poison);
    received.arrivals.forEach((arrival, i) => {
      for (let c = 0; c < shape.hidden; c++) {
        if (way === "plain") x.raw()[i * shape.hidden + c] = summedLocally(arrival, output, c);
        else {
          arrival.slots.forEach((slot, lane) => {
            if (slot >= 0) x.raw()[slot * shape.hidden + c] = output(arrival.source, lane, c);
          });
        }
      }
    });
    const topkWeights = result.recvTopkWeights;
    const done = buffer.combine(x, {
      handle: result.handle,
      topkWeights,
      bias,
      ...eventOptions(bench),
    });
    if (point.async) done.event.currentStreamWait();
    const hybrid = buffer.numScaleoutRanks > 1;
    const multiple = buffer.allowMultipleReduction;
    const recipe = { byRank: multiple || way === "plain", byNode: multiple && hybrid };
    checkCombined(`${label} ${way}`, done.combinedX, { world, me, recipe }, output, biases);
    if (point.weighted) {
      const got = done.combinedTopkWeights?.raw() ?? [];
      expectEqual(`${label} ${way} weights`, got, weightsOf(world, me).raw());
    }
    done.combinedX.bytes().fill(poison);
    done[Symbol.dispose]();
  }
}

/** Fills what later results may be made of with rubbish, and gives it back. */
function dispose(result: Dispatched): void {
  const x = Array.isArray(result.recvX) ? (result.recvX as readonly Tensor[]) : [result.recvX];
  for (const tensor of [...(x as readonly Tensor[]), result.recvTopkIdx, result.recvTopkWeights]) {
    if (tensor?.isContiguous) tensor.bytes().fill(poison);
  }
  result[Symbol.dispose]();
}

/** The same of a handle's memory. */
function disposeHandle(handle: EPHandle): void {
  for (const tensor of [handle.recvSrcMetadata, handle.dstBufferSlotIdx]) {
    tensor.bytes().fill(poison);
  }
  handle[Symbol.dispose]();
}
