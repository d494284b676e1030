// Up to FEW_ROWS rows of A by vectors, to the bit as matrix tiles would multiply them (oi_tiles.h):
// a step of 32 k has a chain of its even products and one of its odd ones, from zero, subnormals
// being zero throughout; both are added, then added to the sum. Lanes are columns, so 16 rows of B
// are transposed; a tile would spend as much on sixteen rows of A as on one. Sums of scaled runs are
// kept aside and added with subnormals, as tile_sums.h adds them.
#pragma once
#include "tile_operands.h"

// The emulation of tiles multiplies every row by them: tests compare this with it.
#if B_K_MAJOR && A_K_MAJOR && !defined(OI_EMULATE_TILES)
#define FEW 1
#else
#define FEW 0
#endif

enum {
  FEW_ROWS = B_CODES == TYPE_BF16 ? 4 : 2,  // beyond, tiles are as fast
  FEW_FETCH = 1024,  // bytes of a row of B that are fetched ahead
};

// Counts that are compiled; others go as the next, with rows of zeros.
#define FEW_COUNT(rows) ((rows) <= 2 ? (rows) : (int)FEW_ROWS)

#if FEW

// A row of A as float32, `len` ≤ 64 of them; the rest of 64 becomes zero.
INLINE void widen_run(const char *from, int64_t len, float *to) {
  __m512i words[2];
  load_run(A_CODES, from, len, words);
  UNROLL
  for (int h = 0; h < 2; h++) {
    __m512i low = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(words[h]));
    __m512i high = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(words[h], 1));
    _mm512_store_si512(to + 32 * h, _mm512_slli_epi32(low, 16));
    _mm512_store_si512(to + 32 * h + 16, _mm512_slli_epi32(high, 16));
  }
}

