// The backward pass by vectors: keys lie in the lanes. A chunk keeps its dk and dv in scratch while
// it meets the rows; values that are not finite take slow ways around.
#pragma once
#include "mha_steps.h"

#define K_UNITS ((D + S_UNIT - 1) / S_UNIT)
#define V_UNITS ((DV + S_UNIT - 1) / S_UNIT)
#define QA_LD LD(K_UNITS)
#define GA_LD LD(V_UNITS)
#define DV_LD LD(DV)
#define CHUNK_LD LD(CHUNK)
// Gradients of scores as units along the keys: the floats themselves, or a row of bf16.
#define DS_LD (DOT_P ? LD(CHUNK / P_UNIT) : CHUNK_LD)

// Units along t of gradients of scores.
#if DOT_P == DOT_S
#define along_p along_s
#else
DEFINE_ALONG(along_p_1, 1, DOT_P)
DEFINE_ALONG(along_p_2, 2, DOT_P)
DEFINE_ALONG(along_p_3, 3, DOT_P)
static const tile_fn along_p[TILE_V + 1] = {NULL, along_p_1, along_p_2, along_p_3};
#endif

static void carve_scratch(work_t *w, char *at) {
  w->kt = carve(&at, UP(K_UNITS, 16) * CHUNK_LD);
  w->vt = carve(&at, UP(V_UNITS, 16) * CHUNK_LD);
  w->kn = carve(&at, CHUNK / P_UNIT * D_LD);
  w->dk = carve(&at, CHUNK * D_LD);
  w->dv = carve(&at, CHUNK * DV_LD);
  w->qa = carve(&at, STEP * QA_LD);
  w->ga = carve(&at, STEP * GA_LD);
  w->qc = DOT_S ? carve(&at, STEP / P_UNIT * D_LD) : w->qa;
  w->gc = DOT_S ? carve(&at, STEP / P_UNIT * DV_LD) : w->ga;
  w->s = carve(&at, STEP * CHUNK_LD);
  w->t = carve(&at, STEP * CHUNK_LD);
  w->ds = DOT_P ? carve(&at, STEP * DS_LD) : w->t;
  w->rows = carve(&at, OI_VF * (D_LD > DV_LD ? D_LD : DV_LD));
  w->spare = carve(&at, TILE_N * TILE_LANES);
  w->lse = carve(&at, STEP);
  w->delta = carve(&at, STEP);
  w->visible = (int32_t *)carve(&at, STEP);
  w->first_row = (int32_t *)carve(&at, CHUNK);
}

// Vectors of a row of n channels; past the last channel there are zeros.
static inline int vectors_of(int n) { return UP(n, 16) / OI_VF; }

// Whether some of the rows, of n channels each, is not finite; found out once.
static int rows_bad(const float *rows, int units, int n, int *bad) {
  if (*bad >= 0) return *bad;
  *bad = 0;
  for (int t = 0; t < units; t++) *bad |= not_finite(rows + t * LD(n), UP(n, 16));
  return *bad;
}

static void load_keys_across(const params_t *p, const item_t *item, work_t *w, int64_t at, int n) {
  const int64_t start = ((const int32_t *)p->cu_k)[item->request] + at;
  const int type = (int)p->k_type;
  for (int j = 0; j < n; j += P_UNIT) {
    const char *row = element(p->k, (start + j) * p->k_token + item->kv_head * p->k_head, type);
    const char *next = j + 1 < n ? element(row, p->k_token, type) : NULL;
    load_across(w->kn + j / P_UNIT * D_LD, row, next, D, UP(D, 16), type);
  }
  w->k_bad = -1;
}

// Puts n rows of `count` channels into lanes.
static void load_lanes(work_t *w, float *to, const char *from, int64_t stride, int n, int count,
                       int type) {
  const int units = (count + S_UNIT - 1) / S_UNIT, whole = UP(units, 16), ld = LD(units);
  for (int j0 = 0; j0 < UP(n, 16); j0 += OI_VF) {
    for (int j = 0; j < OI_VF; j++) {
      if (j0 + j < n)
        load_along(w->rows + j * ld, element(from, (j0 + j) * stride, type), count, whole, type);
      else memset(w->rows + j * ld, 0, (size_t)whole * 4);
    }
    for (int c = 0; c < whole; c += OI_VF)
      transpose(to + c * CHUNK_LD + j0, CHUNK_LD, w->rows + c, ld);
  }
}

