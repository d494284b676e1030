// Kernels for device.test.ts: who runs, what is shared, what a thread may keep.
#include "oi_kernel.h"

// out[i] = factor · x[i] + tid-independent work; counts the threads that took part in seen[tid].
void scale(const params_t *p, oi_ctx *ctx) {
  const float *x = p->x;
  float *out = p->out;
  for (int64_t at; (at = oi_take(ctx, 16)) < p->n;) {
    for (int64_t i = at; i < oi_min(at + 16, p->n); i++) out[i] = (float)(p->factor * x[i]);
  }
  if (p->seen) ((int32_t *)p->seen)[ctx->tid] = ctx->nthreads;
}

// Rounds of: every thread writes its scratch and slot, meets the others, and adds up all slots.
void meet(const params_t *p, oi_ctx *ctx) {
  int64_t *slots = p->out, *sums = p->x;
  char *scratch = ctx->scratch;
  int64_t bytes = p->n;
  for (int64_t i = 0; i < bytes; i += 64) scratch[i] = (char)ctx->tid;
  int64_t sum = 0;
  for (int64_t round = 0; round < (int64_t)p->factor; round++) {
    slots[ctx->tid * 8] = round + ctx->tid;
    oi_barrier(ctx);
    for (int t = 0; t < ctx->nthreads; t++) sum += slots[t * 8];
    oi_barrier(ctx);
  }
  for (int64_t i = 0; i < bytes; i += 64) if (scratch[i] != (char)ctx->tid) sum = -1;
  sums[ctx->tid * 8] = ((intptr_t)scratch & 63) == 0 ? sum : -2;
}
