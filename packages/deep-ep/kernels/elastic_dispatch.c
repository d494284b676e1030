// The second half of a dispatch: tokens to their places. Where ranks share memory a token is read
// once and written where its receiver wants it, in every copy that the expanded layout asks for.
// Into another process it goes as a record of its window, and the receiver copies it out; to
// another host the records are gathered and put in large pieces.
//
// With nodes (hybrid mode) a token crosses to each other node once, to the rank there that has the
// sender's place in its node, which passes it on within the node.
#include "elastic_dispatch.h"

enum { TAKE_TOKENS, TAKE_FORWARDS, TAKE_ROWS, TAKE_PADDING, TAKE_SCALES };
enum { CHUNK = 8 };

// The first thread's tables, for all.
typedef struct {
  results_t *results;  // [R], of ranks whose memory is mine
  int64_t *row_base;   // [R from][R to]: the row at `to` where those of `from` begin
  int64_t *forward_base;  // [R from]: where its tokens begin among what is forwarded here
  uint8_t **staging;  // [R from][R to], only to ranks behind links; [me][f] also what f forwards
  uint8_t *memory;
} tables_t;

// Bytes to gather for links: whole pairs of sender and receiver.
static int64_t staging_bytes(const params_t *p, const kind_t *k, const node_t *n, tables_t *t,
                             uint8_t *base, int32_t me) {
  int64_t at = 0;
  for (int64_t i = 0; i < n->nodes; i++) {
    int32_t from = rail(n, i);
    if (n->nodes == 1) from = me;
    for (int64_t to = n->first; to < n->first + n->size; to++) {
      if (reach_of(p, to) != REACH_LINK) continue;
      t->staging[from * n->ranks + to] = base + at;
      at += count_of(p, n->ranks, from, to) * k->record.bytes;
    }
  }
  for (int64_t i = 0; i < n->nodes; i++) {
    if (i == n->node || n->nodes == 1 || reach_of(p, rail(n, i)) != REACH_LINK) continue;
    t->staging[me * n->ranks + rail(n, i)] = base + at;
    at += forwarded_from(p, n, me, i) * k->forward.bytes;
  }
  return at;
}

static tables_t *make_tables(const params_t *p, const kind_t *k, const node_t *n, oi_window *w,
                             elastic_work *work) {
  int64_t r = n->ranks;
  size_t bytes = sizeof(tables_t) + (size_t)r * (sizeof(results_t) + 8) + (size_t)(r * r) * 16;
  tables_t *t = calloc(1, bytes);
  work->tables = t;
  if (t == NULL) return NULL;
  t->results = (results_t *)(t + 1);
  t->row_base = (int64_t *)(t->results + r);
  t->forward_base = t->row_base + r * r;
  t->staging = (uint8_t **)(t->forward_base + r);
  fill_row_bases(p, r, t->row_base);
  fill_forward_bases(p, n, t->forward_base);
  int64_t staging = staging_bytes(p, k, n, t, NULL, w->group->rank);
  if (staging > 0) {
    t->memory = malloc((size_t)staging);
    if (t->memory == NULL) return NULL;
    staging_bytes(p, k, n, t, t->memory, w->group->rank);
  }
  return t;
}

static void own_message(const params_t *p, int64_t *m) {
  int64_t same[M_SAME] = {p->cached ? 2 : 1, p->max_tokens, p->row_bytes, p->topk, p->experts,
                          p->alignment, p->sf_packs, p->weighted, p->expanded};
  memset(m, 0, M_WORDS * 8);
  memcpy(m, same, sizeof same);
  m[M_X] = (int64_t)(intptr_t)p->out_x;
  m[M_SF] = (int64_t)(intptr_t)p->out_sf;
  m[M_SF_TOKEN_STRIDE] = p->out_sf_token_stride;
  m[M_SF_PACK_STRIDE] = p->out_sf_pack_stride;
  m[M_IDX] = (int64_t)(intptr_t)p->out_idx;
  m[M_WEIGHTS] = (int64_t)(intptr_t)p->out_weights;
  m[M_META] = (int64_t)(intptr_t)p->out_meta;
}

