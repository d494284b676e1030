// Which rows meet which matrix: a dense product, a batch of them, groups of rows that each have
// their own B, or groups along K that each have their own D. A segment is a run of rows with one B;
// the walk yields them in order, empty ones not.
#pragma once
#include "oi_kernel.h"

// Values of params_t.kind; gemm-operation.ts has the same list.
enum { KIND_BATCH, KIND_OFFSETS, KIND_ROW_IDS, KIND_MASKED, KIND_ENDS, KIND_K_SIZES, KIND_K_ENDS };

typedef struct {
  int64_t group;  // matrix of B; −1 for padding rows, which become zero
  int64_t slab;   // matrix of A, C and D
  int64_t row;    // first row in the slab
  int64_t rows;
  int64_t k;             // length of the sums
  int64_t a, b, sa, sb;  // elements from an operand's start to the segment's matrix
  int64_t a_row, b_row;  // elements from row to row
} segment_t;

typedef struct {
  int64_t at;     // next group, or next row for KIND_ROW_IDS
  int64_t start;  // where it begins, for KIND_ENDS and groups along K
  int64_t scale;  // its first scale along K
  int64_t pad_end;  // KIND_ENDS: padding up to here comes first
} segment_walk;

static int64_t align_up(int64_t x, int64_t to) { return oi_ceil_div(x, to) * to; }

// Groups along K. Scales lie compactly: each group has as many as its (aligned) length needs. Where
// A and B are flat, a group is a matrix of its own, with rows as long as its K.
static void k_segment(const params_t *p, segment_walk *walk, segment_t *s) {
  const int32_t *index = p->index;
  int64_t g = walk->at++;
  int64_t k = p->kind == KIND_K_ENDS ? index[g] - walk->start : index[g];
  *s = (segment_t){.group = g, .slab = g, .rows = p->m, .k = k};
  s->a_row = p->flat ? k : p->a_row;
  s->b_row = p->flat ? k : p->b_row;
  s->a = walk->start * (p->flat ? p->m : p->a_k);
  s->b = walk->start * (p->flat ? p->n : p->b_k);
  s->sa = walk->scale * p->sa_k;
  s->sb = walk->scale * p->sb_k;
  int64_t taken = p->kind == KIND_K_ENDS ? align_up(k, p->alignment) : k;
  walk->start += taken;
  walk->scale += oi_ceil_div(taken, A_GRAIN_K);
}

// Rows from walk->start to index[g], then padding up to where the next group starts.
static int ends_segment(const params_t *p, segment_walk *walk, segment_t *s) {
  const int32_t *index = p->index;
  for (;;) {
    int64_t from = walk->start;
    if (from < walk->pad_end) {
      walk->start = walk->pad_end;
      if (!p->zero_padding) continue;
      *s = (segment_t){.group = -1, .row = from, .rows = walk->pad_end - from};
      return 1;
    }
    if (walk->at == p->groups) {
      if (from >= p->m) return 0;
      walk->pad_end = p->m;
      continue;
    }
    int64_t g = walk->at++, end = index[g];
    walk->start = end;
    walk->pad_end = oi_min(align_up(end, p->alignment), p->m);
    if (end == from) continue;
    *s = (segment_t){.group = g, .row = from, .rows = end - from};
    return 1;
  }
}

static int row_ids_segment(const params_t *p, segment_walk *walk, segment_t *s) {
  const int32_t *index = p->index;
  while (walk->at < p->m) {
    int64_t from = walk->at, end = from + 1;
    while (end < p->m && index[end] == index[from]) end++;
    walk->at = end;
    if (index[from] < 0 && !p->zero_padding) continue;
    *s = (segment_t){.group = index[from], .row = from, .rows = end - from};
    return 1;
  }
  return 0;
}

static int group_segment(const params_t *p, segment_walk *walk, segment_t *s) {
  const int32_t *index = p->index;
  while (walk->at < p->groups) {
    int64_t g = walk->at++;
    if (p->kind == KIND_BATCH) *s = (segment_t){.group = g, .slab = g, .rows = p->m};
    else if (p->kind == KIND_MASKED) *s = (segment_t){.group = g, .slab = g, .rows = index[g]};
    else *s = (segment_t){.group = g, .row = index[g], .rows = index[g + 1] - index[g]};
    if (s->rows > 0) return 1;
  }
  return 0;
}

static int next_segment(const params_t *p, segment_walk *walk, segment_t *s) {
  if (p->kind == KIND_K_SIZES || p->kind == KIND_K_ENDS) {
    if (p->m == 0 || walk->at == p->groups) return 0;
    k_segment(p, walk, s);
    return 1;
  }
  int found = p->kind == KIND_ROW_IDS ? row_ids_segment(p, walk, s)
              : p->kind == KIND_ENDS  ? ends_segment(p, walk, s)
                                      : group_segment(p, walk, s);
  if (!found) return 0;
  s->k = p->k;
  s->a = s->slab * p->a_slab;
  s->b = s->group * p->b_slab;
  s->sa = s->slab * p->sa_slab;
  s->sb = s->group * p->sb_slab;
  s->a_row = p->a_row;
  s->b_row = p->b_row;
  return 1;
}
