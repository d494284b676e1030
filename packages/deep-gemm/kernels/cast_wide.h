// The casts' arithmetic on AVX-512: 64 elements at a time, the even and the odd ones in vectors of
// their own, so that widening takes no shuffles; and the scales of sixteen groups at once. Numbers
// here are finite: a group that holds others takes the way of cast_types.h.
#pragma once
#include "cast_types.h"
#if defined(__AVX512BW__) && defined(__AVX512DQ__)
#define CAST_WIDE 1

enum { GROUPS = 16 };  // whose scales are computed at once

// Elements of a row that are asked for ahead: far enough for memory, near enough for the
// first-level cache. They are asked for while codes are computed, when memory would wait.
enum { AHEAD = 8192 / sizeof(x_t) };

// Thirty-two elements.
typedef struct {
  __m512 even, odd;
} wide_t;

static inline wide_t wide_of(__m512 low, __m512 high) {
  const __m512i evens =
      _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
  const __m512i odds = _mm512_add_epi32(evens, _mm512_set1_epi32(1));
  return (wide_t){_mm512_permutex2var_ps(low, evens, high),
                  _mm512_permutex2var_ps(low, odds, high)};
}

static inline wide_t wide_load(const x_t *p) {
#if X_TYPE == 1
  __m512i x = _mm512_loadu_si512(p);
  __m512i odd = _mm512_and_si512(x, _mm512_set1_epi32((int)0xffff0000));
  return (wide_t){_mm512_castsi512_ps(_mm512_slli_epi32(x, 16)), _mm512_castsi512_ps(odd)};
#else
  return wide_of((__m512)x_load(p), (__m512)x_load(p + 16));
#endif
}

static inline wide_t wide_times(wide_t x, __m512 even, __m512 odd) {
  return (wide_t){_mm512_mul_ps(x.even, even), _mm512_mul_ps(x.odd, odd)};
}

// The largest magnitudes so far and those of thirty-two more, as bits in the elements' own type,
// which order as the numbers do, NaN above all.
static inline __m512i wide_larger(__m512i largest, const x_t *p) {
#if X_TYPE == 0
  __m512i sign = _mm512_set1_epi32((int)0x80000000);
  largest = _mm512_max_epu32(largest, _mm512_andnot_si512(sign, _mm512_loadu_si512(p)));
  return _mm512_max_epu32(largest, _mm512_andnot_si512(sign, _mm512_loadu_si512(p + 16)));
#else
  __m512i x = _mm512_and_si512(_mm512_loadu_si512(p), _mm512_set1_epi16(0x7fff));
  return _mm512_max_epu16(largest, x);
#endif
}

// The larger of neighbours, one to a 32-bit lane, still in the elements' type.
static inline __m512i lane_maxima(__m512i largest) {
#if X_TYPE == 0
  return largest;
#else
  __m512i low = _mm512_and_si512(largest, _mm512_set1_epi32(0xffff));
  return _mm512_max_epu32(low, _mm512_srli_epi32(largest, 16));
#endif
}

// Bits of the elements' type, one to a lane, as numbers.
static inline __m512 numbers_of(__m512i bits) {
#if X_TYPE == 0
  return _mm512_castsi512_ps(bits);
#elif X_TYPE == 1
  return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
#else
  return _mm512_cvtph_ps(_mm512_cvtepi32_epi16(bits));
#endif
}

// Where `sixteen_maxima` wants the lanes of group `g`.
static inline int place_of(int g) { return (g >> 2) + (g & 1) * 8 + (g >> 1 & 1) * 4; }

