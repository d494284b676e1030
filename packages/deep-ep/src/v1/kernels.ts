// The kernels of dispatch and combine and what each is given; the C lies in kernels/.

import { type CommKernel, defineCommKernel } from "@open-infra/ranks";

const source = (file: string): URL => new URL(`../../kernels/${file}`, import.meta.url);

const layoutParams = {
  topk_idx: "ptr",
  topk: "i64",
  tokens: "i64",
  experts: "i64",
  ranks: "i64",
  ranks_per_node: "i64",
  per_rank: "ptr",
  per_node: "ptr",
  per_expert: "ptr",
  in_rank: "ptr",
  partial: "ptr",
  bad: "ptr",
} as const;

/** Counts a selection. */
export const layoutKernel: CommKernel<typeof layoutParams> = defineCommKernel({
  name: "get_dispatch_layout",
  source: source("ep_layout.c"),
  entry: "ep_layout",
  params: layoutParams,
});

/** What every step's message carries. */
const stepParams = {
  window: "ptr",
  slot_bytes: "i64",
  step: "i64",
  row_bytes: "i64",
  element: "i64",
  topk: "i64",
  experts: "i64",
  ranks_per_node: "i64",
  options: "i64",
  tokens: "i64",
  counts: "ptr",
  node_counts: "ptr",
  positions: "ptr",
  node_positions: "ptr",
} as const;

const notifyOnly = {
  scales: "i64",
  in_rank: "ptr",
  per_rank: "ptr",
  per_expert: "ptr",
  received_per_expert: "ptr",
} as const;
const notifyParams: typeof stepParams & typeof notifyOnly = { ...stepParams, ...notifyOnly };

/** Exchanges the counts. */
export const notifyKernel: CommKernel<typeof notifyParams> = defineCommKernel({
  name: "notify_dispatch",
  source: source("ep_notify.c"),
  entry: "ep_notify",
  params: notifyParams,
});

/** What moves rows. */
const moveOnly = {
  op: "ptr",
  segments: "ptr",
  seq: "i64",
  status: "i64",
  needed: "i64",
  capacity: "i64",
  rows: "i64",
  x: "ptr",
  x_at: "i64",
  weights: "ptr",
  weights_at: "i64",
  stage_at: "i64",
  forward_positions: "ptr",
  past_caches: "i64",
  piece_rows: "i64",
  payload: "ptr",
} as const;
const moveParams: typeof stepParams & typeof moveOnly = { ...stepParams, ...moveOnly };

const dispatchOnly = {
  cached: "i64",
  worst: "i64",
  scales: "ptr",
  scale_row: "i64",
  scale_column: "i64",
  scale_count: "i64",
  scales_at: "i64",
  choice: "ptr",
  choice_at: "i64",
  source_at: "i64",
  forward_rows: "i64",
} as const;
const dispatchParams: typeof moveParams & typeof dispatchOnly = { ...moveParams, ...dispatchOnly };

/** Sends tokens to their ranks. */
export const dispatchKernel: CommKernel<typeof dispatchParams> = defineCommKernel({
  name: "dispatch",
  source: source("ep_dispatch.c"),
  entry: "ep_dispatch",
  params: dispatchParams,
});

const combineOnly = {
  same_process: "i64",
  copy: "i64",
  bias0: "ptr",
  bias1: "ptr",
  out: "ptr",
  out_weights: "ptr",
} as const;
const combineParams: typeof moveParams & typeof combineOnly = { ...moveParams, ...combineOnly };

/** Brings sums back. */
export const combineKernel: CommKernel<typeof combineParams> = defineCommKernel({
  name: "combine",
  source: source("ep_combine.c"),
  entry: "ep_combine",
  params: combineParams,
});

const trimParams = { ranges: "ptr", count: "i64" } as const;

/** Gives free pages back to the system. */
export const trimKernel: CommKernel<typeof trimParams> = defineCommKernel({
  name: "trim",
  source: source("ep_trim.c"),
  entry: "ep_trim",
  params: trimParams,
});

const lowLatencyParams = {
  window: "ptr",
  op: "ptr",
  turn: "ptr",
  seq: "i64",
  most_tokens: "i64",
  hidden: "i64",
  experts: "i64",
  topk: "i64",
  token_count: "i64",
  row_bytes: "i64",
  scales: "i64",
  message_bytes: "i64",
  options: "i64",
  mask: "ptr",
  payload: "ptr",
  plan: "ptr",
  counts: "ptr",
  places: "ptr",
  choice: "ptr",
  ranges: "ptr",
  x: "ptr",
  release: "i64",
  cleared0: "i64",
  cleared1: "i64",
  wait_cost: "ptr",
} as const;

const lowLatencyDispatchOnly = {
  fp8: "i64",
  round_scale: "i64",
  ue8m0: "i64",
  received: "ptr",
  statistics: "ptr",
} as const;
const lowLatencyDispatchParams: typeof lowLatencyParams & typeof lowLatencyDispatchOnly = {
  ...lowLatencyParams,
  ...lowLatencyDispatchOnly,
};

/** Casts and sends tokens. */
export const lowLatencySendKernel: CommKernel<typeof lowLatencyDispatchParams> = defineCommKernel({
  name: "low_latency_dispatch_send",
  source: source("ep_ll_dispatch.c"),
  entry: "ep_ll_send",
  params: lowLatencyDispatchParams,
});

/** Waits for tokens and packs what is not in place. */
export const lowLatencyReceiveKernel: CommKernel<typeof lowLatencyDispatchParams> =
  defineCommKernel({
    name: "low_latency_dispatch_receive",
    source: source("ep_ll_dispatch.c"),
    entry: "ep_ll_receive",
    params: lowLatencyDispatchParams,
  });

const lowLatencyCombineOnly = {
  weights: "ptr",
  out: "ptr",
  zero_copy: "i64",
  logfmt: "i64",
  mantissas: "ptr",
} as const;
const lowLatencyCombineParams: typeof lowLatencyParams & typeof lowLatencyCombineOnly = {
  ...lowLatencyParams,
  ...lowLatencyCombineOnly,
};

/** Sends experts' rows back. */
export const lowLatencyReturnKernel: CommKernel<typeof lowLatencyCombineParams> = defineCommKernel({
  name: "low_latency_combine_send",
  source: source("ep_ll_combine.c"),
  entry: "ep_ll_return",
  params: lowLatencyCombineParams,
});

/** Waits for them and sums. */
export const lowLatencySumKernel: CommKernel<typeof lowLatencyCombineParams> = defineCommKernel({
  name: "low_latency_combine_receive",
  source: source("ep_ll_combine.c"),
  entry: "ep_ll_sum",
  params: lowLatencyCombineParams,
});
