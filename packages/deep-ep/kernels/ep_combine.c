// Combine: what dispatch spread comes back to each token's own rank and is summed, in rank order. A
// rank reads the rows of its node's ranks where they lie; ranks behind a link put them into its
// staging memory. A token that went to another node comes back from there as one row, summed and
// rounded by the rank that had forwarded it.
#include <sched.h>
#include "ep_reduce.h"

// The rows of one source in one rank of this node.
typedef struct block_t {
  const uint8_t *x;
  const float *weights;
} block_t;

typedef struct plan_t {
  ep_steps steps;
  ep_nodes n;
  int64_t weight_bytes;   // of a row
  int32_t served_count;
  int32_t *served;        // this rank first, then those it reduces for
  int64_t *forward_from;  // of each served source: its first row among what is forwarded
  block_t *blocks;        // [served][ranks of the node]
  uint8_t **partials;     // [served]: where sums for other nodes go
  uint8_t **staged;       // [served]: the same if they are put, else null
} plan_t;

static const int32_t *counts_of(const params_t *p) { return (const int32_t *)p->counts; }
static int64_t node_count(const params_t *p, const ep_nodes *n, int32_t source, int32_t node) {
  return ((const int32_t *)p->node_counts)[(int64_t)source * n->nodes + node];
}
static int64_t stage_bytes(const params_t *p, const plan_t *plan, int64_t rows) {
  return ep_align(rows * p->row_bytes) + ep_align(rows * plan->weight_bytes);
}
static int mapped(const params_t *p, int32_t peer) { return oi_is_mapped(p->window, peer); }

// Rows of rank `from`, of the same node, that `to` reads: its own tokens' and those it reduces.
static int64_t rows_between(const params_t *p, const ep_nodes *n, int32_t from, int32_t to) {
  int64_t rows = 0;
  for (int32_t s = 0; s < n->size; s++)
    if (ep_serves(n, to, s)) rows += counts_of(p)[(int64_t)s * n->size + from];
  return rows;
}

static void free_plan(plan_t *plan) {
  if (plan == NULL) return;
  for (int32_t i = 0; plan->staged != NULL && i < plan->served_count; i++) free(plan->staged[i]);
  free(plan->served);
  free(plan->forward_from);
  free(plan->blocks);
  free(plan->partials);
  free(plan->staged);
  free(plan);
}

