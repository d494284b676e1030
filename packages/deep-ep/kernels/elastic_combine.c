// Rows back to the ranks their tokens came from, summed. Where ranks share memory the rank that
// wants the sum reads the rows where they lie, so that nothing is copied in between; rows of
// others come as records, already summed over the selections of one rank.
//
// With nodes (hybrid mode) the rank that passed a token on sums its rows within the node and sends
// one row back. Each level sums in float32, in the order of the token's last selection of each
// rank or node, and rounds to bf16. Without multiple reduction there is one sum, at the end, of
// all rows.
#include "elastic_nodes.h"

enum { TAKE_PUSH, TAKE_FORWARDS, TAKE_TOKENS };
enum { CHUNK = 8 };

typedef struct {
  int64_t topk, local, row_bytes, hidden;
  int64_t record, weights_at;  // bytes of a record, and where its weights lie
  int64_t forwards;
  const uint8_t **x;  // [R], of ranks whose memory is mine
  const float **weights;
  int64_t *row_base, *own_base;  // [R from][R to]; [R]: where a rank's records begin here
  int64_t *forward_base, *near_base;  // [R]; [R from of my place][place of the sender]
  uint8_t **staging;  // [R]
  uint8_t *memory;
} tables_t;

static void sizes_of(const params_t *p, const oi_group *g, tables_t *t) {
  t->topk = p->topk;
  t->local = p->experts / g->size;
  t->hidden = p->hidden;
  t->row_bytes = p->hidden * 2;
  t->weights_at = align_up(t->row_bytes, 32);
  t->record = t->weights_at + align_up(p->topk * 4, 32);
}

static int all_rows_travel(const params_t *p) { return p->expanded && p->single; }

// Where records from the ranks of a node to the forwarder with place `place` begin there.
static int64_t near_offset(const params_t *p, const node_t *n, int64_t place, int64_t from_node,
                           int64_t sender) {
  int64_t at = 0;
  for (int64_t d = 0; d <= sender; d++) {
    int64_t until = d < sender ? n->nodes : from_node;
    for (int64_t i = 0; i < until; i++)
      at += count_of(p, n->ranks, i * n->size + place, n->first + d);
  }
  return at;
}

// Where the rows that the forwarder of `node` sends to `to` begin there.
static int64_t far_offset(const params_t *p, const node_t *n, int64_t to, int64_t node) {
  int64_t at = 0;
  for (int64_t i = 0; i < node; i++) at += forwarded_from(p, n, to, i);
  return at;
}

static int64_t stage(tables_t *t, uint8_t *base, int64_t at, int64_t rank, int64_t records) {
  t->staging[rank] = base + at;
  return at + records * t->record;
}

static int64_t staging_bytes(const params_t *p, const node_t *n, tables_t *t, uint8_t *base,
                             int32_t me) {
  int64_t at = 0;
  for (int64_t i = 1; i < n->size; i++) {
    int64_t to = n->first + (n->place + i) % n->size, rows = 0;
    if (reach_of(p, to) != REACH_LINK) continue;
    if (n->nodes == 1) rows = count_of(p, n->ranks, to, me) * (all_rows_travel(p) ? p->topk : 1);
    for (int64_t j = 0; j < n->nodes && n->nodes > 1; j++)
      rows += count_of(p, n->ranks, j * n->size + to % n->size, me);
    at = stage(t, base, at, to, rows);
  }
  for (int64_t i = 0; i < n->nodes && n->nodes > 1; i++) {
    int64_t to = rail(n, i);
    if (i == n->node || reach_of(p, to) != REACH_LINK) continue;
    at = stage(t, base, at, to, forwarded_from(p, n, to, n->node));
  }
  return at;
}