// The largest of the lanes of each of sixteen vectors; the one at place_of(g) in lane g.
static inline __m512i sixteen_maxima(__m512i v[16]) {
#define FOLD(N, LOW, HIGH) \
  for (int i = 0; i < N; i++) v[i] = _mm512_max_epu32(LOW(v[i], v[i + N]), HIGH(v[i], v[i + N]))
  FOLD(8, _mm512_unpacklo_epi32, _mm512_unpackhi_epi32);
  FOLD(4, _mm512_unpacklo_epi64, _mm512_unpackhi_epi64);
#undef FOLD
  __m512i s[2];
  for (int i = 0; i < 2; i++) {
    s[i] = _mm512_max_epu32(_mm512_shuffle_i32x4(v[2 * i], v[2 * i + 1], 0x44),
                            _mm512_shuffle_i32x4(v[2 * i], v[2 * i + 1], 0xee));
  }
  return _mm512_max_epu32(_mm512_shuffle_i32x4(s[0], s[1], 0x88),
                          _mm512_shuffle_i32x4(s[0], s[1], 0xdd));
}

static inline int all_finite(__m512 magnitudes) {
  const __m512 most = _mm512_set1_ps(0x1.fffffep127f);
  return _mm512_cmp_ps_mask(magnitudes, most, _CMP_NLE_UQ) == 0;
}

// Scales of blocks with these largest magnitudes, for codes up to `most`, rounded as fp8_scale
// does.
static inline __m512 wide_scales(__m512 largest, float most, int ue8m0) {
  __m512 scale = _mm512_max_ps(largest, _mm512_set1_ps(1e-4f));
  scale = _mm512_div_ps(scale, _mm512_set1_ps(most));
  if (!ue8m0) return scale;
  __m512i bits = _mm512_castps_si512(scale);
  __mmask16 above = _mm512_test_epi32_mask(bits, _mm512_set1_epi32(0x7fffff));
  __m512i exponent = _mm512_srli_epi32(bits, 23);
  exponent = _mm512_mask_add_epi32(exponent, above, exponent, _mm512_set1_epi32(1));
  exponent = _mm512_max_epu32(exponent, _mm512_set1_epi32(1));
  exponent = _mm512_min_epu32(exponent, _mm512_set1_epi32(254));
  return _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23));
}

static inline __m512 wide_inverses(__m512 scales) {
  return _mm512_div_ps(_mm512_set1_ps(1.0f), scales);
}

// e4m3 of numbers up to 448 or so, in the low half of each lane, and the sign at bit 11. Adding
// 2^20 times its own power of two rounds a number to three bits behind it, or where codes are
// subnormal to their step, and counts the steps in the lowest bits of the sum. The exponent's bits,
// added there, make the code but for a constant, which the factor brings along.
static inline __m512i e4m3_lanes(__m512 x) {
  const __m512 fields = _mm512_castsi512_ps(_mm512_set1_epi32((int)0xff800000));
  // 2^16 − 121 · 8 steps of 1/8 more.
  const __m512 factor = _mm512_set1_ps(0x1p20f + (0x10000 - (121 << 3)) / 8.0f);
  // The greater magnitude, with the number's sign.
  __m512 power = _mm512_range_ps(_mm512_and_ps(x, fields), _mm512_set1_ps(0x1p-6f), 3);
  __m512i steps = _mm512_castps_si512(_mm512_fmadd_ps(power, factor, x));
  return _mm512_add_epi32(steps, _mm512_srli_epi32(_mm512_castps_si512(power), 20));
}

// Thirty-two codes, each in a half lane, in order.
static inline __m512i e4m3_halves(wide_t x) {
  __m512i odd = _mm512_slli_epi32(e4m3_lanes(x.odd), 16);
  __m512i code = _mm512_mask_blend_epi16(0xaaaaaaaa, e4m3_lanes(x.even), odd);
  // The low seven bits, and the sign above them.
  return _mm512_ternarylogic_epi32(_mm512_set1_epi16(0x7f), code, _mm512_srli_epi16(code, 4), 0xca);
}

// The low bytes of half lanes.
static inline __m512i half_bytes(__m512i low, __m512i high) {
#if defined(__AVX512VBMI__)
  __m512i even = _mm512_set_epi64(0x7e7c7a7876747270, 0x6e6c6a6866646260, 0x5e5c5a5856545250,
                                  0x4e4c4a4846444240, 0x3e3c3a3836343230, 0x2e2c2a2826242220,
                                  0x1e1c1a1816141210, 0x0e0c0a0806040200);
  return _mm512_permutex2var_epi8(low, even, high);
#else
  __m512i bytes = _mm512_castsi256_si512(_mm512_cvtepi16_epi8(low));
  return _mm512_inserti64x4(bytes, _mm512_cvtepi16_epi8(high), 1);
#endif
}

