// The forward pass by matrix tiles. Rows are taken 16 at a time, a group, and two groups at once.
// Scores have keys as the left operand and queries, packed once an item, as the right one, so that
// rows lie in the lanes of the softmax; probabilities, turned around while they become bf16, are
// the left operand of the values, whose pairs of keys are interleaved once a block of 256.
//
// What a tile does to one row does not depend on the other rows in it. Keys that a row does not see
// have probability 0 and values that are finite, so they add nothing; where a value is not finite,
// rows that do not see it are computed apart.
#pragma once
#include "amx_steps.h"

enum {
  BLOCK = 256,  // keys of one online-softmax step
  KEY_STEPS = BLOCK / DEPTH,
  CHANNEL_STEPS = D / DEPTH,
  CHANNEL_PART = 9,  // steps whose queries, of two groups, stay in L1
  STRIPS = DV / DEPTH,
  O_LD = LD(DV)
};

typedef struct {
  uint16_t *rows;  // [ROWS][D], on the way in
  uint16_t *q;     // [groups][CHANNEL_STEPS] tiles
  uint16_t *k;     // [BLOCK / ROWS][CHANNEL_STEPS] tiles
  uint16_t *v;     // [STRIPS][KEY_STEPS][2] tiles
  float *s;        // [2][BLOCK][ROWS]
  uint16_t *p;     // [2][KEY_STEPS][P_PARTS] tiles
  float *tile;     // 4 tiles of sums
  float *o;        // [rows][O_LD]; channels of 32 in the order of the interleaving
  float *max, *sum, *factor;  // [rows]
  int32_t *visible, *seen;    // [rows] keys of the sequence, and of the block
  const char *next_k, *next_v;  // rows of the next block that are still to be fetched
  int next_n, next_step;        // how many, and how many at a time
} work_t;

static void carve_scratch(const params_t *p, work_t *w, char *at) {
  const size_t rows = UP((size_t)p->row_tile, ROWS);
  w->rows = (uint16_t *)carve(&at, ROWS * D / 2);
  w->q = (uint16_t *)carve(&at, rows * D / 2);
  w->k = (uint16_t *)carve(&at, BLOCK * D / 2);
  w->v = (uint16_t *)carve(&at, BLOCK * DV / 2);
  w->s = carve(&at, 2 * BLOCK * ROWS);
  w->p = (uint16_t *)carve(&at, 2 * KEY_STEPS * P_PARTS * TILE / 2);
  w->tile = carve(&at, 4 * ROWS * ROWS);
  w->o = carve(&at, rows * O_LD);
  w->max = carve(&at, rows);
  w->sum = carve(&at, rows);
  w->factor = carve(&at, rows);
  w->visible = (int32_t *)carve(&at, rows);
  w->seen = (int32_t *)carve(&at, rows);
}

// Queries as right operands. Lanes past the last row are zeros that see what the last row sees.
static void load_queries(const params_t *p, const item_t *item, work_t *w) {
  const int32_t *cu_q = p->cu_q, *cu_k = p->cu_k;
  const int64_t start = cu_q[item->request], tokens = cu_q[item->request + 1] - start;
  const int64_t keys = cu_k[item->request + 1] - cu_k[item->request];
  const int rows = item->row_end - item->row_begin;
  for (int r = 0; r < UP(rows, ROWS); r++) {
    const int64_t row = item->row_begin + oi_min(rows - 1, r), token = row / p->group;
    const int64_t head = item->kv_head * p->group + row % p->group;
    w->visible[r] =
        (int32_t)(p->causal ? oi_max(0, oi_min(keys, keys - tokens + token + 1)) : keys);
    const void *from = element(p->q, (start + token) * p->q_token + head * p->q_head, p->q_type);
    if (r < rows) memcpy(w->rows + r % ROWS * D, from, D * 2);
    else memset(w->rows + r % ROWS * D, 0, D * 2);
    w->max[r] = NEVER, w->sum[r] = 0;
    if (r % ROWS < ROWS - 1) continue;
    for (int i = 0; i < CHANNEL_STEPS; i++)
      turn_rows(w->q + (r / ROWS * CHANNEL_STEPS + i) * TILE, w->rows + i * DEPTH, D);
  }
  memset(w->o, 0, sizeof(float) * O_LD * (size_t)rows);
}

// n keys from key `at` of the sequence on, as left operands. What is behind the last key is left
// over; nobody looks at its scores.
static void load_keys(const params_t *p, const item_t *item, work_t *w, int64_t at, int n) {
  const int64_t start = ((const int32_t *)p->cu_k)[item->request] + at;
  const uint16_t *from = (const uint16_t *)p->k + start * p->k_token + item->kv_head * p->k_head;
  for (int j = 0; j < n; j++, from += p->k_token) {
    uint16_t *to = w->k + j / ROWS * ROWS * D + j % ROWS * DEPTH;
    for (int i = 0; i < CHANNEL_STEPS; i++)
      _mm512_store_si512(to + i * TILE, _mm512_loadu_si512(from + i * DEPTH));
  }
}

