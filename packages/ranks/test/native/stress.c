// ranks.c under a sanitizer, without Node: ranks as threads that put, signal, wait, meet, run work
// on their streams, watch for signals, fail and end by force, with everything checked that arrives.
// Usage: stress RANKS ROUNDS. Built and run by test/native.test.ts.
#include "../../kernels/ranks.c"

enum { ROW = 512, RANKS_MAX = 16 };

typedef struct {
  int64_t control;
  int64_t address[RANKS_MAX], inode[RANKS_MAX];
  pthread_barrier_t start;
  int32_t size, rounds;
  _Atomic int64_t wrong, ended;
} world;

typedef struct {
  world *w;
  int32_t rank;
} rank_of;

static int64_t call(int64_t (*f)(int64_t *), int64_t *block) {
  int64_t code = f(block);
  if (code < 0) {
    fprintf(stderr, "a call failed with %lld\n", (long long)code);
    exit(2);
  }
  return code;
}

// Each rank makes its part, flags before data, and uses the others' as long as it likes.
static oi_window *open_window(world *w, oi_group *g, int64_t number, int64_t flags, int64_t bytes) {
  int64_t room = (flags + w->size) * 8;  // with a farewell of each rank
  int64_t own[8] = {room + bytes};
  call(oi_region_create, own);
  w->address[g->rank] = own[0];
  w->inode[g->rank] = own[3];
  pthread_barrier_wait(&w->start);
  int64_t block[8 + 2 * RANKS_MAX] = {(int64_t)(intptr_t)g, number, bytes, flags, number == 0};
  for (int32_t i = 0; i < w->size; i++) {
    int64_t region[2] = {w->address[i], w->inode[i]};
    if (i != g->rank) call(oi_region_retain, region);
    block[5 + 2 * i] = w->address[i] + room;
    block[6 + 2 * i] = w->address[i];
  }
  call(oi_window_create, block);
  pthread_barrier_wait(&w->start);
  return pointer_of(block[0]);
}

static oi_group *open_group(world *w, int32_t rank, int32_t goes_on) {
  const int64_t timeout_ns = 20000000000ll;
  int64_t block[16 + RANKS_MAX] = {rank, w->size, 0, 1, 200, 20, 1, timeout_ns, w->control};
  block[GOES_ON] = goes_on;
  call(oi_group_create, block);
  oi_group *g = pointer_of(block[0]);
  char name[32];
  snprintf(name, sizeof name, "rank %d", rank);
  oi_slot *slot = &g->control->slots[rank];
  int64_t enter[4] = {(int64_t)(intptr_t)slot, getpid(), 0, (int64_t)(intptr_t)name};
  call(oi_slot_enter, enter);
  pthread_barrier_wait(&w->start);
  return g;
}

// ---- What a stream runs: a round of all to all, its number as the first parameter.

static int64_t launch(const int64_t *block) {
  void (*entry)(const int64_t *) = (void (*)(const int64_t *))(intptr_t)block[1];
  entry(block + 4);
  return 0;
}

static void all_to_all(const int64_t *params) {
  oi_window *w = pointer_of(params[0]);
  world *all = pointer_of(params[1]);
  int64_t round = params[2];
  oi_group *g = w->group;
  int64_t row[ROW / 8];
  for (int32_t to = 0; to < g->size; to++)
    if (oi_wait(w, g->size + to, round - 1, to, "a row to be read") != OI_ARRIVED) return;
  for (int32_t to = 0; to < g->size; to++) {
    for (int64_t i = 0; i < ROW / 8; i++) row[i] = round * 1000 + g->rank * 17 + to + i;
    oi_put(w, to, g->rank * ROW, row, ROW);
    oi_signal(w, to, g->rank, round);
  }
  for (int32_t from = 0; from < g->size; from++) {
    if (oi_wait(w, from, round, from, "a row") != OI_ARRIVED) return;
    memcpy(row, w->data + from * ROW, ROW);
    for (int64_t i = 0; i < ROW / 8; i++)
      if (row[i] != round * 1000 + from * 17 + g->rank + i) atomic_fetch_add(&all->wrong, 1);
    oi_signal(w, from, g->size + g->rank, round);
  }
  oi_signal_add(w, 0, 2 * g->size, 1);
  if (round % 8 == 0) oi_group_barrier(g);
}

static int64_t open_stream(oi_group *g) {
  int64_t block[2] = {(int64_t)(intptr_t)g, (int64_t)(intptr_t)launch};
  call(oi_stream_create, block);
  close((int)block[1]);  // nobody listens here
  return block[0];
}

