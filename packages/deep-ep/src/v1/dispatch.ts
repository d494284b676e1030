// Dispatch of the normal mode: counts first, then memory for exactly what comes, then rows straight
// to their final place. The kernels are kernels/ep_notify.c and ep_dispatch.c.

import { InputError } from "@open-infra/errors";
import { type DType, dtypeBits, Tensor } from "@open-infra/tensor";
import { type Config, expectCount } from "../config.ts";
import type { EventOverlap } from "../event.ts";
import { tokensOf } from "../fp8.ts";
import { checkExperts, type DispatchLayout, expectTopk } from "../layout.ts";
import { DispatchHandle } from "./handle.ts";
import { dispatchKernel, notifyKernel } from "./kernels.ts";
import { type Block, Reservation } from "./memory.ts";
import { type CallOptions, OperationRecord, type Operations, settle } from "./operation.ts";

/** Tokens, or their e4m3 codes with the scales of each. */
export type DispatchInput = Tensor | readonly [codes: Tensor<"e4m3fn">, scales: Tensor];

/** How tokens are dispatched; see `Buffer.dispatch`. */
export interface DispatchOptions extends CallOptions, Partial<DispatchLayout> {
  /** A layout of before: no counting, and no selection. */
  readonly handle?: DispatchHandle;
  /** `[tokens, k]` i64; −1 selects nothing. */
  readonly topkIdx?: Tensor<"i64">;
  /** `[tokens, k]` f32. */
  readonly topkWeights?: Tensor<"f32">;
  /** Counts of `numRecvTokensPerExpertList` are rounded up to it. @default 1 */
  readonly expertAlignment?: number;
  /** A number of rows that always suffices: then the host waits for no counts. @default 0, off */
  readonly numWorstTokens?: number;
  readonly config?: Config;
}

/** What came. Disposing it gives all its memory back, the handle's too. */
export interface DispatchResult<X extends DispatchInput = DispatchInput> extends Disposable {
  /** Of the input's kind: rows by source rank, then token; scales are row-major. */
  readonly recvX: X;
  /** `[rows, k]` local experts, −1 for those of other ranks. */
  readonly recvTopkIdx: Tensor<"i64"> | undefined;
  /** `[rows, k]`, 0 for other ranks' experts. */
  readonly recvTopkWeights: Tensor<"f32"> | undefined;
  /** Aligned counts of the local experts; empty with `numWorstTokens` and with a handle. */
  readonly numRecvTokensPerExpertList: readonly number[];
  readonly handle: DispatchHandle;
  readonly event: EventOverlap;
}

interface Input {
  readonly data: Tensor;
  readonly scales: Tensor | undefined;
  readonly tokens: number;
  readonly rowBytes: number;
  readonly element: number;
  readonly scaleCount: number;
}

/** Element types that travel, by the number that ranks compare. */
const elements: readonly DType[] = ["bf16", "f16", "f32", "e4m3fn"];
export const elementCode = (dtype: DType): number => elements.indexOf(dtype) + 1;

function readInput(x: DispatchInput): Input {
  const [data, scales] = tokensOf(x);
  const element = elementCode(data.dtype);
  if (data.rank !== 2 || element === 0 || !data.isContiguous) {
    const allowed = "contiguous [tokens, hidden] of bf16, f16, f32, or e4m3fn with scales";
    throw new InputError("x", data.describe(), allowed);
  }
  const tokens = data.dim(0);
  expectCount("hidden", data.dim(1), 1);
  if (scales !== undefined) {
    const typed = scales.dtype === "f32" || scales.dtype === "i32";
    if (!typed || scales.rank !== 2 || scales.dim(0) !== tokens) {
      throw new InputError("scales", scales.describe(), `f32 or i32 of [${tokens}, blocks]`);
    }
  }
  return {
    data,
    scales,
    tokens,
    rowBytes: (data.dim(1) * dtypeBits[data.dtype]) / 8,
    element: element * 2 + (scales?.dtype === "i32" ? 1 : 0),
    scaleCount: scales?.dim(1) ?? 0,
  };
}

interface Selection {
  readonly choice: Tensor<"i64"> | null;
  readonly weights: Tensor<"f32"> | null;
  readonly topk: number;
}