// Values of the block's first n keys, as right operands; zeros behind them, to the next whole step.
static void load_values(const params_t *p, const item_t *item, work_t *w, int64_t at, int n) {
  const int64_t start = ((const int32_t *)p->cu_k)[item->request] + at;
  const uint16_t *from = (const uint16_t *)p->v + start * p->v_token + item->kv_head * p->v_head;
  for (int j = 0; j < UP(n, DEPTH); j += ROWS, from += ROWS * p->v_token) {
    uint16_t *to = w->v + j / DEPTH * 2 * TILE + j % DEPTH * ROWS;
    for (int strip = 0; strip < STRIPS; strip++, to += KEY_STEPS * 2 * TILE) {
      const char *x = (const char *)(from + strip * DEPTH);
      if (j + ROWS <= n) interleave_rows(to, x, p->v_token * 2, 0, 2);
      else interleave_some(to, x, p->v_token * 2, 0, n - j, 2);
    }
  }
}

// Rows of the next block are asked for a few a step, so that memory and arithmetic overlap.
static void plan_fetch(const params_t *p, const item_t *item, work_t *w, int64_t at, int64_t end,
                       int groups) {
  const int64_t start = ((const int32_t *)p->cu_k)[item->request] + at, head = item->kv_head;
  w->next_k = element(p->k, start * p->k_token + head * p->k_head, p->k_type);
  w->next_v = element(p->v, start * p->v_token + head * p->v_head, p->k_type);
  w->next_n = (int)oi_max(0, oi_min(BLOCK, end - at));
  w->next_step = (int)oi_ceil_div(w->next_n, KEY_STEPS * ((groups + 1) / 2));
}

static void fetch_rows(const params_t *p, work_t *w) {
  for (int i = 0; i < w->next_step && w->next_n > 0; i++, w->next_n--) {
    for (int c = 0; c < D * 2; c += 64) __builtin_prefetch(w->next_k + c, 0, 2);
    for (int c = 0; c < DV * 2; c += 64) __builtin_prefetch(w->next_v + c, 0, 2);
    w->next_k += p->k_token * 2;
    w->next_v += p->v_token * 2;
  }
}

// Scores of two groups, of which the second may be the first again: s[group][key][row].
static void scores(const params_t *p, work_t *w, const uint16_t *q, const uint16_t *other,
                   int seen) {
  for (int part = 0; part < CHANNEL_STEPS; part += CHANNEL_PART) {
    const int end = part + CHANNEL_PART < CHANNEL_STEPS ? part + CHANNEL_PART : CHANNEL_STEPS;
    for (int j = 0; j < seen; j += 2 * ROWS) {
      const uint16_t *a = w->k + j * D, *b = a + ROWS * D;
      float *s = w->s + j * ROWS;
      if (part == 0) zero_sums();
      else load_sums(s, s + BLOCK * ROWS);
      for (int i = part; i < end; i++) {
        oi_tile_load(4, q + i * TILE, 64);
        oi_tile_load(6, a + i * TILE, 64);
        oi_tile_load(5, other + i * TILE, 64);
        oi_tile_load(7, b + i * TILE, 64);
        oi_tile_dot_bf16(0, 6, 4);
        oi_tile_dot_bf16(1, 7, 4);
        oi_tile_dot_bf16(2, 6, 5);
        oi_tile_dot_bf16(3, 7, 5);
      }
      store_sums(s, s + BLOCK * ROWS);
      if (part == 0) fetch_rows(p, w);
    }
  }
}

// Sums of two groups over a strip of channels.
static void add_strip(work_t *w, const uint16_t *v, const uint16_t *other, int steps) {
  const uint16_t *p = w->p;
  zero_sums();
  for (int i = 0; i < steps; i++, v += 2 * TILE) {
    oi_tile_load(6, v, 64);
    oi_tile_load(7, v + TILE, 64);
    UNROLL(3) for (int part = 0; part < P_PARTS; part++, p += TILE, other += TILE) {
      oi_tile_load(4, p, 64);
      oi_tile_load(5, other, 64);
      oi_tile_dot_bf16(0, 4, 6);
      oi_tile_dot_bf16(1, 4, 7);
      oi_tile_dot_bf16(2, 5, 6);
      oi_tile_dot_bf16(3, 5, 7);
    }
  }
  store_sums(w->tile, w->tile + 2 * ROWS * ROWS);
}

// Brings a row's earlier sums of 32 channels to the new maximum and adds the block's.
ONE_COPY void join_strip(float *o, const float *tile, const float *factor, int rows) {
  for (int r = 0; r < rows; r++, o += O_LD, tile += ROWS) {
    const vf f = vf_set(factor[r]);
    vf_store(o, vf_fma_exact(vf_load(o), f, vf_load(tile)));
    vf_store(o + ROWS, vf_fma_exact(vf_load(o + ROWS), f, vf_load(tile + ROWS * ROWS)));
  }
}

