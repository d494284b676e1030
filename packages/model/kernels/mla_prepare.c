// Between the projections and the attention: splits each query head into its plain part (to go
// through W_UK) and its rotated part, and writes the token's latent, normalised, with its rotated
// shared key, into the paged cache.
#include "rows.h"

// Rotates the `dim` values of x by the position's angles. Pairs are neighbours or halves.
static void rotate(out_t *out, const float *x, const float *cos, const float *sin, int64_t dim) {
  for (int64_t i = 0; i < dim / 2; i++) {
#if INTERLEAVED
    int64_t a = 2 * i, b = 2 * i + 1;
#else
    int64_t a = i, b = i + dim / 2;
#endif
    float x0 = x[a], x1 = x[b];
    out_store1(out + a, x0 * cos[i] - x1 * sin[i]);
    out_store1(out + b, x1 * cos[i] + x0 * sin[i]);
  }
}

static void copy_row(out_t *out, const float *x, int64_t n) {
  int64_t i = 0;
  for (; i + OI_VF <= n; i += OI_VF) out_store(out + i, vf_load(x + i));
  for (; i < n; i++) out_store1(out + i, x[i]);
}

void mla_prepare(const params_t *p, oi_ctx *ctx) {
  int64_t nope = p->nope_dim, rope = p->rope_dim, rank = p->rank, heads = p->heads;
  for (int64_t t; (t = oi_take(ctx, 1)) < p->tokens;) {
    int64_t position = ((const int32_t *)p->position)[t];
    const float *cos = (const float *)p->cos + position * (rope / 2);
    const float *sin = (const float *)p->sin + position * (rope / 2);
    const float *kv = (const float *)p->kv + t * p->kv_stride;
    out_t *slot = (out_t *)p->cache + (int64_t)((const int32_t *)p->slots)[t] * (rank + rope);
    scale_row(slot, kv, p->kv_norm, rms_scale(kv, rank, (float)p->eps), rank);
    rotate(slot + rank, kv + rank, cos, sin, rope);
    for (int64_t head = 0; head < heads; head++) {
      const float *q = (const float *)p->q + t * p->q_stride + head * (nope + rope);
      out_t *latent = (out_t *)p->q_latent + (t * heads + head) * (rank + rope);
      copy_row((out_t *)p->q_nope + (t * heads + head) * nope, q, nope);
      rotate(latent + rank, q + nope, cos, sin, rope);
    }
  }
}
