// The backward pass by matrix tiles, 32 rows and 32 keys at a time, a block. Rows are the left
// operand of the scores and of dOut · v, keys and values, turned once a chunk, the right one. What
// becomes of them is laid three ways: P and dS with keys as rows are the left operands of dv and
// dk, whose right ones are the interleaved rows; dS with rows as rows is that of dq, with the
// interleaved keys.
//
// Masked pairs have P and dS 0. Where what they are multiplied with is not finite, slow ways around
// compute each key, or each row, by itself.
#pragma once
#include "mha_steps.h"

enum {
  D_STEPS = D / DEPTH,
  DV_STEPS = DV / DEPTH,
  ROW_STEPS = STEP / DEPTH,
  KEY_STEPS = CHUNK / DEPTH,
  SUMS = ROWS * ROWS  // floats of a tile of sums
};

static void carve_scratch(work_t *w, char *at) {
  w->kr = (uint16_t *)carve(&at, CHUNK * D / 2);
  w->vr = (uint16_t *)carve(&at, CHUNK * DV / 2);
  w->kn = (uint16_t *)carve(&at, CHUNK * D / 2);
  w->dk = carve(&at, CHUNK * D);
  w->dv = carve(&at, CHUNK * DV);
  w->qa = (uint16_t *)carve(&at, STEP * D / 2);
  w->ga = (uint16_t *)carve(&at, STEP * DV / 2);
  w->qn = (uint16_t *)carve(&at, STEP * D / 2);
  w->gn = (uint16_t *)carve(&at, STEP * DV / 2);
  w->s = carve(&at, 4 * SUMS);
  w->t = carve(&at, 4 * SUMS);
  w->pt = (uint16_t *)carve(&at, P_PARTS * CHUNK * STEP / 2);
  w->st = (uint16_t *)carve(&at, P_PARTS * CHUNK * STEP / 2);
  w->ds = (uint16_t *)carve(&at, P_PARTS * CHUNK * STEP / 2);
  w->spare = carve(&at, 4 * SUMS);
  w->rows = (uint16_t *)carve(&at, ROWS * (D > DV ? D : DV) / 2);
  w->lse = carve(&at, STEP);
  w->delta = carve(&at, STEP);
  w->visible = (int32_t *)carve(&at, STEP);
  w->first_row = (int32_t *)carve(&at, CHUNK);
}

// Whether some of n bf16 is not finite.
static int not_finite_bf16(const uint16_t *x, int n) {
  const __m512i mask = _mm512_set1_epi16(0x7f80);
  uint32_t bad = 0;
  for (int i = 0; i < n; i += DEPTH) {
    const __m512i v = _mm512_and_si512(_mm512_load_si512(x + i), mask);
    bad |= _mm512_cmpeq_epi16_mask(v, mask);
  }
  return bad != 0;
}

// Whether some of the step's rows, or of the chunk's keys, interleaved, is not finite.
static int rows_bad(const uint16_t *rows, int count, int strips) {
  int bad = 0;
  for (int strip = 0; strip < strips; strip++)
    bad |= not_finite_bf16(rows + strip * ROW_STEPS * 2 * TILE, UP(count, DEPTH) * DEPTH);
  return bad;
}
static int keys_bad(const work_t *w, int count) {
  int bad = 0;
  for (int strip = 0; strip < D_STEPS; strip++)
    bad |= not_finite_bf16(w->kn + strip * KEY_STEPS * 2 * TILE, UP(count, DEPTH) * DEPTH);
  return bad;
}

// Copies of 16 keys or values, zeros behind the first n.
static void copy_rows(uint16_t *to, const uint16_t *from, int64_t ld, int n, int channels) {
  for (int j = 0; j < ROWS; j++) {
    if (j < n) memcpy(to + j * channels, from + j * ld, (size_t)channels * 2);
    else memset(to + j * channels, 0, (size_t)channels * 2);
  }
}

