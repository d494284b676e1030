// out[t] = table[ids[t]] as f32: the residual stream starts here. Ids are checked by the caller.
#include "rows.h"

static void widen(float *out, const void *table, int64_t at, int64_t n) {
#if TABLE == TABLE_F32
  memcpy(out, (const float *)table + at, (size_t)n * sizeof(float));
#elif TABLE == TABLE_BF16
  const uint16_t *row = (const uint16_t *)table + at;
  int64_t i = 0;
  for (; i + OI_VF <= n; i += OI_VF) vf_store(out + i, vf_load_bf16(row + i));
  for (; i < n; i++) out[i] = bf16_to_f32(row[i]);
#else
  const uint16_t *row = (const uint16_t *)table + at;
  for (int64_t i = 0; i < n; i++) out[i] = f16_to_f32(row[i]);
#endif
}

void embed(const params_t *p, oi_ctx *ctx) {
  const int32_t *ids = p->ids;
  for (int64_t t; (t = oi_take(ctx, 1)) < p->tokens;) {
    widen((float *)p->out + t * p->hidden, p->table, (int64_t)ids[t] * p->hidden, p->hidden);
  }
}
