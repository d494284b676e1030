// A rank of the tests: runs a seeded list of operations and compares every result with the oracle,
// to the bit. The first difference throws.

import type { Group } from "@open-infra/ranks";
import { type DType, Tensor } from "@open-infra/tensor";
import { type Random, seededRandom } from "@open-infra/testing";
import { type HfReduce, openReducer, type ReducerOptions } from "../../src/index.ts";
import { type Members, membersOf } from "../../src/topology.ts";
import { type Op, type OracleCase, reduced, scattered, throughDtype } from "../oracle.ts";

export const kinds = ["allreduce", "reduce", "broadcast", "reduceScatter", "allGather"] as const;

/** One operation; equal on all ranks. */
export interface Case {
  readonly kind: (typeof kinds)[number];
  readonly dtype: DType;
  readonly op: Op;
  readonly algorithm: "auto" | "small" | "tree" | "ring";
  readonly wire: "accumulator" | "dtype";
  readonly count: number;
  readonly devices: number;
  /** Place of the root among the members. */
  readonly root: number;
  readonly inPlace: boolean;
  /** Buffers in memory that other processes reach. */
  readonly registered: boolean;
  /** Whole small numbers, any numbers, or numbers with NaN and infinities among them. */
  readonly values: "integers" | "reals" | "special";
  readonly seed: number;
}

export interface Script {
  readonly cases: readonly Case[];
  readonly open?: ReducerOptions;
  /** Sets of ranks; @default one of all */
  readonly sets?: readonly (readonly number[])[];
}

const special = [Number.NaN, Infinity, -Infinity, 0, -0];

/** By member and device. */
type Brought = readonly (readonly Float64Array[])[];

const numberOf =
  (all: Brought) =>
  (member: number, device: number, i: number): number =>
    all[member]?.[device]?.[i] as number;

/** What a member's device brings, rounded to the dtype; any rank can tell. */
function bringsOf(c: Case, member: number, device: number, count: number): Float64Array {
  const random = seededRandom(c.seed * 1000 + member * 64 + device);
  const whole = c.dtype.startsWith("i");
  const values = Float64Array.from({ length: count }, () => {
    if (c.values === "integers" || whole) return random.int(-2, 3);
    if (c.values === "special" && random.next() < 0.2) return special[random.int(0, 5)] as number;
    return random.normal() * 4;
  });
  return throughDtype(c.dtype, values);
}

class CaseRun {
  readonly #reducer: HfReduce;
  readonly #case: Case;
  readonly #members: Members;
  readonly #me: number;
  readonly #pool: readonly Tensor[];
  #taken = 0;

  constructor(reducer: HfReduce, members: Members, rank: number, c: Case, pool: readonly Tensor[]) {
    this.#reducer = reducer;
    this.#members = members;
    this.#me = members.ranks.indexOf(rank);
    this.#case = c;
    this.#pool = pool;
  }

