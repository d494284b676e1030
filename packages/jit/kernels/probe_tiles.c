// What the matrix tiles of this machine (Intel AMX) reach in registers, whatever instruction set
// the device has. A file of its own, because older compilers cannot assemble it. Where there are
// no tiles, or the system does not grant them, it reports none.
#include <string.h>
#include <time.h>
#include "oi_kernel.h"
#include "oi_tiles_grant.h"

// As in probe.c.
typedef struct {
  double seconds, ops_per_round, sum, unused[5];
} line_t;

#if defined(__x86_64__) && defined(__linux__)
static double thread_seconds(void) {
  struct timespec t;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

#define TILES __attribute__((target("amx-tile,amx-bf16,amx-int8")))

// Eight tiles of 16 rows of 64 bytes, as `ldtilecfg` reads it.
typedef struct {
  uint8_t palette, start_row, reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
} tile_config;

TILES static void configure(void) {
  tile_config config;
  memset(&config, 0, sizeof config);
  config.palette = 1;
  for (int i = 0; i < 8; i++) config.row_bytes[i] = 64, config.rows[i] = 16;
  __asm__ volatile("ldtilecfg %0" : : "m"(config));
  __asm__ volatile(
      "tilezero %%tmm0\n\ttilezero %%tmm1\n\ttilezero %%tmm2\n\ttilezero %%tmm3\n\t"
      "tilezero %%tmm4\n\ttilezero %%tmm5\n\ttilezero %%tmm6\n\ttilezero %%tmm7" ::);
}

// Four accumulators of 2 × 2 operands: as much as eight tiles hold, enough to hide the latency.
#define FOUR(instruction)                                                                \
  __asm__ volatile(instruction " %%tmm6, %%tmm4, %%tmm0\n\t" instruction                 \
                               " %%tmm7, %%tmm4, %%tmm1\n\t" instruction                 \
                               " %%tmm6, %%tmm5, %%tmm2\n\t" instruction                 \
                               " %%tmm7, %%tmm5, %%tmm3" ::)

TILES static void bf16_rounds(int64_t rounds) {
  for (int64_t n = 0; n < rounds; n++) FOUR("tdpbf16ps");
}

TILES static void int8_rounds(int64_t rounds) {
  for (int64_t n = 0; n < rounds; n++) FOUR("tdpbssd");
}

TILES static void release(void) { __asm__ volatile("tilerelease" ::); }

static void measure(const params_t *p, oi_ctx *ctx, void (*run)(int64_t), int ops) {
  line_t *line = (line_t *)p->lines + ctx->tid;
  line->ops_per_round = 0;
  int may = oi_tiles_grant() == OI_TILES_GRANTED;
  oi_barrier(ctx);
  if (!may) return;
  configure();
  double since = thread_seconds();
  run(p->rounds);
  line->seconds = thread_seconds() - since;
  line->ops_per_round = ops;
  release();
}

// p: lines, rounds. 16 × 16 sums of 32 products of bf16, or of 64 of bytes, an instruction.
void probe_tiles_bf16(const params_t *p, oi_ctx *ctx) {
  measure(p, ctx, bf16_rounds, 4 * 16 * 16 * 32 * 2);
}
void probe_tiles_int8(const params_t *p, oi_ctx *ctx) {
  measure(p, ctx, int8_rounds, 4 * 16 * 16 * 64 * 2);
}

#else
void probe_tiles_bf16(const params_t *p, oi_ctx *ctx) {
  ((line_t *)p->lines + ctx->tid)->ops_per_round = 0;
}
void probe_tiles_int8(const params_t *p, oi_ctx *ctx) { probe_tiles_bf16(p, ctx); }
#endif
