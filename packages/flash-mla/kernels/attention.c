// Attention over paged or packed keys: online softmax over 64-key blocks inside splits of fixed
// length, splits combined in order. Rows (token × head of one key head) are grouped into items that
// share each load of the keys; grouping, and who computes which split, changes no row's arithmetic.
//
// Not here: which items there are (src/plan.ts), checks of any argument (src/decode.ts, src/mha.ts).
//
// Constants: D, DV channels of a key and a value; KV_TYPE 0 f32, 1 bf16, 2 f16; SEPARATE_V 1 where
// values are a tensor of their own, packed, instead of the first DV channels of paged keys.
#include <math.h>
#include "attention_tiles.h"

#define NO_SCORE (-1e30f)   // where the running maximum starts, so that no inf − inf appears
#define MAX_TILES 11        // row tiles of 64 rows, the most an item may have
#define DIRECT_ROWS 4       // up to so many rows read the cache itself instead of a float panel

typedef struct {
  int32_t request, kv_head, row_begin, row_end, split_begin, split_end, slot, unused;
} item_t;

// This thread's scratch.
typedef struct {
  float *q;         // [rows][Q_LD]
  float *s;         // [rows][BLOCK] scores, then probabilities
  float *o, *acc;   // [rows][O_LD] this split's sums, all splits' so far
  float *k, *v;     // [BLOCK] rows of the block's keys and values as floats
  float max[64], sum[64], acc_max[64], acc_sum[64], alpha[64];
  int32_t visible[64], keys[64];
  const void *key[BLOCK], *value[BLOCK], *next[BLOCK];
  const void *fetch[MAX_TILES * BLOCK];  // rows of the next block, by the tile that asks for them
} work_t;

static inline int64_t query_start(const params_t *p, int r) {
  return p->cu_q ? ((const int32_t *)p->cu_q)[r] : 0;
}

static inline int64_t query_count(const params_t *p, int r) {
  const int32_t *cu = p->cu_q;
  return cu ? cu[r + 1] - cu[r] : p->tokens;
}

static inline int64_t key_count(const params_t *p, int r) {
  const int32_t *cu = p->cu_k;
  return cu ? cu[r + 1] - cu[r] : ((const int32_t *)p->context)[r];
}

static inline size_t type_bytes(int64_t type) { return type == TYPE_F32 ? 4 : 2; }

// Addresses of keys `from` to `from + n` of a request.
static void key_addresses(const params_t *p, int r, int kv_head, int64_t from, int n, const void **key) {
  const kv_t *base = (const kv_t *)p->k + kv_head * p->k_head;
  if (SEPARATE_V) {
    int64_t start = ((const int32_t *)p->cu_k)[r] + from;
    for (int j = 0; j < n; j++) key[j] = base + (start + j) * p->k_token;
    return;
  }
  const int32_t *table = (const int32_t *)p->table + r * p->table_columns;
  int64_t block = from / p->page, offset = from % p->page;
  for (int j = 0; j < n; block++, offset = 0) {
    const kv_t *row = base + table[block] * p->k_block + offset * p->k_token;
    for (; offset < p->page && j < n; offset++, j++, row += p->k_token) key[j] = row;
  }
}

static void value_addresses(const params_t *p, int r, int kv_head, int64_t from, int n, const void **value) {
  const kv_t *base = (const kv_t *)p->v + kv_head * p->v_head;
  int64_t start = ((const int32_t *)p->cu_k)[r] + from;
  for (int j = 0; j < n; j++) value[j] = base + (start + j) * p->v_token;
}

// Scores to probabilities in place, for the n keys this row sees of a block; the rest becomes 0.
// Returns the factor that brings earlier sums to the new maximum.
ONE_COPY float softmax_row(float *s, int n, float scale, float *max, float *sum) {
  int np = (n + OI_VF - 1) / OI_VF * OI_VF;
  for (int j = 0; j < np; j += OI_VF) vf_store(s + j, vf_load(s + j) * scale);
  for (int j = n; j < np; j++) s[j] = -INFINITY;
  vf top = vf_set(*max);
  for (int j = 0; j < np; j += OI_VF) top = vf_max(top, vf_load(s + j));
  float now = vf_hmax(top);
  vf total = vf_zero();
  for (int j = 0; j < np; j += OI_VF) {
    vf e = vf_exp(vf_load(s + j) - now);
    vf_store(s + j, e);
    total += e;
  }
  float alpha = vf_exp(vf_set(*max - now))[0];
  *sum = *sum * alpha + vf_sum(total);
  *max = now;
  return alpha;
}

