// Sums a number over all ranks: each adds its own to what comes round the ring.
#include "oi_ranks.h"

void ring_sum(const params_t *p, oi_ctx *ctx) {
  if (ctx->tid != 0) return;
  oi_window *w = p->window;
  oi_group *g = w->group;
  int32_t next = (g->rank + 1) % g->size, last = (g->rank + g->size - 1) % g->size;
  double sum = p->value;
  if (g->rank > 0) {
    if (oi_wait(w, 0, 1, last, "the sum so far") != OI_ARRIVED) return;
    sum += *(double *)w->data;
  }
  oi_put(w, next, 0, &sum, sizeof sum);
  oi_signal(w, next, 0, 1);
  if (oi_flush(g) != OI_ARRIVED) return;
  if (g->rank == 0 && oi_wait(w, 0, 1, last, "the sum of all") != OI_ARRIVED) return;
  *(double *)p->out = g->rank == 0 ? *(double *)w->data : sum;
}