static void load_keys(const params_t *p, const item_t *item, work_t *w, int64_t at, int n) {
  const int64_t start = ((const int32_t *)p->cu_k)[item->request] + at;
  const int type = (int)p->k_type;
  load_keys_across(p, item, w, at, n);
  load_lanes(w, w->kt, element(p->k, start * p->k_token + item->kv_head * p->k_head, type),
             p->k_token, n, D, type);
  load_lanes(w, w->vt, element(p->v, start * p->v_token + item->kv_head * p->v_head, type),
             p->v_token, n, DV, type);
}

// Rows of a step, whole tiles of them; rows that see no key, or do not exist, are zeros.
static void load_rows(const params_t *p, const item_t *item, work_t *w, const step_t *step) {
  const int64_t start = ((const int32_t *)p->cu_q)[item->request];
  const char *q[2] = {NULL}, *g[2] = {NULL};
  for (int i = 0; i < UP(step->rows, TILE_N); i++) {
    const row_t row = row_of(p, item, start, step->row + i);
    const int there = i < step->rows;
    w->visible[i] = there ? (int32_t)visible_keys(p, item, step->row + i) : 0;
    q[i % 2] = g[i % 2] = NULL;
    w->lse[i] = w->delta[i] = 0;
    if (w->visible[i] > 0) {
      q[i % 2] = element(p->q, row.token * p->q_token + row.head * p->q_head, p->q_type);
      g[i % 2] =
          element(p->dout, row.token * p->dout_token + row.head * p->dout_head, p->dout_type);
      const float lse = ((const float *)p->lse)[row.token * p->lse_token + row.head * p->lse_head];
      w->lse[i] = (float)(lse * LOG2E);
      w->delta[i] = ((const float *)p->deltas)[row.token * p->heads + row.head];
      load_along(w->qa + i * QA_LD, q[i % 2], D, UP(K_UNITS, 16), (int)p->q_type);
      load_along(w->ga + i * GA_LD, g[i % 2], DV, UP(V_UNITS, 16), (int)p->dout_type);
    } else {
      memset(w->qa + i * QA_LD, 0, UP(K_UNITS, 16) * 4);
      memset(w->ga + i * GA_LD, 0, UP(V_UNITS, 16) * 4);
    }
    if (DOT_S && i % P_UNIT == P_UNIT - 1) {
      const int first = (i - P_UNIT + 1) % 2, t = i / P_UNIT;
      load_across(w->qc + t * D_LD, q[first], q[1], D, UP(D, 16), (int)p->q_type);
      load_across(w->gc + t * DV_LD, g[first], g[1], DV, UP(DV, 16), (int)p->dout_type);
    }
  }
  find_first_rows(w, step);
}

// to[row][key] = row · key, for tiles of which some row sees some key.
static void scores(const params_t *p, work_t *w, const step_t *step, float *to,
                   const float *rows, int rows_ld, const float *lanes, int units) {
  const int vectors = (step->keys + OI_VF - 1) / OI_VF;
  for (int v = 0; v < vectors; v += TILE_V) {
    const int here = vectors - v < TILE_V ? vectors - v : TILE_V;
    for (int i = 0; i < step->rows; i += TILE_N) {
      const int last = i + TILE_N < step->rows ? i + TILE_N - 1 : step->rows - 1;
      const int seen = (row_keys(w, step, last) + OI_VF - 1) / OI_VF - v;
      if (seen <= 0) continue;
      const product_t x = {to + i * CHUNK_LD + v * OI_VF, rows + i * rows_ld, lanes + v * OI_VF,
                           CHUNK_LD, rows_ld, CHUNK_LD, units, 0};
      along_s[seen < here ? seen : here](&x);
      fetch_rows(p, w);
    }
  }
}

