// Rows of attention inputs as the tiles read them, outputs from sums, and the small vector moves
// both passes need. Scratch holds 32-bit units: a float, or a pair of bf16 that the dot-product
// instruction multiplies at once. Not here: any loop over tiles.
//
// Constants: D, DV channels of a key and a value; DOT_PAYS 1 if all inputs are bf16 and this
// machine multiplies bf16 pairs faster than floats, 0 if it does not, -1 if some input is not bf16;
// ROUND_P 1 if probabilities and gradients of scores may be rounded to bf16; P_PARTS, with matrix
// tiles the number of bf16 that add up to one of them, else 0.
#pragma once
#include <math.h>
#include "exp2_small.h"
#include "oi_kernel.h"
#include "oi_tiles.h"

#if defined(OI_BF16DOT) && (DOT_PAYS > 0 || (DOT_PAYS == 0 && defined(OI_EMULATE_BF16DOT)))
#define DOT_S 1  // products of inputs with inputs: pairs of channels, nothing rounded
#else
#define DOT_S 0
#endif
#define DOT_P (DOT_S && ROUND_P)  // products with probabilities: pairs of keys or of rows
#define S_UNIT (DOT_S + 1)        // elements of a unit
#define P_UNIT (DOT_P + 1)

enum { TYPE_F32 = 0, TYPE_BF16 = 1, TYPE_F16 = 2 };

// Whether bf16 is multiplied by matrix tiles; see amx_steps.h. P_PARTS is 0 if it shall not be.
#if defined(OI_TILES) && P_PARTS > 0 && D % 32 == 0 && DV % 32 == 0
#define AMX 1
#else
#define AMX 0
#endif

#define INLINE static inline __attribute__((always_inline))
#define UNROLL(n) _Pragma(UNROLL_TEXT(GCC unroll n))
#define UNROLL_TEXT(x) #x

// A function that exists once: results must not depend on which call site the compiler tuned.
#if defined(__clang__)
#define ONE_COPY static __attribute__((noinline))
#else
#define ONE_COPY static __attribute__((noipa))
#endif

// Rows of scratch are an odd number of cache lines apart, so that columns of rows spread over the
// sets of a cache.
#define UP(n, step) (((n) + (step) - 1) / (step) * (step))
#define LD(n) ((UP(n, 16) / 16 | 1) * 16)

#define NEVER (-1e30f)  // where a running maximum starts, so that no inf − inf appears

static inline size_t type_bytes(int64_t type) { return type == TYPE_F32 ? 4 : 2; }

// Element `at` of an array whose type is known at run time.
static inline char *element(const void *base, int64_t at, int64_t type) {
  return (char *)base + at * (int64_t)type_bytes(type);
}

// n elements as floats, zeros up to `whole`, which is at most 15 more.
static void load_floats(float *dst, const void *src, int n, int whole, int type) {
  const float *f = src;
  const uint16_t *h = src;
  int i = 0;
  if (type == TYPE_F32) {
    for (; i + OI_VF <= n; i += OI_VF) vf_store(dst + i, vf_load(f + i));
    for (; i < n; i++) dst[i] = f[i];
  } else if (type == TYPE_BF16) {
    for (; i + OI_VF <= n; i += OI_VF) vf_store(dst + i, vf_load_bf16(h + i));
    for (; i < n; i++) dst[i] = bf16_to_f32(h[i]);
  } else {
    for (; i + OI_VF <= n; i += OI_VF) vf_store(dst + i, vf_load_f16(h + i));
    for (; i < n; i++) dst[i] = f16_to_f32(h[i]);
  }
  for (; i < whole; i++) dst[i] = 0;
}

// A row whose units run along its channels: floats, or pairs of neighbouring bf16. `whole` units.
static inline void load_along(float *dst, const void *src, int n, int whole, int type) {
  if (!DOT_S) {
    load_floats(dst, src, n, whole, type);
    return;
  }
  memcpy(dst, src, (size_t)n * 2);
  memset((uint16_t *)dst + n, 0, (size_t)whole * 4 - (size_t)n * 2);
}

// A row of units that run across rows: the floats of row a, or its bf16 with those of row b below.
// A row that is not there counts as zeros.
static inline void load_across(float *dst, const void *a, const void *b, int n, int whole,
                               int type) {
  int i = 0;
  if (!DOT_P) {
    if (a != NULL) load_floats(dst, a, n, whole, type);
    else memset(dst, 0, (size_t)whole * 4);
    return;
  }
  const uint16_t *low = a, *high = b;
  if (low != NULL && high != NULL)
    for (; i + OI_VF <= n; i += OI_VF) {
      vu16 x, y;
      memcpy(&x, low + i, sizeof x);
      memcpy(&y, high + i, sizeof y);
      vu pair = __builtin_convertvector(x, vu) | __builtin_convertvector(y, vu) << 16;
      memcpy(dst + i, &pair, sizeof pair);
    }
  for (; i < whole; i++) {
    const uint32_t x = low != NULL && i < n ? low[i] : 0, y = high != NULL && i < n ? high[i] : 0;
    const uint32_t pair = x | y << 16;
    memcpy(dst + i, &pair, 4);
  }
}

