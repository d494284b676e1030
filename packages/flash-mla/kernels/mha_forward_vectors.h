// The forward pass by vectors. Rows lie in the lanes, so the softmax needs no sums across lanes;
// keys and values are spread. Rows walk the keys in blocks of 128.
#pragma once
#include "mha_tiles.h"

#define BLOCK 128              // keys of one online-softmax step
#define K_UNITS ((D + S_UNIT - 1) / S_UNIT)
#define K_LD LD(K_UNITS)
#define V_LD LD(DV)
#define OUT_N UP(DV, 16)       // channels of the sums

typedef struct {
  float *q;        // [K_UNITS][row_ld]: rows in lanes
  float *o;        // [OUT_N][row_ld]
  float *k;        // [BLOCK][K_LD]
  float *v;        // [BLOCK / P_UNIT][V_LD]
  float *s;        // [BLOCK][TILE_LANES]: scores of a few rows, then probabilities as units
  float *rows;     // [OI_VF][max of K_LD, V_LD] on the way in and out
  float *spare;    // [OUT_N][TILE_LANES]
  float *max, *sum, *alpha;  // [row_ld]
  int32_t *visible;          // [row_ld]
  int row_ld;
  int bad;         // whether a staged value is not finite; -1 while nobody asked
  const char *next_k, *next_v;  // rows of the next block that are still to be fetched
  int next_n, next_step;        // how many, and how many a tile
} work_t;

static void carve_scratch(const params_t *p, work_t *w, char *at) {
  const size_t rows = LD((size_t)p->row_tile);  // each item uses what it needs of it
  w->q = carve(&at, UP(K_UNITS, 16) * rows);
  w->o = carve(&at, OUT_N * rows);
  w->k = carve(&at, BLOCK * K_LD);
  w->v = carve(&at, BLOCK * V_LD);
  w->s = carve(&at, BLOCK * TILE_LANES);
  w->rows = carve(&at, OI_VF * (K_LD > V_LD ? K_LD : V_LD));
  w->spare = carve(&at, OUT_N * TILE_LANES);
  w->max = carve(&at, rows);
  w->sum = carve(&at, rows);
  w->alpha = carve(&at, rows);
  w->visible = (int32_t *)carve(&at, rows);
}

// Queries into lanes. Lanes past the last row are zeros that see what the last row sees.
static void load_queries(const params_t *p, const item_t *item, work_t *w) {
  const int32_t *cu_q = p->cu_q, *cu_k = p->cu_k;
  const int64_t start = cu_q[item->request], tokens = cu_q[item->request + 1] - start;
  const int64_t keys = cu_k[item->request + 1] - cu_k[item->request];
  const int rows = item->row_end - item->row_begin, lanes = UP(rows, OI_VF);
  w->row_ld = LD(rows);
  for (int r0 = 0; r0 < lanes; r0 += OI_VF) {
    for (int i = 0; i < OI_VF; i++) {
      float *to = w->rows + i * K_LD;
      const int64_t row = item->row_begin + oi_min(rows - 1, r0 + i), token = row / p->group;
      const int64_t head = item->kv_head * p->group + row % p->group;
      w->visible[r0 + i] =
          (int32_t)(p->causal ? oi_max(0, oi_min(keys, keys - tokens + token + 1)) : keys);
      if (r0 + i < rows && w->visible[r0 + i] > 0)
        load_along(to, element(p->q, (start + token) * p->q_token + head * p->q_head, p->q_type),
                   D, UP(K_UNITS, 16), (int)p->q_type);
      else memset(to, 0, UP(K_UNITS, 16) * 4);
    }
    for (int c = 0; c < UP(K_UNITS, 16); c += OI_VF)
      transpose(w->q + c * w->row_ld + r0, w->row_ld, w->rows + c, K_LD);
  }
  for (int r = 0; r < lanes; r++) w->max[r] = NEVER, w->sum[r] = 0;
  memset(w->o, 0, sizeof(float) * OUT_N * (size_t)w->row_ld);
}

static void load_keys(const params_t *p, const item_t *item, work_t *w, int64_t at, int n) {
  const int64_t start = ((const int32_t *)p->cu_k)[item->request] + at;
  const int type = (int)p->k_type;
  for (int j = 0; j < n; j++)
    load_along(w->k + j * K_LD,
               element(p->k, (start + j) * p->k_token + item->kv_head * p->k_head, type), D,
               K_UNITS, type);
  for (int j = n; j % TILE_N; j++) memset(w->k + j * K_LD, 0, K_UNITS * 4);
}

static void load_values(const params_t *p, const item_t *item, work_t *w, int64_t at, int n) {
  const int64_t start = ((const int32_t *)p->cu_k)[item->request] + at;
  const int type = (int)p->k_type;
  w->bad = -1;
  for (int j = 0; j < n; j += P_UNIT) {
    const char *row =
        element(p->v, (start + j) * p->v_token + item->kv_head * p->v_head, type);
    const char *next = j + 1 < n ? element(row, p->v_token, type) : NULL;
    load_across(w->v + j / P_UNIT * V_LD, row, next, DV, OUT_N, type);
  }
}

