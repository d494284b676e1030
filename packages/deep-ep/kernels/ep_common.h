// What dispatch and combine share: how ranks tell each other what they are about to do, where rows
// lie, and copies that go around the caches.
#pragma once
#include <stdlib.h>
#include "oi_ranks.h"
#include "oi_simd.h"

// ---- An operation's record, in memory of the caller; src/v1/op.ts reads it.
enum { EP_OK = 0, EP_NO_ROOM = 1, EP_WORST_TOO_SMALL = 2 };
typedef struct ep_op {
  int64_t status;  // why nothing was moved although the group goes on
  int64_t rank, needed, capacity;
  int64_t plan;            // memory of thread 0, for the others
  _Atomic int64_t failed;  // a wait failed: return
} ep_op;

// ---- Steps: every rank sends every rank a message and waits for all. The window begins with the
// messages that came in, two of each rank, then those that went out; behind a link the latter must
// stay as they are until they were taken, which the answer to the next step proves.
enum { EP_WORDS = 24, EP_CONTRACT = 2, EP_CONTRACT_END = 9 };
typedef struct ep_message {
  int64_t kind, step;
  // What all ranks must agree on.
  int64_t row_bytes, element, scales, topk, experts, ranks_per_node, options;
  // Of one rank.
  int64_t status, needed, capacity;
  int64_t at[6];  // places, by the operation's own rule
  int64_t unused[6];
  int32_t numbers[];
} ep_message;
_Static_assert(sizeof(ep_message) == EP_WORDS * 8, "a message's head");

// Flags of a window, each by source rank.
// EP_TOUCHED is odd while that rank reads this one's own memory; this rank's own says that it has
// failed.
enum { EP_STEP = 0, EP_DONE = 1, EP_ARRIVED = 2, EP_TOUCHED = 3, EP_FLAGS = 4 };

typedef struct ep_steps {
  oi_window *w;
  int64_t slot_bytes, step;
} ep_steps;

static inline int64_t ep_slot(const ep_steps *s, int outgoing, int64_t rank) {
  int64_t size = s->w->group->size;
  return ((outgoing ? size : 0) + rank) * 2 * s->slot_bytes + s->step % 2 * s->slot_bytes;
}
static inline ep_message *ep_outgoing(const ep_steps *s, int32_t peer) {
  return (ep_message *)(s->w->data + ep_slot(s, 1, peer));
}
static inline const ep_message *ep_incoming(const ep_steps *s, int32_t peer) {
  return (const ep_message *)(s->w->data + ep_slot(s, 0, peer));
}

enum { EP_NOTIFY = 1, EP_DISPATCH = 2, EP_DISPATCH_CACHED = 3, EP_COMBINE = 4 };
static inline const char *ep_kind_name(int64_t kind) {
  static const char *const names[] = {"nothing", "the counts of dispatch", "dispatch",
                                      "cached dispatch", "combine"};
  return names[kind >= 0 && kind <= EP_COMBINE ? kind : 0];
}

// Whether a peer is about to do the same. Else this rank's failure says what differs.
static inline int32_t ep_agree(oi_group *g, int32_t peer, const ep_message *own,
                               const ep_message *theirs) {
  static const char *const names[] = {
      "bytes of a row", "element type", "scales of a row", "top-k",
      "experts",        "ranks of a node", "options"};
  char text[96];
  if (own->kind != theirs->kind || own->step != theirs->step) {
    snprintf(text, sizeof text, "that rank is in %s, this one in %s", ep_kind_name(theirs->kind),
             ep_kind_name(own->kind));
    return oi_fail(g, OI_BAD_DATA, peer, theirs->kind, own->kind, 0, text);
  }
  const int64_t *a = (const int64_t *)own, *b = (const int64_t *)theirs;
  for (int i = EP_CONTRACT; i < EP_CONTRACT_END; i++) {
    if (a[i] == b[i]) continue;
    snprintf(text, sizeof text, "%s: %lld there, %lld here", names[i - EP_CONTRACT],
             (long long)b[i], (long long)a[i]);
    return oi_fail(g, OI_BAD_DATA, peer, b[i], a[i], 0, text);
  }
  return OI_ARRIVED;
}

// Sends each rank its outgoing message, with `numbers` i32 behind the head, and waits for all. One
// thread calls it.
static inline int32_t ep_exchange(const ep_steps *s, const ep_message *head, int64_t numbers,
                                  const char *awaited) {
  oi_window *w = s->w;
  oi_group *g = w->group;
  int64_t bytes = (int64_t)sizeof(ep_message) + 4 * numbers;
  // This rank last, so that nobody waits for it longer than needed.
  for (int32_t i = 1; i <= g->size; i++) {
    int32_t peer = (g->rank + i) % g->size;
    oi_put(w, peer, ep_slot(s, 0, g->rank), ep_outgoing(s, peer), bytes);
    oi_signal(w, peer, EP_STEP * g->size + g->rank, s->step);
  }
  for (int32_t i = 0; i < g->size; i++) {
    int32_t peer = (g->rank + i) % g->size;
    int32_t code = oi_wait(w, EP_STEP * g->size + peer, s->step, peer, awaited);
    if (code == OI_ARRIVED) code = ep_agree(g, peer, head, ep_incoming(s, peer));
    if (code != OI_ARRIVED) return code;
  }
  return OI_ARRIVED;
}

// Notes in `op` the first rank, in rank order, that cannot go on; so all ranks end alike.
static inline int ep_all_ready(const ep_steps *s, ep_op *op) {
  for (int32_t peer = 0; peer < s->w->group->size; peer++) {
    const ep_message *m = ep_incoming(s, peer);
    if (m->status == EP_OK) continue;
    op->rank = peer;
    op->needed = m->needed;
    op->capacity = m->capacity;
    op->status = m->status;
    return 0;
  }
  return 1;
}

