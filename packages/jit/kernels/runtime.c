// The thread pool that runs kernels. A launch is one call: the caller's thread takes part as thread
// 0, the pool's threads spin briefly for work (kernels follow each other within microseconds) and
// then sleep, so that an idle server costs nothing. Each thread has a mailbox of its own, so that a
// launch on two threads wakes one and leaves the others asleep.
//
// A pool belongs to one calling thread at a time; several pools may run side by side.
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif
#include "oi_kernel.h"

// What oi_launch and oi_pool_create return; src/runtime.ts turns them into errors.
enum { OI_OK = 0, OI_NO_MEMORY = -1, OI_NO_THREAD = -2, OI_FORKED = -3 };

typedef void (*oi_entry)(const void *params, oi_ctx *ctx);

// One pool thread. All that passes between it and the caller lies on one cache line: the caller
// writes a launch's fields and then raises `ticket` (release); the thread sees the ticket
// (acquire), runs, and sets `done` to it (release). The caller does not return before all are done,
// so the fields never change under a reader, and a thread that has no part in a launch reads
// nothing.
typedef struct oi_worker {
  _Alignas(128) _Atomic uint32_t ticket;
  _Atomic uint32_t done;
  _Atomic int32_t asleep;
  int32_t tid;
  int32_t nthreads;
  oi_entry entry;  // null: end
  const void *params;
  void *scratch;
  oi_shared *shared;
  _Alignas(128) size_t scratch_bytes;
  int32_t has_mutex, has_thread;
  pthread_mutex_t mutex;
  pthread_cond_t wake;
  pthread_t thread;
} oi_worker;

typedef struct oi_pool {
  int32_t threads;
  int32_t forks;       // value of oi_forks when the pool was made
  oi_worker *workers;  // [threads]; 0 is the caller, which has scratch but no thread
  oi_shared shared;
} oi_pool;

// A pause takes about 40 ns. Whoever waits longer than some microseconds lets others run, in case
// what it waits for has no core to run on; and a thread without work for about 200 µs sleeps.
enum { SPINS_BEFORE_YIELD = OI_SPINS_BEFORE_YIELD, YIELDS_BEFORE_SLEEP = 400 };

// A forked child has the pool's memory but not its threads.
static int32_t oi_forks;
static pthread_once_t oi_fork_once = PTHREAD_ONCE_INIT;
static void count_fork(void) { oi_forks++; }
static void watch_forks(void) { pthread_atfork(NULL, NULL, count_fork); }

#if defined(__SANITIZE_ADDRESS__)
#define OI_EXACT_SCRATCH 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define OI_EXACT_SCRATCH 1
#endif
#endif

static int reserve_scratch(oi_worker *w, size_t bytes) {
#if defined(OI_EXACT_SCRATCH)
  // Exactly what was asked for, so that the sanitizer sees what goes beyond.
  if (bytes == w->scratch_bytes) return 1;
  size_t rounded = bytes;
#else
  if (bytes <= w->scratch_bytes) return 1;
  // Panels of a megabyte and more are read over and over: one entry of the TLB serves 2 MiB.
  size_t page = bytes < (size_t)1 << 20 ? 4096 : (size_t)2 << 20;
  size_t rounded = (bytes + page - 1) & ~(page - 1);
#endif
  if (bytes > ((size_t)1 << 46)) return 0;
  void *fresh = NULL;
#if defined(OI_EXACT_SCRATCH)
  if (posix_memalign(&fresh, 4096, rounded) != 0) return 0;
#else
  if (posix_memalign(&fresh, page, rounded) != 0) return 0;
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  if (page > 4096) madvise(fresh, rounded, MADV_HUGEPAGE);  // a hint; refused is as well
#endif
#endif
  free(w->scratch);
  w->scratch = fresh;
  w->scratch_bytes = rounded;
  return 1;
}

static void run_one(oi_entry entry, const void *params, oi_worker *w, int32_t nthreads) {
  oi_ctx ctx = {.tid = w->tid, .nthreads = nthreads, .scratch = w->scratch, .shared = w->shared};
  entry(params, &ctx);
}

static void wait_for_ticket(oi_worker *w, uint32_t seen) {
  for (int32_t spins = 0; spins < SPINS_BEFORE_YIELD + YIELDS_BEFORE_SLEEP; spins++) {
    if (atomic_load_explicit(&w->ticket, memory_order_acquire) != seen) return;
    oi_pause();
    if (spins > SPINS_BEFORE_YIELD) sched_yield();
  }
  pthread_mutex_lock(&w->mutex);
  // The caller raises the ticket and then looks at `asleep`; this thread says asleep and then looks
  // at the ticket. Both in the one total order, so at least one of them sees the other.
  atomic_store(&w->asleep, 1);
  while (atomic_load(&w->ticket) == seen) pthread_cond_wait(&w->wake, &w->mutex);
  atomic_store(&w->asleep, 0);
  pthread_mutex_unlock(&w->mutex);
}

static void *work(void *arg) {
  oi_worker *w = arg;
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "oi-pool");
#endif
  for (uint32_t seen = 0;; seen++) {
    wait_for_ticket(w, seen);
    if (w->entry == NULL) return NULL;
    run_one(w->entry, w->params, w, w->nthreads);
    atomic_store_explicit(&w->done, seen + 1, memory_order_release);
  }
}

