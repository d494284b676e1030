// Packed ue8m0 scales to float32, rows as they are and columns group after group: no int32 holds
// scales of two groups. A code is the exponent of a power of two; 255 is NaN.
#include "oi_kernel.h"
#include <string.h>

static inline float scale_of(uint32_t code) {
  uint32_t bits = code == 255 ? 0x7fc00000 : code == 0 ? 0x00400000 : code << 23;
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

static void unpack_row(const params_t *p, const int32_t *from, float *to) {
  const int32_t *counts = p->counts;
  for (int64_t g = 0; g < p->groups; g++) {
    int64_t left = counts[g];
    for (; left > 0; left -= 4, from += p->p_k) {
      uint32_t word = (uint32_t)*from;
      int64_t count = oi_min(4, left);
      for (int64_t i = 0; i < count; i++) to[i] = scale_of(word >> (8 * i) & 0xff);
      to += count;
    }
  }
}

void unpack_scales(const params_t *p, oi_ctx *ctx) {
  enum { ROWS = 64 };
  for (int64_t from; (from = oi_take(ctx, ROWS)) < p->slabs * p->rows;) {
    for (int64_t i = from; i < oi_min(p->slabs * p->rows, from + ROWS); i++) {
      int64_t at = i / p->rows * p->p_slab + i % p->rows * p->p_row;
      unpack_row(p, (const int32_t *)p->packed + at, (float *)p->out + i * p->columns);
    }
  }
}
