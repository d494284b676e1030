// Compares what dispatch and combine gave with the reference, bit by bit. Every comparison that
// fails throws with the case in its message, because it runs on a rank's thread.

import type { ElasticDispatchResult, EPHandle } from "@open-infra/deep-ep";
import type { Tensor } from "@open-infra/tensor";
import {
  alignUp,
  combined,
  type ExpertOutput,
  type Received,
  type Recipe,
  receive,
  type World,
} from "./reference.ts";

/** Throws unless the lists are equal. */
export function expectEqual(what: string, got: ArrayLike<unknown>, want: ArrayLike<unknown>): void {
  const problem = (text: string): Error => new Error(`${what}: ${text}`);
  if (got.length !== want.length) throw problem(`${got.length} elements; expected ${want.length}`);
  for (let i = 0; i < want.length; i++) {
    if (Object.is(got[i], want[i])) continue;
    throw problem(`element ${i} is ${got[i]}; expected ${want[i]}`);
  }
}

/** Rows of bytes of what each rank sent. */
export type SentRow = (
  rank: number,
  token: number,
) => { readonly x: Uint8Array; readonly sf: readonly number[] };

/** What a check knows besides the world. */
export interface Expected {
  readonly label: string;
  readonly world: World;
  readonly me: number;
  readonly sent: SentRow;
  /** With CPU sync, sizes are exact. */
  readonly exact: boolean;
  readonly weighted: boolean;
}

function rowBytes(t: Tensor, row: number): Uint8Array {
  const bytes = t.bytes();
  const length = bytes.length / Math.max(1, t.dim(0));
  return bytes.subarray(row * length, (row + 1) * length);
}

/** A row of a tensor of any strides, of 4-byte elements. */
function words(t: Tensor, row: number): number[] {
  const dense = t
    .slice(0, row, row + 1)
    .contiguous()
    .bytes()
    .slice();
  return [...new Uint32Array(dense.buffer)];
}

const unpack = (recvX: unknown): readonly [Tensor, Tensor | undefined] =>
  Array.isArray(recvX) ? [recvX[0] as Tensor, recvX[1] as Tensor] : [recvX as Tensor, undefined];

/** All of a dispatch: rows, scales, selections, weights, handle. */
export function checkDispatch(result: ElasticDispatchResult, expected: Expected): Received {
  const { world, me, label, exact, weighted } = expected;
  const received = receive(world, me);
  checkHandle(result.handle, received, expected);
  const [x, sf] = unpack(result.recvX);
  const { handle } = result;
  const rows = handle.doExpand ? handle.numExpandedTokens : handle.numRecvTokens;
  const wanted = handle.doExpand ? received.expandedRows : received.arrivals.length;
  if (x.dim(0) !== rows || (exact ? rows !== wanted : rows < wanted)) {
    throw new Error(`${label}: ${x.dim(0)} rows; expected ${wanted} of ${rows}`);
  }
  const weights = result.recvTopkWeights?.raw();
  if ((weights !== undefined) !== weighted) throw new Error(`${label}: weights`);
  received.arrivals.forEach((arrival, i) => {
    const where = `${label}: row ${i}`;
    const sent = expected.sent(arrival.rank, arrival.token);
    const slots = handle.doExpand ? arrival.slots.filter((slot) => slot >= 0) : [i];
    for (const slot of slots) {
      expectEqual(where, rowBytes(x, slot), sent.x);
      if (sf !== undefined) expectEqual(`${where} scales`, words(sf, slot), sent.sf);
    }
    arrival.local.forEach((e, lane) => {
      const at = handle.doExpand ? (arrival.slots[lane] as number) : i * world.numTopk + lane;
      if (weights === undefined || e < 0) return;
      expectEqual(`${where} weight`, [weights[at]], [arrival.weights[lane]]);
    });
  });
  checkSelections(result, received, expected);
  return received;
}

function checkSelections(
  result: ElasticDispatchResult,
  received: Received,
  { label, world }: Expected,
): void {
  const { recvTopkIdx, handle } = result;
  if (handle.doExpand) {
    if (recvTopkIdx !== undefined) throw new Error(`${label}: selections in the expanded layout`);
    return;
  }
  const lanes = received.arrivals.flatMap(({ local }) => local);
  const rest = (handle.numRecvTokens - received.arrivals.length) * world.numTopk;
  const want = [...lanes, ...new Array<number>(rest).fill(-1)];
  expectEqual(`${label} selections`, [...(recvTopkIdx?.raw() ?? [])].map(Number), want);
}

