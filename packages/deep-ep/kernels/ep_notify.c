// The first half of dispatch: every rank tells every rank how many tokens it sends to whom, and how
// many to each of that rank's experts. Afterwards each knows all counts, and with them where every
// row of every rank will lie: rank, then token.
#include "ep_common.h"

// Where each token goes: its place among those of this rank for a rank, and for a node; −1 if not
// at all. Counts into the message's numbers: ranks, then nodes.
static void positions(const params_t *p, const ep_nodes *n, int32_t *ranks, int32_t *nodes) {
  for (int64_t t = 0; t < p->tokens; t++) {
    const uint8_t *mask = (const uint8_t *)p->in_rank + t * n->size;
    int32_t *place = (int32_t *)p->positions + t * n->size;
    int32_t *node_place = (int32_t *)p->node_positions + t * n->nodes;
    for (int32_t i = 0; i < n->nodes; i++) node_place[i] = -1;
    for (int32_t r = 0; r < n->size; r++) {
      place[r] = -1;
      if (!mask[r]) continue;
      place[r] = ranks[r]++;
      int32_t node = r / n->per_node;
      if (node_place[node] < 0) node_place[node] = nodes[node]++;
    }
  }
}

static int fill(const params_t *p, const ep_nodes *n, const ep_steps *s, ep_message *head) {
  oi_group *g = s->w->group;
  ep_message *first = ep_outgoing(s, 0);
  int32_t *ranks = first->numbers, *nodes = ranks + n->size;
  memset(ranks, 0, 4 * (size_t)(n->size + n->nodes));
  positions(p, n, ranks, nodes);
  const int32_t *said = (const int32_t *)p->per_rank;
  for (int32_t r = 0; r < n->size; r++) {
    if (said[r] == ranks[r]) continue;
    oi_fail(g, OI_BAD_DATA, g->rank, ranks[r], said[r], 0,
            "numTokensPerRank does not count the tokens of isTokenInRank");
    return 0;
  }
  int64_t local = p->experts / n->size;
  for (int32_t r = n->size - 1; r >= 0; r--) {
    ep_message *m = ep_outgoing(s, r);
    if (r > 0) memcpy(m->numbers, ranks, 4 * (size_t)(n->size + n->nodes));
    memcpy(m->numbers + n->size + n->nodes, (const int32_t *)p->per_expert + r * local,
           4 * (size_t)local);
    memcpy(m, head, sizeof *head);
  }
  return 1;
}

void ep_notify(const params_t *p, oi_ctx *ctx) {
  if (ctx->tid != 0) return;
  ep_steps s = {.w = p->window, .slot_bytes = p->slot_bytes, .step = p->step};
  oi_group *g = s.w->group;
  ep_nodes n = ep_nodes_of(g, p->ranks_per_node);
  int64_t local = p->experts / n.size;
  ep_message head = {.kind = EP_NOTIFY,
                     .step = p->step,
                     .row_bytes = p->row_bytes,
                     .element = p->element,
                     .scales = p->scales,
                     .topk = p->topk,
                     .experts = p->experts,
                     .ranks_per_node = p->ranks_per_node,
                     .options = p->options};
  if (!fill(p, &n, &s, &head)) return;
  if (ep_exchange(&s, &head, n.size + n.nodes + local, "the token counts of dispatch") !=
      OI_ARRIVED)
    return;
  int32_t *counts = (int32_t *)p->counts, *node_counts = (int32_t *)p->node_counts;
  int32_t *per_expert = (int32_t *)p->received_per_expert;
  memset(per_expert, 0, 4 * (size_t)local);
  for (int32_t peer = 0; peer < n.size; peer++) {
    const int32_t *numbers = ep_incoming(&s, peer)->numbers;
    memcpy(counts + (int64_t)peer * n.size, numbers, 4 * (size_t)n.size);
    memcpy(node_counts + (int64_t)peer * n.nodes, numbers + n.size, 4 * (size_t)n.nodes);
    for (int64_t e = 0; e < local; e++) per_expert[e] += numbers[n.size + n.nodes + e];
  }
}
