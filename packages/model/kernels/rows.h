// Loads and stores that the small row-wise kernels share: an activation is f32 or bf16 by the
// compile-time constant OUT_BF16, a table is f32, bf16 or f16. Tails are handled one by one, so
// that no kernel asks for sizes that fit its vectors.
#pragma once
#include "oi_kernel.h"
#include "oi_simd.h"

// Values of the constant TABLE; 2 is f16.
#define TABLE_F32 0
#define TABLE_BF16 1

#ifdef OUT_BF16
#if OUT_BF16
typedef uint16_t out_t;
static inline void out_store(out_t *p, vf v) { vf_store_bf16(p, v); }
static inline void out_store1(out_t *p, float x) { *p = f32_to_bf16(x); }
#else
typedef float out_t;
static inline void out_store(out_t *p, vf v) { vf_store(p, v); }
static inline void out_store1(out_t *p, float x) { *p = x; }
#endif
#endif

// Sum of squares in a fixed order: four accumulators of lanes, then the lanes as a tree, then the
// tail.
static inline float sum_of_squares(const float *x, int64_t n) {
  vf a0 = vf_zero(), a1 = a0, a2 = a0, a3 = a0;
  int64_t i = 0;
  for (; i + 4 * OI_VF <= n; i += 4 * OI_VF) {
    vf x0 = vf_load(x + i), x1 = vf_load(x + i + OI_VF);
    vf x2 = vf_load(x + i + 2 * OI_VF), x3 = vf_load(x + i + 3 * OI_VF);
    a0 = vf_fma(x0, x0, a0);
    a1 = vf_fma(x1, x1, a1);
    a2 = vf_fma(x2, x2, a2);
    a3 = vf_fma(x3, x3, a3);
  }
  for (; i + OI_VF <= n; i += OI_VF) {
    vf v = vf_load(x + i);
    a0 = vf_fma(v, v, a0);
  }
  float tail = 0;
  for (; i < n; i++) tail += x[i] * x[i];
  return vf_sum((a0 + a1) + (a2 + a3)) + tail;
}

static inline float rms_scale(const float *x, int64_t n, float eps) {
  return 1.0f / __builtin_sqrtf(sum_of_squares(x, n) / (float)n + eps);
}

#ifdef OUT_BF16
// out = x · scale · weight.
static inline void scale_row(out_t *out, const float *x, const float *weight, float scale,
                             int64_t n) {
  int64_t i = 0;
  for (; i + OI_VF <= n; i += OI_VF) {
    out_store(out + i, vf_load(x + i) * vf_set(scale) * vf_load(weight + i));
  }
  for (; i < n; i++) out_store1(out + i, x[i] * scale * weight[i]);
}
#endif