static void results_of(const int64_t *m, results_t *to) {
  to->x = (uint8_t *)(intptr_t)m[M_X];
  to->sf = (uint8_t *)(intptr_t)m[M_SF];
  to->sf_token_stride = m[M_SF_TOKEN_STRIDE];
  to->sf_pack_stride = m[M_SF_PACK_STRIDE];
  to->idx = (int64_t *)(intptr_t)m[M_IDX];
  to->weights = (float *)(intptr_t)m[M_WEIGHTS];
  to->meta = (int32_t *)(intptr_t)m[M_META];
}

// Says to all contacts that this rank is ready and where its results go; learns the same of them.
static int32_t greet(const params_t *p, const node_t *n, oi_window *w, tables_t *t) {
  oi_group *g = w->group;
  int64_t own[M_WORDS];
  own_message(p, own);
  int32_t code = exchange_messages(p, n, w, own);
  if (code != OI_ARRIVED) return code;
  results_of(own, &t->results[g->rank]);
  for (int32_t i = 0; i < g->size; i++)
    if (i != g->rank && is_contact(n, i))
      results_of(message_of(w, p->messages_at, p->epoch, i), &t->results[i]);
  return OI_ARRIVED;
}

// A token to a rank of this node, at `place` among the tokens of its source for that rank. Returns
// bytes written.
static int64_t deliver(const params_t *p, const kind_t *k, const node_t *n, oi_window *w,
                       tables_t *t, const token_t *token, int64_t to, int64_t place) {
  int64_t source = token->source / p->max_tokens;
  int64_t row = t->row_base[source * n->ranks + to] + place;
  int reach = reach_of(p, to);
  if (reach == REACH_MEMORY) {
    int64_t via = n->nodes > 1 ? source % n->size : source;
    return place_token(k, token, &t->results[to], to, row, via);
  }
  uint8_t *at = reach == REACH_WINDOW
                    ? oi_peer_data(w, (int32_t)to, p->data_at + row * k->record.bytes)
                    : t->staging[source * n->ranks + to] + place * k->record.bytes;
  write_record(k, token, NULL, at);
  return reach == REACH_WINDOW ? k->record.bytes : 0;  // a put counts itself
}

// What a forwarder notes of a token for combine: its source, whether it is the source's last, for
// each selection in this node the rank and the row (or slot) there, and its place in the order.
static void note_forward(const params_t *p, const node_t *n, tables_t *t, const token_t *token,
                         const int32_t *places, int64_t k_count, int64_t local, int64_t index) {
  if (p->forward_meta == NULL) return;
  int64_t source = token->source / p->max_tokens;
  int32_t *meta = (int32_t *)p->forward_meta + index * (2 + 2 * k_count);
  int32_t *kept = (int32_t *)p->forward_places + index * k_count;
  int64_t last = t->forward_base[source] + forwarded_from(p, n, source, n->node) - 1;
  meta[0] = token->source;
  meta[1] = index == last;
  for (int64_t k = k_count - 1; k >= 0; k--) {
    int64_t e = selection(token, k), rank = e < 0 ? -1 : e / local;
    int here = rank >= n->first && rank < n->first + n->size;
    kept[k] = here ? places[k] : -1;
    meta[2 + k] = here ? (int32_t)(rank - n->first) : -1;
    int32_t *row = meta + 2 + k_count + k;
    *row = -1;
    if (!here) continue;
    if (p->expanded) *row = token->expanded[k];
    else if (places[k] >= 0) *row = (int32_t)(t->row_base[source * n->ranks + rank] + places[k]);
    // A selection before the last one of its rank shares that one's row.
    for (int64_t j = k + 1; *row < 0 && j < k_count; j++)
      if (meta[2 + j] == meta[2 + k]) *row = meta[2 + k_count + j];
  }
}

