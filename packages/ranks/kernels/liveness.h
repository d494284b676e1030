// Who still runs. A rank of this host is watched by its process (pid and start time, so that a
// reused pid is noticed); a thread says itself that it ends (owner.h); a rank of another host by
// its link.
#pragma once
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <unistd.h>
#include "oi_ranks.h"

// The state letter and the start time of a process from /proc. Returns 0 or -errno.
static int read_process(int64_t pid, char *state, int64_t *start_time) {
  *start_time = 0;
#if defined(__linux__)
  char path[48], text[1024];
  snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  ssize_t got = read(fd, text, sizeof text - 1);
  int problem = got > 0 ? 0 : got < 0 ? -errno : -ESRCH;
  close(fd);
  if (problem != 0) return problem;
  text[got] = 0;
  // pid (name) state ppid … start time is field 22; the name may hold anything, so from its end.
  char *at = strrchr(text, ')');
  if (at == NULL || at[1] == 0) return -EIO;
  *state = at[2];
  int field = 2;
  for (char *p = at + 1; *p != 0; p++) {
    if (*p == ' ' && ++field == 22) {
      *start_time = atoll(p + 1);
      return 0;
    }
  }
  return -EIO;
#else
  (void)pid;
  (void)state;
  return -ENOSYS;
#endif
}

// Whether the process is there, not a zombie, and the same one as at the start.
static int process_runs(int64_t pid, int64_t start_time) {
  char state = 0;
  int64_t start = 0;
  int problem = read_process(pid, &state, &start);
  if (problem == 0)
    return state != 'Z' && state != 'X' && (start_time == 0 || start == start_time);
  // No /proc, or no descriptor left to read it by: the signal that is none tells less, but enough.
  return kill((pid_t)pid, 0) == 0 || errno != ESRCH;
}

// block: { pid } -> { start time }; 0 where the system does not tell.
int64_t oi_process_start(int64_t *block) {
  char state;
  int64_t start;
  read_process(block[0], &state, &start);
  block[0] = start;
  return 0;
}

// Texts that others may read while they change: what they read may be of both, but it is a text.
static void write_text(char *to, const char *from, size_t room) {
  size_t i = 0;
  for (; i + 1 < room && from[i] != 0; i++) __atomic_store_n(&to[i], from[i], __ATOMIC_RELAXED);
  __atomic_store_n(&to[i], 0, __ATOMIC_RELAXED);
}

static void read_text(char *to, const char *from, size_t room) {
  size_t i = 0;
  for (; i + 1 < room; i++) {
    to[i] = __atomic_load_n(&from[i], __ATOMIC_RELAXED);
    if (to[i] == 0) return;
  }
  to[i] = 0;
}

static void set_state(oi_slot *slot, int32_t state) {
  int32_t now = atomic_load(&slot->state);
  // What left or died stays so.
  while (now < OI_LEFT && !atomic_compare_exchange_weak(&slot->state, &now, state)) {
  }
}

static void ring_all(oi_control *control, int32_t size) {
  for (int32_t i = 0; i < size; i++) {
    atomic_fetch_add(&control->slots[i].doorbell, 1);
    oi_wake_all(&control->slots[i].doorbell);
  }
}

// How closely to look: at what ranks have said, also at the process of the one that is waited for,
// or at all processes.
enum { LOOK_STATES, LOOK_PEER, LOOK_ALL };

// The state of a rank, after a look at its process if `closely`.
static int32_t look_at(const oi_group *g, int32_t rank, int closely) {
  oi_slot *slot = &g->control->slots[rank];
  int32_t linked = atomic_load(&g->linked[rank]);
  if (linked != 0) return linked;
  int32_t state = atomic_load(&slot->state);
  if (!closely || state != OI_RUNNING || slot->pid == 0 || slot->pid == g->own_pid) return state;
  if (process_runs(slot->pid, slot->start_time)) return OI_RUNNING;
  set_state(slot, OI_DEAD);
  return atomic_load(&slot->state);
}

// OI_ARRIVED if nothing speaks against waiting on. `peer` is who is waited for, or negative for
// anyone; `culprit` becomes who is gone.
static int32_t check_group(const oi_group *g, int32_t peer, int32_t look, int32_t *culprit) {
  if (atomic_load(&g->control->aborted) != 0 || atomic_load(&g->failure.code) != 0)
    return OI_ABORTED;
  *culprit = peer;
  if (peer >= 0 && peer != g->rank && look_at(g, peer, look >= LOOK_PEER) >= OI_LEFT)
    return OI_PEER_DEAD;
  if (g->goes_on) return OI_ARRIVED;
  // Any rank's death ends the group, whomever this one waits for. Who left has done its part.
  for (int32_t rank = 0; rank < g->size; rank++) {
    if (rank == g->rank || rank == peer) continue;
    if (look_at(g, rank, look >= (peer < 0 ? LOOK_PEER : LOOK_ALL)) != OI_DEAD) continue;
    *culprit = rank;
    return OI_PEER_DEAD;
  }
  return OI_ARRIVED;
}