static void send(oi_worker *w, oi_entry entry, const void *params, int32_t nthreads) {
  w->entry = entry;
  w->params = params;
  w->nthreads = nthreads;
  // Only the caller raises it, so a plain read is right.
  uint32_t now = atomic_load_explicit(&w->ticket, memory_order_relaxed);
  atomic_store(&w->ticket, now + 1);
  if (!atomic_load(&w->asleep)) return;
  pthread_mutex_lock(&w->mutex);
  pthread_cond_signal(&w->wake);
  pthread_mutex_unlock(&w->mutex);
}

static void await_done(oi_worker *w) {
  uint32_t ticket = atomic_load_explicit(&w->ticket, memory_order_relaxed);
  for (int32_t spins = 0; atomic_load_explicit(&w->done, memory_order_acquire) != ticket; spins++) {
    oi_pause();
    if (spins > SPINS_BEFORE_YIELD) sched_yield();
  }
}

static void destroy(oi_pool *pool) {
  if (pool->forks == oi_forks) {
    for (int32_t i = 1; i < pool->threads; i++)
      if (pool->workers[i].has_thread) send(&pool->workers[i], NULL, NULL, 0);
    for (int32_t i = 1; i < pool->threads; i++)
      if (pool->workers[i].has_thread) pthread_join(pool->workers[i].thread, NULL);
    for (int32_t i = 1; i < pool->threads; i++) {
      if (!pool->workers[i].has_mutex) continue;
      pthread_mutex_destroy(&pool->workers[i].mutex);
      pthread_cond_destroy(&pool->workers[i].wake);
    }
  }
  for (int32_t i = 0; i < pool->threads; i++) free(pool->workers[i].scratch);
  free(pool->workers);
  free(pool);
}

static int start_thread(oi_worker *w) {
  if (pthread_mutex_init(&w->mutex, NULL) != 0) return 0;
  if (pthread_cond_init(&w->wake, NULL) != 0) {
    pthread_mutex_destroy(&w->mutex);
    return 0;
  }
  w->has_mutex = 1;
  pthread_attr_t attr;
  if (pthread_attr_init(&attr) != 0) return 0;
  pthread_attr_setstacksize(&attr, (size_t)4 << 20);  // macOS would give 512 KiB
  w->has_thread = pthread_create(&w->thread, &attr, work, w) == 0;
  pthread_attr_destroy(&attr);
  return w->has_thread;
}

// The pool's threads run code of this library for as long as they live. A JavaScript thread that is
// ended by force (worker.terminate) unloads its libraries without asking, so this one must stay.
static void keep_loaded(void) {
  Dl_info self;
  if (dladdr((void *)(intptr_t)&keep_loaded, &self) != 0 && self.dli_fname != NULL)
    dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

// block: { threads }. Returns the pool's address, or a negative code.
int64_t oi_pool_create(const int64_t *block) {
  pthread_once(&oi_fork_once, watch_forks);
  keep_loaded();
  int32_t threads = (int32_t)block[0];
  oi_pool *pool = NULL;
  if (posix_memalign((void **)&pool, 128, sizeof(oi_pool)) != 0) return OI_NO_MEMORY;
  memset(pool, 0, sizeof *pool);
  void *workers = NULL;
  if (posix_memalign(&workers, 128, sizeof(oi_worker) * (size_t)threads) != 0) {
    free(pool);
    return OI_NO_MEMORY;
  }
  memset(workers, 0, sizeof(oi_worker) * (size_t)threads);
  pool->threads = threads;
  pool->forks = oi_forks;
  pool->workers = workers;
  // Signals are for the caller's threads: a handler must not run in the middle of a kernel.
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int ok = 1;
  for (int32_t i = 0; i < threads; i++) {
    pool->workers[i].tid = i;
    pool->workers[i].shared = &pool->shared;
  }
  for (int32_t i = 1; ok && i < threads; i++) ok = start_thread(&pool->workers[i]);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (ok) return (int64_t)(intptr_t)pool;
  destroy(pool);
  return OI_NO_THREAD;
}

// block: { pool }. Waits for the threads and frees everything.
int64_t oi_pool_destroy(const int64_t *block) {
  destroy((oi_pool *)(intptr_t)block[0]);
  return OI_OK;
}

// block: { pool, entry, threads, scratch bytes per thread, parameters… }.
int64_t oi_launch(const int64_t *block) {
  oi_pool *pool = (oi_pool *)(intptr_t)block[0];
  int32_t nthreads = (int32_t)block[2];
  size_t scratch = (size_t)block[3];
  if (pool->forks != oi_forks) return OI_FORKED;
  if (scratch > 0) {
    for (int32_t i = 0; i < nthreads; i++)
      if (!reserve_scratch(&pool->workers[i], scratch)) return OI_NO_MEMORY;
  }
  oi_entry entry = (oi_entry)(intptr_t)block[1];
  const void *params = block + 4;
  atomic_store_explicit(&pool->shared.next, 0, memory_order_relaxed);
  for (int32_t i = 1; i < nthreads; i++) send(&pool->workers[i], entry, params, nthreads);
  run_one(entry, params, &pool->workers[0], nthreads);
  for (int32_t i = 1; i < nthreads; i++) await_done(&pool->workers[i]);
  return OI_OK;
}

// block: { address, bytes }. Asks for huge pages below a tensor. Returns bytes advised, or 0.
int64_t oi_advise_huge(const int64_t *block) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  const int64_t huge = (int64_t)2 << 20;
  int64_t start = (block[0] + huge - 1) / huge * huge;
  int64_t end = (block[0] + block[1]) / huge * huge;
  if (end <= start) return 0;
  return madvise((void *)(intptr_t)start, (size_t)(end - start), MADV_HUGEPAGE) == 0 ? end - start
                                                                                     : 0;
#else
  (void)block;
  return 0;
#endif
}