static plan_t *make_plan(const params_t *p) {
  oi_window *w = p->window;
  plan_t *plan = calloc(1, sizeof *plan);
  if (plan == NULL) return NULL;
  plan->steps = (ep_steps){.w = w, .slot_bytes = p->slot_bytes, .step = p->step};
  plan->n = ep_nodes_of(w->group, p->ranks_per_node);
  plan->weight_bytes = 4 * p->topk;
  size_t size = (size_t)plan->n.size;
  plan->served = calloc(size, sizeof *plan->served);
  plan->forward_from = calloc(size + 1, sizeof *plan->forward_from);
  plan->blocks = calloc(size * (size_t)plan->n.count, sizeof *plan->blocks);
  plan->partials = calloc(size, sizeof *plan->partials);
  plan->staged = calloc(size, sizeof *plan->staged);
  if (plan->served == NULL || plan->forward_from == NULL || plan->blocks == NULL ||
      plan->partials == NULL || plan->staged == NULL) {
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

// Bytes of staging before what `peer` puts: ranks of the node that are behind a link, then nodes.
static int64_t stage_before(const params_t *p, const plan_t *plan, int32_t peer) {
  const ep_nodes *n = &plan->n;
  int64_t bytes = 0;
  for (int32_t r = n->first; r < n->first + n->count && r != peer; r++)
    if (!mapped(p, r)) bytes += stage_bytes(p, plan, rows_between(p, n, r, n->rank));
  if (peer / n->per_node == n->node) return bytes;
  for (int32_t node = 0; node < peer / n->per_node; node++)
    if (node != n->node) bytes += stage_bytes(p, plan, node_count(p, n, n->rank, node));
  return bytes;
}

static int64_t place_of(int64_t place, const void *memory, int64_t shared) {
  if (memory == NULL) return -1;
  return shared ? EP_ADDRESS | (int64_t)(intptr_t)memory : place;
}

static int exchange_places(const params_t *p, plan_t *plan, ep_op *op) {
  const ep_nodes *n = &plan->n;
  ep_message head = {.kind = EP_COMBINE,
                     .step = p->step,
                     .row_bytes = p->row_bytes,
                     .element = p->element,
                     .topk = p->topk,
                     .ranks_per_node = p->ranks_per_node,
                     .options = p->options,
                     .status = p->status,
                     .needed = p->needed,
                     .capacity = p->capacity};
  head.at[0] = place_of(p->x_at, p->x, p->same_process);
  head.at[1] = place_of(p->weights_at, p->weights, p->same_process);
  for (int32_t peer = 0; peer < n->size; peer++) {
    ep_message *m = ep_outgoing(&plan->steps, peer);
    *m = head;
    int here = peer / n->per_node == n->node;
    int puts = here ? !mapped(p, peer) : ep_forwarder(n, peer / n->per_node, n->rank) == peer;
    m->at[5] = puts ? p->stage_at + stage_before(p, plan, peer) : -1;
  }
  if (ep_exchange(&plan->steps, &head, 0, "where the rows of combine lie") != OI_ARRIVED) return 0;
  return ep_all_ready(&plan->steps, op);
}

// ---- Threads of a process read tensors of each other, which their owners let go of when they
// fail. So who reads says so first and looks whether the owner has failed; who fails says so first
// and waits until nobody reads. One of both sees the other.
static _Atomic int64_t *touched(const params_t *p, int32_t owner, int32_t by) {
  oi_window *w = p->window;
  return &w->peers[owner].flags[EP_TOUCHED * w->group->size + by];
}

// Whether this rank reads memory of `r` itself, not of its windows.
static int touches(const params_t *p, const ep_nodes *n, int32_t r) {
  return p->same_process && r != n->rank && mapped(p, r);
}

static void end_touching(const params_t *p, const ep_nodes *n) {
  for (int32_t r = n->first; r < n->first + n->count; r++)
    if (touches(p, n, r)) atomic_store(touched(p, r, n->rank), 2 * p->seq);
}

static int begin_touching(const params_t *p, const ep_nodes *n) {
  oi_window *w = p->window;
  for (int32_t r = n->first; r < n->first + n->count; r++)
    if (touches(p, n, r)) atomic_store(touched(p, r, n->rank), 2 * p->seq - 1);
  for (int32_t r = n->first; r < n->first + n->count; r++) {
    if (!touches(p, n, r) || atomic_load(touched(p, r, r)) == 0) continue;
    oi_fail(w->group, OI_PEER_DEAD, r, 0, 0, 0, "its part of a combine that it gave up");
    return 0;
  }
  return 1;
}

// After a failure: others read for as long as sums take, or until they learn of it.
static void let_go(const params_t *p) {
  oi_window *w = p->window;
  ep_nodes n = ep_nodes_of(w->group, p->ranks_per_node);
  end_touching(p, &n);
  atomic_store(touched(p, n.rank, n.rank), 1);
  int64_t start = oi_now_ns();
  for (int32_t r = n.first; r < n.first + n.count; r++)
    while (touches(p, &n, r) && (atomic_load(touched(p, n.rank, r)) & 1) != 0 &&
           oi_now_ns() - start < 2 * w->group->timeout_ns)
      sched_yield();
}

// Where the rows of each source lie in each rank of the node.
static void find_blocks(const params_t *p, plan_t *plan) {
  const ep_nodes *n = &plan->n;
  const int32_t *counts = counts_of(p);
  for (int32_t l = 0; l < n->count; l++) {
    int32_t r = n->first + l;
    const ep_message *m = ep_incoming(&plan->steps, r);
    int direct = mapped(p, r);
    const uint8_t *x, *weights;
    if (direct) {
      x = ep_at(p->segments, r, m->at[0]);
      weights = plan->weight_bytes ? ep_at(p->segments, r, m->at[1]) : NULL;
    } else {
      x = ep_at(p->segments, n->rank, p->stage_at) + stage_before(p, plan, r);
      weights = x + ep_align(rows_between(p, n, r, n->rank) * p->row_bytes);
    }
    int64_t staged = 0;
    for (int32_t k = 0; k < plan->served_count; k++) {
      int32_t s = plan->served[k];
      int64_t rows = counts[(int64_t)s * n->size + r];
      if (rows == 0) continue;
      int64_t first = direct ? ep_rows_before(counts, n->size, s, r) : staged;
      staged += rows;
      plan->blocks[k * n->count + l] = (block_t){
          x + first * p->row_bytes, (const float *)(weights + first * plan->weight_bytes)};
    }
  }
}

// Puts what ranks of the node that are behind a link read: their tokens' rows, in the order in
// which they serve.
static void put_rows(const params_t *p, const plan_t *plan) {
  const ep_nodes *n = &plan->n;
  const int32_t *counts = counts_of(p);
  oi_window *w = p->window;
  for (int32_t to = n->first; to < n->first + n->count; to++) {
    if (mapped(p, to)) continue;
    int64_t place = ep_incoming(&plan->steps, to)->at[5];
    int64_t row = 0, weights_from = ep_align(rows_between(p, n, n->rank, to) * p->row_bytes);
    oi_window *segment = place < 0 ? NULL : ep_segment(p->segments, place);
    for (int32_t i = -1; i < n->size; i++) {
      int32_t s = i < 0 ? to : i;
      if ((i >= 0 && s == to) || !ep_serves(n, to, s)) continue;
      int64_t rows = counts[(int64_t)s * n->size + n->rank];
      if (rows == 0) continue;
      int64_t first = ep_rows_before(counts, n->size, s, n->rank);
      oi_put(segment, to, ep_offset(place) + row * p->row_bytes,
             (const uint8_t *)p->x + first * p->row_bytes, rows * p->row_bytes);
      oi_put(segment, to, ep_offset(place) + weights_from + row * plan->weight_bytes,
             (const uint8_t *)p->weights + first * plan->weight_bytes, rows * plan->weight_bytes);
      ep_count(w->group, p->payload, to, rows * (p->row_bytes + plan->weight_bytes), 1);
      row += rows;
    }
    oi_signal(w, to, EP_ARRIVED * n->size + n->rank, p->seq);
  }
}

static int open_partials(const params_t *p, plan_t *plan) {
  const ep_nodes *n = &plan->n;
  for (int32_t k = 1; k < plan->served_count; k++) {
    int32_t s = plan->served[k];
    int64_t rows = node_count(p, n, s, n->node);
    if (rows == 0) continue;
    if (mapped(p, s)) {
      plan->partials[k] = ep_at(p->segments, s, ep_incoming(&plan->steps, s)->at[5]);
      continue;
    }
    void *memory = NULL;
    if (posix_memalign(&memory, 64, (size_t)stage_bytes(p, plan, rows)) != 0) {
      oi_fail(plan->steps.w->group, OI_BAD_DATA, n->rank, 0, 0, 0,
              "no memory to stage rows for ranks behind a link");
      return 0;
    }
    plan->partials[k] = plan->staged[k] = memory;
  }
  return 1;
}

static int await_ranks_behind_links(const params_t *p, const plan_t *plan) {
  const ep_nodes *n = &plan->n;
  for (int32_t r = n->first; r < n->first + n->count; r++) {
    if (mapped(p, r)) continue;
    if (oi_wait(p->window, EP_ARRIVED * n->size + r, p->seq, r, "the rows of combine") !=
        OI_ARRIVED)
      return 0;
  }
  return 1;
}

static void begin(const params_t *p, ep_op *op) {
  oi_window *w = p->window;
  plan_t *plan = make_plan(p);
  if (plan == NULL) {
    oi_fail(w->group, OI_BAD_DATA, w->group->rank, 0, 0, 0, "no memory for the plan of combine");
    ep_stop(op);
    return;
  }
  if (!exchange_places(p, plan, op) || !begin_touching(p, &plan->n) || !open_partials(p, plan)) {
    free_plan(plan);
    ep_stop(op);
    return;
  }
  op->plan = (int64_t)(intptr_t)plan;
  find_blocks(p, plan);
  put_rows(p, plan);
  if (!await_ranks_behind_links(p, plan)) ep_stop(op);
}

// Sums the rows of a forwarded token over this node.
static void reduce_forwarded(const params_t *p, const plan_t *plan, int64_t i) {
  const ep_nodes *n = &plan->n;
  int32_t k = 1;
  while (i >= plan->forward_from[k + 1]) k++;
  const int32_t *place = (const int32_t *)p->forward_positions + i * n->per_node;
  const uint16_t *rows[n->count];
  const float *weights[n->count];
  int64_t count = 0;
  for (int32_t l = 0; l < n->count; l++) {
    if (place[l] < 0) continue;
    const block_t *b = &plan->blocks[k * n->count + l];
    rows[count] = (const uint16_t *)(b->x + place[l] * p->row_bytes);
    weights[count++] = plan->weight_bytes ? b->weights + place[l] * p->topk : NULL;
  }
  int64_t row = i - plan->forward_from[k], all = plan->forward_from[k + 1] - plan->forward_from[k];
  uint8_t *to = plan->partials[k];
  ep_sum_rows((uint16_t *)(to + row * p->row_bytes), rows, count, p->row_bytes / 2,
              (int)p->past_caches);
  if (plan->weight_bytes == 0) return;
  float *sums = (float *)(to + ep_align(all * p->row_bytes) + row * plan->weight_bytes);
  ep_sum_floats(sums, weights, count, p->topk);
}

// Tells the other nodes' ranks that their sums are there, and waits for this rank's from there.
static int exchange_partials(const params_t *p, const plan_t *plan) {
  const ep_nodes *n = &plan->n;
  oi_window *w = p->window;
  for (int32_t k = 1; k < plan->served_count; k++) {
    int32_t to = plan->served[k];
    int64_t rows = node_count(p, n, to, n->node);
    int64_t place = ep_incoming(&plan->steps, to)->at[5];
    if (plan->staged[k] != NULL) {
      int64_t head = rows * p->row_bytes, piece = p->piece_rows * p->row_bytes;
      oi_window *segment = ep_segment(p->segments, place);
      for (int64_t at = 0; at < head; at += piece)
        oi_put(segment, to, ep_offset(place) + at, plan->staged[k] + at,
               oi_min(piece, head - at));
      oi_put(segment, to, ep_offset(place) + ep_align(head), plan->staged[k] + ep_align(head),
             rows * plan->weight_bytes);
    }
    ep_count(w->group, p->payload, to, rows * (p->row_bytes + plan->weight_bytes),
             plan->staged[k] != NULL);
    oi_signal(w, to, EP_ARRIVED * n->size + n->rank, p->seq);
  }
  for (int32_t node = 0; node < n->nodes; node++) {
    if (node == n->node) continue;
    int32_t from = ep_forwarder(n, node, n->rank);
    if (oi_wait(w, EP_ARRIVED * n->size + from, p->seq, from, "the sums of its node") !=
        OI_ARRIVED)
      return 0;
  }
  return 1;
}

// Sums a token of this rank: biases, then node by node; of its own node rank by rank.
static void reduce_own(const params_t *p, const plan_t *plan, int64_t t) {
  const ep_nodes *n = &plan->n;
  const int32_t *place = (const int32_t *)p->positions + t * n->size;
  const int32_t *node_place = (const int32_t *)p->node_positions + t * n->nodes;
  const uint16_t *rows[n->count + n->nodes + 2];
  const float *weights[n->count + n->nodes];
  int64_t count = 0, summed = 0;
  if (p->bias0) rows[count++] = (const uint16_t *)((const uint8_t *)p->bias0 + t * p->row_bytes);
  if (p->bias1) rows[count++] = (const uint16_t *)((const uint8_t *)p->bias1 + t * p->row_bytes);
  for (int32_t node = 0; node < n->nodes; node++) {
    if (node != n->node) {
      if (node_place[node] < 0) continue;
      const uint8_t *from = ep_at(p->segments, n->rank, p->stage_at) +
                            stage_before(p, plan, ep_forwarder(n, node, n->rank));
      rows[count++] = (const uint16_t *)(from + node_place[node] * p->row_bytes);
      const uint8_t *behind = from + ep_align(node_count(p, n, n->rank, node) * p->row_bytes);
      weights[summed++] = (const float *)(behind + node_place[node] * plan->weight_bytes);
      continue;
    }
    for (int32_t l = 0; l < n->count; l++) {
      int32_t i = place[n->first + l];
      if (i < 0) continue;
      rows[count++] = (const uint16_t *)(plan->blocks[l].x + i * p->row_bytes);
      weights[summed++] = plan->weight_bytes ? plan->blocks[l].weights + i * p->topk : NULL;
    }
  }
  ep_sum_rows((uint16_t *)((uint8_t *)p->out + t * p->row_bytes), rows, count, p->row_bytes / 2,
              (int)p->past_caches);
  if (plan->weight_bytes)
    ep_sum_floats((float *)p->out_weights + t * p->topk, weights, summed, p->topk);
}

// Everything is read: tells the node, and waits until it has read this rank's rows.
static int finish(const params_t *p, plan_t *plan) {
  const ep_nodes *n = &plan->n;
  oi_window *w = p->window;
  end_touching(p, n);
  for (int32_t l = 0; l < n->count; l++) {
    int32_t peer = n->first + l;
    int64_t rows = rows_between(p, n, peer, n->rank);
    if (mapped(p, peer))
      ep_count(w->group, p->payload, peer, rows * (p->row_bytes + plan->weight_bytes), 0);
    oi_signal(w, peer, EP_DONE * n->size + n->rank, p->seq);
  }
  for (int32_t l = 0; l < n->count; l++) {
    int32_t peer = n->first + l;
    if (oi_wait(w, EP_DONE * n->size + peer, p->seq, peer, "that combine has read the rows") !=
        OI_ARRIVED)
      return 0;
  }
  if (oi_flush(w->group) != OI_ARRIVED) return 0;
  free_plan(plan);
  return 1;
}

// Rows that no other process can see are copied to where it can.
static void copy_shared(const params_t *p, oi_ctx *ctx) {
  if (!p->copy) return;
  oi_window *w = p->window;
  const uint8_t *from[] = {p->x, p->weights};
  int64_t places[] = {p->x_at, p->weights_at};
  int64_t bytes[] = {p->rows * p->row_bytes, p->rows * p->topk * 4};
  for (int i = 0; i < 2; i++) {
    if (bytes[i] == 0 || places[i] < 0) continue;
    int64_t each = ep_align(oi_ceil_div(bytes[i], ctx->nthreads));
    int64_t at = oi_min(bytes[i], each * ctx->tid), end = oi_min(bytes[i], at + each);
    uint8_t *to = ep_at(p->segments, w->group->rank, places[i]);
    if (to != from[i]) ep_copy(to + at, from[i] + at, end - at, (int)p->past_caches);
  }
  ep_fence();
  oi_barrier(ctx);
}

// Returns 0 if the operation failed.
static int run(const params_t *p, ep_op *op, oi_ctx *ctx) {
  enum { TOKENS = 8 };
  if (ctx->tid == 0) begin(p, op);
  if (ep_stopped(op, ctx)) return 0;
  plan_t *plan = (plan_t *)(intptr_t)op->plan;
  int64_t forwarded = plan->forward_from[plan->served_count];
  for (int64_t from; (from = oi_take(ctx, TOKENS)) < forwarded;)
    for (int64_t i = from; i < oi_min(forwarded, from + TOKENS); i++) reduce_forwarded(p, plan, i);
  ep_fence();
  ep_restart(ctx);
  if (ctx->tid == 0 && !exchange_partials(p, plan)) ep_stop(op);
  if (ep_stopped(op, ctx)) return 0;
  for (int64_t from; (from = oi_take(ctx, TOKENS)) < p->tokens;)
    for (int64_t t = from; t < oi_min(p->tokens, from + TOKENS); t++) reduce_own(p, plan, t);
  ep_fence();
  oi_barrier(ctx);
  return ctx->tid != 0 || finish(p, plan);
}

void ep_combine(const params_t *p, oi_ctx *ctx) {
  ep_op *op = p->op;
  if (p->status == EP_OK) copy_shared(p, ctx);
  int done = run(p, op, ctx);
  if (ctx->tid == 0 && !done && op->status == EP_OK) let_go(p);
}
