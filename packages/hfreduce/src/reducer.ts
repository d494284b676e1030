// The public face of the collectives on one rank: checks, chooses, queues the native operation.
// What then happens between ranks is in kernels/.

import { InputError } from "@open-infra/errors";
import {
  type CommEvent,
  doneEvent,
  type Group,
  GroupClosedError,
  type Window,
} from "@open-infra/ranks";
import { type DType, dtypeBits, type Tensor } from "@open-infra/tensor";
import { algorithmsOf, chooseAlgorithm } from "./choose.ts";
import {
  type Algorithm,
  accumulatorBytes,
  algorithms,
  dtypeCodes,
  hfreduceKernel,
  isReducible,
  type Kind,
  kernelConstants,
  kinds,
  type NativeOp,
  type ReduceOp,
  reduceOps,
  reducibleDtypes,
} from "./kernel.ts";
import type { ReducerLayout } from "./layout.ts";
import {
  bufferWords,
  checkApart,
  checkOperand,
  type Devices,
  type Operand,
  type Registered,
} from "./operands.ts";
import { Frame, laneTable, maxWindows, NativeTable, nodeMates } from "./tables.ts";
import { doubleTree, laneCount, type Members, rootedTrees } from "./topology.ts";

/** How an operation is called. */
export interface CallOptions {
  /** @default "auto": by size and number of nodes */
  readonly algorithm?: Algorithm | "auto";
  /**
   * Runs on this thread if nothing is queued, instead of handing over to the communication thread,
   * and returns when done: for small operations that are waited for at once. @default false
   */
  readonly blocking?: boolean;
}

/** How numbers are combined and sent. */
export interface ReduceOptions extends CallOptions {
  /** @default "sum" */
  readonly op?: ReduceOp;
  /**
   * Partial sums between nodes: as accumulated (f32 for the small floats), so that the result is
   * rounded once; or as elements, half or a quarter of the bytes and one rounding a hop.
   * @default "accumulator"
   */
  readonly wire?: "accumulator" | "dtype";
}

/** Where results go. */
export interface AllreduceOptions extends ReduceOptions {
  /** @default the source, in place */
  readonly out?: Devices;
}

export interface RootOptions {
  /** A rank of the world, one of the members. */
  readonly root: number;
}

/** Made by {@link openReducer}. */
export interface ReducerInit {
  readonly group: Group;
  readonly members: Members;
  readonly me: number;
  readonly layout: ReducerLayout;
  readonly window: Window;
  readonly sameProcess: boolean;
  readonly name: string;
}

/** An operation, checked. */
interface Call {
  readonly kind: Kind;
  readonly op: NativeOp;
  readonly wire: "accumulator" | "dtype";
  readonly algorithm: Algorithm | "auto";
  readonly blocking: boolean;
  /** Elements of the whole, or of a block. */
  readonly elements: number;
  readonly dtype: DType;
  readonly devices: number;
  /** World rank; −1 where there is none. */
  readonly root: number;
  readonly sources: Operand | undefined;
  readonly outs: Operand | undefined;
}

/** Neighbours and greetings of one kind of operation. */
interface Plan {
  readonly lanes: NativeTable;
  readonly greets: NativeTable;
  readonly greetCount: number;
  readonly lag: number;
}

/** One rank's collectives over a set of members. Operations run in the order they are called. */
export class HfReduce {
  readonly group: Group;
  /** World ranks that take part, ascending. */
  readonly members: readonly number[];
  readonly layout: ReducerLayout;
  readonly #init: ReducerInit;
  readonly #frame: Frame;
  readonly #plans = new Map<string, Plan>();
  readonly #registered: Registered[] = [];
  readonly #windows: Window[] = [];
  #seq = 0;
  #lastAlgorithm: Algorithm = "small";
  #last: { readonly plan: Plan; readonly small: boolean; readonly seq: number } | undefined;
  #open = true;

  /** Use {@link openReducer}. */
  constructor(init: ReducerInit) {
    this.#init = init;
    this.group = init.group;
    this.members = init.members.ranks;
    this.layout = init.layout;
    this.#frame = new Frame(init.members, init.me, init.layout, init.sameProcess);
  }

