// What a launch needs beside its arguments: scratch of each thread, a plan where the caller brought
// none, and the memory that a device lends to the partial results of its launches.

import { cpus } from "node:os";
import type { Device } from "@open-infra/jit";
import { type DType, Tensor } from "@open-infra/tensor";
import { SPLIT_KEYS } from "./call.ts";
import { ArgumentError } from "./errors.ts";
import { commonType, type KvFormat } from "./kv-layout.ts";
import { matrixRows, Plan, type PlanProblem, vectorRows } from "./plan.ts";

/** The numbers by which kernels know the dtypes of queries and outputs. */
export const typeCode: Partial<Record<DType, number>> = { f32: 0, bf16: 1, f16: 2 };

const isIntel = /intel/i.test(cpus()[0]?.model ?? "");

/**
 * Whether bf16 is multiplied as it is or as floats. Intel's cores issue one bf16 dot product every
 * other cycle, half the rate of float multiply-adds (measured: 120 and 240 GFLOP/s); AMD's issue as
 * many as float multiply-adds, and each does twice the work. By name and not by a stopwatch, as the
 * choice shows in the last bits.
 */
export function dotConstants(
  isa: string,
  q: Tensor,
  wanted = true,
): { Q_BF16: number; DOT_PAYS: number } {
  const there = wanted && (isa === "avx512bf16" || isa === "amx");
  return {
    Q_BF16: there && q.dtype === "bf16" ? 1 : 0,
    DOT_PAYS: there && !isIntel ? 1 : 0,
  };
}

/** What decides how a kernel over a latent cache multiplies. */
export interface LatentCall {
  readonly q: Tensor;
  readonly headsQ: number;
  /** @default 1 */
  readonly headsK?: number;
  readonly headDimQk: number;
  readonly headDimV: number;
  readonly roundProbabilities?: boolean;
}

/**
 * Heads that share a key head from which on tiles are used. Fewer are bound by memory, which tiles
 * would have to read from the second-level cache twice. Heads decide and not rows, so that a row
 * does not know how many queries its launch has.
 */
const TILE_HEADS = 5;

/** bf16 numbers that add up to a float exactly, each taking what the ones before it left. */
export const EXACT_PARTS = 3;

/**
 * Matrix tiles multiply bf16 only. A query of another dtype, and a probability that shall not be
 * rounded, is multiplied in parts. Q_PARTS is 0 where there are no tiles, or they do not fit.
 */
function tileConstants(
  isa: string,
  call: LatentCall,
  kvType: "f32" | "bf16" | "f16",
): { Q_PARTS: number; P_PARTS: number } {
  const { q, headsQ, headsK = 1, headDimQk, headDimV, roundProbabilities = true } = call;
  const fits = kvType === "bf16" && headDimQk % 32 === 0 && headDimV % 32 === 0;
  if (isa !== "amx" || !fits || headsQ < TILE_HEADS * headsK) return { Q_PARTS: 0, P_PARTS: 0 };
  if (q.dtype !== "bf16") return { Q_PARTS: EXACT_PARTS, P_PARTS: EXACT_PARTS };
  return { Q_PARTS: 1, P_PARTS: roundProbabilities ? 1 : EXACT_PARTS };
}

/** The constants by which the kernels over latent caches choose their arithmetic. */
export function arithmeticOf(
  isa: string,
  call: LatentCall,
  formats: readonly KvFormat[],
): { Q_BF16: number; DOT_PAYS: number; Q_PARTS: number; P_PARTS: number } {
  return {
    ...dotConstants(isa, call.q, call.roundProbabilities),
    ...tileConstants(isa, call, commonType(formats)),
  };
}

/** Floats of one scratch row: whole vectors, and an odd number of cache lines. */
function padded(channels: number): number {
  return Math.ceil(channels / 16) * 16 + 16;
}

/** Scratch of a thread whose items have up to `rows` rows. */
export function scratchBytes(
  isa: string,
  call: LatentCall,
  formats: readonly KvFormat[],
  rows: number,
): number {
  const d = padded(call.headDimQk);
  const dv = padded(call.headDimV);
  const { Q_PARTS, P_PARTS } = arithmeticOf(isa, call, formats);
  if (Q_PARTS > 0) {
    // In the order of carve_scratch of kernels/attention_amx.h: queries on the way in and packed,
    // scores, probabilities, values, sums of a tile, of rows, copies of keys.
    const groups = Math.ceil(rows / 16);
    const packed = 32 * Q_PARTS * call.headDimQk * (groups + 1);
    const tiles = 1024 * (32 + 8 * P_PARTS * groups + 16 + 4);
    return packed + tiles + 4 * dv * (rows + 1) + SPLIT_KEYS * 2 * call.headDimQk + 4096;
  }
  // As carve_scratch of kernels/attention_vectors.h: queries, scores, sums, panel, stage.
  const panel = Math.max(8 * d, 64 * 64);
  const type = commonType(formats);
  const staged = formats.some((format) => format !== type);
  const stage = staged ? 64 * (d + 32) * (type === "f32" ? 4 : 2) : 0;
  return 4 * (rows * (d + 64 + 2 * dv) + panel) + stage + 4096;
}

/** What a call lacks before it can be launched. */
interface Launch extends LatentCall {
  readonly operation: string;
  readonly plan: Plan | null;
}

/** The plan a kernel runs by, with rows divided as this machine's kernel likes them. */
export function planOf(call: Launch, isa: string, formats: readonly KvFormat[]): Plan {
  if (call.plan === null) throw new ArgumentError(call.operation, "plan", "missing", "a plan");
  return call.plan.fill(arithmeticOf(isa, call, formats).Q_PARTS > 0 ? matrixRows : vectorRows);
}

/** What a device keeps between calls: a plan for calls without metadata, and split partials. */
export class Workspace {
  readonly plan: Plan = new Plan();
  #partials: Tensor<"f32"> = Tensor.empty([16], "f32", "attention.partials");

  /** Room for the partial results of a plan: grows to what was needed, freed with the device. */
  partials(plan: Plan, headDimV: number): Tensor<"f32"> {
    const floats = plan.partialRows * (headDimV + 2);
    if (floats > this.#partials.size) {
      this.#partials[Symbol.dispose]();
      this.#partials = Tensor.empty([floats], "f32", "attention.partials");
    }
    return this.#partials;
  }
}

const workspaces = new WeakMap<Device, Workspace>();

/** A call with a plan, made now if it has none, and with the memory that its device lends. */
export function withWorkspace<C extends Launch>(
  device: Device,
  call: C,
  problem: Omit<PlanProblem, "threads">,
): C & { readonly plan: Plan; readonly workspace: Workspace } {
  let workspace = workspaces.get(device);
  if (workspace === undefined) {
    workspace = new Workspace();
    workspaces.set(device, workspace);
  }
  const plan = call.plan ?? workspace.plan.pose({ ...problem, threads: device.threads });
  return { ...call, plan, workspace };
}

/** Where the partial results of a launch go. */
export function partialsOf(
  call: { readonly operation: string; readonly headDimV: number; readonly workspace?: Workspace },
  plan: Plan,
): Tensor {
  if (call.workspace === undefined) {
    throw new ArgumentError(call.operation, "workspace", "missing", "the device's workspace");
  }
  return call.workspace.partials(plan, call.headDimV);
}
