// Who talks to whom: in direct mode every rank with every other (one "node" of all ranks); with
// nodes (hybrid mode) a rank with those of its node, and with the one rank of each other node that
// has its place there. And the exchange of messages with them that every operation begins with.
#pragma once
#include "elastic.h"

static inline int reach_of(const params_t *p, int64_t rank) {
  return ((const uint8_t *)p->reach)[rank];
}
static inline int32_t count_of(const params_t *p, int64_t ranks, int64_t from, int64_t to) {
  return ((const int32_t *)p->rank_counts)[from * ranks + to];
}

// The ranks of this one's node (all of them in direct mode), and its place there.
typedef struct {
  int64_t ranks, nodes, size, node, place, first;
} node_t;
static node_t node_of(const params_t *p, const oi_group *g) {
  node_t n = {.ranks = g->size, .nodes = p->nodes, .size = g->size / p->nodes};
  n.node = g->rank / n.size;
  n.place = g->rank % n.size;
  n.first = n.node * n.size;
  return n;
}
// Of node `i`, the rank that forwards for this one.
static inline int32_t rail(const node_t *n, int64_t i) { return (int32_t)(i * n->size + n->place); }

// Tokens of `from`, which has this rank's place, for this rank's node.
static inline int32_t forwarded_from(const params_t *p, const node_t *n, int64_t from, int64_t to) {
  return ((const int32_t *)p->node_counts)[from * n->nodes + to];
}


static inline int is_contact(const node_t *n, int32_t rank) {
  return rank / n->size == n->node || rank % n->size == n->place;
}

// Where the rows of each rank begin at each other: [R from][R to].
static inline void fill_row_bases(const params_t *p, int64_t ranks, int64_t *base) {
  for (int64_t to = 0; to < ranks; to++) {
    int64_t at = 0;
    for (int64_t from = 0; from < ranks; from++) {
      base[from * ranks + to] = at;
      at += count_of(p, ranks, from, to);
    }
  }
}

// Where the tokens of each rank with this one's place begin among those forwarded here: [R].
// Returns their number.
static inline int64_t fill_forward_bases(const params_t *p, const node_t *n, int64_t *base) {
  int64_t at = 0;
  for (int64_t i = 0; i < n->nodes && n->nodes > 1; i++) {
    base[rail(n, i)] = at;
    at += forwarded_from(p, n, rail(n, i), n->node);
  }
  return at;
}

// Says to all contacts that this rank is ready, and hears it from them.
static inline int32_t exchange_messages(const params_t *p, const node_t *n, oi_window *w,
                                        const int64_t *own) {
  oi_group *g = w->group;
  // What a link sends must stay: the message lies in this rank's own window.
  int64_t *kept = (int64_t *)(w->data + message_offset(g, p->messages_at, p->epoch, g->rank));
  memcpy(kept, own, M_WORDS * 8);
  for (int32_t i = 1; i < g->size; i++) {
    int32_t to = (g->rank + i) % g->size;
    if (is_contact(n, to)) send_message(w, p->messages_at, p->epoch, to, kept);
  }
  for (int32_t i = 1; i < g->size; i++) {
    int32_t from = (g->rank + i) % g->size;
    if (!is_contact(n, from)) continue;
    int32_t code = await_message(w, p->messages_at, p->epoch, from, own);
    if (code != OI_ARRIVED) return code;
  }
  return OI_ARRIVED;
}

// ---- Touching each other's memory
// Threads of a process write and read tensors of each other, which their owners let go of when
// they fail. So who touches says so first and looks whether the owner has failed; who fails says so
// first and waits until nobody touches. One of both sees the other.

static inline _Atomic int64_t *touched(const oi_window *w, int32_t owner, int32_t by) {
  return &w->peers[owner].flags[(int64_t)F_TOUCHED * w->group->size + by];
}

static inline int touches(const params_t *p, const node_t *n, const oi_window *w, int64_t rank) {
  if (rank == w->group->rank || reach_of(p, rank) != REACH_MEMORY) return 0;
  return is_contact(n, (int32_t)rank);
}

static inline int32_t begin_touching(const params_t *p, const node_t *n, oi_window *w) {
  oi_group *g = w->group;
  for (int32_t i = 0; i < g->size; i++)
    if (touches(p, n, w, i)) atomic_store(touched(w, i, g->rank), 2 * p->epoch - 1);
  for (int32_t i = 0; i < g->size; i++)
    if (touches(p, n, w, i) && atomic_load(touched(w, i, i)) != 0)
      return oi_fail(g, OI_PEER_DEAD, i, 0, 0, 0, "its part of an operation that it gave up");
  return OI_ARRIVED;
}

static inline void end_touching(const params_t *p, const node_t *n, oi_window *w) {
  for (int32_t i = 0; i < w->group->size; i++)
    if (touches(p, n, w, i)) atomic_store(touched(w, i, w->group->rank), 2 * p->epoch);
}

// After a failure. Others touch for as long as copying takes, or until they learn of the failure.
static inline void let_go(const params_t *p, const node_t *n, oi_window *w) {
  oi_group *g = w->group;
  end_touching(p, n, w);
  atomic_store(touched(w, g->rank, g->rank), 1);
  int64_t start = oi_now_ns();
  for (int32_t i = 0; i < g->size; i++)
    while (touches(p, n, w, i) && (atomic_load(touched(w, g->rank, i)) & 1) != 0 &&
           oi_now_ns() - start < 2 * g->timeout_ns)
      sched_yield();
}

// Raises a flag of all ranks of the node but this one, after what was put to them.
static inline void raise_near(const node_t *n, oi_window *w, int kind, int64_t epoch) {
  for (int64_t i = 1; i < n->size; i++)
    raise(w, kind, epoch, (int32_t)(n->first + (n->place + i) % n->size));
}

static inline int32_t await_near(const node_t *n, oi_window *w, int kind, int64_t epoch,
                                 const char *awaited) {
  for (int64_t i = 1; i < n->size; i++) {
    int32_t from = (int32_t)(n->first + (n->place + i) % n->size);
    int32_t code = await(w, kind, epoch, from, awaited);
    if (code != OI_ARRIVED) return code;
  }
  return OI_ARRIVED;
}

static inline int32_t await_far(const node_t *n, oi_window *w, int64_t epoch,
                                const char *awaited) {
  for (int64_t i = 1; i < n->nodes; i++) {
    int32_t from = rail(n, (n->node + i) % n->nodes);
    int32_t code = await(w, F_FORWARD, epoch, from, awaited);
    if (code != OI_ARRIVED) return code;
  }
  return OI_ARRIVED;
}
