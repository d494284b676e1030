// What communication kernels see of their group: windows that peers write into, flags that say what
// has arrived, waits that end. Everything a kernel does goes through put, signal and wait below;
// the same kernel runs whether a peer's memory is mapped here (threads, processes of one host) or
// lies behind a link (another host), for which puts and signals become descriptors of an outbox.
//
// What must hold:
// - Signals of one rank to one peer are seen in the order given, and after all bytes put to that
//   peer before them by the same thread of a kernel (other threads' bytes after an oi_barrier).
// - Flags are 64-bit counters that only grow; nobody resets them while others may wait.
// - A wait ends: by the flag, by the group's abort, by a peer's death, or by the timeout. After a
//   wait that did not return OI_ARRIVED the kernel returns at once, touching nothing more.
// - The bytes behind a put to a peer that is not mapped stay as they are until oi_flush.
// - A kernel that writes in place with streaming stores ends them with a store fence of its own.
#pragma once
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "oi_kernel.h"
#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

// How a wait, and with it an operation, ends.
enum {
  OI_ARRIVED = 0,
  OI_ABORTED = 1,    // another rank, or another operation of this one, failed first
  OI_TIMED_OUT = 2,  // the peer is there but has not sent
  OI_PEER_DEAD = 3,  // the peer's thread, process or connection is gone, or its window is closed
  OI_BAD_DATA = 4,   // what arrived contradicts what this rank was told
  OI_REFUSED = 5,    // the system did not grant the operation its threads or scratch memory
};

// Where bytes went, for oi_group.traffic.
enum { OI_SELF = 0, OI_SAME_NODE = 1, OI_OTHER_NODE = 2, OI_LINK_CLASSES = 3 };

// What the ranks that share memory know of one rank of the world. Whoever waits sleeps on its own
// doorbell, whatever flag it waits for; signals to a rank that sleeps raise it.
enum { OI_ABSENT = 0, OI_RUNNING = 1, OI_LEFT = 2, OI_DEAD = 3 };
typedef struct oi_slot {
  _Alignas(64) _Atomic uint32_t doorbell;
  _Atomic uint32_t sleepers;
  _Alignas(64) _Atomic int32_t state;
  int32_t unused;
  int64_t pid;         // 0: a rank of another host, whose link sets `state`
  int64_t start_time;  // of the process, in clock ticks, so that a reused pid is noticed
  char name[104];      // for people: rank 3 (host-a, process 4711)
  // What the rank is in and what it waits for, for the errors of others.
  _Alignas(64) _Atomic int64_t operations;  // raised when one begins
  _Atomic int64_t waits_since_ns;           // monotonic; 0 for a rank of another host
  _Atomic int32_t awaited;                  // the rank it waits for; −1: none, −2: anyone
  char operation[52];
} oi_slot;

// One for all ranks that share memory; zeroed when made. Whoever claims it first writes the text
// and then sets `aborted`, so who sees that sees the text.
typedef struct oi_control {
  _Alignas(64) _Atomic int32_t aborted;  // 0, or how: the first failure wins
  _Atomic int32_t claimed;
  int32_t culprit, reporter;  // ranks, or −1
  char text[496];
  oi_slot slots[];  // [size of the world]
} oi_control;

typedef struct oi_traffic {
  _Atomic int64_t bytes, puts, signals;
} oi_traffic;

// A put or a signal for a peer that is not mapped.
enum { OI_PUT = 1, OI_SIGNAL = 2, OI_SIGNAL_ADD = 3 };
typedef struct oi_descriptor {
  int32_t kind, peer;
  int64_t window;  // its number
  int64_t offset;  // bytes into the peer's window, or the flag's index
  int64_t value;   // of a signal
  const void *source;
  int64_t bytes;
  int64_t unused[2];
} oi_descriptor;

// Filled by kernels (any thread), emptied in order by the link. `taken` counts descriptors that the
// link has copied or sent, so that their bytes may change.
enum { OI_OUTBOX_ENTRIES = 4096 };
typedef struct oi_outbox {
  _Alignas(64) _Atomic uint64_t posted;
  _Alignas(64) _Atomic uint64_t taken;
  _Alignas(64) _Atomic uint32_t lock;
  _Alignas(64) _Atomic uint32_t idle;  // the link sleeps until event_fd is written
  int32_t event_fd;
  oi_descriptor entries[OI_OUTBOX_ENTRIES];
} oi_outbox;

// The first failure of this rank, for the error that TypeScript makes of it.
typedef struct oi_failure {
  _Atomic int32_t code;  // 0: none
  int32_t peer;
  int64_t waited_ns, have, want;
  char awaited[96];
  char operation[48];
  char text[480];  // the sentence
} oi_failure;

// One of the flags that a wait for any of several looks at.
typedef struct oi_awaited {
  int64_t flag, value, peer;
} oi_awaited;

struct oi_window;

