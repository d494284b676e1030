// The communication kernels of ElasticBuffer with their parameters.

import { type CommKernel, defineCommKernel } from "@open-infra/ranks";

const source = (name: string): URL => new URL(`../../kernels/${name}.c`, import.meta.url);

/** Parameters of dispatch and combine by which ranks find each other's rows. */
const shared = {
  window: "ptr",
  work: "ptr",
  reach: "ptr",
  epoch: "i64",
  messages_at: "i64",
  data_at: "i64",
  nodes: "i64",
  tokens: "i64",
  topk: "i64",
  experts: "i64",
  max_tokens: "i64",
  weighted: "i64",
  expanded: "i64",
  x: "ptr",
  topk_idx: "ptr",
  dst_slots: "ptr",
  dst_expanded: "ptr",
  dst_forwards: "ptr",
  rank_counts: "ptr",
  node_counts: "ptr",
  forward_meta: "ptr",
  forward_places: "ptr",
} as const;

const notifyParams = {
  window: "ptr",
  work: "ptr",
  round: "i64",
  counts_at: "i64",
  counts_stride: "i64",
  nodes: "i64",
  scaleup_ranks: "i64",
  tokens: "i64",
  topk: "i64",
  experts: "i64",
  max_tokens: "i64",
  row_bytes: "i64",
  alignment: "i64",
  sf_packs: "i64",
  weighted: "i64",
  expanded: "i64",
  topk_idx: "ptr",
  topk_copy: "ptr",
  dst_slots: "ptr",
  dst_expanded: "ptr",
  dst_forwards: "ptr",
  rank_counts: "ptr",
  node_counts: "ptr",
  psum_ranks: "ptr",
  psum_experts: "ptr",
  expert_counts: "ptr",
  stats: "ptr",
  totals: "ptr",
} as const;

export const notifyKernel: CommKernel<typeof notifyParams> = defineCommKernel({
  name: "elastic_notify",
  source: source("elastic_notify"),
  entry: "elastic_notify",
  params: notifyParams,
});

const dispatchParams = {
  cached: "i64",
  forward_at: "i64",
  row_bytes: "i64",
  alignment: "i64",
  sf_packs: "i64",
  sf: "ptr",
  sf_token_stride: "i64",
  sf_pack_stride: "i64",
  weights: "ptr",
  psum_experts: "ptr",
  zero_padding: "i64",
  out_rows: "i64",
  out_x: "ptr",
  out_sf: "ptr",
  out_sf_token_stride: "i64",
  out_sf_pack_stride: "i64",
  sf_columns: "ptr",
  sf_column_stride: "i64",
  out_idx: "ptr",
  out_weights: "ptr",
  out_meta: "ptr",
} as const;

export const dispatchKernel: CommKernel<typeof shared & typeof dispatchParams> = defineCommKernel({
  name: "elastic_dispatch",
  source: source("elastic_dispatch"),
  entry: "elastic_dispatch",
  params: { ...shared, ...dispatchParams },
});

const combineParams = {
  reduce_at: "i64",
  hidden: "i64",
  single: "i64",
  weights: "ptr",
  bias0: "ptr",
  bias1: "ptr",
  src_meta: "ptr",
  out_x: "ptr",
  out_weights: "ptr",
} as const;

export const combineKernel: CommKernel<typeof shared & typeof combineParams> = defineCommKernel({
  name: "elastic_combine",
  source: source("elastic_combine"),
  entry: "elastic_combine",
  params: { ...shared, ...combineParams },
});

const barrierParams = { window: "ptr", epoch: "i64", kind: "i64" } as const;

export const barrierKernel: CommKernel<typeof barrierParams> = defineCommKernel({
  name: "elastic_barrier",
  source: source("elastic_barrier"),
  entry: "elastic_barrier",
  params: barrierParams,
});

const gatherParams = { window: "ptr", epoch: "i64", parts: "ptr", count: "i64" } as const;

export const gatherKernel: CommKernel<typeof gatherParams> = defineCommKernel({
  name: "elastic_gather",
  source: source("elastic_gather"),
  entry: "elastic_gather",
  params: gatherParams,
});

const pipeline = {
  window: "ptr",
  work: "ptr",
  x: "ptr",
  bytes: "i64",
  peer: "i64",
  channel: "i64",
  number: "i64",
  slots: "i64",
  slot_bytes: "i64",
  data_at: "i64",
} as const;

export const sendKernel: CommKernel<typeof pipeline> = defineCommKernel({
  name: "elastic_send",
  source: source("elastic_pipeline"),
  entry: "elastic_send",
  params: pipeline,
});

export const receiveKernel: CommKernel<typeof pipeline> = defineCommKernel({
  name: "elastic_receive",
  source: source("elastic_pipeline"),
  entry: "elastic_receive",
  params: pipeline,
});

const engramParams = {
  window: "ptr",
  epoch: "i64",
  linked: "i64",
  entries: "i64",
  entry_bytes: "i64",
  row_bytes: "i64",
  table_at: "i64",
  asks_at: "i64",
  answers_at: "i64",
  room: "i64",
  indices: "ptr",
  count: "i64",
  out: "ptr",
} as const;

export const engramKernel: CommKernel<typeof engramParams> = defineCommKernel({
  name: "elastic_engram",
  source: source("elastic_engram"),
  entry: "elastic_engram",
  params: engramParams,
});
