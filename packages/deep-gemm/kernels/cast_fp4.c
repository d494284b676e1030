// Float matrices to e2m1 with a scale per row and gran_k columns, and back; and codes transposed.
// The arithmetic is the original's, one float32 rounding per step: scale = max(|x|, 1e-4) / 6, and
// x · (1 / scale) becomes the code whose neighbours' middles it lies between, a middle itself the
// smaller one. There is no negative zero. Of a byte the low half comes first.
#include "cast_wide.h"
#include "columns.h"

// Two codes a byte.
typedef struct {
  uint8_t byte[OI_VF / 2];
} pairs_t;

static float scale_of(float amax, int ue8m0) {
  float scale = (amax > 1e-4f ? amax : 1e-4f) / 6.0f;
  if (!ue8m0) return scale;
  uint32_t bits;
  memcpy(&bits, &scale, 4);
  uint32_t exponent = ((bits >> 23) & 0xff) + ((bits & 0x7fffff) != 0);
  exponent = exponent < 1 ? 1 : exponent > 254 ? 254 : exponent;
  bits = exponent << 23;
  memcpy(&scale, &bits, 4);
  return scale;
}

// Codes, one in every lane; NaN becomes 6, and has a NaN for a scale.
static inline vu codes_of(vf x) {
  vf size = vf_max(x, -x);
  vi code = (vi){0} + 7;
  code += (vi)(size <= 0.25f);
  code += (vi)(size <= 0.75f);
  code += (vi)(size <= 1.25f);
  code += (vi)(size <= 1.75f);
  code += (vi)(size <= 2.5f);
  code += (vi)(size <= 3.5f);
  code += (vi)(size <= 5.0f);
  return (vu)(code | ((vi)(x < 0.0f) & (vi)(code != 0) & 8));
}

static inline pairs_t pairs_of(vu codes) {
  pairs_t pairs;
#if defined(__AVX512F__)
  __m512i two = (__m512i)codes;
  two = _mm512_or_si512(two, _mm512_srli_epi64(two, 28));
  __m128i bytes = _mm512_cvtepi64_epi8(two);
  memcpy(&pairs, &bytes, sizeof pairs);
#else
  for (int i = 0; i < OI_VF / 2; i++) {
    pairs.byte[i] = (uint8_t)(codes[2 * i] | codes[2 * i + 1] << 4);
  }
#endif
  return pairs;
}

// `len` columns of one row that share a scale.
static inline __attribute__((always_inline)) void cast_block(const params_t *p, const x_t *x,
                                                             uint8_t *q, float *scale,
                                                             int64_t len) {
  vu largest = {0};
  for (int64_t k = 0; k < len; k += OI_VF) {
    largest = larger_magnitude(largest, x_load_part(x + k, len - k));
  }
  float amax = largest_of(largest);
  *scale = amax != amax ? __builtin_nanf("") : scale_of(amax, (int)p->ue8m0);
  vf inverse = vf_set(1.0f / *scale);
  for (int64_t k = 0; k < len; k += OI_VF) {
    pairs_t bytes = pairs_of(codes_of(x_load_part(x + k, len - k) * inverse));
    codes_store(q + k / 2, &bytes, (len - k) / 2, OI_VF / 2);
  }
}

#if CAST_WIDE
// `columns` of a row, a multiple of 32, whose groups of `len` have these inverse scales.
static inline __attribute__((always_inline)) void cast_columns(const x_t *x, uint8_t *q,
                                                               const float *inverses,
                                                               int64_t columns, int64_t len,
                                                               int stream) {
  int64_t k = 0, end = len;  // of the group that *inverses is of
  for (; k + 128 <= columns; k += 128) {
    wide_t part[4];
    for (int i = 0; i < 4; i++) {
      if (k + 32 * i >= end) inverses++, end += len;
      __m512 inverse = _mm512_set1_ps(*inverses);
      wide_prefetch(x + k + 32 * i + AHEAD);
      part[i] = wide_times(wide_load(x + k + 32 * i), inverse, inverse);
    }
    wide_store(q + k / 2, e2m1_bytes(part), stream);
  }
  for (; k < columns; k += 32) {
    if (k >= end) inverses++, end += len;
    __m512 inverse = _mm512_set1_ps(*inverses);
    __m512i pairs = e2m1_pairs(wide_times(wide_load(x + k), inverse, inverse));
    _mm_storeu_si128((__m128i *)(q + k / 2), _mm512_cvtepi32_epi8(pairs));
  }
}

