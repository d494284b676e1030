// What happens within a node. Where every rank can touch the others' buffers, each serves its lanes
// in place: it reads all sources and writes all destinations. Else each rank lays what others need
// into its window, turn by turn (staging), and takes results from there (collecting).
#pragma once
#include "hfreduce_op.h"

// Elements [from, from + n) of the whole, of which this turn handles a part.
typedef struct hf_range {
  int64_t from, n;
} hf_range;

// Piece `index` of `pieces`, cut at multiples of 64 elements: where, depends on the count alone.
static hf_range piece_of(int64_t count, int64_t pieces, int64_t index) {
  int64_t each = (oi_ceil_div(count, pieces) + 63) / 64 * 64;
  hf_range r = {.from = oi_min(count, each * index)};
  r.n = oi_min(count, r.from + each) - r.from;
  return r;
}

static hf_range chunk_of(hf_range piece, int64_t chunk, int64_t index) {
  hf_range r = {.from = piece.from + oi_min(piece.n, chunk * index)};
  r.n = oi_min(piece.from + piece.n, piece.from + chunk * (index + 1)) - r.from;
  if (r.n < 0) r.n = 0;
  return r;
}

// ---- Staging areas: a slot of a turn holds a part for each lane and branch.
static inline int64_t stage_part(const hf_op *o, int64_t lane, int64_t branch) {
  return (lane * 2 + branch) * (o->f->stage_bytes / (o->f->lanes * 2) / 64 * 64);
}
static inline int64_t stage_at(const hf_op *o, int64_t turn, int64_t lane, int64_t branch) {
  return o->f->at_stage + turn % o->f->local_slots * o->f->stage_bytes +
         stage_part(o, lane, branch);
}
static inline int64_t result_at(const hf_op *o, int64_t turn, int64_t lane, int64_t branch) {
  return o->f->at_result + turn % o->f->local_slots * o->f->stage_bytes +
         stage_part(o, lane, branch);
}
static inline int64_t lane_owner(const hf_op *o, int64_t lane) { return lane % o->f->locals; }

// Whether this kind brings sources of every rank of the node, or of which one.
static inline int is_source(const hf_op *o, int64_t local) {
  return o->p->kind != HF_BROADCAST ||
         o->f->node_start[o->f->node] + local == (int64_t)o->p->root;
}
static inline int is_destination(const hf_op *o, int64_t local) {
  return o->p->kind != HF_REDUCE || o->f->node_start[o->f->node] + local == (int64_t)o->p->root;
}

// Sets the fold's sources to elements from `e` on; staged ones lie at a turn's place.
static void set_sources(hf_op *o, int64_t e, int64_t turn, int64_t lane, int64_t branch) {
  const hf_frame *f = o->f;
  hf_fold *fold = &o->fold;
  int64_t devices = o->p->devices;
  fold->groups = f->locals;
  fold->per_group = devices;
  fold->participants = f->members * devices;
  for (int64_t j = 0; j < f->locals; j++) {
    fold->sums[j] = NULL;
    if (o->direct || j == f->local) {
      for (int64_t d = 0; d < devices; d++)
        fold->sources[j * devices + d] = o->sources[j * devices + d] + e;
      continue;
    }
    int32_t rank = (int32_t)hf_local_rank(o, j);
    uint8_t *staged = oi_peer_data(o->w, rank, stage_at(o, turn, lane, branch));
    if (devices == 1) fold->sources[j] = (const elem_t *)staged;
    else fold->sums[j] = (const acc_t *)staged;
  }
}

// Where a result goes from element `e` on: destinations in place, or places of the turn in the
// windows of this node's ranks.
static int64_t destinations(hf_op *o, int64_t e, int64_t turn, int64_t lane, int64_t branch,
                            elem_t **outs) {
  const hf_frame *f = o->f;
  int64_t devices = o->p->devices, count = 0;
  for (int64_t j = 0; j < f->locals; j++) {
    if (!is_destination(o, j)) continue;
    if (o->direct || j == f->local) {
      for (int64_t d = 0; d < devices; d++) outs[count++] = o->outs[j * devices + d] + e;
    } else {
      outs[count++] = (elem_t *)oi_peer_data(o->w, (int32_t)hf_local_rank(o, j),
                                             result_at(o, turn, lane, branch));
    }
  }
  return count;
}

static void count_local(hf_op *o, int64_t read, int64_t written) {
  if (o->ctx->tid != 0) return;
  const hf_frame *f = o->f;
  for (int64_t j = 0; j < f->locals; j++) {
    if (j == f->local) continue;
    int64_t bytes = (is_source(o, j) ? read : 0) + (is_destination(o, j) ? written : 0);
    oi_count(o->g, (int32_t)hf_local_rank(o, j), bytes, 1);
  }
}

// ---- Turns of ranks whose buffers others cannot touch. What a turn's lanes need and give is told
// by these two, which tree.h and ring.h define through o->p->algorithm.
static hf_range turn_source(const hf_op *o, int64_t turn, int64_t lane, int64_t branch);
static hf_range turn_result(const hf_op *o, int64_t turn, int64_t lane, int64_t branch);
static inline int has_results(const hf_op *o, int64_t turn);

static inline int is_staged(const hf_op *o) {
  return !o->direct && o->f->locals > 1;
}
static inline int stages(const hf_op *o, int64_t local) {
  return o->p->kind != HF_ALL_GATHER && is_source(o, local);
}
static inline int collects(const hf_op *o, int64_t local) {
  return o->p->kind != HF_REDUCE_SCATTER && is_destination(o, local);
}

