// Small operations: every member puts what it has behind its greeting, every member adds up what it
// needs in the order of the members. One message a pair, one wait.
#pragma once
#include "hfreduce_op.h"

// What goes to a member: the same to all, but in a reduce-scatter each gets its own block, behind a
// copy of the header of its own.
static inline uint8_t *small_own(const hf_op *o, int64_t member) {
  int64_t copy = o->p->kind == HF_REDUCE_SCATTER ? member : 0;
  return (uint8_t *)hf_own_head(o) + copy * hf_head_stride(o->f) + o->f->head_bytes;
}

// Elements to where they go; of an empty buffer there may be no address, which memcpy must not see.
static inline void hf_copy(void *to, const elem_t *from, int64_t n) {
  if (n > 0) memcpy(to, from, sizeof(elem_t) * (size_t)n);
}

// The own devices' sum, or the only device's elements as they are.
static void small_payload(hf_op *o, uint8_t *to, int64_t from, int64_t n) {
  const params_t *p = o->p;
  if (p->devices == 1 || OP == HF_COPY) {
    hf_copy(to, o->own_sources[0] + from, n);
    return;
  }
  hf_fold *f = &o->fold;
  f->groups = 1;
  f->per_group = p->devices;
  for (int64_t d = 0; d < p->devices; d++) f->sources[d] = o->own_sources[d] + from;
  f->sums[0] = NULL;
  f->partial_count = 0;
  f->sum_out = (acc_t *)to;
  const oi_ctx alone = {.tid = 0, .nthreads = 1};
  fold(f, &alone, n);
  f->sum_out = NULL;
}

// Elements that a member of the operation needs of this one: from where, and how many.
static void small_need(const hf_op *o, int64_t member, int64_t *from, int64_t *n) {
  const params_t *p = o->p;
  *from = 0;
  *n = p->count;
  if (p->kind == HF_REDUCE && member != p->root) *n = 0;
  if (p->kind == HF_BROADCAST && o->f->me != p->root) *n = 0;
  if (p->kind == HF_REDUCE_SCATTER) {
    *n = p->count * p->devices;
    *from = member * *n;
  }
}

static void small_fold(hf_op *o, int64_t from, int64_t n, elem_t *const *outs, int64_t out_count) {
  const params_t *p = o->p;
  hf_fold *f = &o->fold;
  f->groups = o->f->members;
  f->per_group = 1;
  f->partial_count = 0;
  f->partial_out = NULL;
  f->participants = o->f->members * p->devices;
  for (int64_t m = 0; m < o->f->members; m++) {
    const uint8_t *data = (const uint8_t *)hf_head_of(o, m) + o->f->head_bytes;
    if (m == o->f->me) data = small_own(o, m);
    f->sources[m] = (const elem_t *)data + from;
    f->sums[m] = p->devices == 1 ? NULL : (const acc_t *)data + from;
  }
  f->out_count = out_count;
  for (int64_t k = 0; k < out_count; k++) f->outs[k] = outs[k];
  const oi_ctx alone = {.tid = 0, .nthreads = 1};
  fold(f, &alone, n);
}

static void small_copy(hf_op *o) {
  const params_t *p = o->p;
  for (int64_t m = 0; m < o->f->members; m++) {
    if (p->kind == HF_BROADCAST && m != p->root) continue;
    const uint8_t *at = (const uint8_t *)hf_head_of(o, m) + o->f->head_bytes;
    if (m == o->f->me) at = small_own(o, m);
    const elem_t *data = (const elem_t *)at;
    for (int64_t d = 0; d < p->devices; d++) {
      if (p->kind == HF_BROADCAST) {
        hf_copy(o->own_outs[d], data, p->count);
        continue;
      }
      int64_t each = p->count * p->devices;
      hf_copy(o->own_outs[d] + m * each, data, each);
    }
  }
}

// Writes what is sent, once for all members or once for each.
static void small_prepare(hf_op *o, int64_t unit) {
  const params_t *p = o->p;
  const hf_frame *f = o->f;
  if (p->kind == HF_ALL_GATHER) {
    for (int64_t d = 0; d < p->devices; d++)
      hf_copy(small_own(o, 0) + d * p->count * unit, o->own_sources[d], p->count);
  } else if (p->kind == HF_REDUCE_SCATTER) {
    for (int64_t m = 0; m < f->members; m++) {
      int64_t from, n;
      small_need(o, m, &from, &n);
      uint8_t *own = small_own(o, m);
      if (m > 0) memcpy(own - f->head_bytes, hf_own_head(o), (size_t)f->head_bytes);
      small_payload(o, own, from, n);
    }
  } else if (p->kind != HF_BROADCAST || f->me == p->root) {
    small_payload(o, small_own(o, 0), 0, p->count);
  }
}

static int32_t small_operation(hf_op *o) {
  const params_t *p = o->p;
  const hf_frame *f = o->f;
  int64_t unit = p->devices == 1 || OP == HF_COPY ? sizeof(elem_t) : sizeof(acc_t);
  small_prepare(o, unit);
  const int64_t *greets = p->greets;
  for (int64_t i = 0; i < p->greet_count; i++) {
    int64_t from, n, member = greets[i], rank = hf_rank(o, member);
    small_need(o, member, &from, &n);
    if (p->kind == HF_ALL_GATHER) n *= p->devices;
    oi_put(o->w, (int32_t)rank, hf_head_at(o, f->me), small_own(o, member) - f->head_bytes,
           f->head_bytes + n * unit);
    oi_signal(o->w, (int32_t)rank, f->flag_head + f->me, p->seq);
  }
  int32_t code = await_greetings(o);
  if (code != OI_ARRIVED) return code;
  if (OP == HF_COPY) {
    small_copy(o);
  } else if (p->kind == HF_REDUCE_SCATTER) {
    for (int64_t d = 0; d < p->devices; d++)
      small_fold(o, d * p->count, p->count, &o->own_outs[d], 1);
  } else if (p->kind == HF_ALLREDUCE || f->me == p->root) {
    small_fold(o, 0, p->count, o->own_outs, p->devices);
  }
  return OI_ARRIVED;
}
