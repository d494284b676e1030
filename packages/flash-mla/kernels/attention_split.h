// An item from its queries to its results, the same for every source of keys: its splits in order,
// partial results of splits that several threads share, and the finished row. A split is computed
// by matrix tiles (attention_amx.h) or by vectors (attention_vectors.h).
#pragma once
#include "attention_keys.h"
#if AMX
#include "attention_amx.h"
#else
#include "attention_vectors.h"
#endif

// What a source of keys provides: the queries of an item, and how many keys each of its rows sees
// (w->visible); the keys of a split, where the item's rows see the first `end` keys at most; and
// where the results of a row go.
static void load_queries(const params_t *p, const item_t *item, work_t *w);
static void split_keys(const params_t *p, const item_t *item, int64_t end, int split, keys_t *keys);

// Where a row's results go; null for what is not wanted.
typedef struct {
  void *out;
  float *lse, *max_logit, *prefix_lse;
  const float *sink;
} row_out_t;
static row_out_t row_out(const params_t *p, const item_t *item, int64_t row);

// A source of keys may want the logarithm over a row's first splits as well: so many of an item's
// splits belong to them.
#ifndef PREFIX_SPLITS
#define PREFIX_SPLITS(p) 0
#endif
static inline int prefix_end(const params_t *p, const item_t *item) {
  (void)p;
  return (int)oi_min(PREFIX_SPLITS(p), item->split_end);
}

// Divides by the sum, sink included, and writes the row. A row without keys is 0, its lse +inf.
ONE_COPY void write_row(const params_t *p, const row_out_t *to, const float *acc, float max,
                        float sum) {
  const double lse = sum == 0 ? INFINITY : (double)max * MAX_UNIT + log((double)sum);
  float factor = sum == 0 ? 0 : 1.0f / sum;
  if (sum != 0 && to->sink != NULL) factor *= (float)(1.0 / (1.0 + exp((double)*to->sink - lse)));
  if (factor == 0) memset(to->out, 0, DV * type_bytes(p->out_type));
  else narrow_output(to->out, acc, factor, (int)p->out_type);
  if (to->lse != NULL) *to->lse = (float)(lse * p->lse_scale);
  if (to->max_logit != NULL) *to->max_logit = sum == 0 ? -INFINITY : (float)(max * MAX_UNIT);
}

// Writes the logarithm over the first keys of a row.
static void write_prefix(const params_t *p, const row_out_t *to, float max, float sum) {
  if (to->prefix_lse == NULL) return;
  const double lse = sum == 0 ? INFINITY : (double)max * MAX_UNIT + log((double)sum);
  *to->prefix_lse = (float)(lse * p->lse_scale);
}

// Joins row r of a unit whose splits were computed apart: its sums in w->acc, statistics returned.
static void merge_splits(const params_t *p, const item_t *unit, const row_out_t *to, int r,
                         work_t *w, float *max, float *sum) {
  const int rows = unit->row_end - unit->row_begin, prefix = prefix_end(p, unit);
  *max = NO_SCORE, *sum = 0;
  for (int split = 0; split < unit->split_end; split++) {
    const int64_t at = unit->slot + (int64_t)split * rows + r;
    const float *stats = partial_stats(p, at);
    if (split == 0 || stats[1] != 0) {
      memset(w->o, 0, O_LD * 4);
      memcpy(w->o, partial_out(p, at), DV * 4);
    }
    if (split == 0) {
      float *swap = w->acc;
      w->acc = w->o, w->o = swap;
      *max = stats[0], *sum = stats[1];
    } else if (stats[1] != 0) {
      merge_row(w->acc, max, sum, w->o, stats[0], stats[1]);
    }
    if (split + 1 == prefix) write_prefix(p, to, *max, *sum);
  }
}

static void run_item(const params_t *p, const item_t *item, work_t *w) {
  const int rows = item->row_end - item->row_begin;
  keys_t lists[2], *keys = &lists[0], *then = &lists[1];
  load_queries(p, item, w);
  const int64_t end = w->visible[rows - 1];
  const int prefix = item->slot < 0 ? prefix_end(p, item) : 0;
  no_scores(w->acc_max, w->acc_sum, rows);
  split_keys(p, item, end, item->split_begin, keys);
  for (int split = item->split_begin; split < item->split_end; split++) {
    then->count = 0;
    if (split + 1 < item->split_end) split_keys(p, item, end, split + 1, then);
    attend_split(p, item, w, split, keys, then);
    keys_t *swap = keys;
    keys = then, then = swap;
    if (split + 1 != prefix) continue;
    for (int r = 0; r < rows; r++) {
      const row_out_t to = row_out(p, item, item->row_begin + r);
      write_prefix(p, &to, w->acc_max[r], w->acc_sum[r]);
    }
  }
  if (item->slot >= 0) return;
  for (int r = 0; r < rows; r++) {
    const row_out_t to = row_out(p, item, item->row_begin + r);
    if (item->split_end == 0) write_prefix(p, &to, NO_SCORE, 0);
    write_row(p, &to, w->acc + r * O_LD, w->acc_max[r], w->acc_sum[r]);
  }
}

static void finish_unit_row(const params_t *p, const item_t *unit, int r, work_t *w) {
  float max, sum;
  const row_out_t to = row_out(p, unit, unit->row_begin + r);
  merge_splits(p, unit, &to, r, w, &max, &sum);
  write_row(p, &to, w->acc, max, sum);
}

// A launch: items to whoever is free, then the rows of the units that were cut up.
static void run_items(const params_t *p, oi_ctx *ctx, work_t *w) {
  const item_t *items = p->items, *merges = p->merges;
  for (int64_t i; (i = oi_take(ctx, 1)) < p->item_count;) run_item(p, &items[i], w);
  if (p->merge_count == 0) return;
  oi_barrier(ctx);
  int64_t turn = 0;
  for (int64_t m = 0; m < p->merge_count; m++)
    for (int r = 0; r < merges[m].row_end - merges[m].row_begin; r++)
      if (turn++ % ctx->nthreads == ctx->tid) finish_unit_row(p, &merges[m], r, w);
}

static void run(const params_t *p, oi_ctx *ctx) {
  work_t w;
  carve_scratch(p, &w, ctx->scratch);
#if AMX
  oi_tiles_begin();
#endif
  run_items(p, ctx, &w);
#if AMX
  oi_tiles_end();
#endif
}
