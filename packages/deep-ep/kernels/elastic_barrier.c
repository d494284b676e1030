// All ranks wait for each other, after all that was queued before: a barrier, or the end of a
// session of all-gathers. `kind` is 0 or 1.
#include "elastic.h"

void elastic_barrier(const params_t *p, oi_ctx *ctx) {
  oi_window *w = p->window;
  oi_group *g = w->group;
  if (ctx->tid != 0) return;
  int kind = p->kind == 0 ? F_BARRIER : F_SESSION_END;
  const char *awaited = p->kind == 0 ? "the barrier" : "the end of its all-gather session";
  for (int32_t i = 1; i < g->size; i++) raise(w, kind, p->epoch, (g->rank + i) % g->size);
  for (int32_t i = 1; i < g->size; i++) {
    int32_t from = (g->rank + i) % g->size;
    if (await(w, kind, p->epoch, from, awaited) != OI_ARRIVED) return;
  }
}