// Adds the result of a later split to what was there.
ONE_COPY void merge_row(float *acc, float *acc_max, float *acc_sum, const float *o, float max, float sum) {
  float top = *acc_max > max ? *acc_max : max;
  float a = vf_exp(vf_set(*acc_max - top))[0], b = vf_exp(vf_set(max - top))[0];
  for (int i = 0; i < DVP; i += OI_VF) {
    vf scaled = vf_load(acc + i) * a;
    ROUNDED(scaled);
    vf_store(acc + i, vf_fma(vf_load(o + i), vf_set(b), scaled));
  }
  float scaled = *acc_sum * a;
  *acc_sum = scaled + sum * b;
  *acc_max = top;
}

// Divides by the sum and writes the row and its natural-log lse; a row without keys is 0 and +inf.
ONE_COPY void finish_row(const params_t *p, const item_t *w, int row, const float *acc, float max, float sum) {
  int64_t token = query_start(p, w->request) + row / p->group;
  int64_t head = w->kv_head * p->group + row % p->group;
  char *out = (char *)p->out + (size_t)(w->request * p->out_request + token * p->out_token + head * p->out_head) *
                                   type_bytes(p->out_type);
  if (sum == 0) memset(out, 0, DV * type_bytes(p->out_type));
  else narrow_output(out, acc, 1.0f / sum, (int)p->out_type);
  if (p->lse)
    ((float *)p->lse)[w->request * p->lse_request + token * p->lse_token + head * p->lse_head] =
        sum == 0 ? INFINITY : (float)((double)max + log((double)sum));
}

typedef void (*scores_fn)(float *s, const float *q, const void *const *key, int n, const void *const *fetch);
typedef void (*values_fn)(float *o, const float *alpha, const float *p, const void *const *value, int column, int j0, int j1);

// How many of `left` rows the next tile takes.
static inline int tile_rows(int left) { return left >= 6 ? 6 : left >= 4 ? 4 : left >= 2 ? 2 : 1; }

// Shares the rows of the next block out among the tiles of this one; a tile without one is given a
// row that is at hand. Returns the places per row tile.
static int spread_fetches(work_t *w, int rows, int n, int next, int direct) {
  const int places = (n + TILE_KEYS - 1) / TILE_KEYS * (direct ? FETCH_DIRECT : FETCH_PANEL);
  int groups = 0;
  for (int r = 0; r < rows; r += tile_rows(rows - r)) groups++;
  const int total = places * groups, asked = next < total ? next : total;
  for (int i = 0; i < total; i++) w->fetch[i] = w->q;
  for (int i = 0; i < asked; i++) w->fetch[i * total / asked] = w->next[i];
  return places;
}

// Scores of all rows against the block's n keys; meanwhile the next block is fetched.
static void block_scores(work_t *w, int rows, int n, int next, int direct) {
  static const scores_fn panel[7] = {[1] = scores_panel_1, [2] = scores_panel_2, [4] = scores_panel_4, [6] = scores_panel_6};
#if CAN_READ_DIRECT
  static const scores_fn in_place[7] = {[1] = scores_direct_1, [2] = scores_direct_2, [4] = scores_direct_4};
#else
  static const scores_fn *const in_place = panel;
#endif
  const void *last = w->key[n - 1];
  for (int j = n; j % TILE_KEYS; j++) w->key[j] = last;
  const int places = spread_fetches(w, rows, n, next, direct);
  const void *const *fetch = w->fetch;
  for (int r = 0, mr; r < rows; r += mr, fetch += places) {
    mr = tile_rows(rows - r);
    (direct ? in_place : panel)[mr](w->s + r * BLOCK, w->q + r * Q_LD, w->key, w->keys[r + mr - 1], fetch);
  }
}

static const float keep_all = 1.0f;

// Adds keys j0 to j1 of the block to mr rows from row r on, in the strip at `column`.
static inline void add_strip(work_t *w, values_fn tile, int r, const float *alpha, int column, int j0, int j1) {
  tile(w->o + r * O_LD + column, alpha, w->s + r * BLOCK, w->value, column, j0, j1);
}

// Rows of a tile may see different numbers of keys. The tile takes those that its first row sees;
// the rest come row by row in rest_values, so that no row meets a key that is not its own.
static void rest_values(work_t *w, int r, int mr, values_fn one, int step, int from, int to) {
  for (int i = r + 1; i < r + mr; i++)
    for (int column = from; w->keys[i] > w->keys[r] && column + step <= to; column += step)
      add_strip(w, one, i, &keep_all, column, w->keys[r], w->keys[i]);
}

