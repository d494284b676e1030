// The thread pool that runs kernels. A launch is one call: the caller's thread takes part as thread
// 0, the pool's threads spin briefly for work (kernels follow each other within microseconds) and
// then sleep, so that an idle server costs nothing.
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include "oi_kernel.h"

typedef void (*oi_entry)(const void *params, oi_ctx *ctx);

typedef struct oi_pool {
  int32_t threads;
  _Atomic int32_t generation;  // bumped for each launch
  _Atomic int32_t running;     // pool threads still inside the launch
  _Atomic int32_t sleepers;
  _Atomic int32_t stop;
  int32_t nthreads;            // threads of this launch
  oi_entry entry;
  const void *params;
  oi_shared shared;
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  pthread_t *handles;
  void **scratch;
  size_t *scratch_bytes;
  _Atomic int32_t next_tid;
} oi_pool;

enum { SPINS_BEFORE_SLEEP = 4000 };

static void *scratch_of(oi_pool *pool, int32_t tid, size_t bytes) {
  if (bytes <= pool->scratch_bytes[tid]) return pool->scratch[tid];
  free(pool->scratch[tid]);
  size_t rounded = (bytes + 4095) & ~(size_t)4095;
  if (posix_memalign(&pool->scratch[tid], 64, rounded) != 0) abort();
  pool->scratch_bytes[tid] = rounded;
  return pool->scratch[tid];
}

static void run_one(oi_pool *pool, int32_t tid) {
  oi_ctx ctx = {.tid = tid, .nthreads = pool->nthreads, .scratch = pool->scratch[tid], .shared = &pool->shared};
  pool->entry(pool->params, &ctx);
}

static void *worker(void *arg) {
  oi_pool *pool = arg;
  int32_t tid = atomic_fetch_add(&pool->next_tid, 1);
  int32_t seen = 0;
  for (;;) {
    int32_t spins = 0;
    while (atomic_load_explicit(&pool->generation, memory_order_acquire) == seen) {
      if (++spins < SPINS_BEFORE_SLEEP) {
        oi_pause();
        continue;
      }
      pthread_mutex_lock(&pool->mutex);
      atomic_fetch_add(&pool->sleepers, 1);
      while (atomic_load(&pool->generation) == seen) pthread_cond_wait(&pool->wake, &pool->mutex);
      atomic_fetch_sub(&pool->sleepers, 1);
      pthread_mutex_unlock(&pool->mutex);
    }
    seen = atomic_load_explicit(&pool->generation, memory_order_acquire);
    if (atomic_load(&pool->stop)) return NULL;
    if (tid < pool->nthreads) run_one(pool, tid);
    atomic_fetch_sub_explicit(&pool->running, 1, memory_order_release);
  }
}

// block: { threads }. Returns the pool's address.
int64_t oi_pool_create(const int64_t *block) {
  oi_pool *pool = NULL;
  if (posix_memalign((void **)&pool, 64, sizeof(oi_pool)) != 0) return 0;
  *pool = (oi_pool){.threads = (int32_t)block[0], .next_tid = 1};
  pthread_mutex_init(&pool->mutex, NULL);
  pthread_cond_init(&pool->wake, NULL);
  pool->handles = calloc(pool->threads, sizeof(pthread_t));
  pool->scratch = calloc(pool->threads, sizeof(void *));
  pool->scratch_bytes = calloc(pool->threads, sizeof(size_t));
  for (int32_t i = 1; i < pool->threads; i++) pthread_create(&pool->handles[i], NULL, worker, pool);
  return (int64_t)(intptr_t)pool;
}

static void publish(oi_pool *pool) {
  atomic_fetch_add_explicit(&pool->generation, 1, memory_order_seq_cst);
  if (atomic_load_explicit(&pool->sleepers, memory_order_seq_cst) > 0) {
    pthread_mutex_lock(&pool->mutex);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->mutex);
  }
}

// block: { pool }. Waits for the threads and frees everything.
int64_t oi_pool_destroy(const int64_t *block) {
  oi_pool *pool = (oi_pool *)(intptr_t)block[0];
  atomic_store(&pool->stop, 1);
  publish(pool);
  for (int32_t i = 1; i < pool->threads; i++) pthread_join(pool->handles[i], NULL);
  for (int32_t i = 0; i < pool->threads; i++) free(pool->scratch[i]);
  free(pool->handles);
  free(pool->scratch);
  free(pool->scratch_bytes);
  free(pool);
  return 0;
}

// block: { pool, entry, threads, scratch bytes per thread, parameters… }.
int64_t oi_launch(const int64_t *block) {
  oi_pool *pool = (oi_pool *)(intptr_t)block[0];
  int32_t nthreads = (int32_t)block[2];
  pool->nthreads = nthreads;
  pool->entry = (oi_entry)(intptr_t)block[1];
  pool->params = block + 4;
  atomic_store_explicit(&pool->shared.next, 0, memory_order_relaxed);
  for (int32_t i = 0; i < nthreads; i++) scratch_of(pool, i, (size_t)block[3]);
  if (nthreads > 1) {
    atomic_store_explicit(&pool->running, pool->threads - 1, memory_order_relaxed);
    publish(pool);
  }
  run_one(pool, 0);
  if (nthreads > 1) {
    for (int32_t spins = 0; atomic_load_explicit(&pool->running, memory_order_acquire) != 0; spins++) {
      oi_pause();
      if (spins > 20000) sched_yield();
    }
  }
  return 0;
}
