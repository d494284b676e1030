// What happens to finished sums on their way to D: scaled, biased, gated, added to C, and rounded
// or requantised. Everything is element by element or within a row, so rows stay independent.
#pragma once
#include "fp8_scale.h"
#include "elements.h"

enum {
  MAX_UNIT_ROWS = 192,
  MAX_UNIT_COLS = TILES ? 512 : 256,  // 128 where columns come in pairs, or with their own scale
  // Where the sums of the second strip of a gated unit begin, and those of the next row: a tile may
  // write past the columns that are wanted.
  STRIP_COLS = 128 + 16,
  SUM_STRIDE = TILES ? MAX_UNIT_COLS + 16 : 2 * STRIP_COLS,
  QUANTISED_COLS = 128,  // columns that share a scale of a requantised D
};

// p->extra: doubles, laid out by gemm-operation.ts; there only where EPILOGUE is set.
enum {
  EXTRA_ALPHA,
  EXTRA_GATED,  // columns j and j + N / 2 are a gate and its value
  EXTRA_CLAMP,  // of gate and value; infinite for none
  EXTRA_UE8M0,
  EXTRA_BIAS_SLAB,
  EXTRA_HEAD_LEFT,  // columns of D: left, gap, right, left, gap, right, …; no gap if zero
  EXTRA_HEAD_MID,
  EXTRA_HEAD_RIGHT,
  EXTRA_SD_ROW,
  EXTRA_SD_COL,
  EXTRA_SD_SLAB,
};

static inline double extra(const params_t *p, int field) {
  return ((const double *)p->extra)[field];
}
static inline int is_gated(const params_t *p) { return EPILOGUE && extra(p, EXTRA_GATED) != 0; }

#if D_TYPE == TYPE_F32
static inline vf d_load(const d_t *p) { return vf_load(p); }
static inline void d_store(d_t *p, vf x) { vf_store(p, x); }
#elif D_TYPE == TYPE_BF16
static inline vf d_load(const d_t *p) { return vf_load_bf16(p); }
static inline void d_store(d_t *p, vf x) { vf_store_bf16(p, x); }
#elif D_TYPE == TYPE_F16
static inline vf d_load(const d_t *p) { return vf_load_f16(p); }
static inline void d_store(d_t *p, vf x) { vf_store_f16(p, x); }
#else
static inline vf d_load(const d_t *p) { return vf_load_e4m3(p); }
static inline void d_store(d_t *p, vf x) { vf_store_e4m3_sat(p, x); }
#endif

// `count` sums, plus C where there is one, rounded to D.
static void write_run(d_t *d, const d_t *c, const float *sums, int64_t count) {
  for (int64_t j = 0; j < count; j += OI_VF) {
    vf x = vf_load(sums + j);
    if (j + OI_VF <= count) {
      d_store(d + j, c == NULL ? x : x + d_load(c + j));
      continue;
    }
    d_t part[OI_VF] = {0};
    size_t bytes = (size_t)(count - j) * sizeof(d_t);
    if (c != NULL) memcpy(part, c + j, bytes);
    d_store(part, c == NULL ? x : x + d_load(part));
    memcpy(d + j, part, bytes);
  }
}

// A row of `cols` columns from `col` on, with the gaps between heads left out.
static void write_heads(const params_t *p, d_t *d, const d_t *c, const float *sums, int64_t col,
                        int64_t cols) {
  int64_t left = (int64_t)extra(p, EXTRA_HEAD_LEFT), mid = (int64_t)extra(p, EXTRA_HEAD_MID);
  int64_t head = left + (int64_t)extra(p, EXTRA_HEAD_RIGHT);
  for (int64_t j = 0, count; j < cols; j += count) {
    int64_t at = (col + j) % head;
    count = oi_min(cols - j, at < left ? left - at : head - at);
    int64_t to = (col + j) / head * (head + mid) + at + (at < left ? 0 : mid);
    write_run(d + to, c == NULL ? NULL : c + to, sums + j, count);
  }
}

// A row of codes with a scale for each QUANTISED_COLS columns, as the cast of a row would give.
static void write_quantised(const params_t *p, uint8_t *d, float *scales, const float *sums,
                            int64_t cols) {
  for (int64_t from = 0; from < cols; from += QUANTISED_COLS) {
    int64_t end = oi_min(cols, from + QUANTISED_COLS);
    float amax = 0;
    int nan = 0;
    for (int64_t j = from; j < end; j++) {
      float x = __builtin_fabsf(sums[j]);
      nan |= x != x;
      amax = x > amax ? x : amax;
    }
    float scale = nan ? __builtin_nanf("") : fp8_scale(amax, extra(p, EXTRA_UE8M0) != 0);
    scales[from / QUANTISED_COLS * (int64_t)extra(p, EXTRA_SD_COL)] = scale;
    vf inverse = vf_set(1.0f / scale);
    for (int64_t j = from; j < end; j += OI_VF) {
      vu8 codes = vf_to_e4m3_bits(vf_load(sums + j) * inverse);
      memcpy(d + j, &codes, (size_t)oi_min(OI_VF, end - j));
    }
  }
}

static inline vf clamp(vf x, vf low, vf high) {
  vf y = vf_select((vi)(x > high), high, x);
  return vf_select((vi)(y < low), low, y);
}

// A row's sums and, STRIP_COLS further, those of a gated unit's second strip, up to C. `col` is the
// row's first column in D; the bias of gated columns j is at j and j + gate.
static void transform_row(const params_t *p, float *sums, int64_t group, int64_t col, int64_t cols,
                          int64_t gate) {
  vf alpha = vf_set((float)extra(p, EXTRA_ALPHA));
  vf high = vf_set((float)extra(p, EXTRA_CLAMP)), low = -high;
  vf lowest = vf_set(-__builtin_inff());
  const float *bias = p->bias;
  if (bias != NULL) bias += group * (int64_t)extra(p, EXTRA_BIAS_SLAB) + col;
  for (int64_t strip = 0; strip < (gate > 0 ? 2 : 1); strip++) {
    float *at = sums + strip * STRIP_COLS;
    for (int64_t j = 0; j < cols; j += OI_VF) {
      vf x = vf_load(at + j) * alpha;
      if (bias != NULL) {
        float part[OI_VF] = {0};
        memcpy(part, bias + strip * gate + j, (size_t)oi_min(OI_VF, cols - j) * sizeof(float));
        x = x + vf_load(part);
      }
      vf_store(at + j, x);
    }
  }
  for (int64_t j = 0; gate > 0 && j < cols; j += OI_VF) {
    vf x = clamp(vf_load(sums + j), lowest, high);
    vf y = clamp(vf_load(sums + STRIP_COLS + j), low, high);
    vf_store(sums + j, x / (vf_set(1.0f) + vf_exp(-x)) * y);
  }
}
