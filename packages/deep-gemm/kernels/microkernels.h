// The innermost loops: up to M_TILE rows of A against one tile of TILE_N columns of B over one K
// block, from a packed tile or straight from B's rows. Both do the same additions in the same order.
#pragma once
#include "panels.h"

enum { M_TILE = OI_VF == 8 ? 3 : 6 };  // 24 accumulators of 32 registers, 12 of 16

// sums[m][0 … TILE_N) += or = the block's sums.
static inline __attribute__((always_inline)) void finish(vf acc[][VECS], int rows, float *sums,
                                                         int64_t ld, int first) {
  for (int m = 0; m < rows; m++) {
    vf s = sum_chains(acc[m][0], acc[m][1], acc[m][2], acc[m][3]);
    float *to = sums + m * ld;
    vf_store(to, first ? s : vf_load(to) + s);
  }
}

static inline __attribute__((always_inline)) void multiply_add(vf acc[][VECS], int rows, int v,
                                                               const float *a, vf b) {
  for (int m = 0; m < rows; m++) acc[m][v] = vf_fma(spread4(a + m * A_STRIDE), b, acc[m][v]);
}

// Against a packed tile.
static inline __attribute__((always_inline)) void packed_rows(int rows, const float *a,
                                                              const float *b, int64_t len,
                                                              float *sums, int64_t ld, int first) {
  vf acc[M_TILE][VECS];
  for (int m = 0; m < rows; m++)
    for (int v = 0; v < VECS; v++) acc[m][v] = vf_zero();
  int64_t pairs = oi_ceil_div(len, 8);
  for (int64_t i = 0; i < pairs; i++, a += 8, b += 8 * TILE_N) {
    for (int s = 0; s < 2; s++) {
      vf x[VECS];
      for (int v = 0; v < VECS; v++) x[v] = vf_load(b + (s * VECS + v) * OI_VF);
      for (int m = 0; m < rows; m++) {
        vf y = spread4(a + m * A_STRIDE + 4 * s);
        for (int v = 0; v < VECS; v++) acc[m][v] = vf_fma(y, x[v], acc[m][v]);
      }
    }
  }
  finish(acc, rows, sums, ld, first);
}

// Straight from TILE_N rows of B; `len` is a multiple of CHUNK. False if B has NaN codes there that
// only packing converts; nothing is written then.
static inline __attribute__((always_inline)) int direct_rows(int rows, const float *a, const b_t *b,
                                                             int64_t ldb, int64_t len, float *sums,
                                                             int64_t ld, int first) {
  vf acc[M_TILE][VECS];
  for (int m = 0; m < rows; m++)
    for (int v = 0; v < VECS; v++) acc[m][v] = vf_zero();
  vb seen = {0};
  for (int64_t k = 0; k < len; k += CHUNK) {
    for (int v = 0; v < VECS; v++) {
      b_chunk c = b_load(b + v * ldb + k, VECS * ldb);
      for (int i = 0; i < CHUNK_PARTS; i++) {
        vf step[PART_STEPS];
        if (B_TYPE == TYPE_E4M3) seen = e4m3_max(seen, c.part[i]);
        b_steps(&c, i, 0, step);
        for (int s = 0; s < PART_STEPS; s++) {
          multiply_add(acc, rows, v, a + k + (i * PART_STEPS + s) * 4, step[s]);
        }
      }
    }
  }
  if (B_TYPE == TYPE_E4M3 && e4m3_saw_nan(seen)) return 0;
  finish(acc, rows, sums, ld, first);
  return 1;
}

#define EACH_ROW_COUNT(X) X(1) X(2) X(3) X(4) X(5) X(6)

static __attribute__((noinline)) void packed_tile(int rows, const float *a, const float *b,
                                                  int64_t len, float *sums, int64_t ld, int first) {
  switch (rows) {
#define ROWS(R) case R: if (R <= M_TILE) packed_rows(R <= M_TILE ? R : 1, a, b, len, sums, ld, first); break;
    EACH_ROW_COUNT(ROWS)
#undef ROWS
  }
}

static __attribute__((noinline)) int direct_tile(int rows, const float *a, const b_t *b, int64_t ldb,
                                                 int64_t len, float *sums, int64_t ld, int first) {
  switch (rows) {
#define ROWS(R) case R: if (R <= M_TILE) return direct_rows(R <= M_TILE ? R : 1, a, b, ldb, len, sums, ld, first); break;
    EACH_ROW_COUNT(ROWS)
#undef ROWS
  }
  return 0;
}
