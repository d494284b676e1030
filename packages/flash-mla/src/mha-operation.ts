// The two operations of attention of ordinary heads, forward and backward: float64 references and C
// kernels specialised on head dimensions. What a device lends to their launches also lives here.

import { type AnyKernel, type Device, defineKernel, type Operation } from "@open-infra/jit";
import { Tensor } from "@open-infra/tensor";
import {
  backwardScratchBytes,
  forwardScratchBytes,
  type MhaArithmetic,
  mhaArithmetic,
  padded,
} from "./mha-arithmetic.ts";
import { backwardWork, forwardWork, type MhaBackwardCall, type MhaCall } from "./mha-call.ts";
import {
  type BackwardRule,
  type MhaPlan,
  matrixSteps,
  planBackward,
  planForward,
  vectorSteps,
} from "./mha-plan.ts";
import { mhaBackwardReference, mhaReference } from "./mha-reference.ts";
import { typeCode } from "./workspace.ts";

/** A call as a kernel gets it: with memory for its items and, backward, for sums. */
type Launch<C extends MhaCall> = C & { readonly workspace?: MhaWorkspace };

/** Memory of a device that grows to what its launches needed. */
class MhaWorkspace {
  items: Tensor<"i32"> = Tensor.empty([0], "i32");
  counters: Tensor<"i32"> = Tensor.empty([0], "i32");
  sums: Tensor<"f32"> = Tensor.empty([0], "f32");
  deltas: Tensor<"f32"> = Tensor.empty([0], "f32");

  take(plan: MhaPlan): void {
    if (this.items.size < plan.items.length) {
      this.items = Tensor.empty([plan.items.length], "i32", "mha.items");
    }
    this.items.raw().set(plan.items);
  }

  /** Room for a backward pass: zeroed counters, floats of dq's sums, a float for each row. */
  takeSums(counters: number, sums: number, rows: number): void {
    if (this.counters.size < counters) {
      this.counters = Tensor.empty([counters], "i32", "mha.counters");
    }
    this.counters.raw().fill(0);
    this.sums = grown(this.sums, sums, "mha.sums");
    this.deltas = grown(this.deltas, rows, "mha.deltas");
  }
}

/** A tensor of at least `size` floats: this one, or a new one in its place. */
function grown(tensor: Tensor<"f32">, size: number, name: string): Tensor<"f32"> {
  if (tensor.size >= size) return tensor;
  tensor[Symbol.dispose]();
  return Tensor.empty([size], "f32", name);
}

const workspaces = new WeakMap<Device, MhaWorkspace>();

function workspaceOf(device: Device): MhaWorkspace {
  const workspace = workspaces.get(device) ?? new MhaWorkspace();
  workspaces.set(device, workspace);
  return workspace;
}

/** Strides of a `[T, h, …]` tensor as (token, head). */
function strides(tensor: Tensor): readonly [number, number] {
  return [tensor.stride(0), tensor.stride(1)];
}

const code = (tensor: Tensor): number => typeCode[tensor.dtype] as number;

function workspaceFor(call: Launch<MhaCall>): MhaWorkspace {
  if (call.workspace !== undefined) return call.workspace;
  throw new TypeError(`${call.operation}: launch it by runMha or runMhaBackward`);
}

type Forward = Launch<MhaCall>;
type Backward = Launch<MhaBackwardCall>;

const forwardRule = (call: MhaCall, isa: string): MhaArithmetic =>
  mhaArithmetic(isa, call, [call.q, call.k, call.v]);

const backwardRule = (call: MhaBackwardCall, isa: string): MhaArithmetic =>
  mhaArithmetic(isa, call, [call.q, call.k, call.v, call.dOut]);

const stepsOf = (call: MhaBackwardCall, isa: string): BackwardRule =>
  backwardRule(call, isa).P_PARTS > 0 ? matrixSteps : vectorSteps;

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
    ...forwardRule(call, target.isa),
  }),
  plan: (call: Forward, target) => {
    const plan = planForward(call, forwardWork(call).flops, target.threads);
    workspaceFor(call).take(plan);
    return plan;
  },
  pack: (call: Forward, _target, plan) => {
    const workspace = workspaceFor(call);
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
  threads: (_call: Forward, _target, plan) => plan.threads,
  scratchBytes: (call: Forward, target, plan) =>
    forwardScratchBytes(call, plan.rowTile, forwardRule(call, target.isa).P_PARTS),
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
  device.run(mhaForward, { ...call, workspace: workspaceOf(device) });
}

