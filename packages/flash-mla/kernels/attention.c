// Attention over paged keys: softmaxes of splits of fixed length, combined in order. Rows (token ×
// head of one key head) are grouped into items that share each load of the keys; grouping, and who
// computes which split, changes no row's arithmetic.
//
// Not here: which items there are (src/plan.ts), checks of any argument (src/decode.ts), keys and
// values apart (mha_forward.c).
//
// Constants: D, DV channels of a key and a value; KV_FORMAT, how keys are stored: 0 f32, 1 bf16,
// 2 f16, 3 and 4 the FP8 layouts V32 and MODEL1; KV_TYPE, the type of 0 to 2 that tiles read;
// Q_PARTS and P_PARTS, for matrix tiles; Q_BF16 and DOT_PAYS, whether queries are bf16 and the
// machine's dot product is worth it.
#if KV_FORMAT == 3
#define KEY_BYTES 656
#elif KV_FORMAT == 4
#define KEY_BYTES 576
#endif
#include "attention_split.h"

static inline int64_t query_start(const params_t *p, int r) {
  return p->cu_q ? ((const int32_t *)p->cu_q)[r] : 0;
}

static inline int64_t query_count(const params_t *p, int r) {
  const int32_t *cu = p->cu_q;
  return cu ? cu[r + 1] - cu[r] : p->tokens;
}

static inline int64_t key_count(const params_t *p, int r) {
  return ((const int32_t *)p->context)[r];
}

// Keys of the call's format lie as whole elements; FP8 formats count in bytes.
#define BYTES_OF(elements) ((elements) * (KV_FORMAT == KV_TYPE ? (int64_t)sizeof(kv_t) : 1))

// Where the keys of a split lie, and their scales where those lie apart.
static void split_keys(const params_t *p, const item_t *item, int64_t end, int split,
                       keys_t *keys) {
  const char *base = (const char *)p->k + BYTES_OF(item->kv_head * p->k_head);
  const int32_t *table = (const int32_t *)p->table + item->request * p->table_columns;
  const int64_t step = KV_FORMAT == TYPE_MODEL1 ? MODEL1_ROW : BYTES_OF(p->k_token);
  const int64_t from = (int64_t)split * SPLIT_KEYS;
  const int n = (int)oi_max(0, oi_min(SPLIT_KEYS, end - from));
  int64_t block = from / p->page, offset = from % p->page;
  for (int j = 0; j < n; block++, offset = 0) {
    const char *page = base + BYTES_OF(table[block] * p->k_block);
    for (; offset < p->page && j < n; offset++, j++) {
      keys->row[j] = page + offset * step;
      if (KV_FORMAT == TYPE_MODEL1)
        keys->scale[j] = (const uint8_t *)page + p->page * MODEL1_ROW + offset * MODEL1_SCALES;
    }
  }
  keys->count = n, keys->extra = 0;
}

// Where a row of an item belongs.
static row_out_t row_out(const params_t *p, const item_t *item, int64_t row) {
  const int64_t token = query_start(p, item->request) + row / p->group;
  const int64_t head = item->kv_head * p->group + row % p->group;
  const int64_t out =
      item->request * p->out_request + token * p->out_token + head * p->out_head;
  const int64_t lse =
      item->request * p->lse_request + token * p->lse_token + head * p->lse_head;
  const int64_t max = item->request * p->max_request + token * p->max_token + head * p->max_head;
  return (row_out_t){
      .out = (char *)p->out + (size_t)out * type_bytes(p->out_type),
      .lse = p->lse ? (float *)p->lse + lse : NULL,
      .max_logit = p->max_logits ? (float *)p->max_logits + max : NULL,
      .sink = p->sink ? (const float *)p->sink + head : NULL,
  };
}

static void load_queries(const params_t *p, const item_t *item, work_t *w) {
  const int rows = item->row_end - item->row_begin;
  const int64_t keys = key_count(p, item->request), tokens = query_count(p, item->request);
  const int64_t start = query_start(p, item->request);
  for (int r = 0; r < rows; r++) {
    int64_t row = item->row_begin + r, token = row / p->group,
            head = item->kv_head * p->group + row % p->group;
    int64_t at = item->request * p->q_request + (start + token) * p->q_token + head * p->q_head;
    load_query(w, r, rows, (const char *)p->q + (size_t)at * type_bytes(p->q_type), (int)p->q_type);
    w->visible[r] =
        (int32_t)(p->causal ? oi_max(0, oi_min(keys, keys - tokens + token + 1)) : keys);
  }
}

void attention(const params_t *p, oi_ctx *ctx) { run(p, ctx); }