// Queued or run at once, in turn; waits for the last.
static void work(world *w, oi_window *window, int64_t stream) {
  static const char *name = "all to all";
  int64_t last = 0;
  for (int64_t round = 1; round <= w->rounds; round++) {
    int64_t block[16] = {stream, 8, (int64_t)(intptr_t)name};
    block[4] = (int64_t)(intptr_t)all_to_all;
    block[5] = 1;
    block[7] = (int64_t)(intptr_t)window;
    block[8] = (int64_t)(intptr_t)w;
    block[9] = round;
    last = round % 5 == 0 ? oi_stream_run(block) : oi_stream_submit(block);
    if (last < 0) atomic_fetch_add(&w->wrong, 1);
    if (round % 16 == 0) {
      int64_t meet[1] = {(int64_t)(intptr_t)window->group};
      oi_group_meet(meet);
    }
  }
  int64_t wait[2] = {stream, last};
  call(oi_stream_wait, wait);
}

// Waits for flags by the watch, as JavaScript does.
static void watch_flags(oi_group *g, oi_window *window, int32_t rounds) {
  int64_t block[2] = {(int64_t)(intptr_t)g};
  if (oi_watch_create(block) != 0) return;
  int64_t watch = block[0], fd = block[1];
  int32_t to = (g->rank + 1) % g->size;
  for (int64_t round = 1; round <= rounds; round++) {
    oi_signal(window, to, 2 * g->size + 1, round);
    while (oi_flag(window, 2 * g->size + 1) < round) {
      int64_t arm[1] = {watch};
      call(oi_watch_arm, arm);
      int there = oi_flag(window, 2 * g->size + 1) >= round;
      int64_t go[2] = {watch, !there};
      call(oi_watch_go, go);
      char byte;
      while (!there && read((int)fd, &byte, 1) != 1) sched_yield();
    }
  }
  int64_t end[1] = {watch};
  call(oi_watch_free, end);
  close((int)fd);
}

static void *run_rank(void *arg) {
  rank_of *me = arg;
  world *w = me->w;
  oi_group *g = open_group(w, me->rank, 0);
  oi_window *system = open_window(w, g, 0, 2 * (BARRIER_STEPS + w->size), 64);
  oi_window *window = open_window(w, g, 1, 2 * w->size + 2, w->size * ROW);
  int64_t stream = open_stream(g);
  work(w, window, stream);
  watch_flags(g, window, w->rounds);
  oi_awaited any[2] = {{2 * w->size, INT64_MAX, -1}, {0, w->rounds, 0}};
  if (oi_try_wait_any(window, any, 2, 1000000000) != OI_ARRIVED) atomic_fetch_add(&w->wrong, 1);
  int64_t meet[1] = {(int64_t)(intptr_t)g};
  if (oi_group_meet(meet) != OI_ARRIVED) atomic_fetch_add(&w->wrong, 1);
  if (me->rank == 0 && oi_flag(window, 2 * w->size) != (int64_t)w->rounds * w->size)
    atomic_fetch_add(&w->wrong, 1);
  pthread_barrier_wait(&w->start);
  // The last rank ends without a word: its thread's end tells the others, who wait for it.
  if (me->rank == w->size - 1) return NULL;
  int32_t code = oi_wait(window, 0, INT64_MAX, w->size - 1, "the one that ends");
  if (code == OI_PEER_DEAD || code == OI_ABORTED) atomic_fetch_add(&w->ended, 1);
  int64_t block[4] = {w->control, w->size, me->rank, OI_LEFT};
  call(oi_set_state, block);
  block[0] = stream;
  call(oi_stream_free, block);
  // What is left is released by the end of the thread.
  block[0] = (int64_t)(intptr_t)window;
  call(oi_window_free, block);
  (void)system;
  return NULL;
}

int main(int argc, char **argv) {
  world w = {.size = argc > 1 ? atoi(argv[1]) : 4, .rounds = argc > 2 ? atoi(argv[2]) : 100};
  if (w.size > RANKS_MAX) return 2;
  pthread_barrier_init(&w.start, NULL, (unsigned)w.size);
  int64_t block[4] = {(int64_t)(sizeof(oi_control) + sizeof(oi_slot) * (size_t)w.size)};
  call(oi_region_create, block);
  w.control = block[0];
  pthread_t threads[RANKS_MAX];
  rank_of ranks[RANKS_MAX];
  for (int32_t i = 0; i < w.size; i++) {
    ranks[i] = (rank_of){&w, i};
    pthread_create(&threads[i], NULL, run_rank, &ranks[i]);
  }
  for (int32_t i = 0; i < w.size; i++) pthread_join(threads[i], NULL);
  int64_t wrong = w.wrong + (w.ended != w.size - 1);
  printf("%s: %d ranks, %d rounds, %lld wrong, %lld saw the end\n", wrong == 0 ? "ok" : "FAILED",
         w.size, w.rounds, (long long)w.wrong, (long long)w.ended);
  return wrong == 0 ? 0 : 1;
}