static void block_values(work_t *w, int rows) {
  static const values_fn panel[7] = {[1] = values_panel_1, [2] = values_panel_2, [4] = values_panel_4, [6] = values_panel_6};
  enum { STEP = TILE_VECS * OI_VF, WHOLE = DVP / STEP * STEP };
  for (int column = 0; column < WHOLE; column += STEP)
    for (int r = 0, mr; r < rows; r += mr) {
      mr = tile_rows(rows - r);
      if (w->keys[r + mr - 1] > 0) add_strip(w, panel[mr], r, w->alpha + r, column, 0, w->keys[r]);
    }
  for (int r = 0, mr; r < rows; r += mr) {
    mr = tile_rows(rows - r);
    rest_values(w, r, mr, values_panel_1, STEP, 0, WHOLE);
#ifdef NARROW_STRIP
    if (w->keys[r + mr - 1] == 0) continue;
    for (int column = WHOLE; column < DVP; column += OI_VF) {
      if (mr == 6) add_strip(w, values_narrow_6, r, w->alpha + r, column, 0, w->keys[r]);
      else
        for (int i = r; i < r + mr; i++) add_strip(w, values_narrow_1, i, w->alpha + i, column, 0, w->keys[r]);
    }
    rest_values(w, r, mr, values_narrow_1, OI_VF, WHOLE, DVP);
#endif
  }
}

#if CAN_READ_DIRECT
static void block_values_direct(work_t *w, int rows) {
  static const values_fn tile[5] = {[1] = values_direct_1, [2] = values_direct_2, [4] = values_direct_4};
  static const int step[5] = {[1] = STRIP_1 * OI_VF, [2] = STRIP_2 * OI_VF, [4] = STRIP_4 * OI_VF};
  for (int r = 0, mr; r < rows; r += mr) {
    mr = tile_rows(rows - r);
    if (w->keys[r + mr - 1] == 0) continue;
    for (int column = 0; column < DVP; column += step[mr])
      add_strip(w, tile[mr], r, w->alpha + r, column, 0, w->keys[r]);
    rest_values(w, r, mr, values_direct_1, step[1], 0, DVP);
  }
}
#endif

// The block's keys and values as float rows in scratch.
static void widen_block(work_t *w, int n) {
  for (int j = 0; j < n; j++) {
    float *k = w->k + j * Q_LD;
    widen_kv(k, w->key[j], D, DP);
    w->key[j] = k;
    if (SEPARATE_V) {
      float *v = w->v + j * O_LD;
      widen_kv(v, w->value[j], DV, DVP);
      w->value[j] = v;
    } else {
      w->value[j] = k;
    }
  }
}

// Online softmax over keys `from` to `to` of one split.
static void run_split(const params_t *p, const item_t *item, work_t *w, int64_t from, int64_t to, int64_t end) {
  const int rows = item->row_end - item->row_begin;
  const int direct = CAN_READ_DIRECT && rows <= DIRECT_ROWS;
  memset(w->o, 0, (size_t)rows * O_LD * 4);
  for (int r = 0; r < rows; r++) w->max[r] = NO_SCORE, w->sum[r] = 0;
  for (int64_t at = from; at < to; at += BLOCK) {
    const int n = (int)oi_min(BLOCK, to - at), next = (int)oi_max(0, oi_min(BLOCK, end - at - BLOCK));
    key_addresses(p, item->request, item->kv_head, at, n, w->key);
    key_addresses(p, item->request, item->kv_head, at + BLOCK, next, w->next);
    if (SEPARATE_V) value_addresses(p, item->request, item->kv_head, at, n, w->value);
    else if (direct) memcpy(w->value, w->key, sizeof w->key);
    if (!direct) widen_block(w, n);
    for (int r = 0; r < rows; r++) w->keys[r] = (int32_t)oi_max(0, oi_min(n, w->visible[r] - at));
    block_scores(w, rows, n, next, direct);
    for (int r = 0; r < rows; r++)
      w->alpha[r] = w->keys[r] == 0 ? 1.0f
                                    : softmax_row(w->s + r * BLOCK, w->keys[r], (float)p->scale, &w->max[r], &w->sum[r]);
#if CAN_READ_DIRECT
    if (direct) {
      block_values_direct(w, rows);
      continue;
    }
#endif
    block_values(w, rows);
  }
}

