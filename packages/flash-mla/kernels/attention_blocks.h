// One block of keys against all rows of an item: softmax, and the loops over register tiles. What
// the keys are and where they come from is not known here; see attention.c and sparse.c.
#pragma once
#include "attention_join.h"
#include "attention_tiles.h"

#define MAX_ROWS 80         // rows of an item, at most, in whole vectors
#define MAX_TILES 16        // tiles they may be divided into
#define DIRECT_ROWS 18      // up to so many rows read the keys as they lie instead of a float panel
#define STRIP (TILE_VECS * OI_VF)
// A decoded key: an odd number of cache lines.
#define STAGE_LD ((int)(((D * sizeof(kv_t) + 63) / 64 | 1) * 64 / sizeof(kv_t)))

// This thread's scratch.
typedef struct {
  float *q;         // [rows][Q_LD]
  float *s;         // [rows][BLOCK] scores, then probabilities
  float *o, *acc;   // [rows][O_LD] this split's sums, all splits' so far
  float *panel;     // keys [PANEL_KEYS][Q_LD], then strips of values [BLOCK][STRIP], as floats
  kv_t *stage;      // keys of a block that are not read as they lie [BLOCK][STAGE_LD]
  float max[MAX_ROWS], sum[MAX_ROWS], acc_max[MAX_ROWS], acc_sum[MAX_ROWS], alpha[MAX_ROWS],
      now[MAX_ROWS];
  int32_t visible[MAX_ROWS], keys[MAX_ROWS];
  const void *key[BLOCK], *value[BLOCK], *next[BLOCK];
  int fetched;  // so many of the next keys have been fetched while this block's were decoded
  const void *fetch[MAX_TILES * BLOCK];  // rows of the next block, by the tile that asks for them
} work_t;

// Scores to probabilities in place, for the keys that each row sees of a block, and the running
// maximum and sum. alpha becomes the factor that brings earlier sums to the new maximum; a row that
// sees no key of the block keeps all. In three passes, so that the rows' latencies overlap.
ONE_COPY void softmax_rows(work_t *w, int rows, float scale) {
  for (int r = 0; r < rows; r++) {
    float *s = w->s + r * BLOCK;
    const int n = w->keys[r], np = (n + OI_VF - 1) / OI_VF * OI_VF;
    vf top = vf_set(w->max[r]);
    for (int j = 0; j < np; j += OI_VF) vf_store(s + j, vf_load(s + j) * scale);
    for (int j = n; j < np; j++) s[j] = -INFINITY;
    for (int j = 0; j < np; j += OI_VF) top = vf_max(top, vf_load(s + j));
    w->now[r] = all_max(top)[0];
  }
  for (int r = 0; r < rows; r += OI_VF) {
    vf now = vf_load(w->now + r);
    vf_store(w->alpha + r, exp_nonpositive(vf_load(w->max + r) - now));
    vf_store(w->max + r, now);
  }
  for (int r = 0; r < rows; r++) {
    float *s = w->s + r * BLOCK;
    vf total = vf_zero();
    for (int j = 0; j < w->keys[r]; j += OI_VF) {
      vf e = exp_nonpositive(vf_load(s + j) - w->now[r]);
      vf_store(s + j, e);
      total += e;
    }
    w->sum[r] = w->sum[r] * w->alpha[r] + all_sum(total)[0];
  }
}

typedef void (*scores_fn)(float *s, const float *q, const void *const *key, int n,
                          const void *const *fetch);
typedef void (*values_fn)(float *o, const float *alpha, const float *p, const void *const *value,
                          int column, int j0, int j1, const void *const *fetch, int offset);

// How many of `left` rows the next tile takes: an even number becomes sixes and fours.
static inline int tile_rows(int left) { return left < 4 ? 1 : left % 6 < 2 ? 6 : 4; }
static inline int direct_rows(int left) { return left >= 4 ? tile_rows(left) : left >= 2 ? 2 : 1; }

