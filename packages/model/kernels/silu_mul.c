// out[m] = silu(x[m][0 … n)) · x[m][up … up + n): the gate of SwiGLU, element by element.
#include "rows.h"

enum { TILE = 1024 };

static void tile(out_t *out, const float *gate, const float *up, int64_t n) {
  int64_t i = 0;
  for (; i + OI_VF <= n; i += OI_VF) {
    vf g = vf_load(gate + i);
    vf y = g / (vf_set(1.0f) + vf_exp(-g)) * vf_load(up + i);
    out_store(out + i, y);
  }
  if (i < n) {
    // The same arithmetic on a padded vector, so that a value never depends on its column.
    float g[OI_VF] = {0}, u[OI_VF] = {0}, y[OI_VF];
    memcpy(g, gate + i, (size_t)(n - i) * sizeof(float));
    memcpy(u, up + i, (size_t)(n - i) * sizeof(float));
    vf v = vf_load(g);
    vf_store(y, v / (vf_set(1.0f) + vf_exp(-v)) * vf_load(u));
    for (int64_t k = 0; i < n; i++, k++) out_store1(out + i, y[k]);
  }
}

void silu_mul(const params_t *p, oi_ctx *ctx) {
  int64_t tiles = oi_ceil_div(p->n, TILE);
  for (int64_t at; (at = oi_take(ctx, 1)) < p->rows * tiles;) {
    int64_t row = at / tiles, from = at % tiles * TILE;
    const float *x = (const float *)p->x + row * p->x_stride + from;
    tile((out_t *)p->out + row * p->n + from, x, x + p->up_offset, oi_min(TILE, p->n - from));
  }
}
