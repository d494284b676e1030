// A split by vectors: its keys 64 at a time, each time scores, softmax and values of all rows.
#pragma once
#include "attention_dot.h"

// One online-softmax step over the n keys in w->key. `next` rows of w->next are fetched meanwhile.
static void run_block(work_t *w, int rows, int n, int next, float scale) {
#if DOT
  dot_scores(w, rows, n, next);
  softmax_rows(w, rows, scale);
  narrow_probabilities(w, rows);
  dot_values(w, rows, n, next);
#else
#if CAN_READ_DIRECT
  if (rows <= DIRECT_ROWS) {
    direct_scores(w, rows, n, next);
    softmax_rows(w, rows, scale);
    direct_values(w, rows, n, next);
    return;
  }
#endif
  panel_scores(w, rows, n, next);
  softmax_rows(w, rows, scale);
  panel_values(w, rows, n);
#endif
}

// A query row as floats in the channel order of the scratch, zeros up to DP.
static inline void widen_query(float *dst, const void *src, int type) {
  int i = 0;
  if (SPLIT_PAIRS) {
    for (; i < D; i += PAIR)
      for (int c = 0; c < OI_VF; c++) {
        dst[i + c] = scalar_of(src, type, i + 2 * c);
        dst[i + c + OI_VF] = scalar_of(src, type, i + 2 * c + 1);
      }
  }
  for (; i < D; i++) dst[i] = scalar_of(src, type, i);
  for (; i < DP; i++) dst[i] = 0;
}

// Query `row` of an item of `rows`.
static inline void load_query(work_t *w, int row, int rows, const void *src, int type) {
  (void)rows;
#if DOT
  (void)type;
  copy_query(w, row, src);
#else
  widen_query(w->q + row * Q_LD, src, type);
#endif
}

// Makes w->key name n rows of kv_t, from key `at` of a split in a cache of a compile-time type: the
// keys themselves where they are kv_t, else decoded copies.
INLINE void stage_block(work_t *w, int type, const keys_t *keys, int at, int n, int next) {
  w->fetched = 0;
  if (type == KV_TYPE) {
    memcpy(w->key, keys->row + at, sizeof w->key[0] * (size_t)n);
    return;
  }
  // A third of the next keys is fetched here, a third of a key at a time.
  enum { LINES = (KEY_BYTES + 63) / 64, THIRD = (LINES + 2) / 3 };
  w->fetched = n == BLOCK ? next / 3 : 0;
  for (int j = 0; j < n; j++) {
    if (j / 3 < w->fetched)
      for (int i = j % 3 * THIRD; i < (j % 3 + 1) * THIRD && i < LINES; i++)
        __builtin_prefetch((const char *)w->next[j / 3] + i * 64, 0, 2);
    kv_t *dst = w->stage + j * STAGE_LD;
    stage_split_key(dst, type, keys, at + j);
    w->key[j] = dst;
  }
}

// Online softmax over the keys of one split, key `first` of the row and on. `then` come after them.
static void run_split(const params_t *p, work_t *w, int rows, int64_t first, const keys_t *keys,
                      const keys_t *then) {
  memset(w->o, 0, (size_t)rows * O_LD * 4);
  no_scores(w->max, w->sum, rows);
  for (int at = 0; at < keys->count; at += BLOCK) {
    const int n = (int)oi_min(BLOCK, keys->count - at);
    const keys_t *after = at + BLOCK < keys->count ? keys : then;
    const int from = after == keys ? at + BLOCK : 0;
    const int next = (int)oi_min(BLOCK, after->count - from);
    memcpy(w->next, after->row + from, sizeof w->next[0] * (size_t)next);
    if (EXTRA_FORMAT >= 0 && keys->extra) stage_block(w, EXTRA_FORMAT, keys, at, n, next);
    else stage_block(w, KV_FORMAT, keys, at, n, next);
    memcpy(w->value, w->key, sizeof w->key);
    for (int r = 0; r < rows; r++)
      w->keys[r] = (int32_t)oi_max(0, oi_min(n, w->visible[r] - first - at));
    run_block(w, rows, n, next, (float)p->scale);
  }
}

// Computes a split and puts it where it belongs: into its slot, or joined to the splits before it.
// A row without a key in the split has sum 0 and keeps what it had.
static void attend_split(const params_t *p, const item_t *item, work_t *w, int split,
                         const keys_t *keys, const keys_t *then) {
  const int rows = item->row_end - item->row_begin;
  run_split(p, w, rows, (int64_t)split * SPLIT_KEYS, keys, then);
  if (item->slot >= 0) {
    int64_t slot = item->slot + (int64_t)(split - item->split_begin) * rows;
    for (int r = 0; r < rows; r++) {
      memcpy(partial_out(p, slot + r), w->o + r * O_LD, DV * 4);
      partial_stats(p, slot + r)[0] = w->max[r];
      partial_stats(p, slot + r)[1] = w->sum[r];
    }
  } else if (split == 0) {
    float *swap = w->acc;
    w->acc = w->o, w->o = swap;
    memcpy(w->acc_max, w->max, sizeof w->max);
    memcpy(w->acc_sum, w->sum, sizeof w->sum);
  } else {
    for (int r = 0; r < rows; r++)
      if (w->sum[r] != 0)
        merge_row(w->acc + r * O_LD, &w->acc_max[r], &w->acc_sum[r], w->o + r * O_LD, w->max[r],
                  w->sum[r]);
  }
}

// Lays out a thread's scratch; scratchBytes of src/workspace.ts counts the same.
static void carve_scratch(const params_t *p, work_t *w, char *at) {
  const size_t rows = (size_t)p->row_tile;
  w->q = carve(&at, rows * Q_LD * 4);
  w->s = carve(&at, rows * BLOCK * 4);
  w->o = carve(&at, rows * O_LD * 4);
  w->acc = carve(&at, rows * O_LD * 4);
  const int keys = PANEL_KEYS * Q_LD, values = BLOCK * STRIP;
  w->panel = carve(&at, 4 * (size_t)(keys > values ? keys : values));
  const int staged = STAGED(KV_FORMAT) || STAGED(EXTRA_FORMAT);
  w->stage = staged ? (kv_t *)carve(&at, sizeof(kv_t) * BLOCK * STAGE_LD) : NULL;
}
