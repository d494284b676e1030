// The layout of a selection: see src/layout.ts. Threads take consecutive tokens and count into
// arrays of their own, which are then added.
#include "ep_common.h"

static int64_t layout_tokens(const params_t *p, int64_t from, int64_t to, int32_t *ranks,
                             int32_t *nodes, int32_t *experts) {
  int64_t size = p->ranks, per_rank = p->experts / size;
  for (int64_t t = from; t < to; t++) {
    const int64_t *choice = (const int64_t *)p->topk_idx + t * p->topk;
    uint8_t *mask = (uint8_t *)p->in_rank + t * size;
    memset(mask, 0, (size_t)size);
    for (int64_t k = 0; k < p->topk; k++) {
      if (choice[k] < 0) continue;
      if (choice[k] >= p->experts) return t * p->topk + k;
      experts[choice[k]]++;
      mask[choice[k] / per_rank] = 1;
    }
    int64_t last = -1;
    for (int64_t r = 0; r < size; r++) {
      if (!mask[r]) continue;
      ranks[r]++;
      if (r / p->ranks_per_node != last) nodes[last = r / p->ranks_per_node]++;
    }
  }
  return -1;
}

// `bad` becomes where an expert is out of range, or stays −1. `partial` is zeroed room for each
// thread's counts.
void ep_layout(const params_t *p, oi_ctx *ctx) {
  int64_t nodes = oi_ceil_div(p->ranks, p->ranks_per_node), all = p->ranks + nodes + p->experts;
  int32_t *partial = (int32_t *)p->partial;
  int64_t each = oi_ceil_div(p->tokens, ctx->nthreads);
  int64_t from = oi_min(p->tokens, each * ctx->tid), to = oi_min(p->tokens, from + each);
  int32_t *own = partial + ctx->tid * all;
  int64_t wrong = layout_tokens(p, from, to, own, own + p->ranks, own + p->ranks + nodes);
  if (wrong >= 0) *(int64_t *)p->bad = wrong;
  oi_barrier(ctx);
  if (ctx->tid != 0) return;
  int32_t *parts[] = {(int32_t *)p->per_rank, (int32_t *)p->per_node, (int32_t *)p->per_expert};
  int64_t lengths[] = {p->ranks, nodes, p->experts};
  for (int64_t i = 0, at = 0; i < 3; at += lengths[i++]) {
    for (int64_t j = 0; j < lengths[i]; j++) {
      int32_t sum = 0;
      for (int32_t thread = 0; thread < ctx->nthreads; thread++)
        sum += partial[thread * all + at + j];
      parts[i][j] = sum;
    }
  }
}
