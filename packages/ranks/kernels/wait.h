// Waits for flags, and how they fail: spin, yield, then sleep on the rank's doorbell in slices,
// with a look at the others between them.
#pragma once
#include <sched.h>
#include "liveness.h"

// The longest that a death goes unnoticed by whoever waits for the dead; everyone else's every so
// many slices.
enum { SLICE_NS = 20 * 1000 * 1000, SLICES_BEFORE_ALL = 5 };

// What the rank's own JavaScript thread is in while it is inside a call of ranks.c. Threads of the
// stream and of pools have nothing here: they are in the stream's operation.
static _Thread_local const char *calling;

static const char *operation_of(const oi_group *g) {
  if (calling != NULL) return calling;
  return g->operation == NULL ? "no operation" : g->operation;
}

static int any_there(const oi_window *w, const oi_awaited *list, int64_t count) {
  for (int64_t i = 0; i < count; i++)
    if (atomic_load(&w->flags[list[i].flag]) >= list[i].value) return 1;
  return 0;
}

// How often to look before sleeping follows what helped: where it did the next one looks longer;
// where it did not, the other had no core to run on, or much to do, and the next looks half as
// long.
static void adapt(const oi_group *g, _Atomic int32_t *spins_now, int helped) {
  int32_t spins = atomic_load_explicit(spins_now, memory_order_relaxed);
  int32_t next = helped ? (int32_t)oi_min(spins + spins / 8 + 1, g->spins)
                        : (int32_t)oi_max(spins / 2, g->spins_least);
  if (next != spins) atomic_store_explicit(spins_now, next, memory_order_relaxed);
}

static int spin(oi_window *w, const oi_awaited *list, int64_t count) {
  oi_group *g = w->group;
  int32_t spins = atomic_load_explicit(&g->spins_now, memory_order_relaxed);
  int there = 0;
  for (int32_t i = 0; i < spins && !(there = any_there(w, list, count)); i++) oi_pause();
  adapt(g, &g->spins_now, there);
  return there;
}

// Whether everyone that could raise a flag of the list has closed the window; names one. Barriers
// go on in the system's window while ranks close others.
static int all_closed(const oi_window *w, const oi_awaited *list, int64_t count,
                      int32_t *culprit) {
  if (w == w->group->system) return 0;
  for (int64_t i = 0; i < count; i++) {
    int32_t peer = (int32_t)list[i].peer;
    if (peer < 0 || peer >= w->group->size) return 0;
    if (atomic_load(&w->flags[oi_farewell(w, peer)]) == 0) return 0;
    *culprit = peer;
  }
  return count > 0;
}

// Names the rank that is gone, or −1, in `culprit`.
static int32_t await_any(oi_window *w, const oi_awaited *list, int64_t count, int64_t limit_ns,
                         int32_t *culprit) {
  oi_group *g = w->group;
  oi_slot *own_slot = &g->control->slots[g->rank];
  if (spin(w, list, count)) return OI_ARRIVED;
  for (int32_t i = 0; i < g->yields; i++) {
    if (any_there(w, list, count)) return OI_ARRIVED;
    sched_yield();
  }
  int64_t start = oi_now_ns(), now = start, looked = start;
  atomic_store_explicit(&own_slot->waits_since_ns, start, memory_order_relaxed);
  for (int32_t looks = 0;;) {
    // Counted, then the doorbell, then the flags: the order that oi_ring relies on.
    atomic_fetch_add(&own_slot->sleepers, 1);
    uint32_t seen = atomic_load(&own_slot->doorbell);
    int there = any_there(w, list, count);
    int64_t left = limit_ns - (now - start);
    if (!there && atomic_load(&g->control->aborted) == 0)
      oi_sleep_on(&own_slot->doorbell, seen, oi_max(oi_min(left, SLICE_NS), 1));
    atomic_fetch_sub(&own_slot->sleepers, 1);
    if (there || any_there(w, list, count)) return OI_ARRIVED;
    now = oi_now_ns();
    int32_t look = LOOK_STATES;
    if (now - looked >= SLICE_NS / 2 || now - start >= limit_ns) {
      looked = now;
      look = ++looks % SLICES_BEFORE_ALL == 0 || now - start >= limit_ns ? LOOK_ALL : LOOK_PEER;
    }
    int32_t problem = OI_ARRIVED;
    for (int64_t i = 0; problem == OI_ARRIVED && i < count; i++)
      problem = check_group(g, (int32_t)list[i].peer, look, culprit);
    if (problem == OI_ARRIVED && all_closed(w, list, count, culprit)) problem = OI_PEER_DEAD;
    // What a peer sent before it died or left still counts.
    if (problem != OI_ARRIVED && any_there(w, list, count)) return OI_ARRIVED;
    if (problem != OI_ARRIVED) return problem;
    if (now - start >= limit_ns) return OI_TIMED_OUT;
  }
}

