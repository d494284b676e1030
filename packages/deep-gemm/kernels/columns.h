// Products whose vectors lie across columns: OI_VF rows of a matrix of codes (keys of a cache)
// stand side by side in the lanes, and each step multiplies one word of all of them with one word
// of a row of the other matrix. What is done to a product afterwards is then a vector operation.
//
// A word is one k as float32; or two, as the pair of bf16 that the dot-product instruction takes,
// where there is one that pays (DOT_PAYS, of the driver), and matrix tiles, whose right operand
// such a panel is. Codes times power-of-two scales are exact in both, and vectors take the odd k
// of a pair first either way, so they give the same sums: the instructions only count subnormals
// as zero, and there are none but by extreme scales of e2m1. This file knows codes and panels,
// nothing of what they belong to.
#pragma once
#include "oi_tiles.h"
#include "lanes.h"
#include "oi_kernel.h"

#define CODES_E4M3 3
#define CODES_E2M1 4

#if defined(OI_TILES)
#define WORD_PAIRS 1
#elif defined(OI_BF16DOT) && (DOT_PAYS || defined(OI_EMULATE_BF16DOT))
#define WORD_PAIRS 1
#else
#define WORD_PAIRS 0
#endif
enum { WORD_K = WORD_PAIRS ? 2 : 1 };  // k of a word

enum { GROUP_K = 32 };  // e2m1 codes that share a scale

#define INLINE static inline __attribute__((always_inline))

#if !defined(OI_TILES)
// acc + word of a row (the same in all lanes) · words of the columns.
INLINE vf word_fma(uint32_t row, vu columns, vf acc) {
  vu all = (vu){0} + row;
#if WORD_PAIRS
  return oi_bf16dot(acc, (vbf)columns, (vbf)all);
#else
  return vf_fma(vf_bits(columns), vf_bits(all), acc);
#endif
}
#endif

// ---- transposing --------------------------------------------------------------------------------
// In every 128-bit block, four vectors of four words transposed.
INLINE void transpose_in_blocks(vu r[4]) {
#if defined(__AVX512F__)
  __m512i a = (__m512i)r[0], b = (__m512i)r[1], c = (__m512i)r[2], d = (__m512i)r[3];
  __m512i ab = _mm512_unpacklo_epi32(a, b), cd = _mm512_unpacklo_epi32(c, d);
  __m512i ef = _mm512_unpackhi_epi32(a, b), gh = _mm512_unpackhi_epi32(c, d);
  r[0] = (vu)_mm512_unpacklo_epi64(ab, cd);
  r[1] = (vu)_mm512_unpackhi_epi64(ab, cd);
  r[2] = (vu)_mm512_unpacklo_epi64(ef, gh);
  r[3] = (vu)_mm512_unpackhi_epi64(ef, gh);
#elif defined(__AVX2__)
  __m256i a = (__m256i)r[0], b = (__m256i)r[1], c = (__m256i)r[2], d = (__m256i)r[3];
  __m256i ab = _mm256_unpacklo_epi32(a, b), cd = _mm256_unpacklo_epi32(c, d);
  __m256i ef = _mm256_unpackhi_epi32(a, b), gh = _mm256_unpackhi_epi32(c, d);
  r[0] = (vu)_mm256_unpacklo_epi64(ab, cd);
  r[1] = (vu)_mm256_unpackhi_epi64(ab, cd);
  r[2] = (vu)_mm256_unpacklo_epi64(ef, gh);
  r[3] = (vu)_mm256_unpackhi_epi64(ef, gh);
#else
  vu x[4] = {r[0], r[1], r[2], r[3]};
  for (int v = 0; v < 4; v++) r[v] = (vu){x[0][v], x[1][v], x[2][v], x[3][v]};
#endif
}

// OI_VF rows of OI_VF words → their columns.
INLINE void transpose_words(vu r[OI_VF]) {
  vu columns[OI_VF];
  UNROLL
  for (int i = 0; i < OI_VF; i += 4) transpose_in_blocks(r + i);
  UNROLL
  for (int j = 0; j < 4; j++) {
    vu blocks[COLS];
    UNROLL
    for (int i = 0; i < COLS; i++) blocks[i] = r[4 * i + j];
    transpose_blocks(blocks);
    UNROLL
    for (int i = 0; i < COLS; i++) columns[4 * i + j] = blocks[i];
  }
  memcpy(r, columns, sizeof columns);
}