static void load_keys(const params_t *p, const item_t *item, work_t *w, int64_t at, int n) {
  const int64_t start = ((const int32_t *)p->cu_k)[item->request] + at;
  const uint16_t *k = (const uint16_t *)p->k + start * p->k_token + item->kv_head * p->k_head;
  const uint16_t *v = (const uint16_t *)p->v + start * p->v_token + item->kv_head * p->v_head;
  for (int t = 0; t < UP(n, DEPTH) / ROWS; t++) {
    copy_rows(w->rows, k + t * ROWS * p->k_token, p->k_token, n - t * ROWS, D);
    for (int i = 0; i < D_STEPS; i++) {
      uint16_t *pairs = w->kn + (i * KEY_STEPS + t / 2) * 2 * TILE + t % 2 * TILE / 2;
      turn_rows(w->kr + (t * D_STEPS + i) * TILE, w->rows + i * DEPTH, D);
      interleave_rows(pairs, (const char *)(w->rows + i * DEPTH), D * 2, 0, 2);
    }
    copy_rows(w->rows, v + t * ROWS * p->v_token, p->v_token, n - t * ROWS, DV);
    for (int i = 0; i < DV_STEPS; i++)
      turn_rows(w->vr + (t * DV_STEPS + i) * TILE, w->rows + i * DEPTH, DV);
  }
  w->k_bad = -1;
}

static void clear_keys(work_t *w, int n) {
  memset(w->dk, 0, sizeof(float) * UP(n, DEPTH) * D);
  memset(w->dv, 0, sizeof(float) * UP(n, DEPTH) * DV);
}

// Lays a row of `steps` × 32 channels as row i of left operands; zeros without one.
INLINE void lay_row(uint16_t *tiles, int i, const void *from, int steps) {
  uint16_t *to = tiles + i / ROWS * steps * TILE + i % ROWS * DEPTH;
  for (int c = 0; c < steps; c++)
    _mm512_store_si512(to + c * TILE, from == NULL ? _mm512_setzero_si512()
                                                   : _mm512_loadu_si512((const uint16_t *)from +
                                                                        c * DEPTH));
}
static void interleave_tiles(uint16_t *to, const uint16_t *tiles, int rows, int steps) {
  for (int t = 0; t < UP(rows, DEPTH) / ROWS; t++)
    for (int c = 0; c < steps; c++)
      interleave_rows(to + (c * ROW_STEPS + t / 2) * 2 * TILE + t % 2 * TILE / 2,
                      (const char *)(tiles + (t * steps + c) * TILE), DEPTH * 2, 0, 2);
}

// Rows of a step, whole blocks of them; rows that see no key, or do not exist, are zeros.
static void load_rows(const params_t *p, const item_t *item, work_t *w, const step_t *step) {
  const int64_t start = ((const int32_t *)p->cu_q)[item->request];
  for (int i = 0; i < UP(step->rows, DEPTH); i++) {
    const row_t row = row_of(p, item, start, step->row + i);
    const char *q = NULL, *g = NULL;
    w->visible[i] = i < step->rows ? (int32_t)visible_keys(p, item, step->row + i) : 0;
    w->lse[i] = w->delta[i] = 0;
    if (w->visible[i] > 0) {
      q = element(p->q, row.token * p->q_token + row.head * p->q_head, p->q_type);
      g = element(p->dout, row.token * p->dout_token + row.head * p->dout_head, p->dout_type);
      const float lse = ((const float *)p->lse)[row.token * p->lse_token + row.head * p->lse_head];
      w->lse[i] = (float)(lse * LOG2E);
      w->delta[i] = ((const float *)p->deltas)[row.token * p->heads + row.head];
    }
    lay_row(w->qa, i, q, D_STEPS);
    lay_row(w->ga, i, g, DV_STEPS);
  }
  interleave_tiles(w->qn, w->qa, step->rows, D_STEPS);
  interleave_tiles(w->gn, w->ga, step->rows, DV_STEPS);
  find_first_rows(w, step);
}

