// Sparse attention: every query has lists of keys of its own, in one or two caches that share one
// softmax. Split s of a query is 256 places of its list (a split never crosses from the first cache
// to the second); what a place names is looked up when its split is computed, and places that name
// no key are dropped there. The rest is attention as in attention.c.
//
// Not here: which items there are (src/plan.ts, an item's request is a query) and checks of
// arguments (src/sparse-decode.ts, src/sparse-prefill.ts). Indices are not checked before: whatever
// lies outside the cache is no key.
//
// Constants: D, DV channels of a key and a value; KV_FORMAT and EXTRA_FORMAT, how keys are stored
// in the two caches, as in attention.c, EXTRA_FORMAT -1 where there is one; KV_TYPE, the type that
// tiles read; Q_PARTS, P_PARTS, Q_BF16 and DOT_PAYS as there.
#define FORMAT_BYTES(f) ((f) == 3 ? 656 : (f) == 4 ? 576 : (f) == 0 ? D * 4 : D * 2)
#define MOST_BYTES(a, b) ((a) > (b) ? (a) : (b))
#define KEY_BYTES                           \
  (EXTRA_FORMAT < 0 ? FORMAT_BYTES(KV_FORMAT) \
                    : MOST_BYTES(FORMAT_BYTES(KV_FORMAT), FORMAT_BYTES(EXTRA_FORMAT)))
#define PREFIX_SPLITS(p) ((p)->prefix_splits)
#include "attention_split.h"

// A cache and its lists.
typedef struct {
  const char *cache;
  const int32_t *indices, *lengths;
  int64_t request_bytes, block_bytes, token_bytes, page, keys, topk;
  int64_t index_request, index_token, length_request, length_token;
} scope_t;

static scope_t scope_of(const params_t *p, int extra) {
  if (extra)
    return (scope_t){p->extra_k, p->extra_indices, p->extra_lengths, p->extra_k_request,
                     p->extra_k_block, p->extra_k_token, p->extra_page, p->extra_keys,
                     p->extra_topk, p->extra_index_request, p->extra_index_token,
                     p->extra_length_request, p->extra_length_token};
  return (scope_t){p->k, p->indices, p->lengths, p->k_request, p->k_block, p->k_token, p->page,
                   p->keys, p->topk, p->index_request, p->index_token, p->length_request,
                   p->length_token};
}

// Places of a query's list that count.
static inline int64_t list_length(const scope_t *s, int64_t request, int64_t token) {
  return s->lengths ? s->lengths[request * s->length_request + token * s->length_token] : s->topk;
}

// Looks up places `from` to `to` of a query's list. `type` is a compile-time format.
INLINE void look_up(const scope_t *s, int type, int64_t request, int64_t token, int64_t from,
                    int64_t to, keys_t *keys) {
  const int32_t *list = s->indices + request * s->index_request + token * s->index_token;
  const char *base = s->cache + request * s->request_bytes;
  const uint32_t page = (uint32_t)s->page;
  int n = 0;
  for (int64_t j = from; j < to; j++) {
    const uint32_t index = (uint32_t)list[j];
    if (index >= (uint64_t)s->keys) continue;  // a negative one is beyond 2^31
    const uint32_t block = index / page, offset = index % page;
    const char *start = base + (int64_t)block * s->block_bytes;
    keys->row[n] = start + offset * (type == TYPE_MODEL1 ? MODEL1_ROW : s->token_bytes);
    if (type == TYPE_MODEL1) {
      keys->scale[n] = (const uint8_t *)start + s->page * MODEL1_ROW + offset * MODEL1_SCALES;
      __builtin_prefetch(keys->scale[n], 0, 2);
    }
    n++;
  }
  keys->count = n;
}

// The keys of a split; none behind the last one.
static void split_keys(const params_t *p, const item_t *item, int64_t end, int split,
                       keys_t *keys) {
  (void)end;
  const int64_t request = item->request / p->tokens, token = item->request % p->tokens;
  const scope_t first = scope_of(p, 0);
  const int64_t n = list_length(&first, request, token);
  const int64_t splits = oi_ceil_div(n, SPLIT_KEYS), from = split * (int64_t)SPLIT_KEYS;
  keys->extra = split >= splits;
  keys->count = 0;
  if (!keys->extra) {
    look_up(&first, KV_FORMAT, request, token, from, oi_min(n, from + SPLIT_KEYS), keys);
    return;
  }
#if EXTRA_FORMAT >= 0
  const scope_t second = scope_of(p, 1);
  const int64_t at = from - splits * SPLIT_KEYS, m = list_length(&second, request, token);
  look_up(&second, EXTRA_FORMAT, request, token, at, oi_min(m, at + SPLIT_KEYS), keys);
#endif
}

static void load_queries(const params_t *p, const item_t *item, work_t *w) {
  const int64_t request = item->request / p->tokens, token = item->request % p->tokens;
  const int rows = item->row_end - item->row_begin;
  for (int r = 0; r < rows; r++) {
    const int64_t at = request * p->q_request + token * p->q_token +
                       (item->row_begin + r) * p->q_head;
    load_query(w, r, rows, (const char *)p->q + (size_t)at * type_bytes(p->q_type), (int)p->q_type);
    w->visible[r] = INT32_MAX;  // whatever the list names
  }
}

static row_out_t row_out(const params_t *p, const item_t *item, int64_t head) {
  const int64_t request = item->request / p->tokens, token = item->request % p->tokens;
  const int64_t out = request * p->out_request + token * p->out_token + head * p->out_head;
  const int64_t lse = request * p->lse_request + token * p->lse_token + head * p->lse_head;
  const int64_t max = request * p->max_request + token * p->max_token + head * p->max_head;
  const int64_t prefix =
      request * p->prefix_request + token * p->prefix_token + head * p->prefix_head;
  return (row_out_t){
      .out = (char *)p->out + (size_t)out * type_bytes(p->out_type),
      .lse = p->lse ? (float *)p->lse + lse : NULL,
      .max_logit = p->max_logits ? (float *)p->max_logits + max : NULL,
      .prefix_lse = p->prefix_lse ? (float *)p->prefix_lse + prefix : NULL,
      .sink = p->sink ? (const float *)p->sink + head : NULL,
  };
}

void sparse_attention(const params_t *p, oi_ctx *ctx) { run(p, ctx); }
