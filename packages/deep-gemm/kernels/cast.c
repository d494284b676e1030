// Float matrices to e4m3 with a scale per block of GRAN_M rows × gran_k columns, and back. The
// cast's arithmetic is the original's, one float32 rounding per step, so that codes agree byte for
// byte: scale = max(|x|, 1e-4) / 448, code = round(x · (1 / scale)).
#include "cast_wide.h"
#include "fp8_scale.h"

typedef struct {
  const x_t *x;
  uint8_t *q;
  float *scale;
} block_t;

// `len` columns of `rows` rows.
static inline __attribute__((always_inline)) void cast_block(const params_t *p, block_t at,
                                                             int64_t rows, int64_t len) {
  vu largest = {0};
  for (int64_t m = 0; m < rows; m++) {
    for (int64_t k = 0; k < len; k += OI_VF) {
      const x_t *x = at.x + m * p->ldx + k;
      // The next block's part of this row: rows of a block are too short for memory to run ahead.
      if (rows > 1 && k * sizeof(x_t) % 64 == 0) __builtin_prefetch(x + len, 0, 2);
      largest = larger_magnitude(largest, x_load_part(x, len - k));
    }
  }
  float amax = largest_of(largest);
  float scale = amax != amax ? __builtin_nanf("") : fp8_scale(amax, (int)p->ue8m0);
  vf inverse = vf_set(1.0f / scale);
  *at.scale = scale;
  if (len % (2 * OI_VF) == 0 && amax <= 0x1.fffffep127f) {
    for (int64_t m = 0; m < rows; m++) {
      for (int64_t k = 0; k < len; k += 2 * OI_VF) {
        const x_t *x = at.x + m * p->ldx + k;
        e4m3_store_pair(at.q + m * p->ldq + k, x_load(x) * inverse, x_load(x + OI_VF) * inverse);
      }
    }
    return;
  }
  for (int64_t m = 0; m < rows; m++) {
    for (int64_t k = 0; k < len; k += OI_VF) {
      vu8 codes = vf_to_e4m3_bits(x_load_part(at.x + m * p->ldx + k, len - k) * inverse);
      codes_store(at.q + m * p->ldq + k, &codes, len - k, OI_VF);
    }
  }
}

#if CAST_WIDE
// `columns` of one row, a multiple of 64, whose groups of `len` have these inverse scales. What
// lies `ahead` of each element is wanted next.
static inline __attribute__((always_inline)) void cast_columns(const x_t *x, uint8_t *q,
                                                               const float *inverses,
                                                               int64_t columns, int64_t len,
                                                               int64_t ahead, int stream) {
  int64_t end = len;  // of the group that *inverses is of
  for (int64_t k = 0; k < columns; k += 64) {
    if (k >= end) inverses++, end += len;
    __m512 low = _mm512_set1_ps(*inverses), high = low;
    if (len % 64 != 0 && k + 32 >= end) {
      inverses++, end += len;
      high = _mm512_set1_ps(*inverses);
    }
    wide_prefetch(x + k + ahead);
    wide_prefetch(x + k + 32 + ahead);
    wide_t a = wide_times(wide_load(x + k), low, low);
    wide_t b = wide_times(wide_load(x + k + 32), high, high);
    wide_store(q + k, e4m3_codes(a, b), stream);
  }
}

// As many groups of one row as there are, sixteen at most; 0 if they do not fill vectors or are not
// finite.
static inline __attribute__((always_inline)) int cast_groups(const params_t *p, block_t at,
                                                             int64_t left, int64_t len) {
  int groups = (int)oi_min(GROUPS, left / len);
  if (len % 64 != 0) groups &= ~1;
  __m512 largest = group_maxima(at.x, groups, len);
  if (groups == 0 || !all_finite(largest)) return 0;
  __m512 scales = wide_scales(largest, 448.0f, (int)p->ue8m0);
  scales_store(at.scale, p->s_k, scales, groups);
  float inverses[GROUPS];
  _mm512_storeu_ps(inverses, wide_inverses(scales));
  cast_columns(at.x, at.q, inverses, groups * len, len, AHEAD, fills_lines(p, at.q));
  return groups;
}

enum { STRIP_COLUMNS = 512, STRIP_BLOCKS = 8 };

