// The block step where bf16 queries meet bf16 keys on a machine whose bf16 dot product is worth it:
// keys and probabilities are multiplied in pairs as they lie, with float sums. Probabilities are
// rounded to bf16, as the original does; their sum is not.
//
// Scores: the pairs are neighbouring channels, a score is OI_VF partial sums and a fixed tree.
// Values: the pairs are keys 2p and 2p + 1 of the block, interleaved on the way; the last key of an
// odd number pairs with zeros. An output element sees the same pairs in the same order whatever
// tile it is in.
#pragma once
#include "attention_blocks.h"

#if DOT
enum { QD_LD = ((D * 2 + 63) / 64 | 1) * 32, P_LD = BLOCK * 2 };  // in bf16
enum { CHUNK_KEYS = 16, DOT_DIRECT_ROWS = 12, DOT_FETCH = TILE_KEYS / 2 };
#define DOT_VECS (DV / OI_VF % 4 == 0 ? 4 : 2)
#define DOT_STRIP (DOT_VECS * OI_VF)

static const _Alignas(64) uint16_t zero_key[DV];

static inline void copy_query(work_t *w, int row, const void *src) {
  memcpy((uint16_t *)w->q + row * QD_LD, src, D * 2);
}

// Probabilities of a row to bf16, in place: the row's first half. Behind its keys are zeros.
static void narrow_probabilities(work_t *w, int rows) {
  for (int r = 0; r < rows; r++) {
    const float *s = w->s + r * BLOCK;
    uint16_t *p = (uint16_t *)(w->s + r * BLOCK);
    for (int j = 0; j < w->keys[r]; j += OI_VF) vf_store_bf16(p + j, vf_load(s + j));
  }
}

#define DEFINE_DOT_SCORES(NAME, MR)                                                               \
  static __attribute__((noinline)) void NAME(float *s, const uint16_t *q, const void *const *key, \
                                             int n, const void *const *fetch) {                   \
    for (int j = 0; j < n; j += TILE_KEYS, fetch += DOT_FETCH) {                                  \
      vf sum[MR][TILE_KEYS];                                                                      \
      const uint16_t *k[TILE_KEYS], *f[DOT_FETCH];                                                \
      UNROLL(4) for (int t = 0; t < DOT_FETCH; t++) f[t] = fetch[t];                              \
      UNROLL(4) for (int t = 0; t < TILE_KEYS; t++) k[t] = key[j + t];                            \
      UNROLL(6)                                                                                   \
      for (int r = 0; r < MR; r++) UNROLL(4) for (int t = 0; t < TILE_KEYS; t++) sum[r][t] =      \
          vf_zero();                                                                              \
      UNROLL(1) for (int i = 0; i < D; i += PAIR) {                                               \
        vbf x[TILE_KEYS];                                                                         \
        if (i * 2 < KEY_BYTES)                                                                    \
          UNROLL(4) for (int t = 0; t < DOT_FETCH; t++) __builtin_prefetch(f[t] + i, 0, 2);       \
        UNROLL(4) for (int t = 0; t < TILE_KEYS; t++) x[t] = vbf_load(k[t] + i);                  \
        UNROLL(6) for (int r = 0; r < MR; r++) {                                                  \
          const vbf y = vbf_load(q + r * QD_LD + i);                                              \
          UNROLL(4)                                                                               \
          for (int t = 0; t < TILE_KEYS; t++) sum[r][t] = oi_bf16dot(sum[r][t], y, x[t]);         \
        }                                                                                         \
      }                                                                                           \
      store_scores(s + j, sum, MR, 0);                                                            \
      if (MR > 4) store_scores(s + j, sum, MR, 4);                                                \
    }                                                                                             \
  }
DEFINE_DOT_SCORES(dot_scores_6, 6)
DEFINE_DOT_SCORES(dot_scores_4, 4)
DEFINE_DOT_SCORES(dot_scores_2, 2)
DEFINE_DOT_SCORES(dot_scores_1, 1)

