// Loads and stores of the three float formats, and the small vector moves the tiles need.
#pragma once
#include <math.h>
#include "exp2_small.h"
#include "oi_kernel.h"
#include "oi_simd.h"
#include "oi_tiles.h"

enum { TYPE_F32 = 0, TYPE_BF16 = 1, TYPE_F16 = 2 };

static inline size_t type_bytes(int64_t type) { return type == TYPE_F32 ? 4 : 2; }

// A function that exists once: results must not depend on which call site the compiler tuned.
#if defined(__clang__)
#define ONE_COPY static __attribute__((noinline))
#else
#define ONE_COPY static __attribute__((noipa))
#endif
#define INLINE static inline __attribute__((always_inline))
#define UNROLL(n) _Pragma(UNROLL_TEXT(GCC unroll n))
#define UNROLL_TEXT(x) #x

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

// Maximum and sum of all lanes, in every lane, by one fixed tree.
#if OI_VF == 16
#define LANES_8(v) SHUFFLE(v, v, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7)
#define LANES_4(v) SHUFFLE(v, v, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11)
#define LANES_2(v) SHUFFLE(v, v, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13)
#define LANES_1(v) SHUFFLE(v, v, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14)
#elif OI_VF == 8
#define LANES_4(v) SHUFFLE(v, v, 4, 5, 6, 7, 0, 1, 2, 3)
#define LANES_2(v) SHUFFLE(v, v, 2, 3, 0, 1, 6, 7, 4, 5)
#define LANES_1(v) SHUFFLE(v, v, 1, 0, 3, 2, 5, 4, 7, 6)
#else
#define LANES_2(v) SHUFFLE(v, v, 2, 3, 0, 1)
#define LANES_1(v) SHUFFLE(v, v, 1, 0, 3, 2)
#endif
INLINE vf all_max(vf v) {
#if OI_VF == 16
  v = vf_max(v, LANES_8(v));
#endif
#if OI_VF >= 8
  v = vf_max(v, LANES_4(v));
#endif
  v = vf_max(v, LANES_2(v));
  return vf_max(v, LANES_1(v));
}
INLINE vf all_sum(vf v) {
#if OI_VF == 16
  v += LANES_8(v);
#endif
#if OI_VF >= 8
  v += LANES_4(v);
#endif
  v += LANES_2(v);
  return v + LANES_1(v);
}

// e^x for x ≤ 0, relative error below 3e-7; below -86, where the result would near the subnormals,
// 0. NaN stays NaN. Half the work of the general function, and softmax needs no more.
INLINE vf exp_nonpositive(vf x) {
  const vf magic = vf_set(12582912.0f), least = vf_set(-86.0f);
  vf c = vf_max(least, x);
  vf shifted = c * vf_set(1.44269504088896341f) + magic;
  vf n = shifted - magic;
  vf r = c - n * vf_set(0.693359375f);
  r = r - n * vf_set(-2.12194440e-4f);
  vf p = vf_set(1.9875691500e-4f) * r + vf_set(1.3981999507e-3f);
  p = p * r + vf_set(8.3334519073e-3f);
  p = p * r + vf_set(4.1665795894e-2f);
  p = p * r + vf_set(1.6666665459e-1f);
  p = p * r + vf_set(5.0000001201e-1f);
  p = p * r + vf_set(1.0f);
  p = p * r + vf_set(1.0f);
  vf y = vf_bits(vf_to_bits(p) + (vf_to_bits(shifted) << 23));
  y = vf_select((vi)(x < least), vf_zero(), y);
  return vf_select((vi)(x == x), y, x);
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
INLINE float kv_scalar(kv_t x) { return f16_to_f32(x); }
#endif

#define PAD16(n) (((n) + 15) / 16 * 16)
#define DP PAD16(D)
#define DVP PAD16(DV)
#define PAIR (2 * OI_VF)

#define ODD_LINES(n) ((n) + ((n) / 16 % 2 ? 0 : 16))  // rows of scratch: no power-of-two strides
#define O_LD ODD_LINES(DVP)

// Whether bf16 is multiplied by matrix tiles; see attention_amx.h. Q_PARTS is 0 if it shall not be,
// else the number of bf16 that add up to an element of a query, P_PARTS of a probability.
#if defined(OI_TILES) && KV_TYPE == 1 && Q_PARTS > 0 && D % 32 == 0 && DV % 32 == 0
#define AMX 1
#else
#define AMX 0
#endif

// Whether bf16 is multiplied by dot products; see attention_dot.h. Emulated ones are there to be
// tested, whether they pay or not.
#if defined(OI_EMULATE_BF16DOT)
#define DOT_WANTED Q_BF16
#else
#define DOT_WANTED (Q_BF16 && DOT_PAYS)
#endif
#if !AMX && defined(OI_BF16DOT) && OI_VF == 16 && KV_TYPE == 1 && DOT_WANTED && D % 32 == 0 && \
    DV % 32 == 0
#define DOT 1
#else
#define DOT 0
#endif

// Two bf16 numbers lie in one 32-bit lane; a shift gives the one, a mask the other, which is half
// the work of widening them in order. So where the dimensions allow it, channels are kept in
// scratch as evens and odds of every PAIR: queries and keys alike, and outputs until they are
// written.
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

// 32 channels of two keys as two vectors of pairs: channels 0-3, 8-11, 16-19, 24-27, and the rest.
#if DOT || AMX
INLINE void interleave(vbf *x, const uint16_t *a, const uint16_t *b) {
  const __m512i u = _mm512_loadu_si512(a), v = _mm512_loadu_si512(b);
  x[0] = (vbf)_mm512_unpacklo_epi16(u, v);
  x[1] = (vbf)_mm512_unpackhi_epi16(u, v);
}
#endif

// An output row: sums in the channel order of the scratch, times `scale`, narrowed.
static void narrow_output(void *dst, const float *src, float scale, int type) {
  _Alignas(64) float row[DVP];
#if DOT || AMX
  for (int i = 0; i < DV; i += PAIR) {  // undoes `interleave`; + 0 makes every zero positive
    const vf a = vf_load(src + i) * scale + 0.0f, b = vf_load(src + i + OI_VF) * scale + 0.0f;
    vf_store(row + i, SHUFFLE(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 4, 5, 6, 7, 20, 21, 22, 23));
    vf_store(row + i + OI_VF,
             SHUFFLE(a, b, 8, 9, 10, 11, 24, 25, 26, 27, 12, 13, 14, 15, 28, 29, 30, 31));
  }
#elif SPLIT_PAIRS
  for (int i = 0; i < DV; i += PAIR)
    for (int c = 0; c < OI_VF; c++) {
      row[i + 2 * c] = src[i + c] * scale;
      row[i + 2 * c + 1] = src[i + c + OI_VF] * scale;
    }
#else
  for (int i = 0; i < DVP; i++) row[i] = src[i] * scale;
#endif
  if (type == TYPE_F32) {
    memcpy(dst, row, DV * 4);
    return;
  }
  uint16_t *h = dst;
  int i = 0;
  for (; i + OI_VF <= DV; i += OI_VF)
    type == TYPE_BF16 ? vf_store_bf16(h + i, vf_load(row + i))
                      : vf_store_f16(h + i, vf_load(row + i));
  for (; i < DV; i++) h[i] = type == TYPE_BF16 ? f32_to_bf16(row[i]) : f32_to_f16(row[i]);
}
