// What casts read and write beside codes: rows of X_TYPE, the driver's constant, as float32 vectors.
#pragma once
#include "oi_kernel.h"
#include "oi_simd.h"

#if X_TYPE == 0
typedef float x_t;
static inline vf x_load(const x_t *p) { return vf_load(p); }
static inline void x_store(x_t *p, vf v) { vf_store(p, v); }
#elif X_TYPE == 1
typedef uint16_t x_t;
static inline vf x_load(const x_t *p) { return vf_load_bf16(p); }
static inline void x_store(x_t *p, vf v) { vf_store_bf16(p, v); }
#else
typedef uint16_t x_t;
static inline vf x_load(const x_t *p) { return vf_load_f16(p); }
static inline void x_store(x_t *p, vf v) { vf_store_f16(p, v); }
#endif

// Up to OI_VF elements, the rest of the vector zero.
static inline vf x_load_part(const x_t *p, int64_t n) {
  if (n >= OI_VF) return x_load(p);
  x_t part[OI_VF] = {0};
  memcpy(part, p, (size_t)n * sizeof(x_t));
  return x_load(part);
}
