// Tensors between neighbours of a ring. Two channels a rank, one that comes from each side, each
// with a few slots in the receiver's window; counting flags say how many tensors have arrived and
// how many slots have been emptied. `number` counts the tensors of a channel from 1.
#include "elastic.h"

// Flags behind those of all ranks: [arrived, emptied] of channels 0 and 1.
static int64_t flag_of(const oi_group *g, int64_t emptied, int64_t channel) {
  return (int64_t)F_PIPELINE * g->size + emptied * 2 + channel;
}

static int64_t slot_of(const params_t *p) {
  return p->data_at + (p->channel * p->slots + (p->number - 1) % p->slots) * p->slot_bytes;
}

// This thread's part of `bytes`, in whole lines.
static int64_t part_of(const oi_ctx *ctx, int64_t bytes, int64_t *from) {
  int64_t share = align_up(oi_ceil_div(bytes, ctx->nthreads), 64);
  *from = oi_min(bytes, ctx->tid * share);
  return oi_min(bytes - *from, share);
}

void elastic_send(const params_t *p, oi_ctx *ctx) {
  oi_window *w = p->window;
  oi_group *g = w->group;
  elastic_work *work = p->work;
  int32_t peer = (int32_t)p->peer;
  if (ctx->tid == 0)
    work->code = oi_wait(w, flag_of(g, 1, p->channel), p->number - p->slots, peer,
                         "a free slot for a tensor of the pipeline");
  if (!all_go_on(ctx, work)) return;
  int64_t from, bytes = part_of(ctx, p->bytes, &from);
  const uint8_t *x = (const uint8_t *)p->x + from;
  if (oi_is_mapped(w, peer)) {
    copy_row(oi_peer_data(w, peer, slot_of(p) + from), x, bytes);
    oi_count(g, peer, bytes, 1);
  } else {
    oi_put(w, peer, slot_of(p) + from, x, bytes);
  }
  ep_fence();
  oi_barrier(ctx);
  if (ctx->tid != 0) return;
  oi_signal(w, peer, flag_of(g, 0, p->channel), p->number);
  oi_flush(g);
}

void elastic_receive(const params_t *p, oi_ctx *ctx) {
  oi_window *w = p->window;
  oi_group *g = w->group;
  elastic_work *work = p->work;
  int32_t peer = (int32_t)p->peer;
  if (ctx->tid == 0)
    work->code = oi_wait(w, flag_of(g, 0, p->channel), p->number, peer,
                         "a tensor of the pipeline");
  if (!all_go_on(ctx, work)) return;
  int64_t from, bytes = part_of(ctx, p->bytes, &from);
  copy_row((uint8_t *)p->x + from, w->data + slot_of(p) + from, bytes);
  ep_fence();
  oi_barrier(ctx);
  if (ctx->tid == 0) oi_signal(w, peer, flag_of(g, 1, p->channel), p->number);
}