static inline __m512i e4m3_codes(wide_t x, wide_t y) {
  return half_bytes(e4m3_halves(x), e4m3_halves(y));
}

// e2m1 of magnitudes up to 6 or so, in the low three bits of each lane. As above, but steps are
// counted upwards from half a step below: a middle belongs to the smaller code.
static inline __m512i e2m1_lanes(__m512 x) {
  const __m512 fields = _mm512_castsi512_ps(_mm512_set1_epi32(0x7f800000));
  // 2^8 − 127 · 2 steps of 1/2 more.
  const __m512 factor = _mm512_set1_ps(0x1.8p22f + (0x100 - (127 << 1)) / 2.0f);
  __m512 power = _mm512_max_ps(_mm512_and_ps(x, fields), _mm512_set1_ps(1.0f));
  __m512 below = _mm512_fmadd_ps(power, _mm512_set1_ps(-0.25f), x);
  __m512 steps = _mm512_fmadd_round_ps(power, factor, below,
                                       _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC);
  return _mm512_add_epi32(_mm512_castps_si512(steps),
                          _mm512_srli_epi32(_mm512_castps_si512(power), 22));
}

// Thirty-two codes, two in the low byte of each lane.
static inline __m512i e2m1_pairs(wide_t x) {
  const __m512 sign = _mm512_castsi512_ps(_mm512_set1_epi32((int)0x80000000));
  __m512i even = e2m1_lanes(_mm512_andnot_ps(sign, x.even));
  __m512i odd = _mm512_slli_epi32(e2m1_lanes(_mm512_andnot_ps(sign, x.odd)), 4);
  __m512i low = _mm512_set1_epi32(0x07);
  __m512i codes = _mm512_and_si512(_mm512_ternarylogic_epi32(low, even, odd, 0xca),
                                   _mm512_set1_epi32(0x77));
  __m512i signs = _mm512_ternarylogic_epi32(
      _mm512_set1_epi32(0x08), _mm512_srli_epi32(_mm512_castps_si512(x.even), 28),
      _mm512_srli_epi32(_mm512_castps_si512(x.odd), 24), 0xca);
  // Bit 3 of what is not zero: there is no negative zero.
  __m512i some = _mm512_add_epi32(codes, _mm512_set1_epi32(0x77));
  signs = _mm512_ternarylogic_epi32(signs, some, _mm512_set1_epi32(0x88), 0x80);
  return _mm512_or_si512(codes, signs);
}

#if defined(__AVX512VBMI__)
// The upper halves of numbers just below these, in order, at least 1/8 in magnitude.
static inline __m512i halves_below(wide_t x) {
  const __m512 least = _mm512_set1_ps(0.125f);
  const __m512i one = _mm512_set1_epi32(1);
  __m512i even = _mm512_castps_si512(_mm512_range_ps(x.even, least, 3));
  __m512i odd = _mm512_castps_si512(_mm512_range_ps(x.odd, least, 3));
  even = _mm512_srli_epi32(_mm512_sub_epi32(even, one), 16);
  return _mm512_mask_blend_epi16(0xaaaaaaaa, even, _mm512_sub_epi32(odd, one));
}

// Sixty-four codes, two to a byte, in the low bytes of half lanes. Codes change at numbers of two
// bits behind the leading one, and a number there belongs below: so the exponent's last three bits
// and those two of the number just below, and the sign, are the place of the code in a table.
static inline __m512i e2m1_table_pairs(wide_t x, wide_t y) {
  const __m512i table =
      _mm512_set_epi64(0x0c0b0b0a0a0a0909, 0x0909090900000000, 0, 0x0f0f0f0e0e0d0d0c,
                       0x0403030202020101, 0x0101010100000000, 0, 0x0707070606050504);
  __m512i low = halves_below(x), high = halves_below(y);
  __m512i fields = half_bytes(_mm512_srli_epi16(low, 5), _mm512_srli_epi16(high, 5));
  __m512i signs = half_bytes(_mm512_srli_epi16(low, 10), _mm512_srli_epi16(high, 10));
  __m512i place = _mm512_ternarylogic_epi32(_mm512_set1_epi8(0x1f), fields, signs, 0xca);
  __m512i codes = _mm512_permutexvar_epi8(place, table);
  return _mm512_maddubs_epi16(codes, _mm512_set1_epi16(0x1001));
}
#endif

