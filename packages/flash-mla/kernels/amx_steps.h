// What kernels by matrix tiles share: sums that begin, go on and end in tiles, rows turned around
// or interleaved into the layouts that products read, and the softmax of 16 rows that lie in the
// lanes. A tile of bf16 has 16 rows of 32; the right operand of a product has pairs along its
// depth, as lanes of 32 bits.
//
// Constants: P_PARTS, the number of bf16 that add up to a probability: 1 rounds it, 3 keep all of
// it. The including file has INLINE, ONE_COPY and UNROLL.
#pragma once
#include "exp2_small.h"
#include "oi_tiles.h"

enum {
  ROWS = 16,    // of a tile
  DEPTH = 32,   // channels, or keys, that one product adds
  TILE = 512    // bf16 of a tile
};

// Four tiles of sums, 16 × 16 each: two pairs of neighbours.
INLINE void zero_sums(void) {
  oi_tile_zero(0);
  oi_tile_zero(1);
  oi_tile_zero(2);
  oi_tile_zero(3);
}
INLINE void load_sums(const float *a, const float *b) {
  oi_tile_load(0, a, 64);
  oi_tile_load(1, a + ROWS * ROWS, 64);
  oi_tile_load(2, b, 64);
  oi_tile_load(3, b + ROWS * ROWS, 64);
}
INLINE void store_sums(float *a, float *b) {
  oi_tile_store(0, a, 64);
  oi_tile_store(1, a + ROWS * ROWS, 64);
  oi_tile_store(2, b, 64);
  oi_tile_store(3, b + ROWS * ROWS, 64);
}

// Pairs of the 32 channels of 16 rows as rows, the rows as columns: the right operand of a product
// along the channels. Or back: what lies in pairs by columns as rows. `ld` is the distance of rows
// in bf16.
static __attribute__((noinline)) void turn_rows(uint16_t *to, const uint16_t *from, int64_t ld) {
  __m512i x[16];
  UNROLL(16) for (int r = 0; r < ROWS; r++) x[r] = _mm512_loadu_si512(from + r * ld);
  oi_transpose_16x16(x);
  UNROLL(16) for (int r = 0; r < ROWS; r++) _mm512_store_si512(to + r * DEPTH, x[r]);
}

// 16 rows in pairs: `tiles` (2 or 4) tiles of 16 channels from `at` on. `row` and `channels` are
// the bytes from one row to the next, and from 32 channels to the next.
static __attribute__((noinline)) void interleave_rows(uint16_t *to, const char *at, int64_t row,
                                                      int64_t channels, int tiles) {
  for (int i = 0; i < ROWS; i += 2, at += 2 * row, to += DEPTH) {
    __m512i a = _mm512_loadu_si512(at), b = _mm512_loadu_si512(at + row);
    _mm512_store_si512(to, _mm512_unpacklo_epi16(a, b));
    _mm512_store_si512(to + TILE, _mm512_unpackhi_epi16(a, b));
    if (tiles == 2) continue;
    a = _mm512_loadu_si512(at + channels), b = _mm512_loadu_si512(at + row + channels);
    _mm512_store_si512(to + 2 * TILE, _mm512_unpacklo_epi16(a, b));
    _mm512_store_si512(to + 3 * TILE, _mm512_unpackhi_epi16(a, b));
  }
}
// The same where only the first n rows are there; the others are zeros.
static __attribute__((noinline)) void interleave_some(uint16_t *to, const char *at, int64_t row,
                                                      int64_t channels, int n, int tiles) {
  const __m512i zero = _mm512_setzero_si512();
  for (int i = 0; i < ROWS; i += 2, to += DEPTH)
    for (int t = 0; t < tiles; t += 2) {
      const char *from = at + i * row + t / 2 * channels;
      const __m512i a = i < n ? _mm512_loadu_si512(from) : zero;
      const __m512i b = i + 1 < n ? _mm512_loadu_si512(from + row) : zero;
      _mm512_store_si512(to + t * TILE, _mm512_unpacklo_epi16(a, b));
      _mm512_store_si512(to + (t + 1) * TILE, _mm512_unpackhi_epi16(a, b));
    }
}

// 32 channels of sums over interleaved rows, in their own order.
INLINE void put_in_order(float *to, const float *from) {
  const __m512i first = _mm512_setr_epi32(0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23);
  const __m512i second = _mm512_add_epi32(first, _mm512_set1_epi32(8));
  const __m512 a = _mm512_loadu_ps(from), b = _mm512_loadu_ps(from + ROWS);
  _mm512_storeu_ps(to, _mm512_permutex2var_ps(a, first, b));
  _mm512_storeu_ps(to + ROWS, _mm512_permutex2var_ps(a, second, b));
}