// A block: rows times turned keys, along `steps` × 32 channels.
INLINE void block_scores(float *to, const uint16_t *rows, const uint16_t *keys, int steps) {
  const uint16_t *a = rows, *b = rows + steps * TILE, *c = keys, *d = keys + steps * TILE;
  zero_sums();
  for (int i = 0; i < steps; i++) {
    oi_tile_load(4, a + i * TILE, 64);
    oi_tile_load(6, c + i * TILE, 64);
    oi_tile_load(5, b + i * TILE, 64);
    oi_tile_load(7, d + i * TILE, 64);
    oi_tile_dot_bf16(0, 4, 6);
    oi_tile_dot_bf16(1, 4, 7);
    oi_tile_dot_bf16(2, 5, 6);
    oi_tile_dot_bf16(3, 5, 7);
  }
  store_sums(to, to + 2 * SUMS);
}

// One vector of one row: its probabilities and the gradients of its scores, 0 where the row does
// not see the key; `limit` keys of the vector are seen.
INLINE void row_gradients(const float *s, const float *t, float lse, float delta, float scale,
                          int limit, vf *prob, vf *grad) {
  const vf p = exp2_small(vf_fma(vf_load(s), vf_set(scale), vf_set(-lse)));
  const vf g = p * (vf_load(t) - delta);
  const vi seen = (vi)(lane_numbers() < limit);
  *prob = limit >= ROWS ? p : vf_select(seen, p, vf_zero());
  *grad = limit >= ROWS ? g : vf_select(seen, g, vf_zero());
}

// The next part of 32 neighbours as bf16: the upper halves, which are taken off, or all, rounded.
INLINE __m512i next_row(vf *low, vf *high) {
#if P_PARTS == 1 && defined(__AVX512BF16__)
  return (__m512i)_mm512_cvtne2ps_pbh((__m512)*high, (__m512)*low);
#elif P_PARTS == 1
  const vu16 a = vf_to_bf16_bits(*low), b = vf_to_bf16_bits(*high);
  __m256i x, y;
  memcpy(&x, &a, sizeof x);
  memcpy(&y, &b, sizeof y);
  return _mm512_inserti64x4(_mm512_castsi256_si512(x), y, 1);
#else
  const __m512i order = _mm512_set_epi16(63, 61, 59, 57, 55, 53, 51, 49, 47, 45, 43, 41, 39, 37, 35,
                                         33, 31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3,
                                         1);
  const __m512i a = upper_half((__m512i)*low), b = upper_half((__m512i)*high);
  *low -= (vf)a, *high -= (vf)b;
  return _mm512_permutex2var_epi16(a, order, b);
#endif
}
INLINE __m512i next_pair(vf *low, vf *high) {
#if P_PARTS == 1
  return rounded_pairs(*low, *high);
#else
  return next_pairs(low, high);
#endif
}

