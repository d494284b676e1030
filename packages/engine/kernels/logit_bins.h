// Bins by distance below the best token, shared by the passes over logits.
//
// A token lies in a bin by how far its scaled logit is below the best one,
// d = (max - x) * inverse_temperature: 1/32 nat wide up to d = 16, half a nat beyond, the last bin
// takes the rest. All factors are powers of two, so the TypeScript side gets the same bins.
#pragma once
#include "oi_kernel.h"
#include "oi_simd.h"

static inline vf bin_position(vf d) {
  return vf_min(vf_min(d * vf_set(32.0f), d * vf_set(2.0f) + vf_set(480.0f)), vf_set(BINS - 1));
}

static inline int32_t bin_of(float d) {
  float fine = d * 32.0f, coarse = d * 2.0f + 480.0f;
  float b = fine < coarse ? fine : coarse;
  return (int32_t)(b < (float)(BINS - 1) ? b : (float)(BINS - 1));
}
