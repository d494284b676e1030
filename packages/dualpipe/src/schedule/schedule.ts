// The one representation of a pipeline schedule: for each rank the ordered list of what it does,
// as columns of numbers, so that a thousand ranks times thousands of micro-batches fit in memory
// and are walked fast. Builders write it; the validator, the simulator, the exporters and the
// executor read it. It knows no times and no tensors.
//
// A model is cut into `numStages` stages. A micro-batch flows through them along a direction: most
// schedules have one; DualPipe has two, each with its own copy of every stage and its own numbering
// of micro-batches from 0. `rankOf` says which rank holds a stage of a direction.

/** What an operation does. The numbers are stored in `RankOps.kind`. */
export const OpKind = {
  /** Forward of one stage for one micro-batch. */
  F: 0,
  /** Full backward: gradients of the input and of the weights at once. */
  B: 1,
  /** Backward for the input only; its weights' gradients wait for a `W`. */
  I: 2,
  /** Deferred gradients of the weights. */
  W: 3,
  /** A forward and the full backward of another micro-batch, overlapped: one cell. */
  FB: 4,
  /** Send what the forward of (direction, stage, microBatch) made to the rank of the next stage. */
  SendF: 5,
  /** Receive the input of the forward of (direction, stage, microBatch). */
  RecvF: 6,
  /** Send the input's gradient of (direction, stage, microBatch) to the stage before. */
  SendB: 7,
  /** Receive the output's gradient of (direction, stage, microBatch). */
  RecvB: 8,
} as const;

/** A number of `OpKind`. */
export type OpKind = (typeof OpKind)[keyof typeof OpKind];
/** Its name: `"F"`, `"SendB"`, … */
export type OpKindName = keyof typeof OpKind;

/** Names by number: `opKindNames[OpKind.FB] === "FB"`. */
export const opKindNames: readonly OpKindName[] = Object.keys(OpKind) as OpKindName[];

/** The operations of one rank, in order, as columns of equal length. */
export interface RankOps {
  readonly length: number;
  /** An `OpKind` each. */
  readonly kind: Uint8Array;
  readonly direction: Uint8Array;
  readonly stage: Uint16Array;
  readonly microBatch: Int32Array;
  /** For `FB`: the backward half; elsewhere 0. */
  readonly pairDirection: Uint8Array;
  readonly pairStage: Uint16Array;
  /** For `FB`: the backward half's micro-batch; elsewhere −1. */
  readonly pairMicroBatch: Int32Array;
  /**
   * Which of the builder's phases the operation belongs to, from 1 (DualPipe has 8: the paper's
   * steps); 0 where the builder has none. Used to say where the bubbles are.
   */
  readonly phase: Uint8Array;
}

/** Which builder made a schedule. */
export type ScheduleName =
  | "1f1b"
  | "interleaved-1f1b"
  | "zb1p"
  | "zbv"
  | "dualpipe"
  | "dualpipev"
  | "custom";

/** A whole schedule. */
export interface Schedule {
  readonly name: ScheduleName;
  readonly numRanks: number;
  /** Stages of the model along one direction. */
  readonly numStages: number;
  /** 1, or 2 for DualPipe. */
  readonly numDirections: number;
  /** Micro-batches over all directions (`num_chunks` of the original). */
  readonly numMicroBatches: number;
  /** Micro-batches of each direction; they add up to `numMicroBatches`. */
  readonly microBatchesOf: readonly number[];
  /** Rank of stage `s` of direction `d` at `[d * numStages + s]`. */
  readonly rankOf: Int32Array;
  readonly ranks: readonly RankOps[];
  /** Whether sends and receives stand among the operations; see `withCommunication`. */
  readonly hasCommunication: boolean;
}

/** One operation as an object, for people, tests and JSON; the columns are for loops. */
export interface Op {
  readonly kind: OpKindName;
  readonly direction: number;
  readonly stage: number;
  readonly microBatch: number;
  readonly pair?: {
    readonly direction: number;
    readonly stage: number;
    readonly microBatch: number;
  };
  readonly phase: number;
}

/** Operation `index` of a rank as an object. */
export function opAt(ops: RankOps, index: number): Op {
  const kind = opKindNames[ops.kind[index] as number] as OpKindName;
  const op = {
    kind,
    direction: ops.direction[index] as number,
    stage: ops.stage[index] as number,
    microBatch: ops.microBatch[index] as number,
    phase: ops.phase[index] as number,
  };
  if (kind !== "FB") return op;
  return {
    ...op,
    pair: {
      direction: ops.pairDirection[index] as number,
      stage: ops.pairStage[index] as number,
      microBatch: ops.pairMicroBatch[index] as number,
    },
  };
}

