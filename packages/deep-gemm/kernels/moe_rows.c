// What a mixture of experts does to rows between its products: brings tokens together expert by
// expert, applies the activation, and adds up what the experts of a token say.
#include "oi_kernel.h"
#include "oi_simd.h"

enum { ROWS = 4 };  // taken at a time

// Of gated rows.
#if OUT_BF16
typedef uint16_t gated_t;
static inline void gated_store(gated_t *p, vf x) { vf_store_bf16(p, x); }
#else
typedef float gated_t;
static inline void gated_store(gated_t *p, vf x) { vf_store(p, x); }
#endif

// out[r] = x[token[r]], `bytes` of each.
void gather_rows(const params_t *p, oi_ctx *ctx) {
  const int32_t *tokens = p->tokens;
  for (int64_t from; (from = oi_take(ctx, ROWS)) < p->rows;) {
    for (int64_t r = from; r < oi_min(p->rows, from + ROWS); r++) {
      memcpy((char *)p->out + r * p->bytes, (const char *)p->x + tokens[r] * p->x_row,
             (size_t)p->bytes);
    }
  }
}

static inline vf clamp(vf x, vf low, vf high) {
  vf y = vf_select((vi)(x > high), high, x);
  return vf_select((vi)(y < low), low, y);
}

// out[r, i] = weight[r] · silu(x[r, i]) · x[r, n + i], of `count` ≤ OI_VF columns.
static inline void gate(const float *x, gated_t *out, int64_t n, vf weight, vf high,
                        int64_t count) {
  float part[2][OI_VF] = {{0}};
  memcpy(part[0], x, (size_t)count * sizeof(float));
  memcpy(part[1], x + n, (size_t)count * sizeof(float));
  vf g = clamp(vf_load(part[0]), vf_set(-__builtin_inff()), high);
  vf u = clamp(vf_load(part[1]), -high, high);
  gated_t gated[OI_VF];
  gated_store(gated, g / (vf_set(1.0f) + vf_exp(-g)) * u * weight);
  memcpy(out, gated, (size_t)count * sizeof(gated_t));
}

void gate_rows(const params_t *p, oi_ctx *ctx) {
  vf high = vf_set((float)p->clamp);
  int64_t n = p->bytes;
  for (int64_t from; (from = oi_take(ctx, ROWS)) < p->rows;) {
    for (int64_t r = from; r < oi_min(p->rows, from + ROWS); r++) {
      const float *x = (const float *)p->x + r * 2 * n;
      gated_t *out = (gated_t *)p->out + r * n;
      vf weight = vf_set(((const float *)p->tokens)[r]);
      int64_t i = 0;
      for (; i + OI_VF <= n; i += OI_VF) gate(x + i, out + i, n, weight, high, OI_VF);
      if (i < n) gate(x + i, out + i, n, weight, high, n - i);
    }
  }
}

// out[t] = Σ over k, in order, of x[row[t, k]], those without a row left out; as bf16.
void combine_rows(const params_t *p, oi_ctx *ctx) {
  int64_t n = p->bytes;
  for (int64_t t; (t = oi_take(ctx, 1)) < p->rows;) {
    const int32_t *rows = (const int32_t *)p->tokens + t * p->x_row;
    uint16_t *out = (uint16_t *)p->out + t * p->out_row;
    for (int64_t i = 0; i < n; i += OI_VF) {
      int64_t count = oi_min(OI_VF, n - i);
      vf sum = vf_zero();
      for (int64_t k = 0; k < p->x_row; k++) {
        if (rows[k] < 0) continue;
        float part[OI_VF] = {0};
        memcpy(part, (const float *)p->x + rows[k] * n + i, (size_t)count * sizeof(float));
        sum = sum + vf_load(part);
      }
      uint16_t rounded[OI_VF];
      vf_store_bf16(rounded, sum);
      memcpy(out + i, rounded, (size_t)count * sizeof(uint16_t));
    }
  }
}