// 128 codes in 64 bytes.
static inline __m512i e2m1_bytes(const wide_t x[4]) {
#if defined(__AVX512VBMI__)
  return half_bytes(e2m1_table_pairs(x[0], x[1]), e2m1_table_pairs(x[2], x[3]));
#else
  __m512i bytes = _mm512_castsi128_si512(_mm512_cvtepi32_epi8(e2m1_pairs(x[0])));
  bytes = _mm512_inserti32x4(bytes, _mm512_cvtepi32_epi8(e2m1_pairs(x[1])), 1);
  bytes = _mm512_inserti32x4(bytes, _mm512_cvtepi32_epi8(e2m1_pairs(x[2])), 2);
  return _mm512_inserti32x4(bytes, _mm512_cvtepi32_epi8(e2m1_pairs(x[3])), 3);
#endif
}

// Sixty-four bytes; past the caches where `stream` says so and they fill a line.
static inline void wide_store(uint8_t *to, __m512i bytes, int stream) {
  if (stream) _mm512_stream_si512((void *)to, bytes);
  else _mm512_storeu_si512(to, bytes);
}

static inline int fills_lines(const params_t *p, const uint8_t *to) {
  return p->stream && (uintptr_t)to % 64 == 0;
}

// Asks for thirty-two elements.
static inline void wide_prefetch(const x_t *p) {
  for (int64_t i = 0; i < 32; i += 64 / sizeof(x_t)) __builtin_prefetch(p + i, 0, 3);
}

// Largest magnitudes of `groups` groups of `len` columns one after another, in lanes.
static inline __attribute__((always_inline)) __m512 group_maxima(const x_t *x, int groups,
                                                                 int64_t len) {
  __m512i v[GROUPS];
  for (int g = 0; g < GROUPS; g++, x += len) {
    if (g >= groups) {
      v[place_of(g)] = _mm512_setzero_si512();
      continue;
    }
    __m512i largest = _mm512_setzero_si512();
    for (int64_t k = 0; k < len; k += 32) {
      largest = wide_larger(largest, x + k);
    }
    v[place_of(g)] = lane_maxima(largest);
  }
  return numbers_of(sixteen_maxima(v));
}

// The same for each of thirty-two columns.
static inline void columns_larger(__m512i *largest, const x_t *p) {
#if X_TYPE == 0
  __m512i sign = _mm512_set1_epi32((int)0x80000000);
  for (int i = 0; i < 2; i++) {
    __m512i x = _mm512_andnot_si512(sign, _mm512_loadu_si512(p + 16 * i));
    largest[i] = _mm512_max_epu32(largest[i], x);
  }
#else
  *largest = wide_larger(*largest, p);
#endif
}

static inline void columns_numbers(const __m512i *largest, float *to) {
  for (int i = 0; i < 2; i++) {
#if X_TYPE == 0
    __m512i bits = largest[i];
#else
    __m512i bits = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(*largest, 0));
    if (i == 1) bits = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(*largest, 1));
#endif
    _mm512_storeu_ps(to + 16 * i, numbers_of(bits));
  }
}

static inline void scales_store(float *to, int64_t step, __m512 scales, int count) {
  if (step == 1) {
    _mm512_mask_storeu_ps(to, (__mmask16)((1u << count) - 1), scales);
    return;
  }
  float each[16];
  _mm512_storeu_ps(each, scales);
  for (int i = 0; i < count; i++) to[i * step] = each[i];
}
#endif
