// A kernel that does nothing, for launch.bench.ts: what is left of a product is its launch.
#include "oi_kernel.h"

void empty(const params_t *p, oi_ctx *ctx) {
  (void)p;
  (void)ctx;
}

int64_t bare(const void *block) {
  (void)block;
  return 0;
}