// ---- Places: a segment (a window of its own) and an offset in it, or −1. In a step's message a
// place may also be an address, for ranks of the same process.
enum { EP_SEGMENT_SHIFT = 48 };
#define EP_ADDRESS ((int64_t)1 << 62)
static inline oi_window *ep_segment(const int64_t *segments, int64_t place) {
  return (oi_window *)(intptr_t)segments[place >> EP_SEGMENT_SHIFT];
}
static inline int64_t ep_offset(int64_t place) {
  return place & (((int64_t)1 << EP_SEGMENT_SHIFT) - 1);
}
static inline uint8_t *ep_at(const int64_t *segments, int32_t peer, int64_t place) {
  if (place < 0) return NULL;
  if (place & EP_ADDRESS) return (uint8_t *)(intptr_t)(place & ~EP_ADDRESS);
  return oi_peer_data(ep_segment(segments, place), peer, ep_offset(place));
}

// ---- Nodes: consecutive ranks; the last node may be smaller.
typedef struct ep_nodes {
  int32_t size, per_node, nodes, rank, node, first, count;  // first and count of this rank's node
} ep_nodes;
static inline ep_nodes ep_nodes_of(const oi_group *g, int64_t per_node) {
  ep_nodes n = {.size = g->size, .per_node = (int32_t)per_node, .rank = g->rank};
  n.nodes = (n.size + n.per_node - 1) / n.per_node;
  n.node = n.rank / n.per_node;
  n.first = n.node * n.per_node;
  n.count = n.size - n.first < n.per_node ? n.size - n.first : n.per_node;
  return n;
}
// Who in `node` receives what `source` sends there, and reduces what goes back.
static inline int32_t ep_forwarder(const ep_nodes *n, int32_t node, int32_t source) {
  int32_t first = node * n->per_node;
  int32_t count = n->size - first < n->per_node ? n->size - first : n->per_node;
  return first + source % n->per_node % count;
}
// Whether this rank works for `source`: its own tokens, or those it forwards.
static inline int ep_serves(const ep_nodes *n, int32_t rank, int32_t source) {
  if (source / n->per_node == n->node) return source == rank;
  return ep_forwarder(n, n->node, source) == rank;
}

// Rows of rank `to` that come from sources before `source`.
static inline int64_t ep_rows_before(const int32_t *counts, int32_t size, int32_t source,
                                     int32_t to) {
  int64_t rows = 0;
  for (int32_t s = 0; s < source; s++) rows += counts[(int64_t)s * size + to];
  return rows;
}

// ---- Work
// A new round of oi_take; all threads call it.
static inline void ep_restart(oi_ctx *ctx) {
  oi_barrier(ctx);
  if (ctx->tid == 0) atomic_store_explicit(&ctx->shared->next, 0, memory_order_relaxed);
  oi_barrier(ctx);
}

// All threads learn whether one of them failed.
static inline int ep_stopped(ep_op *op, oi_ctx *ctx) {
  oi_barrier(ctx);
  return atomic_load_explicit(&op->failed, memory_order_relaxed) != 0;
}
static inline void ep_stop(ep_op *op) {
  atomic_store_explicit(&op->failed, 1, memory_order_relaxed);
}

static inline int64_t ep_align(int64_t bytes) { return (bytes + 63) & ~(int64_t)63; }

// Copies past the caches where the target is read only much later, or by another core: its lines
// are then written without being read first. ep_fence before anybody is told.
static inline void ep_copy(uint8_t *to, const uint8_t *from, int64_t bytes, int past_caches) {
#if defined(__AVX512F__)
  if (past_caches && ((intptr_t)to & 63) == 0) {
    int64_t i = 0;
    for (; i + 256 <= bytes; i += 256) {
      __m512i a = _mm512_loadu_si512(from + i), b = _mm512_loadu_si512(from + i + 64);
      __m512i c = _mm512_loadu_si512(from + i + 128), d = _mm512_loadu_si512(from + i + 192);
      _mm512_stream_si512((__m512i *)(to + i), a);
      _mm512_stream_si512((__m512i *)(to + i + 64), b);
      _mm512_stream_si512((__m512i *)(to + i + 128), c);
      _mm512_stream_si512((__m512i *)(to + i + 192), d);
    }
    for (; i + 64 <= bytes; i += 64)
      _mm512_stream_si512((__m512i *)(to + i), _mm512_loadu_si512(from + i));
    memcpy(to + i, from + i, (size_t)(bytes - i));
    return;
  }
#elif defined(__AVX__)
  if (past_caches && ((intptr_t)to & 31) == 0) {
    int64_t i = 0;
    for (; i + 32 <= bytes; i += 32)
      _mm256_stream_si256((__m256i *)(to + i), _mm256_loadu_si256((const __m256i *)(from + i)));
    memcpy(to + i, from + i, (size_t)(bytes - i));
    return;
  }
#endif
  (void)past_caches;
  memcpy(to, from, (size_t)bytes);
}
static inline void ep_fence(void) {
#if defined(__x86_64__)
  _mm_sfence();
#endif
}

// Bytes of tokens by link class, without what coordinates them: payload[3] of the buffer.
static inline void ep_count(oi_group *g, int64_t *payload, int32_t peer, int64_t bytes, int put) {
  if (bytes <= 0) return;
  __atomic_fetch_add(&payload[oi_link_class(g, peer)], bytes, __ATOMIC_RELAXED);
  if (!put) oi_count(g, peer, bytes, 1);  // oi_put counts for itself
}
