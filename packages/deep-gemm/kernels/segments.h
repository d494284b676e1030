// Which rows meet which matrix: a dense product, a batch of them, or groups of rows that each have
// their own B. A segment is a run of rows with one B; the walk yields them in order, empty ones not.
#pragma once
#include "oi_kernel.h"

// Values of params_t.kind; call.ts has the same list.
enum { KIND_BATCH, KIND_OFFSETS, KIND_ROW_IDS, KIND_MASKED };

typedef struct {
  int64_t group;  // matrix of B; −1 for padding rows, which become zero
  int64_t slab;   // matrix of A and D
  int64_t row;    // first row in the slab
  int64_t rows;
} segment_t;

typedef struct {
  int64_t at;  // next group, or next row for KIND_ROW_IDS
} segment_walk;

static int next_segment(const params_t *p, segment_walk *walk, segment_t *s) {
  const int32_t *index = p->index;
  if (p->kind == KIND_ROW_IDS) {
    if (walk->at >= p->m) return 0;
    int64_t from = walk->at, end = from + 1;
    while (end < p->m && index[end] == index[from]) end++;
    *s = (segment_t){.group = index[from], .row = from, .rows = end - from};
    walk->at = end;
    return 1;
  }
  while (walk->at < p->groups) {
    int64_t g = walk->at++;
    if (p->kind == KIND_BATCH) *s = (segment_t){.group = g, .slab = g, .rows = p->m};
    else if (p->kind == KIND_MASKED) *s = (segment_t){.group = g, .slab = g, .rows = index[g]};
    else *s = (segment_t){.group = g, .row = index[g], .rows = index[g + 1] - index[g]};
    if (s->rows > 0) return 1;
  }
  return 0;
}
