// Between nodes around a ring: each node's segment of a lane travels once around while all add to
// it (reduce-scatter), and once more with the result (all-gather). Every link carries the same, at
// the price of as many steps as nodes.
#pragma once
#include "hfreduce_tree.h"

enum { RING_DATA = 12, RING_ACK = 13 };

// Steps of the ring, of the 2n − 2 of an allreduce, that this operation takes.
static inline int64_t ring_first(const hf_op *o) {
  return o->p->kind == HF_ALL_GATHER ? o->f->nodes - 1 : 0;
}
static inline int64_t ring_last(const hf_op *o) {
  return o->p->kind == HF_REDUCE_SCATTER ? o->f->nodes - 1 : 2 * o->f->nodes - 2;
}

// The segment of node x: for an allreduce a cut of the lane, else the blocks of the rank that has
// the lane's number on that node, if there is one.
static hf_range segment_of(const hf_op *o, int64_t lane, int64_t x) {
  const hf_frame *f = o->f;
  if (o->p->kind == HF_ALLREDUCE)
    return piece_of(o->p->count, f->lanes * f->nodes, lane * f->nodes + x);
  hf_range r = {0, 0};
  if (lane >= f->node_start[x + 1] - f->node_start[x]) return r;
  r.n = (int64_t)o->p->count * (int64_t)o->p->devices;
  r.from = (f->node_start[x] + lane) * r.n;
  return r;
}
static inline int64_t ring_chunks(const hf_op *o) {
  int64_t longest = o->p->count * o->p->devices;
  if (o->p->kind == HF_ALLREDUCE) longest = segment_of(o, 0, 0).n;
  return oi_ceil_div(longest, o->p->chunk);
}

// Chunks go around in batches, as many at once as fit into the slots: in turn t a rank uses what
// its neighbour sent in turn t − batch, so a slot is free again before it is needed. After all
// steps of a batch comes the next one, without a pause.
static inline int64_t ring_batch(const hf_op *o) {
  return oi_max(1, oi_min(ring_chunks(o), o->f->slots - 1));
}
static inline int64_t ring_round(const hf_op *o) {
  return (ring_last(o) - ring_first(o) + 1) * ring_batch(o);
}
static inline int64_t ring_step(const hf_op *o, int64_t turn) {
  return ring_first(o) + turn % ring_round(o) / ring_batch(o);
}
static hf_range ring_range(const hf_op *o, int64_t turn, int64_t lane) {
  int64_t n = o->f->nodes, batch = ring_batch(o);
  int64_t x = (o->f->node - 1 - ring_step(o, turn) + 2 * n) % n;
  int64_t chunk = turn / ring_round(o) * batch + turn % batch;
  return chunk_of(segment_of(o, lane, x), o->p->chunk, chunk);
}

// Destinations of elements [r.from, r.from + n) where blocks belong to devices.
static int64_t ring_destinations(hf_op *o, int64_t e, int64_t turn, int64_t lane, elem_t **outs) {
  if (o->p->kind != HF_REDUCE_SCATTER) return destinations(o, e, turn, lane, 0, outs);
  int64_t count = o->p->count, base = o->f->me * count * o->p->devices;
  int64_t d = (e - base) / count;
  outs[0] = o->own_outs[d] + (e - base - d * count);
  return 1;
}

// The end of the block that element e lies in, for kinds whose devices have blocks of their own.
static int64_t block_end(const hf_op *o, int64_t e) {
  if (o->p->kind == HF_ALLREDUCE) return INT64_MAX;
  int64_t count = (int64_t)o->p->count;
  return (e / count + 1) * count;
}

// Adds the node's share to what came from the left; sets where it goes. Only the last step rounds.
static void ring_add(hf_op *o, int64_t turn, int64_t slot, hf_range r, const uint8_t *in,
                     uint8_t *out) {
  const hf_lane *lane = &o->lanes[slot];
  const hf_frame *f = o->f;
  int64_t last = ring_step(o, turn) == f->nodes - 1;
  for (int64_t e = r.from, end; e < r.from + r.n; e = end) {
    end = oi_min(r.from + r.n, last ? block_end(o, e) : INT64_MAX);
    set_sources(o, e, turn, lane->lane, 0);
    hf_fold *fold_of = &o->fold;
    int64_t done = e - r.from;
    for (int64_t j = 0; j < f->locals; j++) {  // staged parts begin with the turn's first element
      if (o->direct || j == f->local) continue;
      if (fold_of->sums[j] != NULL) fold_of->sums[j] += done;
      else fold_of->sources[j * o->p->devices] += done;
    }
    fold_of->partial_count = in != NULL;
    fold_of->partials[0] = (const wire_t *)in + done;
    fold_of->partial_out = last ? NULL : (wire_t *)out + done;
    if (last) {
      fold_of->out_count = ring_destinations(o, e, turn, lane->lane, fold_of->outs);
      if (out != NULL) fold_of->outs[fold_of->out_count++] = (elem_t *)out + done;
    }
    fold(fold_of, o->ctx, end - e);
    fold_of->partial_out = NULL;
  }
  int64_t bytes = r.n * (int64_t)sizeof(elem_t);
  count_local(o, bytes, last && o->p->kind == HF_ALLREDUCE ? bytes : 0);
}

