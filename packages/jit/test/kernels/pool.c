// The pool on its own, without Node: built with ThreadSanitizer by pool.test.ts. Exits 0 if all is
// well; what the sanitizer finds makes it exit otherwise. argv[1] names the case.
#include "../../kernels/runtime.c"
#include <stdio.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

typedef struct { int64_t *out; int64_t n; int64_t rounds; } params;

// Unsynchronised writes and reads that only the pool's and the barrier's ordering makes sound.
static void fill(const params *p, oi_ctx *ctx) {
  for (int64_t round = 0; round < p->rounds; round++) {
    for (int64_t at; (at = oi_take(ctx, 4)) < p->n * (round + 1);) {
      for (int64_t i = at; i < at + 4; i++) if (i < p->n) p->out[i] = i + p->rounds;
    }
    oi_barrier(ctx);
    int64_t other = (ctx->tid + 1) * p->n / ctx->nthreads % p->n;
    if (p->out[other] != other + p->rounds) abort();
    oi_barrier(ctx);
  }
}

static int64_t launch(int64_t pool, int64_t threads, int64_t scratch, params p) {
  int64_t block[8] = {
      pool, (int64_t)(intptr_t)fill, threads, scratch, (int64_t)(intptr_t)p.out, p.n, p.rounds};
  return oi_launch(block);
}

static int64_t open_pool(int64_t threads) { return oi_pool_create(&threads); }

#define CHECK(x)                                      \
  do {                                                \
    if (!(x)) {                                       \
      fprintf(stderr, "line %d: %s\n", __LINE__, #x); \
      exit(1);                                        \
    }                                                 \
  } while (0)

static void *many_launches(void *arg) {
  int64_t threads = (int64_t)(intptr_t)arg, pool = open_pool(threads), out[64];
  CHECK(pool > 0);
  for (int64_t i = 0; i < 400; i++) {
    // As many threads as it has, fewer, one: who is left out must not look.
    CHECK(launch(pool, 1 + i % threads, i % 7 * 1000, (params){out, 64, 1 + i % 3}) == OI_OK);
    for (int64_t j = 0; j < 64; j++) CHECK(out[j] == j + 1 + i % 3);
    if (i % 100 == 0) nanosleep(&(struct timespec){0, 3000000}, NULL);  // They fall asleep.
  }
  CHECK(oi_pool_destroy(&pool) == OI_OK);
  return NULL;
}

static int side_by_side(void) {
  pthread_t callers[3];
  for (int i = 0; i < 3; i++)
    CHECK(pthread_create(&callers[i], NULL, many_launches, (void *)(intptr_t)(i + 2)) == 0);
  for (int i = 0; i < 3; i++) pthread_join(callers[i], NULL);
  for (int i = 0; i < 50; i++) {
    int64_t pool = open_pool(4);  // Opened and closed before its threads have begun.
    CHECK(oi_pool_destroy(&pool) == OI_OK);
  }
  return 0;
}

static int no_threads(void) {
  struct rlimit limit = {(rlim_t)256 << 20, (rlim_t)256 << 20};
  CHECK(setrlimit(RLIMIT_AS, &limit) == 0);
  CHECK(open_pool(1000) == OI_NO_THREAD);
  int64_t pool = open_pool(2), out[8];
  CHECK(pool > 0);
  CHECK(launch(pool, 2, (int64_t)1 << 40, (params){out, 8, 1}) == OI_NO_MEMORY);
  CHECK(launch(pool, 2, (int64_t)1 << 62, (params){out, 8, 1}) == OI_NO_MEMORY);
  CHECK(launch(pool, 2, 4096, (params){out, 8, 1}) == OI_OK);
  return (int)oi_pool_destroy(&pool);
}

static int forked(void) {
  int64_t pool = open_pool(3), out[8];
  CHECK(launch(pool, 3, 0, (params){out, 8, 1}) == OI_OK);
  pid_t child = fork();
  if (child == 0) {
    if (launch(pool, 3, 0, (params){out, 8, 1}) != OI_FORKED) _exit(2);
    oi_pool_destroy(&pool);  // Must not wait for threads that are not there.
    int64_t own = open_pool(2);
    _exit(launch(own, 2, 0, (params){out, 8, 1}) == OI_OK ? 0 : 3);
  }
  int status = 0;
  CHECK(waitpid(child, &status, 0) == child && status == 0);
  CHECK(launch(pool, 3, 0, (params){out, 8, 1}) == OI_OK);
  return (int)oi_pool_destroy(&pool);
}

int main(int argc, char **argv) {
  const char *name = argc > 1 ? argv[1] : "";
  if (strcmp(name, "side-by-side") == 0) return side_by_side();
  if (strcmp(name, "no-threads") == 0) return no_threads();
  if (strcmp(name, "forked") == 0) return forked();
  return 64;
}
