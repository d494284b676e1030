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
#if defined(__x86_64__)
#define ROUNDED(v) __asm__("" : "+x"(v))
#elif defined(__aarch64__)
#define ROUNDED(v) __asm__("" : "+w"(v))
#else
#define ROUNDED(v) __asm__("" : "+m"(v))
#endif
#if defined(__AVX512F__)
#undef ROUNDED
#define ROUNDED(v) __asm__("" : "+v"(v))
#endif

// Picks lanes of a (0 to OI_VF-1) and b (OI_VF to 2*OI_VF-1).
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif

static inline float f16_bits_to_f32(uint16_t h) {
  uint32_t sign = (uint32_t)(h & 0x8000) << 16, e = (h >> 10) & 31, m = h & 1023, bits;
  if (e == 31) {
    bits = sign | 0x7f800000 | (m << 13) | (m ? 0x400000 : 0);
  } else if (e != 0) {
    bits = sign | ((e + 112) << 23) | (m << 13);
  } else {
    float f = (float)m * 0x1p-24f;
    memcpy(&bits, &f, 4);
    bits |= sign;
  }
  float f;
  memcpy(&f, &bits, 4);
  return f;
}

// Round to nearest even; beyond 65504 the result is infinity, NaN stays NaN.
static inline uint16_t f32_to_f16_bits(float f) {
  uint32_t b;
  memcpy(&b, &f, 4);
  uint16_t sign = (uint16_t)((b >> 16) & 0x8000);
  b &= 0x7fffffff;
  if (b > 0x7f800000) return (uint16_t)(sign | 0x7e00 | ((b >> 13) & 0x1ff));
  if (b >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
  if (b < 0x38800000) {
    float scaled;
    memcpy(&scaled, &b, 4);
    return (uint16_t)(sign | (uint16_t)__builtin_rintf(scaled * 0x1p24f));
  }
  b += 0xfff + ((b >> 13) & 1);
  return (uint16_t)(sign | ((b - 0x38000000) >> 13));
}

static inline vf vf_load_f16(const uint16_t *p) {
#if defined(__AVX512F__)
  return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
#elif defined(__AVX__) && defined(__F16C__)
  return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
#else
  vf v;
  for (int i = 0; i < OI_VF; i++) v[i] = f16_bits_to_f32(p[i]);
  return v;
#endif
}

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
INLINE float kv_scalar(kv_t x) { return f16_bits_to_f32(x); }
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
    for (int i = 0; i < n; i++) dst[i] = type == TYPE_BF16 ? bf16_to_f32(h[i]) : f16_bits_to_f32(h[i]);
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
    for (int i = 0; i < n; i++) ((uint16_t *)dst)[i] = f32_to_f16_bits(src[i] * scale);
  }
}
