// The stream: one thread that runs operations in order while the rank computes. An operation is its
// name and what a pool launch takes: pool, entry, threads, scratch bytes, parameters. Where nothing
// is queued the rank's own thread may run one in its place, without the hop.
#pragma once
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include "event.h"
#include "owner.h"
#include "wait.h"

typedef int64_t (*oi_launcher)(const int64_t *block);
enum { STREAM_ITEMS = 1024, STREAM_WORDS = 72, NAME_WORD = 0, LAUNCH_WORD = 1 };

typedef struct oi_stream {
  _Alignas(64) _Atomic uint64_t submitted;
  _Alignas(64) _Atomic uint64_t completed;
  _Alignas(64) _Atomic uint32_t bell;  // raised by both sides
  _Atomic uint32_t sleepers;
  _Atomic int32_t stop;
  _Atomic int32_t spins_idle, spins_wait;  // of this thread for work, of the rank's for its end
  _Alignas(64) _Atomic int32_t watched;  // write the event after the next operation
  int32_t event_fd;
  oi_launcher launch;
  oi_group *group;
  pthread_t thread;
  int64_t items[STREAM_ITEMS][STREAM_WORDS];
} oi_stream;

// The same protocol as oi_ring's: what is told by, then a look at who sleeps.
static void ring_stream(oi_stream *s) {
  if (atomic_load(&s->sleepers) == 0) return;
  atomic_fetch_add(&s->bell, 1);
  oi_wake_all(&s->bell);
}

static void sleep_on_stream(oi_stream *s, const _Atomic uint64_t *counter, uint64_t at_least) {
  atomic_fetch_add(&s->sleepers, 1);
  uint32_t seen = atomic_load(&s->bell);
  if (atomic_load(counter) < at_least && !atomic_load(&s->stop))
    oi_sleep_on(&s->bell, seen, 10000000000);
  atomic_fetch_sub(&s->sleepers, 1);
}

// For the errors of others: what this rank is in.
static void show(oi_group *g, const char *operation) {
  oi_slot *slot = &g->control->slots[g->rank];
  atomic_fetch_add_explicit(&slot->operations, 1, memory_order_relaxed);
  write_text(slot->operation, operation, sizeof slot->operation);
}

// After a failure what is queued is passed over: its data would be wrong.
static void run_item(oi_stream *s, const int64_t *item) {
  oi_group *g = s->group;
  if (atomic_load(&g->failure.code) != 0) return;
  g->operation = (const char *)(intptr_t)item[NAME_WORD];
  show(g, g->operation);
  int64_t code = s->launch(item + LAUNCH_WORD);
  if (code != 0)
    oi_fail(g, OI_REFUSED, -1, code, 0, 0, "the system refused threads or scratch memory");
}

// Waits until a counter has come as far; false if it has not and the stream ends.
static int await_counter(oi_stream *s, const _Atomic uint64_t *counter, uint64_t at_least,
                         _Atomic int32_t *spins_now) {
  if (atomic_load(counter) >= at_least) return 1;
  int32_t spins = atomic_load_explicit(spins_now, memory_order_relaxed);
  int there = 0;
  for (int32_t i = 0; i < spins && !(there = atomic_load(counter) >= at_least); i++) oi_pause();
  adapt(s->group, spins_now, there);
  while (atomic_load(counter) < at_least) {
    if (atomic_load(&s->stop)) return 0;
    sleep_on_stream(s, counter, at_least);
  }
  return 1;
}

static void *run_stream(void *arg) {
  oi_stream *s = arg;
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "oi-comm");
#endif
  for (uint64_t next = 0;; next++) {
    if (!await_counter(s, &s->submitted, next + 1, &s->spins_idle)) return NULL;
    // One that the rank's thread ran itself is done already.
    if (atomic_load(&s->completed) > next) continue;
    run_item(s, s->items[next % STREAM_ITEMS]);
    atomic_store(&s->completed, next + 1);
    ring_stream(s);
    if (atomic_exchange(&s->watched, 0) != 0) write_event(s->event_fd);
  }
}

