#include "oi_kernel.h"
#include "oi_simd.h"

// y[i] += a · x[i]; BLOCK elements at a time, to whichever thread is free.
void axpy(const params_t *p, oi_ctx *ctx) {
  const float *x = p->x;
  float *y = p->y;
  for (int64_t i; (i = oi_take(ctx, BLOCK)) < p->n;) {
    int64_t end = oi_min(i + BLOCK, p->n);
    for (; i + OI_VF <= end; i += OI_VF)
      vf_store(y + i, vf_fma(vf_set((float)p->a), vf_load(x + i), vf_load(y + i)));
    for (; i < end; i++) y[i] += (float)p->a * x[i];
  }
}
