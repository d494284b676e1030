// How much memory and how many workers the original's second version asks for, figure for figure:
// its buffer-size hints and its model of SMs and queue pairs. Pure functions; what this package
// itself needs of a window is in capacity.ts.

import { InputError } from "@open-infra/errors";
import { type DType, dtypeBits } from "@open-infra/tensor";
import { expectCount } from "../config.ts";

/** Sizes of buffers are multiples of it. */
export const bufferAlignmentBytes: number = 2 * 1024 * 1024;

export const alignUp = (value: number, to: number): number => Math.ceil(value / to) * to;

/** Ranks as nodes × ranks of a node; what a `Group` has, or plain numbers to plan with. */
export interface Topology {
  readonly size: number;
  readonly ranksPerNode: number;
}

/** What a buffer is for. */
export interface BufferShape {
  readonly numMaxTokensPerRank: number;
  readonly hidden: number;
  /** 0: unknown, 32 is assumed, the most that the original takes, often 4 times too much. */
  readonly numTopk?: number;
  /** Tokens travel as e4m3 with scales. @default false */
  readonly useFp8Dispatch?: boolean;
  /** @default true */
  readonly allowHybridMode?: boolean;
  /** @default true */
  readonly allowMultipleReduction?: boolean;
}

/** Channels of the original's hybrid mode, each of which may waste a token. */
const channelsMax = 160 * 8;
const topkUnknown = 32;

/** Nodes × ranks of a node as operations see them: all one node unless hybrid mode applies. */
export function logicalDomain(
  topology: Topology,
  allowHybridMode: boolean,
): { readonly scaleout: number; readonly scaleup: number } {
  const { size, ranksPerNode } = topology;
  const even = size % ranksPerNode === 0 && size > ranksPerNode;
  if (!allowHybridMode || !even) return { scaleout: 1, scaleup: size };
  return { scaleout: size / ranksPerNode, scaleup: ranksPerNode };
}

/** Bytes of a token's record: three parts, each aligned to 32 bytes. */
function recordBytes(hiddenBytes: number, sfBytes: number, metaBytes: number): number {
  return alignUp(hiddenBytes, 32) + alignUp(sfBytes, 32) + alignUp(metaBytes, 32);
}

/**
 * The original's recommended size of a buffer, a multiple of 2 MiB.
 *
 * @throws InputError
 */
export function getBufferSizeHint(topology: Topology, shape: BufferShape): number {
  const { numMaxTokensPerRank: tokens, hidden } = shape;
  const { allowHybridMode = true, allowMultipleReduction = true, useFp8Dispatch = false } = shape;
  expectCount("numMaxTokensPerRank", tokens, 1);
  expectCount("hidden", hidden, 1);
  expectCount("numTopk", shape.numTopk ?? 0, 0);
  const topk = shape.numTopk || topkUnknown;
  const { scaleout, scaleup } = logicalDomain(topology, allowHybridMode);
  const oneNode = scaleup === topology.ranksPerNode;
  const sfBytes = useFp8Dispatch ? Math.ceil(hidden / 32) * 4 : 0;
  const dispatchMeta = 8 * topk + 4 * (1 + topk);
  const dispatchRecord = recordBytes(hidden * (useFp8Dispatch ? 1 : 2), sfBytes, dispatchMeta);
  const combineRecord = recordBytes(hidden * 2, 0, 8 * topk);
  const slots = (groups: number): number =>
    allowMultipleReduction ? Math.min(groups, topk) : topk;
  const copies = allowMultipleReduction ? 1 : topk;
  let dispatch: number;
  let combine: number;
  if (scaleout === 1) {
    dispatch = (scaleup + (oneNode ? 0 : 1)) * tokens;
    combine = (slots(scaleup) + (oneNode ? 0 : scaleup * copies)) * tokens;
  } else {
    const channels = scaleout * (tokens + channelsMax);
    dispatch = scaleup * scaleout * tokens + tokens + channels;
    combine = (slots(scaleup) * scaleout + slots(scaleout)) * tokens + copies * channels;
  }
  const bytes = Math.max(dispatch * dispatchRecord, combine * combineRecord);
  return alignUp(bytes, bufferAlignmentBytes);
}

/** Bytes for embeddings: `numBytes` to receive into, `numCpuBytes` to keep a rank's part in. */
export function getEngramStorageSizeHint(options: {
  readonly numEntries: number;
  readonly hidden: number;
  readonly numMaxTokensPerRank: number;
  /** @default "bf16" */
  readonly dtype?: DType;
}): { readonly numBytes: number; readonly numCpuBytes: number } {
  const { numEntries, hidden, numMaxTokensPerRank, dtype = "bf16" } = options;
  const entry = alignUp((hidden * dtypeBits[dtype]) / 8, 32);
  return {
    numBytes: alignUp(entry * numMaxTokensPerRank, bufferAlignmentBytes),
    numCpuBytes: alignUp(entry * numEntries, bufferAlignmentBytes),
  };
}

/** Bytes for tensors between neighbours: both directions, sent and received. */
export function getPpBufferSizeHint(
  numMaxTensorBytes: number,
  numMaxInflightTensors: number,
): number {
  const slot = alignUp(numMaxTensorBytes, 32);
  return alignUp(slot * numMaxInflightTensors * 2 * 2, bufferAlignmentBytes);
}