// One vector of one row: its probabilities and the gradients of its scores, 0 where the row does
// not see the key.
INLINE void row_gradients(const work_t *w, const step_t *step, int i, int j, float scale, vf *prob,
                          vf *grad) {
  const int32_t limit = w->visible[i] - (int32_t)step->at - j;
  *prob = *grad = vf_zero();
  if (limit <= 0) return;
  const int at = i * CHUNK_LD + j;
  const vf p = exp2_small(vf_fma(vf_load(w->s + at), vf_set(scale), vf_set(-w->lse[i])));
  const vf g = p * (vf_load(w->t + at) - w->delta[i]);
  const vi seen = (vi)(lane_numbers() < limit);
  *prob = limit >= OI_VF ? p : vf_select(seen, p, vf_zero());
  *grad = limit >= OI_VF ? g : vf_select(seen, g, vf_zero());
}

// Scores and dOut · v to P and dS, in place and as units across rows; dS along keys as well.
ONE_COPY void gradients(work_t *w, const step_t *step, float scale) {
  for (int i = 0; i < UP(step->rows, P_UNIT); i += P_UNIT)
    for (int j = 0; j < UP(step->keys, 16); j += OI_VF) {
      vf p, g;
      row_gradients(w, step, i, j, scale, &p, &g);
#if DOT_P
      vf p1, g1;
      row_gradients(w, step, i + 1, j, scale, &p1, &g1);
      const vu16 h = to_bf16(g), h1 = to_bf16(g1);
      memcpy((uint16_t *)(w->ds + i * DS_LD) + j, &h, sizeof h);
      memcpy((uint16_t *)(w->ds + (i + 1) * DS_LD) + j, &h1, sizeof h1);
      p = pair_up(p, p1);
      g = pair_up(g, g1);
#endif
      vf_store(w->s + i / P_UNIT * CHUNK_LD + j, p);
      vf_store(w->t + i / P_UNIT * CHUNK_LD + j, g);
    }
}

// Sets element `t` of a column of `lanes` units to zero.
static void clear_element(float *rows, int ld, int t, int lanes) {
  float *row = rows + t / P_UNIT * ld;
  if (!DOT_P) memset(row, 0, (size_t)lanes * 4);
  else
    for (int c = 0; c < lanes; c++) ((uint16_t *)(row + c))[t % 2] = 0;
}

// A tile of add_to_keys where a row is not finite and some key of the tile does not see it: key by
// key, with the rows before its first one set to zero. Later keys see no earlier row, so the rows
// may stay spoilt.
static void add_to_keys_apart(work_t *w, const product_t *tile, int vectors, int j, int last,
                              int from) {
  product_t x = *tile;
  x.c = w->spare, x.c_ld = TILE_LANES;
  for (int n = 0, cleared = from * P_UNIT; j + n <= last; n++) {
    for (; cleared < w->first_row[j + n]; cleared++)
      clear_element((float *)tile->b, (int)tile->b_ld, cleared - from * P_UNIT, vectors * OI_VF);
    float *own = tile->c + n * tile->c_ld, *spare = w->spare + n * TILE_LANES;
    memcpy(spare, own, (size_t)vectors * OI_VF * 4);
    across_p[vectors](&x);
    memcpy(own, spare, (size_t)vectors * OI_VF * 4);
  }
}

// add_to_rows where a key is not finite and some row does not see it: row by row from the last,
// with the keys after its own set to zero. Spoils the staged keys.
static void add_to_rows_apart(work_t *w, const step_t *step, float *dq) {
  const int vectors = vectors_of(D);
  for (int v = 0; v < vectors; v += TILE_V) {
    const int here = vectors - v < TILE_V ? vectors - v : TILE_V;
    int kept = UP(step->keys, P_UNIT);
    for (int i = step->rows - 1; i >= 0; i--) {
      const int n = i % TILE_N, seen = row_keys(w, step, i);
      float *own = dq + i * D_LD + v * OI_VF, *spare = w->spare + n * TILE_LANES;
      while (kept > seen) clear_element(w->kn + v * OI_VF, D_LD, --kept, here * OI_VF);
      memcpy(spare, own, (size_t)here * OI_VF * 4);
      const product_t x = {w->spare, w->ds + (i - n) * DS_LD, w->kn + v * OI_VF, TILE_LANES, DS_LD,
                           D_LD, (step->keys + P_UNIT - 1) / P_UNIT, step->at > 0};
      along_p[here](&x);
      memcpy(own, spare, (size_t)here * OI_VF * 4);
    }
  }
}