// As many blocks of several rows as make a strip that the second-level cache holds; 0 as above.
static inline __attribute__((always_inline)) int cast_strip(const params_t *p, block_t at,
                                                            int64_t rows, int64_t left,
                                                            int64_t len) {
  int blocks = (int)oi_min(oi_min(STRIP_BLOCKS, oi_max(1, STRIP_COLUMNS / len)), left / len);
  int64_t columns = blocks * len;
  __m512i v[GROUPS] = {0};
  for (int64_t m = 0; m < rows; m++) {
    const x_t *x = at.x + m * p->ldx;
    for (int g = 0; g < blocks; g++) {
      __m512i largest = v[place_of(g)];
      for (int64_t k = g * len; k < (g + 1) * len; k += 32) largest = wide_larger(largest, x + k);
      v[place_of(g)] = largest;
    }
  }
  for (int i = 0; i < GROUPS; i++) v[i] = lane_maxima(v[i]);
  __m512 largest = numbers_of(sixteen_maxima(v));
  if (blocks == 0 || !all_finite(largest)) return 0;
  __m512 scales = wide_scales(largest, 448.0f, (int)p->ue8m0);
  scales_store(at.scale, p->s_k, scales, blocks);
  float inverses[GROUPS];
  _mm512_storeu_ps(inverses, wide_inverses(scales));
  for (int64_t m = 0; m < rows; m++) {
    const x_t *x = at.x + m * p->ldx;
    uint8_t *q = at.q + m * p->ldq;
    // The next strip's part of this row: rows of a strip are too short for memory to run ahead.
    cast_columns(x, q, inverses, columns, len, columns, fills_lines(p, q));
  }
  return blocks;
}

// Blocks that are whole vectors, from the first of `left` columns on; how many were done.
static int cast_wide(const params_t *p, const block_t *place, int64_t rows, int64_t left) {
  block_t at = *place;
  int64_t len = p->gran_k;
  if (rows > 1 && len == 128) return cast_strip(p, at, rows, left, 128);
  if (rows > 1) return len % 64 == 0 ? cast_strip(p, at, rows, left, len) : 0;
  if (len == 128) return cast_groups(p, at, left, 128);
  return len % 32 == 0 ? cast_groups(p, at, left, len) : 0;
}
#else
static int cast_wide(const params_t *p, const block_t *place, int64_t rows, int64_t left) {
  (void)p, (void)place, (void)rows, (void)left;
  return 0;
}
#endif

// A row of blocks.
static void cast_blocks(const params_t *p, int64_t i) {
  int64_t m0 = i * p->gran_m, rows = oi_min(p->gran_m, p->m - m0);
  block_t at = {(const x_t *)p->x + m0 * p->ldx, (uint8_t *)p->data + m0 * p->ldq,
                (float *)p->scales + i * p->s_m};
  for (int64_t k = 0; k < p->k;) {
    int done = cast_wide(p, &at, rows, p->k - k);
    if (done > 0) {
      k += done * p->gran_k;
      at.x += done * p->gran_k;
      at.q += done * p->gran_k;
      at.scale += done * p->s_k;
      continue;
    }
    int64_t len = oi_min(p->gran_k, p->k - k);
    // The usual length as a constant, so that its loops are unrolled and have no tails.
    if (len == 128) cast_block(p, at, rows, 128);
    else cast_block(p, at, rows, len);
    at.x += len;
    at.q += len;
    at.scale += p->s_k;
    k += len;
  }
}

void cast_to_fp8(const params_t *p, oi_ctx *ctx) {
  int64_t chunk = oi_max(1, 16 / p->gran_m);
  int64_t blocks = oi_ceil_div(p->m, p->gran_m);
  for (int64_t from; (from = oi_take(ctx, chunk)) < blocks;) {
    for (int64_t i = from; i < oi_min(blocks, from + chunk); i++) cast_blocks(p, i);
  }
  oi_stream_fence();
}

// `len` columns of one row with one scale.
static inline __attribute__((always_inline)) void cast_back(x_t *x, const uint8_t *q, vf scale,
                                                            int64_t len) {
  int64_t k = 0;
  for (; k + OI_VF <= len; k += OI_VF) x_store(x + k, vf_load_e4m3(q + k) * scale);
  if (k == len) return;
  uint8_t codes[OI_VF] = {0};
  x_t values[OI_VF];
  memcpy(codes, q + k, (size_t)(len - k));
  x_store(values, vf_load_e4m3(codes) * scale);
  memcpy(x + k, values, (size_t)(len - k) * sizeof(x_t));
}

void cast_from_fp8(const params_t *p, oi_ctx *ctx) {
  for (int64_t m; (m = oi_take(ctx, 1)) < p->m;) {
    const uint8_t *q = (const uint8_t *)p->data + m * p->ldq;
    x_t *x = (x_t *)p->x + m * p->ldx;
    const float *scale = (const float *)p->scales + m / p->gran_m * p->s_m;
    for (int64_t k = 0; k < p->k; k += p->gran_k, scale += p->s_k) {
      int64_t len = oi_min(p->gran_k, p->k - k);
      if (len == 128) cast_back(x + k, q + k, vf_set(*scale), 128);
      else cast_back(x + k, q + k, vf_set(*scale), len);
    }
  }
}
