// Attention of ordinary heads over packed sequences, backward. A unit is a key head of a sequence;
// an item is a range of its chunks of keys. A chunk keeps its dk and dv in scratch while it meets
// all rows (token × head of the key head) that see it, a step of rows at a time; what it adds to dq
// goes to memory, and chunks add in the order of their keys, each waiting for its turn. So every
// sum has one order, whatever threads take part. Steps are computed by matrix tiles or by vectors.
//
// Not here: the list of items and checks of arguments (src/mha-plan.ts, src/mha-backward.ts).
#include "mha_types.h"
#if AMX
#include "mha_backward_amx.h"
#else
#include "mha_backward_vectors.h"
#endif

// Where the sums of dq of this item's first row lie.
static float *dq_sums(const params_t *p, const oi_ctx *ctx, const item_t *item) {
  const int64_t row =
      item->shared < 0 ? ctx->tid * p->own_rows : p->shared_at + item->shared;
  return (float *)p->sums + row * D_LD;
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
  load_rows(p, item, w, step);
  run_products(p, w, step);
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
  clear_keys(w, n);
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
#if AMX
  oi_tiles_begin();
#endif
  const item_t *items = p->items;
  find_deltas(p, ctx);
  oi_barrier(ctx);
  for (int64_t i; (i = oi_take(ctx, 1)) < p->item_count;)
    for (int chunk = items[i].chunk_begin; chunk < items[i].chunk_end; chunk++)
      run_chunk(p, &items[i], &w, (int64_t)chunk * CHUNK, dq_sums(p, ctx, &items[i]));
#if AMX
  oi_tiles_end();
#endif
}
