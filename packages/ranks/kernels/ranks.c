// The native side of a rank: shared regions, the group's record, waits, and the stream, a thread
// that runs communication operations in order while the rank computes. Each function takes a block
// of 64-bit words and writes its results back into it; src/native.ts is the one caller.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#if defined(__linux__)
#include <sys/eventfd.h>
#endif
#include "oi_ranks.h"

// Threads of this library outlive the JavaScript thread that loaded it when that one is ended by
// force, so the library stays.
static void keep_loaded(void) {
  Dl_info self;
  if (dladdr((void *)(intptr_t)&keep_loaded, &self) != 0 && self.dli_fname != NULL)
    dlopen(self.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
}

// ---- Regions: shared memory without a name, so that nothing is left behind whoever dies. Another
// process of the host maps it through /proc/<pid>/fd/<fd> of its maker.

// Threads of the maker's process use one mapping; how many do is counted in a page behind the data,
// and the last one to let go unmaps it.
enum { REGION_PAGE = 4096 };
static size_t rounded(int64_t bytes) {
  return ((size_t)bytes + REGION_PAGE - 1) / REGION_PAGE * REGION_PAGE;
}
static _Atomic int64_t *holders(int64_t address, int64_t bytes) {
  return (_Atomic int64_t *)(intptr_t)(address + (int64_t)rounded(bytes));
}

// block: { bytes } -> { address, fd }. Returns 0 or -errno.
int64_t oi_region_create(int64_t *block) {
  int64_t bytes = block[0];
  size_t all = rounded(bytes) + REGION_PAGE;
#if defined(__linux__)
  int fd = memfd_create("open-infra-ranks", MFD_CLOEXEC);
#else
  char name[32];
  snprintf(name, sizeof name, "/oi-%d-%llx", getpid(), (unsigned long long)oi_now_ns());
  int fd = shm_open(name, O_RDWR | O_CREAT | O_EXCL, 0600);
  if (fd >= 0) shm_unlink(name);
#endif
  if (fd < 0) return -errno;
  if (ftruncate(fd, (off_t)all) != 0) {
    int problem = errno;
    close(fd);
    return -problem;
  }
  void *at = mmap(NULL, all, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (at == MAP_FAILED) {
    int problem = errno;
    close(fd);
    return -problem;
  }
  block[0] = (int64_t)(intptr_t)at;
  block[1] = fd;
  atomic_store(holders(block[0], bytes), 1);
  return 0;
}

// block: { address, bytes }. Another thread of the maker's process uses the region too.
int64_t oi_region_retain(int64_t *block) {
  return atomic_fetch_add(holders(block[0], block[1]), 1);
}

// block: { address, bytes, fd }. A thread of the maker's process lets go.
int64_t oi_region_release(int64_t *block) {
  if (atomic_fetch_sub(holders(block[0], block[1]), 1) != 1) return 0;
  munmap((void *)(intptr_t)block[0], rounded(block[1]) + REGION_PAGE);
  close((int)block[2]);
  return 1;
}

// block: { bytes, pid, fd } -> { address }. Maps a region of another process. Returns 0 or -errno.
int64_t oi_region_map(int64_t *block) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%lld/fd/%lld", (long long)block[1], (long long)block[2]);
  int fd = open(path, O_RDWR | O_CLOEXEC);
  if (fd < 0) return -errno;
  struct stat info;
  int64_t result = 0;
  if (fstat(fd, &info) != 0) result = -errno;
  else if (info.st_size < block[0]) result = -EINVAL;
  if (result == 0) {
    void *at = mmap(NULL, (size_t)block[0], PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) result = -errno;
    else block[0] = (int64_t)(intptr_t)at;
  }
  close(fd);
  return result;
}

// block: { address, bytes }. Ends what oi_region_map made.
int64_t oi_region_unmap(int64_t *block) {
  munmap((void *)(intptr_t)block[0], (size_t)block[1]);
  return 0;
}

// ---- Liveness

// Whether the process of a slot still runs: there, not a zombie, and the same one as at the start.
static int process_runs(int64_t pid, int64_t start_time) {
#if defined(__linux__)
  char path[48], text[1024];
  snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return errno != ENOENT && errno != ESRCH;
  ssize_t got = read(fd, text, sizeof text - 1);
  close(fd);
  if (got <= 0) return 0;
  text[got] = 0;
  // pid (name) state ppid … start time is field 22; the name may hold anything, so from its end.
  char *at = strrchr(text, ')');
  if (at == NULL) return 1;
  char state = at[2];
  if (state == 'Z' || state == 'X') return 0;
  long long start = 0;
  int field = 2;
  for (char *p = at + 1; *p != 0; p++) {
    if (*p != ' ') continue;
    if (++field == 22) {
      start = atoll(p + 1);
      break;
    }
  }
  return start_time == 0 || start == start_time;
#else
  (void)start_time;
  return kill((pid_t)pid, 0) == 0 || errno == EPERM;
#endif
}

// block: { pid } -> { start time }.
int64_t oi_process_start(int64_t *block) {
  int64_t pid = block[0];
  block[0] = 0;
#if defined(__linux__)
  char path[48], text[1024];
  snprintf(path, sizeof path, "/proc/%lld/stat", (long long)pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -errno;
  ssize_t got = read(fd, text, sizeof text - 1);
  close(fd);
  if (got <= 0) return -EIO;
  text[got] = 0;
  int field = 2;
  char *name_end = strrchr(text, ')');
  for (char *p = name_end == NULL ? text : name_end + 1; *p != 0; p++) {
    if (*p != ' ') continue;
    if (++field == 22) {
      block[0] = atoll(p + 1);
      break;
    }
  }
#endif
  return 0;
}

// OI_ARRIVED if nothing speaks against going on.
static int32_t check_group(oi_group *g, int32_t peer) {
  if (atomic_load(&g->control->aborted) != 0) return OI_ABORTED;
  if (peer < 0 || peer == g->rank) return OI_ARRIVED;
  oi_slot *slot = &g->control->slots[peer];
  int32_t state = atomic_load(&slot->state);
  if (state == OI_DEAD || state == OI_LEFT) return OI_PEER_DEAD;
  if (slot->pid > 0 && state == OI_RUNNING && !process_runs(slot->pid, slot->start_time)) {
    atomic_store(&slot->state, OI_DEAD);
    return OI_PEER_DEAD;
  }
  return OI_ARRIVED;
}

// ---- Waits

enum { SLEEP_NS = 20 * 1000 * 1000 };

static int32_t await_flag(oi_window *w, int64_t flag, int64_t value, int32_t peer,
                          int64_t limit_ns, oi_slot *own) {
  oi_group *g = w->group;
  _Atomic int64_t *at = &w->flags[flag];
  for (int32_t i = 0; i < g->spins; i++) {
    if (atomic_load_explicit(at, memory_order_acquire) >= value) return OI_ARRIVED;
    oi_pause();
  }
  for (int32_t i = 0; i < g->yields; i++) {
    if (atomic_load_explicit(at, memory_order_acquire) >= value) return OI_ARRIVED;
    sched_yield();
  }
  int64_t start = oi_now_ns();
  int64_t now = start;
  for (;;) {
    uint32_t seen = atomic_load(&own->doorbell);
    atomic_fetch_add(&own->sleepers, 1);
    int there = atomic_load(at) >= value;
    int64_t left = limit_ns - (now - start);
    if (!there && atomic_load(&g->control->aborted) == 0)
      oi_sleep_on(&own->doorbell, seen, left < SLEEP_NS ? oi_max(left, 1) : SLEEP_NS);
    atomic_fetch_sub(&own->sleepers, 1);
    if (there || atomic_load(at) >= value) return OI_ARRIVED;
    int32_t problem = check_group(g, peer);
    // What a peer sent before it died or left still counts.
    if (atomic_load(at) >= value) return OI_ARRIVED;
    if (problem != OI_ARRIVED) return problem;
    now = oi_now_ns();
    if (now - start >= limit_ns) return OI_TIMED_OUT;
  }
}

static int32_t wait_flag(oi_window *w, int64_t flag, int64_t value, int32_t peer, int64_t limit_ns,
                         const char *awaited) {
  (void)awaited;
  oi_group *g = w->group;
  oi_slot *own = &g->control->slots[g->rank];
  int64_t start = oi_now_ns();
  atomic_store_explicit(&own->awaited, peer, memory_order_relaxed);
  int32_t code = await_flag(w, flag, value, peer, limit_ns, own);
  atomic_store_explicit(&own->awaited, -1, memory_order_relaxed);
  if (peer >= 0 && peer < g->size)
    atomic_fetch_add_explicit(&g->wait_ns[peer], oi_now_ns() - start, memory_order_relaxed);
  return code;
}

// ---- The outbox: what goes to peers that are not mapped

static void wake_link(oi_outbox *box) {
#if defined(__linux__)
  if (atomic_exchange(&box->idle, 0) == 0) return;
  uint64_t one = 1;
  ssize_t written = write(box->event_fd, &one, sizeof one);
  (void)written;
#else
  (void)box;
#endif
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
  while (at - atomic_load(&box->taken) >= OI_OUTBOX_ENTRIES) {
    if (atomic_load(&g->control->aborted) != 0) {
      atomic_store(&box->lock, 0);
      return;
    }
    wake_link(box);
    sched_yield();
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
    int32_t code = atomic_load(&g->control->aborted) != 0 ? OI_ABORTED
                   : waited > g->timeout_ns               ? OI_TIMED_OUT
                                                          : OI_ARRIVED;
    if (code != OI_ARRIVED) {
      int64_t have = (int64_t)atomic_load(&box->taken);
      return oi_fail(g, code, -1, have, (int64_t)posted, waited, "the link to send what was put");
    }
  }
  return OI_ARRIVED;
}

// ---- Groups and windows

enum { RANK, SIZE, NODE, NODES, SPINS, YIELDS, TIMEOUT_NS, CONTROL, HAS_OUTBOX, NODE_OF };

// block: { rank, size, node, nodes, spins, yields, timeout ns, control, has outbox, node of each
// rank… } -> { group, outbox, event fd }. Returns 0 or -errno.
int64_t oi_group_create(int64_t *block) {
  keep_loaded();
  int64_t size = block[SIZE];
  oi_group *g = calloc(1, sizeof *g);
  int32_t *node_of = calloc((size_t)size, sizeof *node_of);
  _Atomic int64_t *wait_ns = calloc((size_t)size, sizeof *wait_ns);
  oi_outbox *box = NULL;
  if (block[HAS_OUTBOX] && posix_memalign((void **)&box, 64, sizeof *box) != 0) box = NULL;
  if (g == NULL || node_of == NULL || wait_ns == NULL || (block[HAS_OUTBOX] && box == NULL)) {
    free(g);
    free(node_of);
    free(wait_ns);
    free(box);
    return -ENOMEM;
  }
  for (int64_t i = 0; i < size; i++) node_of[i] = (int32_t)block[NODE_OF + i];
  g->rank = (int32_t)block[RANK];
  g->size = (int32_t)size;
  g->node = (int32_t)block[NODE];
  g->nodes = (int32_t)block[NODES];
  g->spins = (int32_t)block[SPINS];
  g->yields = (int32_t)block[YIELDS];
  g->timeout_ns = block[TIMEOUT_NS];
  g->control = (oi_control *)(intptr_t)block[CONTROL];
  g->node_of = node_of;
  g->wait_ns = wait_ns;
  g->wait = wait_flag;
  g->post = post;
  g->flush = flush;
  if (box != NULL) {
    memset(box, 0, sizeof *box);
    box->event_fd = -1;
#if defined(__linux__)
    box->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
#endif
    g->outbox = box;
  }
  block[0] = (int64_t)(intptr_t)g;
  block[1] = (int64_t)(intptr_t)box;
  block[2] = box == NULL ? -1 : box->event_fd;
  return 0;
}

// block: { group }.
int64_t oi_group_free(int64_t *block) {
  oi_group *g = (oi_group *)(intptr_t)block[0];
  if (g->outbox != NULL && g->outbox->event_fd >= 0) close(g->outbox->event_fd);
  free(g->outbox);
  free((void *)(intptr_t)g->node_of);
  free((void *)(intptr_t)g->wait_ns);
  free(g);
  return 0;
}

// block: { group, number, bytes, flag count, then data and flags of each rank (0: not mapped)… }
// -> { window }. Returns 0 or -errno.
int64_t oi_window_create(int64_t *block) {
  oi_group *g = (oi_group *)(intptr_t)block[0];
  size_t bytes = sizeof(oi_window) + sizeof(oi_mapping) * (size_t)g->size;
  oi_window *w = calloc(1, bytes);
  if (w == NULL) return -ENOMEM;
  w->group = g;
  w->number = block[1];
  w->bytes = block[2];
  w->flag_count = block[3];
  for (int32_t i = 0; i < g->size; i++) {
    w->peers[i].data = (uint8_t *)(intptr_t)block[4 + 2 * i];
    w->peers[i].flags = (_Atomic int64_t *)(intptr_t)block[5 + 2 * i];
  }
  w->data = w->peers[g->rank].data;
  w->flags = w->peers[g->rank].flags;
  block[0] = (int64_t)(intptr_t)w;
  return 0;
}

// block: { window }.
int64_t oi_window_free(int64_t *block) {
  free((void *)(intptr_t)block[0]);
  return 0;
}

// block: { window, peer, offset, source, bytes }.
int64_t oi_window_put(int64_t *block) {
  oi_put((oi_window *)(intptr_t)block[0], (int32_t)block[1], block[2],
         (const void *)(intptr_t)block[3], block[4]);
  return 0;
}

// block: { window, peer, flag, value, add }.
int64_t oi_window_signal(int64_t *block) {
  oi_window *w = (oi_window *)(intptr_t)block[0];
  if (block[4]) oi_signal_add(w, (int32_t)block[1], block[2], block[3]);
  else oi_signal(w, (int32_t)block[1], block[2], block[3]);
  return 0;
}

static char *text_of(int64_t word) { return (char *)(intptr_t)word; }

// block: { window, flag, value, peer, limit ns or −1 for the group's timeout, text }. Returns how
// the wait ended; with the group's timeout, the failure is recorded.
int64_t oi_window_wait(int64_t *block) {
  oi_window *w = (oi_window *)(intptr_t)block[0];
  const char *awaited = text_of(block[5]);
  if (block[4] < 0) return oi_wait(w, block[1], block[2], (int32_t)block[3], awaited);
  return oi_try_wait(w, block[1], block[2], (int32_t)block[3], block[4], awaited);
}

// block: { group }.
int64_t oi_group_flush(int64_t *block) { return oi_flush((oi_group *)(intptr_t)block[0]); }

// What a link does with a signal that came in. block: { flag's address, value, add, slot }.
int64_t oi_apply_signal(int64_t *block) {
  _Atomic int64_t *flag = (_Atomic int64_t *)(intptr_t)block[0];
  if (block[2]) atomic_fetch_add_explicit(flag, block[1], memory_order_acq_rel);
  else atomic_store_explicit(flag, block[1], memory_order_release);
  oi_slot *slot = (oi_slot *)(intptr_t)block[3];
  atomic_fetch_add(&slot->doorbell, 1);
  if (atomic_load(&slot->sleepers) != 0) oi_wake_all(&slot->doorbell);
  return 0;
}

// Says why the group ends, unless somebody has. block: { control, size, code, culprit, reporter,
// text }. Returns 1 if this was the first.
int64_t oi_abort(int64_t *block) {
  oi_control *c = (oi_control *)(intptr_t)block[0];
  int32_t none = 0;
  int first = atomic_compare_exchange_strong(&c->aborted, &none, (int32_t)block[2]);
  if (first) {
    c->culprit = (int32_t)block[3];
    c->reporter = (int32_t)block[4];
    snprintf(c->text, sizeof c->text, "%s", text_of(block[5]));
    atomic_store(&c->reported, 1);
  }
  for (int64_t i = 0; i < block[1]; i++) {
    atomic_fetch_add(&c->slots[i].doorbell, 1);
    oi_wake_all(&c->slots[i].doorbell);
  }
  return first;
}

// ---- The stream: one thread that runs operations in order. An operation is what a pool launch
// takes: pool, entry, threads, scratch bytes, parameters.

typedef void (*oi_thread_entry)(void);
typedef int64_t (*oi_launcher)(const int64_t *block);
enum { STREAM_ITEMS = 1024, STREAM_WORDS = 72 };

typedef struct oi_stream {
  _Alignas(64) _Atomic uint64_t submitted;
  _Alignas(64) _Atomic uint64_t completed;
  _Alignas(64) _Atomic uint32_t bell;  // raised by both sides
  _Atomic int32_t stop;
  int32_t event_fd;               // written after an operation when `watched`
  _Atomic int32_t watched;
  oi_launcher launch;
  oi_group *group;
  pthread_t thread;
  int64_t items[STREAM_ITEMS][STREAM_WORDS];
} oi_stream;

static void ring_stream(oi_stream *s) {
  atomic_fetch_add(&s->bell, 1);
  oi_wake_all(&s->bell);
}

static void *run_stream(void *arg) {
  oi_stream *s = arg;
#if defined(__linux__)
  pthread_setname_np(pthread_self(), "oi-comm");
#endif
  for (uint64_t next = 0;; next++) {
    for (int32_t spins = 0; atomic_load(&s->submitted) == next; spins++) {
      if (atomic_load(&s->stop)) return NULL;
      if (spins < s->group->spins) {
        oi_pause();
        continue;
      }
      uint32_t seen = atomic_load(&s->bell);
      if (atomic_load(&s->submitted) == next && !atomic_load(&s->stop))
        oi_sleep_on(&s->bell, seen, 100 * 1000 * 1000);
    }
    // After a failure what is queued is passed over: its data would be wrong.
    if (atomic_load(&s->group->failure.code) == 0) s->launch(s->items[next % STREAM_ITEMS]);
    atomic_store(&s->completed, next + 1);
    ring_stream(s);
#if defined(__linux__)
    if (atomic_exchange(&s->watched, 0) != 0) {
      uint64_t one = 1;
      ssize_t written = write(s->event_fd, &one, sizeof one);
      (void)written;
    }
#endif
  }
}

// block: { group, launch } -> { stream, event fd }. Returns 0 or -errno.
int64_t oi_stream_create(int64_t *block) {
  keep_loaded();
  oi_stream *s = NULL;
  if (posix_memalign((void **)&s, 64, sizeof *s) != 0) return -ENOMEM;
  memset(s, 0, sizeof *s);
  s->group = (oi_group *)(intptr_t)block[0];
  s->launch = (oi_launcher)(intptr_t)block[1];
  s->event_fd = -1;
#if defined(__linux__)
  s->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
#endif
  sigset_t all, before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  int problem = pthread_create(&s->thread, NULL, run_stream, s);
  pthread_sigmask(SIG_SETMASK, &before, NULL);
  if (problem != 0) {
    if (s->event_fd >= 0) close(s->event_fd);
    free(s);
    return -problem;
  }
  block[0] = (int64_t)(intptr_t)s;
  block[1] = s->event_fd;
  return 0;
}

// block: { stream }. Lets what runs finish.
int64_t oi_stream_free(int64_t *block) {
  oi_stream *s = (oi_stream *)(intptr_t)block[0];
  atomic_store(&s->stop, 1);
  ring_stream(s);
  pthread_join(s->thread, NULL);
  if (s->event_fd >= 0) close(s->event_fd);
  free(s);
  return 0;
}

// block: { stream, words of the launch, pool, entry, threads, scratch, parameters… }. Returns the
// operation's number, from 1, or −1 if the queue is full.
int64_t oi_stream_submit(int64_t *block) {
  oi_stream *s = (oi_stream *)(intptr_t)block[0];
  uint64_t at = atomic_load(&s->submitted);
  if (at - atomic_load(&s->completed) >= STREAM_ITEMS) return -1;
  memcpy(s->items[at % STREAM_ITEMS], block + 2, sizeof(int64_t) * (size_t)block[1]);
  atomic_store(&s->submitted, at + 1);
  ring_stream(s);
  return (int64_t)at + 1;
}

// block: { stream, number }. Waits until that operation is done; it ends as the operation does,
// whose own waits are bounded.
int64_t oi_stream_wait(int64_t *block) {
  oi_stream *s = (oi_stream *)(intptr_t)block[0];
  uint64_t number = (uint64_t)block[1];
  for (int32_t i = 0; i < s->group->spins; i++) {
    if (atomic_load(&s->completed) >= number) return 0;
    oi_pause();
  }
  for (;;) {
    uint32_t seen = atomic_load(&s->bell);
    if (atomic_load(&s->completed) >= number) return 0;
    oi_sleep_on(&s->bell, seen, 100 * 1000 * 1000);
  }
}

// block: { stream, number }. Returns 1 if it is done; else asks for the event fd to be written once
// something is.
int64_t oi_stream_poll(int64_t *block) {
  oi_stream *s = (oi_stream *)(intptr_t)block[0];
  if (atomic_load(&s->completed) >= (uint64_t)block[1]) return 1;
  atomic_store(&s->watched, 1);
  return atomic_load(&s->completed) >= (uint64_t)block[1];
}

// block -> sizes and offsets that TypeScript reads memory by; see src/native.ts.
int64_t oi_layout(int64_t *block) {
  const int64_t sizes[] = {
      sizeof(oi_control),
      sizeof(oi_slot),
      offsetof(oi_slot, state),
      offsetof(oi_slot, masked),
      offsetof(oi_slot, pid),
      offsetof(oi_slot, start_time),
      offsetof(oi_slot, heartbeat_ns),
      offsetof(oi_slot, operations),
      offsetof(oi_slot, since_ns),
      offsetof(oi_slot, awaited),
      offsetof(oi_slot, operation),
      offsetof(oi_control, aborted),
      offsetof(oi_control, reported),
      offsetof(oi_control, culprit),
      offsetof(oi_control, reporter),
      offsetof(oi_control, text),
      sizeof(oi_group),
      offsetof(oi_group, failure),
      offsetof(oi_failure, awaited),
      offsetof(oi_group, traffic),
      offsetof(oi_group, timeout_ns),
      offsetof(oi_outbox, posted),
      offsetof(oi_outbox, taken),
      offsetof(oi_outbox, idle),
      offsetof(oi_outbox, entries),
      sizeof(oi_outbox),
  };
  memcpy(block, sizes, sizeof sizes);
  return (int64_t)(sizeof sizes / sizeof sizes[0]);
}