// Shares `asked` rows out among the `total` places of a list; a place without one is given a row
// that is at hand anyway.
static void spread(const void **fetch, int total, const void *const *row, int asked,
                   const void *idle) {
  if (asked > total) asked = total;
  for (int i = 0; i < total; i++) fetch[i] = idle;
  for (int i = 0; i < asked; i++) fetch[i * total / asked] = row[i];
}

// Repeats the last of n keys up to a whole tile; the scores of the copies are not used.
static inline void pad_keys(const void **key, int n) {
  for (int j = n; j % TILE_KEYS; j++) key[j] = key[n - 1];
}

static int count_tiles(int rows) {
  int tiles = 0;
  for (int r = 0; r < rows; r += tile_rows(rows - r)) tiles++;
  return tiles;
}

// Scores of all rows against the block's n keys. A few keys are widened at a time, and the few
// after them, the next block's first for the last ones, are fetched into L1 meanwhile.
static void panel_scores(work_t *w, int rows, int n, int next) {
  static const scores_fn tile[7] = {
      [1] = scores_panel_1, [4] = scores_panel_4, [6] = scores_panel_6};
  enum { PLACES = PANEL_KEYS / TILE_KEYS * FETCH_PANEL };
  const void *key[PANEL_KEYS];
  const int places = count_tiles(rows) * PLACES;
  for (int at = 0; at < n; at += PANEL_KEYS) {
    const int here = n - at < PANEL_KEYS ? n - at : PANEL_KEYS, then = at + PANEL_KEYS;
    for (int j = 0; j < here; j++) {
      widen_kv(w->panel + j * Q_LD, w->key[at + j], D, DP);
      key[j] = w->panel + j * Q_LD;
    }
    pad_keys(key, here);
    if (then < n)
      spread(w->fetch, places, w->key + then, n - then < PANEL_KEYS ? n - then : PANEL_KEYS, w->q);
    else spread(w->fetch, places, w->next, next < PANEL_KEYS ? next : PANEL_KEYS, w->q);
    const void *const *fetch = w->fetch;
    for (int r = 0, mr; r < rows; r += mr, fetch += PLACES) {
      mr = tile_rows(rows - r);
      const int most = w->keys[r + mr - 1] - at;
      tile[mr](w->s + r * BLOCK + at, w->q + r * Q_LD, key, most < here ? most : here, fetch);
    }
  }
}

// A strip of the values: where it is read, where it is written, what is fetched meanwhile.
typedef struct {
  const void *const *value;
  int source, column;
  const void *const *fetch;
  int offset;
} strip_t;

// Adds keys j0 to j1 of the block to a tile of rows from row r on.
static inline void add_strip(work_t *w, values_fn tile, int r, const float *alpha, const strip_t *t,
                             int j0, int j1) {
  tile(w->o + r * O_LD + t->column, alpha, w->s + r * BLOCK, t->value, t->source, j0, j1, t->fetch,
       t->offset);
}

// Rows of a tile may see different numbers of keys. The tile takes those that its first row sees;
// the rest come row by row here, so that no row meets a key that is not its own.
static void rest_values(work_t *w, values_fn one, int r, int mr, const strip_t *t) {
  static const float keep = 1.0f;
  for (int i = r + 1; i < r + mr; i++)
    if (w->keys[i] > w->keys[r]) add_strip(w, one, i, &keep, t, w->keys[r], w->keys[i]);
}

// One strip of the values for all rows, from a panel of floats that stays in L1. The next strip is
// fetched meanwhile, one of its lines a row tile.
INLINE void panel_strip(work_t *w, int rows, int n, const values_fn *tile, int column, int width) {
  enum { LINES = (STRIP * sizeof(kv_t) + 63) / 64 };
  const void *value[BLOCK];
  const int real = DV - column < width ? DV - column : width;
  for (int j = 0; j < n; j++) {
    widen_kv(w->panel + j * width, (const kv_t *)w->value[j] + column, real, width);
    value[j] = w->panel + j * width;
  }
  const int ahead = (column + width < DV ? column + width : 0) * (int)sizeof(kv_t);
  for (int r = 0, mr, line = 0; r < rows; r += mr, line++) {
    mr = tile_rows(rows - r);
    if (tile[mr] == NULL) mr = 1;
    if (w->keys[r + mr - 1] == 0) continue;
    const strip_t t = {value, 0, column, w->value, ahead + line % LINES * 64};
    add_strip(w, tile[mr], r, w->alpha + r, &t, 0, w->keys[r]);
    rest_values(w, tile[1], r, mr, &t);
  }
}