  #blocks(): number {
    return this.#members.ranks.length * this.#case.devices;
  }

  /** A buffer from registered memory or from anywhere. */
  #buffer(values: ArrayLike<number>): Tensor {
    const { dtype, registered } = this.#case;
    const tensor = Tensor.from(values, [values.length], dtype);
    if (!registered) return tensor;
    const from = this.#pool[this.#taken++] as Tensor;
    const bytes = from.bytes().subarray(0, tensor.byteLength);
    bytes.set(tensor.bytes());
    return new Tensor({ dtype, shape: tensor.shape, storage: from.storage });
  }

  #buffers(make: (device: number) => ArrayLike<number>): Tensor[] {
    return Array.from({ length: this.#case.devices }, (_, d) => this.#buffer(make(d)));
  }

  run(): void {
    const c = this.#case;
    const size = c.kind === "reduceScatter" ? c.count * this.#blocks() : c.count;
    const all = this.#members.ranks.map((_, m) =>
      Array.from({ length: c.devices }, (_, d) => bringsOf(c, m, d, size)),
    );
    const source = this.#buffers((d) => all[this.#me]?.[d] as Float64Array);
    if (c.kind === "allreduce") this.#allreduce(source, all);
    else if (c.kind === "reduce") this.#reduce(source, all);
    else if (c.kind === "broadcast") this.#broadcast(source, all);
    else if (c.kind === "reduceScatter") this.#reduceScatter(source, all);
    else this.#allGather(source, all);
  }

  #allreduce(source: Tensor[], all: Brought): void {
    const { inPlace, count } = this.#case;
    const out = inPlace ? source : this.#poison(count);
    this.#reducer.allreduce(source, { ...this.#options(), ...(!inPlace && { out }) }).wait();
    this.#expectAll(out, () => reduced(this.#oracle(), count, numberOf(all)));
  }

  #reduce(source: Tensor[], all: Brought): void {
    const { inPlace, count, root } = this.#case;
    const apart = !inPlace && this.#me === root;
    const out = apart ? this.#poison(count) : source;
    const options = { ...this.#options(), root: this.#root(), ...(apart && { out }) };
    this.#reducer.reduce(source, options).wait();
    const oracle = { ...this.#oracle(), root };
    if (this.#me === root) this.#expectAll(out, () => reduced(oracle, count, numberOf(all)));
    else this.#expectAll(source, (d) => all[this.#me]?.[d] as Float64Array);
  }

  #broadcast(source: Tensor[], all: Brought): void {
    this.#reducer.broadcast(source, { root: this.#root() }).wait();
    this.#expectAll(source, () => all[this.#case.root]?.[0] as Float64Array);
  }

  #reduceScatter(source: Tensor[], all: Brought): void {
    const { inPlace, count, devices } = this.#case;
    const out = inPlace ? this.#ownBlocks(source) : this.#poison(count);
    this.#reducer.reduceScatter(source, out, this.#options()).wait();
    this.#expectAll(out, (d) =>
      scattered(this.#oracle(), count, this.#me * devices + d, numberOf(all)),
    );
  }

  #allGather(source: Tensor[], all: Brought): void {
    const { inPlace, count, algorithm } = this.#case;
    const out = this.#poison(count * this.#blocks());
    let from = source;
    if (inPlace) {
      from = this.#ownBlocks(out);
      from.forEach((block, d) => {
        block.bytes().set((source[d] as Tensor).bytes());
      });
    }
    this.#reducer.allGather(from, out, { algorithm }).wait();
    const whole = Float64Array.from(all.flatMap((devices) => devices.flatMap((one) => [...one])));
    this.#expectAll(out, () => whole);
  }

  /** This rank's block of each buffer. */
  #ownBlocks(buffers: Tensor[]): Tensor[] {
    const { count, devices } = this.#case;
    const at = (d: number): number => (this.#me * devices + d) * count;
    return buffers.map((buffer, d) => buffer.slice(0, at(d), at(d) + count));
  }

  #poison(count: number): Tensor[] {
    return this.#buffers(() => new Float64Array(count).fill(5));
  }

  #root(): number {
    return this.#members.ranks[this.#case.root] as number;
  }

  #options(): Pick<Case, "op" | "algorithm" | "wire"> {
    const { op, algorithm, wire } = this.#case;
    return { op, algorithm, wire };
  }

  #oracle(): OracleCase {
    const { dtype, op, wire, devices } = this.#case;
    const { algorithm } = this.#case;
    return {
      dtype,
      op,
      wire,
      devices,
      members: this.#members,
      algorithm: algorithm === "auto" ? this.#reducer.lastAlgorithm : algorithm,
    } as OracleCase;
  }

  #expectAll(got: readonly Tensor[], wanted: (device: number) => Float64Array): void {
    got.forEach((tensor, d) => {
      const values = tensor.toFloat64();
      const want = wanted(d);
      const at = values.findIndex((x, i) => !Object.is(x, want[i]) && !(x === 0 && want[i] === 0));
      if (at < 0) return;
      const where = `device ${d}, element ${at} of ${values.length}`;
      throw new Error(
        `member ${this.#me}, ${where}: ${values[at]}, expected ${want[at]}; ` +
          JSON.stringify(this.#case),
      );
    });
  }
}

/** Bytes of each registered buffer of a script: its largest case, for sources and results. */
function poolBytes(cases: readonly Case[], members: number): number {
  const sizes = cases.filter((c) => c.registered).map((c) => 8 * c.count * members * c.devices);
  return Math.max(0, ...sizes);
}

async function runScript(group: Group, script: Script): Promise<number> {
  const set = script.sets?.find((ranks) => ranks.includes(group.rank));
  const reducer = await openReducer(group, {
    ...script.open,
    ...(set !== undefined && { members: set }),
  });
  // Over links, every rank is a node of its own.
  const apart = reducer.nodes === reducer.members.length;
  const members = membersOf(reducer.members, (rank) => (apart ? rank : group.nodeOf(rank)));
  const bytes = poolBytes(script.cases, group.size);
  const devices = Math.max(0, ...script.cases.map((c) => c.devices));
  const pool: Tensor[] = [];
  for (let i = 0; bytes > 0 && i < 2 * devices; i++) {
    pool.push(await reducer.allocate([bytes], "u8"));
  }
  for (const c of script.cases) {
    if (c.root < members.ranks.length) {
      new CaseRun(reducer, members, group.rank, c, pool).run();
    }
  }
  reducer.close();
  return script.cases.length;
}

/** Runs scripts one after the other, each with a reducer of its own. */
export default async function run(group: Group, scripts: readonly Script[]): Promise<number> {
  let done = 0;
  for (const script of scripts) done += await runScript(group, script);
  return done;
}

/** Random cases, replayed by their seed. */
export function randomCases(random: Random, count: number, members: number): Case[] {
  const pick = <T>(from: readonly T[]): T => from[random.int(0, from.length)] as T;
  return Array.from({ length: count }, () => {
    const kind = pick(kinds);
    const dtype = pick(["f32", "bf16", "f16", "e4m3fn", "e5m2", "f64", "i32", "i64"] as const);
    const ops: readonly Op[] = dtype === "f32" ? ["sum", "sum", "avg", "max", "min"] : ["sum"];
    const own = kind === "reduceScatter" || kind === "allGather" ? "ring" : "tree";
    const way = kind === "allreduce" ? pick(["tree", "ring"] as const) : own;
    return {
      kind,
      dtype,
      op: pick(ops),
      algorithm: pick(["auto", way, way] as const),
      wire: dtype === "bf16" ? pick(["accumulator", "dtype"] as const) : "accumulator",
      count: pick([0, 1, 3, 63, 64, 65, 127, 500, random.int(0, 3000)]),
      devices: pick([1, 1, 2, 3]),
      root: random.int(0, members),
      inPlace: random.next() < 0.5,
      registered: random.next() < 0.3,
      values: dtype.startsWith("f") ? pick(["integers", "reals", "special"] as const) : "reals",
      seed: random.int(0, 1 << 20),
    };
  });
}
