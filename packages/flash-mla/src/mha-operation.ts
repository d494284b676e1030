// The two operations of attention of ordinary heads, forward and backward: float64 references and C
// kernels specialised on head dimensions. What a device lends to their launches also lives here.

import { cpus } from "node:os";
import { type AnyKernel, type Device, defineKernel, type Operation } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import {
  backwardWork,
  forwardWork,
  type MhaBackwardCall,
  type MhaCall,
} from "./mha-call.ts";
import {
  type BackwardPlan,
  CHUNK_KEYS,
  type ForwardPlan,
  type MhaPlan,
  planBackward,
  planForward,
  STEP_ROWS,
} from "./mha-plan.ts";
import { mhaBackwardReference, mhaReference } from "./mha-reference.ts";
import { typeCode } from "./workspace.ts";

/** A call as a kernel gets it: with its items in memory and, backward, room for sums. */
type Launch<C extends MhaCall, P extends MhaPlan> = C & {
  readonly plan?: P;
  readonly workspace?: MhaWorkspace;
};

/** Memory of a device that grows to what its launches needed. */
class MhaWorkspace {
  items: Tensor<"i32"> = Tensor.empty([0], "i32");
  counters: Tensor<"i32"> = Tensor.empty([0], "i32");
  sums: Tensor<"f32"> = Tensor.empty([0], "f32");

  take(plan: MhaPlan, counters: number, sums: number): void {
    if (this.items.size < plan.items.length) {
      this.items = Tensor.empty([plan.items.length], "i32", "mha.items");
    }
    this.items.raw().set(plan.items);
    if (this.counters.size < counters) {
      this.counters = Tensor.empty([counters], "i32", "mha.counters");
    }
    this.counters.raw().fill(0);
    if (this.sums.size < sums) {
      this.sums[Symbol.dispose]();
      this.sums = Tensor.empty([sums], "f32", "mha.sums");
    }
  }
}

const workspaces = new WeakMap<Device, MhaWorkspace>();

function workspaceOf(device: Device): MhaWorkspace {
  const workspace = workspaces.get(device) ?? new MhaWorkspace();
  workspaces.set(device, workspace);
  return workspace;
}

/** Floats of a scratch row: an odd number of cache lines. */
function padded(channels: number): number {
  return (Math.ceil(channels / 16) | 1) * 16;
}

const isIntel = /intel/i.test(cpus()[0]?.model ?? "");

/**
 * 1 where the bf16 dot product beats float multiply-adds, 0 where it does not, -1 where an input is
 * not bf16. Intel's cores issue one such instruction every other cycle, half the rate of floats
 * (measured: 120 and 240 GFLOP/s); all others that have it issue as many as float multiply-adds, and
 * each does twice the work. By name and not by a stopwatch, because the choice shows in last bits.
 */
function dotPays(isa: string, inputs: readonly Tensor[]): number {
  if (inputs.some((t) => t.dtype !== "bf16")) return -1;
  return isa === "avx512bf16" && !isIntel ? 1 : 0;
}

/** Strides of a `[T, h, …]` tensor as (token, head). */
function strides(tensor: Tensor): readonly [number, number] {
  return [tensor.stride(0), tensor.stride(1)];
}

const code = (tensor: Tensor): number => typeCode[tensor.dtype] as number;

function prepared<C extends MhaCall, P extends MhaPlan>(call: Launch<C, P>): [P, MhaWorkspace] {
  if (call.plan === undefined || call.workspace === undefined) {
    throw new TypeError(`${call.operation}: launch it by runMha or runMhaBackward`);
  }
  return [call.plan, call.workspace];
}

type Forward = Launch<MhaCall, ForwardPlan>;
type Backward = Launch<MhaBackwardCall, BackwardPlan>;

const forwardKernel: AnyKernel<Forward> = defineKernel({
  language: "c",
  source: new URL("../kernels/mha_forward.c", import.meta.url),
  entry: "mha_forward",
  params: {
    q: "ptr",
    k: "ptr",
    v: "ptr",
    out: "ptr",
    lse: "ptr",
    cu_q: "ptr",
    cu_k: "ptr",
    items: "ptr",
    item_count: "i64",
    row_tile: "i64",
    group: "i64",
    causal: "i64",
    q_type: "i64",
    k_type: "i64",
    out_type: "i64",
    q_token: "i64",
    q_head: "i64",
    k_token: "i64",
    k_head: "i64",
    v_token: "i64",
    v_head: "i64",
    out_token: "i64",
    out_head: "i64",
    lse_token: "i64",
    lse_head: "i64",
    scale: "f64",
  },
  constants: (call: Forward, target) => ({
    D: call.headDimQk,
    DV: call.headDimV,
    DOT_PAYS: dotPays(target.isa, [call.q, call.k, call.v]),
  }),
  pack: (call: Forward) => {
    const [plan, workspace] = prepared(call);
    const { q, k, v, out, lse } = call;
    const [q_token, q_head] = strides(q);
    const [k_token, k_head] = strides(k);
    const [v_token, v_head] = strides(v);
    const [out_token, out_head] = strides(out);
    const [lse_token, lse_head] = strides(lse);
    return {
      q,
      k,
      v,
      out,
      lse,
      cu_q: call.cuSeqlensQ,
      cu_k: call.cuSeqlensK,
      items: workspace.items,
      item_count: plan.itemCount,
      row_tile: plan.rowTile,
      group: call.headsQ / call.headsK,
      causal: call.causal ? 1 : 0,
      q_type: code(q),
      k_type: code(k),
      out_type: code(out),
      q_token,
      q_head,
      k_token,
      k_head,
      v_token,
      v_head,
      out_token,
      out_head,
      lse_token,
      lse_head,
      scale: call.softmaxScale,
    };
  },
  threads: (call: Forward) => prepared(call)[0].threads,
  scratchBytes: (call: Forward) => {
    const rows = padded(prepared(call)[0].rowTile);
    const [d, dv] = [padded(call.headDimQk), padded(call.headDimV)];
    // In the order of carve_scratch: queries, sums, keys, values, scores, rows, spare, statistics.
    const floats = (d + dv + 4) * rows + 128 * (d + dv + 48) + 16 * (d + dv) + 48 * dv;
    return 4 * floats + 1024;
  },
});

/** Attention over packed sequences, in the lowered form; see {@link runMha}. */
export const mhaForward: Operation<Forward> = {
  name: "mha_forward",
  check: () => {},
  reference: mhaReference,
  kernels: { cpu: forwardKernel },
  work: forwardWork,
};

/** Runs a lowered forward call. */
export function runMha(device: Device, call: MhaCall): void {
  if (device.backend === "reference") {
    device.run(mhaForward, call);
    return;
  }
  const plan = planForward(call, forwardWork(call).flops, device.threads);
  const workspace = workspaceOf(device);
  workspace.take(plan, 0, 0);
  device.run(mhaForward, { ...call, plan, workspace });
}
