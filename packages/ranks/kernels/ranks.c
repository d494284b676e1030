// The native side of a rank. Each function takes a block of 64-bit words and writes its results
// back into it; src/native.ts is the one caller. Here: groups and windows; the rest is in the
// headers beside this file.
#include "oi_ranks.h"
#include "region.h"
#include "wait.h"
#include "outbox.h"
#include "stream.h"
#include "watch.h"

static void *pointer_of(int64_t word) { return (void *)(intptr_t)word; }

// ---- Groups

enum {
  RANK,
  SIZE,
  NODE,
  NODES,
  SPINS,
  SPINS_LEAST,
  YIELDS,
  TIMEOUT_NS,
  CONTROL,
  HAS_OUTBOX,
  GOES_ON,
  NODE_OF,
};

static void free_group(void *pointer) {
  oi_group *g = pointer;
  if (g->outbox != NULL) close_event(g->outbox->event_fd, -1);
  free(g->outbox);
  free((void *)(intptr_t)g->node_of);
  free((void *)(intptr_t)g->wait_ns);
  free((void *)(intptr_t)g->masked);
  free((void *)(intptr_t)g->linked);
  free(g);
}

static int has_parts(const oi_group *g, int with_outbox) {
  return g->node_of != NULL && g->wait_ns != NULL && g->masked != NULL && g->linked != NULL &&
         (!with_outbox || g->outbox != NULL);
}

// block: as the names above -> { group, outbox, its event's reading end, which the caller closes }.
// Returns 0 or -errno.
int64_t oi_group_create(int64_t *block) {
  size_t size = (size_t)block[SIZE];
  oi_group *g = calloc(1, sizeof *g);
  if (g == NULL) return -ENOMEM;
  int32_t *node_of = calloc(size, sizeof *node_of);
  g->node_of = node_of;
  g->wait_ns = calloc(size, sizeof *g->wait_ns);
  g->masked = calloc(size, sizeof *g->masked);
  g->linked = calloc(size, sizeof *g->linked);
  void *box = NULL;
  int reader = -1;
  if (block[HAS_OUTBOX] && posix_memalign(&box, 64, sizeof *g->outbox) == 0) {
    g->outbox = box;
    memset(box, 0, sizeof *g->outbox);
    g->outbox->event_fd = make_event(&reader);
  }
  if (!has_parts(g, block[HAS_OUTBOX] != 0)) {
    close_event(-1, reader);
    free_group(g);
    return -ENOMEM;
  }
  for (size_t i = 0; i < size; i++) node_of[i] = (int32_t)block[NODE_OF + i];
  g->rank = (int32_t)block[RANK];
  g->size = (int32_t)size;
  g->node = (int32_t)block[NODE];
  g->nodes = (int32_t)block[NODES];
  g->spins = (int32_t)block[SPINS];
  g->spins_least = (int32_t)oi_min(block[SPINS_LEAST], block[SPINS]);
  g->spins_now = g->spins;
  g->yields = (int32_t)block[YIELDS];
  g->timeout_ns = block[TIMEOUT_NS];
  g->control = pointer_of(block[CONTROL]);
  g->goes_on = block[GOES_ON] != 0;
  g->own_pid = getpid();
  g->gone = -1;
  g->wait = wait_flag;
  g->wait_any = wait_any;
  g->post = post;
  g->flush = flush;
  g->fail = fail;
  g->barrier = group_barrier;
  own(g, free_group, OI_OWNED_MEMORY);
  block[0] = (int64_t)(intptr_t)g;
  block[1] = (int64_t)(intptr_t)box;
  block[2] = reader;
  return 0;
}

// block: { group }. Its stream and windows have gone before.
int64_t oi_group_free(int64_t *block) {
  disown(pointer_of(block[0]), free_group);
  return 0;
}

// block: { group, name }. What the rank's own thread is in.
int64_t oi_group_begin(int64_t *block) {
  show(pointer_of(block[0]), pointer_of(block[1]));
  return 0;
}

// block: { group, rank, whether }.
int64_t oi_group_mask(int64_t *block) {
  const oi_group *g = pointer_of(block[0]);
  atomic_store(&g->masked[block[1]], block[2] != 0);
  return 0;
}