static tables_t *make_tables(const params_t *p, const node_t *n, oi_window *w,
                             elastic_work *work) {
  size_t r = (size_t)n->ranks;
  tables_t *t = calloc(1, sizeof(tables_t) + r * 8 * 5 + r * r * 16);
  work->tables = t;
  if (t == NULL) return NULL;
  sizes_of(p, w->group, t);
  t->x = (const uint8_t **)(t + 1);
  t->weights = (const float **)(t->x + r);
  t->own_base = (int64_t *)(t->weights + r);
  t->forward_base = t->own_base + r;
  t->staging = (uint8_t **)(t->forward_base + r);
  t->row_base = (int64_t *)(t->staging + r);
  t->near_base = t->row_base + r * r;
  fill_row_bases(p, n->ranks, t->row_base);
  t->forwards = fill_forward_bases(p, n, t->forward_base);
  int64_t at = 0;
  for (int64_t d = 0; d < n->ranks; d++) {
    t->own_base[d] = at;
    at += count_of(p, n->ranks, w->group->rank, d);
  }
  for (int64_t i = 0; i < n->nodes && n->nodes > 1; i++)
    for (int64_t d = 0; d < n->size; d++)
      t->near_base[rail(n, i) * n->size + d] = near_offset(p, n, n->place, i, d);
  int64_t staging = staging_bytes(p, n, t, NULL, w->group->rank);
  if (staging == 0) return t;
  t->memory = malloc((size_t)staging);
  if (t->memory == NULL) return NULL;
  staging_bytes(p, n, t, t->memory, w->group->rank);
  return t;
}

static int32_t greet(const params_t *p, const node_t *n, oi_window *w, tables_t *t) {
  oi_group *g = w->group;
  int64_t own[M_WORDS] = {3, p->max_tokens, t->row_bytes, p->topk, p->experts,
                          0, 0, p->weighted, p->expanded};
  own[M_X] = (int64_t)(intptr_t)p->x;
  own[M_WEIGHTS] = (int64_t)(intptr_t)p->weights;
  int32_t code = exchange_messages(p, n, w, own);
  if (code != OI_ARRIVED) return code;
  for (int32_t i = 0; i < g->size; i++) {
    if (!is_contact(n, i)) continue;
    const int64_t *m = i == g->rank ? own : message_of(w, p->messages_at, p->epoch, i);
    t->x[i] = (const uint8_t *)(intptr_t)m[M_X];
    t->weights[i] = (const float *)(intptr_t)m[M_WEIGHTS];
  }
  return OI_ARRIVED;
}

// ---- Rows of this rank for those that cannot read them

// Row `row` of this rank's tokens as a record: the sum over its selections here.
static void write_row(const params_t *p, const tables_t *t, int64_t row, uint8_t *to,
                      terms_t *terms) {
  const int32_t *slots = (const int32_t *)p->src_meta + row * (t->topk + 2) + 2;
  const float *weights = p->weights;
  float *out = (float *)(to + t->weights_at);
  if (!p->expanded) {
    copy_row(to, (const uint8_t *)p->x + row * t->row_bytes, t->row_bytes);
    if (weights != NULL) memcpy(out, weights + row * t->topk, (size_t)t->topk * 4);
    return;
  }
  terms->rows = terms->groups = 0;
  for (int64_t k = 0; k < t->topk; k++) {
    if (slots[k] < 0) continue;
    add_term(terms, (const uint8_t *)p->x + slots[k] * t->row_bytes);
    if (weights != NULL) out[k] = weights[slots[k]];
  }
  pass_on(to, terms, t->hidden);
}

// Every selection's row for itself, at [selection][token] of its rank.
static void write_selections(const params_t *p, const tables_t *t, oi_window *w, int64_t row,
                             int32_t to, int64_t index) {
  const int32_t *meta = (const int32_t *)p->src_meta + row * (t->topk + 2);
  int64_t token = meta[0] % p->max_tokens;
  for (int64_t k = 0; k < t->topk; k++) {
    int64_t slot = meta[2 + k];
    if (slot < 0) continue;
    int64_t offset = p->data_at + (k * p->max_tokens + token) * t->record;
    int staged = reach_of(p, to) == REACH_LINK;
    uint8_t *at = staged ? t->staging[to] + (index * t->topk + k) * t->record
                         : oi_peer_data(w, to, offset);
    copy_row(at, (const uint8_t *)p->x + slot * t->row_bytes, t->row_bytes);
    if (p->weights != NULL)
      ((float *)(at + t->weights_at))[k] = ((const float *)p->weights)[slot];
    if (staged) oi_put(w, to, offset, at, t->record);
    else oi_count(w->group, to, t->record, 1);
  }
}

