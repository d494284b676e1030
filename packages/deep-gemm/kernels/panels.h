// Operands rearranged as the microkernels read them: rows of A as float32 with the scales applied,
// tiles of B as vectors. Packing is exact but for the scales, which are multiplied into A here and
// nowhere else: first the scale of A's block, then the one of B's, each rounded to float32.
#pragma once
#include "elements.h"

enum {
  A_STRIDE = K_BLOCK + 16,    // elements from row to row: not a power of two, for the caches' sake
  B_TILE = K_BLOCK * TILE_N,  // elements of a packed tile of one K block
  SCALE_K = 128,
};

// `len` ≤ K_BLOCK elements of a row, padded with zeros to a multiple of 2 · OI_VF. `sa` and `sb` are
// the scales of the first 128 elements, with the distance to the next.
typedef struct {
  const float *at;
  int64_t step;
} scales_t;

static inline void pack_a_row(panel_t *to, const a_t *from, int64_t len, scales_t sa, scales_t sb) {
#if PAIRS
  (void)sa, (void)sb;
  memcpy(to, from, (size_t)len * sizeof(a_t));
  memset(to + len, 0, (size_t)(-len & (2 * OI_VF - 1)) * sizeof(a_t));
#else
  int64_t k = 0;
  for (; k + 2 * OI_VF <= len; k += 2 * OI_VF) {
    store_even_odd(to + k, a_load(from + k), a_load(from + k + OI_VF));
  }
  if (k < len) {
    a_t rest[2 * OI_VF] = {0};
    memcpy(rest, from + k, (size_t)(len - k) * sizeof(a_t));
    store_even_odd(to + k, a_load(rest), a_load(rest + OI_VF));
  }
  if (A_TYPE != TYPE_E4M3 && B_TYPE != TYPE_E4M3) return;
  int64_t padded = oi_ceil_div(len, 2 * OI_VF) * (2 * OI_VF);
  for (int64_t block = 0; block * SCALE_K < len; block++) {
    vf x = vf_set(A_TYPE == TYPE_E4M3 ? sa.at[block * sa.step] : 1.0f);
    vf y = vf_set(B_TYPE == TYPE_E4M3 ? sb.at[block * sb.step] * E4M3_B_SCALE : 1.0f);
    int64_t end = oi_min(padded, (block + 1) * SCALE_K);
    for (int64_t i = block * SCALE_K; i < end; i += OI_VF) {
      vf v = vf_load(to + i);
      if (A_TYPE == TYPE_E4M3) v = v * x;
      if (B_TYPE == TYPE_E4M3) v = v * y;
      vf_store(to + i, v);
    }
  }
#endif
}

// Rows of B that will be wanted next, fetched into the second-level cache while this tile is packed
// and multiplied, so that memory works all the time.
typedef struct {
  const b_t *at;  // NULL: nothing
  int64_t ld;
  int64_t rows;
} ahead_t;

// Step i of K_BLOCK / 8: each row's lines are spread over all steps.
static inline __attribute__((always_inline)) void fetch_ahead(const ahead_t *ahead, int64_t i) {
  enum { TURNS = 8 / sizeof(b_t) };  // steps that one line of 64 bytes lasts
  for (int64_t row = i % TURNS; row < ahead->rows; row += TURNS) {
    __builtin_prefetch(ahead->at + row * ahead->ld + i / TURNS * (64 / sizeof(b_t)), 0, 2);
  }
}

// One chunk of the four vectors' rows, at `rows + j · ld` for column j of the tile.
static __attribute__((noinline)) void pack_b_chunk(panel_t *to, const b_t *rows, int64_t ld) {
  UNROLL
  for (int v = 0; v < VECS; v++) {
    b_chunk c = b_load(rows + v * ld, VECS * ld);
    UNROLL
    for (int i = 0; i < CHUNK_PARTS; i++) {
      step_t step[PART_STEPS];
      b_steps(&c, i, 1, step);
      UNROLL
      for (int s = 0; s < PART_STEPS; s++) {
        memcpy(to + ((i * PART_STEPS + s) * VECS + v) * STEP, &step[s], sizeof step[s]);
      }
    }
  }
}

// `columns` ≤ TILE_N rows of B, `len` elements of each; the rest of the tile is zero. `step` is
// where in the K block they are, in eights.
static void pack_b_tile(panel_t *to, const b_t *rows, int64_t ld, int64_t columns, int64_t len,
                        int64_t step, const ahead_t *ahead) {
  int64_t k = 0;
  if (columns == TILE_N) {
    for (; k + CHUNK <= len; k += CHUNK) {
      for (int64_t i = k / 8; i < (k + CHUNK) / 8; i++) fetch_ahead(ahead, step + i);
      pack_b_chunk(to + k * TILE_N, rows + k, ld);
    }
  }
  for (; k < len; k += CHUNK) {
    b_t rest[TILE_N * CHUNK];
    memset(rest, 0, sizeof rest);
    size_t bytes = (size_t)oi_min(CHUNK, len - k) * sizeof(b_t);
    for (int64_t j = 0; j < columns; j++) memcpy(rest + j * CHUNK, rows + j * ld + k, bytes);
    pack_b_chunk(to + k * TILE_N, rest, CHUNK);
  }
}
