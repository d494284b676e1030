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

#define PAD16(n) (((n) + 15) / 16 * 16)
#define DP PAD16(D)
#define DVP PAD16(DV)
#define PAIR (2 * OI_VF)

// Two bf16 numbers lie in one 32-bit lane; a shift gives the one, a mask the other, which is half
// the work of widening them in order. So where the dimensions allow it, channels are kept in scratch
// as evens and odds of every PAIR: queries and keys alike, and outputs until they are written.
#define SPLIT_PAIRS (KV_TYPE == 1 && D % PAIR == 0 && DV % PAIR == 0)
// Whether tiles may load from the cache: whole pairs of vectors, nothing past the row.
#define CAN_READ_DIRECT (D % PAIR == 0 && DV % PAIR == 0)

// The first and the second vector of PAIR channels, from the cache and from a panel.
INLINE vf kv_first(const kv_t *p) {
#if SPLIT_PAIRS
  vu raw;
  memcpy(&raw, p, sizeof raw);
  return vf_bits(raw << 16);
#else
  return kv_load(p);
#endif
}
INLINE vf kv_second(const kv_t *p) {
#if SPLIT_PAIRS
  vu raw;
  memcpy(&raw, p, sizeof raw);
  return vf_bits(raw & 0xffff0000u);
#else
  return kv_load(p + OI_VF);
#endif
}
INLINE vf panel_first(const float *p) { return vf_load(p); }
INLINE vf panel_second(const float *p) { return vf_load(p + OI_VF); }

// n cache elements as floats, zeros up to np (a multiple of 16).
static inline void widen_kv(float *dst, const kv_t *src, int n, int np) {
  int i = 0;
  for (; i + PAIR <= n; i += PAIR) {
    vf_store(dst + i, kv_first(src + i));
    vf_store(dst + i + OI_VF, kv_second(src + i));
  }
  for (; i + OI_VF <= n; i += OI_VF) vf_store(dst + i, kv_load(src + i));
  for (; i < n; i++) dst[i] = kv_scalar(src[i]);
  for (; i < np; i++) dst[i] = 0;
}

static inline float scalar_of(const void *row, int type, int i) {
  if (type == TYPE_F32) return ((const float *)row)[i];
  uint16_t h = ((const uint16_t *)row)[i];
  return type == TYPE_BF16 ? bf16_to_f32(h) : f16_to_f32(h);
}

// A query row as floats in the channel order of the scratch, zeros up to DP.
static void widen_query(float *dst, const void *src, int type) {
  int i = 0;
  if (SPLIT_PAIRS) {
    for (; i < D; i += PAIR)
      for (int c = 0; c < OI_VF; c++) {
        dst[i + c] = scalar_of(src, type, i + 2 * c);
        dst[i + c + OI_VF] = scalar_of(src, type, i + 2 * c + 1);
      }
  }
  for (; i < D; i++) dst[i] = scalar_of(src, type, i);
  for (; i < DP; i++) dst[i] = 0;
}

// An output row: sums in the channel order of the scratch, times `scale`, narrowed.
static void narrow_output(void *dst, const float *src, float scale, int type) {
  _Alignas(64) float row[DVP];
  if (SPLIT_PAIRS) {
    for (int i = 0; i < DV; i += PAIR)
      for (int c = 0; c < OI_VF; c++) {
        row[i + 2 * c] = src[i + c] * scale;
        row[i + 2 * c + 1] = src[i + c + OI_VF] * scale;
      }
  } else {
    for (int i = 0; i < DVP; i++) row[i] = src[i] * scale;
  }
  if (type == TYPE_F32) {
    memcpy(dst, row, DV * 4);
    return;
  }
  uint16_t *h = dst;
  int i = 0;
  for (; i + OI_VF <= DV; i += OI_VF)
    type == TYPE_BF16 ? vf_store_bf16(h + i, vf_load(row + i)) : vf_store_f16(h + i, vf_load(row + i));
  for (; i < DV; i++) h[i] = type == TYPE_BF16 ? f32_to_bf16(row[i]) : f32_to_f16(row[i]);
}
