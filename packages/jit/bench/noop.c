// A kernel that does nothing, for launch.bench.ts: what is left is the launch.
#include "oi_kernel.h"

void noop(const params_t *p, oi_ctx *ctx) {
  (void)p;
  (void)ctx;
}

int64_t bare(const void *block) {
  (void)block;
  return 0;
}
