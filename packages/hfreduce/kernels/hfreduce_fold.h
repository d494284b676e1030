// The arithmetic: many buffers to one value, in an order that depends on nothing but who brings
// what: the devices of a rank one after the other, the ranks of a node one after the other, then
// what came from the node's children. One read of each source, one write to each destination.
#pragma once
#include "hfreduce_types.h"

enum { HF_SOURCES = 512, HF_OUTS = 520 };

typedef struct hf_fold {
  int64_t groups, per_group;  // ranks, and the buffers each brings
  const elem_t *sources[HF_SOURCES];
  const acc_t *sums[HF_SOURCES];  // where set, a rank's devices already added up
  int64_t partial_count;
  const wire_t *partials[2];  // of children
  acc_t *sum_out;             // set: an inner sum, kept exactly
  wire_t *partial_out;        // set: the sum goes on to the parent
  int64_t out_count;
  elem_t *outs[HF_OUTS];
  int64_t participants;
} hf_fold;

// U vectors from element i on.
static inline __attribute__((always_inline)) void fold_vectors(const hf_fold *f, int64_t i,
                                                               const int U) {
  av acc[4], sum[4];
  const elem_t *const *source = f->sources;
  for (int64_t g = 0; g < f->groups; g++, source += f->per_group) {
    if (f->sums[g] != NULL) {
      for (int u = 0; u < U; u++) sum[u] = a_load(f->sums[g] + i + u * AV);
    } else {
      for (int u = 0; u < U; u++) sum[u] = e_widen(e_load(source[0] + i + u * AV));
      for (int64_t d = 1; d < f->per_group; d++) {
        for (int u = 0; u < U; u++)
          sum[u] = a_combine(sum[u], e_widen(e_load(source[d] + i + u * AV)));
      }
    }
    for (int u = 0; u < U; u++) acc[u] = g == 0 ? sum[u] : a_combine(acc[u], sum[u]);
  }
  for (int64_t c = 0; c < f->partial_count; c++) {
    for (int u = 0; u < U; u++)
      acc[u] = a_combine(acc[u], w_widen(w_load(f->partials[c] + i + u * AV)));
  }
  if (f->sum_out != NULL) {
    for (int u = 0; u < U; u++) memcpy(f->sum_out + i + u * AV, &acc[u], sizeof acc[u]);
    return;
  }
  if (f->partial_out != NULL) {
    for (int u = 0; u < U; u++) {
      wv part = w_round(acc[u]);
      memcpy(f->partial_out + i + u * AV, &part, sizeof part);
    }
    return;
  }
  ev done[4];
  for (int u = 0; u < U; u++) done[u] = e_round(a_finish(acc[u], f->participants));
  for (int64_t k = 0; k < f->out_count; k++) {
    for (int u = 0; u < U; u++) memcpy(f->outs[k] + i + u * AV, &done[u], sizeof done[u]);
  }
}

// Fewer elements than a vector has, by way of copies padded with zeros.
static __attribute__((noinline)) void fold_tail(const hf_fold *f, int64_t i, int64_t n) {
  elem_t e[AV];
  acc_t a[AV];
  wire_t w[AV];
  av acc = {0};
  const elem_t *const *source = f->sources;
  for (int64_t g = 0; g < f->groups; g++, source += f->per_group) {
    av sum;
    if (f->sums[g] != NULL) {
      memset(a, 0, sizeof a);
      memcpy(a, f->sums[g] + i, sizeof *a * (size_t)n);
      sum = a_load(a);
    } else {
      for (int64_t d = 0; d < f->per_group; d++) {
        memset(e, 0, sizeof e);
        memcpy(e, source[d] + i, sizeof *e * (size_t)n);
        av x = e_widen(e_load(e));
        sum = d == 0 ? x : a_combine(sum, x);
      }
    }
    acc = g == 0 ? sum : a_combine(acc, sum);
  }
  for (int64_t c = 0; c < f->partial_count; c++) {
    memset(w, 0, sizeof w);
    memcpy(w, f->partials[c] + i, sizeof *w * (size_t)n);
    acc = a_combine(acc, w_widen(w_load(w)));
  }
  if (f->sum_out != NULL) {
    memcpy(f->sum_out + i, &acc, sizeof *a * (size_t)n);
    return;
  }
  if (f->partial_out != NULL) {
    wv part = w_round(acc);
    memcpy(f->partial_out + i, &part, sizeof *w * (size_t)n);
    return;
  }
  ev done = e_round(a_finish(acc, f->participants));
  for (int64_t k = 0; k < f->out_count; k++)
    memcpy(f->outs[k] + i, &done, sizeof *e * (size_t)n);
}

// This thread's part of n elements; parts begin at multiples of 64 elements.
static inline void part_of(const oi_ctx *ctx, int64_t n, int64_t *from, int64_t *to) {
  int64_t each = (oi_ceil_div(n, ctx->nthreads) + 63) / 64 * 64;
  *from = oi_min(n, each * ctx->tid);
  *to = oi_min(n, *from + each);
}

static void fold(const hf_fold *f, const oi_ctx *ctx, int64_t n) {
  int64_t i, to;
  part_of(ctx, n, &i, &to);
  for (; i + 4 * AV <= to; i += 4 * AV) fold_vectors(f, i, 4);
  for (; i + AV <= to; i += AV) fold_vectors(f, i, 1);
  if (i < to) fold_tail(f, i, to - i);
}

// The same bytes to many places, a block at a time, so that all but the first read hit the cache.
enum { HF_COPY_BLOCK = 16384 };
static void copy_to_all(const oi_ctx *ctx, const elem_t *source, elem_t *const *outs, int64_t count,
                        int64_t n) {
  int64_t i, to;
  part_of(ctx, n, &i, &to);
  while (i < to) {
    int64_t step = oi_min(to - i, HF_COPY_BLOCK / (int64_t)sizeof *source);
    for (int64_t k = 0; k < count; k++) {
      if (outs[k] != source) memcpy(outs[k] + i, source + i, sizeof *source * (size_t)step);
    }
    i += step;
  }
}