// o[r] = o[r]·alpha[r] + Σ over pairs p0 to p1, in order. `source` is a list of keys, or with
// PANEL a strip of pairs already interleaved. Meanwhile a line a key of `fetch` comes nearer.
#define DEFINE_DOT_VALUES(NAME, MR, PANEL)                                                        \
  static __attribute__((noinline)) void NAME(                                                     \
      float *o, const float *alpha, const uint16_t *p, const void *source, int column, int p0,    \
      int p1, const void *const *fetch, int offset) {                                             \
    vf sum[MR][DOT_VECS];                                                                         \
    UNROLL(6) for (int r = 0; r < MR; r++)                                                        \
      UNROLL(4) for (int c = 0; c < DOT_VECS; c++) {                                              \
        sum[r][c] = vf_load(o + r * O_LD + c * OI_VF) * alpha[r];                                 \
        ROUNDED(sum[r][c]);                                                                       \
      }                                                                                           \
    UNROLL(1) for (int i = p0; i < p1; i++) {                                                     \
      vbf x[DOT_VECS];                                                                            \
      if (PANEL) {                                                                                \
        UNROLL(4) for (int c = 0; c < DOT_VECS; c++)                                              \
          x[c] = vbf_load((const uint16_t *)source + (i * DOT_VECS + c) * PAIR);                  \
      } else {                                                                                    \
        const uint16_t *a = ((const void *const *)source)[2 * i],                                 \
                       *b = ((const void *const *)source)[2 * i + 1];                             \
        __builtin_prefetch((const char *)fetch[2 * i] + offset, 0, 2);                            \
        __builtin_prefetch((const char *)fetch[2 * i + 1] + offset, 0, 2);                        \
        UNROLL(2) for (int c = 0; c < DOT_VECS; c += 2)                                           \
          interleave(x + c, a + column + c * OI_VF, b + column + c * OI_VF);                      \
      }                                                                                           \
      UNROLL(6) for (int r = 0; r < MR; r++) {                                                    \
        const vbf y = vbf_set_pair(p + r * P_LD + 2 * i);                                         \
        UNROLL(4) for (int c = 0; c < DOT_VECS; c++) sum[r][c] = oi_bf16dot(sum[r][c], y, x[c]);  \
      }                                                                                           \
    }                                                                                             \
    UNROLL(6) for (int r = 0; r < MR; r++)                                                        \
      UNROLL(4) for (int c = 0; c < DOT_VECS; c++) vf_store(o + r * O_LD + c * OI_VF, sum[r][c]); \
  }
DEFINE_DOT_VALUES(dot_values_6, 6, 0)
DEFINE_DOT_VALUES(dot_values_4, 4, 0)
DEFINE_DOT_VALUES(dot_values_2, 2, 0)
DEFINE_DOT_VALUES(dot_values_1, 1, 0)
DEFINE_DOT_VALUES(dot_panel_6, 6, 1)
DEFINE_DOT_VALUES(dot_panel_4, 4, 1)
DEFINE_DOT_VALUES(dot_panel_2, 2, 1)
DEFINE_DOT_VALUES(dot_panel_1, 1, 1)

static int dot_tiles(int rows) {
  int tiles = 0;
  for (int r = 0; r < rows; r += direct_rows(rows - r)) tiles++;
  return tiles;
}

// Scores of all rows, 16 keys at a time: those stay in L1 while the rows pass by.
static void dot_scores(work_t *w, int rows, int n, int next) {
  typedef void (*tile_fn)(float *, const uint16_t *, const void *const *, int, const void *const *);
  static const tile_fn tile[7] = {
      [1] = dot_scores_1, [2] = dot_scores_2, [4] = dot_scores_4, [6] = dot_scores_6};
  enum { PLACES = CHUNK_KEYS / TILE_KEYS * DOT_FETCH };
  const int tiles = dot_tiles(rows), left = next - w->fetched;
  spread(w->fetch, (n + CHUNK_KEYS - 1) / CHUNK_KEYS * tiles * PLACES, w->next + w->fetched,
         tiles == 1 ? left / 2 : left, w->q);
  pad_keys(w->key, n);
  const void *const *fetch = w->fetch;
  for (int at = 0; at < n; at += CHUNK_KEYS)
    for (int r = 0, mr; r < rows; r += mr, fetch += PLACES) {
      mr = direct_rows(rows - r);
      const int most = w->keys[r + mr - 1] - at;
      tile[mr](w->s + r * BLOCK + at, (const uint16_t *)w->q + r * QD_LD, w->key + at,
               most < CHUNK_KEYS ? most : CHUNK_KEYS, fetch);
    }
}