// As many groups as there are, sixteen at most; 0 if there is no whole one, or not all are finite.
static inline __attribute__((always_inline)) int cast_groups(const params_t *p, const x_t *x,
                                                             uint8_t *q, float *scale,
                                                             int64_t left, int64_t len) {
  int groups = (int)oi_min(GROUPS, left / len);
  __m512 largest = group_maxima(x, groups, len);
  if (groups == 0 || !all_finite(largest)) return 0;
  __m512 scales = wide_scales(largest, 6.0f, (int)p->ue8m0);
  scales_store(scale, p->s_k, scales, groups);
  float inverses[GROUPS];
  _mm512_storeu_ps(inverses, wide_inverses(scales));
  cast_columns(x, q, inverses, groups * len, len, fills_lines(p, q));
  return groups;
}

// Groups that are whole vectors, from the first of `left` columns on; how many were done.
static int cast_wide(const params_t *p, const x_t *x, uint8_t *q, float *scale, int64_t left) {
  int64_t len = p->gran_k;
  if (len == 32) return cast_groups(p, x, q, scale, left, 32);
  return len % 32 == 0 ? cast_groups(p, x, q, scale, left, len) : 0;
}
#else
static int cast_wide(const params_t *p, const x_t *x, uint8_t *q, float *scale, int64_t left) {
  (void)p, (void)x, (void)q, (void)scale, (void)left;
  return 0;
}
#endif

static void cast_row(const params_t *p, const x_t *x, uint8_t *q, float *scales) {
  for (int64_t k = 0; k < p->k;) {
    int done = cast_wide(p, x + k, q + k / 2, scales, p->k - k);
    if (done > 0) {
      k += done * p->gran_k;
      scales += done * p->s_k;
      continue;
    }
    int64_t len = oi_min(p->gran_k, p->k - k);
    if (len == 32) cast_block(p, x + k, q + k / 2, scales, 32);
    else cast_block(p, x + k, q + k / 2, scales, len);
    k += len;
    scales += p->s_k;
  }
}

void cast_to_fp4(const params_t *p, oi_ctx *ctx) {
  for (int64_t from; (from = oi_take(ctx, 8)) < p->m;) {
    for (int64_t m = from; m < oi_min(p->m, from + 8); m++) {
      cast_row(p, (const x_t *)p->x + m * p->ldx, (uint8_t *)p->data + m * p->ldq,
               (float *)p->scales + m * p->s_m);
    }
  }
  oi_stream_fence();
}

void cast_from_fp4(const params_t *p, oi_ctx *ctx) {
  for (int64_t m; (m = oi_take(ctx, 1)) < p->m;) {
    const uint8_t *q = (const uint8_t *)p->data + m * p->ldq;
    x_t *x = (x_t *)p->x + m * p->ldx;
    const float *scales = (const float *)p->scales + m * p->s_m;
    for (int64_t k0 = 0; k0 < p->k; k0 += p->gran_k) {
      vf scale = vf_set(scales[k0 / p->gran_k * p->s_k]);
      int64_t len = oi_min(p->gran_k, p->k - k0);
      for (int64_t k = 0; k < len; k += OI_VF) {
        int64_t n = oi_min(OI_VF, len - k);
        uint8_t codes[OI_VF / 2] = {0};
        memcpy(codes, q + (k0 + k) / 2, (size_t)n / 2);
        x_t values[OI_VF];
        x_store(values, load_row_codes(CODES_E2M1, codes) * scale);
        memcpy(x + k0 + k, values, (size_t)n * sizeof(x_t));
      }
    }
  }
}

// x [m, k] codes at `data`, their transpose [k, m] at `x`: both even, in tiles of TURN × TURN.
enum { TURN = 64 };

static void turn_tile(const params_t *p, int64_t m0, int64_t k0) {
  const uint8_t *from = p->data;
  uint8_t *to = p->x;
  for (int64_t m = m0; m < oi_min(p->m, m0 + TURN); m += 2) {
    for (int64_t k = k0; k < oi_min(p->k, k0 + TURN); k += 2) {
      uint8_t a = from[m * p->ldq + k / 2], b = from[(m + 1) * p->ldq + k / 2];
      to[k * p->ldx + m / 2] = (uint8_t)((a & 15) | b << 4);
      to[(k + 1) * p->ldx + m / 2] = (uint8_t)(a >> 4 | (b & 0xf0));
    }
  }
}

void transpose_fp4(const params_t *p, oi_ctx *ctx) {
  int64_t across = oi_ceil_div(p->k, TURN), tiles = across * oi_ceil_div(p->m, TURN);
  for (int64_t i; (i = oi_take(ctx, 1)) < tiles;) {
    turn_tile(p, i / across * TURN, i % across * TURN);
  }
}