const backwardKernel: AnyKernel<Backward> = defineKernel({
  language: "c",
  source: new URL("../kernels/mha_backward.c", import.meta.url),
  entry: "mha_backward",
  params: {
    q: "ptr",
    k: "ptr",
    v: "ptr",
    out: "ptr",
    lse: "ptr",
    dout: "ptr",
    dlse: "ptr",
    dq: "ptr",
    dk: "ptr",
    dv: "ptr",
    cu_q: "ptr",
    cu_k: "ptr",
    items: "ptr",
    counters: "ptr",
    sums: "ptr",
    deltas: "ptr",
    tokens: "i64",
    heads: "i64",
    item_count: "i64",
    own_rows: "i64",
    shared_at: "i64",
    group: "i64",
    causal: "i64",
    q_type: "i64",
    k_type: "i64",
    out_type: "i64",
    dout_type: "i64",
    dq_type: "i64",
    dk_type: "i64",
    dv_type: "i64",
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
    dout_token: "i64",
    dout_head: "i64",
    dlse_token: "i64",
    dlse_head: "i64",
    dq_token: "i64",
    dq_head: "i64",
    dk_token: "i64",
    dk_head: "i64",
    dv_token: "i64",
    dv_head: "i64",
    scale: "f64",
  },
  constants: (call: Backward, target) => ({
    D: call.headDimQk,
    DV: call.headDimV,
    CHUNK: stepsOf(call, target.isa).chunkKeys,
    STEP: stepsOf(call, target.isa).stepRows,
    ...backwardRule(call, target.isa),
  }),
  plan: (call: Backward, target) => {
    const workspace = workspaceFor(call);
    const steps = stepsOf(call, target.isa);
    const plan = planBackward(call, backwardWork(call).flops, target.threads, steps);
    const rows = plan.threads * plan.ownRows + plan.sharedRows;
    workspace.take(plan);
    workspace.takeSums(plan.counters, rows * padded(call.headDimQk), call.lse.size);
    return plan;
  },
  pack: (call: Backward, _target, plan) => {
    const workspace = workspaceFor(call);
    const { q, k, v, out, lse, dOut, dLse, dq, dk, dv } = call;
    const [q_token, q_head] = strides(q);
    const [k_token, k_head] = strides(k);
    const [v_token, v_head] = strides(v);
    const [out_token, out_head] = strides(out);
    const [lse_token, lse_head] = strides(lse);
    const [dout_token, dout_head] = strides(dOut);
    const [dlse_token, dlse_head] = dLse === null ? [0, 0] : strides(dLse);
    const [dq_token, dq_head] = strides(dq);
    const [dk_token, dk_head] = strides(dk);
    const [dv_token, dv_head] = strides(dv);
    return {
      q,
      k,
      v,
      out,
      lse,
      dout: dOut,
      dlse: dLse,
      dq,
      dk,
      dv,
      cu_q: call.cuSeqlensQ,
      cu_k: call.cuSeqlensK,
      items: workspace.items,
      counters: workspace.counters,
      sums: workspace.sums,
      deltas: workspace.deltas,
      tokens: q.dim(0),
      heads: call.headsQ,
      item_count: plan.itemCount,
      own_rows: plan.ownRows,
      shared_at: plan.threads * plan.ownRows,
      group: call.headsQ / call.headsK,
      causal: call.causal ? 1 : 0,
      q_type: code(q),
      k_type: code(k),
      out_type: code(out),
      dout_type: code(dOut),
      dq_type: code(dq),
      dk_type: code(dk),
      dv_type: code(dv),
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
      dout_token,
      dout_head,
      dlse_token,
      dlse_head,
      dq_token,
      dq_head,
      dk_token,
      dk_head,
      dv_token,
      dv_head,
      scale: call.softmaxScale,
    };
  },
  threads: (_call: Backward, _target, plan) => plan.threads,
  scratchBytes: (call: Backward, target) =>
    backwardScratchBytes(call, backwardRule(call, target.isa).P_PARTS),
});

/** Gradients of attention over packed sequences, lowered; see {@link runMhaBackward}. */
export const mhaBackward: Operation<Backward> = {
  name: "mha_backward",
  check: () => {},
  reference: mhaBackwardReference,
  kernels: { cpu: backwardKernel },
  work: backwardWork,
};

/** Runs a lowered backward call. */
export function runMhaBackward(device: Device, call: MhaBackwardCall): void {
  if (device.backend === "reference") {
    device.run(mhaBackward, call);
    return;
  }
  device.run(mhaBackward, { ...call, workspace: workspaceOf(device) });
}
