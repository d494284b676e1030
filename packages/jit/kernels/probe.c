// What this machine can do at most, for benches to compare with: multiply-adds in registers only,
// and reading memory as a stream. Sums are written out so that nothing is optimised away.
#include "oi_kernel.h"
#include "oi_simd.h"

// Enough independent chains to hide the latency of two FMA pipes, few enough for the registers.
#if OI_VF == 16
#define CHAINS 24
#else
#define CHAINS 12
#endif

#if defined(OI_BF16DOT) && !defined(OI_EMULATE_BF16DOT)
#define HAS_BF16 1
#else
#define HAS_BF16 0
#endif

// What each thread writes on its own cache line of sums.
static void report(const params_t *p, oi_ctx *ctx, float sum, int flops_per_round) {
  float *line = (float *)p->sums + ctx->tid * 16;
  line[0] = sum;
  line[1] = (float)flops_per_round;
  line[2] = HAS_BF16;
}

// p: sums, rounds.
void probe_f32(const params_t *p, oi_ctx *ctx) {
  vf acc[CHAINS];
  for (int i = 0; i < CHAINS; i++) acc[i] = vf_set(2.0f + (float)i);
  const vf scale = vf_set(0.999f), step = vf_set(0.001f);
  for (int64_t n = 0; n < p->rounds; n++) {
#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; i++) acc[i] = acc[i] * scale + step;
  }
  vf sum = vf_zero();
  for (int i = 0; i < CHAINS; i++) sum += acc[i];
  report(p, ctx, vf_sum(sum), CHAINS * OI_VF * 2);
}

#if HAS_BF16
void probe_bf16(const params_t *p, oi_ctx *ctx) {
  vf acc[CHAINS];
  for (int i = 0; i < CHAINS; i++) acc[i] = vf_set(2.0f + (float)i);
  uint16_t small = f32_to_bf16(0.001f + 0.0001f * (float)ctx->tid), pair[2] = {small, small};
  const vbf a = vbf_set_pair(pair);
  for (int64_t n = 0; n < p->rounds; n++) {
#pragma GCC unroll 24
    for (int i = 0; i < CHAINS; i++) acc[i] = oi_bf16dot(acc[i], a, a);
  }
  vf sum = vf_zero();
  for (int i = 0; i < CHAINS; i++) sum += acc[i];
  report(p, ctx, vf_sum(sum), CHAINS * OI_VF * 4);
}
#endif

enum { LINES_PER_TAKE = 1 << 14 };  // 1 MiB

// p: data, lines of 64 bytes (a multiple of 8), sums.
void probe_read(const params_t *p, oi_ctx *ctx) {
  vu acc[4] = {0};
  const char *data = p->data;
  for (int64_t at; (at = oi_take(ctx, LINES_PER_TAKE)) < p->lines;) {
    int64_t end = oi_min(at + LINES_PER_TAKE, p->lines);
    const char *from = data + at * 64, *to = data + end * 64;
    for (; from + 512 <= to; from += 512) {
#pragma GCC unroll 16
      for (int i = 0; i < (int)(512 / sizeof(vu)); i++) {
        vu v; memcpy(&v, from + i * sizeof(vu), sizeof v);
        acc[i % 4] |= v;
      }
    }
  }
  vu all = acc[0] | acc[1] | acc[2] | acc[3];
  uint32_t bits = 0;
  for (int i = 0; i < OI_VF; i++) bits |= all[i];
  report(p, ctx, (float)bits, 0);
}
