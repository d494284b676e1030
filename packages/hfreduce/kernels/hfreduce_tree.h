// Between nodes by two binary trees, each for one half of every lane: sums go up to the root, the
// result comes down again `lag` turns later, chunk after chunk, so that both directions of every
// link are busy. A rank is an inner node of at most one of the two trees (src/topology.ts).
//
// No deadlock: in turn t a rank waits for chunk t from its children, for its parent to have used
// chunk t − slots, and for chunk t − lag from its parent. All of that happens in earlier turns, or
// in the same turn further down (up) the tree, because slots > lag.
#pragma once
#include "hfreduce_node.h"

// Places in a lane's area: what comes up from two children, what comes down, and what leaves for
// ranks whose memory is not mapped.
enum { UP_IN, DOWN_IN = 2, UP_OUT, DOWN_OUT, HF_AREAS };
// Flags of a lane and branch.
enum { UP_DATA, UP_ACK = 2, DOWN_DATA, DOWN_ACK, HF_BRANCH_FLAGS = 6, HF_LANE_FLAGS = 16 };

static inline int64_t lane_at(const hf_frame *f, int64_t slot, int64_t branch, int64_t area,
                              int64_t chunk) {
  int64_t areas = (slot * 2 + branch) * HF_AREAS + area;
  return f->at_lanes + (areas * f->slots + chunk % f->slots) * f->slot_bytes;
}
static inline int64_t lane_flag(const hf_frame *f, int64_t slot, int64_t branch, int64_t flag) {
  return f->flag_lane + slot * HF_LANE_FLAGS + branch * HF_BRANCH_FLAGS + flag;
}

static inline int64_t branches(const hf_op *o) { return o->f->nodes > 1 ? 2 : 1; }
static hf_range tree_range(const hf_op *o, int64_t chunk, int64_t lane, int64_t branch) {
  int64_t parts = branches(o);
  if (chunk < 0 || branch >= parts) return (hf_range){0, 0};
  hf_range piece = piece_of(o->p->count, o->f->lanes * parts, lane * parts + branch);
  return chunk_of(piece, o->p->chunk, chunk);
}

// What comes from the children, added to what the node's ranks bring, to the parent.
static int tree_up(hf_op *o, int64_t slot, int64_t b, int64_t turn) {
  const hf_frame *f = o->f;
  const hf_lane *lane = &o->lanes[slot];
  const hf_branch *tree = &lane->trees[b];
  hf_range r = tree_range(o, turn, lane->lane, b);
  if (r.n == 0) return 0;
  int64_t parent = tree->parent.rank;
  int32_t code = OI_ARRIVED;
  if (o->ctx->tid == 0) {
    for (int64_t c = 0; c < 2 && code == OI_ARRIVED; c++) {
      if (tree->children[c].rank >= 0)
        code = hf_await(o, lane_flag(f, slot, b, UP_DATA + c), hf_value(o, turn),
                        tree->children[c].rank, "a partial sum");
    }
    if (code == OI_ARRIVED && parent >= 0 && turn >= f->slots)
      code = hf_await(o, lane_flag(f, slot, b, UP_ACK), hf_value(o, turn - f->slots), parent,
                      "the use of a partial sum");
  }
  if (hf_agree(o, code)) return 1;
  set_sources(o, r.from, turn, lane->lane, b);
  hf_fold *fold_of = &o->fold;
  fold_of->partial_count = 0;
  for (int64_t c = 0; c < 2; c++) {
    if (tree->children[c].rank < 0) continue;
    uint8_t *from = o->w->data + lane_at(f, slot, b, UP_IN + c, turn);
    fold_of->partials[fold_of->partial_count++] = (const wire_t *)from;
  }
  const hf_edge *up = &tree->parent;
  int64_t at = parent < 0 ? 0 : lane_at(f, up->slot, b, UP_IN + up->child, turn);
  uint8_t *own = o->w->data + lane_at(f, slot, b, UP_OUT, turn);
  fold_of->partial_out = NULL;
  if (parent >= 0 && oi_is_mapped(o->w, (int32_t)parent))
    fold_of->partial_out = (wire_t *)oi_peer_data(o->w, (int32_t)parent, at);
  else if (parent >= 0)
    fold_of->partial_out = (wire_t *)own;
  else if (f->nodes == 1 || o->p->kind == HF_REDUCE)
    fold_of->out_count = destinations(o, r.from, turn, lane->lane, b, fold_of->outs);
  else {
    fold_of->outs[0] = (elem_t *)(o->w->data + lane_at(f, slot, b, DOWN_IN, turn));
    fold_of->out_count = 1;
  }
  fold(fold_of, o->ctx, r.n);
  count_local(o, r.n * (int64_t)sizeof(elem_t), fold_of->partial_out == NULL && f->nodes == 1
                                                    ? r.n * (int64_t)sizeof(elem_t) : 0);
  fold_of->partial_out = NULL;
  oi_barrier(o->ctx);
  if (o->ctx->tid != 0) return 0;
  if (parent >= 0) {
    hf_send(o, parent, at, own, r.n * (int64_t)sizeof(wire_t));
    oi_signal(o->w, (int32_t)parent, lane_flag(f, up->slot, b, UP_DATA + up->child),
              hf_value(o, turn));
  }
  for (int64_t c = 0; c < 2; c++) {
    const hf_edge *child = &tree->children[c];
    if (child->rank >= 0)
      oi_signal(o->w, (int32_t)child->rank, lane_flag(f, child->slot, b, UP_ACK),
                hf_value(o, turn));
  }
  return 0;
}

