// The second half of dispatch: ranks tell each other where their rows shall lie, then every source
// writes its tokens there, each once for every rank of its own node. A token for another node goes
// there once, as a record, to the rank that forwards for the source; that one writes it to the
// ranks of its node. Rows end in the order of source rank, then token, whatever the timing.
#include "ep_rows.h"

typedef struct plan_t {
  ep_steps steps;
  ep_nodes n;
  ep_sizes sizes;
  int64_t local_experts;
  int32_t served_count;
  int32_t *served;        // this rank first, then those it forwards for
  int64_t *forward_from;  // of each served source: its first row among what is forwarded
  ep_block *blocks;       // [served][ranks of the node]
  uint8_t **records;      // [nodes]: where this rank's records of a node begin
  uint8_t **staged;       // [nodes]: the same if they are put, else null
  int32_t *running;       // [ranks of the node]
} plan_t;

static const int32_t *counts_of(const params_t *p) { return (const int32_t *)p->counts; }
static int64_t node_count(const params_t *p, const ep_nodes *n, int32_t source, int32_t node) {
  return ((const int32_t *)p->node_counts)[(int64_t)source * n->nodes + node];
}
static const ep_message *from_peer(const plan_t *plan, int32_t peer) {
  return ep_incoming(&plan->steps, peer);
}

static void free_plan(plan_t *plan) {
  if (plan == NULL) return;
  int32_t blocks = plan->blocks == NULL ? 0 : plan->served_count * plan->n.count;
  for (int32_t i = 0; i < blocks; i++) free(plan->blocks[i].staged);
  for (int32_t i = 0; plan->staged != NULL && i < plan->n.nodes; i++) free(plan->staged[i]);
  free(plan->served);
  free(plan->forward_from);
  free(plan->blocks);
  free(plan->records);
  free(plan->staged);
  free(plan->running);
  free(plan);
}

static plan_t *make_plan(const params_t *p) {
  oi_window *w = p->window;
  plan_t *plan = calloc(1, sizeof *plan);
  if (plan == NULL) return NULL;
  plan->steps = (ep_steps){.w = w, .slot_bytes = p->slot_bytes, .step = p->step};
  plan->n = ep_nodes_of(w->group, p->ranks_per_node);
  plan->sizes = ep_sizes_of(p->row_bytes, p->scale_count, p->topk, p->ranks_per_node);
  plan->local_experts = p->experts / plan->n.size;
  size_t size = (size_t)plan->n.size, nodes = (size_t)plan->n.nodes;
  plan->served = calloc(size, sizeof *plan->served);
  plan->forward_from = calloc(size + 1, sizeof *plan->forward_from);
  plan->blocks = calloc(size * (size_t)plan->n.count, sizeof *plan->blocks);
  plan->records = calloc(nodes, sizeof *plan->records);
  plan->staged = calloc(nodes, sizeof *plan->staged);
  plan->running = calloc((size_t)plan->n.count, sizeof *plan->running);
  if (plan->served == NULL || plan->forward_from == NULL || plan->blocks == NULL ||
      plan->records == NULL || plan->staged == NULL || plan->running == NULL) {
    free_plan(plan);
    return NULL;
  }
  plan->served[plan->served_count++] = plan->n.rank;
  int64_t rows = 0;
  for (int32_t s = 0; s < plan->n.size; s++) {
    if (s == plan->n.rank || !ep_serves(&plan->n, plan->n.rank, s)) continue;
    plan->forward_from[plan->served_count] = rows;
    plan->served[plan->served_count++] = s;
    rows += node_count(p, &plan->n, s, plan->n.node);
  }
  plan->forward_from[plan->served_count] = rows;
  return plan;
}