// To each rank of this node that the token goes to.
static void spread(const params_t *p, const kind_t *k, const node_t *n, oi_window *w, tables_t *t,
                   const token_t *token, const int32_t *places, int64_t *bytes) {
  for (int64_t i = 0; i < k->topk; i++) {
    if (places[i] < 0) continue;
    int64_t to = selection(token, i) / k->local;
    if (to < n->first || to >= n->first + n->size) continue;
    bytes[to - n->first] += deliver(p, k, n, w, t, token, to, places[i]);
  }
}

// A token of this rank: within its node, and once to each other node.
static void send_token(const params_t *p, const kind_t *k, const node_t *n, oi_window *w,
                       tables_t *t, int64_t index, int64_t *bytes, int64_t *far) {
  int32_t me = w->group->rank;
  int64_t at = index * k->topk;
  token_t token = {.x = (const uint8_t *)p->x + index * k->row_bytes,
                   .sf = (const uint8_t *)p->sf + index * p->sf_token_stride * 4,
                   .sf_pack_stride = p->sf_pack_stride,
                   .selected = (const int64_t *)p->topk_idx + at,
                   .source = (int32_t)(me * p->max_tokens + index)};
  if (p->weights != NULL) token.weights = (const float *)p->weights + at;
  if (k->expanded) token.expanded = (const int32_t *)p->dst_expanded + at;
  const int32_t *slots = (const int32_t *)p->dst_slots + at;
  int32_t places[k->topk];
  for (int64_t i = 0; i < k->topk; i++)
    places[i] = slots[i] < 0 ? -1 : (int32_t)(slots[i] - me * p->max_tokens);
  spread(p, k, n, w, t, &token, places, bytes);
  if (n->nodes == 1) return;
  const int32_t *forwards = (const int32_t *)p->dst_forwards + at;
  for (int64_t i = 0; i < k->topk; i++) {
    if (forwards[i] < 0) continue;
    int64_t node = token.selected[i] / (k->local * n->size);
    int32_t to = rail(n, node);
    if (node == n->node) {
      note_forward(p, n, t, &token, places, k->topk, k->local, t->forward_base[me] + forwards[i]);
      continue;
    }
    if (reach_of(p, to) == REACH_LINK) {
      uint8_t *staged = t->staging[me * n->ranks + to] + forwards[i] * k->forward.bytes;
      write_record(k, &token, places, staged);
      continue;
    }
    int64_t base = 0;
    for (int64_t j = 0; j < n->node; j++) base += forwarded_from(p, n, rail(n, j), node);
    int64_t offset = p->forward_at + (base + forwards[i]) * k->forward.bytes;
    write_record(k, &token, places, oi_peer_data(w, to, offset));
    far[node] += k->forward.bytes;
  }
}

// What came from other nodes, passed on within this one.
static void forward_tokens(const params_t *p, const kind_t *k, const node_t *n, oi_window *w,
                           tables_t *t, elastic_work *work, int64_t *bytes) {
  int64_t all = 0;
  for (int64_t i = 0; i < n->nodes; i++) all += forwarded_from(p, n, rail(n, i), n->node);
  for (int64_t from; (from = take(work, TAKE_FORWARDS, CHUNK)) < all;) {
    int64_t node = 0;
    for (int64_t j = from; j < oi_min(all, from + CHUNK); j++) {
      while (node + 1 < n->nodes && t->forward_base[rail(n, node + 1)] <= j) node++;
      if (node == n->node) continue;  // passed on when they were sent
      token_t token;
      const uint8_t *record = w->data + p->forward_at + j * k->forward.bytes;
      const int32_t *places = read_record(k, &k->forward, record, &token);
      spread(p, k, n, w, t, &token, places, bytes);
      note_forward(p, n, t, &token, places, k->topk, k->local, j);
    }
  }
}

// Tokens that a rank receives.
static int64_t received(const params_t *p, const node_t *n, const tables_t *t, int32_t rank) {
  int64_t last = n->ranks - 1;
  return t->row_base[last * n->ranks + rank] + count_of(p, n->ranks, last, rank);
}