// dv or dk: sums of all keys of a chunk += (probabilities or gradients of scores) · rows. A key is
// seen by the later rows, so a tile starts at the first row that sees its first key.
static void add_to_keys(work_t *w, const step_t *step, float *sums, const float *a, float *rows,
                        int channels, int *bad) {
  const int units = (step->rows + P_UNIT - 1) / P_UNIT, vectors = vectors_of(channels);
  const int ld = LD(channels);
  for (int v = 0; v < vectors; v += TILE_V) {
    const int here = vectors - v < TILE_V ? vectors - v : TILE_V;
    for (int j = 0; j < step->keys; j += TILE_N) {
      const int last = (j + TILE_N < step->keys ? j + TILE_N : step->keys) - 1;
      const int from = w->first_row[j] / P_UNIT;
      if (from >= units) continue;
      const product_t x = {sums + j * ld + v * OI_VF, a + from * CHUNK_LD + j,
                           rows + from * ld + v * OI_VF, ld, CHUNK_LD, ld, units - from, 1};
      if (w->first_row[last] > from * P_UNIT && rows_bad(rows, units, channels, bad))
        add_to_keys_apart(w, &x, here, j, last, from);
      else across_p[here](&x);
    }
  }
}

// Adds a chunk's part to dq of a step of rows.
static void add_to_rows(const params_t *p, const item_t *item, work_t *w, const step_t *step,
                        float *dq) {
  const int vectors = vectors_of(D), seen = row_keys(w, step, step->rows - 1);
  const int partial = row_keys(w, step, 0) < seen || seen % P_UNIT != 0;
  if (partial && rows_bad(w->kn, (step->keys + P_UNIT - 1) / P_UNIT, D, &w->k_bad)) {
    add_to_rows_apart(w, step, dq);
    load_keys_across(p, item, w, step->at, step->keys);
    return;
  }
  for (int v = 0; v < vectors; v += TILE_V) {
    const int here = vectors - v < TILE_V ? vectors - v : TILE_V;
    for (int i = 0; i < step->rows; i += TILE_N) {
      const int last = i + TILE_N < step->rows ? i + TILE_N - 1 : step->rows - 1;
      const product_t x = {dq + i * D_LD + v * OI_VF, w->ds + i * DS_LD, w->kn + v * OI_VF, D_LD,
                           DS_LD, D_LD, (row_keys(w, step, last) + P_UNIT - 1) / P_UNIT,
                           step->at > 0};
      along_p[here](&x);
    }
  }
}

// Scores, gradients, and what they add to the keys of the chunk.
static void run_products(const params_t *p, work_t *w, const step_t *step) {
  int q_bad = -1, g_bad = -1;
  scores(p, w, step, w->s, w->qa, QA_LD, w->kt, K_UNITS);
  scores(p, w, step, w->t, w->ga, GA_LD, w->vt, V_UNITS);
  gradients(w, step, (float)(p->scale * LOG2E));
  add_to_keys(w, step, w->dv, w->s, w->gc, DV, &g_bad);
  add_to_keys(w, step, w->dk, w->t, w->qc, D, &q_bad);
}

static void clear_keys(work_t *w, int n) {
  memset(w->dk, 0, sizeof(float) * UP(n, TILE_N) * D_LD);
  memset(w->dv, 0, sizeof(float) * UP(n, TILE_N) * DV_LD);
}

static void write_dq(const params_t *p, const item_t *item, const step_t *step, const float *dq) {
  const int64_t start = ((const int32_t *)p->cu_q)[item->request];
  for (int i = 0; i < step->rows; i++) {
    const row_t row = row_of(p, item, start, step->row + i);
    store_row(element(p->dq, row.token * p->dq_token + row.head * p->dq_head, p->dq_type),
              dq + i * D_LD, (float)p->scale, D, p->dq_type);
  }
}

static void write_keys(const params_t *p, const item_t *item, work_t *w, int64_t at, int n) {
  const int64_t start = ((const int32_t *)p->cu_k)[item->request] + at;
  for (int j = 0; j < n; j++) {
    const int64_t token = start + j, head = item->kv_head;
    store_row(element(p->dk, token * p->dk_token + head * p->dk_head, p->dk_type),
              w->dk + j * D_LD, (float)p->scale, D, p->dk_type);
    store_row(element(p->dv, token * p->dv_token + head * p->dv_head, p->dv_type),
              w->dv + j * DV_LD, 1.0f, DV, p->dv_type);
  }
}