function checkHandle(handle: EPHandle, received: Received, expected: Expected): void {
  const { label, world, me, exact } = expected;
  const { arrivals, counts, starts } = received;
  const psum: number[] = [];
  for (let i = 0; i < world.scaleup; i++) {
    const here = arrivals.filter(({ rank }) => rank % world.scaleup === i).length;
    psum.push((psum[i - 1] ?? 0) + here);
  }
  expectEqual(`${label} psum of ranks`, handle.psumNumRecvTokensPerScaleupRank.raw(), psum);
  const aligned = counts.map((count) => alignUp(count, world.expertAlignment));
  const ends = counts.map((count, e) =>
    handle.doExpand
      ? (starts[e] as number) + count
      : (starts[e] as number) + (aligned[e] as number),
  );
  expectEqual(`${label} psum of experts`, handle.psumNumRecvTokensPerExpert.raw(), ends);
  expectEqual(`${label} counts`, handle.numRecvTokensPerExpertList, exact ? aligned : []);
  if (handle.doExpand) {
    const unaligned = handle.numUnalignedRecvTokensPerExpert?.raw() ?? [];
    expectEqual(`${label} unaligned counts`, unaligned, counts);
  }
  const metadata = arrivals.flatMap(({ source, rank, local, slots }) => {
    const master = local.reduce((last, e, lane) => (e >= 0 ? lane : last), 0);
    const from = (rank % world.scaleup) * world.numTopk + master;
    return [source, from, ...(handle.doExpand ? slots : slots.map(() => -1))];
  });
  const rest = (handle.numRecvTokens - arrivals.length) * (world.numTopk + 2);
  const want = [...metadata, ...new Array<number>(rest).fill(-1)];
  expectEqual(`${label} metadata`, handle.recvSrcMetadata.raw(), want);
  expectEqual(`${label} slots`, handle.dstBufferSlotIdx.raw(), slotsOf(world, me));
  if (world.scaleup === world.ranks.length) return;
  const forwarded = forwardedAt(world, me, handle.doExpand);
  const all = handle.tokenMetadataAtForward?.raw() ?? [];
  expectEqual(`${label} forwarded`, [...all].slice(0, forwarded.length), forwarded);
  if (exact) expectEqual(`${label} number of forwarded`, [all.length], [forwarded.length]);
}

/** What a rank notes of the tokens that it passes on in its node, its own included. */
function forwardedAt(world: World, me: number, doExpand: boolean): number[] {
  const { scaleup, numMaxTokensPerRank } = world;
  const local = world.numExperts / world.ranks.length;
  const first = me - (me % scaleup);
  const peers = Array.from({ length: scaleup }, (_, i) => receive(world, first + i).arrivals);
  return world.ranks.flatMap(({ selected }, rank) => {
    if (rank % scaleup !== me % scaleup) return [];
    const here = selected.flatMap((lanes, token) => {
      const places = lanes.map((e) => (e < 0 ? -1 : Math.floor(e / local) - first));
      const near = places.map((place) => (place >= 0 && place < scaleup ? place : -1));
      if (near.every((place) => place < 0)) return [];
      const source = rank * numMaxTokensPerRank + token;
      const rows = near.map((place, lane) => {
        const at = peers[place]?.findIndex((arrival) => arrival.source === source) ?? -1;
        return doExpand && place >= 0 ? (peers[place]?.[at]?.slots[lane] as number) : at;
      });
      return [{ source, near, rows }];
    });
    return here.flatMap(({ source, near, rows }, i) => [
      source,
      i === here.length - 1 ? 1 : 0,
      ...near,
      ...rows,
    ]);
  });
}

/** Each token's place among those for a rank, at the last selection there. */
function slotsOf(world: World, me: number): number[] {
  const local = world.numExperts / world.ranks.length;
  const next = new Map<number, number>();
  return (world.ranks[me]?.selected ?? []).flatMap((lanes) =>
    lanes.map((e, lane) => {
      const rank = Math.floor(e / local);
      const later = lanes.slice(lane + 1).some((other) => Math.floor(other / local) === rank);
      if (e < 0 || later) return -1;
      const place = next.get(rank) ?? 0;
      next.set(rank, place + 1);
      return me * world.numMaxTokensPerRank + place;
    }),
  );
}

/** The sums of one rank. */
export function checkCombined(
  label: string,
  got: Tensor<"bf16">,
  at: { readonly world: World; readonly me: number; readonly recipe: Recipe },
  output: ExpertOutput,
  biases: readonly Tensor<"bf16">[],
): void {
  const hidden = got.dim(1);
  const values = biases.map((bias) => bias.toFloat32());
  for (let token = 0; token < got.dim(0); token++) {
    const place = { rank: at.me, token, hidden };
    const rows = values.map((bias) => bias.subarray(token * hidden, (token + 1) * hidden));
    const want = combined(at.world, at.recipe, place, output, rows);
    const row = got.raw().subarray(token * hidden, (token + 1) * hidden);
    expectEqual(`${label}: sum of token ${token}`, row, want);
  }
}
