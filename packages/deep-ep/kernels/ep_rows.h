// Rows of tokens on their way: what a row is made of, the records that cross to another node, and
// the blocks of rows they end in.
#pragma once
#include "ep_common.h"

// A token as it is read: from the caller's tensors, or from a record.
typedef struct ep_row {
  const uint8_t *x;
  const uint8_t *scales;
  int64_t scale_step;  // bytes from one scale to the next
  const int64_t *choice;
  const int32_t *short_choice;  // in records
  const float *weights;
  int32_t source;  // token of its rank
} ep_row;

// The rows of one source for one rank: places of row 0 of the block.
typedef struct ep_block {
  uint8_t *x, *scales;
  int64_t *choice;
  float *weights;
  int32_t *source;
  uint8_t *staged;  // memory that is put as a whole, if the rank is behind a link
  int64_t rows, first;
  int32_t rank;
} ep_block;

// What a dispatch moves for each token, in bytes; 0 for what it does not have.
typedef struct ep_sizes {
  int64_t x, scales, choice, weights, source;
  int64_t row;  // all of a row
  // A record: x, scales, choice as i32, weights, token, a byte for each rank of the node.
  int64_t scales_at, choice_at, weights_at, source_at, mask_at, record;
} ep_sizes;

static inline ep_sizes ep_sizes_of(int64_t row_bytes, int64_t scales, int64_t topk,
                                   int64_t per_node) {
  ep_sizes z = {.x = row_bytes, .scales = 4 * scales, .choice = 8 * topk, .weights = 4 * topk};
  z.source = 4;
  z.row = z.x + z.scales + z.choice + z.weights + z.source;
  z.scales_at = (z.x + 3) & ~(int64_t)3;
  z.choice_at = z.scales_at + z.scales;
  z.weights_at = z.choice_at + 4 * topk;
  z.source_at = z.weights_at + 4 * topk;
  z.mask_at = z.source_at + 4;
  z.record = ep_align(z.mask_at + per_node);
  return z;
}

static inline ep_row ep_row_of_record(const ep_sizes *z, const uint8_t *record) {
  ep_row row = {.x = record, .scales = record + z->scales_at, .scale_step = 4};
  row.short_choice = (const int32_t *)(record + z->choice_at);
  row.weights = (const float *)(record + z->weights_at);
  memcpy(&row.source, record + z->source_at, 4);
  return row;
}

static inline void ep_copy_scales(uint8_t *to, const ep_row *row, int64_t bytes) {
  if (row->scale_step == 4) {
    memcpy(to, row->scales, (size_t)bytes);
    return;
  }
  for (int64_t i = 0; i < bytes / 4; i++) memcpy(to + 4 * i, row->scales + i * row->scale_step, 4);
}

// Row `i` of a block. Experts of the block's rank become local, others −1 with weight 0.
static inline void ep_write_row(const ep_block *b, int64_t i, const ep_row *row,
                                const ep_sizes *z, int64_t local_experts, int past_caches) {
  ep_copy(b->x + i * z->x, row->x, z->x, past_caches);
  if (z->scales) ep_copy_scales(b->scales + i * z->scales, row, z->scales);
  b->source[i] = row->source;
  int64_t topk = z->choice / 8, low = b->rank * local_experts;
  for (int64_t k = 0; k < topk; k++) {
    int64_t expert = row->choice != NULL ? row->choice[k] : row->short_choice[k];
    int here = expert >= low && expert < low + local_experts;
    b->choice[i * topk + k] = here ? expert - low : -1;
    b->weights[i * topk + k] = here ? row->weights[k] : 0;
  }
}

static inline void ep_write_record(uint8_t *record, const ep_row *row, const ep_sizes *z,
                                   const uint8_t *mask, int64_t ranks, int past_caches) {
  ep_copy(record, row->x, z->x, past_caches);
  if (z->scales) ep_copy_scales(record + z->scales_at, row, z->scales);
  int32_t *choice = (int32_t *)(record + z->choice_at);
  for (int64_t k = 0; k < z->choice / 8; k++) choice[k] = (int32_t)row->choice[k];
  if (z->weights) memcpy(record + z->weights_at, row->weights, (size_t)z->weights);
  memcpy(record + z->source_at, &row->source, 4);
  memset(record + z->mask_at, 0, (size_t)(z->record - z->mask_at));
  memcpy(record + z->mask_at, mask, (size_t)ranks);
}

// Where the parts of a received tensor lie in a rank: places of x, scales, choice, weights, source.
enum { EP_PARTS = 5 };
static inline void ep_part_bytes(const ep_sizes *z, int64_t bytes[EP_PARTS]) {
  bytes[0] = z->x;
  bytes[1] = z->scales;
  bytes[2] = z->choice;
  bytes[3] = z->weights;
  bytes[4] = z->source;
}

static inline void ep_set_block(ep_block *b, uint8_t *const part[EP_PARTS]) {
  b->x = part[0];
  b->scales = part[1];
  b->choice = (int64_t *)part[2];
  b->weights = (float *)part[3];
  b->source = (int32_t *)part[4];
}

// A block of `rows` rows from row `first` of rank `to`, whose parts lie at `places`: written in
// place, or staged if that rank is behind a link. 0 if there is no memory.
static inline int ep_open_block(ep_block *b, const int64_t *segments, const ep_message *m,
                                int32_t to, int64_t first, int64_t rows, const ep_sizes *z) {
  *b = (ep_block){.rank = to, .first = first, .rows = rows};
  if (rows == 0) return 1;
  int64_t bytes[EP_PARTS];
  uint8_t *part[EP_PARTS];
  ep_part_bytes(z, bytes);
  if (oi_is_mapped(ep_segment(segments, m->at[0]), to)) {
    for (int i = 0; i < EP_PARTS; i++)
      part[i] = bytes[i] == 0 ? NULL : ep_at(segments, to, m->at[i]) + first * bytes[i];
  } else {
    int64_t total = 0;
    for (int i = 0; i < EP_PARTS; i++) total += ep_align(rows * bytes[i]);
    void *memory = NULL;
    if (posix_memalign(&memory, 64, (size_t)total) != 0) return 0;
    b->staged = memory;
    uint8_t *at = memory;
    for (int i = 0; i < EP_PARTS; at += ep_align(rows * bytes[i++])) part[i] = at;
  }
  ep_set_block(b, part);
  return 1;
}

// Puts a staged block. One thread calls it.
static inline void ep_put_block(const ep_block *b, const int64_t *segments, const ep_message *m,
                                const ep_sizes *z) {
  if (b->staged == NULL) return;
  int64_t bytes[EP_PARTS];
  ep_part_bytes(z, bytes);
  const uint8_t *at = b->staged;
  for (int i = 0; i < EP_PARTS; at += ep_align(b->rows * bytes[i++])) {
    if (bytes[i] == 0) continue;
    int64_t place = m->at[i];
    oi_put(ep_segment(segments, place), b->rank, ep_offset(place) + b->first * bytes[i], at,
           b->rows * bytes[i]);
  }
}