// 16 bytes into block `n` of a vector, from memory: as the compiler loads them, they go by way of a
// register and a busier port.
#define INSERT_BLOCK(v, n, at) \
  __asm__("vinserti32x4 $" #n ", %1, %0, %0" : "+v"(v) : "m"(*(const __m128i *)(at)))

// Pairs of four k's, 16 columns each, from 16 bytes of each staged row.
INLINE void four_pairs(const char *staged, __m512i out[4]) {
  __m512i r[4];
  UNROLL
  for (int i = 0; i < 4; i++) {
    r[i] = _mm512_castsi128_si512(_mm_load_si128((const __m128i *)(staged + i * 128)));
    INSERT_BLOCK(r[i], 1, staged + (i + 4) * 128);
    INSERT_BLOCK(r[i], 2, staged + (i + 8) * 128);
    INSERT_BLOCK(r[i], 3, staged + (i + 12) * 128);
  }
  __m512i ab = _mm512_unpacklo_epi32(r[0], r[1]), cd = _mm512_unpacklo_epi32(r[2], r[3]);
  __m512i ef = _mm512_unpackhi_epi32(r[0], r[1]), gh = _mm512_unpackhi_epi32(r[2], r[3]);
  out[0] = _mm512_unpacklo_epi64(ab, cd);
  out[1] = _mm512_unpackhi_epi64(ab, cd);
  out[2] = _mm512_unpacklo_epi64(ef, gh);
  out[3] = _mm512_unpackhi_epi64(ef, gh);
}

// Two steps of 16 columns, side by side, since each waits for its own chains; row m of A is `ld`
// floats behind the one before it. What each adds to the sum of row m is parts[step][m].
INLINE void two_steps(int rows, const char *staged, const float *a, int64_t ld,
                      __m512 parts[2][FEW_ROWS]) {
  const __m512i upper = _mm512_set1_epi32((int)0xffff0000);
  __m512 even[2][FEW_ROWS], odd[2][FEW_ROWS];
  UNROLL
  for (int m = 0; m < rows; m++) {
    even[0][m] = odd[0][m] = even[1][m] = odd[1][m] = _mm512_setzero_ps();
  }
  UNROLL
  for (int q = 0; q < 4; q++, a += 8) {
    UNROLL
    for (int s = 0; s < 2; s++) {
      __m512i pairs[4];
      four_pairs(staged + 64 * s + 16 * q, pairs);
      UNROLL
      for (int r = 0; r < 4; r++) {
        __m512 x = _mm512_castsi512_ps(_mm512_slli_epi32(pairs[r], 16));
        __m512 y = _mm512_castsi512_ps(_mm512_and_si512(pairs[r], upper));
        UNROLL
        for (int m = 0; m < rows; m++) {
          const float *at = a + m * ld + STEP_SIZE * s + 2 * r;
          even[s][m] = _mm512_fmadd_ps(_mm512_set1_ps(at[0]), x, even[s][m]);
          odd[s][m] = _mm512_fmadd_ps(_mm512_set1_ps(at[1]), y, odd[s][m]);
        }
      }
    }
  }
  UNROLL
  for (int s = 0; s < 2; s++) {
    UNROLL
    for (int m = 0; m < rows; m++) parts[s][m] = _mm512_add_ps(even[s][m], odd[s][m]);
  }
}

// 16 columns of B, `count` of which are there, over `len` k: `sums` (a vector a row) go on over
// all of it; or, if `run_steps` is not zero, begin anew after so many steps, and each run's go to
// `sums`, row by row.
INLINE void few_columns(int rows, const char *b, int64_t ld, int64_t count, int64_t len,
                        const float *a, int64_t a_ld, int64_t run_steps, float *sums) {
  _Alignas(64) char staged[16 * 128];
  __m512 acc[FEW_ROWS];
  UNROLL
  for (int m = 0; m < rows; m++) {
    acc[m] = run_steps ? _mm512_setzero_ps() : _mm512_loadu_ps(sums + 16 * m);
  }
  memset(staged, 0, sizeof staged);
  int64_t left = run_steps, bytes = byte_step(B_CODES, len);
  for (int64_t k = 0; k < len; k += 64) {
    int64_t here = oi_min(64, len - k), at = byte_step(B_CODES, k);
    // Behind the end of a row the next columns' begin.
    int64_t ahead = at + FEW_FETCH < bytes ? at + FEW_FETCH : at + FEW_FETCH - bytes + 16 * ld;
    for (int64_t i = 0; i < count; i++) {
      const char *row = b + i * ld;
      __m512i words[2];
      __builtin_prefetch(row + ahead, 0, 2);
      if (B_CODES == TYPE_BF16) __builtin_prefetch(row + ahead + 64, 0, 2);
      if (here == 64) load_run(B_CODES, row + at, 64, words);
      else load_run(B_CODES, row + at, here, words);
      _mm512_store_si512(staged + i * 128, words[0]);
      _mm512_store_si512(staged + i * 128 + 64, words[1]);
    }
    __m512 parts[2][FEW_ROWS];
    two_steps(rows, staged, a + k, a_ld, parts);
    UNROLL
    for (int s = 0; s < 2; s++) {
      if (s == 1 && here <= STEP_SIZE) break;
      UNROLL
      for (int m = 0; m < rows; m++) acc[m] = _mm512_add_ps(acc[m], parts[s][m]);
      if (run_steps == 0 || (--left > 0 && k + STEP_SIZE * (s + 1) < len)) continue;
      left = run_steps;
      UNROLL
      for (int m = 0; m < rows; m++, sums += 16) {
        _mm512_storeu_ps(sums, acc[m]);
        acc[m] = _mm512_setzero_ps();
      }
    }
  }
  if (run_steps) return;
  UNROLL
  for (int m = 0; m < rows; m++) _mm512_storeu_ps(sums + 16 * m, acc[m]);
}

static __attribute__((noinline)) void few_columns_of(int rows, const char *b, int64_t ld,
                                                     int64_t count, int64_t len, const float *a,
                                                     int64_t a_ld, int64_t run_steps,
                                                     float *sums) {
  if (rows == 1) few_columns(1, b, ld, count, len, a, a_ld, run_steps, sums);
  else if (rows == 2) few_columns(2, b, ld, count, len, a, a_ld, run_steps, sums);
  else if (FEW_ROWS > 2) few_columns(FEW_ROWS, b, ld, count, len, a, a_ld, run_steps, sums);
}

// The same with the processor's rules of a tile product: nearest even, subnormals are zero.
static __attribute__((noinline)) void few_as_tiles(int rows, const char *b, int64_t ld,
                                                   int64_t count, int64_t len, const float *a,
                                                   int64_t a_ld, int64_t run_steps, float *sums) {
  unsigned before = _mm_getcsr();
  _mm_setcsr(0x9fc0);
  few_columns_of(rows, b, ld, count, len, a, a_ld, run_steps, sums);
  _mm_setcsr(before);
}

#endif