// What came as records, into this rank's results.
static void unpack_rows(const params_t *p, const kind_t *k, const node_t *n, oi_window *w,
                        tables_t *t, elastic_work *work) {
  int32_t me = w->group->rank;
  int64_t all = received(p, n, t, me);
  for (int64_t from; (from = take(work, TAKE_ROWS, CHUNK)) < all;) {
    int64_t source = 0;
    for (int64_t row = from; row < oi_min(all, from + CHUNK); row++) {
      while (source + 1 < n->ranks && t->row_base[(source + 1) * n->ranks + me] <= row) source++;
      int64_t via = n->nodes > 1 ? n->first + source % n->size : source;
      if (reach_of(p, via) == REACH_MEMORY) continue;
      token_t token;
      read_record(k, &k->record, w->data + p->data_at + row * k->record.bytes, &token);
      place_token(k, &token, &t->results[me], me, row, n->nodes > 1 ? source % n->size : source);
    }
  }
}

// Zeros where an expert's rows are filled up to its alignment.
static void zero_padding(const params_t *p, const kind_t *k, const results_t *to,
                         elastic_work *work) {
  const int32_t *ends = (const int32_t *)p->psum_experts;
  for (int64_t i; (i = take(work, TAKE_PADDING, 1)) < k->local;) {
    for (int64_t row = ends[i]; row < align_up(ends[i], p->alignment); row++) {
      memset(to->x + row * k->row_bytes, 0, (size_t)k->row_bytes);
      for (int64_t j = 0; j < k->sf_packs; j++)
        ((uint32_t *)to->sf)[row * to->sf_token_stride + j * to->sf_pack_stride] = 0;
      if (to->weights != NULL) to->weights[row] = 0;
    }
  }
}

// Scales came row by row; here they become columns, a square of 16 rows and packs at a time, so
// that neither side touches a line for one element.
static void turn_sf(const params_t *p, const kind_t *k, elastic_work *work, int64_t received) {
  if (p->sf_columns == NULL) return;
  const int32_t *ends = (const int32_t *)p->psum_experts;
  const uint32_t *rows = p->out_sf;
  uint32_t *columns = p->sf_columns;
  int64_t all = k->expanded ? align_up(ends[k->local - 1], p->alignment) : received;
  int64_t packs = k->sf_packs;
  for (int64_t from; (from = take(work, TAKE_SCALES, 16)) < all;) {
    int64_t to = oi_min(all, from + 16);
    for (int64_t first = 0; first < packs; first += 16)
      for (int64_t j = first; j < oi_min(packs, first + 16); j++)
        for (int64_t i = from; i < to; i++)
          columns[j * p->sf_column_stride + i] = rows[i * packs + j];
  }
}

// Rows that are allocated for the worst case but hold nothing: no selection, no source.
static void mark_rest(const params_t *p, const kind_t *k, const results_t *to, int64_t rows) {
  size_t rest = (size_t)(p->out_rows - rows);
  if (p->out_rows <= rows) return;
  if (to->idx != NULL) memset(to->idx + rows * k->topk, 0xff, rest * (size_t)k->topk * 8);
  if (to->meta != NULL)
    memset(to->meta + rows * (k->topk + 2), 0xff, rest * (size_t)(k->topk + 2) * 4);
}

// After all threads have written: what was gathered goes out, then the word that it has.
static void put_near(const params_t *p, const kind_t *k, const node_t *n, oi_window *w,
                     tables_t *t) {
  int32_t me = w->group->rank;
  for (int64_t i = 1; i < n->size; i++) {
    int32_t to = (int32_t)(n->first + (n->place + i) % n->size);
    for (int64_t j = 0; j < n->nodes && reach_of(p, to) == REACH_LINK; j++) {
      int32_t from = n->nodes == 1 ? me : rail(n, j);
      int64_t offset = p->data_at + t->row_base[from * n->ranks + to] * k->record.bytes;
      oi_put(w, to, offset, t->staging[from * n->ranks + to],
             count_of(p, n->ranks, from, to) * k->record.bytes);
    }
    raise(w, F_DATA, p->epoch, to);
  }
}

