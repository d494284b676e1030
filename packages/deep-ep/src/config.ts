// Tuned settings and buffer-size hints of the original's first version, value for value. Here a
// worker is a thread where the original has an SM, and tokens are written to their final place
// directly, so that of the chunk sizes only `rdmaSend` matters (tokens in one put over a link). The
// hints say what the original would allocate; they are upper bounds for what this buffer touches.

import { InputError } from "@open-infra/errors";

/** What {@link Config} is made from; the original's names without `num_max_…_chunked_…_tokens`. */
export interface ConfigInit {
  /** Threads of the communication stream; even in the original, any number here. @default 20 */
  readonly numWorkers?: number;
  readonly nvlSend?: number;
  readonly nvlRecv?: number;
  readonly rdmaSend?: number;
  readonly rdmaRecv?: number;
}

/** Ranks of a node that the original's formulas assume. */
const nvlPeersMax = 8;
/** Top-k and scales that its formulas leave room for. */
const topkMax = 128;
const scalesMax = 128;
const sourceMetaBytes = 8;

const align = (value: number, to: number): number => Math.ceil(value / to) * to;

/** Chunk sizes of one operation, with the original's constraints. */
export class Config {
  readonly numWorkers: number;
  readonly nvlSend: number;
  readonly nvlRecv: number;
  readonly rdmaSend: number;
  readonly rdmaRecv: number;

  /** @throws InputError for sizes that the original refuses */
  constructor(init: ConfigInit = {}) {
    this.numWorkers = init.numWorkers ?? 20;
    this.nvlSend = init.nvlSend ?? 6;
    this.nvlRecv = init.nvlRecv ?? 256;
    this.rdmaSend = init.rdmaSend ?? 6;
    for (const name of ["numWorkers", "nvlSend", "nvlRecv", "rdmaSend"] as const) {
      expectCount(name, this[name], 1);
    }
    // A ring holds whole chunks.
    this.rdmaRecv = align(init.rdmaRecv ?? 256, this.rdmaSend);
    if (this.nvlSend >= this.nvlRecv) {
      throw new InputError("nvlSend", `${this.nvlSend}`, `less than nvlRecv, ${this.nvlRecv}`);
    }
    if (this.rdmaSend > this.rdmaRecv / 2) {
      const allowed = `at most half of rdmaRecv, ${this.rdmaRecv}`;
      throw new InputError("rdmaSend", `${this.rdmaSend}`, allowed);
    }
  }

  /**
   * Bytes of the original's NVLink buffer. `hiddenBytes` is hidden × max(element bytes, 2).
   *
   * @throws InputError
   */
  getNvlBufferSizeHint(hiddenBytes: number, numRanks: number): number {
    expectCount("hiddenBytes", hiddenBytes, 1);
    const nodes = nodesOf(numRanks);
    const peers = Math.min(numRanks, nvlPeersMax);
    const channels = Math.floor(this.numWorkers / 2);
    const perToken = hiddenBytes + sourceMetaBytes + topkMax * (8 + 4) + scalesMax * 4;
    const tokens = channels * peers * this.nvlRecv * perToken;
    return align(tokens + channels * peers * (2 * nodes + 3) * 4, 128);
  }

  /** Bytes of the original's RDMA buffer; 0 for one node. @throws InputError */
  getRdmaBufferSizeHint(hiddenBytes: number, numRanks: number): number {
    expectCount("hiddenBytes", hiddenBytes, 1);
    if (numRanks <= nvlPeersMax) return 0;
    const nodes = nodesOf(numRanks);
    const channels = Math.floor(this.numWorkers / 2);
    const perToken = hiddenBytes + sourceMetaBytes + topkMax * (8 + 4) + scalesMax * 4 + 16;
    const perNode = (2 * nvlPeersMax + 2) * 2 * 4 + this.rdmaRecv * 2 * perToken;
    return align(channels * nodes * perNode, 128);
  }
}

/** dispatch: nvlSend, nvlRecv, rdmaSend; rdmaRecv is 128 everywhere. */
const dispatchTable: readonly (readonly [ranks: number, ...sizes: number[]])[] = [
  [2, 24, 256, 6],
  [4, 6, 256, 6],
  [8, 6, 256, 6],
  [16, 36, 288, 20],
  [24, 32, 288, 8],
  [32, 32, 288, 8],
  [48, 32, 288, 8],
  [64, 32, 288, 8],
  [96, 20, 480, 12],
  [128, 20, 560, 12],
  [144, 32, 720, 12],
  [160, 28, 720, 12],
];

const combineTable: readonly (readonly [ranks: number, ...sizes: number[]])[] = [
  [2, 10, 256, 6],
  [4, 9, 256, 6],
  [8, 4, 256, 6],
  [16, 4, 288, 12],
  [24, 1, 288, 8],
  [32, 1, 288, 8],
  [48, 1, 288, 8],
  [64, 1, 288, 8],
  [96, 1, 480, 8],
  [128, 1, 560, 8],
  [144, 2, 720, 8],
  [160, 2, 720, 8],
];

/**
 * The original's setting for dispatch. For a number of ranks that its table lacks, that of the next
 * larger one; beyond the table the last.
 */
export function getDispatchConfig(numRanks: number, numWorkers = 20): Config {
  return fromTable(dispatchTable, numRanks, numWorkers);
}

/** The same for combine. */
export function getCombineConfig(numRanks: number, numWorkers = 20): Config {
  return fromTable(combineTable, numRanks, numWorkers);
}

function fromTable(table: typeof dispatchTable, numRanks: number, numWorkers: number): Config {
  expectCount("numRanks", numRanks, 1);
  const row = table.find(([ranks]) => ranks >= numRanks) ?? table.at(-1);
  const [, nvlSend = 6, nvlRecv = 256, rdmaSend = 6] = row ?? [];
  return new Config({ numWorkers, nvlSend, nvlRecv, rdmaSend, rdmaRecv: 128 });
}

/** What a low-latency buffer is for; equal on all ranks. */
export interface LowLatencyShape {
  readonly numMaxDispatchTokensPerRank: number;
  readonly hidden: number;
  readonly numRanks: number;
  readonly numExperts: number;
}

/**
 * Bytes of the original's low-latency buffer: two of everything, messages of a token and its
 * scales. The number of ranks does not matter to it.
 *
 * @throws InputError
 */
export function getLowLatencyRdmaSizeHint(shape: LowLatencyShape): number {
  const { numMaxDispatchTokensPerRank: tokens, hidden, numExperts } = shape;
  expectCount("numMaxDispatchTokensPerRank", tokens, 1);
  expectCount("hidden", hidden, 1);
  expectCount("numExperts", numExperts, 1);
  const scales = Math.ceil(hidden / 128);
  const dispatchBytes = 16 + Math.max(2 * hidden, hidden + 4 * scales);
  const combineBytes = 4 * scales + 2 * hidden;
  const send = Math.max(tokens * dispatchBytes, numExperts * tokens * combineBytes);
  const receive = numExperts * tokens * Math.max(dispatchBytes, combineBytes);
  const signals = align(4 * numExperts, 128);
  const total = 2 * (send + receive + signals);
  return (Math.floor(total / 128) + 1) * 128;
}

function nodesOf(numRanks: number): number {
  expectCount("numRanks", numRanks, 1);
  return Math.ceil(numRanks / nvlPeersMax);
}

/** @throws InputError unless `value` is an integer of at least `low` */
export function expectCount(parameter: string, value: number, low: number): void {
  if (Number.isSafeInteger(value) && value >= low) return;
  throw new InputError(parameter, `${value}`, `an integer of at least ${low}`);
}