// Tells all where this rank's rows go, or that it has no room for them.
static int exchange_places(const params_t *p, plan_t *plan, ep_op *op) {
  oi_group *g = plan->steps.w->group;
  ep_message head = {.kind = p->cached ? EP_DISPATCH_CACHED : EP_DISPATCH,
                     .step = p->step,
                     .row_bytes = p->row_bytes,
                     .element = p->element,
                     .scales = p->scale_count,
                     .topk = p->topk,
                     .experts = p->experts,
                     .ranks_per_node = p->ranks_per_node,
                     .options = p->options,
                     .status = p->status,
                     .needed = p->needed,
                     .capacity = p->capacity};
  int64_t places[] = {p->x_at, p->scales_at, p->choice_at, p->weights_at, p->source_at, -1};
  memcpy(head.at, places, sizeof places);
  int64_t rows = ep_rows_before(counts_of(p), g->size, g->size, g->rank);
  int64_t forwarded = plan->forward_from[plan->served_count];
  if (p->worst && (rows > p->rows || forwarded > p->forward_rows)) {
    head.status = EP_WORST_TOO_SMALL;
    head.needed = oi_max(rows, forwarded);
    head.capacity = p->rows;
  }
  for (int32_t peer = 0; peer < g->size; peer++)
    memcpy(ep_outgoing(&plan->steps, peer), &head, sizeof head);
  for (int32_t k = 1; k < plan->served_count; k++)
    ep_outgoing(&plan->steps, plan->served[k])->at[5] =
        p->stage_at + plan->forward_from[k] * plan->sizes.record;
  if (ep_exchange(&plan->steps, &head, 0, "where the rows of dispatch go") != OI_ARRIVED) return 0;
  return ep_all_ready(&plan->steps, op);
}

static int no_memory(const plan_t *plan) {
  oi_group *g = plan->steps.w->group;
  oi_fail(g, OI_BAD_DATA, g->rank, 0, 0, 0, "no memory to stage rows for ranks behind a link");
  return 0;
}

static int open_targets(const params_t *p, plan_t *plan) {
  const ep_nodes *n = &plan->n;
  const int32_t *counts = counts_of(p);
  for (int32_t k = 0; k < plan->served_count; k++) {
    int32_t s = plan->served[k];
    for (int32_t l = 0; l < n->count; l++) {
      int32_t to = n->first + l;
      int64_t first = ep_rows_before(counts, n->size, s, to);
      if (!ep_open_block(&plan->blocks[k * n->count + l], p->segments, from_peer(plan, to), to,
                         first, counts[(int64_t)s * n->size + to], &plan->sizes))
        return no_memory(plan);
    }
  }
  for (int32_t node = 0; node < n->nodes; node++) {
    int64_t rows = node_count(p, n, n->rank, node);
    if (node == n->node || rows == 0) continue;
    int32_t to = ep_forwarder(n, node, n->rank);
    int64_t place = from_peer(plan, to)->at[5];
    if (oi_is_mapped(ep_segment(p->segments, place), to)) {
      plan->records[node] = ep_at(p->segments, to, place);
      continue;
    }
    void *memory = NULL;
    if (posix_memalign(&memory, 64, (size_t)(rows * plan->sizes.record)) != 0)
      return no_memory(plan);
    plan->records[node] = plan->staged[node] = memory;
  }
  return 1;
}

// This rank's token to the ranks of its node and, once each, to the other nodes.
static void send_token(const params_t *p, const plan_t *plan, int64_t t) {
  const ep_nodes *n = &plan->n;
  const int32_t *place = (const int32_t *)p->positions + t * n->size;
  const int32_t *node_place = (const int32_t *)p->node_positions + t * n->nodes;
  ep_row row = {.x = (const uint8_t *)p->x + t * p->row_bytes, .source = (int32_t)t};
  row.scales = (const uint8_t *)p->scales + 4 * t * p->scale_row;
  row.scale_step = 4 * p->scale_column;
  if (p->topk > 0) {
    row.choice = (const int64_t *)p->choice + t * p->topk;
    row.weights = (const float *)p->weights + t * p->topk;
  }
  int past = (int)p->past_caches;
  for (int32_t l = 0; l < n->count; l++) {
    int32_t i = place[n->first + l];
    if (i >= 0) ep_write_row(&plan->blocks[l], i, &row, &plan->sizes, plan->local_experts, past);
  }
  for (int32_t node = 0; node < n->nodes; node++) {
    int32_t i = node_place[node];
    if (node == n->node || i < 0) continue;
    uint8_t mask[n->per_node];
    int32_t first = node * n->per_node, ranks = n->size - first;
    if (ranks > n->per_node) ranks = n->per_node;
    for (int32_t l = 0; l < ranks; l++) mask[l] = place[first + l] >= 0;
    ep_write_record(plan->records[node] + i * plan->sizes.record, &row, &plan->sizes, mask, ranks,
                    past);
  }
}

