// The scale of a block of e4m3, with the original's arithmetic: one float32 rounding per step, so
// that casts and fused outputs agree byte for byte.
#pragma once
#include "oi_simd.h"

// max(amax, 1e-4) / 448; rounded up to a power of two (exponent code 1 … 254) for ue8m0. `amax`
// must not be NaN.
static inline float fp8_scale(float amax, int ue8m0) {
  float scale = (amax > 1e-4f ? amax : 1e-4f) / 448.0f;
  if (!ue8m0) return scale;
  uint32_t bits;
  memcpy(&bits, &scale, 4);
  uint32_t exponent = ((bits >> 23) & 0xff) + ((bits & 0x7fffff) != 0);
  exponent = exponent < 1 ? 1 : exponent > 254 ? 254 : exponent;
  bits = exponent << 23;
  memcpy(&scale, &bits, 4);
  return scale;
}
