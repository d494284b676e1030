// A token on its way: how it is written into its final place, into a record of a window, or into
// memory that a link sends from.
#pragma once
#include "elastic_nodes.h"

// A token as a sender, a forwarder or its receiver sees it.
typedef struct {
  const uint8_t *x;
  const uint8_t *sf;
  int64_t sf_pack_stride;  // elements of 4 bytes
  const int64_t *selected;      // global experts, or
  const int32_t *selected_short;  // the same in a record
  const float *weights;
  const int32_t *expanded;  // slots at the ranks of the selections
  int32_t source;           // rank · numMaxTokensPerRank + token
} token_t;

static inline int64_t selection(const token_t *t, int64_t k) {
  return t->selected != NULL ? t->selected[k] : t->selected_short[k];
}

// Where a rank's results go.
typedef struct {
  uint8_t *x, *sf;
  int64_t sf_token_stride, sf_pack_stride;
  int64_t *idx;
  float *weights;
  int32_t *meta;
} results_t;

// What does not change during a launch.
typedef struct {
  int64_t topk, local, row_bytes, sf_packs, expanded;
  record_t record, forward;
} kind_t;

static inline kind_t kind_of(const params_t *p, const oi_group *g) {
  kind_t k = {.topk = p->topk, .local = p->experts / g->size, .row_bytes = p->row_bytes};
  k.sf_packs = p->sf_packs;
  k.expanded = p->expanded;
  k.record = record_of(p->row_bytes, p->sf_packs, p->topk, 0);
  k.forward = record_of(p->row_bytes, p->sf_packs, p->topk, 1);
  return k;
}

static inline void place_sf(const kind_t *k, const token_t *t, const results_t *to, int64_t row) {
  const uint32_t *from = (const uint32_t *)t->sf;
  uint32_t *out = (uint32_t *)to->sf + row * to->sf_token_stride;
  if (to->sf_pack_stride == 1 && t->sf_pack_stride == 1) {
    memcpy(out, from, (size_t)k->sf_packs * 4);
    return;
  }
  for (int64_t i = 0; i < k->sf_packs; i++)
    out[i * to->sf_pack_stride] = from[i * t->sf_pack_stride];
}

// Writes a token into the results of `rank`: `row` among its tokens; in the expanded layout a copy
// for each of its selections there. `via` is what the second column says: a rank, and the last
// lane.
static inline int64_t place_token(const kind_t *k, const token_t *t, const results_t *to,
                                  int64_t rank, int64_t row, int64_t via) {
  int64_t first = rank * k->local, end = first + k->local, master = 0, copies = 1;
  int32_t *meta = to->meta != NULL ? to->meta + row * (k->topk + 2) : NULL;
  if (!k->expanded) {
    copy_row(to->x + row * k->row_bytes, t->x, k->row_bytes);
    if (k->sf_packs > 0) place_sf(k, t, to, row);
    if (to->weights != NULL)
      memcpy(to->weights + row * k->topk, t->weights, (size_t)k->topk * 4);
  } else {
    copies = 0;
  }
  for (int64_t i = 0; i < k->topk; i++) {
    int64_t e = selection(t, i);
    int here = e >= first && e < end;
    if (here) master = i;
    if (to->idx != NULL) to->idx[row * k->topk + i] = here ? e - first : -1;
    int32_t slot = k->expanded && here ? t->expanded[i] : -1;
    if (meta != NULL) meta[2 + i] = slot;
    if (slot < 0) continue;
    copies++;
    copy_row(to->x + slot * k->row_bytes, t->x, k->row_bytes);
    if (k->sf_packs > 0) place_sf(k, t, to, slot);
    if (to->weights != NULL) to->weights[slot] = t->weights[i];
  }
  if (meta != NULL) {
    meta[0] = t->source;
    meta[1] = (int32_t)(via * k->topk + master);
  }
  return copies * (k->row_bytes + k->sf_packs * 4) + k->topk * 16;
}

// Writes a token as a record; `places` only where it is to be forwarded.
static inline void write_record(const kind_t *k, const token_t *t, const int32_t *places,
                                uint8_t *to) {
  const record_t *r = places != NULL ? &k->forward : &k->record;
  copy_row(to, t->x, k->row_bytes);
  uint32_t *sf = (uint32_t *)(to + r->sf);
  for (int64_t i = 0; i < k->sf_packs; i++)
    sf[i] = ((const uint32_t *)t->sf)[i * t->sf_pack_stride];
  int32_t *meta = (int32_t *)(to + r->meta);
  for (int64_t i = 0; i < k->topk; i++) meta[i] = (int32_t)selection(t, i);
  meta += k->topk;
  if (t->weights != NULL) memcpy(meta, t->weights, (size_t)k->topk * 4);
  meta += k->topk;
  *meta++ = t->source;
  if (t->expanded != NULL) memcpy(meta, t->expanded, (size_t)k->topk * 4);
  meta += k->topk;
  if (places != NULL) memcpy(meta, places, (size_t)k->topk * 4);
}

// A record as a token; returns its places.
static inline const int32_t *read_record(const kind_t *k, const record_t *r, const uint8_t *from,
                                         token_t *t) {
  const int32_t *meta = (const int32_t *)(from + r->meta);
  *t = (token_t){.x = from, .sf = from + r->sf, .sf_pack_stride = 1, .selected_short = meta};
  t->weights = (const float *)(meta + k->topk);
  t->source = meta[2 * k->topk];
  t->expanded = meta + 2 * k->topk + 1;
  return t->expanded + k->topk;
}