/** Bytes of one session of all-gathers of these tensors, as they are before gathering. */
export function getAgrsNumMaxSessionBytes(
  topology: Pick<Topology, "size">,
  shapes: readonly number[] | readonly (readonly number[])[],
  dtype: DType,
): number {
  return listOfShapes(shapes).reduce((sum, shape) => {
    const elements = shape.reduce((a, b) => a * b, 1);
    return sum + alignUp((topology.size * elements * dtypeBits[dtype]) / 8, 32);
  }, 0);
}

/** Bytes of a buffer for sessions of so many bytes. */
export function getAgrsBufferSizeHint(numMaxSessionBytes: number): number {
  return alignUp(numMaxSessionBytes, bufferAlignmentBytes);
}

/** One shape, or several, as several. */
export function listOfShapes(
  shapes: readonly number[] | readonly (readonly number[])[],
): readonly (readonly number[])[] {
  const single = shapes.length === 0 || typeof shapes[0] === "number";
  return single ? [shapes as readonly number[]] : (shapes as readonly (readonly number[])[]);
}

/**
 * Of `groups` equal groups of experts, how many a token reaches with `topk` different experts
 * chosen evenly.
 */
export function expectedGroups(numExperts: number, topk: number, groups: number): number {
  if (numExperts % groups !== 0) {
    throw new InputError("numExperts", `${numExperts}`, `a multiple of ${groups}`);
  }
  const others = numExperts - numExperts / groups;
  // C(others, k) / C(all, k) as a product, which stays in range.
  let missed = 1;
  for (let i = 0; i < topk; i++) missed *= Math.max(0, others - i) / (numExperts - i);
  return groups * (1 - missed);
}

/** What the model of workers is asked for. */
export interface WorkerModel {
  readonly numExperts: number;
  readonly numTopk: number;
  readonly numScaleoutRanks: number;
  readonly numScaleupRanks: number;
  /** Physical domains; @default the logical ones */
  readonly numRdmaRanks?: number;
  readonly numNvlinkRanks?: number;
  /** GB/s between nodes. @default 50 */
  readonly rdmaGbs?: number;
  /** GB/s within a node. @default 180 */
  readonly nvlinkGbs?: number;
  /** What one SM reads and writes. @default 200 and 50 GB/s */
  readonly smReadGbs?: number;
  readonly smWriteGbs?: number;
  /** @default 132 */
  readonly numDeviceSms?: number;
  /** @default true */
  readonly preferOverlapWithCompute?: boolean;
}

/**
 * The original's estimate of how many SMs an operation needs to keep its slower link busy: even, at
 * least 4. Here it is a figure to compare with, as copying threads are not SMs.
 */
export function theoreticalNumSms(model: WorkerModel): number {
  const { numScaleoutRanks: scaleout, numScaleupRanks: scaleup } = model;
  const { numRdmaRanks = scaleout, numNvlinkRanks = scaleup, rdmaGbs = 50 } = model;
  const { nvlinkGbs = 180, smReadGbs = 200, smWriteGbs = 50, numDeviceSms = 132 } = model;
  const ranks = scaleout * scaleup;
  const reached = expectedGroups(model.numExperts, model.numTopk, ranks);
  let read = 1 / reached;
  let write = 0;
  let rdma = 0;
  let nvlink = 0;
  if (scaleout > 1) {
    const nodes = expectedGroups(model.numExperts, model.numTopk, scaleout);
    // Written once to be sent, in part to the own node, and once for every rank it reaches.
    write += 1 / reached + nodes / scaleout / reached + 1;
    rdma += (nodes * (1 - 1 / scaleout)) / reached;
    read += nodes / reached;
    nvlink += 1 - 1 / scaleup;
  } else {
    if (numRdmaRanks > 1) write += 1 / reached;
    write += numNvlinkRanks / ranks;
    nvlink += (numNvlinkRanks / ranks) * (1 - 1 / numNvlinkRanks);
    rdma += (ranks - numNvlinkRanks) / ranks;
  }
  const byRdma = scaleout > 1 && rdma / rdmaGbs > nvlink / nvlinkGbs;
  const [traffic, gbs] = byRdma ? [rdma, rdmaGbs] : [nvlink, nvlinkGbs];
  const busy = (gbs / traffic) * Math.max(read / smReadGbs, write / smWriteGbs);
  const wanted = traffic > 0 ? busy : numDeviceSms;
  const even = alignUp(Math.max(4, Math.ceil(wanted * 1.25)), 2);
  const chosen = (model.preferOverlapWithCompute ?? true) ? even : Math.max(even, 64);
  return Math.min(chosen, numDeviceSms);
}

/** The original's number of queue pairs for so many SMs. */
export function theoreticalNumQps(
  numSms: number,
  options: { readonly allowHybridMode: boolean; readonly numAllocatedQps: number },
): number {
  const wanted = options.allowHybridMode ? numSms * 16 + 1 : Math.min(numSms, 9);
  return Math.min(wanted, options.numAllocatedQps);
}