function readSelection(
  { topkIdx, topkWeights, handle }: DispatchOptions,
  tokens: number,
): Selection {
  if (topkIdx === undefined && topkWeights === undefined) {
    return { choice: null, weights: null, topk: 0 };
  }
  if (handle !== undefined) {
    throw new InputError("topkIdx", "given", "nothing beside a handle, which knows the selection");
  }
  if (topkIdx === undefined || topkWeights === undefined) {
    throw new InputError("topkIdx and topkWeights", "one of them", "both or none");
  }
  const [rows, topk] = expectTopk(topkIdx);
  if (rows !== tokens || !topkIdx.isContiguous) {
    throw new InputError("topkIdx", topkIdx.describe(), `contiguous i64 of [${tokens}, k]`);
  }
  if (topkWeights.dtype !== "f32" || `${topkWeights.shape}` !== `${topkIdx.shape}`) {
    throw new InputError("topkWeights", topkWeights.describe(), `f32 of [${topkIdx.shape}]`);
  }
  return { choice: topkIdx, weights: topkWeights.contiguous(), topk };
}

function readLayout(options: DispatchOptions, tokens: number, ranks: number): DispatchLayout {
  const { numTokensPerRank, numTokensPerRdmaRank, numTokensPerExpert, isTokenInRank } = options;
  const expect = (name: string, tensor: Tensor | undefined, dtype: DType, shape: string): void => {
    if (tensor?.dtype === dtype && tensor.isContiguous && `${tensor.shape}` === shape) return;
    throw new InputError(
      name,
      tensor?.describe() ?? "missing",
      `contiguous ${dtype} of [${shape}]`,
    );
  };
  expect("numTokensPerRank", numTokensPerRank, "i32", `${ranks}`);
  expect("isTokenInRank", isTokenInRank, "u8", `${tokens},${ranks}`);
  const experts = numTokensPerExpert?.size ?? 0;
  expect("numTokensPerExpert", numTokensPerExpert, "i32", `${experts}`);
  checkExperts(experts, ranks);
  return {
    numTokensPerRank: numTokensPerRank as Tensor<"i32">,
    numTokensPerRdmaRank,
    numTokensPerExpert: numTokensPerExpert as Tensor<"i32">,
    isTokenInRank: isTokenInRank as Tensor<"u8">,
  };
}

/** What a handle has before the rows. */
type Counted = Omit<
  ConstructorParameters<typeof DispatchHandle>[0],
  "numRecvRows" | "forwardPositions" | "recvSrcIdx"
>;

/** Most experts of a rank, for the size of messages. */
export const localExpertsMax = 4096;

function notify(
  ops: Operations,
  input: Input,
  selection: Selection,
  layout: DispatchLayout,
  wait: boolean,
): Counted {
  const { group } = ops;
  const { size, nodes, ranksPerNode } = group;
  const numExperts = layout.numTokensPerExpert.size;
  const local = numExperts / size;
  if (local > localExpertsMax) {
    throw new InputError("numExperts", `${numExperts}`, `at most ${localExpertsMax} a rank`);
  }
  const counted: Counted = {
    rank: group.rank,
    size,
    nodes,
    ranksPerNode,
    numTokens: input.tokens,
    numExperts,
    isTokenInRank: layout.isTokenInRank,
    counts: Tensor.empty([size, size], "i32"),
    nodeCounts: Tensor.empty([size, nodes], "i32"),
    receivedPerExpert: Tensor.empty([local], "i32"),
    positions: Tensor.empty([input.tokens, size], "i32"),
    nodePositions: Tensor.empty([input.tokens, nodes], "i32"),
  };
  const event = group.enqueue(
    notifyKernel,
    {},
    {
      ...stepValues(ops, input, selection.topk, counted),
      scales: input.scaleCount,
      in_rank: layout.isTokenInRank,
      per_rank: layout.numTokensPerRank,
      per_expert: layout.numTokensPerExpert,
      received_per_expert: counted.receivedPerExpert,
    },
    { operation: "dispatch: counts", threads: 1, keep: layout },
  );
  if (wait) event.wait();
  return counted;
}

function stepValues(
  ops: Operations,
  input: Pick<Input, "tokens" | "rowBytes" | "element">,
  topk: number,
  counted: Counted,
) {
  return {
    window: ops.window,
    slot_bytes: ops.slotBytes,
    step: ops.nextStep(),
    row_bytes: input.rowBytes,
    element: input.element,
    topk,
    experts: counted.numExperts,
    ranks_per_node: counted.ranksPerNode,
    options: 0,
    tokens: input.tokens,
    counts: counted.counts,
    node_counts: counted.nodeCounts,
    positions: counted.positions,
    node_positions: counted.nodePositions,
  };
}

