// One residual step and the norm that follows it, a row at a time:
//   h[t] += delta[t] + Σ_j weights[t][j] · expertRows[positions[t][j]]      (what is given of it)
//   out[i] = h[t] / rms(h[t]) · weight, t = rows ? rows[i] : i
// Experts are added in the order of the token's own choice, never in the order of the batch.
#include "rows.h"

static void add_experts(const params_t *p, float *h, int64_t t) {
  const float *weights = (const float *)p->expert_weights + t * p->top_k;
  const int32_t *positions = (const int32_t *)p->positions + t * p->top_k;
  const float *rows = p->expert_rows;
  int64_t n = p->dim, k = p->top_k, i = 0;
  for (; i + OI_VF <= n; i += OI_VF) {
    vf sum = vf_zero();
    for (int64_t j = 0; j < k; j++) {
      sum = vf_fma(vf_set(weights[j]), vf_load(rows + positions[j] * n + i), sum);
    }
    vf_store(h + i, vf_load(h + i) + sum);
  }
  for (; i < n; i++) {
    float sum = 0;
    for (int64_t j = 0; j < k; j++) sum = weights[j] * rows[positions[j] * n + i] + sum;
    h[i] += sum;
  }
}

static void add_row(float *h, const float *delta, int64_t n) {
  int64_t i = 0;
  for (; i + OI_VF <= n; i += OI_VF) vf_store(h + i, vf_load(h + i) + vf_load(delta + i));
  for (; i < n; i++) h[i] += delta[i];
}

void residual_norm(const params_t *p, oi_ctx *ctx) {
  int64_t n = p->dim;
  const int32_t *rows = p->rows;
  for (int64_t i; (i = oi_take(ctx, 1)) < p->count;) {
    int64_t t = rows ? rows[i] : i;
    float *h = (float *)p->h + t * p->h_stride;
    if (p->delta) add_row(h, (const float *)p->delta + t * n, n);
    if (p->expert_rows) add_experts(p, h, t);
    float scale = rms_scale(h, n, (float)p->eps);
    out_t *out = (out_t *)p->out + i * n;
    scale_row(out, h, p->weight, scale, n);
    if (p->out_f32) {
      float *exact = (float *)p->out_f32 + i * n;
      const float *weight = p->weight;
      for (int64_t k = 0; k < n; k++) exact[k] = h[k] * scale * weight[k];
    }
  }
}