static int32_t wait_any(oi_window *w, const oi_awaited *list, int64_t count, int64_t limit_ns) {
  oi_group *g = w->group;
  oi_slot *own_slot = &g->control->slots[g->rank];
  int32_t peer = count == 1 ? (int32_t)list[0].peer : -1;
  int64_t start = oi_now_ns();
  atomic_store_explicit(&own_slot->awaited, peer < 0 ? -2 : peer, memory_order_relaxed);
  int32_t culprit = -1;
  int32_t code = await_any(w, list, count, limit_ns, &culprit);
  atomic_store_explicit(&own_slot->awaited, -1, memory_order_relaxed);
  if (peer >= 0 && peer < g->size)
    atomic_fetch_add_explicit(&g->wait_ns[peer], oi_now_ns() - start, memory_order_relaxed);
  if (code == OI_PEER_DEAD) atomic_store_explicit(&g->gone, culprit, memory_order_relaxed);
  return code;
}

static int32_t wait_flag(oi_window *w, int64_t flag, int64_t value, int32_t peer, int64_t limit_ns,
                         const char *awaited) {
  (void)awaited;
  oi_awaited one = {.flag = flag, .value = value, .peer = peer};
  return wait_any(w, &one, 1, limit_ns);
}

// Ends the group for all that share this control region, unless somebody has. Returns 1 if this was
// the first reason.
static int abort_control(oi_control *c, int32_t size, int32_t code, int32_t culprit,
                         int32_t reporter, const char *text) {
  int32_t none = 0;
  int first = atomic_compare_exchange_strong(&c->claimed, &none, 1);
  if (first) {
    c->culprit = culprit;
    c->reporter = reporter;
    snprintf(c->text, sizeof c->text, "%s", text);
    atomic_store(&c->aborted, code);
  } else {
    // Whoever claimed it may have been killed in between.
    for (int32_t tries = 0; atomic_load(&c->aborted) == 0 && tries < 1000; tries++) sched_yield();
    none = 0;
    atomic_compare_exchange_strong(&c->aborted, &none, code);
  }
  ring_all(c, size);
  return first;
}

static const char *name_of(const oi_group *g, int32_t rank) {
  if (rank < 0 || rank >= g->size) return "anyone";
  return g->control->slots[rank].name;
}

// What another rank is in, as far as it is known here: ", which is in …".
static void describe_activity(const oi_group *g, int32_t rank, char *text, size_t room) {
  *text = 0;
  if (rank < 0 || rank >= g->size || rank == g->rank) return;
  const oi_slot *slot = &g->control->slots[rank];
  char operation[sizeof slot->operation];
  read_text(operation, slot->operation, sizeof operation);
  if (operation[0] == 0) return;
  int32_t awaited = atomic_load(&slot->awaited);
  int64_t since = atomic_load(&slot->waits_since_ns);
  char whom[24] = "anyone", how_long[40] = "";
  if (awaited >= 0) snprintf(whom, sizeof whom, "rank %d", awaited);
  if (since > 0)
    snprintf(how_long, sizeof how_long, " for %lld ms", (long long)(oi_now_ns() - since) / 1000000);
  if (awaited == -1) snprintf(text, room, ", which was last in %s", operation);
  else snprintf(text, room, ", which is in %s and waits for %s%s", operation, whom, how_long);
}

static void describe_failure(const oi_group *g, const oi_failure *f, int32_t code, char *text,
                             size_t room) {
  const char *own_name = name_of(g, g->rank), *peer = name_of(g, f->peer);
  long long ms = f->waited_ns / 1000000;
  char activity[192];
  if (code == OI_PEER_DEAD) {
    int32_t gone = atomic_load_explicit(&g->gone, memory_order_relaxed);
    int32_t state = gone < 0 ? OI_DEAD : look_at(g, gone, 0);
    const char *how = state == OI_LEFT      ? "has left"
                      : state == OI_RUNNING ? "has closed the window"
                                            : "is gone";
    snprintf(text, room, "%s in %s: %s %s; waited %lld ms for %s from %s", own_name, f->operation,
             name_of(g, gone), how, ms, f->awaited, peer);
  } else if (code == OI_TIMED_OUT) {
    describe_activity(g, f->peer, activity, sizeof activity);
    snprintf(text, room, "%s in %s: waited %lld ms for %s from %s%s", own_name, f->operation, ms,
             f->awaited, peer, activity);
  } else if (code == OI_BAD_DATA) {
    snprintf(text, room, "%s in %s: %s, from %s (%lld, expected %lld)", own_name, f->operation,
             f->awaited, peer, (long long)f->have, (long long)f->want);
  } else {
    snprintf(text, room, "%s in %s: %s", own_name, f->operation, f->awaited);
  }
}

