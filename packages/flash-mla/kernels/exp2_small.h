// Powers of two for softmaxes that keep their maxima in units of log 2.
#pragma once
#include "oi_simd.h"

// 2^x for x up to 0 or little more, relative error below 2e-7, and 2^-100 for all that is smaller.
// 2^0 is 1. NaN stays NaN.
static inline __attribute__((always_inline)) vf exp2_clamped(vf x) {
  const vf magic = vf_set(12582912.0f + 127.0f);
  const vf least = vf_max(vf_set(-100.0f), x);
  const vf shifted = least + magic;  // the exponent's bits are the lowest
  const vf r = least - (shifted - magic);
  vf p = vf_fma(vf_set(0.001326472731307149f), r, vf_set(0.009671512991189957f));
  p = vf_fma(p, r, vf_set(0.05550733581185341f));
  p = vf_fma(p, r, vf_set(0.24022242426872253f));
  p = vf_fma(p, r, vf_set(0.6931470036506653f));
  p = vf_fma(p, r, vf_set(1.0f));
  return p * vf_bits(vf_to_bits(shifted) << 23);
}

// The same, but 0 below -100, where a probability counts for nothing and its products would be
// subnormal and slow.
static inline __attribute__((always_inline)) vf exp2_small(vf x) {
#if defined(__AVX512F__)
  const __mmask16 keep = _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(-100.0f), _CMP_NLT_UQ);
  return (vf)_mm512_maskz_mov_ps(keep, (__m512)exp2_clamped(x));
#else
  return vf_select((vi)(x < vf_set(-100.0f)), vf_zero(), exp2_clamped(x));
#endif
}