// A block's scores and dOut · v to P and dS as left operands.
ONE_COPY void block_gradients(work_t *w, const step_t *step, int rows, int keys, float scale) {
  __m512i pairs[2][2][P_PARTS][ROWS];  // of P and of dS, by the tile of keys
  for (int i = 0; i < DEPTH; i += 2) {
    vf p[2][2], g[2][2];
    for (int j = 0; j < 2; j++) {
      const int row = rows + i + j, at = i / ROWS * 2 * SUMS + (i + j) % ROWS * ROWS;
      const int limit = w->visible[row] - (int32_t)step->at - keys;
      for (int t = 0; t < 2; t++)
        row_gradients(w->s + at + t * SUMS, w->t + at + t * SUMS, w->lse[row], w->delta[row], scale,
                      limit - t * ROWS, &p[t][j], &g[t][j]);
      vf low = g[0][j], high = g[1][j];
      uint16_t *ds = w->ds + (row / ROWS * KEY_STEPS + keys / DEPTH) * P_PARTS * TILE;
      for (int part = 0; part < P_PARTS; part++)
        _mm512_store_si512(ds + part * TILE + row % ROWS * DEPTH, next_row(&low, &high));
    }
    for (int t = 0; t < 2; t++)
      for (int part = 0; part < P_PARTS; part++) {
        pairs[0][t][part][i / 2] = next_pair(&p[t][0], &p[t][1]);
        pairs[1][t][part][i / 2] = next_pair(&g[t][0], &g[t][1]);
      }
  }
  for (int t = 0; t < 2; t++)
    for (int part = 0; part < P_PARTS; part++) {
      const int at = (((keys / ROWS + t) * ROW_STEPS + rows / DEPTH) * P_PARTS + part) * TILE;
      turn_rows(w->pt + at, (const uint16_t *)pairs[0][t][part], DEPTH);
      turn_rows(w->st + at, (const uint16_t *)pairs[1][t][part], DEPTH);
    }
}

// Sums of a block, in tiles 0 to 3, += left operands a and b, parts after parts, times pairs of
// tiles; all of them follow each other.
INLINE void block_product(const uint16_t *a, const uint16_t *b, const uint16_t *right, int steps) {
  for (int i = 0; i < steps; i++, right += 2 * TILE) {
    oi_tile_load(6, right, 64);
    oi_tile_load(7, right + TILE, 64);
    UNROLL(3) for (int part = 0; part < P_PARTS; part++, a += TILE, b += TILE) {
      oi_tile_load(4, a, 64);
      oi_tile_load(5, b, 64);
      oi_tile_dot_bf16(0, 4, 6);
      oi_tile_dot_bf16(1, 4, 7);
      oi_tile_dot_bf16(2, 5, 6);
      oi_tile_dot_bf16(3, 5, 7);
    }
  }
}

// Sets row r of interleaved rows of two tiles to zero.
static void clear_row(uint16_t *pairs, int r) {
  uint16_t *at = pairs + r / DEPTH * 2 * TILE + r % DEPTH / 2 * DEPTH + r % 2;
  for (int c = 0; c < ROWS; c++) at[2 * c] = at[TILE + 2 * c] = 0;
}

// dv or dk of a block of keys over a strip of channels where a row is not finite and some key does
// not see it: key by key, with the rows before its first one set to zero. Later keys see no earlier
// row, so the rows may stay spoilt.
static void add_to_keys_apart(work_t *w, const step_t *step, float *a_sums, float *b_sums,
                              const uint16_t *left, uint16_t *right, int keys, int from) {
  const uint16_t *a = left + from * P_PARTS * TILE, *b = a + ROW_STEPS * P_PARTS * TILE;
  const int steps = UP(step->rows, DEPTH) / DEPTH - from;
  for (int n = 0, cleared = from * DEPTH; n < DEPTH && keys + n < step->keys; n++) {
    for (; cleared < w->first_row[keys + n]; cleared++) clear_row(right, cleared);
    load_sums(a_sums, b_sums);
    block_product(a, b, right + from * 2 * TILE, steps);
    store_sums(w->spare, w->spare + 2 * SUMS);
    float *own = n < ROWS ? a_sums : b_sums;
    for (int t = 0; t < 2; t++)
      memcpy(own + t * SUMS + n % ROWS * ROWS,
             w->spare + (n / ROWS * 2 + t) * SUMS + n % ROWS * ROWS, ROWS * 4);
  }
}