// One rank's group; private to the rank. The functions are ranks.c's, one copy for all kernels.
typedef struct oi_group {
  int32_t (*wait)(struct oi_window *w, int64_t flag, int64_t value, int32_t peer, int64_t limit_ns,
                  const char *awaited);
  void (*post)(struct oi_group *g, const oi_descriptor *descriptor);
  int32_t (*flush)(struct oi_group *g);
  int32_t (*fail)(struct oi_group *g, int32_t code, int32_t peer, int64_t have, int64_t want,
                  int64_t waited_ns, const char *awaited);
  int32_t (*barrier)(struct oi_group *g, int32_t lane);
  int32_t (*wait_any)(struct oi_window *w, const oi_awaited *list, int64_t count,
                      int64_t limit_ns);
  int32_t rank, size;
  int32_t node, nodes;
  // How often a wait looks before it sleeps: at most, at least, and now, which follows what helped.
  int32_t spins, spins_least, yields;
  _Atomic int32_t spins_now;
  int64_t timeout_ns;
  oi_control *control;
  oi_outbox *outbox;  // null: every peer is mapped
  const int32_t *node_of;  // [size]
  _Atomic int64_t *wait_ns;  // [size]: how long this rank waited for each
  _Atomic int32_t *masked;   // [size]: whom this rank neither sends to nor waits for
  // [size]: OI_LEFT or OI_DEAD as soon as this rank's link says so. Not in the slots: the link of
  // another rank may see a goodbye before this one's has brought what was sent before it.
  _Atomic int32_t *linked;
  int32_t goes_on;           // a rank's end does not end the group
  _Atomic int32_t gone;      // whose death a wait saw last; −1: nobody's
  int64_t own_pid;
  const char *operation;     // what the stream, or the rank's own thread, is in
  struct oi_window *system;  // flags of barriers, and messages
  int64_t rounds[2];         // of barriers
  oi_failure failure;
  oi_traffic traffic[OI_LINK_CLASSES];
} oi_group;

typedef struct oi_mapping {
  uint8_t *data;  // null: behind a link
  _Atomic int64_t *flags;
} oi_mapping;

// Symmetric memory: every rank has `bytes` of data and `flag_count` flags in it. Behind them lies a
// farewell of each rank: raised by a rank that closes the window, after all it has sent, so that
// nobody waits for more from it.
typedef struct oi_window {
  oi_group *group;
  int64_t number, bytes, flag_count;
  uint8_t *data;  // this rank's
  _Atomic int64_t *flags;
  oi_mapping peers[];  // [size], this rank's own included
} oi_window;

static inline int64_t oi_farewell(const oi_window *w, int32_t peer) {
  return w->flag_count + peer;
}

static inline int64_t oi_now_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

// Sleeps while *word == seen, at most `ns`.
static inline void oi_sleep_on(_Atomic uint32_t *word, uint32_t seen, int64_t ns) {
#if defined(__linux__)
  struct timespec limit = {.tv_sec = ns / 1000000000, .tv_nsec = ns % 1000000000};
  syscall(SYS_futex, (uint32_t *)word, FUTEX_WAIT, seen, &limit, NULL, 0);
#else
  int64_t slice = ns < 50000 ? ns : 50000;
  struct timespec limit = {.tv_sec = 0, .tv_nsec = slice};
  if (atomic_load(word) == seen) nanosleep(&limit, NULL);
#endif
}

static inline void oi_wake_all(_Atomic uint32_t *word) {
#if defined(__linux__)
  syscall(SYS_futex, (uint32_t *)word, FUTEX_WAKE, INT32_MAX, NULL, NULL, 0);
#else
  (void)word;
#endif
}

static inline int32_t oi_link_class(const oi_group *g, int32_t peer) {
  if (peer == g->rank) return OI_SELF;
  return g->node_of[peer] == g->node ? OI_SAME_NODE : OI_OTHER_NODE;
}

static inline int oi_is_mapped(const oi_window *w, int32_t peer) {
  return w->peers[peer].data != NULL;
}

// Where byte `offset` of a mapped peer's window is here, to write in place instead of by put. Count
// what is written with oi_count.
static inline uint8_t *oi_peer_data(const oi_window *w, int32_t peer, int64_t offset) {
  return w->peers[peer].data + offset;
}

static inline void oi_count(oi_group *g, int32_t peer, int64_t bytes, int64_t puts) {
  oi_traffic *t = &g->traffic[oi_link_class(g, peer)];
  atomic_fetch_add_explicit(&t->bytes, bytes, memory_order_relaxed);
  atomic_fetch_add_explicit(&t->puts, puts, memory_order_relaxed);
}

static inline int oi_is_masked(const oi_group *g, int32_t peer) {
  return atomic_load_explicit(&g->masked[peer], memory_order_relaxed) != 0;
}

// From now on this rank does without `peer`: for operations that go on after an oi_try_wait for it
// has failed. Each rank has a mask of its own.
static inline void oi_mask(oi_group *g, int32_t peer) {
  atomic_store_explicit(&g->masked[peer], 1, memory_order_relaxed);
}