// Two vectors of probabilities as bf16 pairs, the first below: rounded, or part after part.
INLINE __m512i rounded_pairs(vf low, vf high) {
#if defined(__AVX512BF16__)
  const __m512i order = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24,
                                         8, 23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(order, (__m512i)_mm512_cvtne2ps_pbh((__m512)high, (__m512)low));
#else
  const vu pair = __builtin_convertvector(vf_to_bf16_bits(low), vu) |
                  __builtin_convertvector(vf_to_bf16_bits(high), vu) << 16;
  return (__m512i)pair;
#endif
}
// The upper halves of floats, which are bf16, and what is left of them.
INLINE __m512i upper_half(__m512i x) {
  return _mm512_and_si512(x, _mm512_set1_epi32((int)0xffff0000));
}
INLINE __m512i next_pairs(vf *low, vf *high) {
  const __m512i a = upper_half((__m512i)*low), b = upper_half((__m512i)*high);
  *low -= (vf)a, *high -= (vf)b;
  return _mm512_or_si512(_mm512_srli_epi32(a, 16), b);
}

// Probabilities of 32 keys of a group as P_PARTS tiles: 2^(score - top), 0 for a key that a row,
// which sees the first `limit` of them, does not see; `whole` says that all rows see all. Adds to
// two sums, of even and of odd keys.
INLINE void probabilities(uint16_t *to, const float *s, vf top, vi limit, int whole, vf *even,
                          vf *odd) {
  __m512i x[P_PARTS][ROWS];
  UNROLL(2) for (int i = 0; i < ROWS; i++) {
    vf low = exp2_clamped(vf_load(s + 2 * i * ROWS) - top);
    vf high = exp2_clamped(vf_load(s + (2 * i + 1) * ROWS) - top);
    if (!whole) low = vf_select((vi)(limit > 2 * i), low, vf_zero());
    if (!whole) high = vf_select((vi)(limit > 2 * i + 1), high, vf_zero());
    *even += low, *odd += high;
#if P_PARTS == 1
    x[0][i] = rounded_pairs(low, high);
#else
    UNROLL(3) for (int part = 0; part < P_PARTS; part++) x[part][i] = next_pairs(&low, &high);
#endif
  }
  for (int part = 0; part < P_PARTS; part++)
    turn_rows(to + part * TILE, (const uint16_t *)x[part], DEPTH);
}

// Scores of keys `from` to `to` times `scale`, in place, and their maxima; -inf where a row does
// not see the key.
INLINE vf scale_scores(float *s, int from, int to, vi limit, int whole, float scale, vf top) {
  vf most[4] = {top, top, top, top};
  int j = from;
  for (; j + 4 <= to; j += 4)
    UNROLL(4) for (int i = 0; i < 4; i++) {  // four chains hide the latency of a maximum
      vf x = vf_load(s + (j + i) * ROWS) * scale;
      if (!whole) x = vf_select((vi)(limit > j + i), x, vf_set(-INFINITY));
      vf_store(s + (j + i) * ROWS, x);
      most[i] = vf_max(most[i], x);
    }
  for (; j < to; j++) {
    vf x = vf_load(s + j * ROWS) * scale;
    if (!whole) x = vf_select((vi)(limit > j), x, vf_set(-INFINITY));
    vf_store(s + j * ROWS, x);
    most[0] = vf_max(most[0], x);
  }
  return vf_max(vf_max(most[0], most[1]), vf_max(most[2], most[3]));
}

// Softmax of a group: scores [key][row] of `seen` keys, of which row r sees the first keys[r], to
// probabilities as tiles. The largest score so far, in units of log 2, and the sum are updated;
// `factor` brings earlier sums to the new maximum. A row that sees no key keeps what it has.
ONE_COPY void softmax_group(float *s, uint16_t *to, int seen, const int32_t *keys, float scale,
                            float *max, float *sum, float *factor) {
  vi limit;
  memcpy(&limit, keys, sizeof limit);
  const int whole = keys[0];  // the first row sees the least
  const vf before = vf_load(max);
  vf top = scale_scores(s, 0, whole, limit, 1, scale, before);
  top = scale_scores(s, whole, seen, limit, 0, scale, top);
  // A maximum forgets a NaN that a later score covers, but the NaN's own probability is NaN.
  vf even = vf_zero(), odd = vf_zero();
  int at = 0;
  for (; at + DEPTH <= whole; at += DEPTH, to += P_PARTS * TILE)
    probabilities(to, s + at * ROWS, top, limit, 1, &even, &odd);
  for (; at < seen; at += DEPTH, to += P_PARTS * TILE)
    probabilities(to, s + at * ROWS, top, limit - at, 0, &even, &odd);
  const vf earlier = exp2_small(before - top);
  vf_store(max, top);
  vf_store(factor, earlier);
  vf_store(sum, vf_load(sum) * earlier + (even + odd));
}