// dv or dk: sums of all keys of a chunk += (P or dS) · rows. A key is seen by the later rows, so a
// block of keys starts at the first block of rows that sees its first key.
static void add_to_keys(work_t *w, const step_t *step, float *sums, const uint16_t *left,
                        uint16_t *rows, int strips) {
  const int end = UP(step->rows, DEPTH) / DEPTH;
  int bad = -1;
  for (int keys = 0; keys < step->keys; keys += DEPTH) {
    const int from = w->first_row[keys] / DEPTH, tile = keys / ROWS;
    if (w->first_row[keys] >= step->rows) return;
    const int last = (int)oi_min(keys + DEPTH, step->keys) - 1;
    const int partial = w->first_row[last] > from * DEPTH;
    const uint16_t *a = left + tile * ROW_STEPS * P_PARTS * TILE;
    for (int strip = 0; strip < strips; strip++) {
      float *a_sums = sums + (tile * strips + strip) * 2 * SUMS;
      float *b_sums = a_sums + strips * 2 * SUMS;
      uint16_t *right = rows + strip * ROW_STEPS * 2 * TILE;
      if (partial && bad < 0) bad = rows_bad(rows, step->rows, strips);
      if (partial && bad) {
        add_to_keys_apart(w, step, a_sums, b_sums, a, right, keys, from);
        continue;
      }
      load_sums(a_sums, b_sums);
      block_product(a + from * P_PARTS * TILE, a + (ROW_STEPS + from) * P_PARTS * TILE,
                    right + from * 2 * TILE, end - from);
      store_sums(a_sums, b_sums);
    }
  }
}

// Scores, gradients, and what they add to the keys of the chunk.
static void run_products(const params_t *p, work_t *w, const step_t *step) {
  const float scale = (float)(p->scale * LOG2E);
  for (int rows = 0; rows < step->rows; rows += DEPTH) {
    const int seen = row_keys(w, step, (int)oi_min(rows + DEPTH, step->rows) - 1);
    for (int keys = 0; keys < seen; keys += DEPTH) {
      block_scores(w->s, w->qa + rows * D, w->kr + keys * D, D_STEPS);
      fetch_rows(p, w);
      block_scores(w->t, w->ga + rows * DV, w->vr + keys * DV, DV_STEPS);
      fetch_rows(p, w);
      block_gradients(w, step, rows, keys, scale);
    }
  }
  add_to_keys(w, step, w->dv, w->pt, w->gn, DV_STEPS);
  add_to_keys(w, step, w->dk, w->st, w->qn, D_STEPS);
}

// Sums of dq of a block of rows over a strip of channels, D_LD floats a row.
INLINE void load_block(const float *dq) {
  oi_tile_load(0, dq, D_LD * 4);
  oi_tile_load(1, dq + ROWS, D_LD * 4);
  oi_tile_load(2, dq + ROWS * D_LD, D_LD * 4);
  oi_tile_load(3, dq + ROWS * D_LD + ROWS, D_LD * 4);
}
INLINE void store_block(float *dq) {
  oi_tile_store(0, dq, D_LD * 4);
  oi_tile_store(1, dq + ROWS, D_LD * 4);
  oi_tile_store(2, dq + ROWS * D_LD, D_LD * 4);
  oi_tile_store(3, dq + ROWS * D_LD + ROWS, D_LD * 4);
}

// A block's part in dq; its last row sees `seen` keys of the chunk.
static void add_block(const work_t *w, const step_t *step, float *dq, int rows, int strip,
                      int seen) {
  const uint16_t *a = w->ds + rows / ROWS * KEY_STEPS * P_PARTS * TILE;
  if (step->at > 0) load_block(dq);
  else zero_sums();
  block_product(a, a + KEY_STEPS * P_PARTS * TILE, w->kn + strip * KEY_STEPS * 2 * TILE,
                UP(seen, DEPTH) / DEPTH);
}