/** Rows that this rank forwards for sources of other nodes. */
function forwardedRows(ops: Operations, { counts: _, nodeCounts, nodes }: Counted): number {
  const { group } = ops;
  const [, ...sources] = ops.servedBy(group.rank);
  const numbers = nodeCounts.raw();
  return sources.reduce((sum, s) => sum + (numbers[s * nodes + group.node] as number), 0);
}

/** Bytes of a record; ep_sizes_of in kernels/ep_rows.h. */
function recordBytes(input: Input, topk: number, ranksPerNode: number): number {
  const body = Math.ceil(input.rowBytes / 4) * 4 + 4 * input.scaleCount + 8 * topk + 4;
  return Math.ceil((body + ranksPerNode) / 64) * 64;
}

interface Received {
  readonly x: Tensor;
  readonly scales: Tensor | undefined;
  readonly choice: Tensor<"i64"> | undefined;
  readonly weights: Tensor<"f32"> | undefined;
  readonly source: Tensor<"i32">;
}

/** The blocks of one dispatch. */
class Targets {
  readonly reservation: Reservation;
  readonly #memory: Operations["memory"];
  readonly #rows: number;
  readonly #input: Input;
  readonly #topk: number;
  readonly #blocks: Record<"x" | "scales" | "choice" | "weights" | "source", Block | undefined>;
  readonly stage: Block | undefined;

  constructor(ops: Operations, input: Input, topk: number, rows: number, stageBytes: number) {
    this.#memory = ops.memory;
    this.#rows = rows;
    this.#input = input;
    this.#topk = topk;
    this.reservation = new Reservation(ops.memory);
    const take = (bytes: number): Block | undefined => this.reservation.take(rows * bytes);
    this.#blocks = {
      x: take(input.rowBytes),
      scales: take(4 * input.scaleCount),
      choice: take(8 * topk),
      weights: take(4 * topk),
      source: take(4),
    };
    this.stage = this.reservation.take(stageBytes);
    if (!this.reservation.complete) this.reservation.release();
  }

  get places() {
    const { x, scales, choice, weights, source } = this.#blocks;
    return {
      x_at: this.#place(x),
      scales_at: this.#place(scales),
      choice_at: this.#place(choice),
      weights_at: this.#place(weights),
      source_at: this.#place(source),
      stage_at: this.#place(this.stage),
    };
  }

  tensors(): Received {
    const { data, scales, scaleCount } = this.#input;
    const blocks = this.#blocks;
    const rows = this.#rows;
    const make = <D extends DType>(block: Block | undefined, width: number, dtype: D): Tensor<D> =>
      block === undefined
        ? Tensor.empty([rows, width], dtype)
        : this.#memory.tensor(block, [rows, width], dtype);
    const topk = this.#topk;
    return {
      x: make(blocks.x, data.dim(1), data.dtype),
      scales: scales && make(blocks.scales, scaleCount, scales.dtype),
      choice: topk > 0 ? make(blocks.choice, topk, "i64") : undefined,
      weights: topk > 0 ? make(blocks.weights, topk, "f32") : undefined,
      source: make(blocks.source, 1, "i32").reshape([rows]),
    };
  }

  #place(block: Block | undefined): number {
    return block === undefined || !this.reservation.complete ? -1 : this.#memory.placeOf(block);
  }
}

/** Total bytes from which copies go around the caches: they would not be found there again. */
export const pastCachesBytes: number = 1 << 20;