// This rank's rows of source `from`, to `to`: the source itself, or who forwards for it.
static void push_rows(const params_t *p, const node_t *n, oi_window *w, tables_t *t,
                      elastic_work *work, terms_t *terms) {
  int32_t me = w->group->rank;
  int64_t last = (n->ranks - 1) * n->ranks + me;
  int64_t all = t->row_base[last] + count_of(p, n->ranks, n->ranks - 1, me);
  for (int64_t from; (from = take(work, TAKE_PUSH, CHUNK)) < all;) {
    int64_t source = 0;
    for (int64_t row = from; row < oi_min(all, from + CHUNK); row++) {
      while (source + 1 < n->ranks && t->row_base[(source + 1) * n->ranks + me] <= row) source++;
      int32_t to = (int32_t)(n->nodes == 1 ? source : n->first + source % n->size);
      if (reach_of(p, to) == REACH_MEMORY) continue;
      int64_t place = row - t->row_base[source * n->ranks + me];
      if (n->nodes == 1 && all_rows_travel(p)) {
        write_selections(p, t, w, row, to, place);
        continue;
      }
      int64_t base = 0;
      if (n->nodes > 1) base = near_offset(p, n, to % n->size, source / n->size, n->place);
      else
        for (int32_t d = 0; d < me; d++) base += count_of(p, n->ranks, source, d);
      if (reach_of(p, to) == REACH_WINDOW) {
        int64_t offset = p->data_at + (base + place) * t->record;
        write_row(p, t, row, oi_peer_data(w, to, offset), terms);
        oi_count(w->group, to, t->record, 1);
        continue;
      }
      int64_t first = n->nodes > 1 ? near_offset(p, n, to % n->size, 0, n->place) : base;
      write_row(p, t, row, t->staging[to] + (base - first + place) * t->record, terms);
    }
  }
}

static void put_rows(const params_t *p, const node_t *n, oi_window *w, tables_t *t) {
  int32_t me = w->group->rank;
  for (int64_t i = 1; i < n->size; i++) {
    int32_t to = (int32_t)(n->first + (n->place + i) % n->size);
    if (reach_of(p, to) != REACH_LINK) continue;
    if (n->nodes == 1 && all_rows_travel(p)) continue;  // put one by one
    int64_t base = 0, rows = 0;
    if (n->nodes == 1) {
      for (int32_t d = 0; d < me; d++) base += count_of(p, n->ranks, to, d);
      rows = count_of(p, n->ranks, to, me);
    } else {
      base = near_offset(p, n, to % n->size, 0, n->place);
      rows = near_offset(p, n, to % n->size, n->nodes, n->place) - base;
    }
    oi_put(w, to, p->data_at + base * t->record, t->staging[to], rows * t->record);
  }
  raise_near(n, w, F_DATA, p->epoch);
}

// ---- Sums

// A token's selections for the level that sums: which rank (or node) holds each, −1 for none;
// which lane is the last of its rank; and that lane's place in the order of rows for the sum's
// rank.
typedef struct {
  int32_t *holder, *place;
  const int32_t *slot;  // expanded: the row of each selection; else null
  const int32_t *masters;  // at least 0 in the last lanes
} lanes_t;

// Gives every selection the place of its rank's last one.
static void share_places(const lanes_t *l, int64_t topk) {
  for (int64_t k = topk - 1; k >= 0; k--) {
    l->place[k] = l->masters[k];
    for (int64_t j = k + 1; l->place[k] < 0 && j < topk; j++)
      if (l->holder[j] == l->holder[k]) l->place[k] = l->place[j];
  }
}