  /** Nodes that the members are on, as this reducer sees them. */
  get nodes(): number {
    return this.#init.members.nodeStart.length - 1;
  }

  /** What `auto` chose for the last operation; the order of additions follows from it. */
  get lastAlgorithm(): Algorithm {
    return this.#lastAlgorithm;
  }

  /**
   * Combines what all devices of all members bring; every device gets the same bits.
   *
   * @throws InputError for operands that do not fit; the event throws RankMismatchError naming a
   *   rank that brings something else, RankTimeoutError, RankDeadError, GroupAbortedError.
   */
  allreduce(sources: Devices, options: AllreduceOptions = {}): CommEvent {
    const from = this.#operand("sources", sources);
    const outs = options.out === undefined ? from : this.#operand("out", options.out);
    this.#expectSame(from, outs, from.size);
    checkApart(from, outs, () => 0);
    return this.#run({
      ...this.#reduction("allreduce", from, options),
      elements: from.size,
      root: -1,
      sources: from,
      outs,
    });
  }

  /** The same, but only the root's devices get the result. Other ranks give no `out`. */
  reduce(sources: Devices, options: AllreduceOptions & RootOptions): CommEvent {
    const from = this.#operand("sources", sources);
    const isRoot = this.#expectRoot(options.root) === this.#init.me;
    if (!isRoot && options.out !== undefined) {
      throw new InputError("out", "given", `nothing: the root is rank ${options.root}`);
    }
    const outs = options.out === undefined ? from : this.#operand("out", options.out);
    this.#expectSame(from, outs, from.size);
    checkApart(from, outs, () => 0);
    return this.#run({
      ...this.#reduction("reduce", from, options),
      elements: from.size,
      root: options.root,
      sources: from,
      outs: isRoot ? outs : undefined,
    });
  }

  /** Every device of every member gets what the root's first device holds. Any dtype. */
  broadcast(buffers: Devices, options: CallOptions & RootOptions): CommEvent {
    const all = this.#operand("buffers", buffers);
    const isRoot = this.#expectRoot(options.root) === this.#init.me;
    return this.#run({
      ...this.#copying("broadcast", all, options),
      elements: all.size,
      root: options.root,
      sources: isRoot ? all : undefined,
      outs: all,
    });
  }

  /**
   * Combines, and gives each device its block: device `d` of member `m` of `M` devices each gets
   * block `m · M + d`. `out` may be the source's own block of it.
   *
   * @param sources All blocks.
   * @param out One block for each device.
   */
  reduceScatter(sources: Devices, out: Devices, options: ReduceOptions = {}): CommEvent {
    const from = this.#operand("sources", sources);
    const outs = this.#operand("out", out);
    this.#expectSame(outs, from, outs.size * this.members.length * outs.tensors.length);
    const block = (outs.tensors[0] as Tensor).byteLength;
    checkApart(from, outs, (d) => this.#blockOf(d, outs.tensors.length) * block);
    return this.#run({
      ...this.#reduction("reduceScatter", from, options),
      elements: outs.size,
      root: -1,
      sources: from,
      outs,
    });
  }

  /**
   * Every device of every member gets all blocks, in the order of {@link reduceScatter}. A source
   * may be its own block of `out`. Any dtype.
   */
  allGather(sources: Devices, out: Devices, options: CallOptions = {}): CommEvent {
    const from = this.#operand("sources", sources);
    const outs = this.#operand("out", out);
    this.#expectSame(from, outs, from.size * this.members.length * from.tensors.length);
    const block = (from.tensors[0] as Tensor).byteLength;
    checkApart(from, outs, (d) => -this.#blockOf(d, from.tensors.length) * block);
    return this.#run({
      ...this.#copying("allGather", from, options),
      elements: from.size,
      root: -1,
      sources: from,
      outs,
    });
  }

  /**
   * A tensor that ranks of other processes of the host read and write in place: without it, their
   * operations go through windows, one more copy each way. All ranks of the group call it in the
   * same order with the same size.
   */
  async allocate<D extends DType>(shape: readonly number[], dtype: D): Promise<Tensor<D>> {
    this.#expectOpen();
    const elements = shape.reduce((product, dim) => product * dim, 1);
    const bytes = Math.ceil((elements * dtypeBits[dtype]) / 8);
    if (this.#frame.windowCount >= maxWindows) {
      throw new InputError("allocate", `call ${maxWindows + 1}`, `at most ${maxWindows} tensors`);
    }
    const name = `${this.#init.name}/${this.#frame.windowCount}`;
    const window = await this.group.openWindow({ name, bytes });
    const number = this.#frame.addWindow(window.address);
    this.#windows.push(window);
    this.#registered.push({ window: number, address: window.dataAddress(), bytes });
    return window.tensor(dtype, shape);
  }

  /** Waits for what is queued and lets go; all ranks of the group call it together. */
  close(): void {
    if (!this.#open) return;
    this.group.stream.record().wait();
    this.#open = false;
    this.group.closeWindows([...this.#windows, this.#init.window]);
  }

  #operand(what: string, devices: Devices): Operand {
    this.#expectOpen();
    return checkOperand(what, devices, this.layout.maxDevices);
  }

  #expectOpen(): void {
    if (!this.#open) throw new GroupClosedError(`reducer ${this.#init.name}`);
  }

  #expectSame(one: Operand, other: Operand, size: number): void {
    if (
      one.dtype === other.dtype &&
      other.size === size &&
      one.tensors.length === other.tensors.length
    ) {
      return;
    }
    const got = `${other.tensors.length} × ${other.dtype}[${other.size}]`;
    throw new InputError("buffers", got, `${one.tensors.length} × ${one.dtype}[${size}]`);
  }

  #expectRoot(root: number): number {
    const member = this.members.indexOf(root);
    if (member < 0) throw new InputError("root", `${root}`, `one of ranks ${this.members}`);
    return member;
  }

  #blockOf(device: number, devices: number): number {
    return this.#init.me * devices + device;
  }

  #reduction(
    kind: Kind,
    from: Operand,
    options: ReduceOptions,
  ): Pick<Call, "kind" | "op" | "wire" | "algorithm" | "blocking" | "dtype" | "devices"> {
    const { op = "sum", wire = "accumulator", algorithm = "auto", blocking = false } = options;
    const { dtype } = from;
    if (!isReducible(dtype)) throw new InputError("dtype", dtype, reducibleDtypes.join(", "));
    if (!reduceOps.includes(op)) throw new InputError("op", `${op}`, reduceOps.join(", "));
    if (op === "avg" && dtype.startsWith("i")) {
      throw new InputError("op", `avg of ${dtype}`, "sum, max or min, which stay whole numbers");
    }
    return { kind, op, wire, algorithm, blocking, dtype, devices: from.tensors.length };
  }

  #copying(
    kind: Kind,
    from: Operand,
    options: CallOptions,
  ): Pick<Call, "kind" | "op" | "wire" | "algorithm" | "blocking" | "dtype" | "devices"> {
    const { algorithm = "auto", blocking = false } = options;
    const { dtype, tensors } = from;
    const devices = tensors.length;
    return { kind, op: "copy", wire: "dtype", algorithm, blocking, dtype, devices };
  }

  #choose(call: Call): Algorithm {
    const { kind, algorithm, elements, devices, dtype, op } = call;
    const members = this.members.length;
    const bytes = (elements * dtypeBits[dtype]) / 8;
    const scattered = kind === "reduceScatter" || kind === "allGather";
    const sent = devices > 1 && op !== "copy" ? elements * accumulatorBytes(dtype) : bytes;
    const facts = {
      kind,
      bytes: scattered ? bytes * devices * members : bytes,
      pairBytes: scattered ? sent * devices : sent,
      members,
      nodes: this.nodes,
      smallBytes: this.layout.smallBytes,
    };
    if (algorithm === "auto") return chooseAlgorithm(facts);
    if (!algorithmsOf(kind).includes(algorithm)) {
      throw new InputError("algorithm", algorithm, algorithmsOf(kind).join(", "));
    }
    if (algorithm === "small" && facts.pairBytes > this.layout.smallBytes) {
      const allowed = `tree or ring for more than ${this.layout.smallBytes} bytes`;
      throw new InputError("algorithm", `small for ${facts.pairBytes} bytes`, allowed);
    }
    return algorithm;
  }

  /** Elements (bytes, where there is no arithmetic) that one turn moves in each part. */
  #chunk({ op, dtype }: Call): number {
    const { slotBytes, stageBytes } = this.layout;
    const unit = op === "copy" ? 1 : accumulatorBytes(dtype);
    const part = Math.floor(stageBytes / (laneCount(this.#init.members) * 2) / 64) * 64;
    const room = stageBytes > 0 ? Math.min(slotBytes, part) : slotBytes;
    return Math.max(64, Math.floor(room / unit / 64) * 64);
  }

  #plan(algorithm: Algorithm, root: number): Plan {
    const key = `${algorithm === "small"}/${root}`;
    let plan = this.#plans.get(key);
    if (plan !== undefined) return plan;
    const { members, me } = this.#init;
    const trees = root < 0 ? doubleTree(this.nodes) : rootedTrees(this.nodes, this.#nodeOf(root));
    const { words, neighbours } = laneTable(members, me, trees);
    const everyone = members.ranks.map((_, member) => member);
    const all = algorithm === "small" ? everyone : [...nodeMates(members, me), ...neighbours];
    const greets = [...new Set(all)].filter((member) => member !== me).sort((a, b) => a - b);
    plan = {
      lanes: new NativeTable(words),
      greets: new NativeTable(greets),
      greetCount: greets.length,
      lag: this.layout.lag,
    };
    this.#plans.set(key, plan);
    return plan;
  }

  #nodeOf(root: number): number {
    const { nodeStart } = this.#init.members;
    return nodeStart.findLastIndex((start) => start <= this.members.indexOf(root));
  }

  #run(call: Call): CommEvent {
    const { sources, outs, dtype, devices, elements, kind, root } = call;
    const algorithm = this.#choose(call);
    const plan = this.#plan(algorithm, root);
    const { members, window } = this.#init;
    if (members.ranks.length === 1 && elements === 0) return doneEvent;
    const words: number[] = [];
    for (const side of [sources, outs]) {
      for (let d = 0; d < devices; d++) {
        words.push(...bufferWords(side?.tensors[d], this.#registered));
      }
    }
    const buffers = new NativeTable(words);
    this.#lastAlgorithm = algorithm;
    const small = algorithm === "small";
    const last = this.#last;
    // Small operations in a row are held together by their greetings.
    const waits = last !== undefined && !(small && last.small);
    const seq = ++this.#seq;
    this.#last = { plan, small, seq };
    const values = {
      window,
      frame: this.#frame.table.address,
      lanes: plan.lanes.address,
      buffers: buffers.address,
      greets: plan.greets.address,
      last: waits ? last.plan.greets.address : null,
      greet_count: plan.greetCount,
      last_count: waits ? last.plan.greetCount : 0,
      last_seq: waits ? last.seq : 0,
      seq,
      kind: kinds[kind],
      algorithm: algorithms[algorithm],
      count: call.op === "copy" ? (elements * dtypeBits[dtype]) / 8 : elements,
      elements,
      devices,
      root: root < 0 ? -1 : this.members.indexOf(root),
      dtype: dtypeCodes[dtype],
      chunk: this.#chunk(call),
      lag: plan.lag,
    };
    const operation = `${kind} of ${dtype}[${elements}]`;
    const keep = [buffers, plan, last?.plan, this.#frame, sources, outs];
    const constants = kernelConstants(dtype, call.op, call.wire);
    const options = { operation, keep };
    if (!call.blocking) return this.group.enqueue(hfreduceKernel, constants, values, options);
    this.group.run(hfreduceKernel, constants, values, options);
    return doneEvent;
  }
}
