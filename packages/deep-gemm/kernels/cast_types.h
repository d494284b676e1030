// What casts read and write beside codes: rows of X_TYPE, the driver's constant, as float32
// vectors.
#pragma once
#include "oi_kernel.h"
#include "oi_simd.h"

#if X_TYPE == 0
typedef float x_t;
static inline vf x_load(const x_t *p) { return vf_load(p); }
static inline void x_store(x_t *p, vf v) { vf_store(p, v); }
#elif X_TYPE == 1
typedef uint16_t x_t;
static inline vf x_load(const x_t *p) { return vf_load_bf16(p); }
static inline void x_store(x_t *p, vf v) { vf_store_bf16(p, v); }
#else
typedef uint16_t x_t;
static inline vf x_load(const x_t *p) { return vf_load_f16(p); }
static inline void x_store(x_t *p, vf v) { vf_store_f16(p, v); }
#endif

// Up to OI_VF elements, the rest of the vector zero.
static inline vf x_load_part(const x_t *p, int64_t n) {
  if (__builtin_expect(n >= OI_VF, 1)) return x_load(p);
  x_t part[OI_VF] = {0};
  for (int64_t i = 0; i < n; i++) part[i] = p[i];
  return x_load(part);
}

// Up to `most` bytes of codes; a whole vector as one store.
static inline void codes_store(uint8_t *to, const void *codes, int64_t bytes, int64_t most) {
  if (__builtin_expect(bytes >= most, 1)) {
    memcpy(to, codes, (size_t)most);
    return;
  }
  for (int64_t i = 0; i < bytes; i++) to[i] = ((const uint8_t *)codes)[i];
}

// Largest magnitudes as their bits, which order as the numbers do, with every NaN above infinity.
static inline vu larger_magnitude(vu largest, vf x) {
  vu bits = vf_to_bits(x) & 0x7fffffff;
#if defined(__AVX512F__)
  return (vu)_mm512_max_epu32((__m512i)largest, (__m512i)bits);
#else
  return vu_select((vu)(bits > largest), bits, largest);
#endif
}

// The largest of all lanes as a number; NaN if one is.
static inline float largest_of(vu largest) {
#if defined(__AVX512F__)
  uint32_t bits = _mm512_reduce_max_epu32((__m512i)largest);
#else
  uint32_t bits = 0;
  for (int i = 0; i < OI_VF; i++) bits = largest[i] > bits ? largest[i] : bits;
#endif
  float x;
  memcpy(&x, &bits, 4);
  return x;
}
