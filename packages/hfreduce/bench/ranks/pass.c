// The least that an allreduce in place can do to memory, without the allreduce: every rank reads
// and writes its own buffer once.
#include "oi_ranks.h"
#include "oi_simd.h"
void pass(const params_t *p, oi_ctx *ctx) {
  if (ctx->tid != 0) return;
  float *x = p->x;
  vf one = vf_set(1.0f);
  for (int64_t i = 0; i + 4 * OI_VF <= p->count; i += 4 * OI_VF) {
    vf a = vf_load(x + i) + one, b = vf_load(x + i + OI_VF) + one;
    vf c = vf_load(x + i + 2 * OI_VF) + one, d = vf_load(x + i + 3 * OI_VF) + one;
    vf_store(x + i, a);
    vf_store(x + i + OI_VF, b);
    vf_store(x + i + 2 * OI_VF, c);
    vf_store(x + i + 3 * OI_VF, d);
  }
}