/** What a `RankOpsBuilder` takes: one operation. */
export type OpInput = Omit<Op, "phase"> & { readonly phase?: number };

/** Columns that grow; `finish()` gives them at their exact length and ends the builder's use. */
export class RankOpsBuilder {
  #length = 0;
  #kind: Uint8Array;
  #direction: Uint8Array;
  #stage: Uint16Array;
  #microBatch: Int32Array;
  #pairDirection: Uint8Array;
  #pairStage: Uint16Array;
  #pairMicroBatch: Int32Array;
  #phase: Uint8Array;

  /** @param capacity Operations expected; more are taken too. */
  constructor(capacity = 64) {
    this.#kind = new Uint8Array(capacity);
    this.#direction = new Uint8Array(capacity);
    this.#stage = new Uint16Array(capacity);
    this.#microBatch = new Int32Array(capacity);
    this.#pairDirection = new Uint8Array(capacity);
    this.#pairStage = new Uint16Array(capacity);
    this.#pairMicroBatch = new Int32Array(capacity);
    this.#phase = new Uint8Array(capacity);
  }

  get length(): number {
    return this.#length;
  }

  /** Appends F, B, I, W or one end of a transfer. */
  push(kind: OpKind, direction: number, stage: number, microBatch: number, phase = 0): void {
    this.#append(kind, direction, stage, microBatch, phase);
    this.#pairMicroBatch[this.#length - 1] = -1;
  }

  /** Appends the forward of one micro-batch overlapped with the full backward of another. */
  pushPair(
    forward: { readonly direction: number; readonly stage: number; readonly microBatch: number },
    backward: { readonly direction: number; readonly stage: number; readonly microBatch: number },
    phase = 0,
  ): void {
    this.#append(OpKind.FB, forward.direction, forward.stage, forward.microBatch, phase);
    const i = this.#length - 1;
    this.#pairDirection[i] = backward.direction;
    this.#pairStage[i] = backward.stage;
    this.#pairMicroBatch[i] = backward.microBatch;
  }

  /** Appends operation `index` of another list. */
  copy(from: RankOps, index: number): void {
    this.#append(
      from.kind[index] as OpKind,
      from.direction[index] as number,
      from.stage[index] as number,
      from.microBatch[index] as number,
      from.phase[index] as number,
    );
    const i = this.#length - 1;
    this.#pairDirection[i] = from.pairDirection[index] as number;
    this.#pairStage[i] = from.pairStage[index] as number;
    this.#pairMicroBatch[i] = from.pairMicroBatch[index] as number;
  }

  /** Appends an operation given as an object. */
  add(op: OpInput): void {
    if (op.pair === undefined) {
      this.push(OpKind[op.kind], op.direction, op.stage, op.microBatch, op.phase ?? 0);
    } else this.pushPair(op, op.pair, op.phase ?? 0);
  }

  /** The columns at their exact length; no copy when the capacity was exact. */
  finish(): RankOps {
    const n = this.#length;
    const exact = n === this.#kind.length;
    const cut = <T extends { slice(from: number, to: number): T }>(from: T): T =>
      exact ? from : from.slice(0, n);
    return {
      length: n,
      kind: cut(this.#kind),
      direction: cut(this.#direction),
      stage: cut(this.#stage),
      microBatch: cut(this.#microBatch),
      pairDirection: cut(this.#pairDirection),
      pairStage: cut(this.#pairStage),
      pairMicroBatch: cut(this.#pairMicroBatch),
      phase: cut(this.#phase),
    };
  }

  #append(kind: OpKind, direction: number, stage: number, microBatch: number, phase: number): void {
    if (this.#length === this.#kind.length) this.#grow();
    const i = this.#length++;
    this.#kind[i] = kind;
    this.#direction[i] = direction;
    this.#stage[i] = stage;
    this.#microBatch[i] = microBatch;
    this.#phase[i] = phase;
  }

  #grow(): void {
    const capacity = Math.max(64, this.#length * 2);
    const wider = <T extends { set(from: T): void }>(from: T, to: T): T => {
      to.set(from);
      return to;
    };
    this.#kind = wider(this.#kind, new Uint8Array(capacity));
    this.#direction = wider(this.#direction, new Uint8Array(capacity));
    this.#stage = wider(this.#stage, new Uint16Array(capacity));
    this.#microBatch = wider(this.#microBatch, new Int32Array(capacity));
    this.#pairDirection = wider(this.#pairDirection, new Uint8Array(capacity));
    this.#pairStage = wider(this.#pairStage, new Uint16Array(capacity));
    this.#pairMicroBatch = wider(this.#pairMicroBatch, new Int32Array(capacity));
    this.#phase = wider(this.#phase, new Uint8Array(capacity));
  }
}
