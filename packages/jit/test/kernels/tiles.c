// oi_tiles.h for tiles.test.ts: sums[i] += left[i] · right[i] for n products of whole tiles, with a
// use of other tiles in between.
#include "oi_kernel.h"
#include "oi_tiles.h"

void tiles(const params_t *p, oi_ctx *ctx) {
#if defined(OI_TILES)
  oi_tiles_begin();
  for (int64_t i; (i = oi_take(ctx, 1)) < p->n;) {
    const uint16_t *left = (const uint16_t *)p->left + i * 512;
    const uint16_t *right = (const uint16_t *)p->right + i * 512;
    float *sums = (float *)p->sums + i * 256;
    oi_tile_load(0, sums, 64);
    oi_tile_zero(1);
    oi_tile_load(4, left, 64);
    oi_tile_load_once(6, right, 64);
    oi_tile_dot_bf16(1, 6, 4);
    oi_tile_dot_bf16(0, 4, 6);
    oi_tile_store(0, sums, 64);
  }
  oi_tiles_end();
#endif
  (void)p, (void)ctx;
}

// 16 × 16 words transposed.
void transposed(const params_t *p, oi_ctx *ctx) {
  (void)ctx;
#if defined(__AVX512F__)
  __m512i rows[16];
  for (int i = 0; i < 16; i++) rows[i] = _mm512_loadu_si512((const char *)p->left + 64 * i);
  oi_transpose_16x16(rows);
  for (int i = 0; i < 16; i++) _mm512_storeu_si512((char *)p->sums + 64 * i, rows[i]);
#endif
}