static void put_far(const params_t *p, const kind_t *k, const node_t *n, oi_window *w,
                    tables_t *t) {
  int32_t me = w->group->rank;
  for (int64_t i = 1; i < n->nodes; i++) {
    int64_t node = (n->node + i) % n->nodes;
    int32_t to = rail(n, node);
    if (reach_of(p, to) == REACH_LINK) {
      int64_t base = 0;
      for (int64_t j = 0; j < n->node; j++) base += forwarded_from(p, n, rail(n, j), node);
      oi_put(w, to, p->forward_at + base * k->forward.bytes, t->staging[me * n->ranks + to],
             forwarded_from(p, n, me, node) * k->forward.bytes);
    }
    raise(w, F_FORWARD, p->epoch, to);
  }
}

static void count_bytes(const node_t *n, oi_group *g, const int64_t *near, const int64_t *far) {
  for (int64_t i = 0; i < n->size; i++)
    if (near[i] > 0) oi_count(g, (int32_t)(n->first + i), near[i], 1);
  for (int64_t i = 0; i < n->nodes; i++)
    if (far[i] > 0) oi_count(g, rail(n, i), far[i], 1);
}

// Returns whether all went well.
static int run(const params_t *p, const kind_t *k, const node_t *n, oi_ctx *ctx, int64_t *near,
               int64_t *far) {
  oi_window *w = p->window;
  elastic_work *work = p->work;
  tables_t *t = work->tables;
  for (int64_t from; (from = take(work, TAKE_TOKENS, CHUNK)) < p->tokens;)
    for (int64_t i = from; i < oi_min(p->tokens, from + CHUNK); i++)
      send_token(p, k, n, w, t, i, near, far);
  if (p->zero_padding) zero_padding(p, k, &t->results[w->group->rank], work);
  if (n->nodes > 1) {
    if (!all_go_on(ctx, work)) return 0;
    if (ctx->tid == 0) {
      put_far(p, k, n, w, t);
      work->code = await_far(n, w, p->epoch, "tokens of dispatch from another node");
    }
    if (!all_go_on(ctx, work)) return 0;
    forward_tokens(p, k, n, w, t, work, near);
  }
  if (!all_go_on(ctx, work)) return 0;
  if (ctx->tid == 0) {
    end_touching(p, n, w);
    put_near(p, k, n, w, t);
    work->code = await_near(n, w, F_DATA, p->epoch, "the tokens of dispatch");
  }
  if (!all_go_on(ctx, work)) return 0;
  unpack_rows(p, k, n, w, t, work);
  oi_barrier(ctx);
  turn_sf(p, k, work, received(p, n, t, w->group->rank));
  return 1;
}

void elastic_dispatch(const params_t *p, oi_ctx *ctx) {
  oi_window *w = p->window;
  oi_group *g = w->group;
  elastic_work *work = p->work;
  kind_t k = kind_of(p, g);
  node_t n = node_of(p, g);
  int64_t near[n.size], far[n.nodes];
  memset(near, 0, sizeof near);
  memset(far, 0, sizeof far);
  if (ctx->tid == 0) {
    memset(work, 0, sizeof *work);
    tables_t *t = make_tables(p, &k, &n, w, work);
    work->code = t != NULL ? greet(p, &n, w, t)
                           : oi_fail(g, OI_ABORTED, g->rank, 0, 0, 0, "memory for dispatch");
    if (work->code == OI_ARRIVED) work->code = begin_touching(p, &n, w);
    if (work->code == OI_ARRIVED) {
      mark_rest(p, &k, &t->results[g->rank], received(p, &n, t, g->rank));
    }
  }
  if (all_go_on(ctx, work) && run(p, &k, &n, ctx, near, far)) count_bytes(&n, g, near, far);
  oi_barrier(ctx);
  if (ctx->tid != 0) return;
  if (work->code != OI_ARRIVED) let_go(p, &n, w);
  tables_t *t = work->tables;
  // After a failure a link may still read what was gathered, so that stays.
  if (work->code == OI_ARRIVED && oi_flush(g) == OI_ARRIVED) free(t->memory);
  free(t);
}
