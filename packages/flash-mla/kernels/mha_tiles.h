// The one product of both passes, in registers: C[n][lanes] (+)= Σ_t A(n, t) · B[t][lanes], A one
// unit in all lanes. Each sum is one lane's chain along t, so its value does not depend on the tile
// that computed it.
#pragma once
#include "mha_types.h"

// 24 sums, three vectors of B and one of A fill 32 registers; 12 sums fill 16.
#if OI_VF == 16 || defined(__aarch64__)
#define TILE_N 8
#else
#define TILE_N 4
#endif
#define TILE_V 3                   // vectors of B at most
#define TILE_LANES (TILE_V * OI_VF)

// sum + a · b, for floats or for pairs of bf16.
INLINE vf multiply_add(int pairs, vf sum, vf a, vf b) {
#if DOT_S
  if (pairs) {
    vbf x, y;
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    return oi_bf16dot(sum, x, y);
  }
#endif
  (void)pairs;
  return vf_fma(a, b, sum);
}

// A unit in all lanes, bit for bit.
INLINE vf spread(int pairs, const float *p) {
  if (!pairs) return vf_set(*p);
  uint32_t u;
  memcpy(&u, p, 4);
  return vf_bits((vu){0} + u);
}

typedef struct {
  float *c;
  const float *a, *b;
  ptrdiff_t c_ld, a_ld, b_ld;  // a_ld: of rows n where units run along t, else of rows t
  int depth;                   // units of t
  int add;                     // 0: C starts at zero and is not read
} product_t;

#define TILE_BEGIN(MV)                                                                            \
  float *c = x->c;                                                                                \
  const float *b = x->b;                                                                          \
  const ptrdiff_t c_ld = x->c_ld, a_ld = x->a_ld, b_ld = x->b_ld;                                 \
  vf sum[TILE_N][MV];                                                                             \
  UNROLL(8) for (int n = 0; n < TILE_N; n++) UNROLL(3) for (int v = 0; v < MV; v++) sum[n][v] =   \
      x->add ? vf_load(c + n * c_ld + v * OI_VF) : vf_zero();

#define TILE_STEP(MV, PAIRS, A)                                                                   \
  vf y[MV];                                                                                       \
  UNROLL(3) for (int v = 0; v < MV; v++) y[v] = vf_load(b + v * OI_VF);                           \
  UNROLL(8) for (int n = 0; n < TILE_N; n++) {                                                    \
    const vf w = spread(PAIRS, A);                                                                \
    UNROLL(3) for (int v = 0; v < MV; v++)                                                        \
        sum[n][v] = multiply_add(PAIRS, sum[n][v], w, y[v]);                                      \
  }

#define TILE_END(MV)                                                                              \
  UNROLL(8) for (int n = 0; n < TILE_N; n++) UNROLL(3) for (int v = 0; v < MV; v++)               \
      vf_store(c + n * c_ld + v * OI_VF, sum[n][v]);

// A(n, t) = a[n · a_ld + t].
#define DEFINE_ALONG(NAME, MV, PAIRS)                                                             \
  static __attribute__((noinline)) void NAME(const product_t *x) {                                \
    const float *a[TILE_N];                                                                       \
    TILE_BEGIN(MV)                                                                                \
    UNROLL(8) for (int n = 0; n < TILE_N; n++) a[n] = x->a + n * a_ld;                            \
    UNROLL(1) for (ptrdiff_t t = 0, depth = x->depth; t < depth; t++, b += b_ld) {                \
      TILE_STEP(MV, PAIRS, a[n] + t)                                                              \
    }                                                                                             \
    TILE_END(MV)                                                                                  \
  }

// A(n, t) = a[t · a_ld + n].
#define DEFINE_ACROSS(NAME, MV, PAIRS)                                                            \
  static __attribute__((noinline)) void NAME(const product_t *x) {                                \
    const float *a = x->a;                                                                        \
    TILE_BEGIN(MV)                                                                                \
    UNROLL(1) for (int t = x->depth; t > 0; t--, a += a_ld, b += b_ld) {                          \
      TILE_STEP(MV, PAIRS, a + n)                                                                 \
    }                                                                                             \
    TILE_END(MV)                                                                                  \
  }

DEFINE_ALONG(along_s_1, 1, DOT_S)
DEFINE_ALONG(along_s_2, 2, DOT_S)
DEFINE_ALONG(along_s_3, 3, DOT_S)
DEFINE_ACROSS(across_p_1, 1, DOT_P)
DEFINE_ACROSS(across_p_2, 2, DOT_P)
DEFINE_ACROSS(across_p_3, 3, DOT_P)

// By vectors of B: units along t of channels, and units across of probabilities.
typedef void (*tile_fn)(const product_t *x);
static const tile_fn along_s[TILE_V + 1] = {NULL, along_s_1, along_s_2, along_s_3};
static const tile_fn across_p[TILE_V + 1] = {NULL, across_p_1, across_p_2, across_p_3};
