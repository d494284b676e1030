// Vectors of a matrix product whose sums run along K in four chains.
//
// Every output element, on every machine and for every shape, is summed the same way: K is cut into
// blocks of K_BLOCK; inside a block four chains c = 0 … 3 take k = 8i + 2c, then 8i + 2c + 1, for i
// = 0, 1, … with one fused multiply-add each; (c0 + c2) + (c1 + c3) is the block's sum, and blocks
// are added in order. A vector of OI_VF lanes holds the four chains of COLS = OI_VF / 4 columns, in
// 128-bit blocks, so wider machines take more columns and change no sum.
//
// This file has what differs between instruction sets: spreading four floats to all blocks, summing
// the chains, transposing blocks, widening halves. It knows nothing of matrices.
#pragma once
#include "oi_simd.h"

// Loops over accumulators must be unrolled completely, else those live in memory.
#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum {
  COLS = OI_VF / 4,  // columns in a vector
  VECS = 4,          // vectors in a tile; column j of a tile is block j / 4 of vector j % 4
  TILE_N = OI_VF,    // columns of a tile
  K_BLOCK = 512,     // k per inner sum; part of the result's definition
};

typedef uint16_t vw __attribute__((vector_size(OI_VF * 4)));  // 2 · OI_VF words
typedef int16_t vsw __attribute__((vector_size(OI_VF * 4)));
typedef uint8_t vb __attribute__((vector_size(OI_VF * 4)));  // 4 · OI_VF bytes

static inline vu vu_load(const void *p) { vu v; memcpy(&v, p, sizeof v); return v; }

// OI_VF words, widened; written out, because gcc 12 widens in two halves.
static inline vu vu_load_words(const uint16_t *p) {
#if defined(__AVX512F__)
  return (vu)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
#else
  vu16 h;
  memcpy(&h, p, sizeof h);
  return __builtin_convertvector(h, vu);
#endif
}

// Sixteen bytes in every 128-bit block.
static inline vf spread16(const void *p) {
#if defined(__AVX512F__)
  return (vf)_mm512_broadcast_f32x4(_mm_loadu_ps(p));
#elif defined(__AVX__)
  return (vf)_mm256_broadcast_ps(p);
#else
  return vf_load(p);
#endif
}

// Lane 4n + v = (x0 + x2) + (x1 + x3) over block n of vector v.
static inline vf sum_chains(vf a, vf b, vf c, vf d) {
#if defined(__AVX512F__)
  __m512 x = (__m512)a, y = (__m512)b, z = (__m512)c, w = (__m512)d;
  __m512 xy = _mm512_add_ps(_mm512_unpacklo_ps(x, y), _mm512_unpackhi_ps(x, y));
  __m512 zw = _mm512_add_ps(_mm512_unpacklo_ps(z, w), _mm512_unpackhi_ps(z, w));
  __m512d p = _mm512_castps_pd(xy), q = _mm512_castps_pd(zw);
  return (vf)_mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(p, q)),
                           _mm512_castpd_ps(_mm512_unpackhi_pd(p, q)));
#elif defined(__AVX__)
  __m256 x = (__m256)a, y = (__m256)b, z = (__m256)c, w = (__m256)d;
  __m256 xy = _mm256_add_ps(_mm256_unpacklo_ps(x, y), _mm256_unpackhi_ps(x, y));
  __m256 zw = _mm256_add_ps(_mm256_unpacklo_ps(z, w), _mm256_unpackhi_ps(z, w));
  __m256d p = _mm256_castps_pd(xy), q = _mm256_castps_pd(zw);
  return (vf)_mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(p, q)),
                           _mm256_castpd_ps(_mm256_unpackhi_pd(p, q)));
#else
  return (vf){(a[0] + a[2]) + (a[1] + a[3]), (b[0] + b[2]) + (b[1] + b[3]),
              (c[0] + c[2]) + (c[1] + c[3]), (d[0] + d[2]) + (d[1] + d[3])};
#endif
}

