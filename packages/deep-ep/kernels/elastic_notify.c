// The first half of a dispatch: which tokens go where, and the exchange of counts after which
// every rank knows the place of every row, its own and its peers'.
//
// A row of counts that each rank sends to all: a header (what must be the same everywhere), tokens
// for each rank, selections of each expert, tokens for each node.
#include "elastic.h"

enum { HEADER_INTS = 2 * M_SAME + 6 };  // 64-bit words, aligned

typedef struct {
  int64_t topk, experts, local, ranks, nodes, node_ranks;
  int64_t row_ints;
} shape_t;

static shape_t shape_of(const params_t *p, const oi_group *g) {
  shape_t s = {.topk = p->topk, .experts = p->experts, .ranks = g->size};
  s.local = p->experts / g->size;
  s.nodes = p->nodes;
  s.node_ranks = g->size / p->nodes;
  s.row_ints = HEADER_INTS + s.ranks + s.experts + s.nodes;
  return s;
}

static int32_t *counts_row(const params_t *p, const shape_t *s, oi_window *w, int32_t from) {
  int64_t row = ((p->round & 1) * s->ranks + from) * p->counts_stride;
  return (int32_t *)(w->data + p->counts_at) + row;
}

// A token counts once for each rank and node, at its last selection there (the "master" lane,
// whose place in the order of selections is also the place of the rank's part in sums); and once
// for each expert it selects. `seen` is one past the last token that came to a rank or node.
typedef struct {
  int32_t *rank, *expert, *node;
  int32_t *rank_seen, *node_seen;
} tally_t;

static tally_t tally_of(int32_t *at, const shape_t *s) {
  tally_t c = {.rank = at, .expert = at + s->ranks};
  c.node = c.expert + s->experts;
  c.rank_seen = c.node + s->nodes;
  c.node_seen = c.rank_seen + s->ranks;
  return c;
}
static int64_t tally_ints(const shape_t *s) { return 2 * (s->ranks + s->nodes) + s->experts; }

static void count_tokens(const params_t *p, const shape_t *s, tally_t c, int64_t from, int64_t to) {
  memset(c.rank, 0, sizeof(int32_t) * (size_t)tally_ints(s));
  uint32_t local = (uint32_t)s->local, node_ranks = (uint32_t)s->node_ranks;  // short divisions
  const int64_t *selected = (const int64_t *)p->topk_idx;
  for (int64_t t = from; t < to; t++) {
    int32_t mark = (int32_t)(t + 1);
    for (int64_t k = s->topk - 1; k >= 0; k--) {
      int64_t e = selected[t * s->topk + k];
      if (e < 0) continue;
      uint32_t rank = (uint32_t)e / local, node = rank / node_ranks;
      c.expert[e]++;
      if (c.rank_seen[rank] != mark) c.rank_seen[rank] = mark, c.rank[rank]++;
      if (c.node_seen[node] != mark) c.node_seen[node] = mark, c.node[node]++;
    }
  }
}

// The same walk again, from where this thread's tokens begin among all, now writing places.
static void place_tokens(const params_t *p, const shape_t *s, tally_t c, int64_t from, int64_t to,
                         int64_t own) {
  memset(c.rank_seen, 0, sizeof(int32_t) * (size_t)(s->ranks + s->nodes));
  uint32_t local = (uint32_t)s->local, node_ranks = (uint32_t)s->node_ranks;
  const int64_t *selected = (const int64_t *)p->topk_idx;
  int32_t *slots = (int32_t *)p->dst_slots, *forwards = (int32_t *)p->dst_forwards;
  int32_t *expanded = (int32_t *)p->dst_expanded;
  for (int64_t t = from; t < to; t++) {
    int32_t mark = (int32_t)(t + 1);
    for (int64_t k = s->topk - 1; k >= 0; k--) {
      int64_t at = t * s->topk + k, e = selected[at];
      slots[at] = -1;
      if (forwards != NULL) forwards[at] = -1;
      if (e < 0) continue;
      uint32_t rank = (uint32_t)e / local, node = rank / node_ranks;
      if (c.rank_seen[rank] != mark)
        c.rank_seen[rank] = mark, slots[at] = (int32_t)(own + c.rank[rank]++);
      if (c.node_seen[node] == mark) continue;
      c.node_seen[node] = mark;
      if (forwards != NULL) forwards[at] = c.node[node];
      c.node[node]++;
    }
    if (expanded == NULL) continue;
    for (int64_t k = 0; k < s->topk; k++) {
      int64_t at = t * s->topk + k, e = selected[at];
      expanded[at] = e < 0 ? -1 : c.expert[e]++;
    }
  }
}

// Sums the threads' counts into this rank's row, and makes each thread's counts those of the
// threads before it.
static void join_tallies(const params_t *p, const shape_t *s, int32_t *all, int32_t *row,
                         int32_t nthreads) {
  int64_t ints = s->ranks + s->experts + s->nodes;
  int64_t header[M_SAME] = {1, p->max_tokens, p->row_bytes, p->topk, p->experts,
                            p->alignment, p->sf_packs, p->weighted, p->expanded};
  memcpy(row, header, sizeof header);
  int32_t *sum = row + HEADER_INTS;
  memset(sum, 0, sizeof(int32_t) * (size_t)ints);
  for (int32_t i = 0; i < nthreads; i++) {
    int32_t *own = all + i * tally_ints(s);
    for (int64_t j = 0; j < ints; j++) {
      int32_t here = own[j];
      own[j] = sum[j];
      sum[j] += here;
    }
  }
}

