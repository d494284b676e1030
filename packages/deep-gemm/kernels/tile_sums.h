// Products of tiles and what becomes of them. Up to 2 × 2 tiles of sums, of 16 × 16 float32, are
// multiplied at a time; tiles 0 … 3 hold them, 4 and 5 the left operands, 6 and 7 the right ones.
//
// Every output element is summed the same way for every shape. Without scales it is one chain over
// K, a step of 32 k at a time as oi_tiles.h says (in memory between, where K is long). With scales
// each RUN_K k are summed so from zero, and the runs' sums, times the product of their scales
// (rounded), are added in order by fused multiply-adds.
#pragma once
#include "tile_operands.h"

#define SCALED (A_TYPE == TYPE_E4M3 || B_TYPE == TYPE_E4M3)
// Whether rows of B are the left operand and rows of A columns of the right one: whichever of the
// two needs no transposing, where there is a choice. The sums are the same.
#define LEFT_IS_B B_K_MAJOR

// k of which both operands have one scale each, or a part of them.
#define RUN_OF_GRAIN(grain) ((grain) % 128 == 0 ? 128 : (grain) % 64 == 0 ? 64 : 32)
enum {
  RUN_A = A_TYPE == TYPE_E4M3 ? RUN_OF_GRAIN(A_GRAIN_K) : 128,
  RUN_B = B_TYPE == TYPE_E4M3 ? RUN_OF_GRAIN(B_GRAIN_K) : 128,
  RUN_K = RUN_A < RUN_B ? RUN_A : RUN_B,
  RUN_STEPS = RUN_K / STEP_SIZE,
  QUAD = 4 * 256,  // floats of 2 × 2 tiles of sums, left by right
};

// A pair of left tiles over some steps.
typedef struct {
  const char *at;
  int64_t row, step, second;  // bytes: from row to row, step to step, tile to tile
  int64_t steps;
  const char *tail;     // a last step that lies elsewhere, packed; or NULL
  const float *scales;  // of each run, 32 rows
  int tiles;
} left_t;

// A pair of right tiles, packed.
typedef struct {
  const char *at;
  const float *scales;  // of each run, 32 columns
  int tiles;
} right_t;

INLINE void multiply_steps(int lefts, int rights, const left_t *l, int64_t from, int64_t steps,
                           const char *right) {
  const char *left = l->at + from * l->step;
  right += from * STEP_TILES;
  for (int64_t s = 0; s < steps; s++, left += l->step, right += STEP_TILES) {
    oi_tile_load(4, left, l->row);
    oi_tile_load(6, right, 64);
    oi_tile_dot_bf16(0, 4, 6);
    if (rights == 2) {
      oi_tile_load(7, right + TILE, 64);
      oi_tile_dot_bf16(1, 4, 7);
    }
    if (lefts == 2) {
      oi_tile_load(5, left + l->second, l->row);
      oi_tile_dot_bf16(2, 5, 6);
      if (rights == 2) oi_tile_dot_bf16(3, 5, 7);
    }
  }
}

INLINE void clear_tiles(void) {
  oi_tile_zero(0);
  oi_tile_zero(1);
  oi_tile_zero(2);
  oi_tile_zero(3);
}

INLINE void load_tiles(int lefts, int rights, const float *sums) {
  oi_tile_load(0, sums, 64);
  if (rights == 2) oi_tile_load(1, sums + 256, 64);
  if (lefts == 2) oi_tile_load(2, sums + 512, 64);
  if (lefts == 2 && rights == 2) oi_tile_load(3, sums + 768, 64);
}

INLINE void store_tiles(int lefts, int rights, float *sums) {
  oi_tile_store(0, sums, 64);
  if (rights == 2) oi_tile_store(1, sums + 256, 64);
  if (lefts == 2) oi_tile_store(2, sums + 512, 64);
  if (lefts == 2 && rights == 2) oi_tile_store(3, sums + 768, 64);
}

// sums (+)= a run's sums, each times the scales of its row and column.
INLINE void add_scaled(int lefts, int rights, const float *run, const float *left,
                       const float *right, int first, float *sums) {
  for (int i = 0; i < lefts; i++) {
    UNROLL
    for (int j = 0; j < rights; j++) {
      const vf columns = vf_load(right + 16 * j);
      const float *from = run + (2 * i + j) * 256;
      float *to = sums + (2 * i + j) * 256;
      EACH16
      for (int r = 0; r < 16; r++) {
        vf scale = vf_set(left[16 * i + r]) * columns, x = vf_load(from + 16 * r);
        vf_store(to + 16 * r, first ? x * scale : vf_fma_exact(x, scale, vf_load(to + 16 * r)));
      }
    }
  }
}

// Turns the rows of up to 16 rows' tiles of sums into rows of `ld` floats. `tile` is the first one,
// QUAD-wise `apart` from one pair of left tiles to the next.
static void rows_of_tiles(const float *tile, int64_t apart, int64_t columns, float *to,
                          int64_t ld) {
  for (int64_t j = 0; j < columns; j += 16) {
    const float *from = tile + j / 32 * apart + (LEFT_IS_B ? j / 16 % 2 * 512 : j / 16 % 2 * 256);
    __m512i rows[16];
    if (LEFT_IS_B) oi_transpose_rows(from, 64, rows);
    EACH16
    for (int r = 0; r < 16; r++) {
      if (!LEFT_IS_B) rows[r] = _mm512_loadu_si512(from + 16 * r);
      _mm512_storeu_si512(to + r * ld + j, rows[r]);
    }
  }
}
