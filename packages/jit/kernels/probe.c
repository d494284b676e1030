// What this machine can do at most, for benches to compare with: multiply-adds in registers only,
// and reading memory as a stream. Each thread times itself on its own processor clock, so that a
// thread which others push off its core does not count the time it was away. Sums are written out
// so that nothing is optimised away. Matrix tiles are in probe_tiles.c.
#include <time.h>
#include "oi_kernel.h"
#include "oi_simd.h"

// Enough independent chains to hide the latency of every unit (Intel: 4 cycles × 2 units of FMA,
// 8 × 1/2 of bf16 dot; Neoverse: 4 × 4), few enough to stay in the registers beside two operands.
#if OI_VF == 16 || defined(__aarch64__)
#define CHAINS 24
#else
#define CHAINS 12
#endif

// A line of 64 bytes for each thread.
typedef struct {
  double seconds;        // of this thread's processor time
  double ops_per_round;  // two for a multiply-add; 0: the machine has no such instruction
  double sum;
  double unused[5];
} line_t;

static double thread_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void report(const params_t *p, oi_ctx *ctx, double since, int ops_per_round, float sum) {
  line_t *line = (line_t *)p->lines + ctx->tid;
  line->seconds = thread_seconds() - since;
  line->ops_per_round = ops_per_round;
  line->sum = sum;
}

// `acc` may only be indexed by unrolled loops: one index unknown at compile time, and all chains
// live in memory. And each must be told to stay in its register (gcc 12 otherwise copied those of
// the byte products around and spilled half of them, at half the rate). test/probe.test.ts reads
// the assembly for both.
#define EACH_CHAIN _Pragma("GCC unroll 24") for (int i = 0; i < CHAINS; i++)
#if defined(__x86_64__)
#define IN_REGISTER(x) __asm__ volatile("" : "+v"(x))
#elif defined(__aarch64__)
#define IN_REGISTER(x) __asm__ volatile("" : "+w"(x))
#else
#define IN_REGISTER(x) (void)0
#endif
#define EACH_STEP(x) EACH_CHAIN { acc[i] = (x); IN_REGISTER(acc[i]); }

// p: lines, rounds.
void probe_f32(const params_t *p, oi_ctx *ctx) {
  vf acc[CHAINS];
  EACH_CHAIN acc[i] = vf_set(2.0f + (float)i);
  const vf scale = vf_set(0.999f), step = vf_set(0.001f);
  oi_barrier(ctx);
  double since = thread_seconds();
  for (int64_t n = 0; n < p->rounds; n++) {
    EACH_STEP(acc[i] * scale + step)
  }
  vf sum = vf_zero();
  EACH_CHAIN sum += acc[i];
  report(p, ctx, since, CHAINS * OI_VF * 2, vf_sum(sum));
}

void probe_bf16(const params_t *p, oi_ctx *ctx) {
#if defined(OI_BF16DOT) && !defined(OI_EMULATE_BF16DOT)
  vf acc[CHAINS];
  EACH_CHAIN acc[i] = vf_set(2.0f + (float)i);
  uint16_t small = f32_to_bf16(0.001f + 0.0001f * (float)ctx->tid), pair[2] = {small, small};
  const vbf a = vbf_set_pair(pair);
  oi_barrier(ctx);
  double since = thread_seconds();
  for (int64_t n = 0; n < p->rounds; n++) {
    EACH_STEP(oi_bf16dot(acc[i], a, a))
  }
  vf sum = vf_zero();
  EACH_CHAIN sum += acc[i];
  report(p, ctx, since, CHAINS * OI_VF * 4, vf_sum(sum));
#else
  report(p, ctx, thread_seconds(), 0, 0);
#endif
}

// Sums of four products of bytes, one unsigned and one signed.
void probe_int8(const params_t *p, oi_ctx *ctx) {
#if defined(__AVX512VNNI__)
  __m512i acc[CHAINS];
  EACH_CHAIN acc[i] = _mm512_set1_epi32(i);
  const __m512i a = _mm512_set1_epi8((char)(1 + ctx->tid % 3));
  oi_barrier(ctx);
  double since = thread_seconds();
  for (int64_t n = 0; n < p->rounds; n++) {
    EACH_STEP(_mm512_dpbusd_epi32(acc[i], a, a))
  }
  __m512i sum = _mm512_setzero_si512();
  EACH_CHAIN sum = _mm512_xor_si512(sum, acc[i]);
  report(p, ctx, since, CHAINS * 64 * 2, (float)_mm512_reduce_add_epi32(sum));
#else
  report(p, ctx, thread_seconds(), 0, 0);
#endif
}

enum { BLOCKS_PER_TAKE = 1 << 11 };  // 1 MiB

// AHEAD is how far software prefetch runs before the loads, in bytes; 0 leaves it to the hardware.
// p: lines, data, blocks of 512 bytes.
void probe_read(const params_t *p, oi_ctx *ctx) {
  vu acc[4] = {0};
  const char *data = p->data;
  oi_barrier(ctx);
  double since = thread_seconds();
  for (int64_t at; (at = oi_take(ctx, BLOCKS_PER_TAKE)) < p->blocks;) {
    const int64_t end = oi_min(at + BLOCKS_PER_TAKE, p->blocks);
    for (const char *from = data + at * 512; from < data + end * 512; from += 512) {
#if AHEAD > 0
#pragma GCC unroll 8
      for (int i = 0; i < 512; i += 64) __builtin_prefetch(from + i + AHEAD);
#endif
#pragma GCC unroll 32
      for (int i = 0; i < (int)(512 / sizeof(vu)); i++) {
        vu v; memcpy(&v, from + i * sizeof(vu), sizeof v);
        acc[i % 4] |= v;
      }
    }
  }
  vu all = acc[0] | acc[1] | acc[2] | acc[3];
  uint32_t bits = 0;
  for (int i = 0; i < OI_VF; i++) bits |= all[i];
  report(p, ctx, since, 1, (float)bits);
}