// Writes a finished row. Adding +0 makes every zero positive: how many masked keys, which add
// zeros of either sign, shared a tile with this row must not show.
ONE_COPY void store_row(void *dst, const float *src, float factor, int n, int64_t type) {
  float *f = dst;
  uint16_t *h = dst;
  int i = 0;
  for (; i + OI_VF <= n; i += OI_VF) {
    vf x = vf_load(src + i) * factor + 0.0f;
    if (type == TYPE_F32) vf_store(f + i, x);
    else if (type == TYPE_BF16) vf_store_bf16(h + i, x);
    else vf_store_f16(h + i, x);
  }
  for (; i < n; i++) {
    float x = src[i] * factor + 0.0f;
    if (type == TYPE_F32) f[i] = x;
    else h[i] = type == TYPE_BF16 ? f32_to_bf16(x) : f32_to_f16(x);
  }
}

#if DOT_P
// Floats to bf16 by the instruction that comes with the dot product; like it, it takes subnormals
// for zero.
INLINE vu16 to_bf16(vf v) {
#if defined(__AVX512BF16__) && !defined(OI_EMULATE_BF16DOT)
  const __m256bh narrow = _mm512_cvtneps_pbh((__m512)v);
  vu16 h;
  memcpy(&h, &narrow, sizeof h);
  return h;
#else
  return vf_to_bf16_bits(v);
#endif
}

// Two vectors of floats as one of bf16 pairs, the first below.
INLINE vf pair_up(vf low, vf high) {
  return vf_bits(__builtin_convertvector(to_bf16(low), vu) |
                 __builtin_convertvector(to_bf16(high), vu) << 16);
}
#endif

// Lane i of the result is i.
INLINE vi lane_numbers(void) {
  vi lanes;
  UNROLL(16) for (int i = 0; i < OI_VF; i++) lanes[i] = i;
  return lanes;
}

// Picks lanes of a (0 to OI_VF-1) and b (OI_VF to 2*OI_VF-1).
#if defined(__clang__)
#define PICK(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define PICK(a, b, ...) __builtin_shuffle(a, b, (vi){__VA_ARGS__})
#endif

// One step of a transpose: rows i and i + STEP exchange their lanes of the other half.
#define EXCHANGE(STEP, LOW, HIGH)                                                                \
  UNROLL(16) for (int i = 0; i < OI_VF; i++) if (!(i & STEP)) {                                  \
    const vf a = row[i], b = row[i + STEP];                                                      \
    row[i] = LOW(a, b), row[i + STEP] = HIGH(a, b);                                              \
  }
#if OI_VF == 16
#define LOW_8(a, b) PICK(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23)
#define HIGH_8(a, b) PICK(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31)
#define LOW_4(a, b) PICK(a, b, 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27)
#define HIGH_4(a, b) PICK(a, b, 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31)
#define LOW_2(a, b) PICK(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29)
#define HIGH_2(a, b) PICK(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31)
#define LOW_1(a, b) PICK(a, b, 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30)
#define HIGH_1(a, b) PICK(a, b, 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31)
#elif OI_VF == 8
#define LOW_4(a, b) PICK(a, b, 0, 1, 2, 3, 8, 9, 10, 11)
#define HIGH_4(a, b) PICK(a, b, 4, 5, 6, 7, 12, 13, 14, 15)
#define LOW_2(a, b) PICK(a, b, 0, 1, 8, 9, 4, 5, 12, 13)
#define HIGH_2(a, b) PICK(a, b, 2, 3, 10, 11, 6, 7, 14, 15)
#define LOW_1(a, b) PICK(a, b, 0, 8, 2, 10, 4, 12, 6, 14)
#define HIGH_1(a, b) PICK(a, b, 1, 9, 3, 11, 5, 13, 7, 15)
#else
#define LOW_2(a, b) PICK(a, b, 0, 1, 4, 5)
#define HIGH_2(a, b) PICK(a, b, 2, 3, 6, 7)
#define LOW_1(a, b) PICK(a, b, 0, 4, 2, 6)
#define HIGH_1(a, b) PICK(a, b, 1, 5, 3, 7)
#endif

// dst[c][r] = src[r][c] for OI_VF rows and columns of units.
static __attribute__((noinline)) void transpose(float *dst, int dst_ld, const float *src,
                                                int src_ld) {
  vf row[OI_VF];
  UNROLL(16) for (int i = 0; i < OI_VF; i++) row[i] = vf_load(src + i * src_ld);
#if OI_VF == 16
  EXCHANGE(8, LOW_8, HIGH_8)
#endif
#if OI_VF >= 8
  EXCHANGE(4, LOW_4, HIGH_4)
#endif
  EXCHANGE(2, LOW_2, HIGH_2)
  EXCHANGE(1, LOW_1, HIGH_1)
  UNROLL(16) for (int i = 0; i < OI_VF; i++) vf_store(dst + i * dst_ld, row[i]);
}

// Whether some element of n units across rows is infinite or NaN.
static int not_finite(const float *units, int n) {
  uint32_t bad = 0;
  for (int i = 0; i < n; i++) {
    uint32_t u;
    memcpy(&u, units + i, 4);
    bad |= DOT_P ? ((u & 0x7f80) == 0x7f80) | ((u & 0x7f800000) == 0x7f800000)
               : (u & 0x7f800000) == 0x7f800000;
  }
  return bad != 0;
}

static inline float *carve(char **at, size_t units) {
  float *here = (float *)*at;
  *at += UP(units * 4, 64);
  return here;
}
