// What both ways of the backward pass share: items and steps, rows and the keys they see, and what
// is asked for ahead. How the parts of a step follow each other is in mha_backward.c.
//
// Constants: CHUNK keys and STEP rows that meet at a time.
#pragma once
#if AMX
#include "amx_steps.h"
#else
#include "mha_tiles.h"
#endif

#define LOG2E 1.44269504088896341
#define D_LD LD(D)

typedef struct {
  int32_t request, kv_head, chunk_begin, chunk_end, shared, counter, unused[2];
} item_t;

// Rows `row` to `row + rows` of a unit against keys `at` to `at + keys`.
typedef struct {
  int64_t row;
  int rows;
  int64_t at;
  int keys;
} step_t;

typedef struct {
  int64_t token, head;
} row_t;

typedef struct {
#if AMX
  uint16_t *kr, *vr;    // [CHUNK / ROWS][channels / DEPTH] tiles: keys and values, turned
  uint16_t *kn;         // [D / DEPTH][CHUNK / DEPTH][2] tiles: keys interleaved
  float *dk, *dv;       // [CHUNK / ROWS][channels / ROWS] tiles of sums
  uint16_t *qa, *ga;    // [STEP / ROWS][channels / DEPTH] tiles: queries and dOut
  uint16_t *qn, *gn;    // [channels / DEPTH][STEP / DEPTH][2] tiles: the same, interleaved
  float *s, *t;         // 4 tiles of scores and of dOut · v
  uint16_t *pt, *st;    // [CHUNK / ROWS][STEP / DEPTH][P_PARTS] tiles: P and dS by keys
  uint16_t *ds;         // [STEP / ROWS][CHUNK / DEPTH][P_PARTS] tiles: dS by rows
  float *spare;         // 4 tiles of sums
  uint16_t *rows;       // [ROWS][D or DV] on the way in
#else
  float *kt, *vt;    // [units of channels][CHUNK_LD]: keys and values in lanes
  float *kn;         // [CHUNK / P_UNIT][D_LD]: keys, units across them
  float *dk, *dv;    // [CHUNK][D_LD], [CHUNK][DV_LD]
  float *qa, *ga;    // [STEP][QA_LD], [STEP][GA_LD]: queries and dOut, units along channels
  float *qc, *gc;    // [STEP / P_UNIT][D_LD], [STEP / P_UNIT][DV_LD]: the same, units across rows
  float *s, *t;      // [STEP][CHUNK_LD] scores and dOut · v; then P and dS, units across rows
  float *ds;         // [STEP][DS_LD]: dS, units along keys
  float *rows;       // [OI_VF][D_LD or DV_LD] on the way in
  float *spare;      // [TILE_N][TILE_LANES]
#endif
  float *lse, *delta;   // [STEP] in units of log 2; Σ out · dOut − dLse
  int32_t *visible;     // [STEP] keys that each row sees, 0 past the last row
  int32_t *first_row;   // [CHUNK] first row of the step that sees each key
  int k_bad;            // whether a staged key is not finite; -1 while nobody asked
  row_t next;           // the first row of the next step that is still to be fetched
  int next_rows;        // and how many are
  int64_t head_end;     // the heads of the unit end here
} work_t;

static inline row_t row_of(const params_t *p, const item_t *item, int64_t start, int64_t row) {
  return (row_t){start + row / p->group, item->kv_head * p->group + row % p->group};
}

static int64_t visible_keys(const params_t *p, const item_t *item, int64_t row) {
  const int32_t *cu_q = p->cu_q, *cu_k = p->cu_k;
  const int64_t tokens = cu_q[item->request + 1] - cu_q[item->request];
  const int64_t keys = cu_k[item->request + 1] - cu_k[item->request];
  if (!p->causal) return keys;
  return oi_max(0, oi_min(keys, keys - tokens + row / p->group + 1));
}

// Keys of the step that its row i sees.
static inline int row_keys(const work_t *w, const step_t *step, int i) {
  return (int)oi_max(0, oi_min(step->keys, w->visible[i] - step->at));
}

// First row of the step that sees each key.
static void find_first_rows(work_t *w, const step_t *step) {
  for (int j = 0, i = 0; j < step->keys; j++) {
    while (i < step->rows && w->visible[i] <= step->at + j) i++;
    w->first_row[j] = i;
  }
}

// Σ out · dOut of a row.
ONE_COPY float row_delta(const void *out, int out_type, const void *grad, int grad_type) {
  _Alignas(64) float a[UP(DV, 16)], b[UP(DV, 16)];
  load_floats(a, out, DV, UP(DV, 16), out_type);
  load_floats(b, grad, DV, UP(DV, 16), grad_type);
  vf sum = vf_zero();
  for (int c = 0; c < UP(DV, 16); c += OI_VF) sum = vf_fma(vf_load(a + c), vf_load(b + c), sum);
  return vf_sum(sum);
}

// Σ out · dOut − dLse of all rows, this thread's share of them. Rows that see no key get one too,
// whatever they hold; nobody reads it.
static void find_deltas(const params_t *p, const oi_ctx *ctx) {
  float *delta = p->deltas;
  for (int64_t token = ctx->tid; token < p->tokens; token += ctx->nthreads)
    for (int64_t head = 0; head < p->heads; head++) {
      const float sum = row_delta(
          element(p->out, token * p->out_token + head * p->out_head, p->out_type),
          (int)p->out_type,
          element(p->dout, token * p->dout_token + head * p->dout_head, p->dout_type),
          (int)p->dout_type);
      const float *dlse = p->dlse;
      delta[token * p->heads + head] =
          dlse == NULL ? sum : sum - dlse[token * p->dlse_token + head * p->dlse_head];
    }
}

// Rows of the next step are asked for a few a tile, so that memory and arithmetic overlap.
static void plan_fetch(const params_t *p, const item_t *item, work_t *w, int64_t row, int64_t end) {
  const row_t next = row_of(p, item, ((const int32_t *)p->cu_q)[item->request], row);
  w->next = next;
  w->next_rows = (int)oi_max(0, oi_min(STEP, end - row));
  w->head_end = (item->kv_head + 1) * p->group;
}

INLINE void fetch(const char *row, int bytes) {
  for (int i = 0; i < bytes; i += 64) __builtin_prefetch(row + i, 0, 2);
}

static void fetch_rows(const params_t *p, work_t *w) {
  enum { A_TILE = AMX ? 4 : 2 };
  for (int i = 0; i < A_TILE && w->next_rows > 0; i++, w->next_rows--) {
    const int64_t token = w->next.token, head = w->next.head;
    fetch(element(p->q, token * p->q_token + head * p->q_head, p->q_type),
          D * (int)type_bytes(p->q_type));
    fetch(element(p->dout, token * p->dout_token + head * p->dout_head, p->dout_type),
          DV * (int)type_bytes(p->dout_type));
    if (++w->next.head == w->head_end) w->next.head -= p->group, w->next.token++;
  }
}