// A rank whose thread ends without having left is dead; what it still runs ends.
static void retire(oi_group *g) {
  oi_slot *slot = &g->control->slots[g->rank];
  if (atomic_load(&slot->state) != OI_RUNNING) return;
  int32_t none = 0;
  atomic_compare_exchange_strong(&g->failure.code, &none, OI_ABORTED);
  set_state(slot, OI_DEAD);
  ring_all(g->control, g->size);
}

// Lets what runs finish; its waits end with the group.
static void free_stream(void *pointer) {
  oi_stream *s = pointer;
  retire(s->group);
  atomic_store(&s->stop, 1);
  ring_stream(s);
  pthread_join(s->thread, NULL);
  close_event(s->event_fd, -1);
  free(s);
}

// block: { group, launch } -> { stream, its event's reading end, which the caller closes }. Returns
// 0 or -errno.
int64_t oi_stream_create(int64_t *block) {
  oi_stream *s = NULL;
  if (posix_memalign((void **)&s, 64, sizeof *s) != 0) return -ENOMEM;
  memset(s, 0, offsetof(oi_stream, items));
  s->group = (oi_group *)(intptr_t)block[0];
  s->launch = (oi_launcher)(intptr_t)block[1];
  int reader = -1;
  s->event_fd = make_event(&reader);
  s->spins_idle = s->spins_wait = s->group->spins;
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int problem = pthread_create(&s->thread, NULL, run_stream, s);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (problem != 0) {
    close_event(s->event_fd, reader);
    free(s);
    return -problem;
  }
  own(s, free_stream, OI_OWNED_THREAD);
  block[0] = (int64_t)(intptr_t)s;
  block[1] = reader;
  return 0;
}

// block: { stream }.
int64_t oi_stream_free(int64_t *block) {
  disown((void *)(intptr_t)block[0], free_stream);
  return 0;
}

static int64_t submit(oi_stream *s, const int64_t *item, int64_t words) {
  uint64_t at = atomic_load(&s->submitted);
  if (at - atomic_load(&s->completed) >= STREAM_ITEMS) return -1;
  memcpy(s->items[at % STREAM_ITEMS], item, sizeof(int64_t) * (size_t)words);
  atomic_store(&s->submitted, at + 1);
  ring_stream(s);
  return (int64_t)at + 1;
}

// block: { stream, words that follow, name, launch… }. Returns the operation's number, from 1, or
// −1 if the queue is full.
int64_t oi_stream_submit(int64_t *block) {
  return submit((oi_stream *)(intptr_t)block[0], block + 2, block[1]);
}

static void await_stream(oi_stream *s, uint64_t number) {
  await_counter(s, &s->completed, number, &s->spins_wait);
}

// block: { stream, number }. Waits until that operation is done; it ends as the operation does,
// whose own waits are bounded.
int64_t oi_stream_wait(int64_t *block) {
  await_stream((oi_stream *)(intptr_t)block[0], (uint64_t)block[1]);
  return 0;
}

// As oi_stream_submit, and returns when it is done: at once on this thread if nothing is queued.
int64_t oi_stream_run(int64_t *block) {
  oi_stream *s = (oi_stream *)(intptr_t)block[0];
  uint64_t at = atomic_load(&s->submitted);
  if (atomic_load(&s->completed) == at) {
    run_item(s, block + 2);
    // The thread has yet to see it as submitted, and then sees that it is complete.
    atomic_store(&s->completed, at + 1);
    atomic_store(&s->submitted, at + 1);
    return (int64_t)at + 1;
  }
  int64_t number = submit(s, block + 2, block[1]);
  if (number < 0) {
    await_stream(s, at);
    number = submit(s, block + 2, block[1]);
  }
  await_stream(s, (uint64_t)number);
  return number;
}

// block: { stream, number }. Returns 1 if it is done; else asks for the event to be written once
// something is.
int64_t oi_stream_poll(int64_t *block) {
  oi_stream *s = (oi_stream *)(intptr_t)block[0];
  if (atomic_load(&s->completed) >= (uint64_t)block[1]) return 1;
  atomic_store(&s->watched, 1);
  return atomic_load(&s->completed) >= (uint64_t)block[1];
}