// The rows of lane k's rank in memory: one, or one for each selection.
static void add_memory(const params_t *p, const tables_t *t, const lanes_t *l, int64_t k,
                       int64_t rank, int64_t row, terms_t *terms) {
  const uint8_t *x = t->x[rank];
  if (!p->expanded) {
    if (l->masters[k] >= 0) add_term(terms, x + row * t->row_bytes);
    return;
  }
  if (p->single) {
    add_term(terms, x + l->slot[k] * t->row_bytes);
    return;
  }
  if (l->masters[k] < 0) return;
  for (int64_t j = 0; j <= k; j++)
    if (l->holder[j] == l->holder[k])
      terms->row[terms->rows++] = (const uint16_t *)(x + l->slot[j] * t->row_bytes);
  terms->end[terms->groups++] = terms->rows;
}

static float memory_weight(const params_t *p, const tables_t *t, const lanes_t *l, int64_t k,
                           int64_t rank, int64_t row) {
  const float *weights = t->weights[rank];
  return p->expanded ? weights[l->slot[k]] : weights[row * t->topk + k];
}

static float record_weight(const tables_t *t, const uint8_t *record, int64_t k) {
  return ((const float *)(record + t->weights_at))[k];
}

// A token's sum over all ranks.
static void sum_token(const params_t *p, const node_t *n, oi_window *w, const tables_t *t,
                      int64_t index, lanes_t *l, terms_t *terms) {
  int32_t me = w->group->rank;
  int64_t at = index * t->topk;
  int32_t masters[t->topk];
  const int64_t *selected = (const int64_t *)p->topk_idx + at;
  const int32_t *slots = (const int32_t *)p->dst_slots + at;
  float *weights = p->out_weights != NULL ? (float *)p->out_weights + at : NULL;
  l->masters = masters;
  l->slot = p->expanded ? (const int32_t *)p->dst_expanded + at : NULL;
  for (int64_t k = 0; k < t->topk; k++) {
    l->holder[k] = selected[k] < 0 ? -1 : (int32_t)(selected[k] / t->local);
    masters[k] = slots[k] < 0 ? -1 : (int32_t)(slots[k] - me * p->max_tokens);
  }
  share_places(l, t->topk);
  terms->rows = terms->groups = 0;
  for (int64_t k = 0; k < t->topk; k++) {
    int64_t rank = l->holder[k];
    if (rank < 0) {
      if (weights != NULL) weights[k] = 0;
      continue;
    }
    if (reach_of(p, rank) == REACH_MEMORY) {
      int64_t row = t->row_base[me * n->ranks + rank] + l->place[k];
      add_memory(p, t, l, k, rank, row, terms);
      if (weights != NULL) weights[k] = memory_weight(p, t, l, k, rank, row);
      continue;
    }
    int64_t slot = all_rows_travel(p) ? k * p->max_tokens + index : t->own_base[rank] + l->place[k];
    const uint8_t *record = w->data + p->data_at + slot * t->record;
    if (all_rows_travel(p) || masters[k] >= 0) add_term(terms, record);
    if (weights != NULL) weights[k] = record_weight(t, record, k);
  }
}

// The sum of a forwarded token over the ranks of this node, as a record.
static void sum_forwarded(const params_t *p, const node_t *n, oi_window *w, const tables_t *t,
                          int64_t index, int64_t source, lanes_t *l, terms_t *terms, uint8_t *to) {
  int32_t *meta = (int32_t *)p->forward_meta + index * (2 + 2 * t->topk);
  const int32_t *rows = meta + 2 + t->topk;
  float *weights = p->weighted ? (float *)(to + t->weights_at) : NULL;
  l->masters = (const int32_t *)p->forward_places + index * t->topk;
  l->slot = rows;
  memcpy(l->holder, meta + 2, (size_t)t->topk * 4);
  share_places(l, t->topk);
  terms->rows = terms->groups = 0;
  for (int64_t k = 0; k < t->topk; k++) {
    int64_t peer = l->holder[k], rank = n->first + peer;
    if (peer < 0) continue;
    if (reach_of(p, rank) == REACH_MEMORY) {
      add_memory(p, t, l, k, rank, rows[k], terms);
      if (weights != NULL) weights[k] = memory_weight(p, t, l, k, rank, rows[k]);
      continue;
    }
    int64_t slot = t->near_base[source * n->size + peer] + l->place[k];
    const uint8_t *record = w->data + p->data_at + slot * t->record;
    if (l->masters[k] >= 0) add_term(terms, record);
    if (weights != NULL) weights[k] = record_weight(t, record, k);
  }
  pass_on(to, terms, t->hidden);
}

