// Operands rearranged as the microkernels read them: rows of A as float32 with the scales applied,
// tiles of B as vectors. Either may lie along K or across it; what comes out is the same. Packing
// is exact but for the scales. Where B's are folded, A is multiplied by the scale of its own block
// and then by the one of B's; else each operand by its own; each product is rounded to float32.
#pragma once
#include "elements.h"

enum {
  A_STRIDE = K_BLOCK + 16,    // elements from row to row: not a power of two, for the caches' sake
  B_TILE = K_BLOCK * TILE_N,  // elements of a packed tile of one K block
  STAGE_COLS = 64,            // columns that are brought together where B lies across K
};

// Scales of one row along K; `k` counts from the start of the sum.
typedef struct {
  const float *at;
  int64_t step;
} scales_t;

static inline float scale_at(scales_t s, int64_t k, int64_t grain) {
  return s.at[k / grain * s.step];
}

// Where the run of equal scales that holds `k` ends.
static inline int64_t scales_end(int64_t k) {
  int64_t a = A_TYPE == TYPE_E4M3 ? (k / A_GRAIN_K + 1) * A_GRAIN_K : INT64_MAX;
  int64_t b = B_SCALES == SCALES_FOLDED ? (k / B_GRAIN_K + 1) * B_GRAIN_K : INT64_MAX;
  return oi_min(a, b);
}

// `len` ≤ K_BLOCK elements of a row from the sum's `k0` on, padded with zeros to 2 · OI_VF.
static inline void pack_a_row(panel_t *to, const a_t *from, int64_t k0, int64_t len, scales_t sa,
                              scales_t sb) {
#if PAIRS
  (void)sa, (void)sb, (void)k0;
  memcpy(to, from, (size_t)len * sizeof(a_t));
  memset(to + len, 0, (size_t)(-len & (2 * OI_VF - 1)) * sizeof(a_t));
#else
  int64_t k = 0;
#if A_NIBBLES
  a_t codes[K_BLOCK];
  a_copy(codes, from, len);
  from = codes;
#endif
  for (; k + 2 * OI_VF <= len; k += 2 * OI_VF) {
    store_even_odd(to + k, a_load(from + k), a_load(from + k + OI_VF));
  }
  if (k < len) {
    a_t rest[2 * OI_VF] = {0};
    memcpy(rest, from + k, (size_t)(len - k) * sizeof(a_t));
    store_even_odd(to + k, a_load(rest), a_load(rest + OI_VF));
  }
  if (A_TYPE != TYPE_E4M3 && B_SCALES != SCALES_FOLDED) return;
  for (int64_t i = 0, end; i < len; i = end) {
    end = oi_min(scales_end(k0 + i) - k0, oi_ceil_div(len, 2 * OI_VF) * (2 * OI_VF));
    vf x = vf_zero(), y = vf_zero();
    if (A_TYPE == TYPE_E4M3) x = vf_set(scale_at(sa, k0 + i, A_GRAIN_K));
    if (B_SCALES == SCALES_FOLDED) y = vf_set(scale_at(sb, k0 + i, B_GRAIN_K) * E4M3_B_SCALE);
    for (int64_t at = i; at < end; at += OI_VF) {
      vf v = vf_load(to + at);
      if (A_TYPE == TYPE_E4M3) v = v * x;
      if (B_SCALES == SCALES_FOLDED) v = v * y;
      vf_store(to + at, v);
    }
  }
#endif
}

// Eight k of OI_VF adjacent columns of an operand whose columns are adjacent: in every block of a
// result, the eight of one column, as a panel holds them.
static inline __attribute__((always_inline)) void eight_of_pairs(const uint16_t *from, int64_t ld,
                                                                 vf out[4]) {
  UNROLL
  for (int c = 0; c < 4; c++) {
    vu even = vu_load_words(from + 2 * c * ld), odd = vu_load_words(from + (2 * c + 1) * ld);
    out[c] = vf_bits(even | odd << 16);
  }
  transpose_floats(out);
}