// ---- codes --------------------------------------------------------------------------------------
static const float e2m1_values[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                                      -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

// The e2m1 code in the lowest four bits of every lane; the other bits do not count.
INLINE vf vf_from_e2m1(vu code) {
#if defined(__AVX512F__)
  return (vf)_mm512_permutexvar_ps((__m512i)code, _mm512_loadu_ps(e2m1_values));
#elif defined(__AVX2__)
  vf size = (vf)_mm256_permutevar8x32_ps(_mm256_loadu_ps(e2m1_values), (__m256i)code);
  return vf_bits(vf_to_bits(size) | (code & 8) << 28);
#else
  vf r;
  for (int i = 0; i < OI_VF; i++) r[i] = e2m1_values[code[i] & 15];
  return r;
#endif
}

// The number of a ue8m0 code, 0 … 255.
static inline float ue8m0_to_f32(uint32_t code) {
  uint32_t bits = code == 0 ? 0x400000 : code == 255 ? 0x7fc00000 : code << 23;
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

// The e4m3 code in the lowest byte of every lane.
INLINE vf vf_from_e4m3_lanes(vu code) {
  return vf_from_e4m3_bits(__builtin_convertvector(code & 255, vu8));
}

// Words of two k each, from float32 that bf16 holds exactly.
INLINE vu pair_words(vf even, vf odd) {
  return (vf_to_bits(even) >> 16) | (vf_to_bits(odd) & 0xffff0000u);
}

#if defined(__AVX512BW__)
// e4m3 codes in the low bytes of 16-bit lanes, the high bytes zero, as bf16. Magnitudes are moved
// in place and rebased; subnormals and zero come from a table, NaN is put in.
INLINE __m512i e4m3_lanes_to_bf16(__m512i code) {
  const __m512i subnormal = _mm512_set4_epi64(0, 0, 0x3c603c403c203c00, 0x3bc03b803b000000);
  __m512i size = _mm512_and_si512(code, _mm512_set1_epi16(0x7f));
  __m512i bf16 = _mm512_add_epi16(_mm512_slli_epi16(size, 4), _mm512_set1_epi16(0x3c00));
  __mmask32 small = _mm512_cmplt_epu16_mask(size, _mm512_set1_epi16(8));
  __mmask32 nan = _mm512_cmpeq_epi16_mask(size, _mm512_set1_epi16(0x7f));
  bf16 = _mm512_mask_permutexvar_epi16(bf16, small, size, subnormal);
  bf16 = _mm512_mask_mov_epi16(bf16, nan, _mm512_set1_epi16(0x7fc0));
  // | sign
  return _mm512_ternarylogic_epi32(bf16, _mm512_slli_epi16(code, 8),
                                   _mm512_set1_epi16((short)0x8000), 0xf8);
}
#endif

// Four e4m3 codes in every lane → 4 / WORD_K words, in the order of the sum.
INLINE void words_of_e4m3(vu codes, vu words[4 / WORD_K]) {
#if defined(__AVX512BW__)
  // Byte i of a lane goes to the low byte of a 16-bit half; 0x80 makes the other byte zero.
  const __m512i lanes = _mm512_set4_epi32(0x000c000c, 0x00080008, 0x00040004, 0);
  const __m512i at = _mm512_add_epi32(lanes, _mm512_set1_epi32((int)0x80018000));
  const __m512i step = _mm512_set1_epi32(0x00020002);
  __m512i first = _mm512_shuffle_epi8((__m512i)codes, at);
  __m512i second = _mm512_shuffle_epi8((__m512i)codes, _mm512_add_epi8(at, step));
  vu pairs[2] = {(vu)e4m3_lanes_to_bf16(first), (vu)e4m3_lanes_to_bf16(second)};
  UNROLL
  for (int i = 0; i < 2; i++) {
    if (WORD_K == 2) {
      words[i] = pairs[i];
    } else {
      words[2 * i] = pairs[i] & 0xffff0000u;
      words[2 * i + 1] = pairs[i] << 16;
    }
  }
#else
  vf x[4];
  UNROLL
  for (int i = 0; i < 4; i++) x[i] = vf_from_e4m3_lanes(codes >> (8 * i));
  UNROLL
  for (int i = 0; i < 4 / WORD_K; i++) {
    words[i] = WORD_K == 2 ? pair_words(x[2 * i], x[2 * i + 1]) : vf_to_bits(x[i ^ 1]);
  }
#endif
}

// Eight e2m1 codes in every lane, times the lane's scale → 8 / WORD_K words, in the order of the
// sum.
INLINE void words_of_e2m1(vu codes, vf scale, vu words[8 / WORD_K]) {
  vf x[8];
  UNROLL
  for (int i = 0; i < 8; i++) x[i] = vf_from_e2m1(codes >> (4 * i)) * scale;
  UNROLL
  for (int i = 0; i < 8 / WORD_K; i++) {
    words[i] = WORD_K == 2 ? pair_words(x[2 * i], x[2 * i + 1]) : vf_to_bits(x[i ^ 1]);
  }
}

// ---- panels -------------------------------------------------------------------------------------
enum { CODE_WORDS = 16 };  // 64 bytes of a row

// `bytes` ≤ 64 of OI_VF rows from `at`, as CODE_WORDS vectors whose lanes are the rows; zero
// beyond.
INLINE void load_codes(vu codes[CODE_WORDS], const uint8_t *const rows[OI_VF], int64_t at,
                       int64_t bytes) {
  uint8_t padded[OI_VF][64];
  if (bytes < 64) {
    memset(padded, 0, sizeof padded);
    for (int i = 0; i < OI_VF; i++) memcpy(padded[i], rows[i] + at, (size_t)bytes);
  }
  UNROLL
  for (int part = 0; part < CODE_WORDS; part += OI_VF) {
    vu *r = codes + part;
    UNROLL
    for (int i = 0; i < OI_VF; i++) {
      r[i] = vu_load((bytes < 64 ? padded[i] : rows[i] + at) + 4 * part);
    }
    transpose_words(r);
  }
}

// The words of `dim` codes of OI_VF rows; step s is at `to + s · stride`. Up to eight k beyond
// `dim` become zero. `scales` has four ue8m0 codes of each row, for e2m1.
INLINE void pack_columns(int type, uint32_t *to, int64_t stride, const uint8_t *const rows[OI_VF],
                         int64_t dim, vu scales) {
  int64_t bytes = type == CODES_E2M1 ? oi_ceil_div(dim, 2) : dim;
  for (int64_t at = 0; at < bytes; at += 64) {
    vu codes[CODE_WORDS];
    int64_t count = oi_min(64, bytes - at);
    load_codes(codes, rows, at, count);
    if (type == CODES_E4M3) {
      for (int64_t t = 0; t < oi_ceil_div(count, 4); t++, to += 4 / WORD_K * stride) {
        vu words[4 / WORD_K];
        words_of_e4m3(codes[t], words);
        UNROLL
        for (int i = 0; i < 4 / WORD_K; i++) memcpy(to + i * stride, &words[i], sizeof(vu));
      }
      continue;
    }
    for (int64_t t = 0; t < oi_ceil_div(count, 4); t++, to += 8 / WORD_K * stride) {
      vu words[8 / WORD_K], code = scales >> (8 * (at * 2 / GROUP_K + t / 4)) & 255;
      vu bits = vu_select((vu)(code == 0), (vu){0} + 0x400000, code << 23);
      bits = vu_select((vu)(code == 255), (vu){0} + 0x7fc00000, bits);
      words_of_e2m1(codes[t], vf_bits(bits), words);
      UNROLL
      for (int i = 0; i < 8 / WORD_K; i++) memcpy(to + i * stride, &words[i], sizeof(vu));
    }
  }
}

// OI_VF consecutive codes of a row, as they are.
INLINE vf load_row_codes(int type, const uint8_t *p) {
  if (type == CODES_E4M3) return vf_load_e4m3(p);
  uint32_t packed[OI_VF / 8 + 1] = {0};
  memcpy(packed, p, OI_VF / 2);
  vu codes;
  for (int i = 0; i < OI_VF; i++) codes[i] = packed[i / 8] >> (i % 8 * 4);
  return vf_from_e2m1(codes);
}

// Neighbours swapped.
INLINE vf swap_pairs(vf x) {
#if defined(__AVX512F__)
  return (vf)_mm512_permute_ps((__m512)x, 0xb1);
#elif defined(__AVX__)
  return (vf)_mm256_permute_ps((__m256)x, 0xb1);
#else
  return __builtin_shufflevector(x, x, 1, 0, 3, 2);
#endif
}

// The words of `dim` codes of one row. `to` has room for a multiple of OI_VF k; k beyond `dim`
// become zero. `scales` is the row's four ue8m0 codes, for e2m1.
INLINE void pack_row(int type, uint32_t *to, const uint8_t *row, int64_t dim, uint32_t scales) {
  for (int64_t k = 0; k < dim; k += OI_VF) {
    uint8_t padded[OI_VF] = {0};
    const uint8_t *from = row + (type == CODES_E2M1 ? k / 2 : k);
    if (dim - k < OI_VF) {
      int64_t count = type == CODES_E2M1 ? oi_ceil_div(dim - k, 2) : dim - k;
      memcpy(padded, from, (size_t)count);
      from = padded;
    }
    vf x = load_row_codes(type, from);
    if (type == CODES_E2M1) x = x * vf_set(ue8m0_to_f32(scales >> (8 * (k / GROUP_K)) & 255));
    if (WORD_K == 2) {
      vf_store_bf16((uint16_t *)to + k, x);
    } else {
      vf_store((float *)to + k, swap_pairs(x));
    }
  }
}
