// An all-gather's part of each rank, to all: put where every rank expects it, then told. There is
// no leave to be asked: a session's bytes are free from its start on, and each gather of a session
// has bytes of its own. And the two short operations around it: a barrier, and a session's end,
// which is one.
#include "elastic.h"

// parts: [count] of address, bytes, offset in the window of this rank's part.
typedef struct {
  int64_t source, bytes, offset;
} part_t;

enum { CHUNK_BYTES = 256 * 1024 };

void elastic_gather(const params_t *p, oi_ctx *ctx) {
  oi_window *w = p->window;
  oi_group *g = w->group;
  const part_t *parts = p->parts;
  for (int64_t i = 0; i < p->count; i++) {
    const uint8_t *source = (const uint8_t *)(intptr_t)parts[i].source;
    int64_t chunks = oi_ceil_div(parts[i].bytes, CHUNK_BYTES);
    for (int64_t j = ctx->tid; j < chunks; j += ctx->nthreads) {
      int64_t at = j * CHUNK_BYTES, bytes = oi_min(CHUNK_BYTES, parts[i].bytes - at);
      // The same piece to all, while it is in the cache.
      for (int32_t k = 0; k < g->size; k++) {
        int32_t to = (g->rank + k) % g->size;
        int64_t offset = parts[i].offset + at;
        if (oi_is_mapped(w, to)) {
          uint8_t *target = oi_peer_data(w, to, offset);
          if (target == source + at) continue;  // in place
          copy_row(target, source + at, bytes);
          oi_count(g, to, bytes, 1);
        } else {
          oi_put(w, to, offset, source + at, bytes);
        }
      }
    }
  }
  ep_fence();
  oi_barrier(ctx);
  if (ctx->tid != 0) return;
  for (int32_t i = 1; i < g->size; i++) raise(w, F_GATHERED, p->epoch, (g->rank + i) % g->size);
  for (int32_t i = 1; i < g->size; i++) {
    int32_t from = (g->rank + i) % g->size;
    if (await(w, F_GATHERED, p->epoch, from, "its part of the all-gather") != OI_ARRIVED) return;
  }
  oi_flush(g);
}
