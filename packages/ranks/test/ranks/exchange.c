// Kernels of the contract suite.
#include "oi_ranks.h"

static uint64_t mix(uint64_t x) {
  x ^= x >> 33;
  x *= 0xff51afd7ed558ccdull;
  x ^= x >> 33;
  x *= 0xc4ceb9fe1a85ec53ull;
  return x ^ (x >> 33);
}

// Bytes of a round from one rank to another: anything from nothing to `most`, multiples of 8.
static int64_t length_of(uint64_t seed, int64_t round, int32_t from, int32_t to, int64_t most) {
  uint64_t key = seed + (uint64_t)round * 1000003 + (uint64_t)from * 1009 + (uint64_t)to * 13;
  uint64_t r = mix(key);
  if (r % 5 == 0) return 0;
  return (int64_t)(r % (uint64_t)(most / 8 + 1)) * 8;
}

static uint64_t word_of(uint64_t seed, int64_t round, int32_t from, int32_t to, int64_t at) {
  return mix(seed ^ mix((uint64_t)round * 64 + (uint64_t)from * 8 + (uint64_t)to) ^ (uint64_t)at);
}

// All to all, round after round, with all threads of the kernel putting: what a signal of thread 0
// announces must be there, whoever put it. Rank f writes into slot f of everybody's window, of
// `most` bytes, in pieces, and may write the next round once it was read.
// Flags: arrived from each [size], read by each [size].
void all_to_all(const params_t *p, oi_ctx *ctx) {
  oi_window *w = p->window;
  oi_group *g = w->group;
  int64_t *wrong = p->wrong;
  uint64_t *staging = p->staging;  // [size][most / 8], untouched until flushed
  int64_t most = p->most;
  for (int64_t round = 1; round <= p->rounds; round++) {
    if (ctx->tid == 0)
      for (int32_t to = 0; to < g->size; to++)
        if (oi_wait(w, g->size + to, round - 1, to, "the last round to be read") != OI_ARRIVED)
          break;
    if (ctx->tid == 0 && oi_flush(g) != OI_ARRIVED) *wrong += 1;
    oi_barrier(ctx);
    if (atomic_load(&g->failure.code) != 0) return;
    for (int32_t k = 0; k < g->size; k++) {
      int32_t to = (g->rank + k) % g->size;
      int64_t bytes = length_of(p->seed, round, g->rank, to, most);
      uint64_t *source = staging + (int64_t)to * (most / 8);
      // Threads take pieces of 4 KiB in turn.
      for (int64_t at = ctx->tid * 4096; at < bytes; at += ctx->nthreads * 4096) {
        int64_t piece = oi_min(4096, bytes - at);
        for (int64_t i = at / 8; i < (at + piece) / 8; i++)
          source[i] = word_of(p->seed, round, g->rank, to, i);
        oi_put(w, to, g->rank * most + at, source + at / 8, piece);
      }
    }
    oi_barrier(ctx);
    if (ctx->tid == 0)
      for (int32_t to = 0; to < g->size; to++) oi_signal(w, to, g->rank, round);
    for (int32_t k = 0; k < g->size && ctx->tid == 0; k++) {
      int32_t from = (g->rank + k) % g->size;
      if (oi_wait(w, from, round, from, "the round's rows") != OI_ARRIVED) break;
      int64_t bytes = length_of(p->seed, round, from, g->rank, most);
      const uint64_t *got = (const uint64_t *)(w->data + from * most);
      for (int64_t i = 0; i < bytes / 8; i++)
        *wrong += got[i] != word_of(p->seed, round, from, g->rank, i);
      oi_signal(w, from, g->size + g->rank, round);
    }
    oi_barrier(ctx);
    if (atomic_load(&g->failure.code) != 0) return;
  }
}

// A signal each `rounds`, as fast as they go: the receiver must see the counter only grow, and the
// word that was put before each signal.
void in_order(const params_t *p, oi_ctx *ctx) {
  if (ctx->tid != 0) return;
  oi_window *w = p->window;
  oi_group *g = w->group;
  int64_t *wrong = p->wrong;
  int64_t *sent = (int64_t *)p->staging;
  int32_t to = (g->rank + 1) % g->size, from = (g->rank + g->size - 1) % g->size;
  for (int64_t i = 0; i < p->rounds; i++) {
    sent[i] = i + 1;
    oi_put(w, to, i * 8, &sent[i], 8);
    oi_signal(w, to, 0, i + 1);
  }
  int64_t seen = 0;
  while (seen < p->rounds) {
    if (oi_wait(w, 0, seen + 1, from, "the next number") != OI_ARRIVED) return;
    int64_t now = oi_flag(w, 0);
    const _Atomic int64_t *data = (const _Atomic int64_t *)w->data;
    *wrong += now <= seen;
    for (int64_t i = seen; i < now; i++)
      *wrong += atomic_load_explicit(&data[i], memory_order_relaxed) != i + 1;
    seen = now;
  }
  if (oi_group_barrier(g) != OI_ARRIVED) *wrong += 1;
}

// Adds one to everybody's counter, `rounds` times.
void count_up(const params_t *p, oi_ctx *ctx) {
  oi_window *w = p->window;
  oi_group *g = w->group;
  for (int64_t i = 0; i < p->rounds; i++)
    for (int32_t to = 0; to < g->size; to++) oi_signal_add(w, to, 0, 1);
  oi_barrier(ctx);
  if (ctx->tid != 0) return;
  int64_t all = p->rounds * ctx->nthreads * g->size;
  if (oi_wait(w, 0, all, -1, "everybody's counts") != OI_ARRIVED) return;
  if (oi_group_barrier(g) != OI_ARRIVED) return;
  *(int64_t *)p->wrong += oi_flag(w, 0) != all;
}

// Waits for a peer that never signals.
void wait_for_ever(const params_t *p, oi_ctx *ctx) {
  if (ctx->tid != 0) return;
  oi_window *w = p->window;
  int32_t from = (int32_t)p->rounds;
  oi_wait(w, 0, 1, from, "the row that never comes");
}