/** See `Buffer.dispatch`. */
export function dispatch<X extends DispatchInput>(
  ops: Operations,
  x: X,
  options: DispatchOptions,
): DispatchResult<X> {
  ops.begin(options);
  const input = readInput(x);
  const selection = readSelection(options, input.tokens);
  const { expertAlignment = 1, numWorstTokens = 0, handle } = options;
  expectCount("expertAlignment", expertAlignment, 1);
  expectCount("numWorstTokens", numWorstTokens, 0);
  const worst = numWorstTokens > 0 && handle === undefined;
  let counted: Counted;
  if (handle !== undefined) {
    if (handle.numTokens !== input.tokens) {
      throw new InputError("x", input.data.describe(), `the handle's ${handle.numTokens} tokens`);
    }
    handle.event?.event.wait();
    counted = handle;
  } else {
    const layout = readLayout(options, input.tokens, ops.group.size);
    counted = notify(ops, input, selection, layout, !worst);
  }
  const forwarded = worst ? numWorstTokens : forwardedRows(ops, counted);
  const rows = worst ? numWorstTokens : receivedRows(counted);
  const perRecord = recordBytes(input, selection.topk, counted.ranksPerNode);
  const stageBytes = counted.nodes > 1 ? forwarded * perRecord : 0;
  const targets = new Targets(ops, input, selection.topk, rows, stageBytes);
  const job = { ops, input, selection, options, counted, targets, rows, forwarded, worst };
  const { event, received, forwardPositions } = move(job);
  const made =
    handle ??
    new DispatchHandle({
      ...counted,
      numRecvRows: rows,
      forwardPositions,
      recvSrcIdx: received.source,
    });
  if (handle === undefined) made.event = event;
  const perExpert = worst || handle !== undefined ? [] : [...counted.receivedPerExpert.raw()];
  return {
    recvX: (received.scales === undefined ? received.x : [received.x, received.scales]) as X,
    recvTopkIdx: received.choice,
    recvTopkWeights: received.weights,
    numRecvTokensPerExpertList: perExpert.map(
      (count) => Math.ceil(count / expertAlignment) * expertAlignment,
    ),
    handle: made,
    event,
    [Symbol.dispose]() {
      settle(event);
      const { x: data, scales, choice, weights, source } = received;
      for (const tensor of [data, scales, choice, weights, source]) tensor?.[Symbol.dispose]();
    },
  };
}

function receivedRows({ counts, rank, size }: Counted): number {
  const numbers = counts.raw();
  let rows = 0;
  for (let source = 0; source < size; source++) rows += numbers[source * size + rank] as number;
  return rows;
}

interface Job {
  readonly ops: Operations;
  readonly input: Input;
  readonly selection: Selection;
  readonly options: DispatchOptions;
  readonly counted: Counted;
  readonly targets: Targets;
  readonly rows: number;
  readonly forwarded: number;
  readonly worst: boolean;
}

interface Moved {
  readonly event: EventOverlap;
  readonly received: Received;
  readonly forwardPositions: Tensor<"i32"> | undefined;
}

function move(job: Job): Moved {
  const { ops, input, selection, options, counted, targets, rows, forwarded, worst } = job;
  const { reservation } = targets;
  const { handle } = options;
  const record = new OperationRecord("dispatch");
  const forwardPositions =
    counted.nodes > 1 ? Tensor.empty([forwarded, counted.ranksPerNode], "i32") : undefined;
  const keep: unknown[] = [record, forwardPositions, targets];
  const event = ops.group.enqueue(
    dispatchKernel,
    {},
    {
      ...stepValues(ops, input, selection.topk, counted),
      ...targets.places,
      op: record.words,
      segments: ops.memory.segments,
      seq: ops.nextSequence(),
      status: reservation.complete ? 0 : 1,
      needed: reservation.neededBytes,
      capacity: ops.memory.capacityBytes,
      rows,
      x: input.data,
      weights: selection.weights,
      forward_positions: forwardPositions ?? null,
      past_caches: rows * input.rowBytes >= pastCachesBytes ? 1 : 0,
      piece_rows: options.config?.rdmaSend ?? 32,
      payload: ops.payload,
      cached: handle === undefined ? 0 : 1,
      worst: worst ? 1 : 0,
      scales: input.scales ?? null,
      scale_row: input.scales?.stride(0) ?? 0,
      scale_column: input.scales?.stride(1) ?? 0,
      scale_count: input.scaleCount,
      choice: selection.choice,
      forward_rows: forwarded,
    },
    {
      operation: handle === undefined ? "dispatch" : "cached dispatch",
      threads: options.config?.numWorkers ?? ops.numWorkers,
      keep,
    },
  );
  if (!reservation.complete) {
    // Nothing will be moved; all ranks learn it together.
    event.wait();
    record.check();
  }
  const received = targets.tensors();
  // The kernel writes to them, even if nobody else holds them.
  keep.push(received);
  ops.releaseAfter(event, [targets.stage]);
  const overlap = ops.finish(event, options, [received], () => record.check());
  return { event: overlap, received, forwardPositions };
}