// Eight k of up to OI_VF rows of A, whose rows are adjacent, into `rows` rows of a panel.
static inline __attribute__((always_inline)) void pack_a_eight(panel_t *to, const a_t *from,
                                                               int64_t ld, int64_t rows, vf x,
                                                               vf y) {
  enum { ROW = A_STRIDE * sizeof(panel_t) };
#if PAIRS
  (void)x, (void)y;
  vf all[4];
  eight_of_pairs(from, ld, all);
  UNROLL
  for (int v = 0; v < 4; v++) {
    store_blocks((char *)(to + v * A_STRIDE), 4 * ROW, all[v], oi_ceil_div(rows - v, 4));
  }
#elif A_TYPE == TYPE_BF16
  (void)x;
  vf all[4];
  eight_of_pairs(from, ld, all);
  UNROLL
  for (int v = 0; v < 4; v++) {
    vf step[2];
    split_bf16(vf_to_bits(all[v]), step);
    UNROLL
    for (int odd = 0; odd < 2; odd++) {
      if (B_SCALES == SCALES_FOLDED) step[odd] = step[odd] * y;
      char *at = (char *)(to + v * A_STRIDE + 4 * odd);
      store_blocks(at, 4 * ROW, step[odd], oi_ceil_div(rows - v, 4));
    }
  }
#else
  UNROLL
  for (int odd = 0; odd < 2; odd++) {
    vf part[4];
    UNROLL
    for (int c = 0; c < 4; c++) {
      part[c] = a_load(from + (2 * c + odd) * ld);
      if (A_TYPE == TYPE_E4M3) part[c] = part[c] * x;
      if (B_SCALES == SCALES_FOLDED) part[c] = part[c] * y;
    }
    transpose_floats(part);
    UNROLL
    for (int v = 0; v < 4; v++) {
      char *at = (char *)(to + v * A_STRIDE + 4 * odd);
      store_blocks(at, 4 * ROW, part[v], oi_ceil_div(rows - v, 4));
    }
  }
#endif
}

// `rows` ≤ OI_VF rows of A that are adjacent, `ld` elements from k to k. `sa` has the rows' scales
// of one K block, OI_VF for each A_GRAIN_K.
static void pack_a_across(panel_t *to, const a_t *from, int64_t ld, int64_t rows, int64_t k0,
                          int64_t len, const float *sa, scales_t sb) {
  vf x = vf_zero(), y = vf_zero();
  for (int64_t k = 0, fresh = 0; k < len; k += 8) {
    if (k >= fresh) {
      if (A_TYPE == TYPE_E4M3) {
        x = vf_load(sa + ((k0 + k) / A_GRAIN_K - k0 / A_GRAIN_K) * OI_VF);
      }
      if (B_SCALES == SCALES_FOLDED) y = vf_set(scale_at(sb, k0 + k, B_GRAIN_K) * E4M3_B_SCALE);
      fresh = scales_end(k0 + k) - k0;
    }
    const a_t *at = from + k * ld;
    if (rows == OI_VF && k + 8 <= len) {
      pack_a_eight(to + k, at, ld, OI_VF, x, y);
      continue;
    }
    a_t rest[8 * OI_VF] = {0};
    for (int64_t i = 0; i < oi_min(8, len - k); i++) {
      memcpy(rest + i * OI_VF, at + i * ld, (size_t)rows * sizeof(a_t));
    }
    pack_a_eight(to + k, rest, OI_VF, rows, x, y);
  }
}

// Rows of B that will be wanted next, fetched into the second-level cache while this tile is packed
// and multiplied, so that memory works all the time.
typedef struct {
  const b_t *at;  // NULL: nothing
  int64_t ld;
  int64_t rows;
} ahead_t;

// Step i of K_BLOCK / 8: each row's lines are spread over all steps. Rows across K are STAGE_COLS
// long.
static inline __attribute__((always_inline)) void fetch_ahead(const ahead_t *ahead, int64_t i) {
#if !B_K_MAJOR
  enum { LINE = 64 / sizeof(b_t) };
  for (int64_t row = i; row < ahead->rows; row += K_BLOCK / 8) {
    UNROLL
    for (int at = 0; at < STAGE_COLS; at += LINE) {
      __builtin_prefetch(ahead->at + row * ahead->ld + at, 0, 2);
    }
  }
  return;
#endif
  enum { TURNS = 8 / sizeof(b_t) };  // steps that one line of 64 bytes lasts
  for (int64_t row = i % TURNS; row < ahead->rows; row += TURNS) {
    __builtin_prefetch(ahead->at + row * ahead->ld + i / TURNS * (64 / sizeof(b_t)), 0, 2);
  }
}

