// A thread that tells the event loop of a rank that something was signalled to it: for JavaScript
// that waits for messages without blocking. The rank arms it, looks once more, and then lets it
// wait; each time it writes its event once.
#pragma once
#include "stream.h"

enum { WATCH_IDLE = 0, WATCH_ARMED = 1, WATCH_WAITING = 2, WATCH_STOP = 3 };
typedef struct oi_watch {
  _Atomic uint32_t phase;
  uint32_t seen;  // the doorbell when it was armed
  int32_t event_fd;
  oi_group *group;
  pthread_t thread;
} oi_watch;

static void *run_watch(void *arg) {
  oi_watch *watch = arg;
  oi_slot *slot = &watch->group->control->slots[watch->group->rank];
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "oi-watch");
#endif
  for (;;) {
    uint32_t phase = atomic_load(&watch->phase);
    if (phase == WATCH_STOP) return NULL;
    if (phase != WATCH_WAITING) {
      oi_sleep_on(&watch->phase, phase, 10000000000);
      continue;
    }
    // One slice, after which the rank looks at its peers and arms it again.
    oi_sleep_on(&slot->doorbell, watch->seen, SLICE_NS);
    atomic_fetch_sub(&slot->sleepers, 1);
    atomic_compare_exchange_strong(&watch->phase, &phase, WATCH_IDLE);
    write_event(watch->event_fd);
  }
}

static void free_watch(void *pointer) {
  oi_watch *watch = pointer;
  atomic_store(&watch->phase, WATCH_STOP);
  oi_wake_all(&watch->phase);
  oi_slot *slot = &watch->group->control->slots[watch->group->rank];
  atomic_fetch_add(&slot->doorbell, 1);
  oi_wake_all(&slot->doorbell);
  pthread_join(watch->thread, NULL);
  close_event(watch->event_fd, -1);
  free(watch);
}

// block: { group } -> { watch, its event's reading end, which the caller closes }. Returns 0 or
// -errno.
int64_t oi_watch_create(int64_t *block) {
  oi_watch *watch = calloc(1, sizeof *watch);
  if (watch == NULL) return -ENOMEM;
  watch->group = (oi_group *)(intptr_t)block[0];
  int reader = -1;
  watch->event_fd = make_event(&reader);
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int problem = ENOSYS;
  if (watch->event_fd >= 0) problem = pthread_create(&watch->thread, NULL, run_watch, watch);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (problem != 0) {
    close_event(watch->event_fd, reader);
    free(watch);
    return -problem;
  }
  own(watch, free_watch, OI_OWNED_THREAD);
  block[0] = (int64_t)(intptr_t)watch;
  block[1] = reader;
  return 0;
}

// block: { watch }.
int64_t oi_watch_free(int64_t *block) {
  disown((void *)(intptr_t)block[0], free_watch);
  return 0;
}

// block: { watch }. From here on a signal is noticed; look at the flags after this. Returns 0 if it
// still waits from before.
int64_t oi_watch_arm(int64_t *block) {
  oi_watch *watch = (oi_watch *)(intptr_t)block[0];
  if (atomic_load(&watch->phase) != WATCH_IDLE) return 0;
  oi_slot *slot = &watch->group->control->slots[watch->group->rank];
  atomic_fetch_add(&slot->sleepers, 1);
  watch->seen = atomic_load(&slot->doorbell);
  atomic_store(&watch->phase, WATCH_ARMED);
  return 1;
}

// block: { watch, whether to wait }. The look found nothing, or it did.
int64_t oi_watch_go(int64_t *block) {
  oi_watch *watch = (oi_watch *)(intptr_t)block[0];
  if (atomic_load(&watch->phase) != WATCH_ARMED) return 0;
  if (block[1] != 0) {
    atomic_store(&watch->phase, WATCH_WAITING);
    oi_wake_all(&watch->phase);
    return 0;
  }
  atomic_fetch_sub(&watch->group->control->slots[watch->group->rank].sleepers, 1);
  atomic_store(&watch->phase, WATCH_IDLE);
  return 0;
}