// Rows of the next block are asked for a few a tile, so that memory and arithmetic overlap.
static void plan_fetch(const params_t *p, const item_t *item, work_t *w, int64_t at, int64_t end,
                       int groups) {
  const int64_t start = ((const int32_t *)p->cu_k)[item->request] + at, head = item->kv_head;
  w->next_k = element(p->k, start * p->k_token + head * p->k_head, p->k_type);
  w->next_v = element(p->v, start * p->v_token + head * p->v_head, p->k_type);
  w->next_n = (int)oi_max(0, oi_min(BLOCK, end - at));
  w->next_step = (int)oi_ceil_div(w->next_n, (BLOCK / TILE_N) * groups);
}

INLINE void fetch(const char *row, int bytes) {
  for (int i = 0; i < bytes; i += 64) __builtin_prefetch(row + i, 0, 2);
}

static void fetch_rows(const params_t *p, work_t *w) {
  for (int i = 0; i < w->next_step && w->next_n > 0; i++, w->next_n--) {
    fetch(w->next_k, D * (int)type_bytes(p->k_type));
    fetch(w->next_v, DV * (int)type_bytes(p->k_type));
    w->next_k += p->k_token * (int64_t)type_bytes(p->k_type);
    w->next_v += p->v_token * (int64_t)type_bytes(p->k_type);
  }
}

static int values_bad(work_t *w, int n) {
  if (w->bad >= 0) return w->bad;
  w->bad = 0;
  for (int j = 0; j < n; j += P_UNIT) w->bad |= not_finite(w->v + j / P_UNIT * V_LD, OUT_N);
  return w->bad;
}

// Scores to probabilities for one vector of rows, with the running maximum and sum. Of the `walked`
// keys of the block that the tile's last row sees, a row may see fewer.
ONE_COPY void softmax(float *s, int walked, const int32_t *visible, int64_t at, float scale,
                      float *max, float *sum, float *alpha) {
  vi limit;
  memcpy(&limit, visible, sizeof limit);
  limit -= (int32_t)at;
  const int seen = (int)oi_max(0, oi_min(walked, visible[OI_VF - 1] - at));
  const vf before = vf_load(max);
  vf top = before, other = before, total = vf_zero();
  const int whole = visible[0] - at >= seen;  // the first row sees the least
  for (int j = 0; j < seen; j++) {
    vf x = vf_load(s + j * TILE_LANES) * scale;
    if (!whole) x = vf_select((vi)(limit > j), x, vf_set(-INFINITY));
    vf_store(s + j * TILE_LANES, x);
    if (j % 2 == 0) top = vf_max(top, x);
    else other = vf_max(other, x);  // two chains hide the latency of a maximum
  }
  top = vf_max(top, other);
  // A maximum forgets a NaN that a later score covers, but the NaN's own probability is NaN.
  const vf factor = exp2_small(before - top);
  for (int j = 0; j < seen; j += P_UNIT) {
    vf e = exp2_small(vf_load(s + j * TILE_LANES) - top);
    total += e;
#if DOT_P
    vf f = vf_zero();
    if (j + 1 < seen) f = exp2_small(vf_load(s + (j + 1) * TILE_LANES) - top);
    total += f;
    e = pair_up(e, f);
#endif
    vf_store(s + j / P_UNIT * TILE_LANES, e);
  }
  for (int j = (seen + P_UNIT - 1) / P_UNIT; j < (walked + P_UNIT - 1) / P_UNIT; j++)
    vf_store(s + j * TILE_LANES, vf_zero());
  vf_store(max, top);
  vf_store(alpha, factor);
  vf_store(sum, vf_load(sum) * factor + total);
}

// Brings earlier sums to the new maximum; a row whose maximum stayed multiplies by one.
ONE_COPY void rescale(float *o, int ld, int vectors, const float *alpha) {
  int changed = 0;
  for (int r = 0; r < vectors * OI_VF; r++) changed |= alpha[r] != 1.0f;
  if (!changed) return;
  for (int c = 0; c < OUT_N; c++)
    for (int v = 0; v < vectors * OI_VF; v += OI_VF)
      vf_store(o + c * ld + v, vf_load(o + c * ld + v) * vf_load(alpha + v));
}

static void add_values(const work_t *w, float *o, int o_ld, int vectors, int seen) {
  for (int c = 0; c < OUT_N; c += TILE_N) {
    const product_t x = {o + (ptrdiff_t)c * o_ld, w->v + c, w->s, o_ld, V_LD, TILE_LANES,
                         (seen + P_UNIT - 1) / P_UNIT, 1};
    across_p[vectors](&x);
  }
}

