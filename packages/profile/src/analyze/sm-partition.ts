// How the multiprocessors of a device were split between communication and computation, inferred
// from grids: kernels that are meant to fill a part of the device launch one block for each of its
// multiprocessors (DeepEP's dispatch and combine, persistent GEMMs). It is an inference, so it says
// what it saw and how sure it is.

import type { EventTable } from "./event-table.ts";
import { roundUs } from "./statistics.ts";
import type { Work } from "./work.ts";

/** A grid size and what ran with it. */
export interface GridShare {
  readonly blocks: number;
  readonly kernels: number;
  readonly sumUs: number;
  /** Of the time of the kernels considered, 0 to 1. */
  readonly share: number;
}

/** The split of a device. */
export interface SmPartition {
  readonly device: string | number;
  /** Multiprocessors of the device; 0 if the trace does not say. */
  readonly numSms: number;
  readonly communicationSms: number;
  readonly computeSms: number;
  /**
   * `high`: both parts were seen and add up to the device. `medium`: one was seen and the other is
   * the rest, or both but they do not add up. `low`: the grids are mixed. `none`: no such grids.
   */
  readonly confidence: "high" | "medium" | "low" | "none";
  /** Sentences that say why. */
  readonly evidence: readonly string[];
  /** Grids of the communication that moves data, most time first; at most 5. */
  readonly communicationGrids: readonly GridShare[];
  /** Grids of GEMMs no larger than the device, most time first; at most 5. */
  readonly computeGrids: readonly GridShare[];
}

const payload = /^(?:ep_dispatch|ep_combine|nccl|nvshmem)$/;
const persistent = /^gemm_(?:fp8|bf16)$/;
/** Below this share of time the commonest grid is a habit of some kernels, not a partition. */
const CLEAR_SHARE = 0.6;

/** Multiprocessors of a device by the trace's `deviceProperties`. */
export function multiprocessors(table: EventTable, pid: string | number): number {
  const { deviceProperties } = table.metadata;
  if (!Array.isArray(deviceProperties)) return 0;
  const all = deviceProperties as readonly Record<string, unknown>[];
  const own = all.find((each) => String(each?.id) === String(pid)) ?? all[0];
  const count = own?.numSms ?? own?.multiProcessorCount;
  return typeof count === "number" && count > 0 ? count : 0;
}

/** Infers the partition of each device. */
export function smPartition(work: Work): readonly SmPartition[] {
  return work.devices.map(({ pid }, device) => {
    const numSms = multiprocessors(work.table, pid);
    const limit = numSms > 0 ? numSms : Number.POSITIVE_INFINITY;
    const communicationGrids = gridsOf(work, device, payload, Number.POSITIVE_INFINITY);
    const computeGrids = gridsOf(work, device, persistent, limit);
    return {
      device: pid,
      numSms,
      ...decide(numSms, communicationGrids[0], computeGrids[0]),
      communicationGrids: communicationGrids.slice(0, 5),
      computeGrids: computeGrids.slice(0, 5),
    };
  });
}

function gridsOf(work: Work, device: number, classes: RegExp, limit: number): GridShare[] {
  const { first, end } = work.devices[device]!;
  const wanted = work.classes.map(({ name }) => classes.test(name));
  const grids = new Map<number, { kernels: number; sumUs: number }>();
  let total = 0;
  for (let i = first; i < end; i++) {
    if (!wanted[work.classId[i]!]) continue;
    const blocks = work.table.gridBlocks[work.row[i]!]!;
    if (blocks === 0 || blocks > limit) continue;
    const grid = grids.get(blocks) ?? { kernels: 0, sumUs: 0 };
    grid.kernels++;
    grid.sumUs += work.endUs[i]! - work.startUs[i]!;
    total += work.endUs[i]! - work.startUs[i]!;
    grids.set(blocks, grid);
  }
  return [...grids]
    .map(([blocks, { kernels, sumUs }]) => ({
      blocks,
      kernels,
      sumUs: roundUs(sumUs),
      share: total > 0 ? Math.round((sumUs / total) * 1e4) / 1e4 : 0,
    }))
    .sort((a, b) => b.sumUs - a.sumUs || a.blocks - b.blocks);
}

type Decision = Pick<SmPartition, "communicationSms" | "computeSms" | "confidence" | "evidence">;

function decide(
  numSms: number,
  communication: GridShare | undefined,
  compute: GridShare | undefined,
): Decision {
  const evidence = [
    describe("data-moving communication", communication),
    describe("GEMMs that fit the device", compute),
    numSms > 0 ? `the device has ${numSms} multiprocessors` : "the trace has no deviceProperties",
  ];
  const mixed = [communication, compute].some((grid) => grid && grid.share < CLEAR_SHARE);
  const comm = communication?.blocks ?? 0;
  const comp = compute?.blocks ?? 0;
  if (communication && compute) {
    const adds = comm + comp === numSms;
    if (adds) evidence.push(`${comm} + ${comp} = ${numSms}`);
    else if (numSms > 0) evidence.push(`${comm} + ${comp} is not ${numSms}`);
    // GEMMs that fill the device leave no part to communication, whatever its grid is.
    const communicationSms = comp === numSms ? 0 : comm;
    const confidence = mixed ? "low" : adds ? "high" : "medium";
    return { communicationSms, computeSms: comp, confidence, evidence };
  }
  if (!communication && !compute) {
    return { communicationSms: 0, computeSms: 0, confidence: "none", evidence };
  }
  const known = numSms > 0;
  if (communication) {
    const computeSms = known && comm < numSms ? numSms - comm : 0;
    const confidence = known && comm < numSms && !mixed ? "medium" : "low";
    return { communicationSms: comm, computeSms, confidence, evidence };
  }
  // A part that nothing was seen to use is only the rest of the device.
  const communicationSms = known ? numSms - comp : 0;
  return {
    communicationSms,
    computeSms: comp,
    confidence: known && !mixed ? "medium" : "low",
    evidence,
  };
}

function describe(what: string, grid: GridShare | undefined): string {
  if (!grid) return `no ${what} with a known grid`;
  const share = (grid.share * 100).toFixed(0);
  return `${what}: ${grid.blocks} blocks in ${grid.kernels} kernels, ${share} % of their time`;
}
