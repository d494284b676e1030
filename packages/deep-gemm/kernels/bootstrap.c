#include "oi_kernel.h"
#include "oi_simd.h"
#define KB 128
static float get(const void *p, int64_t i, int type) {
  if (type == 0) return ((const float *)p)[i];
  if (type == 1) return bf16_to_f32(((const uint16_t *)p)[i]);
  return 0;
}
static void row(const void *p, int64_t at, int type, int64_t n, float *out) {
  int64_t i = 0;
  for (; i + OI_VF <= n; i += OI_VF) {
    vf v;
    if (type == 0) v = vf_load((const float *)p + at + i);
    else if (type == 1) v = vf_load_bf16((const uint16_t *)p + at + i);
    else if (type == 2) v = vf_load_f16((const uint16_t *)p + at + i);
    else v = vf_load_e4m3((const uint8_t *)p + at + i);
    vf_store(out + i, v);
  }
  if (i < n) {
    uint8_t tail[OI_VF * 4] = {0};
    int w = type == 0 ? 4 : type == 3 ? 1 : 2;
    memcpy(tail, (const char *)p + (at + i) * w, (n - i) * w);
    vf v;
    if (type == 0) v = vf_load((const float *)tail);
    else if (type == 1) v = vf_load_bf16((const uint16_t *)tail);
    else if (type == 2) v = vf_load_f16((const uint16_t *)tail);
    else v = vf_load_e4m3(tail);
    vf_store(out + i, v);
  }
}
void gemm(const params_t *p, oi_ctx *ctx) {
  float a[KB + OI_VF], b[KB + OI_VF];
  (void)get;
  for (int64_t m; (m = oi_take(ctx, 1)) < p->m;) {
    const int32_t *off = p->offsets;
    int64_t g = 0;
    if (off) while (g < p->g && m >= off[g + 1]) g++;
    for (int64_t h = 0; h < p->h; h++) for (int64_t n = 0; n < p->n; n++) {
      float sum = 0;
      int64_t gg = off ? g : h;
      for (int64_t k = 0; k < p->k; k += KB) {
        int64_t w = oi_min(KB, p->k - k);
        row(p->a, m * p->lda + h * p->ha + k, TA, w, a);
        row(p->b, gg * p->gb + n * p->ldb + k, TB, w, b);
        vf acc = vf_zero();
        for (int64_t i = 0; i < w; i += OI_VF) acc = vf_fma(vf_load(a + i), vf_load(b + i), acc);
        float s = vf_sum(acc);
        if (p->sa) s *= ((const float *)p->sa)[m * p->ksa + k / 128];
        if (p->sb) s *= ((const float *)p->sb)[gg * p->gsb + (n / 128) * p->ksb + k / 128];
        sum += s;
      }
      int64_t at = m * p->ldd + h * p->hd + n;
      if (TD == 0) ((float *)p->d)[at] = sum; else ((uint16_t *)p->d)[at] = f32_to_bf16(sum);
    }
  }
}