// In every 128-bit block, four vectors of four floats transposed: lane c of block n of the v-th
// result is lane v of block n of the c-th vector.
static inline __attribute__((always_inline)) void transpose_floats(vf r[4]) {
#if defined(__AVX512F__)
  __m512 a = (__m512)r[0], b = (__m512)r[1], c = (__m512)r[2], d = (__m512)r[3];
  __m512d ab = (__m512d)_mm512_unpacklo_ps(a, b), cd = (__m512d)_mm512_unpacklo_ps(c, d);
  __m512d ef = (__m512d)_mm512_unpackhi_ps(a, b), gh = (__m512d)_mm512_unpackhi_ps(c, d);
  r[0] = (vf)_mm512_unpacklo_pd(ab, cd);
  r[1] = (vf)_mm512_unpackhi_pd(ab, cd);
  r[2] = (vf)_mm512_unpacklo_pd(ef, gh);
  r[3] = (vf)_mm512_unpackhi_pd(ef, gh);
#elif defined(__AVX__)
  __m256 a = (__m256)r[0], b = (__m256)r[1], c = (__m256)r[2], d = (__m256)r[3];
  __m256d ab = (__m256d)_mm256_unpacklo_ps(a, b), cd = (__m256d)_mm256_unpacklo_ps(c, d);
  __m256d ef = (__m256d)_mm256_unpackhi_ps(a, b), gh = (__m256d)_mm256_unpackhi_ps(c, d);
  r[0] = (vf)_mm256_unpacklo_pd(ab, cd);
  r[1] = (vf)_mm256_unpackhi_pd(ab, cd);
  r[2] = (vf)_mm256_unpacklo_pd(ef, gh);
  r[3] = (vf)_mm256_unpackhi_pd(ef, gh);
#else
  vf x[4] = {r[0], r[1], r[2], r[3]};
  for (int v = 0; v < 4; v++) r[v] = (vf){x[0][v], x[1][v], x[2][v], x[3][v]};
#endif
}

// Block n of a vector goes to `to + n · step`; blocks beyond `count` nowhere.
static inline __attribute__((always_inline)) void store_blocks(char *to, int64_t step, vf x,
                                                               int64_t count) {
#if defined(__AVX512F__)
  __m512 v = (__m512)x;
  if (count > 0) _mm_storeu_ps((float *)to, _mm512_castps512_ps128(v));
  if (count > 1) _mm_storeu_ps((float *)(to + step), _mm512_extractf32x4_ps(v, 1));
  if (count > 2) _mm_storeu_ps((float *)(to + 2 * step), _mm512_extractf32x4_ps(v, 2));
  if (count > 3) _mm_storeu_ps((float *)(to + 3 * step), _mm512_extractf32x4_ps(v, 3));
#elif defined(__AVX__)
  __m256 v = (__m256)x;
  if (count > 0) _mm_storeu_ps((float *)to, _mm256_castps256_ps128(v));
  if (count > 1) _mm_storeu_ps((float *)(to + step), _mm256_extractf128_ps(v, 1));
#else
  (void)step;
  if (count > 0) memcpy(to, &x, sizeof x);
#endif
}

// COLS rows of 128-bit blocks → COLS vectors, the i-th with block i of every row.
static inline __attribute__((always_inline)) void transpose_blocks(vu r[COLS]) {
#if defined(__AVX512F__)
  __m512i a = (__m512i)r[0], b = (__m512i)r[1], c = (__m512i)r[2], d = (__m512i)r[3];
  __m512i ab = _mm512_shuffle_i32x4(a, b, 0x88), cd = _mm512_shuffle_i32x4(c, d, 0x88);
  __m512i ef = _mm512_shuffle_i32x4(a, b, 0xdd), gh = _mm512_shuffle_i32x4(c, d, 0xdd);
  r[0] = (vu)_mm512_shuffle_i32x4(ab, cd, 0x88);
  r[1] = (vu)_mm512_shuffle_i32x4(ef, gh, 0x88);
  r[2] = (vu)_mm512_shuffle_i32x4(ab, cd, 0xdd);
  r[3] = (vu)_mm512_shuffle_i32x4(ef, gh, 0xdd);
#elif defined(__AVX__)
  __m256i a = (__m256i)r[0], b = (__m256i)r[1];
  r[0] = (vu)_mm256_permute2x128_si256(a, b, 0x20);
  r[1] = (vu)_mm256_permute2x128_si256(a, b, 0x31);
#else
  (void)r;
#endif
}

