// Gives the pages of free ranges back to the system; they read as zero when touched again. Memory
// is shared, so the pages go for all ranks that map them.
#include "ep_common.h"
#if defined(__linux__)
#include <sys/mman.h>
#endif

void ep_trim(const params_t *p, oi_ctx *ctx) {
  if (ctx->tid != 0) return;
#if defined(__linux__)
  const int64_t *range = p->ranges;
  for (int64_t i = 0; i < p->count; i++, range += 2)
    madvise((void *)(intptr_t)range[0], (size_t)range[1], MADV_REMOVE);
#else
  (void)p;
#endif
}