static void wake_link(oi_outbox *box);

// The first failure of this rank is noted for its own error, and at once ends the group, so that
// nobody waits until this rank's JavaScript looks. Where the group goes on, only this rank ends.
static int32_t fail(oi_group *g, int32_t code, int32_t peer, int64_t have, int64_t want,
                    int64_t waited_ns, const char *awaited) {
  oi_failure *f = &g->failure;
  int32_t none = 0;
  // Other threads of the same operation may fail too: −1 while the fields are being written.
  if (!atomic_compare_exchange_strong(&f->code, &none, -1)) return code;
  f->peer = code == OI_PEER_DEAD && g->gone >= 0 ? g->gone : peer;
  f->have = have;
  f->want = want;
  f->waited_ns = waited_ns;
  snprintf(f->awaited, sizeof f->awaited, "%s", awaited);
  snprintf(f->operation, sizeof f->operation, "%s", operation_of(g));
  if (code != OI_ABORTED) {
    oi_failure told = {.peer = peer, .have = have, .want = want, .waited_ns = waited_ns};
    memcpy(told.awaited, f->awaited, sizeof told.awaited);
    memcpy(told.operation, f->operation, sizeof told.operation);
    describe_failure(g, &told, code, f->text, sizeof f->text);
  }
  atomic_store(&f->code, code);
  if (g->goes_on) set_state(&g->control->slots[g->rank], OI_DEAD);
  else if (code != OI_ABORTED)
    abort_control(g->control, g->size, code, f->peer, g->rank, f->text);
  ring_all(g->control, g->size);
  if (g->outbox != NULL) wake_link(g->outbox);
  return code;
}

// ---- The barrier

// Flags of the system window, for each of two lanes (the rank's own thread; its kernels): steps of
// the dissemination, then one a rank for groups that go on without some.
enum { BARRIER_STEPS = 32, BARRIER_LANES = 2 };

static int64_t lane_flag(const oi_group *g, int32_t lane) {
  return (int64_t)lane * (BARRIER_STEPS + g->size);
}

// In step k each rank tells the one 2^k further; after log2(size) steps all know of all.
static int32_t disseminate(oi_group *g, int64_t first, int64_t round) {
  char awaited[48];
  int64_t step = 0;
  for (int32_t distance = 1; distance < g->size; step++, distance *= 2) {
    int32_t to = (g->rank + distance) % g->size;
    int32_t from = (g->rank - distance + g->size) % g->size;
    oi_signal(g->system, to, first + step, round);
    if (oi_flag(g->system, first + step) >= round) continue;
    snprintf(awaited, sizeof awaited, "step %d of the barrier", (int)step);
    int32_t code = oi_wait(g->system, first + step, round, from, awaited);
    if (code != OI_ARRIVED) return code;
  }
  return OI_ARRIVED;
}

// Everybody tells everybody, so that ranks whose masks differ still meet; who dies meanwhile is
// masked and no longer waited for.
static int32_t meet_unmasked(oi_group *g, int64_t first, int64_t round) {
  oi_window *w = g->system;
  for (int32_t peer = 0; peer < g->size; peer++)
    if (peer != g->rank && !oi_is_masked(g, peer)) oi_signal(w, peer, first + g->rank, round);
  for (int32_t peer = 0; peer < g->size; peer++) {
    if (peer == g->rank || oi_is_masked(g, peer)) continue;
    int64_t flag = first + peer, start = oi_now_ns();
    int32_t code = oi_try_wait(w, flag, round, peer, g->timeout_ns, "the barrier");
    if (code == OI_ARRIVED) continue;
    if (code != OI_PEER_DEAD)
      return fail(g, code, peer, oi_flag(w, flag), round, oi_now_ns() - start, "the barrier");
    oi_mask(g, peer);
  }
  return OI_ARRIVED;
}

static int32_t group_barrier(oi_group *g, int32_t lane) {
  int64_t round = ++g->rounds[lane];
  int64_t first = lane_flag(g, lane);
  return g->goes_on ? meet_unmasked(g, first + BARRIER_STEPS, round) : disseminate(g, first, round);
}
