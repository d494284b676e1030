// The low-latency window: where everything lies in it, two of each, used in turn; and waits that
// leave a peer out instead of failing. src/v1/low-latency-plan.ts computes the same places.
#pragma once
#include "ep_common.h"

// Flags, each by the rank that raises it: to which of its operations (from 1) …
enum {
  EP_SENT = 0,      // … its tokens have arrived here
  EP_RETURNED = 1,  // … its rows for combine have
  EP_RELEASED = 2,  // … of this rank's dispatches it does not need the results any more
  EP_CONSUMED = 3,  // … it has summed, so that its slots and others' buffers are free
};

// What a rank tells another with its tokens or rows: the head, then an i32 or two for each expert.
typedef struct ep_note {
  int64_t seq;
  // What all ranks must agree on.
  int64_t tokens, hidden, experts, options;
  int64_t way;  // EP_DIRECT or EP_SLOTS; for combine EP_PULL, EP_PUSH or EP_LOGFMT
  int64_t rows;
  int64_t unused;
  int32_t numbers[];  // dispatch: counts, then first rows; combine: first rows
} ep_note;
// Experts of a rank at most. Notes and counters lie where no shape moves them, so that ranks that
// disagree about the shape still find each other's notes.
enum {
  EP_LOCAL_MAX = 4096,
  EP_CLAIM_BYTES = 4 * EP_LOCAL_MAX,
  EP_NOTE_STRIDE = 64 + 8 * EP_LOCAL_MAX,
  EP_RETURN_STRIDE = 64 + 4 * EP_LOCAL_MAX,
};
enum { EP_DIRECT = 0, EP_SLOTS = 1, EP_PULL = 2, EP_PUSH = 3, EP_LOGFMT = 4 };

// Offsets of one turn's parts.
typedef struct ep_turn {
  int64_t claims, notes, out_notes, x, row_scales, scales, source, slots;  // dispatch
  int64_t return_notes, out_return_notes, returned, shared;                // combine
} ep_turn;

typedef struct ep_ll {
  oi_window *w;
  oi_group *g;
  int64_t size, rank;
  int64_t tokens, hidden, experts, local;  // tokens: the most of a rank
  int64_t row_bytes, scales, message_bytes, note_bytes, return_note_bytes;
  int64_t options;
  ep_turn at;
} ep_ll;

// A message of the slots: a token's row, its scales, its number.
static inline int64_t ep_message_scales_at(const ep_ll *l) {
  return (l->row_bytes + 3) & ~(int64_t)3;
}

static inline const char *ep_note_name(int i) {
  static const char *const names[] = {"most tokens of a rank", "hidden size", "experts",
                                      "number format"};
  return names[i];
}

// Whether a peer's note fits this rank's call; else the group fails with what differs.
static inline int ep_note_fits(const ep_ll *l, const ep_note *n, int32_t peer) {
  int64_t theirs[] = {n->tokens, n->hidden, n->experts, n->options};
  int64_t own[] = {l->tokens, l->hidden, l->experts, l->options};
  for (int i = 0; i < 4; i++) {
    if (theirs[i] == own[i]) continue;
    char text[96];
    snprintf(text, sizeof text, "%s: %lld there, %lld here", ep_note_name(i),
             (long long)theirs[i], (long long)own[i]);
    oi_fail(l->g, OI_BAD_DATA, peer, theirs[i], own[i], 0, text);
    return 0;
  }
  return 1;
}

static inline int ep_masked(const int32_t *mask, int64_t rank) {
  return mask != NULL && __atomic_load_n(&mask[rank], __ATOMIC_RELAXED) != 0;
}

// Waits for a peer's flag. With a mask, a peer that is gone or late is masked and the result is 0;
// −1 if the operation ends.
static inline int ep_await(const ep_ll *l, int32_t *mask, int kind, int32_t peer, int64_t value,
                           int64_t *cost, const char *awaited) {
  if (ep_masked(mask, peer)) return 0;
  int64_t start = cost == NULL ? 0 : oi_now_ns();
  int64_t flag = kind * l->size + peer;
  int32_t code;
  if (mask == NULL) {
    code = oi_wait(l->w, flag, value, peer, awaited);
  } else {
    code = oi_try_wait(l->w, flag, value, peer, l->g->timeout_ns, awaited);
    if (code == OI_TIMED_OUT || code == OI_PEER_DEAD) {
      __atomic_store_n(&mask[peer], 1, __ATOMIC_RELAXED);
      return 0;
    }
    if (code != OI_ARRIVED)
      oi_fail(l->g, code, peer, oi_flag(l->w, flag), value, oi_now_ns() - start, awaited);
  }
  if (cost != NULL) cost[peer] += oi_now_ns() - start;
  return code == OI_ARRIVED ? 1 : -1;
}

static inline void ep_tell_all(const ep_ll *l, const int32_t *mask, int kind, int64_t value) {
  for (int64_t i = 1; i <= l->size; i++) {
    int32_t peer = (int32_t)((l->rank + i) % l->size);
    if (!ep_masked(mask, peer)) oi_signal(l->w, peer, kind * l->size + l->rank, value);
  }
}

static inline ep_ll ep_ll_of(const params_t *p) {
  ep_ll l = {.w = p->window};
  l.g = l.w->group;
  l.size = l.g->size;
  l.rank = l.g->rank;
  l.tokens = p->most_tokens;
  l.hidden = p->hidden;
  l.experts = p->experts;
  l.local = p->experts / l.size;
  l.row_bytes = p->row_bytes;
  l.scales = p->scales;
  l.message_bytes = p->message_bytes;
  l.note_bytes = ep_align((int64_t)sizeof(ep_note) + 8 * l.local);
  l.return_note_bytes = ep_align((int64_t)sizeof(ep_note) + 4 * l.local);
  l.options = p->options;
  memcpy(&l.at, p->turn, sizeof l.at);
  return l;
}

// Tells all ranks that this one does not need its dispatches up to `release` any more. Nobody
// claims rows of a turn before that, so the counters of the turns begin again here.
static inline void ep_release(const ep_ll *l, const params_t *p) {
  if (p->release == 0) return;
  if (p->cleared0 >= 0) memset(l->w->data + p->cleared0, 0, EP_CLAIM_BYTES);
  if (p->cleared1 >= 0) memset(l->w->data + p->cleared1, 0, EP_CLAIM_BYTES);
  ep_tell_all(l, p->mask, EP_RELEASED, p->release);
}