// Lays this rank's part of a turn out for the others of the node.
static int stage_turn(hf_op *o, int64_t turn) {
  const hf_frame *f = o->f;
  if (!is_staged(o) || turn >= o->turns || !stages(o, f->local)) return 0;
  int32_t code = OI_ARRIVED;
  for (int64_t j = 0; o->ctx->tid == 0 && turn >= f->local_slots && j < f->locals; j++) {
    if (j == f->local || code != OI_ARRIVED) continue;
    code = hf_await(o, f->flag_taken + j, hf_value(o, turn - f->local_slots), hf_local_rank(o, j),
                    "a rank of the node to read what was laid out");
  }
  if (hf_agree(o, code)) return 1;
  int64_t devices = o->p->devices;
  for (int64_t lane = 0; lane < f->lanes; lane++) {
    if (lane_owner(o, lane) == f->local) continue;
    for (int64_t b = 0; b < 2; b++) {
      hf_range r = turn_source(o, turn, lane, b);
      if (r.n == 0) continue;
      uint8_t *to = o->w->data + stage_at(o, turn, lane, b);
      elem_t *out = (elem_t *)to;
      if (devices == 1 || OP == HF_COPY) {
        copy_to_all(o->ctx, o->own_sources[0] + r.from, &out, 1, r.n);
        continue;
      }
      hf_fold *fold_of = &o->fold;
      fold_of->groups = 1;
      fold_of->per_group = devices;
      fold_of->sums[0] = NULL;
      fold_of->partial_count = 0;
      for (int64_t d = 0; d < devices; d++) fold_of->sources[d] = o->own_sources[d] + r.from;
      fold_of->sum_out = (acc_t *)to;
      fold(fold_of, o->ctx, r.n);
      fold_of->sum_out = NULL;
    }
  }
  oi_barrier(o->ctx);
  for (int64_t j = 0; o->ctx->tid == 0 && j < f->locals; j++) {
    if (j != f->local)
      oi_signal(o->w, (int32_t)hf_local_rank(o, j), f->flag_staged + f->local, hf_value(o, turn));
  }
  return 0;
}

// Waits for what the others have laid out for a turn, and for room for its results.
static int begin_turn(hf_op *o, int64_t turn) {
  const hf_frame *f = o->f;
  if (!is_staged(o)) return 0;
  int32_t code = OI_ARRIVED;
  for (int64_t j = 0; o->ctx->tid == 0 && j < f->locals; j++) {
    if (j == f->local || code != OI_ARRIVED) continue;
    if (stages(o, j))
      code = hf_await(o, f->flag_staged + j, hf_value(o, turn), hf_local_rank(o, j),
                      "what a rank of the node brings");
    int64_t before = turn - f->local_slots;
    if (code == OI_ARRIVED && before >= 0 && has_results(o, before) && collects(o, j))
      code = hf_await(o, f->flag_collected + j, hf_value(o, before), hf_local_rank(o, j),
                      "a rank of the node to take results");
  }
  return hf_agree(o, code);
}

static void end_turn(hf_op *o, int64_t turn) {
  const hf_frame *f = o->f;
  if (!is_staged(o)) return;
  oi_barrier(o->ctx);
  if (o->ctx->tid != 0) return;
  for (int64_t j = 0; j < f->locals; j++) {
    if (j == f->local) continue;
    int32_t rank = (int32_t)hf_local_rank(o, j);
    if (stages(o, j)) oi_signal(o->w, rank, f->flag_taken + f->local, hf_value(o, turn));
    if (has_results(o, turn) && collects(o, j))
      oi_signal(o->w, rank, f->flag_result + f->local, hf_value(o, turn));
  }
}

// Takes a turn's results of the lanes that others serve.
static int collect_turn(hf_op *o, int64_t turn) {
  const hf_frame *f = o->f;
  if (!is_staged(o) || turn < 0 || !has_results(o, turn) || !collects(o, f->local)) return 0;
  int32_t code = OI_ARRIVED;
  for (int64_t j = 0; o->ctx->tid == 0 && j < f->locals; j++) {
    if (j != f->local && code == OI_ARRIVED)
      code = hf_await(o, f->flag_result + j, hf_value(o, turn), hf_local_rank(o, j),
                      "results of a rank of the node");
  }
  if (hf_agree(o, code)) return 1;
  for (int64_t lane = 0; lane < f->lanes; lane++) {
    if (lane_owner(o, lane) == f->local) continue;
    for (int64_t b = 0; b < 2; b++) {
      hf_range r = turn_result(o, turn, lane, b);
      if (r.n == 0) continue;
      elem_t *outs[HF_SOURCES];
      for (int64_t d = 0; d < o->p->devices; d++) outs[d] = o->own_outs[d] + r.from;
      copy_to_all(o->ctx, (const elem_t *)(o->w->data + result_at(o, turn, lane, b)), outs,
                  o->p->devices, r.n);
    }
  }
  oi_barrier(o->ctx);
  for (int64_t j = 0; o->ctx->tid == 0 && j < f->locals; j++) {
    if (j != f->local)
      oi_signal(o->w, (int32_t)hf_local_rank(o, j), f->flag_collected + f->local,
                hf_value(o, turn));
  }
  return 0;
}
