// Rows of bf16 to e4m3 with one scale for each 128 columns, and back: the recipe of src/fp8.ts with
// one float32 rounding a step, so that both agree byte by byte.
#pragma once
#include "oi_kernel.h"
#include "oi_simd.h"

enum { EP_SCALE_BLOCK = 128 };

static inline int64_t ep_scale_count(int64_t hidden) {
  return oi_ceil_div(hidden, EP_SCALE_BLOCK);
}

// A power of two as its exponent code.
static inline uint8_t ep_ue8m0(float scale) {
  uint32_t bits;
  memcpy(&bits, &scale, 4);
  return (uint8_t)(bits >> 23);
}

// scale = what codes are multiplied by to come back; inverse = what numbers are multiplied by.
static inline void ep_scales(float amax, int round_scale, float *scale, float *inverse) {
  if (!(amax > 1e-4f)) amax = 1e-4f;
  *scale = amax / 448.0f;
  *inverse = 448.0f / amax;
  if (!round_scale) return;
  uint32_t bits;
  memcpy(&bits, scale, 4);
  uint32_t exponent = (bits >> 23) + ((bits & 0x7fffff) != 0);
  exponent = exponent < 1 ? 1 : exponent > 254 ? 254 : exponent;
  bits = exponent << 23;
  memcpy(scale, &bits, 4);
  *inverse = 1.0f / *scale;
}

// 2 · OI_VF finite numbers of at most 448 or so. Times 2^-8 they have f16's range just where e4m3
// becomes subnormal, so seven bits less of f16 are e4m3; what f16 cut off goes into its last bit,
// and the one rounding that counts is exact.
static inline void ep_store_pair(uint8_t *to, vf x, vf y) {
#if defined(__AVX512BW__)
  __m512 part[2] = {(__m512)x, (__m512)y};
  __m256i half[2];
  for (int i = 0; i < 2; i++) {
    __m512 small = _mm512_mul_ps(part[i], _mm512_set1_ps(0x1p-8f));
    __m256i h = _mm512_cvtps_ph(small, _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC);
    __mmask16 cut = _mm512_cmp_ps_mask(_mm512_cvtph_ps(h), small, _CMP_NEQ_UQ);
    half[i] = _mm256_or_si256(h, _mm256_maskz_set1_epi16(cut, 1));
  }
  __m512i h = _mm512_inserti64x4(_mm512_castsi256_si512(half[0]), half[1], 1);
  __m512i size = _mm512_and_si512(h, _mm512_set1_epi16(0x7fff));
  __m512i even = _mm512_and_si512(_mm512_srli_epi16(size, 7), _mm512_set1_epi16(1));
  size = _mm512_add_epi16(_mm512_add_epi16(size, _mm512_set1_epi16(0x3f)), even);
  size = _mm512_srli_epi16(size, 7);
  // | sign
  __m512i sign = _mm512_srli_epi16(h, 8);
  __m512i code = _mm512_ternarylogic_epi32(size, sign, _mm512_set1_epi16(0x80), 0xf8);
  _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi16_epi8(code));
#else
  vf_store_e4m3_sat(to, x);
  vf_store_e4m3_sat(to + OI_VF, y);
#endif
}

// Up to OI_VF elements, the rest of the vector zero.
static inline vf ep_load_bf16(const uint16_t *x, int64_t count) {
  if (count >= OI_VF) return vf_load_bf16(x);
  uint16_t part[OI_VF] = {0};
  for (int64_t i = 0; i < count; i++) part[i] = x[i];
  return vf_load_bf16(part);
}

// The largest magnitude as bits, which order as the numbers do, with every NaN above infinity.
static inline uint32_t ep_largest_bits(const uint16_t *x, int64_t count) {
  vu largest = {0};
  for (int64_t i = 0; i < count; i += OI_VF) {
    vu bits = vf_to_bits(ep_load_bf16(x + i, count - i)) & 0x7fffffff;
#if defined(__AVX512F__)
    largest = (vu)_mm512_max_epu32((__m512i)largest, (__m512i)bits);
#else
    largest = vu_select((vu)(bits > largest), bits, largest);
#endif
  }
  uint32_t all = 0;
#if defined(__AVX512F__)
  all = _mm512_reduce_max_epu32((__m512i)largest);
#else
  for (int i = 0; i < OI_VF; i++) all = largest[i] > all ? largest[i] : all;
#endif
  return all;
}

// A block with NaN or infinity in it: NaN does not count for the scale.
static inline float ep_amax_of_numbers(const uint16_t *x, int64_t count) {
  float amax = 0;
  for (int64_t i = 0; i < count; i++) {
    float size = __builtin_fabsf(bf16_to_f32(x[i]));
    if (size > amax) amax = size;
  }
  return amax;
}

// `count` columns of at most EP_SCALE_BLOCK. Returns their scale.
static inline __attribute__((always_inline)) float ep_cast_block(const uint16_t *x, int64_t count,
                                                                 int round_scale, uint8_t *codes) {
  uint32_t bits = ep_largest_bits(x, count);
  float amax, scale, inverse;
  memcpy(&amax, &bits, 4);
  int ordinary = bits < 0x7f800000;
  if (!ordinary) amax = ep_amax_of_numbers(x, count);
  ep_scales(amax, round_scale, &scale, &inverse);
  vf factor = vf_set(inverse);
  if (ordinary && count % (2 * OI_VF) == 0) {
    for (int64_t i = 0; i < count; i += 2 * OI_VF)
      ep_store_pair(codes + i, vf_load_bf16(x + i) * factor, vf_load_bf16(x + i + OI_VF) * factor);
    return scale;
  }
  for (int64_t i = 0; i < count; i += OI_VF) {
    vu8 part = vf_to_e4m3_sat_bits(ep_load_bf16(x + i, count - i) * factor);
    memcpy(codes + i, &part, (size_t)oi_min(OI_VF, count - i));
  }
  return scale;
}

// A row: `hidden` codes and ep_scale_count(hidden) scales.
static inline void ep_cast_row(const uint16_t *x, int64_t hidden, int round_scale, uint8_t *codes,
                               float *scales) {
  int64_t whole = hidden / EP_SCALE_BLOCK;
  for (int64_t b = 0; b < whole; b++) {
    int64_t at = b * EP_SCALE_BLOCK;
    // The length as a constant, so that its loops have no tails.
    scales[b] = ep_cast_block(x + at, EP_SCALE_BLOCK, round_scale, codes + at);
  }
  int64_t at = whole * EP_SCALE_BLOCK;
  if (at < hidden) scales[whole] = ep_cast_block(x + at, hidden - at, round_scale, codes + at);
}

// Four exponent codes in a word, the first lowest; `words` of them, zero beyond the last scale.
static inline void ep_pack_ue8m0(const float *scales, int64_t count, uint32_t *packed) {
  int64_t words = oi_ceil_div(count, 4);
  for (int64_t w = 0; w < words; w++) {
    uint32_t word = 0;
    for (int64_t i = 4 * w; i < oi_min(count, 4 * w + 4); i++)
      word |= (uint32_t)ep_ue8m0(scales[i]) << (8 * (i % 4));
    packed[w] = word;
  }
}