static void load_queries(const params_t *p, const item_t *item, work_t *w) {
  const int rows = item->row_end - item->row_begin;
  const int64_t keys = key_count(p, item->request), tokens = query_count(p, item->request);
  const int64_t start = query_start(p, item->request);
  for (int r = 0; r < rows; r++) {
    int64_t row = item->row_begin + r, token = row / p->group, head = item->kv_head * p->group + row % p->group;
    int64_t at = item->request * p->q_request + (start + token) * p->q_token + head * p->q_head;
    widen_query(w->q + r * Q_LD, (const char *)p->q + (size_t)at * type_bytes(p->q_type), (int)p->q_type);
    w->visible[r] = (int32_t)(p->causal ? oi_max(0, oi_min(keys, keys - tokens + token + 1)) : keys);
  }
}

// Partials: first all rows' sums [partial_rows][DV], then all rows' (maximum, sum).
static inline float *partial_out(const params_t *p, int64_t row) { return (float *)p->partials + row * DV; }
static inline float *partial_stats(const params_t *p, int64_t row) {
  return (float *)p->partials + p->partial_rows * DV + row * 2;
}

static void run_item(const params_t *p, const item_t *item, work_t *w) {
  const int rows = item->row_end - item->row_begin;
  load_queries(p, item, w);
  const int64_t end = w->visible[rows - 1];
  for (int r = 0; r < rows; r++) w->acc_max[r] = NO_SCORE, w->acc_sum[r] = 0;
  for (int split = item->split_begin; split < item->split_end; split++) {
    const int64_t from = (int64_t)split * SPLIT_KEYS;
    run_split(p, item, w, from, oi_min(end, from + SPLIT_KEYS), end);
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
        if (w->visible[r] > from)
          merge_row(w->acc + r * O_LD, &w->acc_max[r], &w->acc_sum[r], w->o + r * O_LD, w->max[r], w->sum[r]);
    }
  }
  if (item->slot >= 0) return;
  for (int r = 0; r < rows; r++)
    finish_row(p, item, item->row_begin + r, w->acc + r * O_LD, w->acc_max[r], w->acc_sum[r]);
}

// Combines one row of a unit whose splits were computed apart.
static void merge_unit_row(const params_t *p, const item_t *unit, int r, work_t *w) {
  const int rows = unit->row_end - unit->row_begin;
  const int64_t keys = key_count(p, unit->request), tokens = query_count(p, unit->request);
  const int64_t token = (unit->row_begin + r) / p->group;
  const int64_t visible = p->causal ? oi_max(0, oi_min(keys, keys - tokens + token + 1)) : keys;
  float max = NO_SCORE, sum = 0;
  memset(w->o, 0, O_LD * 4);
  for (int split = 0; split < unit->split_end; split++) {
    int64_t at = unit->slot + (int64_t)split * rows + r;
    if (visible <= (int64_t)split * SPLIT_KEYS) break;
    memcpy(split == 0 ? w->acc : w->o, partial_out(p, at), DV * 4);
    const float *stats = partial_stats(p, at);
    if (split == 0) max = stats[0], sum = stats[1];
    else merge_row(w->acc, &max, &sum, w->o, stats[0], stats[1]);
  }
  finish_row(p, unit, unit->row_begin + r, w->acc, max, sum);
}

static float *carve(char **at, size_t floats) {
  float *here = (float *)*at;
  *at += (floats * 4 + 63) / 64 * 64;
  return here;
}

void attention(const params_t *p, oi_ctx *ctx) {
  work_t w;
  char *at = ctx->scratch;
  w.q = carve(&at, p->row_tile * Q_LD);
  w.s = carve(&at, p->row_tile * BLOCK);
  w.o = carve(&at, p->row_tile * O_LD);
  w.acc = carve(&at, p->row_tile * O_LD);
  w.k = carve(&at, BLOCK * Q_LD);
  w.v = SEPARATE_V ? carve(&at, BLOCK * O_LD) : NULL;
  const item_t *items = p->items, *merges = p->merges;
  for (int64_t i; (i = oi_take(ctx, 1)) < p->item_count;) run_item(p, &items[i], &w);
  if (p->merge_count == 0) return;
  oi_barrier(ctx);
  int64_t turn = 0;
  for (int64_t m = 0; m < p->merge_count; m++)
    for (int r = 0; r < merges[m].row_end - merges[m].row_begin; r++)
      if (turn++ % ctx->nthreads == ctx->tid) merge_unit_row(p, &merges[m], r, &w);
}