// What one strip of the values needs, whatever rows come by.
typedef struct {
  const uint16_t *panel;  // null if the keys are read as they lie
  int column;
  const void *const *fetch;
  int offset;
} dot_strip_t;

// The keys that row i sees beyond the first `pairs` pairs of the block, so that no row meets a key
// that is not its own.
static void dot_rest(work_t *w, int i, int pairs, const dot_strip_t *t) {
  static const float keep = 1.0f;
  const int n = w->keys[i];
  float *o = w->o + i * O_LD + t->column;
  const uint16_t *p = (const uint16_t *)(w->s + i * BLOCK);
  const void *const *fetch = w->value;
  if (n / 2 > pairs) dot_values_1(o, &keep, p, w->value, t->column, pairs, n / 2, fetch, 0);
  if (n % 2 == 0) return;
  const void *last[2] = {w->value[n - 1], zero_key};
  dot_values_1(o, &keep, p + n - 1, last, t->column, 0, 1, last, 0);
}

static void dot_strip(work_t *w, int rows, int n, const dot_strip_t *t) {
  typedef void (*tile_fn)(float *, const float *, const uint16_t *, const void *, int, int, int,
                          const void *const *, int);
  static const tile_fn tile[2][7] = {
      {[1] = dot_values_1, [2] = dot_values_2, [4] = dot_values_4, [6] = dot_values_6},
      {[1] = dot_panel_1, [2] = dot_panel_2, [4] = dot_panel_4, [6] = dot_panel_6}};
  const int panel = t->panel != NULL;
  for (int r = 0, mr; r < rows; r += mr) {
    mr = direct_rows(rows - r);
    if (w->keys[r + mr - 1] == 0) continue;
    // Later rows see more keys; if the first sees all, so do the others.
    const int all = w->keys[r] == n, pairs = all ? (n + 1) / 2 : w->keys[r] / 2;
    tile[panel][mr](w->o + r * O_LD + t->column, w->alpha + r, (const uint16_t *)(w->s + r * BLOCK),
                    panel ? (const void *)t->panel : w->value, t->column, 0, pairs, t->fetch,
                    t->offset);
    if (all) continue;
    for (int i = r; i < r + mr; i++) dot_rest(w, i, pairs, t);
  }
}

static void dot_values(work_t *w, int rows, int n, int next) {
  enum { HALF_KEY = KEY_BYTES / 2 };
  const int panel = rows > DOT_DIRECT_ROWS, single = dot_tiles(rows) == 1;
  const int half = single ? w->fetched + (next - w->fetched) / 2 : next;
  for (int j = 0; j < n; j++)
    w->fetch[j] = half + j / 2 < next ? (const char *)w->next[half + j / 2] + j % 2 * HALF_KEY
                                      : w->value[j];
  w->fetch[n] = w->value[0];
  if (n % 2) w->value[n] = zero_key;
  uint16_t *pairs = (uint16_t *)w->panel;
  for (int column = 0, s = 0; column < DV; column += DOT_STRIP, s++) {
    if (panel)
      for (int i = 0; i < (n + 1) / 2; i++)
        for (int c = 0; c < DOT_VECS; c += 2) {
          vbf x[2];
          interleave(x, (const uint16_t *)w->value[2 * i] + column + c * OI_VF,
                     (const uint16_t *)w->value[2 * i + 1] + column + c * OI_VF);
          memcpy(pairs + (i * DOT_VECS + c) * PAIR, x, sizeof x);
        }
    const dot_strip_t t = {panel ? pairs : NULL, column, w->fetch,
                           (int)oi_min(s * 64, HALF_KEY - 64)};
    dot_strip(w, rows, n, &t);
  }
}
#endif