// block: { group }. Returns how it ended; a failure is recorded.
int64_t oi_group_meet(int64_t *block) {
  oi_group *g = pointer_of(block[0]);
  show(g, "barrier");
  calling = "barrier";
  int32_t code = g->barrier(g, 0);
  calling = NULL;
  return code;
}

// block: { group, operation }.
int64_t oi_group_flush(int64_t *block) {
  calling = pointer_of(block[1]);
  int32_t code = oi_flush(pointer_of(block[0]));
  calling = NULL;
  return code;
}

// block: { group, rank }. Looks whether a rank still runs, and whether the group does. Returns
// OI_ARRIVED, OI_ABORTED or OI_PEER_DEAD.
int64_t oi_group_look(int64_t *block) {
  oi_group *g = pointer_of(block[0]);
  int32_t culprit = -1;
  int32_t code = check_group(g, (int32_t)block[1], LOOK_ALL, &culprit);
  if (code == OI_PEER_DEAD) atomic_store_explicit(&g->gone, culprit, memory_order_relaxed);
  return code;
}

// block: { group }. The rank ends without leaving: it counts as dead, what it runs ends.
int64_t oi_group_retire(int64_t *block) {
  retire(pointer_of(block[0]));
  return 0;
}

// block: { group, code, peer, waited ns, awaited, operation }. A failure that JavaScript found.
int64_t oi_group_fail(int64_t *block) {
  calling = pointer_of(block[5]);
  oi_fail(pointer_of(block[0]), (int32_t)block[1], (int32_t)block[2], 0, 0, block[3],
          pointer_of(block[4]));
  calling = NULL;
  return 0;
}

// ---- The control region

// block: { slot, pid, start time, name }. A rank enters.
int64_t oi_slot_enter(int64_t *block) {
  oi_slot *slot = pointer_of(block[0]);
  slot->pid = block[1];
  slot->start_time = block[2];
  snprintf(slot->name, sizeof slot->name, "%s", (const char *)pointer_of(block[3]));
  atomic_store(&slot->awaited, -1);
  set_state(slot, OI_RUNNING);
  return 0;
}

// block: { control, size, rank, state }. What left or died stays so; all are told.
int64_t oi_set_state(int64_t *block) {
  oi_control *control = pointer_of(block[0]);
  set_state(&control->slots[block[2]], (int32_t)block[3]);
  ring_all(control, (int32_t)block[1]);
  return 0;
}

// Says why the group ends, unless somebody has. block: { control, size, code, culprit, reporter,
// text }. Returns 1 if this was the first.
int64_t oi_abort(int64_t *block) {
  return abort_control(pointer_of(block[0]), (int32_t)block[1], (int32_t)block[2],
                       (int32_t)block[3], (int32_t)block[4], pointer_of(block[5]));
}

// What a link does with a signal that came in. block: { flag's address, value, add, slot }.
int64_t oi_apply_signal(int64_t *block) {
  _Atomic int64_t *flag = pointer_of(block[0]);
  if (block[2]) atomic_fetch_add(flag, block[1]);
  else atomic_store(flag, block[1]);
  oi_ring(pointer_of(block[3]));
  return 0;
}

// ---- Windows

// block: { group, number, bytes, flag count, whether it is the system's, then data and flags of
// each rank (0: not mapped)… } -> { window }. Returns 0 or -errno.
int64_t oi_window_create(int64_t *block) {
  oi_group *g = pointer_of(block[0]);
  size_t bytes = sizeof(oi_window) + sizeof(oi_mapping) * (size_t)g->size;
  oi_window *w = calloc(1, bytes);
  if (w == NULL) return -ENOMEM;
  w->group = g;
  w->number = block[1];
  w->bytes = block[2];
  w->flag_count = block[3];
  for (int32_t i = 0; i < g->size; i++) {
    w->peers[i].data = pointer_of(block[5 + 2 * i]);
    w->peers[i].flags = pointer_of(block[6 + 2 * i]);
  }
  w->data = w->peers[g->rank].data;
  w->flags = w->peers[g->rank].flags;
  if (block[4] != 0) g->system = w;
  own(w, free, OI_OWNED_MEMORY);
  block[0] = (int64_t)(intptr_t)w;
  return 0;
}

// block: { window }.
int64_t oi_window_free(int64_t *block) {
  disown(pointer_of(block[0]), free);
  return 0;
}