// COLS rows of 64-bit halves of blocks → COLS vectors: the i-th has half 2i of every row in its
// lower half and half 2i + 1 of every row in its upper half.
static inline __attribute__((always_inline)) void transpose_halves(vu r[COLS]) {
#if defined(__AVX512F__)
  const __m512i even = _mm512_setr_epi64(0, 4, 8, 12, 1, 5, 9, 13);
  const __m512i odd = _mm512_setr_epi64(2, 6, 10, 14, 3, 7, 11, 15);
  __m512i a = (__m512i)r[0], b = (__m512i)r[1], c = (__m512i)r[2], d = (__m512i)r[3];
  __m512i ab = _mm512_shuffle_i32x4(a, b, 0x44), cd = _mm512_shuffle_i32x4(c, d, 0x44);
  __m512i ef = _mm512_shuffle_i32x4(a, b, 0xee), gh = _mm512_shuffle_i32x4(c, d, 0xee);
  r[0] = (vu)_mm512_permutex2var_epi64(ab, even, cd);
  r[1] = (vu)_mm512_permutex2var_epi64(ab, odd, cd);
  r[2] = (vu)_mm512_permutex2var_epi64(ef, even, gh);
  r[3] = (vu)_mm512_permutex2var_epi64(ef, odd, gh);
#elif defined(__AVX__)
  __m256i lo = _mm256_unpacklo_epi64((__m256i)r[0], (__m256i)r[1]);
  __m256i hi = _mm256_unpackhi_epi64((__m256i)r[0], (__m256i)r[1]);
  r[0] = (vu)_mm256_permute2x128_si256(lo, hi, 0x20);
  r[1] = (vu)_mm256_permute2x128_si256(lo, hi, 0x31);
#else
  (void)r;
#endif
}

// The lower (0) or upper (1) half of a vector of f16, as float32.
static inline __attribute__((always_inline)) vf half_to_f32(vw h, int upper) {
#if defined(__AVX512F__)
  __m512i x = (__m512i)h;
  return (vf)_mm512_cvtph_ps(upper ? _mm512_extracti64x4_epi64(x, 1) : _mm512_castsi512_si256(x));
#elif defined(__AVX__) && defined(__F16C__)
  __m256i x = (__m256i)h;
  return (vf)_mm256_cvtph_ps(upper ? _mm256_extracti128_si256(x, 1) : _mm256_castsi256_si128(x));
#else
  vu16 part;
  memcpy(&part, (const char *)&h + upper * sizeof part, sizeof part);
  return vf_from_f16_bits(part);
#endif
}

// Of two vectors x, y with four consecutive k per block each: the even k and the odd k.
static inline __attribute__((always_inline)) void split_even_odd(vf x, vf y, vf *even, vf *odd) {
#if defined(__AVX512F__)
  *even = (vf)_mm512_shuffle_ps((__m512)x, (__m512)y, 0x88);
  *odd = (vf)_mm512_shuffle_ps((__m512)x, (__m512)y, 0xdd);
#elif defined(__AVX__)
  *even = (vf)_mm256_shuffle_ps((__m256)x, (__m256)y, 0x88);
  *odd = (vf)_mm256_shuffle_ps((__m256)x, (__m256)y, 0xdd);
#else
  *even = (vf){x[0], x[2], y[0], y[2]};
  *odd = (vf){x[1], x[3], y[1], y[3]};
#endif
}

// 2 · OI_VF consecutive values of one row, stored as runs of eight: four even k, then four odd k.
static inline __attribute__((always_inline)) void store_even_odd(float *to, vf x, vf y) {
#if defined(__AVX512F__)
  const __m512i at = _mm512_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15);
  _mm512_storeu_ps(to, _mm512_permutexvar_ps(at, (__m512)x));
  _mm512_storeu_ps(to + OI_VF, _mm512_permutexvar_ps(at, (__m512)y));
#elif defined(__AVX2__)
  const __m256i at = _mm256_setr_epi32(0, 2, 4, 6, 1, 3, 5, 7);
  _mm256_storeu_ps(to, _mm256_permutevar8x32_ps((__m256)x, at));
  _mm256_storeu_ps(to + OI_VF, _mm256_permutevar8x32_ps((__m256)y, at));
#else
  vf even, odd;
  split_even_odd(x, y, &even, &odd);
  vf_store(to, even);
  vf_store(to + OI_VF, odd);
#endif
}