// The scales of a tile's columns over one K block, where they are multiplied into B: a vector for
// each of the four of a tile, or all columns' in order where they lie across K.
enum {
  B_RUNS = B_SCALES == SCALES_ROWS ? K_BLOCK / 32 + 1 : 1,
  // Whether a vector of scales has a block's column in it, or OI_VF columns in order.
  B_RUN_BLOCKS = B_K_MAJOR || (B_TYPE == TYPE_E4M3 && E4M3_LOOKUP),
  B_RUN_VECS = B_RUN_BLOCKS ? VECS : 1,
};
typedef struct {
  int64_t k0;
  vf run[B_RUNS][B_RUN_VECS];
} tile_scales_t;

// `sb` is at the scales of the matrix, `col` the tile's first column.
static inline void load_tile_scales(tile_scales_t *s, scales_t sb, int64_t sb_row, int64_t col,
                                    int64_t columns, int64_t k0, int64_t len) {
  s->k0 = k0;
  if (B_SCALES != SCALES_ROWS) return;
  int64_t first = k0 / B_GRAIN_K, last = (k0 + len - 1) / B_GRAIN_K;
  for (int64_t r = 0; r <= last - first; r++) {
    float x[TILE_N] = {0};
    for (int64_t j = 0; j < columns; j++) {
      x[j] = sb.at[(col + j) / B_GRAIN_N * sb_row + (first + r) * sb.step];
    }
    if (!B_RUN_BLOCKS) {
      s->run[r][0] = vf_load(x);
      continue;
    }
    for (int v = 0; v < B_RUN_VECS; v++) {
      float y[TILE_N];
      for (int j = 0; j < TILE_N; j++) y[j] = x[j / 4 * 4 + v] * E4M3_B_SCALE;
      s->run[r][v] = vf_load(y);
    }
  }
}

static inline const vf *run_of(const tile_scales_t *s, int64_t k) {
  return s->run[(s->k0 + k) / B_GRAIN_K - s->k0 / B_GRAIN_K];
}

// One chunk of the four vectors' rows, at `rows + j · ld` for column j of the tile; `k` is where in
// the tile it is.
static __attribute__((noinline)) void pack_b_chunk(panel_t *to, const b_t *rows, int64_t ld,
                                                   const tile_scales_t *scales, int64_t k) {
  UNROLL
  for (int v = 0; v < VECS; v++) {
    b_chunk c = b_load(rows + v * ld, VECS * ld);
    UNROLL
    for (int i = 0; i < CHUNK_PARTS; i++) {
      step_t step[PART_STEPS];
      b_steps(&c, i, 1, step);
      UNROLL
      for (int s = 0; s < PART_STEPS; s++) {
#if B_SCALES == SCALES_ROWS
        step[s] = step[s] * run_of(scales, k + i * (CHUNK / CHUNK_PARTS))[v];
#endif
        memcpy(to + ((i * PART_STEPS + s) * VECS + v) * STEP, &step[s], sizeof step[s]);
      }
    }
  }
  (void)scales, (void)k;
}