// block: { window, peer, offset, source, bytes }.
int64_t oi_window_put(int64_t *block) {
  oi_put(pointer_of(block[0]), (int32_t)block[1], block[2], pointer_of(block[3]), block[4]);
  return 0;
}

// block: { window, peer, flag, value, add }.
int64_t oi_window_signal(int64_t *block) {
  oi_window *w = pointer_of(block[0]);
  if (block[4]) oi_signal_add(w, (int32_t)block[1], block[2], block[3]);
  else oi_signal(w, (int32_t)block[1], block[2], block[3]);
  return 0;
}

// block: { window }. Tells every peer that this rank sends nothing more in it.
int64_t oi_window_farewell(int64_t *block) {
  oi_window *w = pointer_of(block[0]);
  for (int32_t peer = 0; peer < w->group->size; peer++)
    if (peer != w->group->rank) oi_signal(w, peer, oi_farewell(w, w->group->rank), 1);
  return 0;
}

// block: { window, flag, value, peer, limit ns or −1 for the group's timeout, awaited, operation }.
// Returns how the wait ended; with the group's timeout, the failure is recorded.
int64_t oi_window_wait(int64_t *block) {
  oi_window *w = pointer_of(block[0]);
  const char *awaited = pointer_of(block[5]);
  int32_t peer = (int32_t)block[3];
  calling = pointer_of(block[6]);
  int32_t code = block[4] < 0 ? oi_wait(w, block[1], block[2], peer, awaited)
                              : oi_try_wait(w, block[1], block[2], peer, block[4], awaited);
  calling = NULL;
  return code;
}

// block: { window, limit ns, count, then flag, value and peer of each… }. Records no failure.
int64_t oi_window_wait_any(int64_t *block) {
  return oi_try_wait_any(pointer_of(block[0]), (const oi_awaited *)(block + 3), block[2], block[1]);
}

// ---- Facts

// A kernel's library stays loaded: the stream's thread may be in it when the JavaScript thread that
// loaded it is terminated and unloads it. block: { the kernel's entry }.
int64_t oi_keep_kernel(int64_t *block) {
  keep_library(pointer_of(block[0]));
  return 0;
}

// Returns how many picoseconds an oi_pause takes here; about 40,000 on recent x86, 3,000 on others.
int64_t oi_pause_ps(int64_t *block) {
  (void)block;
  int64_t best = INT64_MAX;
  for (int32_t repeat = 0; repeat < 5; repeat++) {
    int64_t start = oi_now_ns();
    for (int32_t i = 0; i < 200; i++) oi_pause();
    best = oi_min(best, (oi_now_ns() - start) * 5);
  }
  return oi_max(best, 100);
}

// block -> sizes and offsets that TypeScript reads memory by; see src/native.ts.
int64_t oi_layout(int64_t *block) {
  const int64_t sizes[] = {
      sizeof(oi_control),
      sizeof(oi_slot),
      offsetof(oi_slot, doorbell),
      offsetof(oi_slot, state),
      offsetof(oi_slot, pid),
      offsetof(oi_slot, operations),
      offsetof(oi_slot, waits_since_ns),
      offsetof(oi_slot, awaited),
      offsetof(oi_slot, name),
      offsetof(oi_slot, operation),
      offsetof(oi_control, aborted),
      offsetof(oi_control, culprit),
      offsetof(oi_control, reporter),
      offsetof(oi_control, text),
      sizeof(oi_group),
      offsetof(oi_group, failure),
      offsetof(oi_failure, awaited),
      offsetof(oi_failure, operation),
      offsetof(oi_failure, text),
      offsetof(oi_group, traffic),
      offsetof(oi_group, timeout_ns),
      offsetof(oi_group, wait_ns),
      offsetof(oi_group, masked),
      offsetof(oi_group, linked),
      offsetof(oi_stream, completed),
      sizeof(oi_stream),
      offsetof(oi_outbox, posted),
      offsetof(oi_outbox, taken),
      offsetof(oi_outbox, idle),
      offsetof(oi_outbox, entries),
      sizeof(oi_outbox),
  };
  memcpy(block, sizes, sizeof sizes);
  return (int64_t)(sizeof sizes / sizeof sizes[0]);
}
