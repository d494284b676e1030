// d = part 0 + part 1 + … (+ c), added in this order in float32 and rounded once: the sums of a
// product whose K was cut into parts.
#include "oi_kernel.h"
#include "oi_simd.h"

#if D_TYPE == 0
typedef float d_t;
static inline vf d_load(const d_t *p) { return vf_load(p); }
static inline void d_store(d_t *p, vf x) { vf_store(p, x); }
#elif D_TYPE == 1
typedef uint16_t d_t;
static inline vf d_load(const d_t *p) { return vf_load_bf16(p); }
static inline void d_store(d_t *p, vf x) { vf_store_bf16(p, x); }
#elif D_TYPE == 2
typedef uint16_t d_t;
static inline vf d_load(const d_t *p) { return vf_load_f16(p); }
static inline void d_store(d_t *p, vf x) { vf_store_f16(p, x); }
#else
typedef uint8_t d_t;
static inline vf d_load(const d_t *p) { return vf_load_e4m3(p); }
static inline void d_store(d_t *p, vf x) { vf_store_e4m3(p, x); }
#endif

// `count` ≤ OI_VF columns from `at` on.
static inline void add_columns(const params_t *p, int64_t row, int64_t at, int64_t count) {
  const float *from = (const float *)p->parts + row * p->n + at;
  float part[OI_VF] = {0};
  vf sum = vf_zero();
  for (int64_t i = 0; i < p->count; i++, from += p->m * p->n) {
    memcpy(part, from, (size_t)count * sizeof(float));
    sum = i == 0 ? vf_load(part) : sum + vf_load(part);
  }
  size_t bytes = (size_t)count * sizeof(d_t);
  d_t *d = (d_t *)p->d + row * p->d_row + at, out[OI_VF] = {0};
  if (p->c != NULL) {
    memcpy(out, (const d_t *)p->c + row * p->c_row + at, bytes);
    sum = sum + d_load(out);
  }
  d_store(out, sum);
  memcpy(d, out, bytes);
}

void add_parts(const params_t *p, oi_ctx *ctx) {
  enum { COLUMNS = 64 * OI_VF };
  int64_t across = oi_ceil_div(p->n, COLUMNS);
  for (int64_t i; (i = oi_take(ctx, 1)) < across * p->m;) {
    int64_t row = i / across, from = i % across * COLUMNS, to = oi_min(p->n, from + COLUMNS);
    for (int64_t at = from; at < to; at += OI_VF) {
      if (at + OI_VF <= to) add_columns(p, row, at, OI_VF);
      else add_columns(p, row, at, to - at);
    }
  }
}