static void panel_values(work_t *w, int rows, int n) {
  static const values_fn whole[7] = {
      [1] = values_panel_1, [4] = values_panel_4, [6] = values_panel_6};
  int column = 0;
  for (; column + STRIP <= DVP; column += STRIP) panel_strip(w, rows, n, whole, column, STRIP);
#if NARROW_VECS
  static const values_fn narrow[7] = {[1] = values_narrow_1, [6] = values_narrow_6};
  for (; column < DVP; column += NARROW_VECS * OI_VF)
    panel_strip(w, rows, n, narrow, column, NARROW_VECS * OI_VF);
#endif
}

#if CAN_READ_DIRECT
static int direct_tiles(int rows) {
  int tiles = 0;
  for (int r = 0; r < rows; r += direct_rows(rows - r)) tiles++;
  return tiles;
}

// The same for a few rows, which read the cache itself. The next block is fetched into L2 with the
// scores; where there is but one row tile, half of it with the values.
static void direct_scores(work_t *w, int rows, int n, int next) {
  static const scores_fn tile[7] = {
      [1] = scores_direct_1, [2] = scores_direct_2, [4] = scores_direct_4, [6] = scores_direct_6};
  const int places = (n + TILE_KEYS - 1) / TILE_KEYS * FETCH_DIRECT;
  const int tiles = direct_tiles(rows);
  const int left = next - w->fetched;
  spread(w->fetch, tiles * places, w->next + w->fetched, tiles == 1 ? left / 2 : left, w->q);
  pad_keys(w->key, n);
  const void *const *fetch = w->fetch;
  for (int r = 0, mr; r < rows; r += mr, fetch += places) {
    mr = direct_rows(rows - r);
    tile[mr](w->s + r * BLOCK, w->q + r * Q_LD, w->key, w->keys[r + mr - 1], fetch);
  }
}

static void direct_values(work_t *w, int rows, int n, int next) {
  enum { HALF_KEY = KEY_BYTES / 2 };
  static const values_fn tile[7] = {
      [1] = values_direct_1, [2] = values_direct_2, [4] = values_direct_4, [6] = values_direct_6};
  static const int step[7] = {
      [1] = STRIP_1 * OI_VF, [2] = STRIP_2 * OI_VF, [4] = STRIP_4 * OI_VF, [6] = STRIP_6 * OI_VF};
  const int half = direct_tiles(rows) == 1 ? w->fetched + (next - w->fetched) / 2 : next;
  for (int j = 0; j < n; j++)
    w->fetch[j] = half + j / 2 < next ? (const char *)w->next[half + j / 2] + j % 2 * HALF_KEY
                                      : w->value[j];
  strip_t t = {.value = w->value, .fetch = w->fetch};
  for (int r = 0, mr; r < rows; r += mr) {
    mr = direct_rows(rows - r);
    if (w->keys[r + mr - 1] == 0) continue;
    for (int column = 0, s = 0; column < DV; column += step[mr], s++) {
      // Each half of a key has as many lines as there are strips, or fewer.
      t.source = t.column = column;
      t.offset = (int)oi_min(s * (mr == 1 ? 128 : 64), HALF_KEY - 64);
      add_strip(w, tile[mr], r, w->alpha + r, &t, 0, w->keys[r]);
    }
    for (int column = 0; column < DV; column += step[1]) {
      t.source = t.column = column, t.offset = 0;
      rest_values(w, tile[1], r, mr, &t);
    }
  }
}
#endif
