// The innermost loops: up to M_TILE rows of A against one tile of TILE_N columns of B over one K
// block, from a packed tile or straight from B's rows. Both do the same additions in the same
// order.
#pragma once
#include "panels.h"

// 24 accumulators of 32 registers, or 12 of 16.
enum { M_TILE = OI_VF == 8 ? 3 : 6, M_MOST = 6 };

static inline __attribute__((always_inline)) void clear(vf acc[][VECS], int rows) {
  UNROLL
  for (int m = 0; m < rows; m++) {
    UNROLL
    for (int v = 0; v < VECS; v++) acc[m][v] = vf_zero();
  }
}

// sums[m][0 … TILE_N) += or = the block's sums.
static inline __attribute__((always_inline)) void finish(vf acc[][VECS], int rows, float *sums,
                                                         int64_t ld, int first) {
  UNROLL
  for (int m = 0; m < rows; m++) {
    vf s = sum_chains(acc[m][0], acc[m][1], acc[m][2], acc[m][3]);
    float *to = sums + m * ld;
    vf_store(to, first ? s : vf_load(to) + s);
  }
}

// Sixteen bytes of a row of A in every 128-bit block.
static inline __attribute__((always_inline)) step_t spread(const panel_t *p) {
  return (step_t)spread16(p);
}

static inline __attribute__((always_inline)) void multiply_add(vf acc[][VECS], int rows, int v,
                                                               const panel_t *a, step_t b) {
  UNROLL
  for (int m = 0; m < rows; m++) {
    acc[m][v] = step_fma(spread(a + m * A_STRIDE), b, acc[m][v]);
  }
}

// A packed tile of B: one K block of TILE_N columns, or a part of the block. Where a block comes in
// parts, the chains of sums wait in `chains` between them: M_TILE rows of VECS vectors a pass.
typedef struct {
  const panel_t *at;
  int64_t from, len;  // of the block
  int begins, ends;
  float *chains;
} tile_t;

// Against a packed tile; `a` is at the tile's first k.
static inline __attribute__((always_inline)) void packed_rows(int rows, const panel_t *a,
                                                              const tile_t *tile, float *sums,
                                                              int64_t ld, int first,
                                                              const ahead_t *ahead) {
  vf acc[M_MOST][VECS];
  if (tile->begins) {
    clear(acc, rows);
  } else {
    UNROLL
    for (int m = 0; m < rows; m++) {
      UNROLL
      for (int v = 0; v < VECS; v++) acc[m][v] = vf_load(tile->chains + (m * VECS + v) * OI_VF);
    }
  }
  const panel_t *b = tile->at;
  int64_t end = oi_ceil_div(tile->from + tile->len, 8);
  for (int64_t i = tile->from / 8; i < end; i++, a += 8, b += 8 * TILE_N) {
    fetch_ahead(ahead, i);
    UNROLL
    for (int s = 0; s < 8 / STEP_K; s++) {
      step_t x[VECS];
      UNROLL
      for (int v = 0; v < VECS; v++) memcpy(&x[v], b + (s * VECS + v) * STEP, sizeof x[v]);
      UNROLL
      for (int m = 0; m < rows; m++) {
        step_t y = spread(a + m * A_STRIDE + s * STEP_K);
        UNROLL
        for (int v = 0; v < VECS; v++) acc[m][v] = step_fma(y, x[v], acc[m][v]);
      }
    }
  }
  if (tile->ends) {
    finish(acc, rows, sums, ld, first);
    return;
  }
  UNROLL
  for (int m = 0; m < rows; m++) {
    UNROLL
    for (int v = 0; v < VECS; v++) vf_store(tile->chains + (m * VECS + v) * OI_VF, acc[m][v]);
  }
}

#if DIRECT
// Straight from TILE_N rows of B; `len` is a multiple of CHUNK. `next` is where the same rows, or
// those of the next tile, go on. False if B has NaN codes that only packing converts; nothing is
// written then.
static inline __attribute__((always_inline)) int direct_rows(int rows, const panel_t *a,
                                                             const b_t *b, const b_t *next,
                                                             int64_t ldb, int64_t len, float *sums,
                                                             int64_t ld, int first) {
  vf acc[M_MOST][VECS];
  clear(acc, rows);
  vb seen = {0};
  for (int64_t k = 0; k < len; k += CHUNK) {
    // Arranged chunks go through the stack, so that the loop over their parts can stay a loop:
    // unrolled as well, it would take the compiler seconds.
    b_chunk chunk[VECS];
    UNROLL
    for (int v = 0; v < VECS; v++) {
      chunk[v] = b_load(b + v * ldb + k, VECS * ldb);
      UNROLL
      for (int n = 0; n < COLS; n++) {
        const b_t *line = next + (v + VECS * n) * ldb + k;
        __builtin_prefetch(line, 0, 2);
        if (sizeof(b_t) == 4) __builtin_prefetch(line + OI_VF, 0, 2);
      }
    }
    for (int i = 0; i < CHUNK_PARTS; i++) {
      __asm__ volatile("" : "+r"(i));  // not to be unrolled
      UNROLL
      for (int v = 0; v < VECS; v++) {
        // The four vectors meet the same values of A. Hide that, or the compiler keeps all of them
        // in registers it does not have; loading them again is free.
        const panel_t *from = a + k + i * (PART_STEPS * STEP_K);
        __asm__ volatile("" : "+r"(from));
        step_t step[PART_STEPS];
        if (E4M3_NAN_UNSEEN) seen = e4m3_max(seen, chunk[v].part[i]);
        b_steps(&chunk[v], i, 0, step);
        UNROLL
        for (int s = 0; s < PART_STEPS; s++) multiply_add(acc, rows, v, from + s * STEP_K, step[s]);
      }
    }
  }
  if (E4M3_NAN_UNSEEN && e4m3_saw_nan(seen)) return 0;
  finish(acc, rows, sums, ld, first);
  return 1;
}
#endif

// The row counts that are compiled; a count between two is done as the larger one, with rows of
// zeros. Fewer would waste time on those, more would take the compiler longer.
#define DIRECT_ROWS(R) ((R) <= 2 ? (R) : (R) <= 4 && M_TILE > 3 ? 4 : M_TILE)

static __attribute__((noinline)) void packed_tile(int rows, const panel_t *a, const tile_t *tile,
                                                  float *sums, int64_t ld, int first,
                                                  const ahead_t *ahead) {
#define ROWS(R)                                                       \
  case R:                                                             \
    if (R <= M_TILE) packed_rows(R, a, tile, sums, ld, first, ahead); \
    break;
  switch (rows) { ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(5) ROWS(6) }
#undef ROWS
}

#if DIRECT
static __attribute__((noinline)) int direct_tile(int rows, const panel_t *a, const b_t *b,
                                                 const b_t *next, int64_t ldb, int64_t len,
                                                 float *sums, int64_t ld, int first) {
#define ROWS(R)                                                                            \
  case R:                                                                                  \
    if (DIRECT_ROWS(R) == R) return direct_rows(R, a, b, next, ldb, len, sums, ld, first); \
    break;
  switch (DIRECT_ROWS(rows)) { ROWS(1) ROWS(2) ROWS(3) ROWS(4) ROWS(6) }
#undef ROWS
  return 0;
}
#endif
