// Operands as matrix tiles take them (oi_tiles.h): bf16, a step of 32 k at a time. The left tile
// of a product has 16 rows of 32 k, the right one the pairs k = 2r, 2r + 1 of 16 columns in row r.
// Codes become the bf16 of the same value; their scales are not applied here. What lies outside an
// operand is not read and becomes zero.
#pragma once
#include "elements.h"
#include "oi_kernel.h"

#define INLINE static inline __attribute__((always_inline))
#define EACH16 _Pragma("GCC unroll 16")

#define A_CODES (A_NIBBLES ? TYPE_E2M1 : A_TYPE)
#define B_CODES (B_NIBBLES ? TYPE_E2M1 : B_TYPE)

enum {
  TILE = 1024,        // bytes
  STEP_TILES = 2048,  // of the two tiles of a step
  STEP_SIZE = 32,     // k
  PACKED_ROW = 128,   // k of codes that are packed at a time
};

INLINE const char *element_at(int type, const void *base, int64_t i) {
  return (const char *)base + (type == TYPE_BF16 ? 2 * i : type == TYPE_E4M3 ? i : i / 2);
}
// Bytes between elements that are `i` apart; even for e2m1.
INLINE int64_t byte_step(int type, int64_t i) {
  return type == TYPE_BF16 ? 2 * i : type == TYPE_E4M3 ? i : i / 2;
}

INLINE uint64_t first_bits(int64_t count) {
  return count >= 64 ? ~(uint64_t)0 : count <= 0 ? 0 : ((uint64_t)1 << count) - 1;
}

// 64 codes of one type, a byte each: the bf16 of codes 0 … 7 of every 128-bit block, and of 8 … 15.
INLINE void bf16_of_codes(int type, __m512i codes, __m512i out[2]) {
#if E4M3_LOOKUP
  if (type == TYPE_E4M3) {
    vu halves[2];
    e4m3_to_bf16((vu)codes, halves);
    out[0] = (__m512i)halves[0];
    out[1] = (__m512i)halves[1];
    return;
  }
#else
  if (type == TYPE_E4M3) {
    uint8_t from[64];
    uint16_t to[2][32];
    _mm512_storeu_si512(from, codes);
    for (int i = 0; i < 64; i++) {
      to[i / 8 % 2][i / 16 * 8 + i % 8] = f32_to_bf16(e4m3_to_f32(from[i]));
    }
    out[0] = _mm512_loadu_si512(to[0]);
    out[1] = _mm512_loadu_si512(to[1]);
    return;
  }
#endif
  const __m512i low = _mm512_broadcast_i32x4(
      _mm_setr_epi8(0, 0, (char)0x80, (char)0xc0, 0, 0x40, (char)0x80, (char)0xc0,  //
                    0, 0, (char)0x80, (char)0xc0, 0, 0x40, (char)0x80, (char)0xc0));
  const __m512i high = _mm512_broadcast_i32x4(_mm_setr_epi8(
      0, 0x3f, 0x3f, 0x3f, 0x40, 0x40, 0x40, 0x40,  //
      (char)0x80, (char)0xbf, (char)0xbf, (char)0xbf, (char)0xc0, (char)0xc0, (char)0xc0,
      (char)0xc0));
  __m512i lower = _mm512_shuffle_epi8(low, codes), upper = _mm512_shuffle_epi8(high, codes);
  out[0] = _mm512_unpacklo_epi8(lower, upper);
  out[1] = _mm512_unpackhi_epi8(lower, upper);
}

// 64 e2m1 codes of 32 bytes, a byte each.
INLINE __m512i spread_nibbles(__m256i bytes) {
  __m512i words = _mm512_cvtepu8_epi16(bytes);
  words = _mm512_or_si512(words, _mm512_slli_epi16(words, 4));
  return _mm512_and_si512(words, _mm512_set1_epi8(15));
}

// Eight codes from either half to each block, which unpacking takes apart again.
INLINE __m512i spread_halves(__m512i codes) {
  return _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 4, 1, 5, 2, 6, 3, 7), codes);
}

// `count` ≤ 64 consecutive elements, in order.
INLINE void load_run(int type, const char *p, int64_t count, __m512i out[2]) {
  uint64_t wanted = first_bits(count);
  __mmask32 lower = (__mmask32)wanted, upper = (__mmask32)(wanted >> 32);
  if (type == TYPE_BF16) {
    out[0] = _mm512_maskz_loadu_epi16(lower, p);
    out[1] = _mm512_maskz_loadu_epi16(upper, p + 64);
    return;
  }
  __m512i codes =
      type == TYPE_E4M3
          ? _mm512_maskz_loadu_epi8(wanted, p)
          : spread_nibbles(_mm256_maskz_loadu_epi8((__mmask32)first_bits((count + 1) / 2), p));
  if (type == TYPE_E2M1 && (count & 1)) codes = _mm512_maskz_mov_epi8(wanted, codes);
  bf16_of_codes(type, spread_halves(codes), out);
}