static void sum_forwards(const params_t *p, const node_t *n, oi_window *w, tables_t *t,
                         elastic_work *work, lanes_t *l, terms_t *terms) {
  for (int64_t from; (from = take(work, TAKE_FORWARDS, CHUNK)) < t->forwards;) {
    int64_t node = 0;
    for (int64_t j = from; j < oi_min(t->forwards, from + CHUNK); j++) {
      while (node + 1 < n->nodes && t->forward_base[rail(n, node + 1)] <= j) node++;
      int32_t source = rail(n, node);
      int64_t place = j - t->forward_base[source];
      if (reach_of(p, source) == REACH_LINK) {
        sum_forwarded(p, n, w, t, j, source, l, terms, t->staging[source] + place * t->record);
        continue;
      }
      int64_t slot = far_offset(p, n, source, n->node) + place;
      uint8_t *to = oi_peer_data(w, source, p->reduce_at + slot * t->record);
      sum_forwarded(p, n, w, t, j, source, l, terms, to);
      if (node != n->node) oi_count(w->group, source, t->record, 1);
    }
  }
}

static void put_forwards(const params_t *p, const node_t *n, oi_window *w, tables_t *t) {
  for (int64_t i = 1; i < n->nodes; i++) {
    int32_t to = rail(n, (n->node + i) % n->nodes);
    if (reach_of(p, to) == REACH_LINK)
      oi_put(w, to, p->reduce_at + far_offset(p, n, to, n->node) * t->record, t->staging[to],
             forwarded_from(p, n, to, n->node) * t->record);
    raise(w, F_FORWARD, p->epoch, to);
  }
}

// A token's sum over nodes.
static void sum_nodes(const params_t *p, const node_t *n, oi_window *w, const tables_t *t,
                      int64_t index, terms_t *terms) {
  int64_t at = index * t->topk;
  const int64_t *selected = (const int64_t *)p->topk_idx + at;
  const int32_t *forwards = (const int32_t *)p->dst_forwards + at;
  float *weights = p->out_weights != NULL ? (float *)p->out_weights + at : NULL;
  const uint8_t *of_node[n->nodes];
  terms->rows = terms->groups = 0;
  for (int64_t k = t->topk - 1; k >= 0; k--) {
    if (forwards[k] < 0) continue;
    int64_t node = selected[k] / (t->local * n->size);
    int64_t slot = far_offset(p, n, w->group->rank, node) + forwards[k];
    of_node[node] = w->data + p->reduce_at + slot * t->record;
  }
  for (int64_t k = 0; k < t->topk; k++) {
    if (forwards[k] >= 0) add_term(terms, of_node[selected[k] / (t->local * n->size)]);
    if (weights == NULL) continue;
    weights[k] = 0;
    if (selected[k] < 0) continue;
    weights[k] = record_weight(t, of_node[selected[k] / (t->local * n->size)], k);
  }
}

