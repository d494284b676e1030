// What every C kernel sees of the runtime: its thread's place in the launch, a barrier, and a
// shared counter to take work from. A kernel has the signature
//   void entry(const params_t *p, oi_ctx *ctx)
// and is called once on each of ctx->nthreads threads; params_t is generated from the layout that
// the TypeScript side declares.
#pragma once
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

typedef struct oi_shared {
  _Alignas(64) _Atomic int64_t next;     // work counter, zero at the start of a launch
  _Alignas(64) _Atomic int32_t arrived;  // barrier
  _Atomic int32_t phase;
} oi_shared;

typedef struct oi_ctx {
  int32_t tid;
  int32_t nthreads;
  void *scratch;  // this thread's scratch, 64-byte aligned, uninitialised
  oi_shared *shared;
} oi_ctx;

// How often a thread looks again before it lets others run while it waits.
enum { OI_SPINS_BEFORE_YIELD = 100 };

static inline void oi_pause(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

// Takes the next `chunk` items of work; returns the first one. Dynamic, so that a thread the
// operating system slowed down takes less. Which thread takes an item must not change its result.
static inline int64_t oi_take(oi_ctx *ctx, int64_t chunk) {
  if (ctx->nthreads == 1) {
    int64_t at = atomic_load_explicit(&ctx->shared->next, memory_order_relaxed);
    atomic_store_explicit(&ctx->shared->next, at + chunk, memory_order_relaxed);
    return at;
  }
  return atomic_fetch_add_explicit(&ctx->shared->next, chunk, memory_order_relaxed);
}

// All threads of the launch wait here for each other; writes before it are seen after it.
static inline void oi_barrier(oi_ctx *ctx) {
  if (ctx->nthreads == 1) return;
  oi_shared *s = ctx->shared;
  int32_t phase = atomic_load_explicit(&s->phase, memory_order_relaxed);
  if (atomic_fetch_add_explicit(&s->arrived, 1, memory_order_acq_rel) == ctx->nthreads - 1) {
    atomic_store_explicit(&s->arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&s->phase, phase + 1, memory_order_release);
    return;
  }
  for (int spins = 0; atomic_load_explicit(&s->phase, memory_order_acquire) == phase; spins++) {
    oi_pause();
    if (spins > OI_SPINS_BEFORE_YIELD) {
      extern int sched_yield(void);
      sched_yield();
    }
  }
}

static inline int64_t oi_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t oi_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline int64_t oi_ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