// `count` ≤ 32 adjacent columns of two rows of k: pairs of columns 0 … 15, and of 16 … 31. `both`
// says whether there is a second row.
INLINE void load_pairs(int type, const char *first, const char *second, int both, int64_t count,
                       __m512i out[2]) {
  __mmask32 wanted = (__mmask32)first_bits(count), also = both ? wanted : 0;
  if (type == TYPE_BF16) {
    __m512i x = _mm512_maskz_loadu_epi16(wanted, first);
    __m512i y = _mm512_maskz_loadu_epi16(also, second);
    __m512i low = _mm512_unpacklo_epi16(x, y), high = _mm512_unpackhi_epi16(x, y);
    const __m512i early = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
    const __m512i late = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
    out[0] = _mm512_permutex2var_epi64(low, early, high);
    out[1] = _mm512_permutex2var_epi64(low, late, high);
    return;
  }
  __m256i x, y;
  if (type == TYPE_E4M3) {
    x = _mm256_maskz_loadu_epi8(wanted, first);
    y = _mm256_maskz_loadu_epi8(also, second);
  } else {
    __mmask16 bytes = (__mmask16)first_bits((count + 1) / 2);
    __m128i one = _mm_maskz_loadu_epi8(bytes, first);
    __m128i two = _mm_maskz_loadu_epi8(both ? bytes : 0, second);
    __m512i codes = spread_nibbles(_mm256_set_m128i(two, one));
    x = _mm256_maskz_mov_epi8(wanted, _mm512_castsi512_si256(codes));
    y = _mm256_maskz_mov_epi8(also, _mm512_extracti64x4_epi64(codes, 1));
  }
  // Pairs of columns 4b … 4b + 3 to the lower half of block b, those 16 further to the upper one.
  __m512i low = _mm512_castsi256_si512(_mm256_unpacklo_epi8(x, y));
  __m256i high = _mm256_unpackhi_epi8(x, y);
  __m512i codes = _mm512_inserti64x4(low, high, 1);
  codes = _mm512_permutexvar_epi64(_mm512_setr_epi64(0, 2, 1, 3, 4, 6, 5, 7), codes);
  bf16_of_codes(type, codes, out);
}

// ---- packing ------------------------------------------------------------------------------------
// Step by step, STEP_TILES apart: the two tiles of a pair, each of rows of 64 bytes.

// Row `row` of a pair of left tiles: `count` ≤ 64 k from `p` on, two steps of it.
INLINE void pack_left_run(int type, char *to, int64_t row, const char *p, int64_t count) {
  __m512i words[2];
  load_run(type, p, count, words);
  to += row / 16 * TILE + row % 16 * 64;
  _mm512_store_si512(to, words[0]);
  if (count > STEP_SIZE) _mm512_store_si512(to + STEP_TILES, words[1]);
}

// PACKED_ROW k of the row, fetching those at `later`, if any, for the next call.
INLINE void pack_left_row(int type, char *to, int64_t row, const char *p, const char *later) {
  UNROLL
  for (int k = 0; k < PACKED_ROW; k += 64) {
    if (later != NULL) __builtin_prefetch(later + byte_step(type, k), 0, 3);
    pack_left_run(type, to + k / STEP_SIZE * STEP_TILES, row, p + byte_step(type, k), 64);
  }
}

// One step of a pair of left tiles whose rows are adjacent: `count` k, `ld` bytes from k to k.
static __attribute__((noinline)) void pack_left_step(int type, char *to, const char *p, int64_t ld,
                                                     int64_t rows, int64_t count) {
  __m512i pairs[2][16];
  EACH16
  for (int r = 0; r < 16; r++) {
    __m512i two[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    const char *at = p + 2 * r * ld;
    if (2 * r < count) load_pairs(type, at, at + ld, 2 * r + 1 < count, rows, two);
    pairs[0][r] = two[0];
    pairs[1][r] = two[1];
  }
  for (int t = 0; t < (rows > 16 ? 2 : 1); t++) {
    oi_transpose_16x16(pairs[t]);
    EACH16
    for (int r = 0; r < 16; r++) _mm512_store_si512(to + t * TILE + r * 64, pairs[t][r]);
  }
}

// Up to two steps, `count` ≤ 64 k, of a right tile whose columns are `columns` ≤ 16 rows of an
// operand, `ld` bytes apart.
static __attribute__((noinline)) void pack_right_rows(int type, char *to, const char *p, int64_t ld,
                                                      int64_t columns, int64_t count) {
  // By way of copies: rows that lie a power of two apart would share a set of the first cache.
  _Alignas(64) char rows[16 * 128];
  int64_t steps = oi_ceil_div(count, STEP_SIZE);
  for (int64_t i = 0; i < 16; i++) {
    __m512i words[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
    if (i < columns) {
      const char *row = p + i * ld;
      load_run(type, row, count, words);
      __builtin_prefetch(row + 256, 0, 3);
      if (type == TYPE_BF16) __builtin_prefetch(row + 320, 0, 3);
    }
    _mm512_store_si512(rows + i * 128, words[0]);
    _mm512_store_si512(rows + i * 128 + 64, words[1]);
  }
  for (int64_t s = 0; s < steps; s++, to += STEP_TILES) {
    __m512i out[16];
    oi_transpose_rows(rows + 64 * s, 128, out);
    EACH16
    for (int r = 0; r < 16; r++) _mm512_store_si512(to + r * 64, out[r]);
  }
}

// Rows of k, all `columns` adjacent, of one step of right tiles: `count` ≤ 32 k, `ld` bytes apart.
// Pairs of tiles are `pair_bytes` apart.
static __attribute__((noinline)) void pack_right_step(int type, char *to, int64_t pair_bytes,
                                                      const char *p, int64_t ld, int64_t columns,
                                                      int64_t count) {
  for (int64_t k = 0; k < STEP_SIZE; k += 2, p += 2 * ld, to += 64) {
    char *pair = to;
    for (int64_t j = 0; j < columns; j += 32, pair += pair_bytes) {
      __m512i two[2] = {_mm512_setzero_si512(), _mm512_setzero_si512()};
      const char *at = p + byte_step(type, j);
      if (k < count) load_pairs(type, at, at + ld, k + 1 < count, columns - j, two);
      _mm512_store_si512(pair, two[0]);
      _mm512_store_si512(pair + TILE, two[1]);
    }
  }
}
