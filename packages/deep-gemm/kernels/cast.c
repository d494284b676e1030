// Float matrices to e4m3 with a scale per block of GRAN_M rows × gran_k columns, and back. The
// cast's arithmetic is the original's, one float32 rounding per step, so that codes agree byte for
// byte: scale = max(|x|, 1e-4) / 448, code = round(x · (1 / scale)).
#include "cast_types.h"
#include "fp8_scale.h"

static void cast_block(const params_t *p, int64_t m0, int64_t rows, int64_t k0, int64_t len) {
  const x_t *x = (const x_t *)p->x + m0 * p->ldx + k0;
  uint8_t *q = (uint8_t *)p->data + m0 * p->ldq + k0;
  vf largest = vf_zero();
  vi nan = {0};
  for (int64_t m = 0; m < rows; m++) {
    for (int64_t k = 0; k < len; k += OI_VF) {
      vf v = x_load_part(x + m * p->ldx + k, len - k);
      nan |= (vi)(v != v);
      largest = vf_max(largest, vf_max(v, -v));
    }
  }
  int any = 0;
  for (int i = 0; i < OI_VF; i++) any |= nan[i];
  float scale = any ? __builtin_nanf("") : fp8_scale(vf_hmax(largest), (int)p->ue8m0);
  vf inverse = vf_set(1.0f / scale);
  ((float *)p->scales)[m0 / p->gran_m * p->s_m + k0 / p->gran_k * p->s_k] = scale;
  for (int64_t m = 0; m < rows; m++) {
    for (int64_t k = 0; k < len; k += OI_VF) {
      vu8 codes = vf_to_e4m3_bits(x_load_part(x + m * p->ldx + k, len - k) * inverse);
      memcpy(q + m * p->ldq + k, &codes, (size_t)oi_min(OI_VF, len - k));
    }
  }
}

void cast_to_fp8(const params_t *p, oi_ctx *ctx) {
  int64_t chunk = oi_max(1, 16 / p->gran_m);
  int64_t blocks = oi_ceil_div(p->m, p->gran_m);
  for (int64_t from; (from = oi_take(ctx, chunk)) < blocks;) {
    for (int64_t i = from; i < oi_min(blocks, from + chunk); i++) {
      int64_t m0 = i * p->gran_m, rows = oi_min(p->gran_m, p->m - m0);
      for (int64_t k = 0; k < p->k; k += p->gran_k) {
        cast_block(p, m0, rows, k, oi_min(p->gran_k, p->k - k));
      }
    }
  }
}

void cast_from_fp8(const params_t *p, oi_ctx *ctx) {
  for (int64_t m; (m = oi_take(ctx, 1)) < p->m;) {
    const uint8_t *q = (const uint8_t *)p->data + m * p->ldq;
    x_t *x = (x_t *)p->x + m * p->ldx;
    const float *scales = (const float *)p->scales + m / p->gran_m * p->s_m;
    for (int64_t k0 = 0; k0 < p->k; k0 += p->gran_k) {
      vf scale = vf_set(scales[k0 / p->gran_k * p->s_k]);
      int64_t len = oi_min(p->gran_k, p->k - k0);
      for (int64_t k = 0; k < len; k += OI_VF) {
        int64_t n = oi_min(OI_VF, len - k);
        uint8_t codes[OI_VF] = {0};
        memcpy(codes, q + k0 + k, (size_t)n);
        x_t values[OI_VF];
        x_store(values, vf_load_e4m3(codes) * scale);
        memcpy(x + k0 + k, values, (size_t)n * sizeof(x_t));
      }
    }
  }
}