// Values of the first n keys of the block, for rows `begin` to `end` of two groups from row r on.
static void add_values(work_t *w, int r, int groups, int begin, int end, int n) {
  const uint16_t *other = w->p + (groups > 1 ? KEY_STEPS * P_PARTS * TILE : 0);
  for (int strip = 0; strip < STRIPS; strip++) {
    add_strip(w, w->v + strip * KEY_STEPS * 2 * TILE, other, (n + DEPTH - 1) / DEPTH);
    for (int g = 0; g < groups; g++) {
      const int from = (int)oi_max(begin, r + g * ROWS), to = (int)oi_min(end, r + (g + 1) * ROWS);
      const float *tile = w->tile + g * 2 * ROWS * ROWS + (from - r - g * ROWS) * ROWS;
      if (from < to)
        join_strip(w->o + from * O_LD + strip * DEPTH, tile, w->factor + from, to - from);
    }
  }
}

// Whether some value of the block's keys `from` to `to` is not finite.
static int values_bad(const work_t *w, int from, int to) {
  const __m512i mask = _mm512_set1_epi16(0x7f80);
  uint32_t bad = 0;
  for (int j = from / 2 * 2; j < to; j += 2)
    for (int strip = 0; strip < STRIPS; strip++)
      for (int t = 0; t < 2; t++) {
        const uint16_t *pairs =
            w->v + ((strip * KEY_STEPS + j / DEPTH) * 2 + t) * TILE + j % DEPTH * ROWS;
        const __m512i x = _mm512_load_si512(pairs);
        bad |= _mm512_cmpeq_epi16_mask(_mm512_and_si512(x, mask), mask);
      }
  return bad != 0;
}

// One block of n keys against two groups, or one, from row r on.
static void run_rows(const params_t *p, const item_t *item, work_t *w, int r, int64_t at, int n) {
  const int rows = item->row_end - item->row_begin, left = UP(rows, ROWS) - r;
  const int groups = left > ROWS ? 2 : 1, end = (int)oi_min(rows, r + groups * ROWS);
  for (int i = r; i < r + groups * ROWS; i++)
    w->seen[i] = (int32_t)oi_max(0, oi_min(n, w->visible[i] - at));
  const int seen = w->seen[end - 1];
  if (seen == 0) return;
  const uint16_t *q = w->q + r * D;
  scores(p, w, q, groups > 1 ? q + ROWS * D : q, seen);
  const float scale = (float)(p->scale * 1.44269504088896341);
  for (int g = 0; g < groups; g++)
    softmax_group(w->s + g * BLOCK * ROWS, w->p + g * KEY_STEPS * P_PARTS * TILE, seen,
                  w->seen + r + g * ROWS, scale, w->max + r + g * ROWS, w->sum + r + g * ROWS,
                  w->factor + r + g * ROWS);
  // Keys of the last step that some row does not see.
  const int walked = (int)oi_min(n, UP(seen, DEPTH));
  if (w->seen[r] == walked || !values_bad(w, w->seen[r], walked)) {
    add_values(w, r, groups, r, end, seen);
    return;
  }
  for (int from = r, to; from < end; from = to) {
    for (to = from + 1; to < end && w->seen[to] == w->seen[from];) to++;
    load_values(p, item, w, at, w->seen[from]);
    add_values(w, r, groups, from, to, w->seen[from]);
  }
  load_values(p, item, w, at, n);
}

static void write_rows(const params_t *p, const item_t *item, work_t *w) {
  const int64_t start = ((const int32_t *)p->cu_q)[item->request];
  const int rows = item->row_end - item->row_begin;
  for (int r = 0; r < rows; r++) {
    const int64_t row = item->row_begin + r, token = start + row / p->group;
    const int64_t head = item->kv_head * p->group + row % p->group;
    _Alignas(64) float out[DV];
    for (int c = 0; c < DV; c += DEPTH) put_in_order(out + c, w->o + r * O_LD + c);
    const float sum = w->sum[r], factor = sum == 0 ? 0 : 1.0f / sum;
    store_row(element(p->out, token * p->out_token + head * p->out_head, p->out_type), out, factor,
              DV, p->out_type);
    float *lse = (float *)p->lse + token * p->lse_token + head * p->lse_head;
    *lse = sum == 0 ? INFINITY
                    : (float)((double)w->max[r] * 0.69314718055994531 + log((double)sum));
  }
}

static void run_item(const params_t *p, const item_t *item, work_t *w) {
  load_queries(p, item, w);
  const int rows = item->row_end - item->row_begin, groups = (rows + ROWS - 1) / ROWS;
  const int64_t end = w->visible[rows - 1];
  for (int64_t at = 0; at < end; at += BLOCK) {
    const int n = (int)oi_min(BLOCK, end - at);
    load_keys(p, item, w, at, n);
    load_values(p, item, w, at, n);
    plan_fetch(p, item, w, at + n, end, groups);
    for (int g = 0; g < groups; g += 2) run_rows(p, item, w, g * ROWS, at, n);
  }
  write_rows(p, item, w);
}