static void sum_tokens(const params_t *p, const node_t *n, oi_window *w, const tables_t *t,
                       elastic_work *work, lanes_t *l, terms_t *terms) {
  const uint16_t *bias0 = p->bias0, *bias1 = p->bias1;
  for (int64_t from; (from = take(work, TAKE_TOKENS, CHUNK)) < p->tokens;) {
    for (int64_t i = from; i < oi_min(p->tokens, from + CHUNK); i++) {
      if (n->nodes == 1) sum_token(p, n, w, t, i, l, terms);
      else sum_nodes(p, n, w, t, i, terms);
      reduce_row((uint16_t *)p->out_x + i * t->hidden, terms,
                 bias0 != NULL ? bias0 + i * t->hidden : NULL,
                 bias1 != NULL ? bias1 + i * t->hidden : NULL, t->hidden);
    }
  }
}

// ---- The order of it all

// Counts what was read from others' memory, and tells them that it has been.
static void thank(const params_t *p, const node_t *n, oi_window *w, const tables_t *t) {
  int32_t me = w->group->rank;
  for (int64_t i = 1; i < n->size; i++) {
    int32_t from = (int32_t)(n->first + (n->place + i) % n->size);
    int64_t rows = count_of(p, n->ranks, me, from);
    for (int64_t j = 0; j < n->nodes && n->nodes > 1; j++)
      if (j != n->node) rows += count_of(p, n->ranks, rail(n, j), from);
    if (reach_of(p, from) == REACH_MEMORY) oi_count(w->group, from, rows * t->row_bytes, 1);
  }
  oi_count(w->group, me, count_of(p, n->ranks, me, me) * t->row_bytes, 1);
  end_touching(p, n, w);
  raise_near(n, w, F_DONE, p->epoch);
}

static int run(const params_t *p, const node_t *n, oi_ctx *ctx, lanes_t *l, terms_t *terms) {
  oi_window *w = p->window;
  elastic_work *work = p->work;
  tables_t *t = work->tables;
  push_rows(p, n, w, t, work, terms);
  if (!all_go_on(ctx, work)) return 0;
  if (ctx->tid == 0) {
    put_rows(p, n, w, t);
    work->code = await_near(n, w, F_DATA, p->epoch, "the rows of combine");
  }
  if (!all_go_on(ctx, work)) return 0;
  if (n->nodes > 1) {
    sum_forwards(p, n, w, t, work, l, terms);
    if (!all_go_on(ctx, work)) return 0;
    if (ctx->tid == 0) {
      put_forwards(p, n, w, t);
      work->code = await_far(n, w, p->epoch, "the sums of combine from another node");
    }
    if (!all_go_on(ctx, work)) return 0;
  }
  sum_tokens(p, n, w, t, work, l, terms);
  oi_barrier(ctx);
  if (ctx->tid == 0) {
    thank(p, n, w, t);
    work->code = await_near(n, w, F_DONE, p->epoch, "word that its sums are complete");
  }
  return all_go_on(ctx, work);
}

void elastic_combine(const params_t *p, oi_ctx *ctx) {
  oi_window *w = p->window;
  oi_group *g = w->group;
  elastic_work *work = p->work;
  node_t n = node_of(p, g);
  if (ctx->tid == 0) {
    memset(work, 0, sizeof *work);
    tables_t *t = make_tables(p, &n, w, work);
    work->code = t != NULL ? greet(p, &n, w, t)
                           : oi_fail(g, OI_ABORTED, g->rank, 0, 0, 0, "memory for combine");
    if (work->code == OI_ARRIVED) work->code = begin_touching(p, &n, w);
  }
  const uint16_t *row[p->topk + 1];
  int32_t end[p->topk + 1], holder[p->topk + 1], place[p->topk + 1];
  terms_t terms = {.row = row, .end = end};
  lanes_t lanes = {.holder = holder, .place = place};
  if (all_go_on(ctx, work)) run(p, &n, ctx, &lanes, &terms);
  oi_barrier(ctx);
  if (ctx->tid != 0) return;
  if (work->code != OI_ARRIVED) let_go(p, &n, w);
  tables_t *t = work->tables;
  // After a failure a link may still read what was gathered, so that stays.
  if (work->code == OI_ARRIVED && oi_flush(g) == OI_ARRIVED) free(t->memory);
  free(t);
}
