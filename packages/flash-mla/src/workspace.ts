// What a launch needs beside its arguments: scratch of each thread, a plan where the caller brought
// none, and the memory that a device lends to the partial results of its launches.

import { cpus } from "node:os";
import type { Device } from "@open-infra/jit";
import { type DType, Tensor } from "@open-infra/tensor";
import { ArgumentError } from "./errors.ts";
import { commonType, type KvFormat } from "./kv-layout.ts";
import { Plan, type PlanProblem } from "./plan.ts";

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

/** What the size of a thread's scratch depends on. */
export interface ScratchShape {
  readonly headDimQk: number;
  readonly headDimV: number;
  /** Rows of an item, at most. */
  readonly rows: number;
  readonly formats: readonly KvFormat[];
}

/** Floats of one scratch row: whole vectors, and an odd number of cache lines. */
function padded(channels: number): number {
  return Math.ceil(channels / 16) * 16 + 16;
}

/** Covers `carve_scratch` of kernels/attention_split.h: queries, scores, sums, panel, stage. */
export function scratchBytes(shape: ScratchShape): number {
  const d = padded(shape.headDimQk);
  const dv = padded(shape.headDimV);
  const panel = Math.max(8 * d, 64 * 64);
  const type = commonType(shape.formats);
  const staged = shape.formats.some((format) => format !== type);
  const stage = staged ? 64 * (d + 32) * (type === "f32" ? 4 : 2) : 0;
  return 4 * (shape.rows * (d + 64 + 2 * dv) + panel) + stage + 4096;
}

/** The plan a kernel runs by. */
export function planOf(call: { readonly operation: string; readonly plan: Plan | null }): Plan {
  if (call.plan === null) throw new ArgumentError(call.operation, "plan", "missing", "a plan");
  return call.plan;
}

/** What a device keeps between calls: a plan for calls without metadata, and split partials. */
interface Workspace {
  readonly plan: Plan;
  partials: Tensor<"f32">;
}

const workspaces = new WeakMap<Device, Workspace>();

function workspaceOf(device: Device): Workspace {
  let workspace = workspaces.get(device);
  if (workspace === undefined) {
    workspace = { plan: new Plan(), partials: Tensor.empty([16], "f32", "attention.partials") };
    workspaces.set(device, workspace);
  }
  return workspace;
}

/** What a call lacks before it can be launched. */
interface Launch {
  readonly plan: Plan | null;
  readonly headDimV: number;
}

/** A call with a plan, made now if it has none, and with room for the plan's partial results. */
export function withWorkspace<C extends Launch>(
  device: Device,
  call: C,
  problem: Omit<PlanProblem, "threads">,
): C & { readonly plan: Plan; readonly partials: Tensor } {
  const workspace = workspaceOf(device);
  let { plan } = call as Launch;
  if (plan === null) {
    plan = workspace.plan;
    plan.fill({ ...problem, threads: device.threads });
  }
  const floats = plan.partialRows * (call.headDimV + 2);
  if (floats > workspace.partials.size) {
    workspace.partials[Symbol.dispose]();
    workspace.partials = Tensor.empty([floats], "f32", "attention.partials");
  }
  return { ...call, plan, partials: workspace.partials };
}
