// Lists the tokens of a range of bins of one row of logits, in ascending order.
#include "logit_bins.h"

// At most `capacity` indices are written; the histogram told how many there are.
void collect_bins(const params_t *p, oi_ctx *ctx) {
  if (ctx->tid != 0) return;
  const float *x = p->logits;
  const float max = (float)p->maximum, scale = (float)p->scale;
  const int32_t first = (int32_t)p->first, last = (int32_t)p->last;
  int32_t *out = p->indices;
  int64_t found = 0;
  const vf top = vf_set(max), s = vf_set(scale);
  for (int64_t i = 0; i < p->vocab; i += OI_VF) {
    if (i + OI_VF <= p->vocab) {
      vi bins = __builtin_convertvector(bin_position((top - vf_load(x + i)) * s), vi);
      vi in = (vi)(bins >= first) & (vi)(bins <= last);
      int64_t any[OI_VF / 2];
      memcpy(any, &in, sizeof any);
      int64_t hit = 0;
      for (int l = 0; l < OI_VF / 2; l++) hit |= any[l];
      if (hit == 0) continue;
    }
    for (int64_t j = i; j < oi_min(i + OI_VF, p->vocab); j++) {
      int32_t b = bin_of((max - x[j]) * scale);
      if (b >= first && b <= last && found < p->capacity) out[found++] = (int32_t)j;
    }
  }
}
