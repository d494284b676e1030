// Kernels of the bench. Times are in nanoseconds, one sample a round, written by rank 0.
#include "oi_ranks.h"
#include <sched.h>

#if defined(__linux__)
// A core of its own for each rank, or what there was before.
static void pin(int32_t core, cpu_set_t *before) {
  sched_getaffinity(0, sizeof *before, before);
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(core, &one);
  sched_setaffinity(0, sizeof one, &one);
}
static void unpin(const cpu_set_t *before) { sched_setaffinity(0, sizeof *before, before); }
#else
typedef int cpu_set_t;
static void pin(int32_t core, cpu_set_t *before) { (void)core, (void)before; }
static void unpin(const cpu_set_t *before) { (void)before; }
#endif

static void take_turns(const params_t *p);

// A signal to the other rank and back, wherever the system runs the two.
void round_trips(const params_t *p, oi_ctx *ctx) {
  if (ctx->tid == 0) take_turns(p);
}

void pinned_round_trips(const params_t *p, oi_ctx *ctx) {
  if (ctx->tid != 0) return;
  cpu_set_t before;
  pin(((oi_window *)p->window)->group->rank, &before);
  take_turns(p);
  unpin(&before);
}

static void take_turns(const params_t *p) {
  oi_window *w = p->window;
  oi_group *g = w->group;
  int64_t *samples = p->samples;
  int32_t other = 1 - g->rank;
  for (int64_t i = 1; i <= p->rounds; i++) {
    int64_t start = oi_now_ns();
    if (g->rank == 0) oi_signal(w, other, p->flag, i);
    if (oi_wait(w, p->flag, i, other, "the other's signal") != OI_ARRIVED) return;
    if (g->rank == 1) oi_signal(w, other, p->flag, i);
    samples[i - 1] = oi_now_ns() - start;
  }
}

void barriers(const params_t *p, oi_ctx *ctx) {
  if (ctx->tid != 0) return;
  oi_window *w = p->window;
  int64_t *samples = p->samples;
  for (int64_t i = 0; i < p->rounds; i++) {
    int64_t start = oi_now_ns();
    if (oi_group_barrier(w->group) != OI_ARRIVED) return;
    samples[i] = oi_now_ns() - start;
  }
}

// Rank 0 copies from its memory to rank 1's, and as much within its own, in turn: samples of the
// puts first, then those of the copies.
void put_rows(const params_t *p, oi_ctx *ctx) {
  oi_window *w = p->window;
  oi_group *g = w->group;
  if (ctx->tid != 0 || g->rank != 0) return;
  int64_t *samples = p->samples;
  for (int64_t i = 0; i < p->rounds; i++) {
    int64_t start = oi_now_ns();
    oi_put(w, 1, 0, p->source, p->bytes);
    int64_t middle = oi_now_ns();
    memcpy(p->target, p->source, (size_t)p->bytes);
    samples[i] = middle - start;
    samples[p->rounds + i] = oi_now_ns() - middle;
  }
}

void nothing(const params_t *p, oi_ctx *ctx) {
  (void)p;
  (void)ctx;
}
