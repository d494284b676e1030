// The bound that the bench compares with: each thread copies its part of `bytes`, in rows, past the
// caches, and nothing else.
#include "../kernels/ep_common.h"

void copy_bound(const params_t *p, oi_ctx *ctx) {
  int64_t rows = p->bytes / p->row_bytes;
  int64_t share = oi_ceil_div(rows, ctx->nthreads);
  int64_t from = oi_min(rows, ctx->tid * share), to = oi_min(rows, from + share);
  for (int64_t i = from; i < to; i++)
    ep_copy((uint8_t *)p->to + i * p->row_bytes, (const uint8_t *)p->from + i * p->row_bytes,
            p->row_bytes, 1);
  ep_fence();
}
