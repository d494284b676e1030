// The outbox: what goes to peers that are not mapped, filled by kernels, emptied by the link.
#pragma once
#include <sched.h>
#include "event.h"
#include "oi_ranks.h"

static void wake_link(oi_outbox *box) {
#if defined(__linux__)
  if (atomic_exchange(&box->idle, 0) == 0) return;
  write_event(box->event_fd);
#else
  (void)box;
#endif
}

static int has_ended(const oi_group *g) {
  return atomic_load(&g->control->aborted) != 0 || atomic_load(&g->failure.code) != 0;
}

static void post(oi_group *g, const oi_descriptor *descriptor) {
  oi_outbox *box = g->outbox;
  uint32_t free = 0;
  for (int32_t tries = 0; !atomic_compare_exchange_weak(&box->lock, &free, 1); tries++) {
    free = 0;
    if (tries > 100) sched_yield();
    oi_pause();
  }
  uint64_t at = atomic_load_explicit(&box->posted, memory_order_relaxed);
  for (int32_t tries = 0; at - atomic_load(&box->taken) >= OI_OUTBOX_ENTRIES; tries++) {
    if (has_ended(g)) {
      atomic_store(&box->lock, 0);
      return;
    }
    wake_link(box);
    struct timespec nap = {.tv_sec = 0, .tv_nsec = 20000};
    if (tries < 100) sched_yield();
    else nanosleep(&nap, NULL);
  }
  box->entries[at % OI_OUTBOX_ENTRIES] = *descriptor;
  atomic_store(&box->posted, at + 1);
  atomic_store(&box->lock, 0);
  wake_link(box);
}

static int32_t flush(oi_group *g) {
  oi_outbox *box = g->outbox;
  uint64_t posted = atomic_load(&box->posted);
  int64_t start = oi_now_ns();
  for (int32_t tries = 0; atomic_load(&box->taken) < posted; tries++) {
    if (tries < 100) {
      sched_yield();
      continue;
    }
    struct timespec nap = {.tv_sec = 0, .tv_nsec = 20000};
    nanosleep(&nap, NULL);
    int64_t waited = oi_now_ns() - start;
    int32_t code = has_ended(g)             ? OI_ABORTED
                   : waited > g->timeout_ns ? OI_TIMED_OUT
                                            : OI_ARRIVED;
    if (code != OI_ARRIVED) {
      int64_t have = (int64_t)atomic_load(&box->taken);
      return oi_fail(g, code, -1, have, (int64_t)posted, waited, "the link to send what was put");
    }
  }
  return OI_ARRIVED;
}
