// What is done with splits, the same for every source of keys: one block's step, the joining of
// splits in order, partial results of splits that several threads share, and the finished row.
#pragma once
#include "attention_stage.h"

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

static inline void load_query(work_t *w, int row, const void *src, int type) {
#if DOT
  (void)type;
  copy_query(w, row, src);
#else
  widen_query(w->q + row * Q_LD, src, type);
#endif
}

static void begin_split(work_t *w, int rows) {
  memset(w->o, 0, (size_t)rows * O_LD * 4);
  for (int r = 0; r < rows; r++) w->max[r] = NO_SCORE, w->sum[r] = 0;
}

// Partials: first all rows' sums [partial_rows][DV], then all rows' (maximum, sum).
static inline float *partial_out(const params_t *p, int64_t row) {
  return (float *)p->partials + row * DV;
}
static inline float *partial_stats(const params_t *p, int64_t row) {
  return (float *)p->partials + p->partial_rows * DV + row * 2;
}

// Puts a computed split where it belongs: into its slot, or joined to the splits before it. A row
// without a key in the split has sum 0 and keeps what it had.
static void end_split(const params_t *p, const item_t *item, work_t *w, int split) {
  const int rows = item->row_end - item->row_begin;
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

// Joins row r of a unit whose splits were computed apart: its sums in w->acc, statistics returned.
static void merge_splits(const params_t *p, const item_t *unit, int r, work_t *w, float *max,
                         float *sum) {
  const int rows = unit->row_end - unit->row_begin;
  *max = NO_SCORE, *sum = 0;
  for (int split = 0; split < unit->split_end; split++) {
    const int64_t at = unit->slot + (int64_t)split * rows + r;
    const float *stats = partial_stats(p, at);
    if (split > 0 && stats[1] == 0) continue;
    memset(w->o, 0, O_LD * 4);
    memcpy(w->o, partial_out(p, at), DV * 4);
    if (split == 0) {
      float *swap = w->acc;
      w->acc = w->o, w->o = swap;
      *max = stats[0], *sum = stats[1];
    } else {
      merge_row(w->acc, max, sum, w->o, stats[0], stats[1]);
    }
  }
}

// Where a row's results go; null for what is not wanted.
typedef struct {
  void *out;
  float *lse, *max_logit;
  const float *sink;
} row_out_t;

// Divides by the sum, sink included, and writes the row. A row without keys is 0, its lse +inf.
ONE_COPY void write_row(const params_t *p, const row_out_t *to, const float *acc, float max,
                        float sum) {
  const double lse = sum == 0 ? INFINITY : (double)max + log((double)sum);
  float factor = sum == 0 ? 0 : 1.0f / sum;
  if (sum != 0 && to->sink != NULL) factor *= (float)(1.0 / (1.0 + exp((double)*to->sink - lse)));
  if (factor == 0) memset(to->out, 0, DV * type_bytes(p->out_type));
  else narrow_output(to->out, acc, factor, (int)p->out_type);
  if (to->lse != NULL) *to->lse = (float)(lse * p->lse_scale);
  if (to->max_logit != NULL) *to->max_logit = sum == 0 ? -INFINITY : max;
}

static float *carve(char **at, size_t bytes) {
  float *here = (float *)*at;
  *at += (bytes + 63) / 64 * 64;
  return here;
}

// Lays out a thread's scratch; src/scratch.ts counts the same. Returns what is left.
static char *carve_scratch(const params_t *p, work_t *w, char *at, int staged) {
  const size_t rows = (size_t)p->row_tile;
  w->q = carve(&at, rows * Q_LD * 4);
  w->s = carve(&at, rows * BLOCK * 4);
  w->o = carve(&at, rows * O_LD * 4);
  w->acc = carve(&at, rows * O_LD * 4);
  const int keys = PANEL_KEYS * Q_LD, values = BLOCK * STRIP;
  w->panel = carve(&at, 4 * (size_t)(keys > values ? keys : values));
  w->stage = staged ? (kv_t *)carve(&at, sizeof(kv_t) * BLOCK * STAGE_LD) : NULL;
  return at;
}

// The loop of a launch: items to whoever is free, then the rows of the units that were cut up.
#define RUN_ITEMS(p, ctx, w, run_item, finish_unit_row)                                 \
  do {                                                                                  \
    const item_t *items = p->items, *merges = p->merges;                                \
    for (int64_t i; (i = oi_take(ctx, 1)) < p->item_count;) run_item(p, &items[i], &w); \
    if (p->merge_count == 0) return;                                                    \
    oi_barrier(ctx);                                                                    \
    int64_t turn = 0;                                                                   \
    for (int64_t m = 0; m < p->merge_count; m++)                                        \
      for (int r = 0; r < merges[m].row_end - merges[m].row_begin; r++)                 \
        if (turn++ % ctx->nthreads == ctx->tid) finish_unit_row(p, &merges[m], r, &w);  \
  } while (0)
