// Float matrices to e4m3 with a scale for each column of a block of gran_m rows: what is summed
// along the rows of x (weight gradients, groups along K) needs its scales there. Columns lie across
// the lanes. The arithmetic is cast.c's.
#include "cast_wide.h"
#include "fp8_scale.h"

enum { STRIP = 16 };  // vectors of columns that are done together

static vf scales_of(vu largest, int ue8m0) {
  float scales[OI_VF];
  memcpy(scales, &largest, sizeof scales);
  for (int i = 0; i < OI_VF; i++) {
    int nan = scales[i] != scales[i];
    scales[i] = nan ? __builtin_nanf("") : fp8_scale(scales[i], ue8m0);
  }
  return vf_load(scales);
}

// Codes of `count` ≤ OI_VF columns of one row.
static inline void store_codes(uint8_t *q, int64_t step, vu8 codes, int64_t count) {
  if (step == 1) {
    codes_store(q, &codes, count, OI_VF);
    return;
  }
  for (int64_t i = 0; i < count; i++) q[i * step] = codes[i];
}

// `rows` rows from row m0 of `columns` ≤ STRIP · OI_VF columns from column c0.
static void cast_strip(const params_t *p, int64_t m0, int64_t rows, int64_t c0, int64_t columns) {
  const x_t *x = (const x_t *)p->x + m0 * p->ldx + c0;
  uint8_t *q = (uint8_t *)p->data + m0 * p->q_row + c0 * p->q_col;
  float *scales = (float *)p->scales + m0 / p->gran_m * p->s_m + c0 * p->s_c;
  int64_t vectors = oi_ceil_div(columns, OI_VF);
  vf inverse[STRIP];
  vu largest[STRIP] = {0};
  for (int64_t m = 0; m < rows; m++) {
    for (int64_t v = 0; v < vectors; v++) {
      const x_t *at = x + m * p->ldx + v * OI_VF;
      // The next strip's part of this row: strips are too narrow for memory to run ahead.
      if (v * OI_VF * sizeof(x_t) % 64 == 0) __builtin_prefetch(at + STRIP * OI_VF, 0, 2);
      vf y = x_load_part(at, columns - v * OI_VF);
      largest[v] = larger_magnitude(largest[v], y);
    }
  }
  for (int64_t v = 0; v < vectors; v++) {
    vf scale = scales_of(largest[v], (int)p->ue8m0);
    inverse[v] = vf_set(1.0f) / scale;
    for (int64_t i = 0; i < oi_min(OI_VF, columns - v * OI_VF); i++) {
      scales[(v * OI_VF + i) * p->s_c] = scale[i];
    }
  }
  for (int64_t m = 0; m < rows; m++) {
    for (int64_t v = 0; v < vectors; v++) {
      int64_t left = columns - v * OI_VF;
      vf y = x_load_part(x + m * p->ldx + v * OI_VF, left);
      store_codes(q + m * p->q_row + v * OI_VF * p->q_col, p->q_col,
                  vf_to_e4m3_bits(y * inverse[v]), oi_min(OI_VF, left));
    }
  }
}

#if CAST_WIDE
enum { WIDE = STRIP * OI_VF };  // columns of a strip

// A whole strip whose codes are adjacent; 0 if some number is not finite.
static int cast_strip_wide(const params_t *p, int64_t m0, int64_t rows, int64_t c0) {
  const x_t *x = (const x_t *)p->x + m0 * p->ldx + c0;
  uint8_t *q = (uint8_t *)p->data + m0 * p->q_row + c0;
  float *scales = (float *)p->scales + m0 / p->gran_m * p->s_m + c0 * p->s_c;
  __m512i largest[WIDE / 32][X_TYPE == 0 ? 2 : 1];
  memset(largest, 0, sizeof largest);
  for (int64_t m = 0; m < rows; m++) {
    const x_t *from = x + m * p->ldx;
    for (int v = 0; v < WIDE / 32; v++) {
      columns_larger(largest[v], from + v * 32);
    }
  }
  float each[WIDE], inverses[WIDE];
  int finite = 1;
  for (int v = 0; v < WIDE / 32; v++) columns_numbers(largest[v], each + v * 32);
  for (int i = 0; i < WIDE; i += 16) {
    __m512 amax = _mm512_loadu_ps(each + i);
    finite &= all_finite(amax);
    __m512 scale = wide_scales(amax, 448.0f, (int)p->ue8m0);
    _mm512_storeu_ps(each + i, scale);
    _mm512_storeu_ps(inverses + i, wide_inverses(scale));
  }
  if (!finite) return 0;
  for (int i = 0; i < WIDE; i += 16) {
    scales_store(scales + i * p->s_c, p->s_c, _mm512_loadu_ps(each + i), 16);
  }
  wide_t factors[WIDE / 32];
  for (int v = 0; v < WIDE / 32; v++) {
    const float *at = inverses + v * 32;
    factors[v] = wide_of(_mm512_loadu_ps(at), _mm512_loadu_ps(at + 16));
  }
  for (int64_t m = 0; m < rows; m++) {
    const x_t *from = x + m * p->ldx;
    uint8_t *to = q + m * p->q_row;
    int stream = fills_lines(p, to);
    for (int v = 0; v < WIDE / 32; v += 2) {
      const wide_t *f = factors + v;
      // The next strip's part of this row: strips are too narrow for memory to run ahead.
      wide_prefetch(from + WIDE + v * 32);
      wide_prefetch(from + WIDE + v * 32 + 32);
      wide_t a = wide_times(wide_load(from + v * 32), f[0].even, f[0].odd);
      wide_t b = wide_times(wide_load(from + v * 32 + 32), f[1].even, f[1].odd);
      wide_store(to + v * 32, e4m3_codes(a, b), stream);
    }
  }
  return 1;
}
#endif

void cast_channels(const params_t *p, oi_ctx *ctx) {
  int64_t strips = oi_ceil_div(p->n, STRIP * OI_VF);
  int64_t blocks = oi_ceil_div(p->m, p->gran_m);
  for (int64_t i; (i = oi_take(ctx, 1)) < blocks * strips;) {
    int64_t m0 = i / strips * p->gran_m, c0 = i % strips * (STRIP * OI_VF);
    int64_t rows = oi_min(p->gran_m, p->m - m0), columns = oi_min(STRIP * OI_VF, p->n - c0);
#if CAST_WIDE
    if (columns == WIDE && p->q_col == 1 && cast_strip_wide(p, m0, rows, c0)) continue;
#endif
    cast_strip(p, m0, rows, c0, columns);
  }
  oi_stream_fence();
}