static int32_t exchange(const params_t *p, const shape_t *s, oi_window *w, const int32_t *row) {
  oi_group *g = w->group;
  int64_t offset = (const uint8_t *)row - w->data;
  for (int32_t i = 1; i < g->size; i++) {
    int32_t to = (g->rank + i) % g->size;
    oi_put(w, to, offset, row, s->row_ints * 4);
    raise(w, F_COUNTS, p->round, to);
  }
  for (int32_t i = 1; i < g->size; i++) {
    int32_t from = (g->rank + i) % g->size;
    int32_t code = await(w, F_COUNTS, p->round, from, "the token counts of dispatch");
    if (code != OI_ARRIVED) return code;
    code = same_message(g, from, (const int64_t *)counts_row(p, s, w, from), (const int64_t *)row);
    if (code != OI_ARRIVED) return code;
  }
  return OI_ARRIVED;
}

// Where the selections of each expert by this rank begin at the expert's rank.
static void expert_bases(const params_t *p, const shape_t *s, oi_window *w, int32_t *base) {
  for (int64_t rank = 0; rank < s->ranks; rank++) {
    int64_t start = 0;
    for (int64_t e = rank * s->local; e < (rank + 1) * s->local; e++) {
      int64_t before = 0, all = 0;
      for (int32_t from = 0; from < s->ranks; from++) {
        int32_t count = counts_row(p, s, w, from)[HEADER_INTS + s->ranks + e];
        if (from < w->group->rank) before += count;
        all += count;
      }
      base[e] = (int32_t)(start + before);
      start += align_up(all, p->alignment);
    }
  }
}

// What this rank receives, and the matrices of counts that later operations compute places from.
static void summarize(const params_t *p, const shape_t *s, oi_window *w) {
  int32_t me = w->group->rank;
  int32_t *ranks = (int32_t *)p->rank_counts, *nodes = (int32_t *)p->node_counts;
  int32_t *psum_rank = (int32_t *)p->psum_ranks, *psum_expert = (int32_t *)p->psum_experts;
  int32_t *unaligned = (int32_t *)p->expert_counts, *stats = (int32_t *)p->stats;
  int64_t scaleup = p->scaleup_ranks, total = 0;
  memset(psum_rank, 0, sizeof(int32_t) * (size_t)scaleup);
  for (int32_t from = 0; from < s->ranks; from++) {
    const int32_t *row = counts_row(p, s, w, from) + HEADER_INTS;
    memcpy(ranks + from * s->ranks, row, sizeof(int32_t) * (size_t)s->ranks);
    memcpy(nodes + from * s->nodes, row + s->ranks + s->experts,
           sizeof(int32_t) * (size_t)s->nodes);
    psum_rank[from % scaleup] += row[me];
    total += row[me];
  }
  for (int64_t i = 1; i < scaleup; i++) psum_rank[i] += psum_rank[i - 1];
  int64_t start = 0;
  for (int64_t i = 0; i < s->local; i++) {
    int32_t count = 0;
    for (int32_t from = 0; from < s->ranks; from++)
      count += counts_row(p, s, w, from)[HEADER_INTS + s->ranks + me * s->local + i];
    unaligned[i] = count;
    if (stats != NULL) stats[i] += count;
    int64_t next = start + align_up(count, p->alignment);
    psum_expert[i] = (int32_t)(p->expanded ? start + count : next);
    start = next;
  }
  ((int64_t *)p->totals)[0] = total;
  ((int64_t *)p->totals)[1] = start;
}

void elastic_notify(const params_t *p, oi_ctx *ctx) {
  oi_window *w = p->window;
  oi_group *g = w->group;
  elastic_work *work = p->work;
  shape_t s = shape_of(p, g);
  int64_t share = oi_ceil_div(p->tokens, ctx->nthreads);
  int64_t from = oi_min(p->tokens, ctx->tid * share), to = oi_min(p->tokens, from + share);
  int32_t *row = counts_row(p, &s, w, g->rank);
  if (ctx->tid == 0) {
    size_t ints = (size_t)(ctx->nthreads * tally_ints(&s) + s.experts);
    work->tables = malloc(ints * sizeof(int32_t));
    work->code = work->tables != NULL
                     ? OI_ARRIVED
                     : oi_fail(g, OI_ABORTED, g->rank, 0, (int64_t)ints, 0, "memory for counts");
  }
  if (!all_go_on(ctx, work)) return;
  int32_t *tallies = work->tables;
  tally_t mine = tally_of(tallies + ctx->tid * tally_ints(&s), &s);
  count_tokens(p, &s, mine, from, to);
  oi_barrier(ctx);
  if (ctx->tid == 0) join_tallies(p, &s, tallies, row, ctx->nthreads);
  oi_barrier(ctx);
  if (p->topk_copy != NULL)
    memcpy((int64_t *)p->topk_copy + from * s.topk, (const int64_t *)p->topk_idx + from * s.topk,
           sizeof(int64_t) * (size_t)((to - from) * s.topk));
  int32_t *base = tallies + ctx->nthreads * tally_ints(&s);
  if (ctx->tid == 0) {
    work->code = exchange(p, &s, w, row);
    if (work->code == OI_ARRIVED) {
      summarize(p, &s, w);
      if (p->expanded) expert_bases(p, &s, w, base);
    }
  }
  place_tokens(p, &s, mine, from, to, g->rank * p->max_tokens);
  if (all_go_on(ctx, work) && p->expanded) {
    const int64_t *selected = (const int64_t *)p->topk_idx;
    int32_t *slots = (int32_t *)p->dst_expanded;
    for (int64_t i = from * s.topk; i < to * s.topk; i++)
      if (selected[i] >= 0) slots[i] += base[selected[i]];
  }
  oi_barrier(ctx);
  if (ctx->tid != 0) return;
  free(work->tables);
  work->tables = NULL;
  if (work->code == OI_ARRIVED) oi_flush(g);
}