// Records why this rank's operation ends and ends the group with it; the first reason stays.
// Returns `code`.
static inline int32_t oi_fail(oi_group *g, int32_t code, int32_t peer, int64_t have, int64_t want,
                              int64_t waited_ns, const char *awaited) {
  return g->fail(g, code, peer, have, want, waited_ns, awaited);
}

// Copies bytes into a peer's window. Returns when they are there (mapped), or noted for the link.
static inline void oi_put(oi_window *w, int32_t peer, int64_t offset, const void *source,
                          int64_t bytes) {
  if (bytes <= 0) return;
  oi_count(w->group, peer, bytes, 1);
  if (oi_is_mapped(w, peer)) {
    memcpy(w->peers[peer].data + offset, source, (size_t)bytes);
    return;
  }
  oi_descriptor d = {.kind = OI_PUT, .peer = peer, .window = w->number, .offset = offset};
  d.source = source;
  d.bytes = bytes;
  w->group->post(w->group, &d);
}

// After a flag was written in the one total order of atomics, look who sleeps. A sleeper counts
// itself, then notes the doorbell, then looks at its flag, all in that order too: so either this
// side sees the sleeper, or the sleeper sees the flag.
static inline void oi_ring(oi_slot *slot) {
  if (atomic_load(&slot->sleepers) == 0) return;
  atomic_fetch_add(&slot->doorbell, 1);
  oi_wake_all(&slot->doorbell);
}

// Raises a peer's flag to `value`, after everything put to it before. Values must grow.
static inline void oi_signal(oi_window *w, int32_t peer, int64_t flag, int64_t value) {
  oi_traffic *t = &w->group->traffic[oi_link_class(w->group, peer)];
  atomic_fetch_add_explicit(&t->signals, 1, memory_order_relaxed);
  if (oi_is_mapped(w, peer)) {
    atomic_store(&w->peers[peer].flags[flag], value);
    oi_ring(&w->group->control->slots[peer]);
    return;
  }
  oi_descriptor d = {.kind = OI_SIGNAL, .peer = peer, .window = w->number, .offset = flag};
  d.value = value;
  w->group->post(w->group, &d);
}

// Adds to a peer's flag instead: for counts that several ranks raise.
static inline void oi_signal_add(oi_window *w, int32_t peer, int64_t flag, int64_t value) {
  oi_traffic *t = &w->group->traffic[oi_link_class(w->group, peer)];
  atomic_fetch_add_explicit(&t->signals, 1, memory_order_relaxed);
  if (oi_is_mapped(w, peer)) {
    atomic_fetch_add(&w->peers[peer].flags[flag], value);
    oi_ring(&w->group->control->slots[peer]);
    return;
  }
  oi_descriptor d = {.kind = OI_SIGNAL_ADD, .peer = peer, .window = w->number, .offset = flag};
  d.value = value;
  w->group->post(w->group, &d);
}

// What this rank's flag holds now; the bytes put before it was raised are visible.
static inline int64_t oi_flag(const oi_window *w, int64_t flag) {
  return atomic_load_explicit(&w->flags[flag], memory_order_acquire);
}

// Waits until this rank's flag is at least `value`. `peer` raises it (−1: anyone) and `awaited`
// says what it stands for, both for errors: "the token counts of dispatch". Any result but
// OI_ARRIVED has been recorded as the group's failure; return at once.
static inline int32_t oi_wait(oi_window *w, int64_t flag, int64_t value, int32_t peer,
                              const char *awaited) {
  if (oi_flag(w, flag) >= value) return OI_ARRIVED;
  oi_group *g = w->group;
  int64_t start = oi_now_ns();
  int32_t code = g->wait(w, flag, value, peer, g->timeout_ns, awaited);
  if (code == OI_ARRIVED) return code;
  return oi_fail(g, code, peer, oi_flag(w, flag), value, oi_now_ns() - start, awaited);
}

// Waits until any flag of the list has its value, within `limit_ns`; records no failure.
static inline int32_t oi_try_wait_any(oi_window *w, const oi_awaited *list, int64_t count,
                                      int64_t limit_ns) {
  for (int64_t i = 0; i < count; i++)
    if (oi_flag(w, list[i].flag) >= list[i].value) return OI_ARRIVED;
  return w->group->wait_any(w, list, count, limit_ns);
}

// All ranks' kernels wait here for each other; one thread of a kernel calls it. Not to be mixed up
// with oi_barrier, which is for the threads of one rank.
static inline int32_t oi_group_barrier(oi_group *g) { return g->barrier(g, 1); }

// The same within `limit_ns`, without recording a failure: for callers that go on without the peer.
static inline int32_t oi_try_wait(oi_window *w, int64_t flag, int64_t value, int32_t peer,
                                  int64_t limit_ns, const char *awaited) {
  if (oi_flag(w, flag) >= value) return OI_ARRIVED;
  return w->group->wait(w, flag, value, peer, limit_ns, awaited);
}

// Waits until the link has taken all that this rank has put, so that its source may change. Nothing
// to do where every peer is mapped. A failure has been recorded.
static inline int32_t oi_flush(oi_group *g) {
  return g->outbox == NULL ? OI_ARRIVED : g->flush(g);
}