// Counts the bytes of own tokens, puts what is staged, and tells the forwarders.
static void finish_sending(const params_t *p, const plan_t *plan) {
  const ep_nodes *n = &plan->n;
  oi_window *w = plan->steps.w;
  for (int32_t l = 0; l < n->count; l++) {
    const ep_block *b = &plan->blocks[l];
    ep_put_block(b, p->segments, from_peer(plan, b->rank), &plan->sizes);
    ep_count(w->group, p->payload, b->rank, b->rows * plan->sizes.row, b->staged != NULL);
  }
  for (int32_t node = 0; node < n->nodes; node++) {
    if (node == n->node) continue;
    int32_t to = ep_forwarder(n, node, n->rank);
    int64_t bytes = node_count(p, n, n->rank, node) * plan->sizes.record;
    if (plan->staged[node] != NULL) {
      int64_t place = from_peer(plan, to)->at[5];
      // In pieces, so that the link is busy from the first on.
      int64_t piece = p->piece_rows * plan->sizes.record;
      for (int64_t at = 0; at < bytes; at += piece)
        oi_put(ep_segment(p->segments, place), to, ep_offset(place) + at, plan->staged[node] + at,
               oi_min(piece, bytes - at));
    }
    ep_count(w->group, p->payload, to, bytes, plan->staged[node] != NULL);
    oi_signal(w, to, EP_ARRIVED * n->size + n->rank, p->seq);
  }
}

static const uint8_t *record_at(const params_t *p, const plan_t *plan, int64_t i) {
  return ep_at(p->segments, plan->n.rank, p->stage_at) + i * plan->sizes.record;
}

// Waits for the records of the sources that this rank forwards for, and gives each its places.
static int await_records(const params_t *p, plan_t *plan) {
  const ep_nodes *n = &plan->n;
  oi_window *w = plan->steps.w;
  for (int32_t k = 1; k < plan->served_count; k++) {
    int32_t s = plan->served[k];
    if (oi_wait(w, EP_ARRIVED * n->size + s, p->seq, s, "the tokens to forward in its node") !=
        OI_ARRIVED)
      return 0;
    memset(plan->running, 0, sizeof *plan->running * (size_t)n->count);
    for (int64_t i = plan->forward_from[k]; i < plan->forward_from[k + 1]; i++) {
      const uint8_t *mask = record_at(p, plan, i) + plan->sizes.mask_at;
      int32_t *place = (int32_t *)p->forward_positions + i * n->per_node;
      for (int32_t l = 0; l < n->count; l++) place[l] = mask[l] ? plan->running[l]++ : -1;
      for (int32_t l = n->count; l < n->per_node; l++) place[l] = -1;
    }
    for (int32_t l = 0; l < n->count; l++) {
      int64_t want = counts_of(p)[(int64_t)s * n->size + n->first + l];
      if (plan->running[l] == want) continue;
      oi_fail(w->group, OI_BAD_DATA, s, plan->running[l], want, 0,
              "the tokens to forward are not those that were announced");
      return 0;
    }
  }
  return 1;
}

