// The two register tiles. Scores: vectors run along the channels, each score is OI_VF partial sums
// added by one fixed tree. Values: vectors run along the channels too, keys are added in order. A
// score or an output element thus sees the same operations whatever tile it is in.
#pragma once
#include "attention_types.h"

#define BLOCK 64                                  // keys of one softmax step
#define PANEL_KEYS 8  // keys that are widened at a time: they stay in L1
#define Q_LD ODD_LINES(DP)

// Rows and keys (or vectors of channels) of the main tiles: 24 sums where there are 32 registers.
#define TILE_ROWS 6
#if OI_VF == 8
#define TILE_KEYS 2
#define TILE_VECS 2
#else
#define TILE_KEYS 4
#define TILE_VECS 4
#endif

// Rows of later keys that one tile of scores asks for.
#define FETCH_DIRECT (TILE_KEYS / 2)
#define FETCH_PANEL TILE_KEYS

// Four vectors, each of quads that are still to be summed: result quad i holds the sums of quad i
// of a, b, c and d.
INLINE vf sum_quads(vf a, vf b, vf c, vf d) {
#if OI_VF == 16
  vf u = SHUFFLE(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
         SHUFFLE(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
  vf w = SHUFFLE(c, d, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28, 13, 29) +
         SHUFFLE(c, d, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30, 15, 31);
  return SHUFFLE(u, w, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29) +
         SHUFFLE(u, w, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31);
#elif OI_VF == 8
  vf u = SHUFFLE(a, b, 0, 8, 1, 9, 4, 12, 5, 13) + SHUFFLE(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
  vf w = SHUFFLE(c, d, 0, 8, 1, 9, 4, 12, 5, 13) + SHUFFLE(c, d, 2, 10, 3, 11, 6, 14, 7, 15);
  return SHUFFLE(u, w, 0, 1, 8, 9, 4, 5, 12, 13) + SHUFFLE(u, w, 2, 3, 10, 11, 6, 7, 14, 15);
#else
  vf u = SHUFFLE(a, b, 0, 4, 1, 5) + SHUFFLE(a, b, 2, 6, 3, 7);
  vf w = SHUFFLE(c, d, 0, 4, 1, 5) + SHUFFLE(c, d, 2, 6, 3, 7);
  return SHUFFLE(u, w, 0, 1, 4, 5) + SHUFFLE(u, w, 2, 3, 6, 7);
#endif
}

// The TILE_KEYS sums of one row as quads of one vector: quad k belongs to key k.
#if OI_VF == 16
INLINE vf row_quads(const vf *s) {
  vf x = SHUFFLE(s[0], s[1], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
         SHUFFLE(s[0], s[1], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  vf y = SHUFFLE(s[2], s[3], 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
         SHUFFLE(s[2], s[3], 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
  return SHUFFLE(x, y, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
         SHUFFLE(x, y, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
}
#elif OI_VF == 8
INLINE vf row_quads(const vf *s) {
  return SHUFFLE(s[0], s[1], 0, 1, 2, 3, 8, 9, 10, 11) +
         SHUFFLE(s[0], s[1], 4, 5, 6, 7, 12, 13, 14, 15);
}
#endif

// Stores rows r0 to r0+3 (of mr) of the scores of TILE_KEYS keys.
INLINE void store_scores(float *s, const vf (*sum)[TILE_KEYS], int mr, int r0) {
#if OI_VF == 4
  for (int r = r0; r < r0 + 4 && r < mr; r++)
    vf_store(s + r * BLOCK, sum_quads(sum[r][0], sum[r][1], sum[r][2], sum[r][3]));
#else
  float t[OI_VF];
  const int last = mr - 1;
  vf_store(t, sum_quads(row_quads(sum[r0]), row_quads(sum[r0 + 1 < mr ? r0 + 1 : last]),
                        row_quads(sum[r0 + 2 < mr ? r0 + 2 : last]),
                        row_quads(sum[r0 + 3 < mr ? r0 + 3 : last])));
#pragma GCC unroll 4
  for (int r = 0; r < 4; r++)
#pragma GCC unroll 4
    for (int k = 0; k < TILE_KEYS; k++)
      if (r0 + r < mr) s[(r0 + r) * BLOCK + k] = t[k * 4 + r];
#endif
}

// s[r][j] = q[r] · key[j] for MR rows and n keys (rounded up to TILE_KEYS; the caller has padded
// the list). Meanwhile each tile brings FETCH rows of the list `fetch` nearer: memory and
// arithmetic overlap only if what comes next is asked for a little at a time.
#define DEFINE_SCORES(NAME, MR, ELEM, SOURCE, CHANNELS, FETCH, LEVEL)                             \
  static __attribute__((noinline)) void NAME(float *s, const float *q, const void *const *key,    \
                                             int n, const void *const *fetch) {                   \
    for (int j = 0; j < n; j += TILE_KEYS, fetch += FETCH) {                                      \
      vf sum[MR][TILE_KEYS];                                                                      \
      const ELEM *k[TILE_KEYS];                                                                   \
      const kv_t *f[FETCH];                                                                       \
      UNROLL(4) for (int t = 0; t < FETCH; t++) f[t] = fetch[t];                                  \
      UNROLL(4) for (int t = 0; t < TILE_KEYS; t++) k[t] = key[j + t];                            \
      UNROLL(6)                                                                                   \
      for (int r = 0; r < MR; r++) UNROLL(4) for (int t = 0; t < TILE_KEYS; t++) sum[r][t] =      \
          vf_zero();                                                                              \
      UNROLL(1) for (int i = 0; i + PAIR <= CHANNELS; i += PAIR) {                                \
        vf x[TILE_KEYS];                                                                          \
        if (i * (int)sizeof(kv_t) < KEY_BYTES)                                                    \
          UNROLL(4) for (int t = 0; t < FETCH; t++) __builtin_prefetch(f[t] + i, 0, LEVEL);       \
        UNROLL(4) for (int t = 0; t < TILE_KEYS; t++) x[t] = SOURCE##_first(k[t] + i);            \
        UNROLL(6) for (int r = 0; r < MR; r++) {                                                  \
          vf w = vf_load(q + r * Q_LD + i);                                                       \
          UNROLL(4) for (int t = 0; t < TILE_KEYS; t++) sum[r][t] = vf_fma(w, x[t], sum[r][t]);   \
        }                                                                                         \
        UNROLL(4) for (int t = 0; t < TILE_KEYS; t++) x[t] = SOURCE##_second(k[t] + i);           \
        UNROLL(6) for (int r = 0; r < MR; r++) {                                                  \
          vf w = vf_load(q + r * Q_LD + i + OI_VF);                                               \
          UNROLL(4) for (int t = 0; t < TILE_KEYS; t++) sum[r][t] = vf_fma(w, x[t], sum[r][t]);   \
        }                                                                                         \
      }                                                                                           \
      if (CHANNELS % PAIR) /* one vector is left, and only panels come here */                    \
        UNROLL(6)                                                                                 \
        for (int r = 0; r < MR; r++) UNROLL(4) for (int t = 0; t < TILE_KEYS; t++) sum[r][t] =    \
            vf_fma(vf_load(q + r * Q_LD + DP - OI_VF), vf_load((const float *)k[t] + DP - OI_VF), \
                   sum[r][t]);                                                                    \
      store_scores(s + j, sum, MR, 0);                                                            \
      if (MR > 4) store_scores(s + j, sum, MR, 4);                                                \
    }                                                                                             \
  }

// o[r] = o[r]·alpha[r] + Σ p[r][j]·value[j] over keys j0 to j1, in order, for MR rows and the NV
// vectors from `column` on. Meanwhile a line a key, `offset` bytes into its row of `fetch`, comes
// nearer; two lines for a single row, whose strips are fewer.
#define DEFINE_VALUES(NAME, MR, NV, ELEM, LOAD, LEVEL)                                             \
  static __attribute__((noinline)) void NAME(float *o, const float *alpha, const float *p,    \
                                             const void *const *value, int column, int j0, int j1, \
                                             const void *const *fetch, int offset) {          \
    vf sum[MR][NV];                                                                           \
    UNROLL(6) for (int r = 0; r < MR; r++)                                                    \
      UNROLL(8) for (int c = 0; c < NV; c++) {                                                \
        sum[r][c] = vf_load(o + r * O_LD + c * OI_VF) * alpha[r];                             \
        ROUNDED(sum[r][c]);                                                                   \
      }                                                                                       \
    UNROLL(1) for (int j = j0; j < j1; j++) {                                                 \
      const ELEM *v = (const ELEM *)value[j] + column;                                        \
      vf x[NV];                                                                               \
      __builtin_prefetch((const char *)fetch[j] + offset, 0, LEVEL);                          \
      if (MR == 1 && LEVEL == 2)                                                              \
        __builtin_prefetch((const char *)fetch[j] + offset + 64, 0, LEVEL);                   \
      LOAD(NV);                                                                               \
      UNROLL(6) for (int r = 0; r < MR; r++) {                                                \
        vf w = vf_set(p[r * BLOCK + j]);                                                      \
        UNROLL(8) for (int c = 0; c < NV; c++) sum[r][c] = vf_fma(w, x[c], sum[r][c]);        \
      }                                                                                       \
    }                                                                                         \
    UNROLL(6) for (int r = 0; r < MR; r++)                                                    \
      UNROLL(8) for (int c = 0; c < NV; c++) vf_store(o + r * O_LD + c * OI_VF, sum[r][c]);   \
  }
#define LOAD_PANEL(NV) UNROLL(8) for (int c = 0; c < NV; c++) x[c] = vf_load(v + c * OI_VF)
#define LOAD_DIRECT(NV)                                           \
  UNROLL(4)                                                       \
  for (int c = 0; c < NV; c += 2) x[c] = kv_first(v + c * OI_VF), \
                                  x[c + 1] = kv_second(v + c * OI_VF)

DEFINE_SCORES(scores_panel_6, 6, float, panel, DP, FETCH_PANEL, 3)
DEFINE_SCORES(scores_panel_4, 4, float, panel, DP, FETCH_PANEL, 3)
DEFINE_SCORES(scores_panel_1, 1, float, panel, DP, FETCH_PANEL, 3)
DEFINE_VALUES(values_panel_6, 6, TILE_VECS, float, LOAD_PANEL, 3)
DEFINE_VALUES(values_panel_4, 4, TILE_VECS, float, LOAD_PANEL, 3)
DEFINE_VALUES(values_panel_1, 1, TILE_VECS, float, LOAD_PANEL, 3)
// Channels past the last whole strip: pairs stay together.
#define NARROW_VECS (DVP / OI_VF % TILE_VECS == 0 ? 0 : DVP / OI_VF % 2 == 0 ? 2 : 1)
#if NARROW_VECS
DEFINE_VALUES(values_narrow_6, 6, NARROW_VECS, float, LOAD_PANEL, 3)
DEFINE_VALUES(values_narrow_1, 1, NARROW_VECS, float, LOAD_PANEL, 3)
#endif
#if CAN_READ_DIRECT
// With few rows a wider strip keeps enough sums in flight to hide the latency of one.
#define VECS (DV / OI_VF)
#define STRIP_1 (VECS % 8 == 0 && OI_VF == 16 ? 8 : VECS % 4 == 0 ? 4 : 2)
#define STRIP_2 (VECS % 4 == 0 ? 4 : 2)
#define STRIP_4 (VECS % 4 == 0 && OI_VF != 8 ? 4 : 2)
#define STRIP_6 STRIP_4
DEFINE_SCORES(scores_direct_6, 6, kv_t, kv, D, FETCH_DIRECT, 2)
DEFINE_VALUES(values_direct_6, 6, STRIP_6, kv_t, LOAD_DIRECT, 2)
DEFINE_SCORES(scores_direct_4, 4, kv_t, kv, D, FETCH_DIRECT, 2)
DEFINE_SCORES(scores_direct_2, 2, kv_t, kv, D, FETCH_DIRECT, 2)
DEFINE_SCORES(scores_direct_1, 1, kv_t, kv, D, FETCH_DIRECT, 2)
DEFINE_VALUES(values_direct_4, 4, STRIP_4, kv_t, LOAD_DIRECT, 2)
DEFINE_VALUES(values_direct_2, 2, STRIP_2, kv_t, LOAD_DIRECT, 2)
DEFINE_VALUES(values_direct_1, 1, STRIP_1, kv_t, LOAD_DIRECT, 2)
#endif
