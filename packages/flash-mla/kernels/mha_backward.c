// Attention of ordinary heads over packed sequences, backward. A unit is a key head of a sequence;
// an item is a range of its chunks of keys. A chunk keeps its dk and dv in scratch while it meets
// all rows (token × head of the key head) that see it, a step of rows at a time, with the keys in
// the lanes; what it adds to dq goes to memory, and chunks add in the order of their keys, each
// waiting for its turn. So every sum has one order, whatever threads take part.
//
// Not here: the list of items and checks of arguments (src/mha-plan.ts, src/mha-backward.ts).
#include "mha_steps.h"

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

// Where the sums of dq of this item's first row lie.
static float *dq_sums(const params_t *p, const oi_ctx *ctx, const item_t *item) {
  const int64_t row =
      item->shared < 0 ? ctx->tid * p->own_rows : p->shared_at + item->shared;
  return (float *)p->sums + row * D_LD;
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

static void await_turn(_Atomic int32_t *turn, int32_t chunk) {
  for (int spins = 0; atomic_load_explicit(turn, memory_order_acquire) != chunk; spins++) {
    oi_pause();
    if (spins > OI_SPINS_BEFORE_YIELD) {
      extern int sched_yield(void);
      sched_yield();
    }
  }
}

static void run_step(const params_t *p, const item_t *item, work_t *w, const step_t *step,
                     float *dq) {
  int q_bad = -1, g_bad = -1;
  load_rows(p, item, w, step);
  scores(p, w, step, w->s, w->qa, QA_LD, w->kt, K_UNITS);
  scores(p, w, step, w->t, w->ga, GA_LD, w->vt, V_UNITS);
  gradients(w, step, (float)(p->scale * LOG2E));
  add_to_keys(w, step, w->dv, w->s, w->gc, DV, &g_bad);
  add_to_keys(w, step, w->dk, w->t, w->qc, D, &q_bad);
  const int32_t chunk = (int32_t)(step->at / CHUNK);
  _Atomic int32_t *turn =
      item->shared < 0 ? NULL : (_Atomic int32_t *)p->counters + item->counter + step->row / STEP;
  if (turn != NULL) await_turn(turn, chunk);
  add_to_rows(p, item, w, step, dq);
  if (w->visible[step->rows - 1] <= step->at + CHUNK) write_dq(p, item, step, dq);
  if (turn != NULL) atomic_store_explicit(turn, chunk + 1, memory_order_release);
}

// One chunk of keys against all rows that see one of them; the first one meets every row.
static void run_chunk(const params_t *p, const item_t *item, work_t *w, int64_t at, float *sums) {
  const int32_t *cu_q = p->cu_q, *cu_k = p->cu_k;
  const int64_t rows = (int64_t)(cu_q[item->request + 1] - cu_q[item->request]) * p->group;
  const int64_t keys = cu_k[item->request + 1] - cu_k[item->request];
  const int n = (int)oi_max(0, oi_min(CHUNK, keys - at));
  load_keys(p, item, w, at, n);
  memset(w->dk, 0, sizeof(float) * UP(n, TILE_N) * D_LD);
  memset(w->dv, 0, sizeof(float) * UP(n, TILE_N) * DV_LD);
  for (int64_t row = 0; row < rows; row += STEP) {
    const step_t step = {row, (int)oi_min(STEP, rows - row), at, n};
    if (at > 0 && visible_keys(p, item, row + step.rows - 1) <= at) continue;
    plan_fetch(p, item, w, row + STEP, rows);
    run_step(p, item, w, &step, sums + row * D_LD);
  }
  write_keys(p, item, w, at, n);
}

void mha_backward(const params_t *p, oi_ctx *ctx) {
  work_t w;
  carve_scratch(&w, ctx->scratch);
  const item_t *items = p->items;
  find_deltas(p, ctx);
  oi_barrier(ctx);
  for (int64_t i; (i = oi_take(ctx, 1)) < p->item_count;)
    for (int chunk = items[i].chunk_begin; chunk < items[i].chunk_end; chunk++)
      run_chunk(p, &items[i], &w, (int64_t)chunk * CHUNK, dq_sums(p, ctx, &items[i]));
}