// Where the result of a chunk lies at this rank.
static const elem_t *down_source(hf_op *o, int64_t slot, int64_t b, int64_t chunk, hf_range r) {
  const hf_frame *f = o->f;
  const hf_lane *lane = &o->lanes[slot];
  if (o->p->kind != HF_BROADCAST || lane->trees[b].parent.rank >= 0)
    return (const elem_t *)(o->w->data + lane_at(f, slot, b, DOWN_IN, chunk));
  int64_t root = (int64_t)o->p->root - f->node_start[f->node];
  if (o->direct || root == f->local) return o->sources[root * o->p->devices] + r.from;
  return (const elem_t *)oi_peer_data(o->w, (int32_t)hf_local_rank(o, root),
                                      stage_at(o, chunk, lane->lane, b));
}

// The result, to the node's ranks and the children.
static int tree_down(hf_op *o, int64_t slot, int64_t b, int64_t turn, int64_t chunk) {
  const hf_frame *f = o->f;
  const hf_lane *lane = &o->lanes[slot];
  const hf_branch *tree = &lane->trees[b];
  hf_range r = tree_range(o, chunk, lane->lane, b);
  if (r.n == 0) return 0;
  int64_t parent = tree->parent.rank;
  int32_t code = OI_ARRIVED;
  if (o->ctx->tid == 0) {
    if (parent >= 0)
      code = hf_await(o, lane_flag(f, slot, b, DOWN_DATA), hf_value(o, chunk), parent, "a result");
    for (int64_t c = 0; c < 2 && code == OI_ARRIVED; c++) {
      if (tree->children[c].rank >= 0 && chunk >= f->slots)
        code = hf_await(o, lane_flag(f, slot, b, DOWN_ACK + c), hf_value(o, chunk - f->slots),
                        tree->children[c].rank, "the use of a result");
    }
  }
  if (hf_agree(o, code)) return 1;
  elem_t *outs[HF_OUTS];
  int64_t count = destinations(o, r.from, turn, lane->lane, b, outs);
  uint8_t *own = o->w->data + lane_at(f, slot, b, DOWN_OUT, chunk);
  int64_t bytes = r.n * (int64_t)sizeof(elem_t), far = 0;
  for (int64_t c = 0; c < 2; c++) {
    const hf_edge *child = &tree->children[c];
    if (child->rank < 0) continue;
    int64_t at = lane_at(f, child->slot, b, DOWN_IN, chunk);
    if (oi_is_mapped(o->w, (int32_t)child->rank))
      outs[count++] = (elem_t *)oi_peer_data(o->w, (int32_t)child->rank, at);
    else far = 1;
  }
  if (far) outs[count++] = (elem_t *)own;
  copy_to_all(o->ctx, down_source(o, slot, b, chunk, r), outs, count, r.n);
  count_local(o, 0, bytes);
  oi_barrier(o->ctx);
  if (o->ctx->tid != 0) return 0;
  for (int64_t c = 0; c < 2; c++) {
    const hf_edge *child = &tree->children[c];
    if (child->rank < 0) continue;
    hf_send(o, child->rank, lane_at(f, child->slot, b, DOWN_IN, chunk), own, bytes);
    oi_signal(o->w, (int32_t)child->rank, lane_flag(f, child->slot, b, DOWN_DATA),
              hf_value(o, chunk));
  }
  if (parent >= 0)
    oi_signal(o->w, (int32_t)parent,
              lane_flag(f, tree->parent.slot, b, DOWN_ACK + tree->parent.child),
              hf_value(o, chunk));
  return 0;
}

// Turns that the result comes after the sums: none where only one direction is used.
static inline int64_t tree_lag(const hf_op *o) {
  return o->p->kind == HF_ALLREDUCE && o->f->nodes > 1 ? (int64_t)o->p->lag : 0;
}
static int64_t tree_turns(const hf_op *o) {
  hf_range first = piece_of(o->p->count, o->f->lanes * branches(o), 0);
  return oi_ceil_div(first.n, o->p->chunk) + tree_lag(o);
}

static int tree_turn(hf_op *o, int64_t turn) {
  int64_t parts = branches(o), lag = tree_lag(o);
  for (int64_t slot = 0; o->p->kind != HF_BROADCAST && slot < o->f->owned; slot++) {
    for (int64_t b = 0; b < parts; b++) {
      if (tree_up(o, slot, b, turn)) return 1;
    }
  }
  // A reduce, and a lone node, have put the result in place on the way up.
  if (o->p->kind == HF_REDUCE || (o->p->kind != HF_BROADCAST && parts == 1)) return 0;
  for (int64_t slot = 0; slot < o->f->owned; slot++) {
    for (int64_t b = 0; b < parts; b++) {
      if (tree_down(o, slot, b, turn, turn - lag)) return 1;
    }
  }
  return 0;
}
