// Passes a row around the ring: each rank puts what it has into the next one's window.
#include "oi_ranks.h"
void ring_pass(const params_t *p, oi_ctx *ctx) {
  if (ctx->tid != 0) return;
  oi_window *w = p->window;
  oi_group *g = w->group;
  int32_t to = (g->rank + 1) % g->size, from = (g->rank + g->size - 1) % g->size;
  for (int64_t i = 1; i <= p->rounds; i++) {
    int64_t value = g->rank * 1000 + i;
    if (i > 1 && oi_wait(w, 1, i - 1, to, "the reader's acknowledgement") != OI_ARRIVED) return;
    oi_put(w, to, 0, &value, 8);
    oi_signal(w, to, 0, i);
    if (oi_wait(w, 0, i, from, "the row of the ring") != OI_ARRIVED) return;
    int64_t got;
    memcpy(&got, w->data, 8);
    if (got != from * 1000 + i) {
      oi_fail(g, OI_BAD_DATA, from, got, i, 0, "a wrong row");
      return;
    }
    oi_signal(w, from, 1, i);
    *(int64_t *)p->out += got;
    // A link may not have sent `value` yet, and the next round changes it.
    if (oi_flush(g) != OI_ARRIVED) return;
  }
}