static void forward_record(const params_t *p, const plan_t *plan, int64_t i) {
  int32_t k = 1;
  while (i >= plan->forward_from[k + 1]) k++;
  ep_row row = ep_row_of_record(&plan->sizes, record_at(p, plan, i));
  const int32_t *place = (const int32_t *)p->forward_positions + i * plan->n.per_node;
  for (int32_t l = 0; l < plan->n.count; l++) {
    if (place[l] < 0) continue;
    ep_write_row(&plan->blocks[k * plan->n.count + l], place[l], &row, &plan->sizes,
                 plan->local_experts, (int)p->past_caches);
  }
}

// Everything is written: tells the node, and waits until it has told this rank.
static void finish(const params_t *p, plan_t *plan) {
  const ep_nodes *n = &plan->n;
  oi_window *w = plan->steps.w;
  for (int32_t i = n->count; i < plan->served_count * n->count; i++) {
    const ep_block *b = &plan->blocks[i];
    ep_put_block(b, p->segments, from_peer(plan, b->rank), &plan->sizes);
    ep_count(w->group, p->payload, b->rank, b->rows * plan->sizes.row, b->staged != NULL);
  }
  for (int32_t l = 0; l < n->count; l++)
    oi_signal(w, n->first + l, EP_DONE * n->size + n->rank, p->seq);
  for (int32_t l = 0; l < n->count; l++) {
    int32_t peer = n->first + l;
    if (oi_wait(w, EP_DONE * n->size + peer, p->seq, peer, "the rows of dispatch") != OI_ARRIVED)
      return;
  }
  if (oi_flush(w->group) == OI_ARRIVED) free_plan(plan);
}

static void begin(const params_t *p, ep_op *op) {
  plan_t *plan = make_plan(p);
  if (plan == NULL) {
    oi_window *w = p->window;
    oi_fail(w->group, OI_BAD_DATA, w->group->rank, 0, 0, 0, "no memory for the plan of dispatch");
    ep_stop(op);
    return;
  }
  if (!exchange_places(p, plan, op) || !open_targets(p, plan)) {
    free_plan(plan);
    ep_stop(op);
    return;
  }
  op->plan = (int64_t)(intptr_t)plan;
}

// Rows beyond the real ones, where the caller asked for a fixed number: no expert.
static void fill_tail(const params_t *p, const plan_t *plan, oi_ctx *ctx) {
  if (!p->worst || p->topk == 0) return;
  int32_t me = plan->n.rank;
  int64_t rows = ep_rows_before(counts_of(p), plan->n.size, plan->n.size, me);
  int64_t *choice = (int64_t *)ep_at(p->segments, me, p->choice_at);
  float *weights = (float *)ep_at(p->segments, me, p->weights_at);
  for (int64_t i = rows * p->topk + ctx->tid; i < p->rows * p->topk; i += ctx->nthreads) {
    choice[i] = -1;
    weights[i] = 0;
  }
}

void ep_dispatch(const params_t *p, oi_ctx *ctx) {
  enum { TOKENS = 8 };
  ep_op *op = p->op;
  if (ctx->tid == 0) begin(p, op);
  if (ep_stopped(op, ctx)) return;
  plan_t *plan = (plan_t *)(intptr_t)op->plan;
  for (int64_t from; (from = oi_take(ctx, TOKENS)) < p->tokens;)
    for (int64_t t = from; t < oi_min(p->tokens, from + TOKENS); t++) send_token(p, plan, t);
  fill_tail(p, plan, ctx);
  ep_fence();
  ep_restart(ctx);
  if (ctx->tid == 0) {
    finish_sending(p, plan);
    if (!await_records(p, plan)) ep_stop(op);
  }
  if (ep_stopped(op, ctx)) return;
  int64_t forwarded = plan->forward_from[plan->served_count];
  for (int64_t from; (from = oi_take(ctx, TOKENS)) < forwarded;)
    for (int64_t i = from; i < oi_min(forwarded, from + TOKENS); i++) forward_record(p, plan, i);
  ep_fence();
  oi_barrier(ctx);
  if (ctx->tid == 0) finish(p, plan);
}
