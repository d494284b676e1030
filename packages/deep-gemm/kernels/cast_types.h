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

// After stores past the caches, before anyone is told of them.
static inline void oi_stream_fence(void) {
#if defined(__SSE__)
  _mm_sfence();
#endif
}

// 2 · OI_VF finite numbers of at most 448 or so as e4m3. Times 2^-8 they have f16's range where
// e4m3 becomes subnormal, so seven bits less of f16 are e4m3; what f16 cut off goes into its last
// bit, and the one rounding that counts is exact.
#if defined(__AVX512BW__)
static inline __m256i f16_odd(vf x) {
  __m512 small = _mm512_mul_ps((__m512)x, _mm512_set1_ps(0x1p-8f));
  __m256i half = _mm512_cvtps_ph(small, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
  __mmask16 cut = _mm512_cmp_ps_mask(_mm512_cvtph_ps(half), small, _CMP_NEQ_UQ);
  return _mm256_or_si256(half, _mm256_maskz_set1_epi16(cut, 1));
}
static inline void e4m3_store_pair(uint8_t *to, vf x, vf y) {
  __m512i h = _mm512_inserti64x4(_mm512_castsi256_si512(f16_odd(x)), f16_odd(y), 1);
  __m512i size = _mm512_and_si512(h, _mm512_set1_epi16(0x7fff));
  __m512i even = _mm512_and_si512(_mm512_srli_epi16(size, 7), _mm512_set1_epi16(1));
  size = _mm512_add_epi16(_mm512_add_epi16(size, _mm512_set1_epi16(0x3f)), even);
  size = _mm512_srli_epi16(size, 7);
  // | sign
  __m512i code = _mm512_ternarylogic_epi32(size, _mm512_srli_epi16(h, 8), _mm512_set1_epi16(0x80),
                                           0xf8);
  _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi16_epi8(code));
}
#else
static inline void e4m3_store_pair(uint8_t *to, vf x, vf y) {
  vf_store_e4m3(to, x);
  vf_store_e4m3(to + OI_VF, y);
}
#endif