// The same where a key is not finite and some row does not see it: row by row from the last, with
// the keys after its own set to zero. Spoils the staged keys.
static void add_to_rows_apart(work_t *w, const step_t *step, float *dq) {
  for (int strip = 0; strip < D_STEPS; strip++) {
    uint16_t *keys = w->kn + strip * KEY_STEPS * 2 * TILE;
    for (int i = step->rows - 1, kept = UP(step->keys, DEPTH); i >= 0; i--) {
      const int rows = i / DEPTH * DEPTH, n = i % DEPTH, last = rows + DEPTH - 1;
      while (kept > row_keys(w, step, i)) clear_row(keys, --kept);
      float *block = dq + rows * D_LD + strip * DEPTH;
      add_block(w, step, block, rows, strip,
                row_keys(w, step, last < step->rows ? last : step->rows - 1));
      store_sums(w->spare, w->spare + 2 * SUMS);
      for (int t = 0; t < 2; t++)
        memcpy(block + n * D_LD + t * ROWS,
               w->spare + (n / ROWS * 2 + t) * SUMS + n % ROWS * ROWS, ROWS * 4);
    }
  }
}

// Adds a chunk's part to dq of a step of rows.
static void add_to_rows(const params_t *p, const item_t *item, work_t *w, const step_t *step,
                        float *dq) {
  int partial = 0;
  for (int rows = 0; rows < step->rows; rows += DEPTH) {
    const int seen = row_keys(w, step, (int)oi_min(rows + DEPTH, step->rows) - 1);
    partial |= row_keys(w, step, rows) < oi_min(step->keys, UP(seen, DEPTH));
  }
  if (partial && w->k_bad < 0) w->k_bad = keys_bad(w, step->keys);
  if (partial && w->k_bad) {
    add_to_rows_apart(w, step, dq);
    load_keys(p, item, w, step->at, step->keys);
    return;
  }
  for (int rows = 0; rows < step->rows; rows += DEPTH) {
    const int seen = row_keys(w, step, (int)oi_min(rows + DEPTH, step->rows) - 1);
    if (seen == 0 && step->at > 0) continue;
    for (int strip = 0; strip < D_STEPS; strip++) {
      float *block = dq + rows * D_LD + strip * DEPTH;
      add_block(w, step, block, rows, strip, seen);
      store_block(block);
    }
  }
}

static void write_dq(const params_t *p, const item_t *item, const step_t *step, const float *dq) {
  const int64_t start = ((const int32_t *)p->cu_q)[item->request];
  for (int i = 0; i < step->rows; i++) {
    const row_t row = row_of(p, item, start, step->row + i);
    _Alignas(64) float out[D];
    for (int c = 0; c < D; c += DEPTH) put_in_order(out + c, dq + i * D_LD + c);
    store_row(element(p->dq, row.token * p->dq_token + row.head * p->dq_head, p->dq_type), out,
              (float)p->scale, D, p->dq_type);
  }
}

// Row j of dk or dv, whose tiles of 32 channels are two that follow each other.
INLINE void key_row(float *to, const float *sums, int j, int strips) {
  for (int strip = 0; strip < strips; strip++) {
    const float *from = sums + (j / ROWS * strips + strip) * 2 * SUMS + j % ROWS * ROWS;
    float both[DEPTH];
    memcpy(both, from, ROWS * 4);
    memcpy(both + ROWS, from + SUMS, ROWS * 4);
    put_in_order(to + strip * DEPTH, both);
  }
}

static void write_keys(const params_t *p, const item_t *item, work_t *w, int64_t at, int n) {
  const int64_t start = ((const int32_t *)p->cu_k)[item->request] + at;
  for (int j = 0; j < n; j++) {
    const int64_t token = start + j, head = item->kv_head;
    _Alignas(64) float out[D > DV ? D : DV];
    key_row(out, w->dk, j, D_STEPS);
    store_row(element(p->dk, token * p->dk_token + head * p->dk_head, p->dk_type), out,
              (float)p->scale, D, p->dk_type);
    key_row(out, w->dv, j, DV_STEPS);
    store_row(element(p->dv, token * p->dv_token + head * p->dv_head, p->dv_type), out, 1.0f, DV,
              p->dv_type);
  }
}
