// Loads and stores of the three float formats, and the small vector moves the tiles need.
#pragma once
#include "oi_kernel.h"
#include "oi_simd.h"

enum { TYPE_F32 = 0, TYPE_BF16 = 1, TYPE_F16 = 2 };

// A function that exists once: results must not depend on which call site the compiler tuned.
#if defined(__clang__)
#define ONE_COPY static __attribute__((noinline))
#else
#define ONE_COPY static __attribute__((noipa))
#endif
#define INLINE static inline __attribute__((always_inline))

// Hides where a value came from, so that a product is rounded before it is added to.
#if defined(__AVX512F__)
#define ROUNDED(v) __asm__("" : "+v"(v))
#elif defined(__x86_64__)
#define ROUNDED(v) __asm__("" : "+x"(v))
#elif defined(__aarch64__)
#define ROUNDED(v) __asm__("" : "+w"(v))
#else
#define ROUNDED(v) __asm__("" : "+m"(v))
#endif

// Picks lanes of a (0 to OI_VF-1) and b (OI_VF to 2*OI_VF-1).
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif

// The element type of keys and values is a compile-time constant.
#if KV_TYPE == 0
typedef float kv_t;
INLINE vf kv_load(const kv_t *p) { return vf_load(p); }
INLINE float kv_scalar(kv_t x) { return x; }
#elif KV_TYPE == 1
typedef uint16_t kv_t;
INLINE vf kv_load(const kv_t *p) { return vf_load_bf16(p); }
INLINE float kv_scalar(kv_t x) { return bf16_to_f32(x); }
#else
typedef uint16_t kv_t;
INLINE vf kv_load(const kv_t *p) { return vf_load_f16(p); }
INLINE float kv_scalar(kv_t x) { return f16_to_f32(x); }
#endif

// n cache elements as floats, zeros up to np (a multiple of the vector).
INLINE void widen_kv(float *dst, const kv_t *src, int n, int np) {
  int i = 0;
  for (; i + OI_VF <= n; i += OI_VF) vf_store(dst + i, kv_load(src + i));
  for (; i < n; i++) dst[i] = kv_scalar(src[i]);
  for (; i < np; i++) dst[i] = 0;
}

static inline void widen_row(float *dst, const void *src, int type, int n, int np) {
  if (type == TYPE_F32) {
    memcpy(dst, src, (size_t)n * 4);
  } else {
    const uint16_t *h = src;
    for (int i = 0; i < n; i++) dst[i] = type == TYPE_BF16 ? bf16_to_f32(h[i]) : f16_to_f32(h[i]);
  }
  for (int i = n; i < np; i++) dst[i] = 0;
}

// n floats times `scale`, narrowed to an output row.
static inline void narrow_row(void *dst, const float *src, float scale, int type, int n) {
  if (type == TYPE_F32) {
    for (int i = 0; i < n; i++) ((float *)dst)[i] = src[i] * scale;
  } else if (type == TYPE_BF16) {
    for (int i = 0; i < n; i++) ((uint16_t *)dst)[i] = f32_to_bf16(src[i] * scale);
  } else {
    for (int i = 0; i < n; i++) ((uint16_t *)dst)[i] = f32_to_f16(src[i] * scale);
  }
}