// The same where a value that only some of the rows see is not finite: 0 · inf must not reach the
// others. Rows that see the same keys are added together, the rest of the values set to zero.
static void add_values_apart(const work_t *w, float *o, int vectors, int seen,
                             const int32_t *visible, int64_t at) {
  const int lanes = vectors * OI_VF;
  int next;
  for (int n = seen; n > 0; n = next) {
    next = 0;
    for (int j = n; j < UP(seen, P_UNIT); j++)
      for (int c = 0; c < V_LD; c++) {
#if DOT_P
        uint16_t *pair = (uint16_t *)(w->v + j / 2 * V_LD + c);
        pair[j % 2] = 0;
#else
        w->v[j * V_LD + c] = 0;
#endif
      }
    for (int c = 0; c < OUT_N; c++)
      memcpy(w->spare + c * TILE_LANES, o + c * w->row_ld, (size_t)lanes * 4);
    add_values(w, w->spare, TILE_LANES, vectors, seen);
    for (int r = 0; r < lanes; r++) {
      const int own = (int)oi_max(0, oi_min(seen, visible[r] - at));
      if (own < n && own > next) next = own;
      if (own != n) continue;
      for (int c = 0; c < OUT_N; c++) o[c * w->row_ld + r] = w->spare[c * TILE_LANES + r];
    }
  }
}

// One block of keys against a few vectors of rows. Returns whether the staged values were spoilt.
static int run_rows(const params_t *p, work_t *w, int r, int vectors, int64_t at, int n) {
  const int32_t *visible = w->visible + r;
  const int seen = (int)oi_max(0, oi_min(n, visible[vectors * OI_VF - 1] - at));
  if (seen == 0) return 0;
  for (int j = 0, blind = 0; j < seen; j += TILE_N) {
    while (visible[(blind + 1) * OI_VF - 1] - at <= j) blind++;  // vectors of which no row sees it
    const int from = blind * OI_VF;
    const product_t x = {w->s + j * TILE_LANES + from, w->k + j * K_LD, w->q + r + from,
                         TILE_LANES, K_LD, w->row_ld, K_UNITS, 0};
    along_s[vectors - blind](&x);
    fetch_rows(p, w);
  }
  const float scale = (float)(p->scale * 1.44269504088896341);
  for (int v = 0; v < vectors * OI_VF; v += OI_VF)
    softmax(w->s + v, seen, visible + v, at, scale, w->max + r + v, w->sum + r + v,
            w->alpha + r + v);
  rescale(w->o + r, w->row_ld, vectors, w->alpha + r);
  // Some row sees less than is walked, or the last pair has a key that none sees.
  const int partial = visible[0] - at < seen || seen % P_UNIT != 0;
  if (partial && values_bad(w, n)) {
    add_values_apart(w, w->o + r, vectors, seen, visible, at);
    return 1;
  }
  add_values(w, w->o + r, w->row_ld, vectors, seen);
  return 0;
}

static void write_rows(const params_t *p, const item_t *item, work_t *w) {
  const int64_t start = ((const int32_t *)p->cu_q)[item->request];
  const int rows = item->row_end - item->row_begin;
  for (int r = 0; r < rows; r++) {
    const int64_t row = item->row_begin + r, token = start + row / p->group;
    const int64_t head = item->kv_head * p->group + row % p->group;
    if (r % OI_VF == 0)
      for (int c = 0; c < OUT_N; c += OI_VF)
        transpose(w->rows + c, V_LD, w->o + c * w->row_ld + r, w->row_ld);
    const float sum = w->sum[r], factor = sum == 0 ? 0 : 1.0f / sum;
    store_row(element(p->out, token * p->out_token + head * p->out_head, p->out_type),
              w->rows + r % OI_VF * V_LD, factor, DV, p->out_type);
    float *lse = (float *)p->lse + token * p->lse_token + head * p->lse_head;
    *lse = sum == 0 ? INFINITY
                    : (float)((double)w->max[r] * 0.69314718055994531 + log((double)sum));
  }
}

static void run_item(const params_t *p, const item_t *item, work_t *w) {
  load_queries(p, item, w);
  const int rows = item->row_end - item->row_begin, vectors = (rows + OI_VF - 1) / OI_VF;
  const int64_t end = w->visible[rows - 1];
  for (int64_t at = 0; at < end; at += BLOCK) {
    const int n = (int)oi_min(BLOCK, end - at);
    load_keys(p, item, w, at, n);
    load_values(p, item, w, at, n);
    plan_fetch(p, item, w, at + n, end, (vectors + TILE_V - 1) / TILE_V);
    for (int v = 0; v < vectors; v += TILE_V) {
      const int here = vectors - v < TILE_V ? vectors - v : TILE_V;
      if (run_rows(p, w, v * OI_VF, here, at, n)) load_values(p, item, w, at, n);
    }
  }
  write_rows(p, item, w);
}