#if B_K_MAJOR
// `columns` ≤ TILE_N rows of B, `len` elements of each; the rest of the tile is zero. `step` is
// where in the K block they are, in eights.
static void pack_b_tile(panel_t *to, const b_t *rows, int64_t ld, int64_t columns, int64_t len,
                        int64_t step, const tile_scales_t *scales, const ahead_t *ahead) {
  int64_t k = 0;
  if (columns == TILE_N && !B_NIBBLES) {
    for (; k + CHUNK <= len; k += CHUNK) {
      for (int64_t i = k / 8; i < (k + CHUNK) / 8; i++) fetch_ahead(ahead, step + i);
      pack_b_chunk(to + k * TILE_N, rows + k, ld, scales, k);
    }
  }
  for (; k < len; k += CHUNK) {
    b_t rest[TILE_N * CHUNK];
    memset(rest, 0, sizeof rest);
    int64_t count = oi_min(CHUNK, len - k);
    for (int64_t j = 0; j < columns; j++) b_copy(rest + j * CHUNK, b_at(rows, j * ld + k), count);
    pack_b_chunk(to + k * TILE_N, rest, CHUNK, scales, k);
  }
}
#else
// Eight k of a tile whose columns are adjacent, `ld` elements from k to k.
static inline __attribute__((always_inline)) void pack_b_eight(panel_t *to, const b_t *from,
                                                               int64_t ld, const vf *scale) {
#if PAIRS
  (void)scale;
  vf all[VECS];
  eight_of_pairs(from, ld, all);
  UNROLL
  for (int v = 0; v < VECS; v++) memcpy(to + v * STEP, &all[v], sizeof all[v]);
#elif B_TYPE == TYPE_BF16
  (void)scale;
  vf all[VECS];
  eight_of_pairs(from, ld, all);
  UNROLL
  for (int v = 0; v < VECS; v++) {
    vf step[2];
    split_bf16(vf_to_bits(all[v]), step);
    vf_store(to + v * STEP, step[0]);
    vf_store(to + (VECS + v) * STEP, step[1]);
  }
#elif B_TYPE == TYPE_E4M3 && E4M3_LOOKUP
  // Sixteen codes of four rows of k fill a vector. Byte 16n + 8(v / 2) + 2r + v % 2 of the arranged
  // one is row r of column 4n + v: then the words of both halves are the four vectors of a step.
#define PLACE(n, h, r) \
  16 * (r) + 4 * (n) + 2 * (h), 16 * (r) + 4 * (n) + 2 * (h) + 1
#define PLACES(n, h) PLACE(n, h, 0), PLACE(n, h, 1), PLACE(n, h, 2), PLACE(n, h, 3)
#define BLOCK(n) PLACES(n, 0), PLACES(n, 1)
  static const vb places = {BLOCK(0), BLOCK(1), BLOCK(2), BLOCK(3)};
#undef PLACE
#undef PLACES
#undef BLOCK
  UNROLL
  for (int odd = 0; odd < 2; odd++) {
    const b_t *row = from + odd * ld;
    __m512i codes = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i *)row));
    codes = _mm512_inserti32x4(codes, _mm_loadu_si128((const __m128i *)(row + 2 * ld)), 1);
    codes = _mm512_inserti32x4(codes, _mm_loadu_si128((const __m128i *)(row + 4 * ld)), 2);
    codes = _mm512_inserti32x4(codes, _mm_loadu_si128((const __m128i *)(row + 6 * ld)), 3);
    vu halves[2];
    e4m3_to_bf16((vu)_mm512_permutexvar_epi8((__m512i)places, codes), halves);
    vf step[4];
    split_bf16(halves[0], step);
    split_bf16(halves[1], step + 2);
    UNROLL
    for (int v = 0; v < VECS; v++) {
      if (B_SCALES == SCALES_ROWS) step[v] = step[v] * scale[v];
      vf_store(to + (odd * VECS + v) * STEP, step[v]);
    }
  }
#else
  UNROLL
  for (int odd = 0; odd < 2; odd++) {
    vf part[4];
    UNROLL
    for (int c = 0; c < 4; c++) {
      part[c] = b_row_load(from + (2 * c + odd) * ld);
      if (B_SCALES == SCALES_ROWS) part[c] = part[c] * scale[0];
      // The panel of A makes up for it.
      if (B_SCALES == SCALES_FOLDED && !E4M3_LOOKUP) part[c] = part[c] * (1 / E4M3_B_SCALE);
    }
    transpose_floats(part);
    UNROLL
    for (int v = 0; v < VECS; v++) vf_store(to + (odd * VECS + v) * STEP, part[v]);
  }
#endif
}

// `columns` ≤ TILE_N adjacent columns, `len` k of them; the rest of the tile is zero.
static void pack_b_tile(panel_t *to, const b_t *rows, int64_t ld, int64_t columns, int64_t len,
                        int64_t step, const tile_scales_t *scales, const ahead_t *ahead) {
  (void)step, (void)ahead;
  for (int64_t k = 0; k < len; k += 8) {
    const vf *scale = B_SCALES == SCALES_ROWS ? run_of(scales, k) : NULL;
    const b_t *from = rows + k * ld;
    if (columns == TILE_N && k + 8 <= len) {
      pack_b_eight(to + k * TILE_N, from, ld, scale);
      continue;
    }
    b_t rest[8 * TILE_N] = {0};
    for (int64_t i = 0; i < oi_min(8, len - k); i++) {
      memcpy(rest + i * TILE_N, from + i * ld, (size_t)columns * sizeof(b_t));
    }
    pack_b_eight(to + k * TILE_N, rest, TILE_N, scale);
  }
}
#endif