// A finished part, to the node's ranks and on to the right.
static void ring_pass(hf_op *o, int64_t turn, int64_t slot, hf_range r, const uint8_t *in,
                      uint8_t *out) {
  const hf_lane *lane = &o->lanes[slot];
  for (int64_t e = r.from, end; e < r.from + r.n; e = end) {
    int64_t devices = o->p->devices, count = o->p->count, done = e - r.from;
    end = r.from + r.n;
    const elem_t *from = (const elem_t *)in + done;
    if (in == NULL) {
      end = oi_min(end, block_end(o, e));
      int64_t d = e / count - o->f->me * devices;
      from = o->own_sources[d] + e % count;
    }
    elem_t *outs[HF_OUTS];
    int64_t n = destinations(o, e, turn, lane->lane, 0, outs);
    for (int64_t k = 0, j = 0; k < n && !o->direct; j++) {  // as above
      if (j == o->f->local) k += devices;
      else outs[k++] += done;
    }
    if (out != NULL) outs[n++] = (elem_t *)out + done;
    copy_to_all(o->ctx, from, outs, n, end - e);
  }
  count_local(o, 0, r.n * (int64_t)sizeof(elem_t));
}

static int ring_lane(hf_op *o, int64_t turn, int64_t slot) {
  const hf_frame *f = o->f;
  const hf_lane *lane = &o->lanes[slot];
  int64_t step = ring_step(o, turn);
  int64_t came = turn - ring_batch(o);  // the turn of the left neighbour that sent what is used now
  int receives = step > ring_first(o), sends = step < ring_last(o);
  hf_range r = ring_range(o, turn, lane->lane);
  if (r.n == 0) return 0;
  int64_t left = lane->left.rank, right = lane->right.rank;
  int32_t code = OI_ARRIVED;
  if (o->ctx->tid == 0) {
    if (receives)
      code = hf_await(o, lane_flag(f, slot, 0, RING_DATA), hf_value(o, came), left,
                      "a segment of the ring");
    if (code == OI_ARRIVED && sends && turn >= f->slots)
      code = hf_await(o, lane_flag(f, slot, 0, RING_ACK), hf_value(o, turn - f->slots), right,
                      "the use of a segment");
  }
  if (hf_agree(o, code)) return 1;
  int64_t at = lane_at(f, lane->right.slot, 0, 0, turn);
  uint8_t *own = o->w->data + lane_at(f, slot, 1, 0, turn), *out = NULL;
  if (sends) out = own;
  if (sends && oi_is_mapped(o->w, (int32_t)right)) out = oi_peer_data(o->w, (int32_t)right, at);
  const uint8_t *in = receives ? o->w->data + lane_at(f, slot, 0, 0, came) : NULL;
  if (step < f->nodes && o->p->kind != HF_ALL_GATHER) ring_add(o, turn, slot, r, in, out);
  else ring_pass(o, turn, slot, r, in, out);
  oi_barrier(o->ctx);
  if (o->ctx->tid != 0) return 0;
  if (sends) {
    int64_t unit = step < f->nodes - 1 ? sizeof(wire_t) : sizeof(elem_t);
    hf_send(o, right, at, own, r.n * unit);
    oi_signal(o->w, (int32_t)right, lane_flag(f, lane->right.slot, 0, RING_DATA),
              hf_value(o, turn));
  }
  return 0;
}

// Tells the left neighbour which turn's slot is free again, whether or not anything lay in it.
static void ring_acknowledge(hf_op *o, int64_t turn) {
  int64_t came = turn - ring_batch(o);
  if (o->ctx->tid != 0 || came < 0 || o->f->nodes == 1) return;
  for (int64_t slot = 0; slot < o->f->owned; slot++) {
    const hf_edge *left = &o->lanes[slot].left;
    oi_signal(o->w, (int32_t)left->rank, lane_flag(o->f, left->slot, 0, RING_ACK),
              hf_value(o, came));
  }
}

static int64_t ring_turns(const hf_op *o) {
  return oi_ceil_div(ring_chunks(o), ring_batch(o)) * ring_round(o);
}

static int ring_turn(hf_op *o, int64_t turn) {
  for (int64_t slot = 0; slot < o->f->owned; slot++) {
    if (ring_lane(o, turn, slot)) return 1;
  }
  oi_barrier(o->ctx);
  ring_acknowledge(o, turn);
  return 0;
}
