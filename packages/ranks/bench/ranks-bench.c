// Kernels of the bench. Times are in nanoseconds, one sample a round, written by rank 0.
#include "oi_ranks.h"

// A signal to the other rank and back.
void round_trips(const params_t *p, oi_ctx *ctx) {
  if (ctx->tid != 0) return;
  oi_window *w = p->window;
  oi_group *g = w->group;
  int64_t *samples = p->samples;
  int32_t other = 1 - g->rank;
  for (int64_t i = 1; i <= p->rounds; i++) {
    int64_t start = oi_now_ns();
    if (g->rank == 0) oi_signal(w, other, 0, i);
    if (oi_wait(w, 0, i, other, "the other's signal") != OI_ARRIVED) return;
    if (g->rank == 1) oi_signal(w, other, 0, i);
    samples[i - 1] = oi_now_ns() - start;
  }
}

void barriers(const params_t *p, oi_ctx *ctx) {
  if (ctx->tid != 0) return;
  oi_window *w = p->window;
  int64_t *samples = p->samples;
  for (int64_t i = 0; i < p->rounds; i++) {
    int64_t start = oi_now_ns();
    if (oi_group_barrier(w->group) != OI_ARRIVED) return;
    samples[i] = oi_now_ns() - start;
  }
}

// Rank 0 copies from its memory to rank 1's, and as much within its own, in turn: samples of the
// puts first, then those of the copies.
void put_rows(const params_t *p, oi_ctx *ctx) {
  oi_window *w = p->window;
  oi_group *g = w->group;
  if (ctx->tid != 0 || g->rank != 0) return;
  int64_t *samples = p->samples;
  for (int64_t i = 0; i < p->rounds; i++) {
    int64_t start = oi_now_ns();
    oi_put(w, 1, 0, p->source, p->bytes);
    int64_t middle = oi_now_ns();
    memcpy(p->target, p->source, (size_t)p->bytes);
    samples[i] = middle - start;
    samples[p->rounds + i] = oi_now_ns() - middle;
  }
}

void nothing(const params_t *p, oi_ctx *ctx) {
  (void)p;
  (void)ctx;
}
