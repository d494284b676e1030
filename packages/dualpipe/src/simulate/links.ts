// What a transfer between two ranks costs, as a user gives it and as the simulator reads it: one
// cost per boundary of stages and direction of flow. Stages on one rank hand over for nothing.

import { InputError } from "@open-infra/errors";
import type { Schedule } from "../schedule/schedule.ts";
import { checkDuration, type StageValue } from "./times.ts";

/**
 * A figure of a link: one for all, one per pair of ranks (`[from][to]`, or a rule), or two by
 * whether both ranks are on one node of `ranksPerNode` consecutive ranks.
 */
export type LinkValue =
  | number
  | readonly ArrayLike<number>[]
  | ((from: number, to: number) => number)
  | NodeValue;

/** A figure of links within a node of `ranksPerNode` consecutive ranks, and of links between. */
export interface NodeValue {
  readonly ranksPerNode: number;
  readonly intraNode: number;
  readonly interNode: number;
}

/** What sending an activation or its gradient to another rank takes. */
export interface Communication {
  /** From the moment both ends are ready until the first byte is there. @default 0 */
  readonly latency?: LinkValue;
  /** Bytes in one unit of time; needs `bytes`. @default infinite */
  readonly bandwidth?: LinkValue;
  /** Bytes that leave each stage for the next, the same back; one per stage, the last unused. */
  readonly bytes?: StageValue;
  /**
   * Whether a link carries one transfer at a time, in the order its sender made them, so that a
   * slow link queues. Only the bandwidth's part occupies it. @default false
   */
  readonly exclusiveLinks?: boolean;
}

/** Costs by the row that receives; see `RowTimes`. All zero where both ends are one rank. */
export interface RowLinks {
  /** Latency of a forward's input into a row, and the time its bytes take. */
  readonly latencyF: Float64Array;
  readonly bytesTimeF: Float64Array;
  /** The same for the gradient of a row's output. */
  readonly latencyB: Float64Array;
  readonly bytesTimeB: Float64Array;
  /** With exclusive links: which link a transfer into a row takes; −1 on one rank. */
  readonly linkF?: Int32Array;
  readonly linkB?: Int32Array;
  readonly numLinks: number;
}

type LinkRule = (from: number, to: number) => number;

function linkRule(name: string, value: LinkValue, numRanks: number): LinkRule {
  if (typeof value === "number") return () => value;
  if (typeof value === "function") return value;
  if (Array.isArray(value)) {
    const table = value as readonly ArrayLike<number>[];
    if (table.length < numRanks || table.some((row) => row.length < numRanks)) {
      const got = `${table.length} rows of ${table[0]?.length ?? 0}`;
      throw new InputError(name, got, `at least ${numRanks} rows of ${numRanks}, [from][to]`);
    }
    return (from, to) => table[from]?.[to] as number;
  }
  return nodeRule(name, value as NodeValue);
}

/** A figure for ranks of one node, and one for ranks of two. */
function nodeRule(name: string, value: NodeValue): LinkRule {
  if (value === null || typeof value !== "object" || !("ranksPerNode" in value)) {
    const allowed = "a number, a table [from][to], or { ranksPerNode, intraNode, interNode }";
    throw new InputError(name, JSON.stringify(value), allowed);
  }
  const { ranksPerNode, intraNode, interNode } = value;
  if (!(Number.isInteger(ranksPerNode) && ranksPerNode > 0)) {
    throw new InputError(`${name}.ranksPerNode`, String(ranksPerNode), "a whole number from 1");
  }
  const node = (rank: number): number => Math.floor(rank / ranksPerNode);
  return (from, to) => (node(from) === node(to) ? intraNode : interNode);
}

/** Time the bytes of a boundary take on a link. */
function bytesRule(communication: Communication, numStages: number, numRanks: number) {
  const { bandwidth, bytes } = communication;
  if (bandwidth === undefined || bytes === undefined) {
    if (bandwidth !== undefined) {
      throw new InputError("communication.bytes", "undefined", "given where bandwidth is");
    }
    return () => 0;
  }
  if (typeof bytes !== "number" && !(bytes?.length >= numStages - 1)) {
    const allowed = `a number, or one per boundary: at least ${numStages - 1}`;
    const got = bytes === null ? "null" : `${bytes.length} numbers`;
    throw new InputError("communication.bytes", got, allowed);
  }
  const rule = linkRule("communication.bandwidth", bandwidth, numRanks);
  return (boundary: number, from: number, to: number): number => {
    const rate = rule(from, to);
    const parameter = `communication.bandwidth(${from}, ${to})`;
    if (!(rate > 0)) throw new InputError(parameter, String(rate), "above 0");
    const size = typeof bytes === "number" ? bytes : (bytes[boundary] as number);
    return checkDuration(`communication.bytes[${boundary}]`, size) / rate;
  };
}

/**
 * Costs of a schedule's transfers.
 *
 * @throws InputError for a negative latency, a bandwidth of 0 or less, tables of another size.
 */
export function resolveLinks(schedule: Schedule, communication: Communication = {}): RowLinks {
  const { numStages, numDirections, numRanks, rankOf } = schedule;
  const latencyRule = linkRule("communication.latency", communication.latency ?? 0, numRanks);
  const bytesTime = bytesRule(communication, numStages, numRanks);
  const rows = numStages * numDirections;
  const ids = new Map<number, number>();
  const side = (step: 1 | -1) => {
    const latency = new Float64Array(rows);
    const time = new Float64Array(rows);
    const link = new Int32Array(rows).fill(-1);
    for (let row = 0; row < rows; row++) {
      const stage = row % numStages;
      const source = stage - step;
      if (source < 0 || source >= numStages) continue;
      const from = rankOf[row - step] as number;
      const to = rankOf[row] as number;
      if (from === to) continue;
      const parameter = `communication.latency(${from}, ${to})`;
      latency[row] = checkDuration(parameter, latencyRule(from, to));
      time[row] = bytesTime(Math.min(stage, source), from, to);
      const pair = from * numRanks + to;
      if (!ids.has(pair)) ids.set(pair, ids.size);
      link[row] = ids.get(pair) as number;
    }
    return { latency, time, link };
  };
  const F = side(1);
  const B = side(-1);
  return {
    latencyF: F.latency,
    bytesTimeF: F.time,
    latencyB: B.latency,
    bytesTimeB: B.time,
    ...(communication.exclusiveLinks && { linkF: F.link, linkB: B.link }),
    numLinks: ids.size,
  };
}
